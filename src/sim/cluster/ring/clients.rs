//! What clients of the ring do: one thing after the other each, at whichever place.

use super::{
    Place,
    calls::{Channels, Freshness, WireAsk},
    processes::Pid,
};
use crate::{
    io::Rng,
    mvcc::RangeQuery,
    sim::cluster::{
        calls::pick,
        world::{Event, World},
    },
    types::{Key, KeyRange, LeaseId, Revision},
};
use std::{collections::BTreeMap, sync::Arc};

/// A client.
pub struct RingClient {
    /// Its process.
    pub pid: Pid,
    /// Its connections.
    pub channels: Channels,
    /// The newest revision that it has seen, wherever it asked.
    pub session: Revision,
    /// What it has read of keys.
    pub known: BTreeMap<Key, Revision>,
    /// Its leases.
    pub leases: Vec<LeaseId>,
}

impl RingClient {
    /// One that has done nothing.
    pub fn new(pid: Pid) -> RingClient {
        let (known, leases) = (BTreeMap::new(), Vec::new());
        RingClient { pid, channels: Arc::default(), session: Revision(0), known, leases }
    }
}

impl World {
    /// A client does the next thing.
    pub(in crate::sim::cluster) fn ring_client(&mut self, number: usize) {
        if self.healed {
            return;
        }
        let Some(place) = self.any_place() else { return self.ring_client_rests(number) };
        let ask = self.wire_ask(number);
        self.call_wire(number, place, ask, None);
    }

    /// It takes up its work again after a while.
    pub(super) fn ring_client_rests(&mut self, number: usize) {
        let Some(ring) = &self.ring else { return };
        let delay = self.chance.between(1, ring.plan.client_gap);
        self.after(delay, Event::RingClient { number });
    }

    /// Proxies more often than members.
    pub(super) fn any_place(&mut self) -> Option<Place> {
        let places = self.ring.as_ref().map(super::Ring::places).unwrap_or_default();
        let proxies = places.iter().copied().filter(|place| matches!(place, Place::Proxy(_))).collect::<Vec<_>>();
        match self.chance.hits(3, 4) {
            true => pick(&mut self.chance, &proxies),
            false => pick(&mut self.chance, &places),
        }
    }

    fn wire_ask(&mut self, client: usize) -> WireAsk {
        let ring = self.ring.as_ref().expect("it has clients");
        let RingClient { session, known, .. } = &ring.clients[client];
        let (session, known) = (*session, known.clone());
        // Several may keep one lease.
        let leases = ring.clients.iter().flat_map(|client| client.leases.iter().copied()).collect::<Vec<_>>();
        let lease = pick(&mut self.chance, &leases);
        match (self.chance.below(24), lease) {
            (0..=2, _) => {
                let lease = lease.filter(|_| self.chance.hits(1, 4)).unwrap_or(LeaseId::NONE);
                WireAsk::Put(self.key(), self.value(), lease)
            }
            (3, _) => WireAsk::Delete(self.wire_range()),
            (4, _) => {
                let key = self.key();
                let revision = known.get(&key).copied().unwrap_or_default();
                WireAsk::Swap(key, revision, self.value())
            }
            (5, _) if self.chance.hits(1, 3) => {
                WireAsk::Compact(Revision(self.checkers.floor.revision.0 - self.chance.below(20) as i64))
            }
            (5, _) => {
                let revision = Revision(self.checkers.floor.revision.0 - self.chance.below(20) as i64);
                WireAsk::Range(RangeQuery { revision, ..self.wire_query() }, Freshness::Linearizable)
            }
            (6..=10, _) => WireAsk::Range(self.wire_query(), Freshness::Linearizable),
            (11..=12, _) => WireAsk::Range(self.wire_query(), Freshness::Serializable),
            (13..=14, _) => WireAsk::Range(self.wire_query(), Freshness::Session(session)),
            (15..=16, _) => {
                let ms = [0, 50, 500, 3_000][self.chance.below(4) as usize];
                WireAsk::Range(self.wire_query(), Freshness::Aged(ms))
            }
            (17, Some(id)) if self.chance.hits(1, 4) => {
                let ring = self.ring.as_mut().expect("it has clients");
                ring.clients.iter_mut().for_each(|client| client.leases.retain(|other| *other != id));
                WireAsk::Revoke(id)
            }
            (17..=22, Some(id)) => {
                let more = pick(&mut self.chance, &leases).filter(|_| self.chance.hits(1, 3));
                WireAsk::Renew([id].into_iter().chain(more).collect())
            }
            _ => WireAsk::Grant(self.chance.between(1, 4) as i64),
        }
    }

    fn wire_query(&mut self) -> RangeQuery {
        let limit = if self.chance.hits(1, 4) { 2 } else { 0 };
        RangeQuery { limit, ..RangeQuery::new(self.wire_range()) }
    }

    /// Etcd refuses a range whose end is before its start, or says that nothing is in it, by how it is written.
    fn wire_range(&mut self) -> KeyRange {
        match self.range() {
            range if range.is_empty() => KeyRange::One(self.key()),
            range => range,
        }
    }
}
