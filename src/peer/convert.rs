//! Messages into their wire types and back. Data of entries and proposals is handed on, never copied.

use crate::{
    engine::Table,
    machine::RequestId,
    membership::Member,
    pb::henge::peer as pb,
    raft::{self, Body, LogId, ReadId},
    replica::{Answer, Forwarded, PeerMessage, Question, Row, Standby},
    types::{ConfState, Entry, EntryKind, Index, LeaseId, MemberId, SnapshotMeta, Term},
};
use bytes::Bytes;
use std::fmt;

/// Why something that came over the wire is no message of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message: {}", self.0)
    }
}

/// A message as it travels.
pub(super) fn to_wire(message: PeerMessage) -> pb::Message {
    use pb::message::Body as Wire;
    let body = match message {
        PeerMessage::Raft(message) => Wire::Raft(raft_to_wire(message)),
        PeerMessage::Forward { term, proposals } => {
            let proposals = proposals.into_iter().map(|Forwarded { id, kind, data }| pb::Proposal {
                id: id.0,
                kind: kind_to_wire(kind),
                data,
            });
            Wire::Forward(pb::Forward { term: term.0, proposals: proposals.collect() })
        }
        PeerMessage::Returned { term, ids, is_full } => {
            Wire::Returned(pb::Returned { term: term.0, ids: ids.into_iter().map(|id| id.0).collect(), is_full })
        }
        PeerMessage::Ask { id, term, question } => {
            Wire::Ask(pb::Ask { id, term: term.0, question: Some(question_to_wire(question)) })
        }
        PeerMessage::Answer { id, answer } => Wire::Answer(pb::Answer { id, answer: Some(answer_to_wire(answer)) }),
        PeerMessage::Refill => Wire::Refill(pb::Refill {}),
        PeerMessage::Standbys(standbys) => {
            let standbys =
                standbys.into_iter().map(|Standby { peer_url, is_there }| pb::Standby { peer_url, is_there });
            Wire::Standbys(pb::Standbys { standbys: standbys.collect() })
        }
        PeerMessage::Hash { index, hash } => Wire::Hash(pb::Hash { index: index.0, hash }),
    };
    pb::Message { body: Some(body) }
}

/// What a message says; `None` if it is of a kind that only later versions know.
///
/// # Errors
/// [`Malformed`] if no version can have written it.
pub(super) fn from_wire(message: pb::Message) -> Result<Option<PeerMessage>, Malformed> {
    use pb::message::Body as Wire;
    let Some(body) = message.body else { return Ok(None) };
    Ok(Some(match body {
        Wire::Raft(message) => match raft_from_wire(message)? {
            Some(message) => PeerMessage::Raft(message),
            None => return Ok(None),
        },
        Wire::Forward(forward) => {
            let proposals = forward.proposals.into_iter().map(|pb::Proposal { id, kind, data }| {
                Ok(Forwarded { id: RequestId(id), kind: kind_from_wire(kind)?, data })
            });
            PeerMessage::Forward { term: Term(forward.term), proposals: proposals.collect::<Result<_, Malformed>>()? }
        }
        Wire::Returned(pb::Returned { term, ids, is_full }) => {
            PeerMessage::Returned { term: Term(term), ids: ids.into_iter().map(RequestId).collect(), is_full }
        }
        Wire::Ask(pb::Ask { id, term, question }) => match question {
            Some(question) => PeerMessage::Ask { id, term: Term(term), question: question_from_wire(question) },
            None => return Ok(None),
        },
        Wire::Answer(pb::Answer { id, answer }) => match answer {
            Some(answer) => PeerMessage::Answer { id, answer: answer_from_wire(answer) },
            None => return Ok(None),
        },
        Wire::Refill(pb::Refill {}) => PeerMessage::Refill,
        Wire::Standbys(pb::Standbys { standbys }) => {
            let standbys =
                standbys.into_iter().map(|pb::Standby { peer_url, is_there }| Standby { peer_url, is_there });
            PeerMessage::Standbys(standbys.collect())
        }
        Wire::Hash(pb::Hash { index, hash }) => PeerMessage::Hash { index: Index(index), hash },
    }))
}

