//! What one run is like: drawn from the seed, so that each seed has its own mix of faults. A fault that is always on hides others.

use super::network::Weather;
use crate::{io::Rng, sim::Chance, types::Sabotage};

/// A millisecond, in the world's unit of time.
pub const MS: u64 = 1_000;
/// A second.
pub const S: u64 = 1_000_000;

/// A lie that the simulated environment tells, or a rule that it breaks for the member, to prove that the checkers would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Disks say "synced" of what is not: acknowledged before it is durable.
    SyncsNothing,
    /// Leaders hear a quorum answer their heartbeats that never got them: reads without a quorum.
    ForgesHeartbeats,
    /// Proposals on their way to the leader come twice: applied without telling doubles apart.
    DoublesForwards,
    /// Clients take what a member has without asking the leader.
    ReadsLocally,
    /// A clock that the lease checker is not told of jumps: leases end too early.
    HidesJumps,
    /// A state machine was tampered with, and members do not tell each other their hashes.
    MutesHashes,
    /// A machine comes back with the disk of some time ago.
    RestoresOldDisks,
    /// Watchers that change members leave a revision out.
    SkipsEvents,
    /// Members break a rule of their own.
    Breaks(Sabotage),
}

/// The kinds of faults, each with a weight in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A process is killed.
    Kill,
    /// A machine loses power.
    PowerLoss,
    /// The same, in the middle of its next writes.
    TornWrite,
    /// The leader's process or machine goes.
    CrashLeader,
    /// All go.
    CrashAll,
    /// A process stops in good order, and starts again.
    Restart,
    /// The cluster falls into two halves.
    Halves,
    /// The leader is alone.
    IsolateLeader,
    /// Two halves with one member that hears both.
    Bridge,
    /// One link works in one direction only.
    OneWay,
    /// All links work, in another weather.
    Heal,
    /// A process stands still.
    Pause,
    /// A disk is slow, or hangs.
    SlowDisk,
    /// A clock goes at another pace, or jumps.
    Clock,
    /// The lead is handed over.
    MoveLeader,
    /// A member is added, promoted or removed.
    Churn,
    /// A bit of a log turns over.
    BitFlip,
    /// Very many leases that end at the same time.
    MassExpiry,
    /// A row of a store is another one.
    Tamper,
}

/// All of them, in the order of the plan's weights.
pub const FAULTS: [FaultKind; 19] = [
    FaultKind::Kill,
    FaultKind::PowerLoss,
    FaultKind::TornWrite,
    FaultKind::CrashLeader,
    FaultKind::CrashAll,
    FaultKind::Restart,
    FaultKind::Halves,
    FaultKind::IsolateLeader,
    FaultKind::Bridge,
    FaultKind::OneWay,
    FaultKind::Heal,
    FaultKind::Pause,
    FaultKind::SlowDisk,
    FaultKind::Clock,
    FaultKind::MoveLeader,
    FaultKind::Churn,
    FaultKind::BitFlip,
    FaultKind::MassExpiry,
    FaultKind::Tamper,
];

