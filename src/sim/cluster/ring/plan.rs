//! What the ring of one run is like: drawn after the plan of its core.

use crate::{
    io::Rng,
    sim::{
        Chance,
        cluster::plan::{FAULTS, FaultKind, MS, Plan, S},
    },
    types::{KeyRange, Sabotage},
};

/// The kinds of faults of a ring, beside those of its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFault {
    /// A proxy's process is killed.
    Kill,
    /// A proxy's machine loses power.
    PowerLoss,
    /// A proxy stands still.
    Pause,
    /// Nothing passes between two tiers, or between a proxy and one of those behind it.
    Cut,
    /// The same, in one direction.
    OneWay,
    /// Connections between two places are forgotten by something between them.
    Reset,
    /// Travel takes another time.
    Weather,
    /// All links work.
    Heal,
}

/// All of them, in the order of the plan's weights.
pub const RING_FAULTS: [RingFault; 8] = [
    RingFault::Kill,
    RingFault::PowerLoss,
    RingFault::Pause,
    RingFault::Cut,
    RingFault::OneWay,
    RingFault::Reset,
    RingFault::Weather,
    RingFault::Heal,
];

/// The ring of one run.
#[derive(Clone, Debug)]
pub struct RingPlan {
    /// Proxies before the core.
    pub first_tier: usize,
    /// Proxies before those.
    pub second_tier: usize,
    /// Clients of members and proxies.
    pub clients: usize,
    /// Watchers at members and proxies.
    pub watchers: usize,
    /// Longest ordinary travel.
    pub delay_max_ms: u64,
    /// Longest time between two faults, in microseconds.
    pub fault_gap: u64,
    /// Longest time between two calls of a client, in microseconds.
    pub client_gap: u64,
    /// Revisions that a copy keeps.
    pub keep_revisions: usize,
    /// Whether copies are loaded by streams.
    pub streams: bool,
    /// How often proxies ask how far upstream is, in microseconds.
    pub pulse: u64,
    /// Relative weight of each kind of fault.
    pub weights: [u64; RING_FAULTS.len()],
    /// The rule that proxies break.
    pub sabotage: Option<Sabotage>,
}

impl RingPlan {
    /// Draws one, and takes from the core's plan what a ring does not go with.
    pub fn draw(core: &mut Plan, sabotage: Option<Sabotage>, chance: &mut Chance) -> RingPlan {
        let pick = |chance: &mut Chance, of: &[u64]| of[chance.below(of.len() as u64) as usize];
        for (weight, kind) in core.weights.iter_mut().zip(FAULTS) {
            match kind {
                // A member with a wrong state tells it to proxies; and addresses that all were removed are an operator's business.
                FaultKind::BitFlip | FaultKind::Tamper | FaultKind::Churn => *weight = 0,
                _ => {}
            }
        }
        core.chaos = chance.between(5, 12) * S;
        core.clients = core.clients.min(3);
        core.watchers = 1;
        if sabotage == Some(Sabotage::ShareOlderRenewal) {
            // Else one is rarely the last that a lease gets.
            core.weights = core.weights.map(|_| 0);
        }
        let mut weights = RING_FAULTS.map(|_| pick(chance, &[0, 1, 1, 3]));
        for (weight, kind) in weights.iter_mut().zip(RING_FAULTS) {
            match (sabotage, kind) {
                (Some(Sabotage::ResumeTooLate), RingFault::Reset) => *weight = 4,
                // Answers that are held up on their way, and then come.
                (Some(Sabotage::ShareOlderRenewal), RingFault::OneWay | RingFault::Heal) => *weight = 6,
                (Some(Sabotage::ShareOlderRenewal), _) => *weight = 0,
                _ => {}
            }
        }
        RingPlan {
            first_tier: pick(chance, &[1, 2, 2]) as usize,
            second_tier: pick(chance, &[0, 1, 1, 2]) as usize,
            clients: pick(chance, &[2, 4, 6]) as usize,
            watchers: pick(chance, &[2, 4, 6]) as usize,
            delay_max_ms: pick(chance, &[1, 5, 20, 60]),
            fault_gap: pick(chance, &[500, 1_000, 3_000]) * MS,
            client_gap: pick(chance, &[20, 60, 200]) * MS,
            keep_revisions: pick(chance, &[4, 30, 10_000]) as usize,
            streams: chance.hits(1, 2),
            pulse: pick(chance, &[200, 1_000, 5_000]) * MS,
            weights,
            sabotage,
        }
    }

    /// What one of the proxies copies.
    pub fn ranges(&self, keys: u64, chance: &mut Chance) -> Vec<KeyRange> {
        let key = |chance: &mut Chance| format!("k{}", chance.below(keys));
        match chance.below(5) {
            0 => vec![KeyRange::One(key(chance).into()), KeyRange::One(key(chance).into())],
            1 => {
                let (one, other) = (key(chance), key(chance));
                vec![KeyRange::Span { start: one.clone().min(other.clone()).into(), end: one.max(other).into() }]
            }
            2 => vec![KeyRange::From(key(chance).into())],
            _ => vec![KeyRange::From(bytes::Bytes::new())],
        }
    }
}
