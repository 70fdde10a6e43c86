//! What clients do: one thing after the other each, at whichever member.

use super::{
    calls::{Ask, pick},
    checkers::Violation,
    plan::S,
    world::{Event, World},
};
use crate::{
    io::Rng,
    machine::{Command, Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Txn},
    mvcc::{KeyValue, RangeQuery},
    types::{Key, KeyRange, LeaseId, MemberId, Revision},
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A client between two calls.
#[derive(Default)]
pub struct Client {
    /// Under way.
    pub call: Option<u64>,
    /// The newest revision that it has seen of a life of a member.
    pub seen: BTreeMap<(MemberId, u64), Revision>,
    /// What it has read of keys, to compare with.
    pub known: BTreeMap<Key, KeyValue>,
    /// Its leases.
    leases: Vec<LeaseId>,
}

impl World {
    /// A client does the next thing; or gives up what it waits for.
    pub fn client(&mut self, number: usize) -> Result<(), Violation> {
        if let Some(call) = self.clients[number].call {
            if self.calls.contains_key(&call) {
                self.hang_up(call);
            }
            return Ok(());
        }
        if self.healed {
            return Ok(());
        }
        let running = (0..self.hosts.len()).filter(|at| self.hosts[*at].up.is_some()).collect::<Vec<_>>();
        let Some(at) = pick(&mut self.chance, &running) else {
            self.after(S / 10, Event::Client { number });
            return Ok(());
        };
        let ask = self.ask(number);
        let call = self.call(at, Some(number), ask);
        self.clients[number].call = Some(call);
        if self.chance.hits(1, 15) {
            // So long it will wait, and no longer.
            let patience = self.chance.between(1, 2 * S);
            self.after(patience, Event::Client { number });
        }
        self.arm(at);
        Ok(())
    }

    /// A client has a new lease.
    pub fn client_has(&mut self, client: Option<usize>, id: LeaseId) {
        if let Some(client) = client {
            self.clients[client].leases.push(id);
        }
    }

    fn ask(&mut self, client: usize) -> Ask {
        let leases = self.clients[client].leases.clone();
        let lease = pick(&mut self.chance, &leases);
        match (self.chance.below(20), lease) {
            (0..=4, _) => Ask::Write(Command::Put(self.put(lease))),
            (5, _) => Ask::Write(Command::DeleteRange(self.delete())),
            (6..=7, _) => Ask::Write(Command::Txn(self.swap(client))),
            (8, _) => Ask::Write(Command::Txn(self.many(lease))),
            (9..=11, _) => Ask::Read(self.query()),
            (12..=13, _) => Ask::ReadLocally(self.query()),
            (14, _) => {
                let newest = self.checkers.floor.revision.0;
                let revision = Revision(newest - self.chance.below(20) as i64);
                match self.chance.hits(1, 3) {
                    true => Ask::Write(Command::Compact { revision, physical: false }),
                    false => Ask::Read(RangeQuery { revision, ..self.query() }),
                }
            }
            (15, Some(id)) if self.chance.hits(1, 4) => {
                self.clients[client].leases.retain(|other| *other != id);
                Ask::Revoke(id)
            }
            (16, Some(id)) => Ask::Remaining(id),
            (17..=19, Some(id)) if self.chance.hits(3, 4) => Ask::Renew(id),
            // Rarely one that is so long that its remaining time is written down.
            _ => Ask::Grant(if self.chance.hits(1, 10) { 1_000 } else { self.chance.between(0, 5) as i64 }),
        }
    }

    pub(super) fn key(&mut self) -> Key {
        Key::from(format!("k{}", self.chance.below(self.plan.keys)))
    }

    /// A value that was never written before.
    pub(super) fn value(&mut self) -> Bytes {
        self.next_value += 1;
        let mut value = format!("v{}", self.next_value);
        value.extend(std::iter::repeat_n('.', self.chance.below(40) as usize));
        value.into()
    }

    fn put(&mut self, lease: Option<LeaseId>) -> Put {
        let lease = lease.filter(|_| self.chance.hits(1, 3)).unwrap_or(LeaseId::NONE);
        let (ignore_value, ignore_lease) = (self.chance.hits(1, 15), self.chance.hits(1, 15));
        let value = if ignore_value { Bytes::new() } else { self.value() };
        let lease = if ignore_lease { LeaseId::NONE } else { lease };
        Put { key: self.key(), value, lease, prev_kv: self.chance.hits(1, 2), ignore_value, ignore_lease }
    }

    fn delete(&mut self) -> DeleteRange {
        let range = match self.chance.hits(1, 4) {
            true => self.range(),
            false => KeyRange::One(self.key()),
        };
        DeleteRange { range, prev_kv: self.chance.hits(1, 2) }
    }

    pub(super) fn range(&mut self) -> KeyRange {
        match self.chance.below(3) {
            0 => KeyRange::One(self.key()),
            1 => KeyRange::From(self.key()),
            _ => {
                let (start, end) = (self.key(), self.key());
                KeyRange::Span { start: start.clone().min(end.clone()), end: start.max(end) }
            }
        }
    }

    fn query(&mut self) -> RangeQuery {
        let limit = if self.chance.hits(1, 4) { 2 } else { 0 };
        RangeQuery { limit, ..RangeQuery::new(self.range()) }
    }

    /// Writes if a key is still as the client knows it.
    fn swap(&mut self, client: usize) -> Txn {
        let key = self.key();
        let known = self.clients[client].known.get(&key).cloned();
        let target = match known {
            Some(known) if self.chance.hits(1, 2) => CompareTarget::Value(known.value),
            Some(known) => CompareTarget::Mod(known.mod_revision.0),
            None => CompareTarget::Create(0),
        };
        let compare = Compare { range: KeyRange::One(key.clone()), target, result: CompareResult::Equal };
        let put = Put { key: key.clone(), value: self.value(), ..Put::default() };
        let look = RangeQuery::new(KeyRange::One(key));
        Txn { compares: vec![compare], success: vec![Op::Put(put)], failure: vec![Op::Range(look)] }
    }

    /// Several keys at one revision. No key twice: that is refused before it gets here.
    fn many(&mut self, lease: Option<LeaseId>) -> Txn {
        let deleted = self.key();
        let mut ops = vec![Op::Range(self.query())];
        ops.push(Op::DeleteRange(DeleteRange { range: KeyRange::One(deleted.clone()), prev_kv: true }));
        let mut used = vec![deleted];
        for _ in 0..self.chance.below(4) {
            let put = self.put(lease);
            if !used.contains(&put.key) {
                used.push(put.key.clone());
                ops.push(Op::Put(put));
            }
        }
        ops.push(Op::Range(self.query()));
        Txn { compares: Vec::new(), success: ops, failure: Vec::new() }
    }
}
