//! What the process may use: memory, and files for connections; and the shares that are taken from it.

use crate::{
    config::LimitFlags,
    metrics::{Kind, Source, Text},
    places::{self, Places},
    server::{Bounds, RateSettings},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{fs, path::Path, time::Duration};

/// What is assumed where the system does not say.
const MEMORY_BYTES_UNKNOWN: usize = 1 << 30;
/// Connections of the listeners for HTTP alone and for metrics, which are not many: clients can't take those places.
const ASIDE_MIN: usize = 64;
const ASIDE_PART: usize = 8;
/// How long a client may be connected without a request before its place is for others, when they have none.
const GRACE: Duration = Duration::from_secs(2);

/// The budget of a member and its shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// All that is counted: what requests, answers, streams and unread watches may take is a part of it.
    pub(super) memory_bytes: usize,
    /// Of requests, answers and streams.
    pub(super) bounds: Bounds,
    /// What all watches together may hold back.
    pub(super) watch_bytes_max: usize,
    connections_max: usize,
    of_address_max: usize,
}

impl Limits {
    /// As the flags say; the rest by what the system has.
    pub(super) fn of(flags: &LimitFlags) -> Limits {
        let memory_bytes = match flags.memory_bytes {
            0 => memory_bytes() / 2,
            bytes => bytes,
        };
        let mut bounds = Bounds::within(memory_bytes);
        if flags.range_bytes_max > 0 {
            bounds.answer_bytes_max = flags.range_bytes_max;
        }
        let connections_max = match flags.connections_max {
            0 => files_max() / 4 * 3,
            most => most,
        };
        let of_address_max = match flags.connections_per_address_max {
            0 => usize::MAX,
            most => most,
        };
        Limits { memory_bytes, bounds, watch_bytes_max: memory_bytes / 8, connections_max, of_address_max }
    }

    /// For the listeners of clients.
    pub(super) fn places(&self) -> places::Bounds {
        let all_max = self.connections_max.max(1);
        // Half is for those who ask for something.
        let silent_max = all_max.div_ceil(2);
        places::Bounds { all_max, of_address_max: self.of_address_max, silent_max, grace: GRACE }
    }

    /// For each group of listeners beside them.
    pub(super) fn places_aside(&self) -> places::Bounds {
        let all_max = (self.connections_max / ASIDE_PART).max(ASIDE_MIN);
        places::Bounds { all_max, silent_max: all_max.div_ceil(2), ..self.places() }
    }
}

/// Rates as the edge has them.
pub(super) fn rates(flags: &LimitFlags) -> RateSettings {
    RateSettings { users: flags.users.clone(), prefixes: flags.prefixes.clone() }
}

/// Memory of the machine, or of the container if it has less.
fn memory_bytes() -> usize {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    // Version 2 of control groups, then 1; a container sees its own group there.
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group = groups.iter().find_map(|path| number(Path::new(path)));
    let least = machine.into_iter().chain(group).min();
    least.map_or(MEMORY_BYTES_UNKNOWN, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// `MemTotal` of `/proc/meminfo`.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// A file that is a number; `max` is none.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Takes as many open files as the system would let this process have: what shells give it is for people, and too few for a server. Go's
/// runtime does the same for etcd.
pub(super) fn raise_files_max() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, ?maximum, "cannot raise the number of open files");
    }
}

fn files_max() -> usize {
    usize::try_from(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}

/// What `/metrics` says of it.
pub(super) struct LimitSource {
    pub(super) limits: Limits,
    /// Listeners that are served together, by name.
    pub(super) places: Vec<(&'static str, Places)>,
}

impl Source for LimitSource {
    fn write(&self, text: &mut Text) {
        let Limits { memory_bytes, bounds, watch_bytes_max, .. } = self.limits;
        text.gauge("henge_memory_budget_bytes", "The memory that shares are taken from.", memory_bytes);
        let help = "What each kind of use may take of the memory budget.";
        let mut family = text.family("henge_memory_share_bytes", Kind::Gauge, help);
        family.sample(&[("of", "requests")], bounds.bytes_max);
        family.sample(&[("of", "watches")], watch_bytes_max);
        text.gauge("henge_server_answer_bytes_max", "Bytes of the largest answer to a range.", bounds.answer_bytes_max);
        let numbers = self.places.iter().map(|(name, places)| (*name, places.counts(), places.bounds()));
        let numbers = numbers.collect::<Vec<_>>();
        let help = "Connections of clients, and those of them that have asked for nothing yet.";
        let mut family = text.family("henge_server_connections", Kind::Gauge, help);
        for (name, counts, _) in &numbers {
            family.sample(&[("listener", *name), ("state", "known")], counts.all - counts.silent);
            family.sample(&[("listener", *name), ("state", "silent")], counts.silent);
        }
        let help = "Connections of clients that there may be.";
        let mut family = text.family("henge_server_connections_max", Kind::Gauge, help);
        numbers.iter().for_each(|(name, _, bounds)| family.sample(&[("listener", *name)], bounds.all_max));
        let help = "Connections that were turned away, and silent ones that were closed for others.";
        let mut family = text.family("henge_server_connections_refused_total", Kind::Counter, help);
        for (name, counts, _) in &numbers {
            family.sample(&[("listener", *name), ("how", "turned_away")], counts.refused);
            family.sample(&[("listener", *name), ("how", "closed")], counts.taken_away);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_come_from_the_budget_and_flags_go_before_them() {
        let flags = LimitFlags { memory_bytes: 1 << 30, ..LimitFlags::default() };
        let limits = Limits::of(&flags);
        assert_eq!((limits.bounds.bytes_max, limits.watch_bytes_max), (256 << 20, 128 << 20));
        let flags = LimitFlags { range_bytes_max: 7, connections_max: 10, connections_per_address_max: 3, ..flags };
        let limits = Limits::of(&flags);
        assert_eq!(limits.bounds.answer_bytes_max, 7);
        let places = limits.places();
        assert_eq!((places.all_max, places.of_address_max, places.silent_max), (10, 3, 5));
        assert_eq!(limits.places_aside().all_max, ASIDE_MIN);
    }

    #[test]
    fn the_system_says_how_much_memory_there_is() {
        assert_eq!(total("MemTotal:       24684276 kB\nMemFree: 1 kB\n"), Some(24_684_276 * 1_024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(memory_bytes() > 64 << 20);
        raise_files_max();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
        assert!(Limits::of(&LimitFlags::default()).connections_max > 10);
    }
}