fn raft_to_wire(message: raft::Message) -> pb::Raft {
    use pb::raft::Body as Wire;
    let body = match message.body {
        Body::PreVote { last } => Wire::PreVote(pb::PreVote { last: Some(log_id_to_wire(last)) }),
        Body::PreVoteReply { granted } => Wire::PreVoteReply(pb::VoteReply { granted }),
        Body::Vote { last, transfer } => Wire::Vote(pb::Vote { last: Some(log_id_to_wire(last)), transfer }),
        Body::VoteReply { granted } => Wire::VoteReply(pb::VoteReply { granted }),
        Body::Append { prev, entries, commit } => Wire::Append(pb::Append {
            prev: Some(log_id_to_wire(prev)),
            entries: entries.into_iter().map(entry_to_wire).collect(),
            commit: commit.0,
        }),
        Body::AppendAccepted { matched } => Wire::AppendAccepted(pb::AppendAccepted { matched: matched.0 }),
        Body::AppendRejected { prev, hint } => {
            Wire::AppendRejected(pb::AppendRejected { prev: prev.0, hint: Some(log_id_to_wire(hint)) })
        }
        Body::Heartbeat { commit, round } => Wire::Heartbeat(pb::Heartbeat { commit: commit.0, round }),
        Body::HeartbeatReply { round } => Wire::HeartbeatReply(pb::HeartbeatReply { round }),
        Body::ReadIndex { id } => Wire::ReadIndex(pb::ReadIndex { id: id.0 }),
        Body::ReadIndexReply { id, index } => {
            Wire::ReadIndexReply(pb::ReadIndexReply { id: id.0, index: index.map(|index| index.0) })
        }
        Body::TimeoutNow => Wire::TimeoutNow(pb::TimeoutNow {}),
        Body::Outdated => Wire::Outdated(pb::Outdated {}),
    };
    pb::Raft { term: message.term.0, body: Some(body) }
}

fn raft_from_wire(message: pb::Raft) -> Result<Option<raft::Message>, Malformed> {
    use pb::raft::Body as Wire;
    let Some(body) = message.body else { return Ok(None) };
    let body = match body {
        Wire::PreVote(pb::PreVote { last }) => Body::PreVote { last: log_id_from_wire(last)? },
        Wire::PreVoteReply(pb::VoteReply { granted }) => Body::PreVoteReply { granted },
        Wire::Vote(pb::Vote { last, transfer }) => Body::Vote { last: log_id_from_wire(last)?, transfer },
        Wire::VoteReply(pb::VoteReply { granted }) => Body::VoteReply { granted },
        Wire::Append(pb::Append { prev, entries, commit }) => {
            let prev = log_id_from_wire(prev)?;
            Body::Append { prev, entries: entries_from_wire(prev.index, entries)?, commit: Index(commit) }
        }
        Wire::AppendAccepted(pb::AppendAccepted { matched }) => Body::AppendAccepted { matched: Index(matched) },
        Wire::AppendRejected(pb::AppendRejected { prev, hint }) => {
            Body::AppendRejected { prev: Index(prev), hint: log_id_from_wire(hint)? }
        }
        Wire::Heartbeat(pb::Heartbeat { commit, round }) => Body::Heartbeat { commit: Index(commit), round },
        Wire::HeartbeatReply(pb::HeartbeatReply { round }) => Body::HeartbeatReply { round },
        Wire::ReadIndex(pb::ReadIndex { id }) => Body::ReadIndex { id: ReadId(id) },
        Wire::ReadIndexReply(pb::ReadIndexReply { id, index }) => {
            Body::ReadIndexReply { id: ReadId(id), index: index.map(Index) }
        }
        Wire::TimeoutNow(pb::TimeoutNow {}) => Body::TimeoutNow,
        Wire::Outdated(pb::Outdated {}) => Body::Outdated,
    };
    Ok(Some(raft::Message { term: Term(message.term), body }))
}

fn log_id_to_wire(id: LogId) -> pb::LogId {
    pb::LogId { index: id.index.0, term: id.term.0 }
}

fn log_id_from_wire(id: Option<pb::LogId>) -> Result<LogId, Malformed> {
    let pb::LogId { index, term } = id.ok_or(Malformed("a position of the log is missing"))?;
    Ok(LogId { index: Index(index), term: Term(term) })
}

fn kind_to_wire(kind: EntryKind) -> i32 {
    match kind {
        EntryKind::Normal => pb::EntryKind::Normal,
        EntryKind::ConfChange => pb::EntryKind::ConfChange,
        EntryKind::ConfChangeV2 => pb::EntryKind::ConfChangeV2,
    }
    .into()
}

