//! What operators do to a cluster, and what helps its slow members: changes of membership, transfers, states, disks that hang.

use super::{checkers::Violation, event::Event, plan::TICK, world::World};
use crate::{
    io::Rng,
    raft::{Input, Phase, Proposal, Role},
    types::{ConfChange, ConfState, ConfStep, ConfStepKind, EntryKind, Index, MemberId, SnapshotMeta},
};
use bytes::Bytes;

/// Length of the number that makes each payload unique.
const UNIQUE: usize = 8;

/// What an entry changes, if it changes the membership. After the number come pairs of what (`v`, `l`, `r`) and whom, and an `s` if the
/// joint membership is to stay. Nothing at all is its end.
pub fn change_of(kind: EntryKind, data: &Bytes) -> Option<ConfChange> {
    if kind == EntryKind::Normal {
        return None;
    }
    let (pairs, rest) = data.get(UNIQUE..).unwrap_or_default().as_chunks::<2>();
    let steps = pairs.iter().map(|[what, whom]| ConfStep {
        kind: match what {
            b'v' => ConfStepKind::AddVoter,
            b'l' => ConfStepKind::AddLearner,
            _ => ConfStepKind::Remove,
        },
        member: MemberId(u64::from(*whom)),
    });
    let steps = steps.collect::<Vec<_>>();
    Some(match (kind, &steps[..]) {
        (_, []) => ConfChange::Leave,
        (EntryKind::ConfChange, [one]) => ConfChange::Simple(*one),
        _ => ConfChange::Joint { steps, auto_leave: rest.is_empty() },
    })
}

impl World {
    /// Any member, whether it votes or not.
    pub(super) fn anyone(&mut self) -> usize {
        self.chance.below(self.members.len() as u64) as usize
    }

    /// A change of one member, or of several.
    pub(super) fn change(&mut self) -> Result<(), Violation> {
        let Some(at) = self.leader() else { return Ok(()) };
        let node = self.members[at].node.as_ref().expect("it leads");
        let now = node.members().conf_state();
        if now.is_joint() && self.chance.hits(1, 2) {
            return self.step(at, Input::Propose(vec![leave()]));
        }
        let steps = [1, 1, 1, 2, 3][self.chance.below(5) as usize];
        let mut data = self.unique();
        for _ in 0..steps {
            let whom = MemberId(self.anyone() as u64 + 1);
            let what = self.becomes(&now, whom);
            data.extend([what, whom.0 as u8]);
        }
        let is_simple = steps == 1 && self.chance.hits(4, 5);
        if !is_simple && self.chance.hits(1, 4) {
            data.push(b's');
        }
        let kind = if is_simple { EntryKind::ConfChange } else { EntryKind::ConfChangeV2 };
        self.note(|| format!("  change {}", data[UNIQUE..].escape_ascii()));
        self.step(at, Input::Propose(vec![Proposal { kind, data: Bytes::from(data) }]))
    }

    fn becomes(&mut self, now: &ConfState, whom: MemberId) -> u8 {
        let choices = match () {
            () if now.voters.contains(&whom) => [b'r', b'r', b'l'],
            () if now.learners.contains(&whom) => [b'v', b'v', b'r'],
            () => [b'l', b'l', b'v'],
        };
        choices[self.chance.below(3) as usize]
    }

    pub(super) fn transfer(&mut self, to: usize) -> Result<(), Violation> {
        let Some(at) = self.leader() else { return Ok(()) };
        let to = self.members[to].id();
        self.note(|| format!("  {} is asked to hand over to {to}", at + 1));
        self.step(at, Input::Transfer(to))
    }

    /// A disk hangs, and its member hears of it; now and then it hears so without cause.
    pub(super) fn hang(&mut self, at: usize) -> Result<(), Violation> {
        let (until, life) = (self.now + self.chance.between(1, 40 * TICK), self.members[at].life);
        if self.chance.hits(4, 5) {
            self.members[at].hung_until = until;
        }
        let notices = self.chance.between(0, 3 * TICK);
        self.after(notices, Event::Stalled { at, life, stalled: true });
        self.after(until - self.now + notices, Event::Stalled { at, life, stalled: false });
        Ok(())
    }

    pub(super) fn tell_stalled(&mut self, at: usize, stalled: bool) -> Result<(), Violation> {
        self.members[at].stalled = stalled && self.members[at].node.is_some();
        self.step(at, Input::DiskStalled(stalled))
    }

    /// The state of some member goes to another one, needed or not, and arrives whenever.
    pub(super) fn send_any_state(&mut self, to: usize) -> Result<(), Violation> {
        let from = self.anyone();
        let delay = self.chance.between(1, 30 * TICK);
        self.send_state(from, to, delay);
        Ok(())
    }

    /// A leader helps those who lack what it has released.
    pub(super) fn help(&mut self, at: usize) {
        let Some(node) = self.members[at].node.as_ref().filter(|node| node.status().role == Role::Leader) else {
            return;
        };
        let followers = node.followers().into_iter().filter(|follower| follower.phase == Phase::NeedsSnapshot);
        for to in followers.map(|follower| follower.id.0 as usize - 1).collect::<Vec<_>>() {
            if !self.members[to].awaits_state && !self.blocked[at][to] {
                self.members[to].awaits_state = true;
                let delay = self.chance.between(1, 10 * TICK);
                self.send_state(at, to, delay);
            }
        }
    }

    fn send_state(&mut self, from: usize, to: usize, delay: u64) {
        let member = &self.members[from];
        if from == to || member.applied == Index(0) {
            return;
        }
        if let Some(node) = &member.node {
            let index = member.applied;
            let term = self.checkers.committed()[(index.0 - 1) as usize].term;
            let meta = SnapshotMeta { index, term, conf_state: node.members().conf_state() };
            self.after(delay, Event::State { at: to, meta });
        }
    }

    pub(super) fn state_arrives(&mut self, at: usize, meta: SnapshotMeta) -> Result<(), Violation> {
        let member = &mut self.members[at];
        member.awaits_state = false;
        if member.node.is_none() {
            return Ok(());
        }
        member.staged.push(meta.clone());
        self.stats.states += 1;
        self.step(at, Input::Restore(meta))
    }

    /// A state takes the place of the member's own.
    pub(super) fn takes_over(&mut self, at: usize, meta: &SnapshotMeta) -> Result<(), Violation> {
        let member = &mut self.members[at];
        self.checkers.takes_over(member.id(), member.applied, meta)?;
        member.applied = meta.index;
        if self.plan.swap_first {
            member.flushed = crate::raft::LogId { index: meta.index, term: meta.term };
        }
        self.stats.taken_over += 1;
        Ok(())
    }

    /// Committed changes of membership reach raft once they are applied.
    pub(super) fn apply_changes(&mut self, at: usize, entries: &[crate::types::Entry]) -> Result<(), Violation> {
        let member = &mut self.members[at];
        let id = member.id();
        for entry in entries {
            let Some(change) = change_of(entry.kind, &entry.data) else { continue };
            let node = member.node.as_mut().expect("it has just made a step");
            let now = node.apply_conf_change(entry.index, &change);
            self.checkers.counts_by(id, entry.index, &now)?;
            self.stats.changes += 1;
        }
        Ok(())
    }
}

/// The end of a joint membership.
pub(super) fn leave() -> Proposal {
    Proposal { kind: EntryKind::ConfChangeV2, data: Bytes::new() }
}
