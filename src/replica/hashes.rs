//! The state hashes of all members, compared all the time: members that applied the same entries must hold the same state.
//!
//! The leader tells its hash once a second. Whoever has another one for the same entry says so to everybody; all then tell theirs.
//! A member whose hash differs from one that a majority of voters agree on is wrong, and knows it: it serves nobody any more, hands
//! over the lead if it has it, and has its state replaced by the leader's. Nobody ever takes the mean.

use super::{
    run::Run,
    snapshots::Arrival,
    transport::{Letter, PeerMessage},
};
use crate::{
    raft::{Input, Role, majority},
    types::{Index, MemberId},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::Ordering,
};

/// Entries whose hashes are kept.
const WINDOW: usize = 16_384;
/// Entries about which members disagree, and hashes of entries that are not applied here yet.
const OPEN_MAX: usize = 64;
/// Ticks between two hashes of the leader.
const TICKS: u64 = 10;

/// The hashes after the last entries that this member applied.
pub(super) struct Window {
    /// Without a gap.
    hashes: VecDeque<(Index, u64)>,
}

impl Window {
    /// Begins with the hash of the state that a member has from the start: it may be the wrong one, and the cluster idle.
    pub(super) fn starting_at(applied: (Index, u64)) -> Window {
        Window { hashes: VecDeque::from([applied]) }
    }

    pub(super) fn extend(&mut self, hashes: Vec<(Index, u64)>) {
        self.hashes.extend(hashes);
        let surplus = self.hashes.len().saturating_sub(WINDOW);
        self.hashes.drain(..surplus);
    }

    fn last(&self) -> Option<(Index, u64)> {
        self.hashes.back().copied()
    }

    fn get(&self, index: Index) -> Option<u64> {
        let first = self.hashes.front()?.0;
        let at = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
        self.hashes.get(at).map(|(_, hash)| *hash)
    }
}

/// What is not settled.
#[derive(Default)]
pub(super) struct Disputes {
    /// Hashes of entries that are not applied here yet.
    early: Vec<(MemberId, Index, u64)>,
    /// Who says what about entries where somebody differs.
    open: BTreeMap<Index, BTreeMap<MemberId, u64>>,
}

impl Run {
    /// Tells and looks, once a second.
    pub(super) fn compare_hashes(&mut self) {
        if self.shared.facts.quarantined.load(Ordering::Acquire) {
            if self.ticks.is_multiple_of(TICKS) {
                self.lead_no_more();
                self.ask_for_refill();
            }
            return;
        }
        for (from, index, hash) in std::mem::take(&mut self.disputes.early) {
            self.take_hash(from, index, hash);
        }
        if self.ticks.is_multiple_of(TICKS) && self.node.status().role == Role::Leader {
            let last = self.shared.hashes.lock().last();
            if let Some((index, hash)) = last {
                self.tell_hash(index, hash);
            }
        }
    }

    fn tell_hash(&self, index: Index, hash: u64) {
        let others = self.node.members().all().into_iter().filter(|id| *id != self.shared.member_id);
        let letters = others.map(|to| Letter { to, message: PeerMessage::Hash { index, hash } });
        self.shared.transport.send(letters.collect());
    }

    /// Another member's hash.
    pub(super) fn take_hash(&mut self, from: MemberId, index: Index, hash: u64) {
        if self.shared.facts.quarantined.load(Ordering::Acquire) {
            return;
        }
        let own = self.shared.hashes.lock().get(index);
        let Some(own) = own else {
            let applied = self.shared.facts.applied.load(Ordering::Acquire);
            if index.0 > applied && self.disputes.early.len() < OPEN_MAX {
                self.disputes.early.push((from, index, hash));
            }
            return;
        };
        if own == hash && !self.disputes.open.contains_key(&index) {
            return;
        }
        if !self.disputes.open.contains_key(&index) {
            tracing::error!(member = %from, index = index.0, own, theirs = hash, "the states of two members differ");
            self.tell_hash(index, own);
            if self.disputes.open.len() >= OPEN_MAX {
                self.disputes.open.pop_first();
            }
        }
        let said = self.disputes.open.entry(index).or_default();
        said.insert(self.shared.member_id, own);
        said.insert(from, hash);
        self.judge(index, own);
    }

    /// Whether a majority of voters agrees on another hash than this member's.
    fn judge(&mut self, index: Index, own: u64) {
        let voters = self.node.members().all_voters().collect::<Vec<_>>();
        let said = &self.disputes.open[&index];
        let agree = |hash: u64| voters.iter().filter(|voter| said.get(voter) == Some(&hash)).count();
        let others = said.values().copied().filter(|hash| *hash != own);
        let is_outvoted = others.into_iter().any(|hash| agree(hash) >= majority(voters.len()));
        if !is_outvoted {
            return;
        }
        tracing::error!(
            index = index.0,
            "this member's state differs from the one that a majority agrees on: it serves nobody until its state is replaced by the leader's"
        );
        self.disputes = Disputes::default();
        self.shared.quarantine();
        self.shared.expiry.demote();
        self.lead_no_more();
    }

    /// One that serves nobody must not lead either, even if it was elected again.
    fn lead_no_more(&mut self) {
        if self.node.status().role == Role::Leader {
            let best = self.node.followers().into_iter().filter(|follower| follower.active);
            if let Some(best) = best.max_by_key(|follower| follower.matched) {
                self.step(Input::Transfer(best.id));
            }
        }
    }

    fn ask_for_refill(&self) {
        // What it asks for is here already, and takes its time; another one would be sent in vain.
        if matches!(*self.shared.arrival.lock(), Arrival::Arriving | Arrival::Whole) {
            return;
        }
        let leader = self.node.status().leader.filter(|leader| *leader != self.shared.member_id);
        if let Some(to) = leader {
            self.shared.transport.send(vec![Letter { to, message: PeerMessage::Refill }]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_that_a_member_starts_with_can_be_compared_before_anything_is_applied() {
        let mut window = Window::starting_at((Index(7), 70));
        assert_eq!((window.last(), window.get(Index(7)), window.get(Index(6))), (Some((Index(7), 70)), Some(70), None));
        window.extend((8..WINDOW as u64 + 9).map(|index| (Index(index), index * 10)).collect());
        assert_eq!((window.get(Index(8)), window.get(Index(9)), window.hashes.len()), (None, Some(90), WINDOW));
    }
}
