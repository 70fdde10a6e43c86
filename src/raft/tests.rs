//! What a script can't bring about: logs and messages that no well-behaved member has or sends.

use super::*;
use crate::types::{ConfState, Entry, EntryKind, HardState, Index, MemberId, SnapshotMeta, Term};

const CONFIG: Config = Config {
    id: MemberId(1),
    election_ticks: 10,
    heartbeat_ticks: 1,
    pre_vote: false,
    check_quorum: true,
    inflight_messages_max: 64,
    inflight_bytes_max: 1 << 20,
    append_bytes_max: 1 << 20,
    uncommitted_bytes_max: 1 << 20,
    sabotage: None,
};

fn conf_state(voters: &[u64], learners: &[u64]) -> ConfState {
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    ConfState { voters: ids(voters), learners: ids(learners), ..ConfState::default() }
}

fn entry(index: u64, term: u64, kind: EntryKind) -> Entry {
    Entry { index: Index(index), term: Term(term), kind, ..Entry::default() }
}

/// Member 1, with nothing applied.
fn node(conf_state: ConfState, commit: u64, entries: Vec<Entry>) -> Node {
    let hard_state = HardState { term: Term(1), vote: None, commit: Index(commit) };
    let snapshot = SnapshotMeta { conf_state: conf_state.clone(), ..SnapshotMeta::default() };
    Node::new(CONFIG, Restored { hard_state, snapshot, conf_state, applied: Index(0), entries }, 7)
}

fn receive(node: &mut Node, from: u64, term: u64, body: Body) -> Output {
    let mut out = Output::default();
    node.step(Input::Received { from: MemberId(from), message: Message { term: Term(term), body } }, &mut out);
    out
}

fn vote(node: &mut Node, index: u64, term: u64) -> bool {
    let last = LogId { index: Index(index), term: Term(term) };
    let out = receive(node, 2, 9, Body::Vote { last, transfer: false });
    matches!(out.send_durable[..], [Envelope { message: Message { body: Body::VoteReply { granted }, .. }, .. }] if granted)
}

#[test]
fn zookeeper_4925_an_append_that_would_leave_a_hole_never_arrived() {
    let normal = |index, term| entry(index, term, EntryKind::Normal);
    let holes = [
        (LogId { index: Index(1), term: Term(1) }, vec![normal(3, 1)]),
        (LogId { index: Index(1), term: Term(1) }, vec![normal(2, 1), normal(4, 1)]),
        (LogId { index: Index(1), term: Term(1) }, vec![normal(2, 2), normal(3, 1)]),
        (LogId { index: Index(1), term: Term(1) }, vec![normal(2, 3)]),
    ];
    for (prev, entries) in holes {
        let mut node = node(conf_state(&[1, 2, 3], &[]), 1, vec![normal(1, 1)]);
        let out = receive(&mut node, 2, 2, Body::Append { prev, entries: entries.clone(), commit: Index(9) });
        assert!(out.append.is_empty() && out.send_durable.is_empty(), "{entries:?}");
        assert_eq!((node.status().last_index, node.status().commit), (Index(1), Index(1)));
    }
    // Behind the end of the log: told where to begin.
    let mut node = node(conf_state(&[1, 2, 3], &[]), 1, vec![normal(1, 1)]);
    let prev = LogId { index: Index(5), term: Term(2) };
    let out = receive(&mut node, 2, 2, Body::Append { prev, entries: vec![normal(6, 2)], commit: Index(6) });
    assert!(matches!(out.send_now[..], [Envelope { message: Message { body: Body::AppendRejected { .. }, .. }, .. }]));
    assert!(out.append.is_empty());
}

#[test]
fn all_changes_of_membership_in_a_log_but_the_last_are_committed_whatever_the_saved_index_says() {
    let change = |index| entry(index, 1, EntryKind::ConfChange);
    let entries = vec![entry(1, 1, EntryKind::Normal), change(2), change(3), entry(4, 1, EntryKind::Normal)];
    let mut node = node(conf_state(&[1, 2, 3], &[]), 0, entries);
    assert_eq!(node.status().commit, Index(2));
    let mut out = Output::default();
    node.step(Input::Campaign, &mut out);
    assert_eq!(node.status().role, Role::Follower, "not by a membership that is over");
    assert_eq!(out.committed, Index(1)..Index(3));
    node.apply_conf_change(Index(2), &ConfChange::Nothing);
    node.step(Input::Campaign, &mut out);
    assert_eq!(node.status().role, Role::Candidate);
}

