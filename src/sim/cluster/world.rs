//! One event queue, and what each event does.

use super::{
    calls::{Answer, Call},
    checkers::{Checkers, Rule, Violation, broken},
    clock::Time,
    executor::Executor,
    host::{Fate, Host, STAGES, Stage, Up},
    network::{Links, Transfer, Weather},
    plan::{Lie, MS, Plan, S},
    proof::Proofs,
    watchers::Watcher,
    workload::Client,
};
use crate::{
    io::Rng,
    replica::{Committed, PeerMessage, StartAs},
    sim::Chance,
    types::{Index, MemberId},
};
use parking_lot::Mutex;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    fmt,
    sync::Arc,
};

/// How many of the last events a report shows.
const TRACE_MAX: usize = 400;

/// Something that happens at a time. Those that name a life do not happen in a later one.
pub enum Event {
    /// A member's loop looks at its clock.
    Tick { at: usize, life: u64, ticks: u64 },
    /// A stage does what waits for it.
    Stage { at: usize, life: u64, stage: Stage },
    /// It is time to flush the store.
    Flush { at: usize, life: u64 },
    /// The sweep has rested.
    Sweep { at: usize, life: u64 },
    /// A letter arrives; what must not come twice names the life that it was sent to.
    Deliver { at: usize, life: Option<u64>, from: MemberId, message: PeerMessage },
    /// The next portion of a snapshot.
    Transfer { number: u64 },
    /// A client does something.
    Client { number: usize },
    /// Calls that were woken go on.
    Calls,
    /// A watcher looks at its stream, or for one.
    Watch { number: usize },
    /// The next fault.
    Fault,
    /// A machine starts its member.
    Start { at: usize },
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events.
    pub events: u64,
    /// Ends of processes.
    pub crashes: u64,
    /// Entries of the log.
    pub entries: u64,
    /// Answers that clients got.
    pub answers: u64,
    /// Events that watchers got.
    pub watched: u64,
    /// Snapshots that arrived whole.
    pub snapshots: u64,
    /// Snapshots that went on where they broke off.
    pub resumed: u64,
    /// Changes of membership.
    pub changes: u64,
    /// States that were found to differ, and replaced.
    pub refills: u64,
    /// Of everything that happened, in order.
    pub digest: u64,
}

/// The world.
pub struct World {
    pub(super) plan: Plan,
    pub(super) chance: Chance,
    pub(super) time: Time,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) links: Arc<Mutex<Links>>,
    pub(super) weather: Weather,
    pub(super) transfers: BTreeMap<u64, Transfer>,
    pub(super) next_transfer: u64,
    pub(super) executor: Executor<Answer>,
    pub(super) calls: BTreeMap<u64, Call>,
    calls_due: bool,
    pub(super) clients: Vec<Client>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) checkers: Checkers,
    pub(super) healed: bool,
    pub(super) next_value: u64,
    /// Changes of membership under way.
    pub(super) changes_open: u64,
    pub(super) proofs: Proofs,
    pub(super) stats: Stats,
    /// A violation that was met where nobody could be told.
    failure: Option<Violation>,
    trace: Option<VecDeque<String>>,
}

