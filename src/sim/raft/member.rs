//! One member: the real node, its simulated disk, and a state machine that only remembers how far it has come.

use super::{checkers::Shadow, disk::Disk, plan::TICK};
use crate::{
    raft::{Config, Node, Output, Restored, Status},
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
    pub flushed: Index,
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
            flushed: Index(0),
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

    /// Starts from what is on disk. `committed` stands in for the entries that the log has released.
    pub fn start(&mut self, committed: &Shadow, conf_state: &ConfState, seed: u64) {
        let disk = &self.disk;
        self.life += 1;
        self.out.clear();
        self.act_due = false;
        self.applied = self.flushed;
        self.shadow = committed[..disk.start.index.0 as usize].to_vec();
        self.shadow.extend(disk.entries.iter().map(|entry| (entry.term, entry.data.clone())));
        let mut hard_state = disk.hard_state;
        // The commit index is written without a sync of its own. What was applied was committed.
        hard_state.commit = hard_state.commit.max(self.flushed);
        let snapshot = SnapshotMeta { index: disk.start.index, term: disk.start.term, conf_state: conf_state.clone() };
        let restored = Restored {
            hard_state,
            snapshot,
            conf_state: conf_state.clone(),
            applied: self.flushed,
            entries: disk.entries.clone(),
        };
        self.node = Some(Node::new(self.config, restored, seed));
    }
}
