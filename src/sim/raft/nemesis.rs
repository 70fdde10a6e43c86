//! Faults, one at a time, until everything is healed.

use super::{
    checkers::Violation,
    event::Event,
    plan::{Lie, TICK, Weather},
    world::World,
};
use crate::{
    io::Rng,
    raft::{Input, LogId, Role},
    types::Index,
};

impl World {
    /// The next fault.
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if self.healed {
            return Ok(());
        }
        let delay = self.chance.between(1, self.plan.fault_gap);
        self.after(delay, Event::Fault);
        let at = self.anyone();
        // Whatever the weights say: links that stay cut make the rest of a run a long silence.
        if self.blocked.iter().flatten().any(|blocked| *blocked) && self.chance.hits(1, 3) {
            return self.unblock();
        }
        match self.draw() {
            0 => self.crash(at),
            1 => self.crash_all(),
            2 => self.crash_leader(),
            3 => self.partition(),
            4 => self.cut_one_way(),
            5 => self.unblock(),
            6 => self.stall(at),
            7 => self.change_pace(at),
            8 => self.release(at),
            10 => self.send_any_state(at),
            11 => self.transfer(at),
            12 => self.change(),
            13 => self.hang(at),
            _ => self.step(at, Input::Campaign),
        }
    }

    fn draw(&mut self) -> usize {
        let weights = self.plan.weights;
        let mut left = self.chance.below(weights.iter().sum::<u64>().max(1));
        let drawn = weights.iter().position(|weight| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        drawn.unwrap_or(5)
    }

    fn crash(&mut self, at: usize) -> Result<(), Violation> {
        let Some(node) = self.members[at].node.take() else { return Ok(()) };
        let was = node.status();
        self.stats.crashes += 1;
        let member = &mut self.members[at];
        member.life += 1;
        let before = member.disk.hard_state;
        member.disk.crash(&mut self.chance)?;
        match self.plan.lie {
            Some(Lie::LosesSynced) => member.disk.lose(3),
            Some(Lie::ForgetsVotes) => member.disk.hard_state.vote = None,
            _ => assert!(member.disk.hard_state.term >= before.term, "a disk forgot a term"),
        }
        if self.plan.lie == Some(Lie::LosesSynced) && member.flushed.index > member.disk.last().index {
            member.flushed = member.disk.last();
        }
        member.install_staged();
        let (id, durable) = (member.id(), member.disk.hard_state.term);
        if was.role == Role::Leader && durable < was.term {
            self.checkers.forget_term(id, was.term);
        }
        self.checkers.forget_reads(id);
        self.note(|| format!("  {id} crashes"));
        let delay = self.chance.between(1, 10 * TICK);
        self.after(delay, Event::Restart { at });
        Ok(())
    }

    fn crash_all(&mut self) -> Result<(), Violation> {
        (0..self.members.len()).try_for_each(|at| self.crash(at))
    }

    fn crash_leader(&mut self) -> Result<(), Violation> {
        self.leader().map_or(Ok(()), |at| self.crash(at))
    }

    /// One of those who think that they lead.
    pub(super) fn leader(&mut self) -> Option<usize> {
        let leads = |at: &usize| self.members[*at].status().is_some_and(|status| status.role == Role::Leader);
        let leaders = (0..self.members.len()).filter(leads).collect::<Vec<_>>();
        let drawn = self.chance.below(leaders.len().max(1) as u64) as usize;
        leaders.get(drawn).copied()
    }

    /// Two groups that can't hear each other. Most are drawn around a leader: alone, or with too few others to commit, it gathers
    /// entries that a later leader replaces.
    fn partition(&mut self) -> Result<(), Violation> {
        let sides = match self.leader() {
            Some(leader) if self.chance.hits(2, 3) => {
                let other = self.anyone();
                1_u64 << leader | if self.members.len() > 3 { 1 << other } else { 0 }
            }
            _ => self.chance.next_u64(),
        };
        let side = |at: usize| sides >> at & 1;
        for (from, row) in self.blocked.iter_mut().enumerate() {
            row.iter_mut().enumerate().for_each(|(to, blocked)| *blocked = side(from) != side(to));
        }
        self.note(|| "  partition".into());
        Ok(())
    }

    /// A leader is cut off in the moment of its election: its first entry reaches one other or none, and an entry of an older term
    /// that some other has at the same position may win in the end (Raft paper, figure 8).
    pub(super) fn strike(&mut self, leader: usize) {
        let lucky = self.anyone();
        self.blocked[leader].iter_mut().enumerate().for_each(|(to, blocked)| *blocked = to != lucky);
        self.note(|| format!("  only {} hears {}", lucky + 1, leader + 1));
    }

    fn cut_one_way(&mut self) -> Result<(), Violation> {
        let (from, to) = (self.anyone(), self.anyone());
        self.blocked[from][to] = true;
        self.note(|| format!("  nothing from {} reaches {}", from + 1, to + 1));
        Ok(())
    }

    fn unblock(&mut self) -> Result<(), Violation> {
        self.blocked.iter_mut().for_each(|row| row.fill(false));
        self.weather = Weather::draw(&mut self.chance);
        self.note(|| "  all links work".into());
        Ok(())
    }

    /// A pause of the process, or a disk that takes its time.
    fn stall(&mut self, at: usize) -> Result<(), Violation> {
        if self.chance.hits(1, 2) {
            self.members[at].paused_until = self.now + self.chance.between(1, 30 * TICK);
        } else {
            self.members[at].slow_disk = self.chance.below(2) * self.chance.between(1, 20 * TICK);
        }
        self.note(|| format!("  {} stalls", at + 1));
        Ok(())
    }

    /// Clocks run at half to twice the usual rate.
    fn change_pace(&mut self, at: usize) -> Result<(), Violation> {
        self.members[at].tick_every = self.chance.between(TICK / 2, 2 * TICK);
        Ok(())
    }

    /// The state machine is written to disk; perhaps the log lets go of what everyone's has.
    fn release(&mut self, at: usize) -> Result<(), Violation> {
        let member = &mut self.members[at];
        let index = member.applied;
        let term = index.0.checked_sub(1).map(|at| self.checkers.committed()[at as usize].term).unwrap_or_default();
        // Between the taking over of a state and the mark in the log the state machine is not written, unless it was replaced first.
        if member.disk.term(index) == Some(term) && index > member.flushed.index {
            member.flushed = LogId { index, term };
        }
        if self.chance.hits(1, 2) {
            return Ok(());
        }
        // Without anyone to send states a member that lacks what all others released could never catch up.
        let everywhere = self.members.iter().map(|member| member.flushed.index).min().unwrap_or(Index(0));
        let base = if self.plan.snapshots { self.members[at].flushed.index } else { everywhere };
        let upto = Index(base.0.saturating_sub(self.chance.below(5)));
        let (_, conf_state) = self.checkers.membership_at(upto);
        let member = &mut self.members[at];
        if let Some(node) = &mut member.node
            && upto > member.disk.start.index
        {
            node.release(upto);
            member.disk.release(upto, conf_state);
            self.note(|| format!("  {} releases the log to {upto}", at + 1));
        }
        Ok(())
    }

    /// The end of all faults.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.healed = true;
        self.note(|| "all faults end".into());
        self.weather = Weather::FINE;
        self.blocked.iter_mut().for_each(|row| row.fill(false));
        for at in 0..self.members.len() {
            self.start(at);
            let member = &mut self.members[at];
            // Healthy clocks differ a little.
            member.tick_every = TICK + at as u64;
            member.slow_disk = 0;
            member.paused_until = 0;
            member.hung_until = 0;
            self.tell_stalled(at, false)?;
        }
        Ok(())
    }
}
