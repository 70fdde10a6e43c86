//! One member: the real node, its simulated disk, and a state machine that only remembers how far it has come.

use super::{
    checkers::{Shadow, Slot},
    disk::Disk,
    plan::TICK,
};
use crate::{
    raft::{Config, LogId, Node, Output, Restored, Status},
    types::{ConfState, Index, MemberId, SnapshotMeta},
};

/// One member, up or down.
pub struct Member {
    /// Its part in the agreement; none while it is down.
    pub node: Option<Node>,
    /// Counts restarts: what was under way in an earlier life does not happen.
    pub life: u64,
    /// What the node owes the world, gathered until somebody acts on it.
    pub out: Output,
    /// Whether somebody is on the way to act on it.
    pub act_due: bool,
    /// Its log.
    pub disk: Disk,
    /// Everything in the node's log since the first entry ever, for the checkers.
    pub shadow: Shadow,
    /// Where the state machine is.
    pub applied: Index,
    /// Where it will be after a crash.
    pub flushed: LogId,
    /// States of other members that lie on its disk.
    pub staged: Vec<SnapshotMeta>,
    /// A state is on its way to it.
    pub awaits_state: bool,
    /// It was told that its disk hangs.
    pub stalled: bool,
    /// Its disk hangs until then.
    pub hung_until: u64,
    /// It is off for good.
    pub gone: bool,
    /// It does nothing before this time.
    pub paused_until: u64,
    /// Its clock.
    pub tick_every: u64,
    /// Added to each of its syncs.
    pub slow_disk: u64,
    config: Config,
}

impl Member {
    /// A member that was never started.
    pub fn new(config: Config, disk: Disk) -> Member {
        Member {
            node: None,
            life: 0,
            out: Output::default(),
            act_due: false,
            disk,
            shadow: Shadow::new(),
            applied: Index(0),
            flushed: LogId::default(),
            staged: Vec::new(),
            awaits_state: false,
            stalled: false,
            hung_until: 0,
            gone: false,
            paused_until: 0,
            tick_every: TICK,
            slow_disk: 0,
            config,
        }
    }

    /// Who it is.
    pub fn id(&self) -> MemberId {
        self.config.id
    }

    /// Facts about the node, if it is up.
    pub fn status(&self) -> Option<Status> {
        self.node.as_ref().map(Node::status)
    }

    /// A state whose mark is in the log is what it will be after a crash.
    pub fn install_staged(&mut self) {
        let start = self.disk.start;
        if start.index > self.flushed.index {
            assert!(self.staged.iter().any(|meta| meta.index == start.index), "a mark without a state at {start:?}");
            self.flushed = start;
        }
    }

    /// Starts from what is on disk. `committed` stands in for the entries that the log has released, and `conf_state` is what the state
    /// machine says of the membership.
    pub fn start(&mut self, committed: &Shadow, conf_state: &ConfState, seed: u64) {
        let disk = &mut self.disk;
        self.life += 1;
        self.out.clear();
        self.act_due = false;
        self.stalled = false;
        if disk.term(self.flushed.index) != Some(self.flushed.term) {
            // A crash came after the state machine was replaced, and before the log was marked.
            disk.empty(self.flushed, conf_state);
        }
        self.applied = self.flushed.index;
        self.shadow = committed[..disk.start.index.0 as usize].to_vec();
        self.shadow.extend(disk.entries.iter().map(Slot::of));
        let mut hard_state = disk.hard_state;
        // The commit index is written without a sync of its own. What was applied was committed.
        hard_state.commit = hard_state.commit.max(self.flushed.index);
        let snapshot = SnapshotMeta { index: disk.start.index, term: disk.start.term, conf_state: conf_state.clone() };
        let restored = Restored {
            hard_state,
            snapshot,
            conf_state: conf_state.clone(),
            applied: self.flushed.index,
            entries: disk.entries.clone(),
        };
        self.node = Some(Node::new(self.config, restored, seed));
    }
}
