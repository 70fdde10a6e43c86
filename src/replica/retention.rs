//! How much of the log is kept, and for whom: marks, released entries, and snapshots for those who come too late.

use super::{persist::Save, run::Run, snapshots};
use crate::{
    raft::{Phase, Role},
    types::{ConfState, Entry, Index, MemberId, Term},
    wal::Mark,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::Ordering,
};

/// Bytes in the log after which it is marked even if it has few entries, so that what it takes on disk is bounded.
const UNMARKED_BYTES_MAX: usize = 64 << 20;
/// Bytes of entries that are kept in memory for followers to whom a snapshot is on its way. Beyond, they will need another one.
const HELD_BYTES_MAX: usize = 512 << 20;

/// What the loop knows of the log's beginning.
pub(super) struct Retention {
    /// Entries between two marks in the log.
    snapshot_count: u64,
    /// Entries that stay in memory and in the log behind the last flush.
    catchup_entries: u64,
    /// Last mark in the log.
    marked: Index,
    /// Bytes that went to the log since then.
    unmarked_bytes: usize,
    /// Who votes and who learns at the last flush, and after each later change.
    memberships: VecDeque<(Index, ConfState)>,
    /// Followers that a snapshot is made for or on its way to. Entries after it stay, so that the follower can go on from there.
    holds: BTreeMap<MemberId, Hold>,
    /// Members that asked for the state, although raft does not know why.
    wanted: Vec<MemberId>,
    /// Bytes appended since the first of the holds.
    held_bytes: usize,
}

struct Hold {
    index: Index,
    /// The snapshot is being made.
    is_making: bool,
    /// Looks in a row at which nothing had been heard of the follower.
    silent: u32,
}

/// So many, and it is given up. One alone means nothing: raft begins to look for a quorum anew with nobody counted as present.
const SILENT_MAX: u32 = 20;

impl Retention {
    pub(super) fn new(
        snapshot_count: u64,
        catchup_entries: u64,
        marked: Index,
        applied: Index,
        conf_state: ConfState,
    ) -> Retention {
        Retention {
            snapshot_count,
            catchup_entries,
            marked,
            unmarked_bytes: 0,
            memberships: [(applied, conf_state)].into(),
            holds: BTreeMap::new(),
            wanted: Vec::new(),
            held_bytes: 0,
        }
    }

    /// The membership changed with the entry at `index`.
    pub(super) fn changed(&mut self, index: Index, conf_state: ConfState) {
        self.memberships.push_back((index, conf_state));
    }

    /// Entries went to the disk.
    pub(super) fn appended(&mut self, entries: &[Entry]) {
        let bytes = entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        self.unmarked_bytes += bytes;
        self.held_bytes += if self.holds.is_empty() { 0 } else { bytes };
    }

    /// The log was reset: it begins after `index`.
    pub(super) fn reset(&mut self, index: Index, conf_state: ConfState) {
        (self.marked, self.unmarked_bytes) = (index, 0);
        self.memberships = [(index, conf_state)].into();
        self.holds.clear();
    }

    /// A member asks for the state.
    pub(super) fn wanted(&mut self, by: MemberId) {
        if !self.wanted.contains(&by) {
            self.wanted.push(by);
        }
    }

    /// A snapshot for `to` is ready, of the state after `index`; or could not be made.
    pub(super) fn made(&mut self, to: MemberId, index: Option<Index>) {
        match (self.holds.get_mut(&to), index) {
            (Some(hold), Some(index)) => *hold = Hold { index: hold.index.max(index), is_making: false, silent: 0 },
            (_, None) => drop(self.holds.remove(&to)),
            (None, Some(_)) => {}
        }
    }
}

impl Run {
    /// Makes snapshots for followers that lack what was released, and lets go of what no follower waits for any more.
    pub(super) fn tend_followers(&mut self) {
        let followers = self.node.followers();
        let transport = self.shared.transport.clone();
        let retention = &mut self.retention;
        retention.holds.retain(|id, hold| {
            let follower = followers.iter().find(|follower| follower.id == *id);
            let lacks = follower
                .is_some_and(|follower| follower.phase == Phase::NeedsSnapshot || follower.matched < hold.index);
            let is_heard = follower.is_some_and(|follower| follower.active);
            hold.silent = if is_heard { 0 } else { hold.silent + 1 };
            hold.is_making || transport.is_sending_snapshot(*id) || (lacks && hold.silent < SILENT_MAX)
        });
        if retention.holds.is_empty() {
            retention.held_bytes = 0;
        }
        // Raft asks anew who is there in the very tick in which this may be asked. A follower that asks once a second could meet
        // that every time, so its wish waits.
        let is_away = |id: &MemberId| followers.iter().any(|follower| follower.id == *id && !follower.active);
        let (waiting, wanted) = std::mem::take(&mut retention.wanted).into_iter().partition::<Vec<_>, _>(is_away);
        retention.wanted = waiting;
        let lacking = followers.iter().filter(|follower| {
            follower.active && (follower.phase == Phase::NeedsSnapshot || wanted.contains(&follower.id))
        });
        let first = self.node.status().first_index;
        for id in lacking.map(|follower| follower.id) {
            let is_under_way = retention.holds.get(&id).is_some_and(|hold| hold.is_making);
            if is_under_way || transport.is_sending_snapshot(id) {
                continue;
            }
            // Held from here on, so that nothing is released between the making and the sending.
            retention
                .holds
                .insert(id, Hold { index: first.previous().unwrap_or_default(), is_making: true, silent: 0 });
            snapshots::make_for(&self.shared, id);
        }
    }

    /// The store holds everything up to `index`: the log before it is needed only by followers that lag.
    pub(super) fn flushed(&mut self, index: Index, term: Term) {
        if self.shared.facts.quarantined.load(Ordering::Acquire) || index > self.handed {
            return;
        }
        let retention = &mut self.retention;
        while retention.memberships.get(1).is_some_and(|(changed, _)| *changed <= index) {
            retention.memberships.pop_front();
        }
        let kept = if self.node.members().is_alone(self.shared.member_id) { 0 } else { retention.catchup_entries };
        let mut release = Index(index.0.saturating_sub(kept));
        if self.node.status().role != Role::Leader {
            retention.holds.clear();
        }
        if retention.held_bytes <= HELD_BYTES_MAX
            && let Some(held) = retention.holds.values().map(|hold| hold.index).min()
        {
            release = release.min(held);
        }
        self.node.release(release);
        let due =
            index.0 >= retention.marked.0 + retention.snapshot_count || retention.unmarked_bytes >= UNMARKED_BYTES_MAX;
        if due && index > retention.marked {
            let conf_state =
                retention.memberships.front().map(|(_, conf_state)| conf_state.clone()).unwrap_or_default();
            let save = Save::Mark { mark: Mark { index, term }, conf_state, release };
            if self.disk.send(save) {
                (retention.marked, retention.unmarked_bytes) = (index, 0);
            }
        }
    }
}
