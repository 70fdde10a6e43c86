//! What clients ask over connections, at whichever place; and what becomes of the answers.

use super::{Place, Ring};
use crate::{
    client::{ConnectOptions, Error as ClientError, endpoints::endpoint},
    mvcc::{KeyValue, RangeQuery, RangeResult},
    pb::{
        etcdserverpb::{self as pb, kv_client::KvClient, lease_client::LeaseClient, request_op, response_op},
        mvccpb,
    },
    sim::cluster::{
        checkers::{Floor, Rule, Violation, broken},
        world::World,
    },
    types::{Error, Index, Key, KeyRange, LeaseId, Revision},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_stream::StreamExt;
use tonic::{Request, Status, transport::Channel};

/// How new an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing that was told before may be missing.
    Linearizable,
    /// What the place has.
    Serializable,
    /// Nothing that this client has seen may be missing.
    Session(Revision),
    /// Not older than so many milliseconds.
    Aged(u64),
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum WireAsk {
    /// A value for a key.
    Put(Key, Bytes, LeaseId),
    /// No keys in a range any more.
    Delete(KeyRange),
    /// A value for a key that has this revision, else what is there.
    Swap(Key, Revision, Bytes),
    /// The past forgotten.
    Compact(Revision),
    /// A range.
    Range(RangeQuery, Freshness),
    /// A lease of so many seconds.
    Grant(i64),
    /// The end of a lease.
    Revoke(LeaseId),
    /// Another time to live, for each of these in turn on one stream.
    Renew(Vec<LeaseId>),
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum WireAnswer {
    /// To a write, at this revision.
    Wrote(Revision),
    /// To a delete of so many keys.
    Deleted(Revision, i64),
    /// To a swap that found something else.
    Stands(Revision, Vec<KeyValue>),
    /// To a range; and how old the answer is said to be, in milliseconds.
    Found(RangeResult, Option<u64>),
    /// To a grant.
    Granted(LeaseId, i64),
    /// Time to live; 0 is none.
    Renewed(LeaseId, i64),
    /// Done.
    Done,
}

/// An answer (a stream of renewals has several), or why there is none.
pub type Outcome = (Result<WireAnswer, Status>, IsLast);

/// Whether the call is over.
pub type IsLast = bool;

/// A call under way.
pub struct WireCall {
    place: Place,
    client: usize,
    ask: WireAsk,
    /// It asks whether this place works again.
    proves: Option<&'static str>,
    asked_us: u64,
    /// What was known when it was made: answers,
    floor: Floor,
    /// what was committed,
    known: Index,
    /// and what the clocks showed.
    clocks: Vec<u64>,
}

/// Connections of one client.
pub type Channels = Arc<Mutex<BTreeMap<Place, Channel>>>;

/// The way of a client to a place.
pub fn channel(channels: &Channels, place: Place) -> Channel {
    let make = || endpoint(&place.authority(), &ConnectOptions::default()).expect("a good address").connect_lazy();
    channels.lock().entry(place).or_insert_with(make).clone()
}

impl World {
    /// Has a client of the ring ask something.
    pub(super) fn call_wire(&mut self, client: usize, place: Place, ask: WireAsk, proves: Option<&'static str>) -> u64 {
        let patience = Duration::from_millis(self.chance.between(500, 8_000));
        let (floor, known, clocks) = (self.checkers.floor, self.checkers.last(), self.clocks());
        if let WireAsk::Revoke(id) = &ask {
            self.checkers.leases.given_up(*id);
        }
        let asked_us = self.time.now_us();
        let ring = self.ring.as_mut().expect("it has clients");
        ring.last_call += 1;
        let number = ring.last_call;
        let (outcomes, channels) = (Arc::clone(&ring.outcomes), Arc::clone(&ring.clients[client].channels));
        let task = ask.clone();
        ring.processes.add(ring.clients[client].pid, async move {
            let channel = channel(&channels, place);
            let told = |answer| outcomes.lock().push((number, (Ok(answer), false)));
            let outcome = match tokio::time::timeout(patience, begin(channel, task, told)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Status::deadline_exceeded("the client has lost patience")),
            };
            outcomes.lock().push((number, (outcome, true)));
        });
        self.note(|| format!("c{} #{number} at {place} {ask:?}", client + 1));
        let call = WireCall { place, client, ask, proves, asked_us, floor, known, clocks };
        self.ring.as_mut().expect("just used").calls.insert(number, call);
        number
    }

    /// Looks at what has come.
    pub(super) fn hear_ring(&mut self) -> Result<(), Violation> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        let outcomes = std::mem::take(&mut *ring.outcomes.lock());
        for (number, (outcome, is_last)) in outcomes {
            let ring = self.ring.as_mut().expect("just looked at");
            let Some(mut call) = ring.calls.remove(&number) else { continue };
            self.note(|| format!("#{number} at {} is told {outcome:?}", call.place));
            self.stats.wire += u64::from(outcome.is_ok());
            self.stats.refused += u64::from(outcome.is_err());
            match outcome {
                Ok(answer) => self.wire_answered(&mut call, answer)?,
                Err(status) => self.wire_refused(&call, status)?,
            }
            let ring = self.ring.as_mut().expect("just looked at");
            match is_last {
                true if call.proves.is_none() => self.ring_client_rests(call.client),
                true => {}
                false => drop(ring.calls.insert(number, call)),
            }
        }
        self.hear_watchers()
    }

    fn wire_answered(&mut self, call: &mut WireCall, answer: WireAnswer) -> Result<(), Violation> {
        let (client, place) = (call.client, call.place);
        if let Some(what) = call.proves {
            let ring = self.ring.as_mut().expect("it has answered");
            ring.proven.insert((place, what));
        }
        let now = self.clocks();
        let checkers = &mut self.checkers;
        let seen = match (&call.ask, answer) {
            (WireAsk::Put(key, value, _) | WireAsk::Swap(key, _, value), WireAnswer::Wrote(revision)) => {
                checkers.wire_put(call.floor, key, value, revision)?;
                revision
            }
            (WireAsk::Delete(range), WireAnswer::Deleted(revision, count)) => {
                checkers.wire_deleted(call.floor, range, count, revision)?;
                revision
            }
            (WireAsk::Swap(key, ..), WireAnswer::Stands(revision, kvs)) => {
                let query = RangeQuery::new(KeyRange::One(key.clone()));
                let found = RangeResult { count: kvs.len() as i64, more: false, kvs, revision };
                checkers.read(call.floor, &query, &Ok(found))?;
                revision
            }
            (WireAsk::Range(query, freshness), WireAnswer::Found(found, age)) => {
                self.wire_read(call, query, *freshness, &found, age)?;
                found.kvs.iter().for_each(|kv| {
                    let ring = self.ring.as_mut().expect("it has answered");
                    ring.clients[client].known.insert(kv.key.clone(), kv.mod_revision);
                });
                found.revision
            }
            (WireAsk::Grant(_), WireAnswer::Granted(id, ttl_s)) => {
                checkers.leases.promised(id, ttl_s, call.clocks.clone());
                let ring = self.ring.as_mut().expect("it has answered");
                ring.clients[client].leases.push(id);
                Revision(0)
            }
            (WireAsk::Renew(ids), WireAnswer::Renewed(id, ttl_s)) => {
                if !ids.contains(&id) {
                    return broken(Rule::Lease, format!("{place} renews {id}, but {ids:?} were asked for"));
                }
                let ttl_s = Some(ttl_s).filter(|ttl_s| *ttl_s > 0);
                checkers.renewed(id, ttl_s, call.known, call.clocks.clone(), &now)?;
                Revision(0)
            }
            (WireAsk::Compact(_) | WireAsk::Revoke(_) | WireAsk::Renew(_), WireAnswer::Done) => Revision(0),
            (ask, answer) => return broken(Rule::Linearizable, format!("{ask:?} is answered {answer:?}")),
        };
        let ring = self.ring.as_mut().expect("it has answered");
        let session = &mut ring.clients[client].session;
        *session = seen.max(*session);
        Ok(())
    }

    fn wire_read(
        &mut self,
        call: &WireCall,
        query: &RangeQuery,
        freshness: Freshness,
        found: &RangeResult,
        age_ms: Option<u64>,
    ) -> Result<(), Violation> {
        let ring = self.ring.as_ref().expect("it has answered");
        let least = match freshness {
            Freshness::Linearizable => call.floor.revision,
            Freshness::Serializable => Revision(0),
            // Members are asked by proxies alone for that, which know how to say it.
            Freshness::Session(_) if matches!(call.place, Place::Member(_)) => Revision(0),
            Freshness::Session(seen) => seen,
            Freshness::Aged(ms) => ring.told_at(call.asked_us, ms),
        };
        let by_age = age_ms.map_or(Revision(0), |ms| ring.told_at(call.asked_us, ms));
        if found.revision < least || found.revision < by_age {
            let (rule, place) =
                (if freshness == Freshness::Linearizable { Rule::Linearizable } else { Rule::Fresh }, call.place);
            let text = format!(
                "{place} answers {query:?} ({freshness:?}, age {age_ms:?}) at {}, before {} or {by_age}",
                found.revision, least
            );
            return broken(rule, text);
        }
        match freshness {
            Freshness::Linearizable => self.checkers.read(call.floor, query, &Ok(found.clone())),
            _ => self.checkers.read_locally(&mut Revision(0), query, &Ok(found.clone())),
        }
    }

    /// A refusal that says something must be right too.
    fn wire_refused(&mut self, call: &WireCall, status: Status) -> Result<(), Violation> {
        let error = ClientError::from(status);
        match &call.ask {
            WireAsk::Range(query, freshness) => {
                let refused = [Error::Compacted, Error::FutureRev].into_iter().find(|refusal| error.is(refusal));
                match (refused, freshness) {
                    (Some(Error::FutureRev), Freshness::Session(seen)) if *seen <= call.floor.revision => {
                        broken(Rule::Fresh, format!("{} says that {seen} is in the future", call.place))
                    }
                    (Some(refusal), Freshness::Linearizable) => self.checkers.read(call.floor, query, &Err(refusal)),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl Ring {
    /// What had been told at so many milliseconds before a moment.
    fn told_at(&self, moment_us: u64, ms_before: u64) -> Revision {
        // A clock with milliseconds can be wrong by one of them at both ends.
        let Some(then) = moment_us.checked_sub((ms_before + 2) * 1_000) else { return Revision(0) };
        let later = self.told.partition_point(|(at, _)| *at <= then);
        later.checked_sub(1).map_or(Revision(0), |at| self.told[at].1)
    }
}

async fn begin(channel: Channel, ask: WireAsk, told: impl Fn(WireAnswer)) -> Result<WireAnswer, Status> {
    let (mut kv, mut lease) = (KvClient::new(channel.clone()), LeaseClient::new(channel));
    Ok(match ask {
        WireAsk::Put(key, value, LeaseId(lease)) => {
            let request = pb::PutRequest { key, value, lease, ..Default::default() };
            WireAnswer::Wrote(at(kv.put(request).await?.into_inner().header))
        }
        WireAsk::Delete(range) => {
            let (key, range_end) = to_wire(&range);
            let request = pb::DeleteRangeRequest { key, range_end, prev_kv: false };
            let answer = kv.delete_range(request).await?.into_inner();
            WireAnswer::Deleted(at(answer.header), answer.deleted)
        }
        WireAsk::Swap(key, revision, value) => {
            let answer = kv.txn(swap(key, revision, value)).await?.into_inner();
            let revision = at(answer.header);
            match answer.responses.into_iter().next().and_then(|response| response.response) {
                Some(response_op::Response::ResponseRange(found)) if !answer.succeeded => {
                    WireAnswer::Stands(revision, found.kvs.into_iter().map(key_value).collect())
                }
                _ => WireAnswer::Wrote(revision),
            }
        }
        WireAsk::Compact(revision) => {
            kv.compact(pb::CompactionRequest { revision: revision.0, physical: false }).await?;
            WireAnswer::Done
        }
        WireAsk::Range(query, freshness) => {
            let answer = kv.range(range(&query, freshness)).await?;
            let age = answer.metadata().get("henge-age-ms").and_then(|age| age.to_str().ok()?.parse().ok());
            let answer = answer.into_inner();
            let revision = at(answer.header);
            let kvs = answer.kvs.into_iter().map(key_value).collect();
            WireAnswer::Found(RangeResult { kvs, count: answer.count, more: answer.more, revision }, age)
        }
        WireAsk::Grant(ttl) => {
            let answer = lease.lease_grant(pb::LeaseGrantRequest { ttl, id: 0 }).await?.into_inner();
            WireAnswer::Granted(LeaseId(answer.id), answer.ttl)
        }
        WireAsk::Revoke(LeaseId(id)) => {
            lease.lease_revoke(pb::LeaseRevokeRequest { id }).await?;
            WireAnswer::Done
        }
        WireAsk::Renew(ids) => {
            let requests = ids.into_iter().map(|LeaseId(id)| pb::LeaseKeepAliveRequest { id });
            let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
            let mut answers = lease.lease_keep_alive(requests).await?.into_inner();
            while let Some(answer) = answers.next().await {
                let answer = answer?;
                told(WireAnswer::Renewed(LeaseId(answer.id), answer.ttl));
            }
            WireAnswer::Done
        }
    })
}

fn range(query: &RangeQuery, freshness: Freshness) -> Request<pb::RangeRequest> {
    let (key, range_end) = to_wire(&query.range);
    let mut request = Request::new(pb::RangeRequest {
        key,
        range_end,
        limit: query.limit,
        revision: query.revision.0,
        serializable: !matches!(freshness, Freshness::Linearizable | Freshness::Aged(_)),
        ..Default::default()
    });
    match freshness {
        Freshness::Session(seen) => drop(request.metadata_mut().insert("henge-min-revision", seen.0.into())),
        Freshness::Aged(ms) => {
            let age = format!("{ms}ms").parse().expect("digits");
            drop(request.metadata_mut().insert("henge-max-age", age));
        }
        Freshness::Linearizable | Freshness::Serializable => {}
    }
    request
}

fn swap(key: Key, revision: Revision, value: Bytes) -> pb::TxnRequest {
    let compare = pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(revision.0)),
        ..Default::default()
    };
    let put = pb::PutRequest { key: key.clone(), value, ..Default::default() };
    let look = pb::RangeRequest { key, ..Default::default() };
    let op = |request| pb::RequestOp { request: Some(request) };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(request_op::Request::RequestPut(put))],
        failure: vec![op(request_op::Request::RequestRange(look))],
    }
}

fn at(header: Option<pb::ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |header| header.revision))
}

fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        version: kv.version,
        lease: LeaseId(kv.lease),
    }
}

/// A range in etcd's two fields.
pub fn to_wire(range: &KeyRange) -> (Bytes, Bytes) {
    const ZERO: Bytes = Bytes::from_static(&[0]);
    match range {
        KeyRange::One(key) => (key.clone(), Bytes::new()),
        KeyRange::Span { start, end } => (start.clone(), end.clone()),
        KeyRange::From(start) => (if start.is_empty() { ZERO } else { start.clone() }, ZERO),
    }
}
