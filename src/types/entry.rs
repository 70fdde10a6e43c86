//! What raft and wal share, so that neither imports the other.

use super::{ConfState, Index, MemberId, Term};
use bytes::Bytes;

/// What the data of an [`Entry`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A command (`InternalRaftRequest`), or nothing: the entry with which a leader opens its term.
    #[default]
    Normal,
    /// A membership change of one step (`raftpb.ConfChange`).
    ConfChange,
    /// A membership change of several steps (`raftpb.ConfChangeV2`).
    ConfChangeV2,
}

/// One position of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Term of the leader that made the entry.
    pub term: Term,
    /// Position in the log.
    pub index: Index,
    /// What `data` is.
    pub kind: EntryKind,
    /// The command as bytes. Raft and the log never look inside.
    pub data: Bytes,
}

/// What a member must not forget across a crash (Raft paper, figure 2), and how far it knew to be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Latest term seen.
    pub term: Term,
    /// Whom this member voted for in `term`.
    pub vote: Option<MemberId>,
    /// Highest index known to be committed. May lag behind the truth.
    pub commit: Index,
}

/// A point before which the log is not needed, because the state machine's state stands for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Last index that the state contains.
    pub index: Index,
    /// Term of the entry at `index`.
    pub term: Term,
    /// Membership at `index`.
    pub conf_state: ConfState,
}