impl World {
    /// The world of a seed, before its first event.
    pub fn new(seed: u64, lie: Option<Lie>, trace: bool) -> World {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(lie, &mut chance);
        let mut world = World {
            weather: plan.weather,
            checkers: Checkers::default(),
            clients: (0..plan.clients).map(|_| Client::default()).collect(),
            watchers: Vec::new(),
            plan,
            chance,
            time: Time::default(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            hosts: Vec::new(),
            links: Arc::default(),
            transfers: BTreeMap::new(),
            next_transfer: 0,
            executor: Executor::default(),
            calls: BTreeMap::new(),
            calls_due: false,
            healed: false,
            next_value: 0,
            changes_open: 0,
            proofs: Proofs::default(),
            stats: Stats::default(),
            failure: None,
            trace: trace.then(VecDeque::new),
        };
        for number in 1..=plan.founders {
            let seed = world.chance.next_u64();
            world.hosts.push(Host::new(number, &world.plan, StartAs::New, &world.time, seed));
            let delay = world.chance.between(0, 500 * MS);
            world.after(delay, Event::Start { at: number - 1 });
        }
        for number in 0..plan.clients {
            world.after(S + number as u64, Event::Client { number });
        }
        for number in 0..plan.watchers {
            let watcher = Watcher::draw(&mut world.chance, plan.keys);
            world.watchers.push(watcher);
            world.after(S, Event::Watch { number });
        }
        world.after(2 * S, Event::Fault);
        world
    }

    /// Faults for a while, then none, and the proof that all is well.
    pub fn run(&mut self) -> Result<(), Violation> {
        while self.time.now_us() < self.plan.chaos {
            self.next()?;
        }
        self.heal();
        self.prove_alive()?;
        self.stats.entries = self.checkers.last().0;
        Ok(())
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at_time(self.time.now_us() + delay, event);
    }

    fn at_time(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((time, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    /// The next event.
    pub(super) fn next(&mut self) -> Result<(), Violation> {
        let Reverse((time, sequence)) = self.queue.pop().expect("clocks never stop");
        let event = self.events.remove(&sequence).expect("queued together");
        self.time.set_us(time);
        if let Some((at, life)) = event.process() {
            let host = &self.hosts[at];
            if life.is_some_and(|life| host.life != life) {
                return Ok(());
            }
            if host.paused_until_us > time {
                let until = host.paused_until_us;
                self.at_time(until, event);
                return Ok(());
            }
        }
        self.stats.events += 1;
        self.stats.digest = (self.stats.digest ^ time ^ event.kind()).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
        match event {
            Event::Tick { at, ticks, .. } => self.tick(at, ticks)?,
            Event::Stage { at, stage, .. } => self.stage(at, stage)?,
            Event::Flush { at, life } => {
                self.after(self.plan.flush_interval, Event::Flush { at, life });
                self.flush(at);
            }
            Event::Sweep { at, .. } => self.sweep(at),
            Event::Deliver { at, life, from, message } => {
                self.deliver(at, life, from, message);
                self.arm(at);
            }
            Event::Transfer { number } => self.transfer(number),
            Event::Client { number } => self.client(number)?,
            Event::Calls => self.answer_calls()?,
            Event::Watch { number } => self.watch(number)?,
            Event::Fault => self.fault()?,
            Event::Start { at } => self.start(at)?,
        }
        if self.executor.is_called() && !self.calls_due {
            self.calls_due = true;
            self.after(0, Event::Calls);
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Starts a member that is down. One whose keep was damaged may refuse, and is damaged then.
    pub(super) fn start(&mut self, at: usize) -> Result<(), Violation> {
        if self.hosts[at].up.is_some() || self.hosts[at].fate != Fate::Serves {
            return Ok(());
        }
        let chance = Chance::new(self.chance.next_u64());
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

    /// Has each stage that has work run some time soon, and takes what the member wants to say.
    pub(super) fn arm(&mut self, at: usize) {
        self.collect(at);
        let now = self.time.now_us();
        let life = self.hosts[at].life;
        for (number, stage) in STAGES.into_iter().enumerate() {
            let host = &mut self.hosts[at];
            let Some(up) = &mut host.up else { return };
            if up.due[number] || !has_work(up, stage) {
                continue;
            }
            up.due[number] = true;
            let mut delay = self.chance.between(0, self.plan.stage_delay_max);
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

    fn tick(&mut self, at: usize, ticks: u64) -> Result<(), Violation> {
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
    fn turn(&mut self, at: usize) -> Result<(), Violation> {
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

    fn stage(&mut self, at: usize, stage: Stage) -> Result<(), Violation> {
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

    fn apply(&mut self, at: usize) -> Result<(), Violation> {
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

    /// A member has the state of another one, and with it a right one.
    fn cured(&mut self, at: usize) {
        if std::mem::take(&mut self.hosts[at].is_suspect) {
            self.stats.refills += 1;
            self.note(|| format!("m{} has the state of the others again", at + 1));
        }
    }

    /// What a member holds must be what the oracle held after the same entry.
    pub(super) fn applied(&mut self, at: usize) -> Result<(), Violation> {
        let host = &self.hosts[at];
        match &host.up {
            Some(up) if !host.is_suspect => self.checkers.holds(host.id, up.handle.view().state_hash()),
            _ => Ok(()),
        }
    }

    fn flush(&mut self, at: usize) {
        let Some(up) = &self.hosts[at].up else { return };
        if let Err(fault) = up.parts.flush.flush() {
            self.failure = self.stopped(at, fault.to_string()).err();
            return;
        }
        self.arm(at);
    }

    fn sweep(&mut self, at: usize) {
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
    fn leave(&mut self, at: usize) -> Result<(), Violation> {
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

    fn answer_calls(&mut self) -> Result<(), Violation> {
        self.calls_due = false;
        for (number, answer) in self.executor.run() {
            if let Some(call) = self.calls.remove(&number) {
                self.answered(call, answer)?;
            }
        }
        for at in 0..self.hosts.len() {
            self.arm(at);
        }
        Ok(())
    }

    /// What the lease checker knows of all clocks.
    pub(super) fn clocks(&self) -> Vec<u64> {
        self.hosts.iter().map(Host::known_us).collect()
    }

    /// Where those are that run and are not suspect.
    pub(super) fn sound(&self) -> Vec<usize> {
        let is_sound = |at: &usize| self.hosts[*at].up.is_some() && !self.hosts[*at].is_suspect;
        (0..self.hosts.len()).filter(is_sound).collect()
    }

    /// One of those who think that they lead.
    pub(super) fn leader(&mut self) -> Option<usize> {
        let leads = |at: &usize| {
            let up = self.hosts[*at].up.as_ref();
            up.is_some_and(|up| up.parts.run.node().status().role == crate::raft::Role::Leader)
        };
        let leaders = (0..self.hosts.len()).filter(leads).collect::<Vec<_>>();
        let drawn = self.chance.below(leaders.len().max(1) as u64) as usize;
        leaders.get(drawn).copied()
    }

    /// What the run has done.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        stats.digest ^= self.checkers.hash_at(self.checkers.last()).unwrap_or(0);
        stats
    }

    /// Something worth telling in a report.
    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_MAX {
                trace.pop_front();
            }
            trace.push_back(format!("{:>10} {}", self.time.now_us(), what()));
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

impl Event {
    /// Whose process it needs, and in which life.
    fn process(&self) -> Option<(usize, Option<u64>)> {
        match self {
            Event::Tick { at, life, .. }
            | Event::Stage { at, life, .. }
            | Event::Flush { at, life }
            | Event::Sweep { at, life } => Some((*at, Some(*life))),
            Event::Deliver { at, life, .. } => Some((*at, *life)),
            Event::Transfer { .. } | Event::Client { .. } | Event::Calls | Event::Watch { .. } | Event::Fault => None,
            Event::Start { .. } => None,
        }
    }

    fn kind(&self) -> u64 {
        match self {
            Event::Tick { at, .. } => 100 + *at as u64,
            Event::Stage { at, stage, .. } => 200 + 20 * *stage as u64 + *at as u64,
            Event::Flush { at, .. } => 400 + *at as u64,
            Event::Sweep { at, .. } => 500 + *at as u64,
            Event::Deliver { at, from, .. } => from.0.rotate_left(20) ^ *at as u64,
            Event::Transfer { number } => 700 + number,
            Event::Client { number } => 800 + *number as u64,
            Event::Calls => 1,
            Event::Watch { number } => 900 + *number as u64,
            Event::Fault => 2,
            Event::Start { at } => 600 + *at as u64,
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.plan)?;
        for (at, host) in self.hosts.iter().enumerate() {
            write!(f, "  m{} ({}): {:?}, life {}", at + 1, host.id, host.fate, host.life)?;
            match &host.up {
                Some(up) => {
                    let (applied, waits) = (up.handle.view().applied(), up.parts.committed.len());
                    writeln!(f, ", {:?}, applied {applied:?}, {waits} wait", up.parts.run.node().status())?;
                    writeln!(f, "     suspect {}, quarantined {}", host.is_suspect, up.handle.is_quarantined())?;
                }
                None => writeln!(f, ", down")?,
            }
        }
        for (number, watcher) in self.watchers.iter().enumerate() {
            writeln!(f, "  watcher {number}: {:?} {}", watcher.cursor, watcher.place())?;
        }
        writeln!(f, "  oracle: {:?}", self.checkers.last())?;
        self.trace.iter().flatten().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Positions are compared with this: before the first entry.
pub const NOTHING: Index = Index(0);
