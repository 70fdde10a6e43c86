//! Every way in which the links among five members can be cut, one way or both ways: as long as some majority hear each other, the cluster
//! makes progress, whatever the others hear and say (the outage at Cloudflare in 2020; openraft#2080).
//!
//! One member in the middle of a majority is not enough: if another one alone has the old leader's last entry, nobody can be elected.

use crate::{
    raft::{Config, Input, LogId, Node, Output, Proposal, Restored, Role},
    types::{ConfState, EntryKind, MemberId, SnapshotMeta},
};
use bytes::Bytes;

const MEMBERS: usize = 5;
/// Ticks in which an entry must be committed.
const PATIENCE_TICKS: u32 = 150;

/// `links & bit(from, to)`: what `from` sends reaches `to`.
fn bit(from: usize, to: usize) -> u32 {
    1 << (from * MEMBERS + to)
}

const ALL: u32 = (1 << (MEMBERS * MEMBERS)) - 1;

/// Five members with instant disks; what is sent arrives within the tick, where there is a link.
struct Five {
    nodes: Vec<Node>,
    links: u32,
    waiting: Vec<(usize, usize, Input)>,
}

impl Five {
    fn new(seed: u64) -> Five {
        let conf_state = ConfState { voters: (1..=5).map(MemberId).collect(), ..ConfState::default() };
        let node = |id| {
            let config = Config {
                id: MemberId(id),
                election_ticks: 5,
                heartbeat_ticks: 1,
                pre_vote: true,
                check_quorum: true,
                inflight_messages_max: 16,
                inflight_bytes_max: 1 << 20,
                append_bytes_max: 1 << 20,
                uncommitted_bytes_max: 1 << 20,
                sabotage: None,
            };
            let snapshot = SnapshotMeta { conf_state: conf_state.clone(), ..SnapshotMeta::default() };
            Node::new(config, Restored { snapshot, conf_state: conf_state.clone(), ..Restored::default() }, seed)
        };
        Five { nodes: (1..=5).map(node).collect(), links: ALL, waiting: Vec::new() }
    }

    fn step(&mut self, at: usize, input: Input) {
        let mut out = Output::default();
        self.nodes[at].step(input, &mut out);
        while let Some(last) = out.append.last().map(|entry| LogId { index: entry.index, term: entry.term }) {
            out.append.clear();
            self.nodes[at].step(Input::Persisted { upto: last.index, term: last.term }, &mut out);
        }
        let from = MemberId(at as u64 + 1);
        for envelope in out.send_now.into_iter().chain(out.send_durable) {
            let to = envelope.to.0 as usize - 1;
            if self.links & bit(at, to) != 0 {
                self.waiting.push((at, to, Input::Received { from, message: envelope.message }));
            }
        }
    }

    fn deliver(&mut self) {
        while !self.waiting.is_empty() {
            for (_, to, input) in std::mem::take(&mut self.waiting) {
                self.step(to, input);
            }
        }
    }

    /// Ticks until one more entry is committed somewhere; `None` if that takes too long.
    fn progress(&mut self) -> Option<u32> {
        let commit = |five: &Five| five.nodes.iter().map(|node| node.status().commit).max();
        let before = commit(self);
        (1..=PATIENCE_TICKS).find(|_| {
            for at in 0..MEMBERS {
                self.step(at, Input::Tick);
                if self.nodes[at].status().role == Role::Leader {
                    let data = Bytes::from_static(b"x");
                    self.step(at, Input::Propose(vec![Proposal { kind: EntryKind::Normal, data }]));
                }
                self.deliver();
            }
            commit(self) > before
        })
    }
}

/// All links among five of which 0, 1 and 2 are linked both ways; with other names, these are all with a majority that is.
fn links(number: u32) -> u32 {
    let pairs = (0..MEMBERS).flat_map(|from| (0..MEMBERS).map(move |to| (from, to))).filter(|(from, to)| from != to);
    let (fixed, free) = pairs.partition::<Vec<_>, _>(|(from, to)| *from < 3 && *to < 3);
    let chosen = free.iter().enumerate().filter(|(at, _)| number >> at & 1 == 1).map(|(_, pair)| pair);
    fixed.iter().chain(chosen).map(|(from, to)| bit(*from, *to)).sum()
}

/// One of each kind: the rest differs only in the names.
fn is_one_of_its_kind(links: u32) -> bool {
    let renamed = |name: [usize; MEMBERS]| {
        let pairs = (0..MEMBERS).flat_map(|from| (0..MEMBERS).map(move |to| (from, to)));
        pairs.filter(|(from, to)| links & bit(*from, *to) != 0).map(|(from, to)| bit(name[from], name[to])).sum::<u32>()
    };
    let majorities = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let names = majorities.into_iter().flat_map(|[a, b, c]| [[a, b, c, 3, 4], [a, b, c, 4, 3]]);
    names.into_iter().all(|name| renamed(name) >= links)
}

#[test]
fn openraft_2080_a_majority_that_hear_each_other_make_progress_however_the_other_links_are() {
    let kinds = (0..1 << 14).map(links).filter(|links| is_one_of_its_kind(*links)).collect::<Vec<_>>();
    let mut longest = 0;
    for (links, leader) in kinds.iter().flat_map(|links| (0..MEMBERS).map(move |leader| (*links, leader))) {
        let mut five = Five::new(u64::from(links));
        five.step(leader, Input::Campaign);
        five.deliver();
        assert_eq!(five.nodes[leader].status().role, Role::Leader);
        five.links = links;
        // Commits that were on their way don't count: the second one must have come by the links that are left.
        for _ in 0..3 {
            let took = five.progress();
            let took = took.unwrap_or_else(|| panic!("links {links:#x} and leader {leader}: nothing is committed"));
            longest = longest.max(took);
        }
    }
    assert_eq!(kinds.len(), 1_676);
    assert!(longest > 5, "nobody ever had to be elected");
}
