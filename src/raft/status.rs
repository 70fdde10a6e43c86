//! Facts about a node, for its owner, for metrics and for humans.

use super::progress::Phase;
use crate::types::{Index, MemberId, Term};

/// What a member does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one. Learners stay here.
    Follower,
    /// Asks whether an election would be won.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Facts about one node. Cheap: no allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: MemberId,
    /// What it does.
    pub role: Role,
    /// Latest term seen.
    pub term: Term,
    /// Whom it voted for in `term`.
    pub vote: Option<MemberId>,
    /// Who leads `term`, if known.
    pub leader: Option<MemberId>,
    /// Known to be committed. May be ahead of `durable` where other members' disks were faster.
    pub commit: Index,
    /// Known to be on this member's own disk. What may be applied is `min(commit, durable)`.
    pub durable: Index,
    /// End of the log.
    pub last_index: Index,
    /// Term of the entry at `last_index`.
    pub last_term: Term,
    /// First entry that is still held; `last_index + 1` if there is none.
    pub first_index: Index,
    /// Leads, and is not about to hand over, and a quorum (this member included) has answered heartbeats that were sent within the
    /// last `election_ticks`: nobody else has led any longer than that.
    pub confirmed: bool,
    /// Whom this leader is handing leadership over to.
    pub transferee: Option<MemberId>,
}

/// One follower as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Who.
    pub id: MemberId,
    /// Known to be on its disk.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// How it is sent to; [`Phase::NeedsSnapshot`] is the caller's call to help.
    pub phase: Phase,
    /// Appends on the way.
    pub inflight_messages: usize,
    /// Bytes on the way.
    pub inflight_bytes: usize,
    /// Heard from since the last check of the quorum.
    pub active: bool,
}
