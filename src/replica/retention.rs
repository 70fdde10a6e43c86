//! How much of the log is kept, and for whom: marks, released entries, and snapshots for those who come too late.

use super::{persist::Save, run::Run, snapshots, transport::Haste};
use crate::{
    raft::{FollowerStatus, Phase, Role},
    types::{ConfState, Entry, Index, MemberId, Term},
    wal::Mark,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::Ordering,
};

/// Bytes in the log after which it is marked even if it has few entries, so that what it takes on disk is bounded.
const UNMARKED_BYTES_MAX: usize = 64 << 20;

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
    /// Followers that go on from a snapshot. What they will need of the log stays.
    holds: BTreeMap<MemberId, Hold>,
    /// Members that asked for the state, although raft does not know why.
    wanted: Vec<MemberId>,
    /// The store holds everything up to here.
    flushed: Index,
}

#[derive(Default)]
struct Hold {
    /// Entries after this one stay.
    index: Index,
    /// State after which the follower was sent last, or is being sent now; `None` while its first is made.
    snapshot: Option<Index>,
    /// A snapshot is being made.
    is_making: bool,
    /// Bytes appended since it began.
    haste: Haste,
    /// Looks in a row at which nothing had been heard of the follower.
    silent: u32,
    /// Looks in a row at which no snapshot was made for it or on its way to it.
    idle: u32,
}

/// So many, and it is given up. One alone means nothing: raft begins to look for a quorum anew with nobody counted as present.
const SILENT_MAX: u32 = 20;
/// So many looks a follower has, after the last byte of a snapshot was sent, to say that it goes on from there. Another one before that
/// would be of no use, and much work.
const IDLE_MAX: u32 = 20;

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
            flushed: applied,
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
        self.holds.values().for_each(|hold| hold.haste.add(bytes));
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
            (Some(hold), Some(_)) => (hold.snapshot, hold.is_making, hold.silent, hold.idle) = (index, false, 0, 0),
            (_, None) => drop(self.holds.remove(&to)),
            (None, Some(_)) => {}
        }
    }

    /// Lets go of what no follower waits for any more. Returns for whom a snapshot is to be made: those who lack what was released
    /// before `first`, and those who asked for it.
    fn look(
        &mut self,
        followers: &[FollowerStatus],
        first: Index,
        is_sending: impl Fn(MemberId) -> bool,
    ) -> Vec<(MemberId, Haste)> {
        // Well within what stays for everybody: or the first step after the hold would be too late.
        let near = Index(self.flushed.0.saturating_sub(self.catchup_entries / 2));
        self.holds.retain(|id, hold| {
            let Some(follower) = followers.iter().find(|follower| follower.id == *id) else {
                return hold.is_making || is_sending(*id);
            };
            hold.silent = if follower.active { 0 } else { hold.silent + 1 };
            hold.idle = if hold.is_making || is_sending(*id) { 0 } else { hold.idle + 1 };
            let goes_on = follower.phase != Phase::NeedsSnapshot;
            match hold.snapshot {
                // It needs all that comes after what it has, whatever else is sent to it.
                _ if goes_on => hold.index = hold.index.max(follower.matched),
                Some(snapshot) if !hold.is_making => hold.index = hold.index.max(snapshot),
                _ => {}
            }
            hold.idle == 0 || ((!goes_on || follower.matched < near) && hold.silent < SILENT_MAX)
        });
        // Raft asks anew who is there in the very tick in which this may be asked. A follower that asks once a second could meet
        // that every time, so its wish waits.
        let is_away = |id: &MemberId| followers.iter().any(|follower| follower.id == *id && !follower.active);
        let (waiting, wanted) = std::mem::take(&mut self.wanted).into_iter().partition::<Vec<_>, _>(is_away);
        self.wanted = waiting;
        let lacking = followers.iter().filter(|follower| {
            follower.active && (follower.phase == Phase::NeedsSnapshot || wanted.contains(&follower.id))
        });
        let mut due = Vec::new();
        for id in lacking.map(|follower| follower.id) {
            if self.holds.get(&id).is_some_and(|hold| hold.idle <= IDLE_MAX) {
                continue;
            }
            // Held from here on, so that nothing is released between the making and the sending.
            let index = first.previous().unwrap_or_default();
            let haste = Haste::default();
            due.push((id, haste.clone()));
            self.holds.insert(id, Hold { index, haste, is_making: true, ..Hold::default() });
        }
        due
    }

    /// Up to where the log may go, now that the store holds everything up to `flushed`.
    fn release(&mut self, flushed: Index, is_alone: bool) -> Index {
        self.flushed = flushed;
        let kept = if is_alone { 0 } else { self.catchup_entries };
        let release = Index(flushed.0.saturating_sub(kept));
        let bounded = self.holds.values().filter(|hold| hold.haste.is_in_time());
        bounded.map(|hold| hold.index).fold(release, Index::min)
    }
}

