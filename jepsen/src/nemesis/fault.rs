//! The faults there are, and the nemeses made of them: one table.

use std::fmt;

/// Which members a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any one.
    One,
    /// The leader; any one, if nobody knows who leads.
    Leader,
    /// As many as the cluster can do without.
    Minority,
    /// One more than that.
    Majority,
    /// All.
    All,
}

/// Who cannot hear whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Two halves; of an odd number, one has a majority.
    Halves,
    /// The leader is alone.
    Leader,
    /// Each hears a majority, but no two the same one.
    Ring,
    /// The leader is heard, but hears nobody; or the other way round.
    OneWay,
    /// Two halves that hear each other only through one member between them.
    Bridge,
    /// The leader's links come and go.
    Flapping,
}

/// Which proxies a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Any one.
    One,
    /// All of them, in all tiers.
    All,
}

/// Which proxies cannot hear what stands behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The first tier and the members, in both directions.
    Core,
    /// The first tier hears no member, or is heard by none.
    CoreOneWay,
    /// Each proxy of the first tier is without some members, and no two must be without the same.
    Members,
    /// The last tier and the one before it; sometimes in one direction alone, sometimes not all of them.
    Tiers,
    /// The links of one proxy to all upstream come and go.
    Flapping,
}

/// One thing that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a new start at the end.
    Kill(Target),
    /// SIGSTOP, and SIGCONT at the end.
    Pause(Target),
    /// Members that do not hear each other.
    Partition(Shape),
    /// Packets get lost, and members can send little.
    Network,
    /// Disks without space.
    DiskFull(Target),
    /// Disks whose syncs take long.
    DiskSlow(Target),
    /// Disks that do not answer.
    DiskHang(Target),
    /// SIGKILL together with the loss of all that was not synced.
    Power(Target),
    /// All members are stopped as an operator does and started again, one after the other, the leader last.
    Roll,
    /// A member is removed, and comes back as a learner with an empty disk, which is promoted.
    Replace,
    /// SIGKILL of proxies, and a new start at the end.
    ProxyKill(Share),
    /// The same, but what they had on disk is gone.
    ProxyWipe(Share),
    /// SIGSTOP of proxies, and SIGCONT at the end.
    ProxyPause(Share),
    /// Proxies that do not hear what stands behind them.
    ProxyCut(Link),
    /// All proxies start anew while they hear no member: what they know is on their disks.
    ProxyOrphan,
    /// All proxies are stopped as an operator does and started again, one after the other.
    ProxyRoll,
}

use Fault::{
    DiskFull, DiskHang, DiskSlow, Kill, Network, Partition, Pause, Power, ProxyCut, ProxyKill, ProxyOrphan, ProxyPause,
    ProxyRoll, ProxyWipe, Replace, Roll,
};
use Target::{All, Leader, Majority, Minority, One};

/// The nemeses: a name, its faults, and what it is for.
pub const NEMESES: &[(&str, &[Fault], &str)] = &[
    ("none", &[], "nothing goes wrong"),
    ("kill", &[Kill(One), Kill(Leader), Kill(Minority), Kill(Majority), Kill(All)], "SIGKILL and a new start"),
    ("pause", &[Pause(One), Pause(Leader), Pause(Minority), Pause(Majority), Pause(All)], "SIGSTOP and SIGCONT"),
    (
        "partition",
        &[
            Partition(Shape::Halves),
            Partition(Shape::Leader),
            Partition(Shape::Ring),
            Partition(Shape::OneWay),
            Partition(Shape::Bridge),
            Partition(Shape::Flapping),
        ],
        "members that do not hear each other",
    ),
    ("network", &[Network], "packets get lost, links are slow"),
    (
        "disk",
        &[DiskFull(One), DiskFull(Leader), DiskSlow(Leader), DiskSlow(All), DiskHang(One), DiskHang(Leader)],
        "full, slow and hanging disks",
    ),
    ("power", &[Power(One), Power(Leader), Power(Minority), Power(All)], "SIGKILL that loses what was not synced"),
    ("roll", &[Roll], "a rolling restart, as for an upgrade"),
    ("members", &[Replace], "a member is removed and comes back empty, as a learner first"),
    (
        "mix",
        &[
            Kill(Leader),
            Kill(All),
            Pause(Leader),
            Pause(Minority),
            Partition(Shape::Leader),
            Partition(Shape::Bridge),
            Network,
            DiskSlow(All),
            DiskHang(Leader),
            Power(One),
            Power(All),
            Roll,
            Replace,
        ],
        "something of everything",
    ),
    (
        "proxy",
        &[
            ProxyKill(Share::One),
            ProxyKill(Share::All),
            ProxyWipe(Share::One),
            ProxyWipe(Share::All),
            ProxyPause(Share::One),
            ProxyPause(Share::All),
            ProxyRoll,
        ],
        "proxies are killed, lose their disks, are paused, are restarted",
    ),
    (
        "proxy-partition",
        &[
            ProxyCut(Link::Core),
            ProxyCut(Link::CoreOneWay),
            ProxyCut(Link::Members),
            ProxyCut(Link::Tiers),
            ProxyCut(Link::Flapping),
            ProxyOrphan,
        ],
        "proxies that do not hear what stands behind them",
    ),
    (
        "ring",
        &[
            Kill(Leader),
            Kill(All),
            Pause(Leader),
            Partition(Shape::Leader),
            Network,
            Power(All),
            Roll,
            Replace,
            ProxyKill(Share::All),
            ProxyWipe(Share::One),
            ProxyPause(Share::One),
            ProxyCut(Link::Core),
            ProxyCut(Link::Members),
            ProxyCut(Link::Tiers),
            ProxyOrphan,
        ],
        "something of everything, at members and proxies",
    ),
];