#[test]
fn a_member_without_a_vote_protects_what_is_committed_and_one_that_may_have_a_vote_its_whole_log() {
    let log = || (1..=4).map(|index| entry(index, 1, EntryKind::Normal)).collect::<Vec<_>>();
    assert!(vote(&mut node(conf_state(&[2, 3], &[1]), 2, log()), 2, 1), "what follows was not committed with its help");
    assert!(!vote(&mut node(conf_state(&[2, 3], &[1]), 2, log()), 1, 1));
    assert!(!vote(&mut node(conf_state(&[1, 2, 3], &[]), 2, log()), 2, 1), "a voter");
    let mut promoted = log();
    promoted[2].kind = EntryKind::ConfChange;
    let learner = || node(conf_state(&[2, 3], &[1]), 2, promoted.clone());
    assert!(!vote(&mut learner(), 3, 1), "entry 3 may have made it a voter");
    assert!(vote(&mut learner(), 2, 1), "who lacks entry 3 cannot win if that is committed");
    assert!(vote(&mut learner(), 4, 1));
}

#[test]
fn what_a_restored_state_stands_for_is_neither_written_nor_applied_nor_changes_the_membership() {
    let mut node = node(conf_state(&[1, 2, 3], &[]), 1, vec![entry(1, 1, EntryKind::Normal)]);
    let mut out = Output::default();
    let entries = vec![entry(2, 1, EntryKind::ConfChange), entry(3, 1, EntryKind::Normal)];
    let prev = LogId { index: Index(1), term: Term(1) };
    let body = Body::Append { prev, entries, commit: Index(2) };
    node.step(Input::Received { from: MemberId(2), message: Message { term: Term(1), body } }, &mut out);
    assert_eq!((out.append.len(), out.committed.clone()), (2, Index(1)..Index(2)));
    let meta = SnapshotMeta { index: Index(9), term: Term(4), conf_state: conf_state(&[1, 2], &[5]) };
    node.step(Input::Restore(meta.clone()), &mut out);
    assert_eq!((out.append.len(), out.committed.is_empty(), &out.restore), (0, true, &Some(meta.clone())));
    assert_eq!(out.hard_state, Some(HardState { term: Term(4), vote: None, commit: Index(9) }));
    // The apply thread had the old entry in its hands.
    let late = ConfChange::Simple(ConfStep { kind: ConfStepKind::AddVoter, member: MemberId(4) });
    assert_eq!(node.apply_conf_change(Index(2), &late), meta.conf_state);
    // So had the disk.
    node.step(Input::Persisted { upto: Index(3), term: Term(1) }, &mut out);
    assert_eq!((node.status().durable, node.status().first_index), (Index(9), Index(10)));
    assert_eq!(node.entries(Index(10), Index(10)), []);
    // Entries that follow go out together with it.
    let prev = LogId { index: Index(9), term: Term(4) };
    let body = Body::Append { prev, entries: vec![entry(10, 4, EntryKind::Normal)], commit: Index(10) };
    node.step(Input::Received { from: MemberId(2), message: Message { term: Term(4), body } }, &mut out);
    assert_eq!((out.append.len(), out.restore), (1, Some(meta)));
}

#[test]
fn only_the_leader_may_tell_a_voter_to_campaign() {
    let log = || vec![entry(1, 1, EntryKind::Normal)];
    let mut follower = node(conf_state(&[1, 2, 3], &[]), 1, log());
    receive(&mut follower, 2, 1, Body::Heartbeat { commit: Index(1), round: 1 });
    receive(&mut follower, 3, 1, Body::TimeoutNow);
    assert_eq!(follower.status().role, Role::Follower);
    receive(&mut follower, 2, 1, Body::TimeoutNow);
    assert_eq!((follower.status().role, follower.status().term), (Role::Candidate, Term(2)));

    let mut learner = node(conf_state(&[2, 3], &[1]), 1, log());
    receive(&mut learner, 2, 1, Body::Heartbeat { commit: Index(1), round: 1 });
    receive(&mut learner, 2, 1, Body::TimeoutNow);
    assert_eq!(learner.status().role, Role::Follower);
}