fn kind_from_wire(kind: i32) -> Result<EntryKind, Malformed> {
    Ok(match pb::EntryKind::try_from(kind).map_err(|_| Malformed("an entry is of an unknown kind"))? {
        pb::EntryKind::Normal => EntryKind::Normal,
        pb::EntryKind::ConfChange => EntryKind::ConfChange,
        pb::EntryKind::ConfChangeV2 => EntryKind::ConfChangeV2,
    })
}

/// The index stays behind: see [`pb::Append`].
fn entry_to_wire(entry: Entry) -> pb::Entry {
    pb::Entry { term: entry.term.0, kind: kind_to_wire(entry.kind), data: entry.data }
}

fn entries_from_wire(prev: Index, entries: Vec<pb::Entry>) -> Result<Vec<Entry>, Malformed> {
    if prev.0.checked_add(entries.len() as u64).is_none() {
        return Err(Malformed("entries beyond the last possible index"));
    }
    let entry = |(at, pb::Entry { term, kind, data })| {
        Ok(Entry { term: Term(term), index: Index(prev.0 + 1 + at as u64), kind: kind_from_wire(kind)?, data })
    };
    entries.into_iter().enumerate().map(entry).collect()
}

fn question_to_wire(question: Question) -> pb::ask::Question {
    let leases = |ids: Vec<LeaseId>| pb::Leases { ids: ids.into_iter().map(|id| id.0.cast_unsigned()).collect() };
    match question {
        Question::Renew(ids) => pb::ask::Question::Renew(leases(ids)),
        Question::Remaining(ids) => pb::ask::Question::Remaining(leases(ids)),
        Question::IsReady(id) => pb::ask::Question::IsReady(id.0),
    }
}

fn question_from_wire(question: pb::ask::Question) -> Question {
    let leases = |leases: pb::Leases| leases.ids.into_iter().map(|id| LeaseId(id.cast_signed())).collect();
    match question {
        pb::ask::Question::Renew(ids) => Question::Renew(leases(ids)),
        pb::ask::Question::Remaining(ids) => Question::Remaining(leases(ids)),
        pb::ask::Question::IsReady(id) => Question::IsReady(MemberId(id)),
    }
}

fn answer_to_wire(answer: Answer) -> pb::answer::Answer {
    match answer {
        Answer::Seconds(leases) => {
            let leases = leases.into_iter().map(|seconds| pb::Left { seconds }).collect();
            pb::answer::Answer::Seconds(pb::Seconds { leases })
        }
        Answer::Is(is) => pb::answer::Answer::Is(is),
        Answer::NotLeader => pb::answer::Answer::NotLeader(pb::NotLeader {}),
    }
}

fn answer_from_wire(answer: pb::answer::Answer) -> Answer {
    match answer {
        pb::answer::Answer::Seconds(seconds) => {
            Answer::Seconds(seconds.leases.into_iter().map(|left| left.seconds).collect())
        }
        pb::answer::Answer::Is(is) => Answer::Is(is),
        pb::answer::Answer::NotLeader(pb::NotLeader {}) => Answer::NotLeader,
    }
}

/// The header of a snapshot.
pub(super) fn header_to_wire(meta: &SnapshotMeta, bytes_about: u64) -> pb::SnapshotHeader {
    let ids = |ids: &[MemberId]| ids.iter().map(|id| id.0).collect();
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = &meta.conf_state;
    let conf_state = pb::ConfState {
        voters: ids(voters),
        learners: ids(learners),
        voters_outgoing: ids(voters_outgoing),
        learners_next: ids(learners_next),
        auto_leave: *auto_leave,
    };
    pb::SnapshotHeader { index: meta.index.0, term: meta.term.0, conf_state: Some(conf_state), bytes_about }
}

/// What a snapshot's header says.
///
/// # Errors
/// [`Malformed`] without the membership.
pub(super) fn header_from_wire(header: pb::SnapshotHeader) -> Result<SnapshotMeta, Malformed> {
    let ids = |ids: Vec<u64>| ids.into_iter().map(MemberId).collect();
    let conf_state = header.conf_state.ok_or(Malformed("a snapshot without a membership"))?;
    let conf_state = ConfState {
        voters: ids(conf_state.voters),
        learners: ids(conf_state.learners),
        voters_outgoing: ids(conf_state.voters_outgoing),
        learners_next: ids(conf_state.learners_next),
        auto_leave: conf_state.auto_leave,
    };
    Ok(SnapshotMeta { index: Index(header.index), term: Term(header.term), conf_state })
}

/// Rows of a snapshot.
pub(super) fn rows_to_wire(rows: Vec<Row>) -> pb::Rows {
    let rows = rows.into_iter().map(|(table, key, value)| pb::Row { table: table as u32, key, value });
    pb::Rows { rows: rows.collect() }
}