impl Run {
    /// Makes snapshots for followers that lack what was released, and lets go of what no follower waits for any more.
    pub(super) fn tend_followers(&mut self) {
        let (followers, first) = (self.node.followers(), self.node.status().first_index);
        let transport = &self.shared.transport;
        for (id, haste) in self.retention.look(&followers, first, |id| transport.is_sending_snapshot(id)) {
            snapshots::make_for(&self.shared, id, haste);
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
        if self.node.status().role != Role::Leader {
            retention.holds.clear();
        }
        let release = retention.release(index, self.node.members().is_alone(self.shared.member_id));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::transport::HELD_BYTES_MAX;

    const FOLLOWER: MemberId = MemberId(3);

    fn retention() -> Retention {
        Retention::new(1_000, 100, Index(0), Index(10_000), ConfState::default())
    }

    fn follower(matched: u64, phase: Phase) -> Vec<FollowerStatus> {
        let (matched, next) = (Index(matched), Index(matched + 1));
        vec![FollowerStatus {
            id: FOLLOWER,
            matched,
            next,
            phase,
            inflight_messages: 0,
            inflight_bytes: 0,
            active: true,
        }]
    }

    fn look(of: &mut Retention, followers: &[FollowerStatus], first: u64, is_sending: bool) -> Vec<MemberId> {
        of.look(followers, Index(first), |_| is_sending).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn a_follower_that_goes_on_from_a_snapshot_keeps_the_log_until_it_is_near() {
        let (mut retention, lacking) = (retention(), follower(0, Phase::NeedsSnapshot));
        assert_eq!(look(&mut retention, &lacking, 9_901, false), [FOLLOWER]);
        retention.made(FOLLOWER, Some(Index(10_000)));
        assert_eq!(look(&mut retention, &lacking, 9_901, true), []);
        // Much is written while it travels.
        assert_eq!(retention.release(Index(50_000), false), Index(10_000));
        // It has taken the snapshot over, and the log after it is on its way.
        for matched in [10_000, 30_000, 49_949] {
            assert_eq!(look(&mut retention, &follower(matched, Phase::Replicate), 10_001, false), []);
            assert_eq!(retention.release(Index(50_000), false), Index(matched.min(49_900)));
        }
        look(&mut retention, &follower(49_950, Phase::Replicate), 10_001, false);
        assert!(retention.holds.is_empty());
    }

    #[test]
    fn a_follower_has_time_to_take_a_snapshot_over_before_another_one_is_made() {
        let (mut retention, lacking) = (retention(), follower(0, Phase::NeedsSnapshot));
        assert_eq!(look(&mut retention, &lacking, 9_901, false), [FOLLOWER]);
        // While it is made, and while it is sent, however long that takes.
        assert_eq!(look(&mut retention, &lacking, 9_901, false), []);
        retention.made(FOLLOWER, Some(Index(10_000)));
        for _ in 0..1_000 {
            assert_eq!(look(&mut retention, &lacking, 9_901, true), []);
        }
        for _ in 0..IDLE_MAX {
            assert_eq!(look(&mut retention, &lacking, 9_901, false), []);
        }
        assert_eq!(retention.release(Index(50_000), false), Index(10_000));
        // Nothing came of it.
        assert_eq!(look(&mut retention, &lacking, 10_001, false), [FOLLOWER]);
    }

    #[test]
    fn a_snapshot_that_came_too_late_is_followed_by_one_that_holds_the_log_anew() {
        let (mut retention, lacking) = (retention(), follower(0, Phase::NeedsSnapshot));
        look(&mut retention, &lacking, 9_901, false);
        retention.made(FOLLOWER, Some(Index(10_000)));
        let data = bytes::Bytes::from(vec![0; HELD_BYTES_MAX / 2 + 1]);
        let entry = Entry { data, ..Entry::default() };
        retention.appended(std::slice::from_ref(&entry));
        look(&mut retention, &lacking, 9_901, true);
        assert_eq!(retention.release(Index(20_000), false), Index(10_000));
        retention.appended(&[entry]);
        assert_eq!(retention.release(Index(30_000), false), Index(29_900), "memory is bounded");
        let again = (0..=IDLE_MAX).flat_map(|_| look(&mut retention, &lacking, 29_901, false));
        assert_eq!(again.collect::<Vec<_>>(), [FOLLOWER]);
        retention.made(FOLLOWER, Some(Index(30_000)));
        look(&mut retention, &lacking, 29_901, true);
        assert_eq!(retention.release(Index(40_000), false), Index(30_000));
    }

    #[test]
    fn a_follower_of_whom_nothing_is_heard_holds_nothing() {
        let (mut retention, mut lacking) = (retention(), follower(0, Phase::NeedsSnapshot));
        look(&mut retention, &lacking, 9_901, false);
        retention.made(FOLLOWER, Some(Index(10_000)));
        lacking[0].active = false;
        for _ in 1..SILENT_MAX {
            look(&mut retention, &lacking, 9_901, false);
            assert_eq!(retention.release(Index(50_000), false), Index(10_000));
        }
        look(&mut retention, &lacking, 9_901, false);
        assert_eq!(retention.release(Index(50_000), false), Index(49_900));
    }
}
