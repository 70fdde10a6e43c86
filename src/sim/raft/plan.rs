//! What one run is like: drawn from the seed, so that each seed has its own mix of faults. A fault that is always on hides others.

use crate::{
    io::Rng,
    raft::Config,
    sim::Chance,
    types::{MemberId, Sabotage},
};

/// Time units between two ticks of a healthy clock. Everything else that takes time is in the same units.
pub const TICK: u64 = 100;

/// A lie that the simulated environment tells, or a rule that the members break, to prove that the checkers would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Acknowledgements and votes leave before the disk has what they speak of.
    SendsBeforeSync,
    /// A crash takes synced entries with it.
    LosesSynced,
    /// A crash takes the vote with it.
    ForgetsVotes,
    /// Members are told that everything is on disk as soon as it is written.
    ClaimsPersisted,
    /// Members answer reads from what they know, without asking.
    ReadsLocally,
    /// A restart takes the membership from when the cluster was founded, as if it were kept in a second place.
    ForgetsMembers,
    /// Members break a rule of their own.
    Breaks(Sabotage),
}

/// What a network does to messages, in parts of a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Lost.
    pub dropped: u64,
    /// Delivered twice.
    pub doubled: u64,
    /// Held up for long, so that later ones overtake.
    pub late: u64,
    /// Longest ordinary travel.
    pub delay_max: u64,
}

impl Weather {
    /// No faults.
    pub const FINE: Weather = Weather { dropped: 0, doubled: 0, late: 0, delay_max: 10 };

    /// Any weather.
    pub fn draw(chance: &mut Chance) -> Weather {
        let part = |chance: &mut Chance| [0, 0, 10, 50, 200, 500][chance.below(6) as usize];
        Weather {
            dropped: part(chance),
            doubled: part(chance),
            late: part(chance),
            delay_max: [5, 20, 80, 200][chance.below(4) as usize],
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many voters at first.
    pub members: u64,
    /// All but the id.
    pub config: Config,
    /// Whether the real log runs on a simulated disk.
    pub real_log: bool,
    /// Weather at the start.
    pub weather: Weather,
    /// How long faults last altogether.
    pub chaos: u64,
    /// Longest time between two faults; each is drawn anew.
    pub fault_gap: u64,
    /// Longest time between two requests.
    pub client_gap: u64,
    /// Longest time that outputs are gathered before somebody acts on them.
    pub act_delay_max: u64,
    /// Longest time of an ordinary sync.
    pub sync_max: u64,
    /// Relative weight of each kind of fault; see `nemesis`.
    pub weights: [u64; 14],
    /// Members that do not vote at first.
    pub spares: u64,
    /// Whether states go to members that lag, so that logs are released without regard to them.
    pub snapshots: bool,
    /// Of a state that is taken over, whether the state machine is replaced before the log is marked.
    pub swap_first: bool,
    /// How many of a hundred new leaders are cut off at once.
    pub strike: u64,
    /// A lie, in runs that must fail.
    pub lie: Option<Lie>,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64, lie: Option<Lie>, chance: &mut Chance) -> Plan {
        let election_ticks = chance.between(2, 6) as u32;
        let config = Config {
            id: MemberId(0),
            election_ticks,
            heartbeat_ticks: chance.between(1, u64::from(election_ticks / 3).max(1)) as u32,
            pre_vote: !chance.hits(1, 5),
            check_quorum: !chance.hits(1, 5),
            inflight_messages_max: [1, 2, 16, 256][chance.below(4) as usize],
            inflight_bytes_max: [1, 100, 1 << 20][chance.below(3) as usize],
            append_bytes_max: [1, 50, 1 << 20][chance.below(3) as usize],
            uncommitted_bytes_max: [100, 1 << 20][chance.below(2) as usize],
            sabotage: match lie {
                Some(Lie::Breaks(rule)) => Some(rule),
                _ => None,
            },
        };
        let weight = |chance: &mut Chance| [0, 1, 1, 5][chance.below(4) as usize];
        let mut weights = [0; 14];
        weights[..10].iter_mut().for_each(|each| *each = weight(chance));
        // Of chance of its own: one run in five is as it was before there were changes of membership, so that its seed means the same.
        let mut more = Chance::new(seed ^ 0x5eed);
        let churns = !matches!(seed % 10, 0 | 2);
        if churns {
            weights[10..].iter_mut().for_each(|each| *each = weight(&mut more));
        }
        Plan {
            members: [1, 3, 3, 3, 3, 3, 5, 5, 5, 5][chance.below(10) as usize],
            config,
            real_log: matches!(seed % 20, 0 | 7) && lie.is_none(),
            weather: Weather::draw(chance),
            chaos: chance.between(100, 400) * TICK,
            fault_gap: [3, 6, 12, 25][chance.below(4) as usize] * TICK,
            client_gap: [40, 100, 300][chance.below(3) as usize],
            act_delay_max: [0, 0, 5, 50][chance.below(4) as usize],
            sync_max: [1, 10, 60][chance.below(3) as usize],
            weights,
            strike: [0, 0, 30, 70][chance.below(4) as usize],
            lie,
            spares: if churns { more.below(4) } else { 0 },
            snapshots: churns,
            swap_first: more.hits(1, 2),
        }
    }
}