/// Rows of a snapshot.
///
/// # Errors
/// [`Malformed`] for a table that this version does not have: the state would be incomplete without it.
pub(super) fn rows_from_wire(rows: pb::Rows) -> Result<Vec<Row>, Malformed> {
    let row = |pb::Row { table: number, key, value }| Ok((table(number)?, key, value));
    rows.rows.into_iter().map(row).collect()
}

/// A place between two rows.
pub(super) fn position_to_wire((table, key): (Table, Bytes)) -> pb::Position {
    pb::Position { table: table as u32, key }
}

/// A place between two rows.
///
/// # Errors
/// [`Malformed`] for a table that this version does not have.
pub(super) fn position_from_wire(position: pb::Position) -> Result<(Table, Bytes), Malformed> {
    Ok((table(position.table)?, position.key))
}

fn table(number: u32) -> Result<Table, Malformed> {
    let found = Table::ALL.into_iter().find(|table| *table as u32 == number);
    found.ok_or(Malformed("a row of an unknown table"))
}

/// A member, as it is told to newcomers.
pub(super) fn member_to_wire(member: Member) -> pb::Member {
    let Member { id, name, peer_urls, client_urls, is_learner } = member;
    pb::Member { id: id.0, name, peer_urls, client_urls, is_learner }
}

