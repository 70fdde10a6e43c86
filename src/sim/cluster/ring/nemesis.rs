//! Faults of the ring, their end, and what must work then.

use super::{
    Place, Ring,
    calls::{Freshness, WireAsk},
    plan::{RING_FAULTS, RingFault},
};
use crate::{
    io::Rng,
    mvcc::RangeQuery,
    sim::cluster::{
        calls::pick,
        plan::{MS, S},
        world::{Event, World},
    },
    types::Key,
};

impl World {
    /// The next fault.
    pub(in crate::sim::cluster) fn ring_fault(&mut self) {
        let Some(ring) = self.ring.as_ref().filter(|_| !self.healed) else { return };
        let (gap, count, weights) = (ring.plan.fault_gap, ring.proxies.len(), ring.plan.weights);
        let is_cut = ring.processes.with_net(|net| net.is_cut());
        let delay = self.chance.between(1, gap);
        self.after(delay, Event::RingFault);
        let at = self.chance.below(count as u64) as usize;
        let kind = match is_cut && self.chance.hits(1, 3) {
            true => RingFault::Heal,
            false => self.draw_ring_fault(weights),
        };
        match kind {
            RingFault::Kill => self.kill_proxy(at, false),
            RingFault::PowerLoss => self.kill_proxy(at, true),
            RingFault::Pause => {
                let until = self.time.now_us() + self.chance.between(1, 4 * S);
                self.ring.as_mut().expect("it has faults").proxies[at].paused_until_us = until;
            }
            RingFault::Cut | RingFault::OneWay | RingFault::Reset => self.disturb(at, kind),
            RingFault::Weather => {
                let delay_max_ms = [1, 5, 20, 100][self.chance.below(4) as usize];
                self.in_ring(|ring| ring.net.be_slow(delay_max_ms));
            }
            RingFault::Heal => self.in_ring(|ring| ring.processes.with_net(|net| net.heal())),
        }
        self.note(|| format!("fault of the ring: {kind:?} ({})", Place::Proxy(at)));
    }

    fn draw_ring_fault(&mut self, weights: [u64; RING_FAULTS.len()]) -> RingFault {
        let mut left = self.chance.below(weights.iter().sum::<u64>().max(1));
        let drawn = weights.iter().position(|weight| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        drawn.map_or(RingFault::Heal, |drawn| RING_FAULTS[drawn])
    }

    fn in_ring<T>(&mut self, act: impl FnOnce(&mut Ring) -> T) -> T {
        act(self.ring.as_mut().expect("it is there"))
    }

    fn kill_proxy(&mut self, at: usize, power: bool) {
        let ring = self.ring.as_mut().expect("it has faults");
        let Some(pid) = ring.proxies[at].pid.take() else { return };
        ring.processes.kill(pid, power);
        self.stats.crashes += 1;
        let delay = self.chance.between(1, 3 * S);
        self.after(delay, Event::StartProxy { at });
    }

    /// Between a proxy and one, or all, of those behind it, or a client.
    fn disturb(&mut self, at: usize, kind: RingFault) {
        let ring = self.ring.as_ref().expect("it has faults");
        let behind = ring.proxies[at].behind.clone();
        let clients = (0..ring.clients.len()).map(Place::Client).collect::<Vec<_>>();
        let chosen = match self.chance.below(3) {
            0 => behind,
            1 => pick(&mut self.chance, &behind).into_iter().collect(),
            _ => pick(&mut self.chance, &clients).into_iter().collect(),
        };
        let (one, turned) = (Place::Proxy(at), self.chance.hits(1, 2));
        self.in_ring(|ring| {
            ring.processes.with_net(|net| {
                for other in chosen {
                    match kind {
                        RingFault::Reset => net.reset(one, other),
                        RingFault::OneWay if turned => net.cut(one, other),
                        RingFault::OneWay => net.cut(other, one),
                        _ => {
                            net.cut(one, other);
                            net.cut(other, one);
                        }
                    }
                }
            });
        });
    }

    /// The end of all faults.
    pub(in crate::sim::cluster) fn heal_ring(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        ring.net.be_slow(2);
        ring.processes.with_net(|net| net.heal());
        let count = ring.proxies.len();
        ring.proxies.iter_mut().for_each(|proxy| proxy.paused_until_us = 0);
        for at in 0..count {
            self.after(MS, Event::StartProxy { at });
        }
    }

    /// What of the ring does not work yet.
    pub(in crate::sim::cluster) fn ring_is_missing(&self) -> Option<String> {
        let ring = self.ring.as_ref()?;
        for place in self.living_places() {
            for what in PROOFS {
                if !ring.proven.contains(&(place, what)) {
                    return Some(format!("at {place} nobody gets an answer to a {what}"));
                }
            }
        }
        let behind = ring.watchers.iter().position(|watcher| !self.checkers.has_all(&watcher.cursor));
        behind.map(|number| {
            let watcher = &ring.watchers[number];
            format!("w{number} at {:?} lacks events: {:?}", watcher.place(), watcher.cursor)
        })
    }

    fn living_places(&self) -> Vec<Place> {
        let Some(ring) = &self.ring else { return Vec::new() };
        let members = self.members();
        let lives = |place: &Place| match place {
            Place::Member(at) => members.contains(at),
            _ => true,
        };
        ring.places().into_iter().filter(lives).collect()
    }

    /// Asks for what has not been shown.
    pub(in crate::sim::cluster) fn ask_ring_for_proofs(&mut self) {
        for place in self.living_places() {
            for what in PROOFS {
                if self.in_ring(|ring| ring.proven.contains(&(place, what))) {
                    continue;
                }
                let ask = match what {
                    "write" => WireAsk::Put(Key::from("k0"), self.value(), crate::types::LeaseId::NONE),
                    "read" => WireAsk::Range(RangeQuery::default(), Freshness::Linearizable),
                    // Of a lease that nobody has: it is told so.
                    _ => WireAsk::Renew(vec![crate::types::LeaseId(i64::MAX)]),
                };
                self.call_wire(0, place, ask, Some(what));
            }
        }
    }
}

const PROOFS: [&str; 3] = ["write", "read", "renewal"];
