//! Faults, one at a time, until everything is healed.

use super::{
    calls::{Ask, pick},
    checkers::Violation,
    clock::RIGHT,
    host::{Fate, WAL_DIR},
    network::Weather,
    plan::{FAULTS, FaultKind, Lie, MS, S},
    world::{Event, World},
};
use crate::{
    io::{Disk as _, DiskFile as _, Rng},
    types::MemberId,
};
use std::path::Path;

impl World {
    /// The next fault.
    pub fn fault(&mut self) -> Result<(), Violation> {
        if self.healed {
            return Ok(());
        }
        let delay = self.chance.between(1, self.plan.fault_gap);
        self.after(delay, Event::Fault);
        // Whatever the weights say: links that stay cut make the rest of a run a long silence.
        let kind = match self.is_cut() && self.chance.hits(1, 4) {
            true => FaultKind::Heal,
            false => self.draw(),
        };
        let at = self.chance.below(self.hosts.len() as u64) as usize;
        match kind {
            FaultKind::Kill => self.crash(at, false),
            FaultKind::PowerLoss => self.crash(at, true),
            FaultKind::TornWrite if self.hosts[at].up.is_some() => self.doom(at),
            FaultKind::TornWrite => {}
            FaultKind::CrashLeader => {
                let (leader, power) = (self.leader(), self.chance.hits(1, 2));
                leader.into_iter().for_each(|at| self.crash(at, power));
            }
            FaultKind::CrashAll => (0..self.hosts.len()).for_each(|at| self.crash(at, true)),
            FaultKind::Restart => self.restart(at)?,
            FaultKind::Halves => self.halves(false),
            FaultKind::Bridge => self.halves(true),
            FaultKind::IsolateLeader => {
                let leader = self.leader().map(|at| self.hosts[at].id);
                leader.into_iter().for_each(|id| self.cut(|from, to| from == id || to == id));
            }
            FaultKind::OneWay => {
                let to = self.chance.below(self.hosts.len() as u64) as usize;
                self.cut_one(self.hosts[at].id, self.hosts[to].id);
            }
            FaultKind::Heal => {
                self.cut(|_, _| false);
                self.weather = Weather::draw(&mut self.chance);
            }
            FaultKind::Pause => {
                self.hosts[at].paused_until_us = self.time.now_us() + self.chance.between(1, 4 * S);
            }
            FaultKind::SlowDisk => self.slow_disk(at),
            FaultKind::Clock => self.turn_clock(at),
            FaultKind::MoveLeader => self.move_leader(),
            FaultKind::Churn => self.churn(),
            FaultKind::BitFlip => self.flip(at),
            FaultKind::MassExpiry => {
                let sound = self.sound();
                for at in pick(&mut self.chance, &sound).into_iter().flat_map(|at| [at; 50]) {
                    self.call(at, None, Ask::Grant(1));
                }
            }
            FaultKind::Tamper => self.tamper(at),
        }
        self.note(|| format!("fault: {kind:?} (m{})", at + 1));
        Ok(())
    }

