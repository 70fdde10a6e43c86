//! What members say to each other.

use super::output::ReadId;
use crate::types::{Entry, Index, MemberId, Term};

/// A position in the log together with the term of its entry: two logs that share it are equal up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogId {
    /// Position.
    pub index: Index,
    /// Term of the entry at that position.
    pub term: Term,
}

impl LogId {
    /// Whether a log that ends here may be voted for by one that ends at `other` (Raft paper, section 5.4.1).
    pub fn is_up_to_date_for(self, other: LogId) -> bool {
        (self.term, self.index) >= (other.term, other.index)
    }
}

/// A message with its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who should get it.
    pub to: MemberId,
    /// What it says.
    pub message: Message,
}

/// What one member says to another. Any of them may be lost, doubled, delayed or reordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender's term when it wrote the message. Never a term that the sender has not entered: a [`Body::PreVote`] too
    /// carries the present term, and asks about the next.
    pub term: Term,
    /// The rest.
    pub body: Body,
}

/// The kinds of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Would you vote for me in the term after this one? Promises nothing on either side (thesis, section 9.6).
    PreVote {
        /// Where the sender's log ends.
        last: LogId,
    },
    /// Answer to [`Body::PreVote`].
    PreVoteReply {
        /// Whether the answer is yes.
        granted: bool,
    },
    /// Vote for me in this term.
    Vote {
        /// Where the sender's log ends.
        last: LogId,
        /// The leader of the term before wants it so ([`Body::TimeoutNow`]): also members that hear that leader answer.
        transfer: bool,
    },
    /// Answer to [`Body::Vote`].
    VoteReply {
        /// Whether the answer is yes.
        granted: bool,
    },
    /// Entries that follow `prev`; none to probe, or to tell `commit`.
    Append {
        /// What must stand in the receiver's log before `entries`.
        prev: LogId,
        /// Without gaps, the first right after `prev`.
        entries: Vec<Entry>,
        /// What the leader knows to be committed; may be beyond the last of `entries`.
        commit: Index,
    },
    /// The receiver's log, on its disk, is the leader's up to `matched`.
    AppendAccepted {
        /// Last position known to be equal.
        matched: Index,
    },
    /// The receiver's log doesn't have what the append follows.
    AppendRejected {
        /// `prev.index` of that append, to tell which one is answered.
        prev: Index,
        /// Highest position of the receiver's log that can still be equal to the leader's, and its term.
        hint: LogId,
    },
    /// I lead.
    Heartbeat {
        /// Committed, as far as the receiver is known to have the entries.
        commit: Index,
        /// Number of this round in this term. An answer proves that the receiver had no newer leader when the round began, or later.
        round: u64,
    },
    /// Answer to [`Body::Heartbeat`].
    HeartbeatReply {
        /// The round that is answered.
        round: u64,
    },
    /// At which index may I answer this read?
    ReadIndex {
        /// The asking member's id for the attempt.
        id: ReadId,
    },
    /// Answer to [`Body::ReadIndex`].
    ReadIndexReply {
        /// The attempt.
        id: ReadId,
        /// Where the asking member must have applied up to; `None` if leadership was lost.
        index: Option<Index>,
    },
    /// Said by a leader to the member that it hands leadership over to: campaign now, in the next term, without asking first.
    TimeoutNow,
    /// Your term is over: see mine. Lets a leader that was cut off, or one that meets a member with a newer term, step down.
    Outdated,
}
