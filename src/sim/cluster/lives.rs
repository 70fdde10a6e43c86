//! The lives of a member: it starts, stops by itself or with its machine, and goes for good when it was removed.

use super::{
    checkers::{Rule, Violation, broken},
    host::Fate,
    plan::S,
    world::{Event, NOTHING, World},
};
use crate::{io::Rng, sim::Chance};

impl World {
    /// Starts a member that is down. One whose keep was damaged may refuse, and is damaged then.
    pub(super) fn start(&mut self, at: usize) -> Result<(), Violation> {
        if self.hosts[at].up.is_some() || self.hosts[at].fate != Fate::Serves {
            return Ok(());
        }
        let chance = Chance::new(self.chance.next_u64());
        if !self.healed && self.chance.hits(self.plan.start_fails, 100) {
            self.doom(at);
        }
        if self.hosts[at].will_install().expect("a store in memory is sound") {
            self.cured(at);
        }
        let host = &mut self.hosts[at];
        if let Err(fault) = host.start(&self.plan, &self.links, &self.time, chance) {
            return self.stopped(at, fault.to_string());
        }
        let (life, id) = (host.life, host.id);
        if self.checkers.last() == NOTHING {
            let founding = host.founding();
            let clocks = self.clocks();
            self.checkers.commits(founding, &clocks)?;
        }
        self.note(|| format!("m{} ({id}) starts", at + 1));
        let phase = self.chance.between(1, self.plan.heartbeat);
        let ticks = self.hosts[at].ticks;
        self.after(phase, Event::Tick { at, life, ticks });
        self.after(self.plan.flush_interval, Event::Flush { at, life });
        self.open_edge(at);
        self.applied(at)?;
        self.arm(at);
        Ok(())
    }

    /// A member stops by itself, and says why.
    pub(super) fn stopped(&mut self, at: usize, why: String) -> Result<(), Violation> {
        if self.hosts[at].is_doomed {
            self.lose_power(at);
            return Ok(());
        }
        let (id, is_tainted) = (self.hosts[at].id, self.hosts[at].is_tainted);
        self.note(|| format!("m{} ({id}) stops: {why}", at + 1));
        if !is_tainted {
            return broken(Rule::Sound, format!("{id} stops by itself: {why}"));
        }
        self.end(at, false);
        self.hosts[at].fate = Fate::Damaged(why);
        Ok(())
    }

    /// A member has the state of another one, and with it a right one.
    pub(super) fn cured(&mut self, at: usize) {
        if std::mem::take(&mut self.hosts[at].is_suspect) {
            self.stats.refills += 1;
            self.note(|| format!("m{} has the state of the others again", at + 1));
        }
    }

    /// Has a member stopped, or learned that it has to go? Then has its stages go on.
    pub(super) fn look(&mut self, at: usize) -> Result<(), Violation> {
        let host = &mut self.hosts[at];
        let Some(up) = &host.up else { return Ok(()) };
        let fault = up.handle.fault().borrow().clone();
        if let Some(fault) = fault {
            return self.stopped(at, fault);
        }
        let (is_removed, is_quarantined) = (*up.handle.removed().borrow(), up.handle.is_quarantined());
        if is_quarantined && !host.is_suspect {
            return broken(Rule::Sound, format!("{} takes its state for wrong, but it is right", host.id));
        }
        if is_removed {
            return self.leave(at);
        }
        self.arm(at);
        Ok(())
    }

    /// A member that was removed stops for good.
    pub(super) fn leave(&mut self, at: usize) -> Result<(), Violation> {
        let id = self.hosts[at].id;
        self.note(|| format!("m{} ({id}) was removed, and goes", at + 1));
        if !self.checkers.is_removed(id) {
            return broken(Rule::Sound, format!("{id} takes itself for removed"));
        }
        self.end(at, false);
        self.hosts[at].fate = Fate::Left;
        Ok(())
    }

    /// A process ends, whatever it was doing; whoever waited for it does not hear of it again.
    pub(super) fn end(&mut self, at: usize, power: bool) {
        let ended = self.calls.iter().filter(|(_, call)| call.at == at).map(|(number, _)| *number);
        for number in ended.collect::<Vec<_>>() {
            self.hang_up(number);
        }
        for watcher in self.watchers.iter_mut().filter(|watcher| watcher.is_at(at)) {
            watcher.disconnect();
        }
        self.close_edge(at, power);
        // One that goes into it finds another life there, or nobody.
        self.transfers.retain(|_, transfer| !transfer.is_from(at));
        self.hosts[at].end(power);
        self.stats.crashes += 1;
    }

    /// The power goes at one machine; it comes back.
    pub(super) fn lose_power(&mut self, at: usize) {
        self.note(|| format!("m{} loses power", at + 1));
        self.end(at, true);
        self.start_later(at);
    }

    /// A machine that is down starts its member again, after a while.
    pub(super) fn start_later(&mut self, at: usize) {
        let delay = self.chance.between(1, 3 * S);
        self.after(delay, Event::Start { at });
    }
}
