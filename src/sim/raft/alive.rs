//! The end of a run: with all faults gone, everything must work again.

use super::{
    checkers::{Rule, Violation},
    churn::leave,
    member::Member,
    plan::TICK,
    world::World,
};
use crate::{
    raft::{Input, Role},
    types::Index,
};
use bytes::Bytes;

/// Ticks within which a healed cluster must come one entry further, or be done.
const PATIENCE_TICKS: u64 = 300;
/// Ticks within which it must be done, whatever progress it makes: elections too put entries into logs.
const ALL_TICKS: u64 = 50 * PATIENCE_TICKS;

impl World {
    /// With all faults gone, a new command is applied everywhere and every member can read, in bounded time.
    pub(super) fn prove_alive(&mut self) -> Result<(), Violation> {
        // A small window and a long backlog take their time; so it is progress that counts.
        let (mut deadline, mut progress) = (self.now + PATIENCE_TICKS * TICK, 0);
        let mut goal: Option<Bytes> = None;
        // A read that sees as much as this began after the faults, or is as good.
        let mut floor = Index(u64::MAX);
        let mut done_reading = vec![false; self.members.len()];
        let mut turn = self.now;
        let end = self.now + ALL_TICKS * TICK;
        loop {
            self.next()?;
            let committed = self.checkers.commit();
            let is_written = goal.as_ref().is_some_and(|goal| self.checkers.committed_payload(goal));
            let (changed, conf_state) = self.checkers.membership_at(committed);
            let is_joint = conf_state.is_joint();
            let inside = conf_state.members().into_iter().map(|id| id.0 as usize - 1).collect::<Vec<_>>();
            let all = |has: &dyn Fn(usize) -> bool| inside.iter().all(|at| has(*at));
            if is_written && !is_joint && all(&|at| self.members[at].applied == committed && done_reading[at]) {
                return Ok(());
            }
            // Once everyone knows who has left, nobody counts on them any more.
            let known = !is_joint && all(&|at| self.members[at].applied >= changed);
            self.switch(&inside, known)?;
            // Entries of older terms are committed all at once, so those on disk count too.
            let steps = |member: &Member| member.applied.0 + member.disk.last().index.0;
            let steps = self.members.iter().map(steps).sum::<u64>() + committed.0;
            if steps > progress {
                (progress, deadline) = (steps, self.now + PATIENCE_TICKS * TICK);
            }
            if self.now > deadline.min(end) {
                return Err(Violation {
                    rule: Rule::Liveness,
                    text: format!(
                        "after {PATIENCE_TICKS} ticks without progress, or {ALL_TICKS} altogether: written {is_written}, read {done_reading:?} of {inside:?}, joint {is_joint}"
                    ),
                });
            }
            if self.now < turn {
                continue;
            }
            turn = self.now + 5 * TICK;
            if is_written {
                floor = floor.min(committed);
            }
            let leads = |member: &Member| member.status().is_some_and(|status| status.role == Role::Leader);
            let leader = self.members.iter().position(leads);
            if let Some(at) = leader.filter(|_| is_joint) {
                self.step(at, Input::Propose(vec![leave()]))?;
            }
            if !is_written && let Some(at) = leader {
                let proposal = self.proposal();
                goal = Some(proposal.data.clone());
                self.step(at, Input::Propose(vec![proposal]))?;
            }
            for at in inside {
                let done = &mut done_reading[at];
                *done |= self.checkers.has_read(self.members[at].id(), floor);
                if is_written && !*done {
                    self.read(at)?;
                }
            }
        }
    }

    /// Those that have left are switched off if they may be, as by a power cut; those that are back are switched on.
    fn switch(&mut self, inside: &[usize], off: bool) -> Result<(), Violation> {
        for at in 0..self.members.len() {
            let (member, stays) = (&mut self.members[at], inside.contains(&at));
            if member.gone && stays {
                // A change of before the end of the faults has only now been committed.
                member.gone = false;
                self.start(at);
            } else if !member.gone && !stays && off {
                (member.node, member.gone) = (None, true);
                member.life += 1;
                // A sync that is under way will not end.
                member.disk.crash(&mut self.chance)?;
                member.install_staged();
            }
        }
        Ok(())
    }
}