impl Fault {
    /// Whether it needs hosts of their own.
    pub fn needs_network(self) -> bool {
        matches!(self, Partition(_) | Network | ProxyCut(_) | ProxyOrphan)
    }

    /// How many tiers of proxies it needs.
    pub fn tiers_min(self) -> usize {
        match self {
            ProxyCut(Link::Tiers) => 2,
            ProxyKill(_) | ProxyWipe(_) | ProxyPause(_) | ProxyCut(_) | ProxyOrphan | ProxyRoll => 1,
            _ => 0,
        }
    }

    /// Whether it needs disks that fail on command.
    pub fn needs_disks(self) -> bool {
        matches!(self, DiskFull(_) | DiskSlow(_) | DiskHang(_) | Power(_))
    }

    /// The smallest cluster where it means something.
    pub fn nodes_min(self) -> usize {
        match self {
            Partition(Shape::Ring | Shape::Bridge) | Replace => 3,
            Partition(_) | Network | ProxyCut(Link::Members) => 2,
            _ => 1,
        }
    }

    /// Whether a member may end by itself because of it.
    pub fn may_end_members(self) -> bool {
        matches!(self, DiskFull(_) | DiskHang(_) | Replace)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            One => "one",
            Leader => "leader",
            Minority => "minority",
            Majority => "majority",
            All => "all",
        })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Share::One => "one",
            Share::All => "all",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kill(target) => write!(f, "kill-{target}"),
            Pause(target) => write!(f, "pause-{target}"),
            Partition(Shape::Halves) => f.write_str("partition-halves"),
            Partition(Shape::Leader) => f.write_str("partition-leader"),
            Partition(Shape::Ring) => f.write_str("partition-ring"),
            Partition(Shape::OneWay) => f.write_str("partition-one-way"),
            Partition(Shape::Bridge) => f.write_str("partition-bridge"),
            Partition(Shape::Flapping) => f.write_str("partition-flapping"),
            Network => f.write_str("network"),
            DiskFull(target) => write!(f, "disk-full-{target}"),
            DiskSlow(target) => write!(f, "disk-slow-{target}"),
            DiskHang(target) => write!(f, "disk-hang-{target}"),
            Power(target) => write!(f, "power-{target}"),
            Roll => f.write_str("roll-all"),
            Replace => f.write_str("members-replace"),
            ProxyKill(share) => write!(f, "proxy-kill-{share}"),
            ProxyWipe(share) => write!(f, "proxy-wipe-{share}"),
            ProxyPause(share) => write!(f, "proxy-pause-{share}"),
            ProxyCut(Link::Core) => f.write_str("proxy-cut-core"),
            ProxyCut(Link::CoreOneWay) => f.write_str("proxy-cut-one-way"),
            ProxyCut(Link::Members) => f.write_str("proxy-cut-members"),
            ProxyCut(Link::Tiers) => f.write_str("proxy-cut-tiers"),
            ProxyCut(Link::Flapping) => f.write_str("proxy-cut-flapping"),
            ProxyOrphan => f.write_str("proxy-orphan-all"),
            ProxyRoll => f.write_str("proxy-roll-all"),
        }
    }
}

/// The faults of the nemesis called `name`, which may also be the name of one fault.
pub fn find(name: &str) -> Option<Vec<Fault>> {
    if let Some((_, faults, _)) = NEMESES.iter().find(|(known, _, _)| *known == name) {
        return Some(faults.to_vec());
    }
    let mut all = NEMESES.iter().flat_map(|(_, faults, _)| faults.iter());
    all.find(|fault| fault.to_string() == name).map(|fault| vec![*fault])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nemeses_and_single_faults_are_found_by_name() {
        assert_eq!(find("none"), Some(Vec::new()));
        assert_eq!(find("partition").map(|faults| faults.len()), Some(6));
        assert_eq!(find("kill-leader"), Some(vec![Kill(Leader)]));
        assert_eq!(find("partition-one-way"), Some(vec![Partition(Shape::OneWay)]));
        assert_eq!(find("gremlins"), None);
    }

    #[test]
    fn every_fault_of_a_mix_is_part_of_another_nemesis() {
        let (mixes, others): (Vec<_>, Vec<_>) = NEMESES.iter().partition(|(name, _, _)| ["mix", "ring"].contains(name));
        assert_eq!(mixes.len(), 2);
        for fault in mixes.iter().flat_map(|(_, faults, _)| *faults) {
            assert!(others.iter().any(|(_, faults, _)| faults.contains(fault)), "{fault}");
        }
    }

    #[test]
    fn no_fault_has_the_name_of_another_or_of_a_nemesis() {
        let mut faults: Vec<Fault> = Vec::new();
        for fault in NEMESES.iter().flat_map(|(_, faults, _)| *faults) {
            if !faults.contains(fault) {
                faults.push(*fault);
            }
        }
        let names: BTreeSet<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), faults.len());
        // `network` is a nemesis of the one fault that is called so.
        assert!(NEMESES.iter().all(|(name, all, _)| !names.contains(*name) || *all == [Network]));
    }
}