/// One run. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many members found the cluster.
    pub founders: usize,
    /// How many clients.
    pub clients: usize,
    /// How many watchers.
    pub watchers: usize,
    /// How many keys.
    pub keys: u64,
    /// See `Settings`.
    pub heartbeat: u64,
    /// See `Settings`.
    pub election_ticks: u32,
    /// See `Settings`.
    pub pre_vote: bool,
    /// See `Settings`.
    pub snapshot_count: u64,
    /// See `Settings`.
    pub catchup_entries: u64,
    /// See `Settings`.
    pub flush_interval: u64,
    /// See `Ground`.
    pub segment_bytes: u64,
    /// Bytes that a watcher's stream holds back.
    pub stream_bytes_max: usize,
    /// Weather at the start.
    pub weather: Weather,
    /// How long faults last altogether.
    pub chaos: u64,
    /// How many starts of a hundred lose power on the way.
    pub start_fails: u64,
    /// Longest time between two faults.
    pub fault_gap: u64,
    /// Longest time between two calls of a client.
    pub client_gap: u64,
    /// Longest time until a stage that has work begins.
    pub stage_delay_max: u64,
    /// Longest time of an ordinary sync.
    pub sync_max: u64,
    /// Relative weight of each kind of fault.
    pub weights: [u64; FAULTS.len()],
    /// A lie, in runs that must fail.
    pub lie: Option<Lie>,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(lie: Option<Lie>, chance: &mut Chance) -> Plan {
        let pick = |chance: &mut Chance, of: &[u64]| of[chance.below(of.len() as u64) as usize];
        let mut weights = FAULTS.map(|_| [0, 1, 1, 4][chance.below(4) as usize]);
        for (weight, kind) in weights.iter_mut().zip(FAULTS) {
            // Rare ones: a run has few of them, and most have none.
            if matches!(kind, FaultKind::BitFlip | FaultKind::MassExpiry | FaultKind::Tamper | FaultKind::CrashAll) {
                *weight = [0, 0, 0, 1][chance.below(4) as usize];
            }
            match lie {
                Some(Lie::MutesHashes) => *weight = u64::from(kind == FaultKind::Tamper),
                // Their verdict must be about the lie alone.
                Some(_) if matches!(kind, FaultKind::BitFlip | FaultKind::Tamper) => *weight = 0,
                Some(Lie::SyncsNothing | Lie::RestoresOldDisks | Lie::Breaks(Sabotage::AckBeforeFsync))
                    if kind == FaultKind::PowerLoss =>
                {
                    *weight = 4
                }
                Some(Lie::HidesJumps) if kind == FaultKind::Clock => *weight = 4,
                Some(Lie::ForgesHeartbeats | Lie::ReadsLocally | Lie::Breaks(_))
                    if kind == FaultKind::IsolateLeader =>
                {
                    *weight = 4;
                }
                _ => {}
            }
        }
        let tampers = weights[FAULTS.len() - 1] > 0;
        // Else a wrong state could be sent on before it is found.
        let released = if tampers { [5_000; 4] } else { [0, 3, 10, 5_000] };
        if tampers {
            let churns = FAULTS.iter().position(|kind| *kind == FaultKind::Churn);
            weights[churns.expect("it is one of them")] = 0;
        }
        Plan {
            founders: pick(chance, &[1, 3, 3, 3, 3, 3, 5, 5]) as usize,
            clients: pick(chance, &[2, 4, 8]) as usize,
            watchers: pick(chance, &[1, 3, 6]) as usize,
            keys: pick(chance, &[2, 5, 12]),
            heartbeat: pick(chance, &[50, 100, 100]) * MS,
            election_ticks: pick(chance, &[5, 10]) as u32,
            pre_vote: !chance.hits(1, 6),
            snapshot_count: pick(chance, &[5, 20, 100, 10_000]),
            catchup_entries: pick(chance, &released),
            flush_interval: pick(chance, &[20, 100, 1_000]) * MS,
            segment_bytes: pick(chance, &[2_048, 8_192, 65_536]),
            stream_bytes_max: pick(chance, &[100, 2_000, 1 << 20]) as usize,
            weather: Weather::draw(chance),
            chaos: chance.between(6, 24) * S,
            start_fails: pick(chance, &[0, 0, 10, 30]),
            fault_gap: pick(chance, &[300, 800, 2_000, 4_000]) * MS,
            client_gap: pick(chance, &[20, 100, 400]) * MS,
            stage_delay_max: pick(chance, &[0, 0, MS, 10 * MS]),
            sync_max: pick(chance, &[MS, 10 * MS, 60 * MS]),
            weights,
            lie,
        }
    }

    /// The rule that members break.
    pub fn sabotage(&self) -> Option<Sabotage> {
        match self.lie {
            Some(Lie::Breaks(rule)) => Some(rule),
            _ => None,
        }
    }

    /// Whether stores are tampered with.
    pub fn tampers(&self) -> bool {
        self.weights[FAULTS.len() - 1] > 0
    }
}