    fn draw(&mut self) -> FaultKind {
        let mut left = self.chance.below(self.plan.weights.iter().sum::<u64>().max(1));
        let drawn = self.plan.weights.iter().position(|weight| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        drawn.map_or(FaultKind::Heal, |drawn| FAULTS[drawn])
    }

    fn crash(&mut self, at: usize, power: bool) {
        if self.hosts[at].up.is_none() {
            return;
        }
        if self.plan.lie == Some(Lie::RestoresOldDisks) && power {
            self.restore_old_disk(at);
        }
        self.end(at, power);
        self.start_later(at);
    }

    /// The power goes within the next few changes of its disk, or of its home.
    pub fn doom(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.is_doomed = true;
        match self.chance.hits(1, 3) {
            true => host.home.halt_after(self.chance.below(3), self.chance.hits(1, 2)),
            false => host.disk.disk.halt_after(self.chance.below(6)),
        }
    }

    /// In good order: everything that was begun ends.
    fn restart(&mut self, at: usize) -> Result<(), Violation> {
        let host = &mut self.hosts[at];
        if host.is_doomed || host.paused_until_us > self.time.now_us() {
            return Ok(());
        }
        let Some(up) = &mut host.up else { return Ok(()) };
        up.handle.stop();
        while up.parts.run.turn(None) {}
        up.parts.run.end();
        self.collect(at);
        let stopped = self.finish(at);
        if let Err(fault) = stopped {
            return self.stopped(at, fault.to_string());
        }
        self.collect(at);
        self.end(at, false);
        self.start_later(at);
        Ok(())
    }

    /// What threads do when the loop has hung up.
    fn finish(&mut self, at: usize) -> Result<(), crate::types::Fault> {
        let Some(up) = &mut self.hosts[at].up else { return Ok(()) };
        if let Ok(first) = up.parts.saves.try_recv() {
            up.parts.persist.batch(first, &up.parts.saves)?;
        }
        up.parts.persist.end();
        while let Ok(work) = up.parts.committed.try_recv() {
            up.parts.apply.turn(work)?;
        }
        up.parts.flush.flush().map(drop)
    }

    /// Two groups that can't hear each other, drawn around a leader most of the time; or all but one member, who hears both.
    fn halves(&mut self, has_bridge: bool) {
        let leader = self.leader().filter(|_| self.chance.hits(2, 3));
        let sides = match leader {
            Some(leader) => 1_u64 << leader | 1 << self.chance.below(self.hosts.len() as u64),
            None => self.chance.next_u64(),
        };
        let bridge = self.chance.below(self.hosts.len() as u64) as usize;
        let ids = self.hosts.iter().map(|host| host.id).collect::<Vec<_>>();
        let place = |id: MemberId| ids.iter().position(|other| *other == id).unwrap_or(0);
        self.cut(|from, to| {
            let (from, to) = (place(from), place(to));
            let is_bridged = has_bridge && (from == bridge || to == bridge);
            !is_bridged && sides >> from & 1 != sides >> to & 1
        });
    }

    fn slow_disk(&mut self, at: usize) {
        let now = self.time.now_us();
        let host = &mut self.hosts[at];
        match self.chance.below(3) {
            0 => host.slow_us = 0,
            1 => host.slow_us = self.chance.between(1, 500 * MS),
            _ => host.hangs_until_us = now + self.chance.between(1, 5 * S),
        }
    }

    /// Another pace, or a jump: as after a machine was suspended.
    fn turn_clock(&mut self, at: usize) {
        let pace = self.chance.between(RIGHT / 2, 2 * RIGHT);
        let jump = match self.chance.below(4) {
            0 => self.chance.between(1, 5 * S),
            1 if self.chance.hits(1, 4) => 400 * S,
            _ => 0,
        };
        let host = &mut self.hosts[at];
        host.clock.set(pace, jump);
        if self.plan.lie == Some(Lie::HidesJumps) {
            host.hidden_us += jump;
        }
        // Its timers look at it again.
        if host.up.is_some() {
            let life = host.life;
            host.ticks += 1;
            let ticks = host.ticks;
            self.after(0, Event::Tick { at, life, ticks });
        }
    }

    fn move_leader(&mut self) {
        let Some(at) = self.leader() else { return };
        let others = self.hosts.iter().map(|host| host.id).filter(|id| *id != self.hosts[at].id).collect::<Vec<_>>();
        if let Some(to) = pick(&mut self.chance, &others) {
            self.call(at, None, Ask::MoveLeader(to));
        }
    }

    /// Whether one more member may be lost, and the others are still a quorum with one to spare for the next crash.
    fn may_lose(&self, at: usize) -> bool {
        let voters = self.checkers.oracle.view().conf_state().voters;
        let is_well = |host: &&super::host::Host| {
            voters.contains(&host.id) && host.fate == Fate::Serves && !host.is_tainted && !host.is_suspect
        };
        let well = self.hosts.iter().filter(is_well).count();
        is_well(&&self.hosts[at]) && well > voters.len() / 2 + 1
    }

    /// A bit of the log turns over while the power is off; the member finds out when it starts.
    fn flip(&mut self, at: usize) {
        if !self.may_lose(at) {
            return;
        }
        self.crash(at, true);
        let host = &mut self.hosts[at];
        let disk = &host.disk.disk;
        let files = disk.list(Path::new(WAL_DIR)).unwrap_or_default();
        let Some(file) = files.get(self.chance.below(files.len().max(1) as u64) as usize) else { return };
        let mut bytes = vec![0; self.plan.segment_bytes as usize];
        let read = disk.open(file).and_then(|file| file.read_at(0, &mut bytes)).unwrap_or(0);
        // What was never written holds nothing.
        let written = bytes[..read].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let offset = self.chance.below(written.max(1) as u64);
        if disk.flip(file, offset, self.chance.below(8) as u8) {
            host.is_tainted = true;
        }
    }

    /// A row of a store is another one: no disk does that unnoticed, but a bug might.
    fn tamper(&mut self, at: usize) {
        let nobody_else = self.hosts.iter().all(|host| !host.is_suspect);
        if !self.plan.tampers() || !nobody_else || !self.may_lose(at) {
            return;
        }
        self.crash(at, true);
        let host = &mut self.hosts[at];
        host.is_suspect = host.tamper(&mut self.chance).expect("a store in memory is sound");
    }

    /// The lie that a machine can go back to what its disk was.
    fn restore_old_disk(&mut self, at: usize) {
        let seed = self.chance.next_u64();
        let host = &mut self.hosts[at];
        let now = host.disk.disk.fork(seed);
        if let Some((old, home)) = host.kept.replace((now, host.home.clone())) {
            host.disk.disk = old;
            host.home = home;
        }
    }

    /// The end of all faults.
    pub fn heal(&mut self) {
        self.healed = true;
        self.heal_ring();
        self.note(|| "all faults end".into());
        self.weather = Weather::FINE;
        self.cut(|_, _| false);
        for at in 0..self.hosts.len() {
            if self.hosts[at].is_doomed {
                self.crash(at, true);
            }
            let host = &mut self.hosts[at];
            // Healthy clocks differ a little.
            host.clock.set(RIGHT + at as u64, 0);
            (host.slow_us, host.paused_until_us, host.hangs_until_us) = (0, 0, 0);
            self.after(MS, Event::Start { at });
        }
    }
}
