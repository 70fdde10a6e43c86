//! The stages of a member: each runs when it has work, after a delay of its own, and holds up no other.

use super::{
    checkers::{Rule, Violation, broken},
    host::{STAGES, Stage, Up},
    world::{Event, World},
};
use crate::replica::Committed;

impl World {
    /// Has each stage that has work run some time soon, and takes what the member wants to say.
    pub(super) fn arm(&mut self, at: usize) {
        self.collect(at);
        let now = self.time.now_us();
        let life = self.hosts[at].life;
        for (number, stage) in STAGES.into_iter().enumerate() {
            let host = &mut self.hosts[at];
            let Some(up) = &mut host.up else { return };
            let waits_until = if stage == Stage::Run { up.parts.run.soon() } else { None };
            if up.due[number] || (!has_work(up, stage) && waits_until.is_none()) {
                continue;
            }
            up.due[number] = true;
            let mut delay = self.chance.between(0, self.plan.stage_delay_max);
            if let Some(until) = waits_until.filter(|_| !has_work(up, stage)) {
                delay += host.clock.world_us(until).saturating_sub(now);
            }
            if stage == Stage::Persist {
                up.parts.persist.begin();
                let hangs = host.hangs_until_us.saturating_sub(now);
                delay = hangs + self.chance.between(100, self.plan.sync_max) + self.chance.between(0, host.slow_us);
            }
            if matches!(stage, Stage::Block | Stage::Apply) {
                delay += self.chance.between(0, self.hosts[at].slow_us / 4);
            }
            self.after(delay, Event::Stage { at, life, stage });
        }
    }

    pub(super) fn tick(&mut self, at: usize, ticks: u64) -> Result<(), Violation> {
        if self.hosts[at].ticks != ticks {
            return Ok(());
        }
        self.turn(at)?;
        let host = &self.hosts[at];
        if let Some(up) = &host.up {
            let (due, life) = (host.clock.world_us(up.parts.run.due()), host.life);
            self.at_time(due, Event::Tick { at, life, ticks });
        }
        Ok(())
    }

    /// One turn of a member's loop.
    pub(super) fn turn(&mut self, at: usize) -> Result<(), Violation> {
        let Some(up) = &mut self.hosts[at].up else { return Ok(()) };
        let goes_on = up.parts.run.turn(None);
        let node = up.parts.run.node();
        let status = node.status();
        self.checkers.leads(status)?;
        let known = self.checkers.last();
        if status.commit > known {
            let entries = node.entries(known.next(), status.commit.next());
            let clocks = self.clocks();
            self.checkers.commits(entries, &clocks)?;
        }
        if !goes_on {
            return broken(Rule::Sound, format!("{} stops although nobody told it to", self.hosts[at].id));
        }
        self.look(at)
    }

    pub(super) fn stage(&mut self, at: usize, stage: Stage) -> Result<(), Violation> {
        let Some(up) = &mut self.hosts[at].up else { return Ok(()) };
        up.due[STAGES.iter().position(|other| *other == stage).expect("it is one of them")] = false;
        match stage {
            Stage::Run => return self.turn(at),
            Stage::Persist => {
                if let Ok(first) = up.parts.saves.try_recv()
                    && let Err(fault) = up.parts.persist.batch(first, &up.parts.saves)
                {
                    return self.stopped(at, fault.to_string());
                }
            }
            Stage::Apply => return self.apply(at),
            Stage::Sweep => {
                let _ = up.parts.sweeps.try_recv();
                self.sweep(at);
            }
            Stage::Jobs => {
                for job in std::mem::take(&mut *up.chores.spawned.lock()) {
                    up.jobs.spawn(job);
                }
                up.jobs.run();
            }
            Stage::Block => {
                let work = up.chores.blocking.lock().pop_front();
                work.into_iter().for_each(|work| work());
            }
        }
        self.look(at)
    }

    pub(super) fn apply(&mut self, at: usize) -> Result<(), Violation> {
        let host = &mut self.hosts[at];
        let Some(up) = &mut host.up else { return Ok(()) };
        let Ok(work) = up.parts.committed.try_recv() else { return Ok(()) };
        let is_restored = match &work {
            Committed::Entries(entries) => {
                self.checkers.applies(host.id, entries)?;
                false
            }
            Committed::Restore(_) => true,
        };
        if let Err(fault) = up.parts.apply.turn(work) {
            return self.stopped(at, fault.to_string());
        }
        if up.parts.committed.is_empty() {
            up.parts.apply.rest();
        }
        if is_restored {
            self.cured(at);
        }
        self.applied(at)?;
        self.look(at)
    }

    /// What a member holds must be what the oracle held after the same entry.
    pub(super) fn applied(&mut self, at: usize) -> Result<(), Violation> {
        let host = &self.hosts[at];
        match &host.up {
            Some(up) if !host.is_suspect => self.checkers.holds(host.id, up.handle.view().state_hash()),
            _ => Ok(()),
        }
    }

    pub(super) fn flush(&mut self, at: usize) {
        let Some(up) = &self.hosts[at].up else { return };
        if let Err(fault) = up.parts.flush.flush() {
            self.failure = self.stopped(at, fault.to_string()).err();
            return;
        }
        self.arm(at);
    }

    pub(super) fn sweep(&mut self, at: usize) {
        let Some(up) = &self.hosts[at].up else { return };
        match up.parts.sweep.step() {
            Ok(Some(rest)) => {
                let life = self.hosts[at].life;
                self.after(rest.as_micros() as u64, Event::Sweep { at, life });
            }
            Ok(None) => {}
            Err(fault) => self.failure = self.stopped(at, fault.to_string()).err(),
        }
    }
}

fn has_work(up: &Up, stage: Stage) -> bool {
    match stage {
        Stage::Run => up.parts.run.has_mail(),
        Stage::Persist => !up.parts.saves.is_empty(),
        Stage::Apply => !up.parts.committed.is_empty(),
        Stage::Sweep => !up.parts.sweeps.is_empty(),
        Stage::Jobs => up.jobs.is_called() || !up.chores.spawned.lock().is_empty(),
        Stage::Block => !up.chores.blocking.lock().is_empty(),
    }
}
