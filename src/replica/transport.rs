//! How members reach each other, as a member sees it: messages that may be lost, and snapshots that arrive whole or not at all.

use crate::{
    engine::{Checkpoint, Table},
    machine::RequestId,
    membership::Member,
    raft,
    types::{EntryKind, Fault, Index, LeaseId, MemberId, SnapshotMeta, Term},
};
use bytes::Bytes;
use std::{
    ops::{Bound, ControlFlow},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Bytes of entries that are kept in memory for a follower to whom a snapshot is on its way. Beyond, it will need another one.
pub(super) const HELD_BYTES_MAX: usize = 512 << 20;

/// What one member says to another. Any of it may be lost or delayed, but never damaged. What raft says may also be doubled and reordered;
/// the rest must arrive at most once: a proposal that comes twice is two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Between the two parts of the agreement.
    Raft(raft::Message),
    /// To the leader of a term: put these into the log, in that term or never. So whoever has applied an entry of a later term, and
    /// none of these, knows that none of them will ever be applied, and may try again.
    Forward {
        /// The term.
        term: Term,
        /// In their order.
        proposals: Vec<Forwarded>,
    },
    /// From whoever was thought to lead: these were not put into the log, and will not be.
    Returned {
        /// The term of the message that brought them.
        term: Term,
        /// Which.
        ids: Vec<RequestId>,
        /// Whether the receiver leads but has no room. Else it does not lead, and another member may be asked.
        is_full: bool,
    },
    /// To the leader: a question that needs no place in the log.
    Ask {
        /// Chosen by the asking member, never twice.
        id: u64,
        /// In which the asking member is, and the leader that it asks.
        term: Term,
        /// What it wants to know.
        question: Question,
    },
    /// The answer to [`PeerMessage::Ask`].
    Answer {
        /// Of the question.
        id: u64,
        /// What the leader says.
        answer: Answer,
    },
    /// To the leader: the sender can't trust its state any more, and asks for the leader's.
    Refill,
    /// To the leader: hosts that volunteer for the core, as far as the sender knows.
    Standbys(Vec<Standby>),
    /// The sender's state hash after an entry. Members that applied the same entries must have the same.
    Hash {
        /// The entry.
        index: Index,
        /// The hash after it.
        hash: u64,
    },
}

/// A proposal on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// By which the asking member finds its caller when the entry is applied there.
    pub id: RequestId,
    /// What `data` is.
    pub kind: EntryKind,
    /// The command, as it stands in the log.
    pub data: Bytes,
}

/// A host that volunteers to become a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standby {
    /// Of the member that it would be.
    pub peer_url: String,
    /// Whether anything is heard of it now.
    pub is_there: bool,
}

/// What a follower asks its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Renew these leases.
    Renew(Vec<LeaseId>),
    /// How many seconds have these leases left?
    Remaining(Vec<LeaseId>),
    /// Has this learner caught up, so that it could vote?
    IsReady(MemberId),
}

/// What a leader answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// For each lease its seconds, or nothing if there is no such lease.
    Seconds(Vec<Option<i64>>),
    /// Yes or no.
    Is(bool),
    /// The member that was asked does not lead, or could not prove it.
    NotLeader,
}

/// A message with its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Who should get it.
    pub to: MemberId,
    /// What it says.
    pub message: PeerMessage,
}

/// The way to the other members. There are two: the network, and the simulator's.
pub trait Transport: Send + Sync + 'static {
    /// Sends; to one receiver in the order given, as far as it arrives at all, but that small messages may overtake appends and proposals.
    /// Never waits: what has no room is dropped.
    fn send(&self, letters: Vec<Letter>);

    /// Who belongs to the cluster now, this member included, and who has left for good: those are not spoken to any more.
    fn set_members(&self, members: Vec<Member>, removed: Vec<MemberId>);

    /// Begins to send a snapshot. One at a time for each receiver; whether it arrived shows in
    /// what the receiver says to raft.
    fn send_snapshot(&self, to: MemberId, snapshot: Outgoing);

    /// Whether a snapshot is on its way to `to`.
    fn is_sending_snapshot(&self, to: MemberId) -> bool;

    /// For how long there has been an unbroken connection to `to`; `None` if there is none.
    fn connected_for(&self, to: MemberId) -> Option<Duration>;
}

/// A row of the store.
pub type Row = (Table, Bytes, Bytes);

/// A snapshot on its way out: the rows of this member's store as they were after one entry.
pub struct Outgoing {
    /// The entry, and the membership after it.
    pub meta: SnapshotMeta,
    /// Bytes of the store, for whoever shows progress; about.
    pub bytes_about: u64,
    /// How much it hurries, which may change on the way.
    pub haste: Haste,
    rows: Box<dyn Checkpoint>,
}

/// What a snapshot on its way costs the sender: entries after it that can't be released. There is room for so many only, and whoever
/// gets to the end too late needs another snapshot, for ever under a steady load. So a sender that is polite to everybody else at first
/// hurries more and more.
#[derive(Clone, Debug, Default)]
pub struct Haste(Arc<AtomicUsize>);

/// At the limit of what may be held, the usual rate times this.
const HASTE_MAX: f64 = 16.0;
/// The part of the limit up to which there is no hurry.
const CALM_PART: f64 = 0.25;

impl Haste {
    /// So many more bytes are held now.
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether there is room for what is held.
    pub(super) fn is_in_time(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= HELD_BYTES_MAX
    }

    /// How many times the usual rate.
    pub fn times(&self) -> f64 {
        let part = self.0.load(Ordering::Relaxed) as f64 / HELD_BYTES_MAX as f64;
        1.0 + (HASTE_MAX - 1.0) * ((part - CALM_PART) / (1.0 - CALM_PART)).clamp(0.0, 1.0)
    }
}

impl Outgoing {
    /// The rows of `rows`, which are those after entry `meta.index`.
    pub fn new(meta: SnapshotMeta, bytes_about: u64, rows: Box<dyn Checkpoint>) -> Outgoing {
        Outgoing { meta, bytes_about, haste: Haste::default(), rows }
    }

    /// As fast as `haste` says.
    pub(super) fn hastened_by(self, haste: Haste) -> Outgoing {
        Outgoing { haste, ..self }
    }

    /// The rows after `after` (`None`: from the first), about `bytes_max` of them but at least one; none at the end. Blocks on the disk.
    ///
    /// # Errors
    /// A broken store.
    pub fn rows(&self, after: Option<(Table, &[u8])>, bytes_max: usize) -> Result<Vec<Row>, Fault> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for table in Table::ALL {
            let from = match after {
                Some((last, _)) if table < last => continue,
                Some((last, key)) if table == last => Bound::Excluded(key),
                _ => Bound::Unbounded,
            };
            self.rows.scan(table, (from, Bound::Unbounded), &mut |key, value| {
                bytes += key.len() + value.len();
                rows.push((table, Bytes::copy_from_slice(key), value));
                if bytes >= bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_hurries_only_once_much_is_held_for_it() {
        let haste = Haste::default();
        let mut times = Vec::new();
        for _ in 0..=4 {
            times.push(haste.times());
            assert!(haste.is_in_time());
            haste.add(HELD_BYTES_MAX / 4);
        }
        assert_eq!((times[0], times[1], times[4]), (1.0, 1.0, HASTE_MAX));
        assert!(times[1..].is_sorted() && times[2] > 3.0, "{times:?}");
        assert!(!haste.is_in_time());
    }
}