/// A member, as it is told to newcomers.
pub(super) fn member_from_wire(member: pb::Member) -> Member {
    let pb::Member { id, name, peer_urls, client_urls, is_learner } = member;
    Member { id: MemberId(id), name, peer_urls, client_urls, is_learner }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    fn data() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn kind() -> impl Strategy<Value = EntryKind> {
        prop_oneof![Just(EntryKind::Normal), Just(EntryKind::ConfChange), Just(EntryKind::ConfChangeV2)]
    }

    fn log_id() -> impl Strategy<Value = LogId> {
        (0..u64::MAX / 2, any::<u64>()).prop_map(|(index, term)| LogId { index: Index(index), term: Term(term) })
    }

    fn append() -> impl Strategy<Value = Body> {
        let entry = (any::<u64>(), kind(), data());
        (log_id(), proptest::collection::vec(entry, 0..5), any::<u64>()).prop_map(|(prev, entries, commit)| {
            let entry = |(at, (term, kind, data))| Entry {
                term: Term(term),
                index: Index(prev.index.0 + 1 + at as u64),
                kind,
                data,
            };
            Body::Append { prev, entries: entries.into_iter().enumerate().map(entry).collect(), commit: Index(commit) }
        })
    }

    fn body() -> impl Strategy<Value = Body> {
        prop_oneof![
            log_id().prop_map(|last| Body::PreVote { last }),
            any::<bool>().prop_map(|granted| Body::PreVoteReply { granted }),
            (log_id(), any::<bool>()).prop_map(|(last, transfer)| Body::Vote { last, transfer }),
            any::<bool>().prop_map(|granted| Body::VoteReply { granted }),
            append(),
            any::<u64>().prop_map(|matched| Body::AppendAccepted { matched: Index(matched) }),
            (any::<u64>(), log_id()).prop_map(|(prev, hint)| Body::AppendRejected { prev: Index(prev), hint }),
            any::<(u64, u64)>().prop_map(|(commit, round)| Body::Heartbeat { commit: Index(commit), round }),
            any::<u64>().prop_map(|round| Body::HeartbeatReply { round }),
            any::<u64>().prop_map(|id| Body::ReadIndex { id: ReadId(id) }),
            any::<(u64, Option<u64>)>()
                .prop_map(|(id, index)| Body::ReadIndexReply { id: ReadId(id), index: index.map(Index) }),
            Just(Body::TimeoutNow),
            Just(Body::Outdated),
        ]
    }

    fn question() -> impl Strategy<Value = Question> {
        let leases = || any::<Vec<i64>>().prop_map(|ids| ids.into_iter().map(LeaseId).collect::<Vec<_>>());
        prop_oneof![
            leases().prop_map(Question::Renew),
            leases().prop_map(Question::Remaining),
            any::<u64>().prop_map(|id| Question::IsReady(MemberId(id))),
        ]
    }

    fn message() -> impl Strategy<Value = PeerMessage> {
        let forwarded =
            (any::<u64>(), kind(), data()).prop_map(|(id, kind, data)| Forwarded { id: RequestId(id), kind, data });
        prop_oneof![
            4 => (any::<u64>(), body()).prop_map(|(term, body)| PeerMessage::Raft(raft::Message { term: Term(term), body })),
            1 => (any::<u64>(), proptest::collection::vec(forwarded, 0..5))
                .prop_map(|(term, proposals)| PeerMessage::Forward { term: Term(term), proposals }),
            1 => Just(PeerMessage::Refill),
            1 => any::<Vec<(String, bool)>>().prop_map(|all| PeerMessage::Standbys(
                all.into_iter().map(|(peer_url, is_there)| Standby { peer_url, is_there }).collect()
            )),
            1 => any::<(u64, Vec<u64>, bool)>().prop_map(|(term, ids, is_full)| PeerMessage::Returned {
                term: Term(term),
                ids: ids.into_iter().map(RequestId).collect(), is_full
            }),
            1 => (any::<(u64, u64)>(), question())
                .prop_map(|((id, term), question)| PeerMessage::Ask { id, term: Term(term), question }),
            1 => (any::<u64>(), prop_oneof![
                any::<Vec<Option<i64>>>().prop_map(Answer::Seconds),
                any::<bool>().prop_map(Answer::Is),
                Just(Answer::NotLeader),
            ]).prop_map(|(id, answer)| PeerMessage::Answer { id, answer }),
            1 => any::<(u64, u64)>().prop_map(|(index, hash)| PeerMessage::Hash { index: Index(index), hash }),
        ]
    }

    proptest! {
        #[test]
        fn every_message_arrives_as_it_was_sent(message in message()) {
            let bytes = to_wire(message.clone()).encode_to_vec();
            let arrived = pb::Message::decode(Bytes::from(bytes)).expect("decodes");
            prop_assert_eq!(from_wire(arrived), Ok(Some(message)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
            if let Ok(message) = pb::Message::decode(Bytes::from(bytes)) {
                let _ = from_wire(message);
            }
        }

        #[test]
        fn headers_and_rows_of_a_snapshot_arrive_as_they_were_sent(
            ids in any::<[Vec<u64>; 4]>(), auto_leave: bool, index: u64, term: u64, key in data(), value in data()
        ) {
            let [voters, learners, voters_outgoing, learners_next] = ids.map(|ids| ids.into_iter().map(MemberId).collect());
            let conf_state = ConfState { voters, learners, voters_outgoing, learners_next, auto_leave };
            let meta = SnapshotMeta { index: Index(index), term: Term(term), conf_state };
            prop_assert_eq!(header_from_wire(header_to_wire(&meta, 7)), Ok(meta));
            let rows = Table::ALL.map(|table| (table, key.clone(), value.clone())).to_vec();
            prop_assert_eq!(rows_from_wire(rows_to_wire(rows.clone())), Ok(rows));
        }
    }

    #[test]
    fn data_is_handed_on_without_a_copy() {
        let data = Bytes::from(vec![7; 100]);
        let at = data.as_ptr();
        let forwarded = Forwarded { id: RequestId(1), kind: EntryKind::Normal, data };
        let wire = to_wire(PeerMessage::Forward { term: Term(1), proposals: vec![forwarded] });
        let Ok(Some(PeerMessage::Forward { proposals: back, .. })) = from_wire(wire) else {
            panic!("it is a proposal")
        };
        assert_eq!(back[0].data.as_ptr(), at);
    }

    #[test]
    fn what_no_version_can_have_written_is_an_error_and_what_a_later_one_may_have_is_not() {
        let raft = |body| pb::Message { body: Some(pb::message::Body::Raft(pb::Raft { term: 1, body: Some(body) })) };
        let append = |prev, kind| {
            let entries = vec![pb::Entry { term: 1, kind, data: Bytes::new() }];
            raft(pb::raft::Body::Append(pb::Append { prev, entries, commit: 0 }))
        };
        let end = pb::LogId { index: u64::MAX, term: 1 };
        assert!(from_wire(append(None, 0)).is_err());
        assert!(from_wire(append(Some(end), 0)).is_err());
        assert!(from_wire(append(Some(pb::LogId { index: 1, term: 1 }), 99)).is_err());
        assert!(from_wire(append(Some(pb::LogId { index: 1, term: 1 }), 2)).is_ok());
        assert_eq!(from_wire(pb::Message { body: None }), Ok(None));
        let rows = pb::Rows { rows: vec![pb::Row { table: 99, ..pb::Row::default() }] };
        assert!(rows_from_wire(rows).is_err());
    }
}
