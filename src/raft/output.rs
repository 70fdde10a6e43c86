//! What goes into a node, and what comes out.

use super::message::{Envelope, Message};
use crate::types::{ConfState, Entry, EntryKind, HardState, Index, MemberId, Sabotage, SnapshotMeta, Term};
use bytes::Bytes;
use std::ops::Range;

/// How a node behaves. The same on all members, by agreement of their operators; nothing breaks if it is not.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// Ticks without a leader before an election; the real wait is random, from here to twice as long.
    pub election_ticks: u32,
    /// Ticks between heartbeats; less than `election_ticks`.
    pub heartbeat_ticks: u32,
    /// Asks before it campaigns, so that a member that was cut off does not depose a working leader when it comes back.
    pub pre_vote: bool,
    /// A leader that has not heard from a quorum for `election_ticks` steps down, and members that hear from a leader ignore candidates.
    pub check_quorum: bool,
    /// Most appends on the way to one follower.
    pub inflight_messages_max: usize,
    /// Bytes on the way to one follower from which on no further append is sent.
    pub inflight_bytes_max: usize,
    /// Most bytes of data in one append; a larger entry travels alone.
    pub append_bytes_max: usize,
    /// Most bytes of data that a leader takes on before they are committed; one proposal is always taken.
    pub uncommitted_bytes_max: usize,
    /// A rule to break, in builds that are there to be caught.
    pub sabotage: Option<Sabotage>,
}

/// What survived the last run.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The last one that was saved.
    pub hard_state: HardState,
    /// Where the log starts: `entries` follow right after `snapshot.index`.
    pub snapshot: SnapshotMeta,
    /// Membership at `applied`.
    pub conf_state: ConfState,
    /// How far the state machine has come; at least `snapshot.index`.
    pub applied: Index,
    /// All entries on disk after `snapshot.index`.
    pub entries: Vec<Entry>,
}

/// One attempt to read. Chosen by the caller, and never chosen again by this member, not even after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// An entry in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// What `data` is.
    pub kind: EntryKind,
    /// The command. Shared, not copied, on its way to disk and followers.
    pub data: Bytes,
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// A fixed span of time has passed.
    Tick,
    /// Seek election now. A lone voter leads at once.
    Campaign,
    /// A message arrived.
    Received {
        /// Who sent it, as the transport knows.
        from: MemberId,
        /// What it says.
        message: Message,
    },
    /// Reads wait for longer than it should take ([`super::Node::asked_few`]): ask everyone.
    Widen,
    /// What is committed has waited for company long enough ([`super::Node::owes_news`]): say it.
    TellCommit,
    /// Put these into the log, in this order.
    Propose(Vec<Proposal>),
    /// At which index may a linearizable read be answered? The answer is in `reads` or `reads_failed`, once.
    ReadIndex(ReadId),
    /// The entry at `upto`, made in `term`, and everything that was handed out before it are on this member's disk.
    ///
    /// Completions come in the order of the writes, and may be merged: then the last one stands for all.
    Persisted {
        /// Position of the last entry of the write.
        upto: Index,
        /// Term of that entry, which tells a late answer about an entry that was since replaced.
        term: Term,
    },
    /// The whole state of another member, as it was at this point, lies on this member's disk and may be taken over.
    ///
    /// Raft decides: [`Output::restore`] says so if it is. It is passed over if this member has come as far by itself (then at most
    /// the commit index moves), or leads. The state must be that of committed entries, as any member's is.
    Restore(SnapshotMeta),
    /// Hand leadership over to this voter. A leader stops to take proposals, brings the voter up to date, and tells it to campaign.
    /// Ends by itself after `election_ticks`. Passed over by whoever does not lead, and if the other one is no voter.
    Transfer(MemberId),
    /// This member's disk has stopped answering, or answers again. While it does not, this member neither leads (unless nobody
    /// else could) nor campaigns nor votes: nothing that it said would be backed by a disk.
    DiskStalled(bool),
}

/// What the caller owes the world. Several inputs may add to one output before the caller acts on it and clears it.
///
/// *Order on disk.* `restore`, then `hard_state` and `append`, each output after the one before it. A log of a mark and a commit index
/// without it, or of entries whose beginning it doesn't hold, could not be opened. *Order in the state machine.* `restore`, then
/// `committed`. Both may be worked at side by side, by two threads.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Take over the state that [`Input::Restore`] spoke of. The caller replaces its state machine, and puts a mark into its log that
    /// empties it: all that earlier outputs handed out to be appended or applied is superseded, done
    /// or not. What this output holds in `append` and `committed` was handed out after it, and follows right behind it.
    ///
    /// Which of the two comes first does not matter, as long as both are done before the entries of `append` are written and before
    /// `send_durable` is sent. After a crash between them the one tells that the other is due. Changes of membership at or below its
    /// index that are applied late change nothing any more: see [`super::Node::apply_conf_change`].
    pub restore: Option<SnapshotMeta>,
    /// To be sent at once, beside the disk write (thesis, section 10.2.1).
    pub send_now: Vec<Envelope>,
    /// To be on disk before `send_durable`. One that differs from the last only in `commit` needs no sync of its own.
    pub hard_state: Option<HardState>,
    /// To be on disk before `send_durable`. The first may stand at a position that is taken: it and all after it are replaced.
    pub append: Vec<Entry>,
    /// Votes and acknowledgements: to be sent only when `restore`, `hard_state` and `append` of this *and of every earlier* output are
    /// on disk, even if this one has none.
    pub send_durable: Vec<Envelope>,
    /// Newly committed, and on this member's own disk: to be applied. Half open. See `Node::entries`.
    pub committed: Range<Index>,
    /// Reads that may be answered once this index is applied.
    pub reads: Vec<(ReadId, Index)>,
    /// Reads without an answer: no leader, or leadership was lost. They may be tried again under a new id.
    pub reads_failed: Vec<ReadId>,
    /// How many proposals were refused: not the leader, or about to hand over, or too much is uncommitted. Always the last ones of their batch.
    pub proposals_dropped: usize,
}

impl Output {
    /// Nothing owed; keeps the memory.
    pub fn clear(&mut self) {
        self.restore = None;
        self.send_now.clear();
        self.hard_state = None;
        self.append.clear();
        self.send_durable.clear();
        self.committed = Range::default();
        self.reads.clear();
        self.reads_failed.clear();
        self.proposals_dropped = 0;
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.restore.is_none()
            && self.send_now.is_empty()
            && self.hard_state.is_none()
            && self.append.is_empty()
            && self.send_durable.is_empty()
            && self.committed.is_empty()
            && self.reads.is_empty()
            && self.reads_failed.is_empty()
            && self.proposals_dropped == 0
    }
}
