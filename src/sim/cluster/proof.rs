//! With all faults gone: everything works again in bounded time, and all members agree on everything.

use super::{
    calls::Ask,
    checkers::{Rule, Violation, broken},
    host::{Fate, Up},
    plan::S,
    world::World,
};
use crate::{
    machine::{Command, Put},
    mvcc::{RangeQuery, RangeResult},
    types::{Key, MemberId, Revision},
};
use std::collections::BTreeSet;

/// How long a healed cluster may take.
const PATIENCE: u64 = 90 * S;
/// How often it is asked again.
const AGAIN: u64 = 2 * S;

/// What members have shown since the faults are over.
#[derive(Default)]
pub struct Proofs {
    /// They got a write through.
    pub written: Vec<MemberId>,
    /// They answered a read.
    pub read: Vec<MemberId>,
}

impl World {
    /// Waits until all is well.
    pub fn prove_alive(&mut self) -> Result<(), Violation> {
        let deadline = self.time.now_us() + PATIENCE;
        let mut turn = self.time.now_us() + S;
        // Answers of before do not count.
        self.proofs = Proofs::default();
        loop {
            self.next()?;
            if self.time.now_us() < turn {
                continue;
            }
            turn = self.time.now_us() + S / 4;
            let Some(what) = self.is_missing() else { return self.agree() };
            if self.time.now_us() > deadline {
                return broken(Rule::Liveness, format!("after {PATIENCE} quiet us {what}"));
            }
            if self.time.now_us() / AGAIN != (self.time.now_us() - S / 4) / AGAIN {
                self.ask_for_proofs();
            }
        }
    }

    /// Machines whose members belong to the cluster, and have not told that they can't go on.
    pub fn members(&self) -> Vec<usize> {
        let conf = self.checkers.oracle.view().conf_state();
        let ids = conf.voters.into_iter().chain(conf.learners).collect::<BTreeSet<_>>();
        let is_member = |at: &usize| ids.contains(&self.hosts[*at].id) && self.hosts[*at].fate == Fate::Serves;
        (0..self.hosts.len()).filter(is_member).collect()
    }

    /// What is not as it should be.
    fn is_missing(&self) -> Option<String> {
        for at in self.members() {
            let host = &self.hosts[at];
            let id = host.id;
            let Some(up) = &host.up else { return Some(format!("{id} is down")) };
            if host.is_suspect && !self.is_harmless(up) {
                return Some(format!("the state of {id} is still wrong"));
            }
            if !self.proofs.written.contains(&id) || !self.proofs.read.contains(&id) {
                return Some(format!("nobody can write or read through {id}"));
            }
            let (applied, _) = up.handle.view().applied();
            if applied != self.checkers.last() {
                return Some(format!("{id} has applied {applied} of {}", self.checkers.last()));
            }
            if up.handle.reader().swept() < up.handle.reader().compacted() {
                return Some(format!("{id} has not swept what is compacted"));
            }
        }
        let short = self.checkers.oracle.view().lease_terms().into_iter().find(|lease| lease.ttl_s < 100);
        if let Some(lease) = short {
            return Some(format!("{} is not over, although nobody renews it", lease.id));
        }
        let behind = self.watchers.iter().position(|watcher| !self.checkers.has_all(&watcher.cursor));
        let behind = behind.map(|number| format!("watcher {number} lacks events: {:?}", self.watchers[number].cursor));
        behind.or_else(|| self.ring_is_missing())
    }

    /// Whether what was tampered with is superseded: then it shows in the past alone, until that is compacted.
    fn is_harmless(&self, up: &Up) -> bool {
        let (handle, oracle) = (&up.handle, &self.checkers.oracle);
        let found = handle.reader().range(&RangeQuery::default()).expect("a store in memory is sound");
        let is_right = |found: RangeResult| found.kvs == oracle.range(&RangeQuery::default(), found.revision);
        !handle.is_quarantined()
            && self.checkers.holds(handle.member_id(), handle.view().state_hash()).is_ok()
            && found.is_ok_and(is_right)
    }

    /// Each key is written, so that a difference shows; through each member.
    fn ask_for_proofs(&mut self) {
        let members = self.members();
        // Whoever lags behind a member with a wrong state needs another one to lead; an operator would see to that.
        let applied = |at: &usize| self.hosts[*at].up.as_ref().map(|up| up.handle.view().applied());
        let well = members.iter().copied().filter(|at| !self.hosts[*at].is_suspect).max_by_key(applied);
        let wrong = self.leader().filter(|at| self.hosts[*at].is_suspect);
        if let (Some(wrong), Some(well)) = (wrong, well) {
            self.call(wrong, None, Ask::MoveLeader(self.hosts[well].id));
        }
        for (turn, at) in members.iter().copied().enumerate() {
            if self.hosts[at].up.is_none() {
                continue;
            }
            let id = self.hosts[at].id;
            if !self.proofs.written.contains(&id) {
                for key in (0..self.plan.keys).filter(|key| *key as usize % members.len() == turn || *key == 0) {
                    let put = Put { key: Key::from(format!("k{key}")), value: "end".into(), ..Put::default() };
                    self.call(at, None, Ask::ProveWrite(Command::Put(put)));
                }
            }
            if !self.proofs.read.contains(&id) {
                self.call(at, None, Ask::ProveRead(RangeQuery::default()));
            }
            self.arm(at);
        }
        self.ask_ring_for_proofs();
    }

    /// All members hold the same, and count by the same membership.
    fn agree(&self) -> Result<(), Violation> {
        let oracle = &self.checkers.oracle;
        let (hash_kv, conf) = (oracle.hash_kv(), oracle.view().conf_state());
        for at in self.members() {
            let (host, up) = (&self.hosts[at], self.hosts[at].up.as_ref());
            let Some(up) = up else { continue };
            let found = up.handle.reader().hash_kv(Revision(0)).expect("a store in memory is sound").ok();
            if found != hash_kv && !host.is_suspect {
                return broken(Rule::Converged, format!("{} has hash {found:?}, not {hash_kv:?}", host.id));
            }
            let counts = up.parts.run.node().members().conf_state();
            if counts != conf || up.handle.view().conf_state() != conf {
                return broken(Rule::Converged, format!("{} counts by {counts:?}, not {conf:?}", host.id));
            }
            let (mine, right) = (up.handle.view(), oracle.view());
            if (mine.members(), mine.leases(), mine.alarms(None))
                != (right.members(), right.leases(), right.alarms(None))
            {
                return broken(Rule::Converged, format!("{} has other members, leases or alarms", host.id));
            }
        }
        Ok(())
    }
}
