//! One event queue, and what each event does.

use super::{
    calls::{Answer, Call},
    checkers::{Checkers, Violation},
    clock::Time,
    executor::Executor,
    host::{Host, Stage},
    network::{Links, Transfer, Weather},
    plan::{Lie, MS, Plan, S},
    proof::Proofs,
    ring::{self, Ring, RingPlan},
    watchers::Watcher,
    workload::Client,
};
use crate::{
    io::Rng,
    replica::{PeerMessage, StartAs},
    sim::Chance,
    types::{Index, MemberId, Sabotage},
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
    /// The ring is looked at.
    Pulse,
    /// A machine starts its proxy.
    StartProxy { at: usize },
    /// A client of the ring does something.
    RingClient { number: usize },
    /// A watcher of the ring does something.
    RingWatch { number: usize },
    /// The next fault of the ring.
    RingFault,
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
    /// Answers that came over connections.
    pub wire: u64,
    /// Calls over connections that were refused, or lost.
    pub refused: u64,
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
    /// What stands before the core, if anything does.
    pub(super) ring: Option<Ring>,
    pub(super) stats: Stats,
    /// A violation that was met where nobody could be told.
    pub(super) failure: Option<Violation>,
    trace: Option<VecDeque<String>>,
}

impl World {
    /// The world of a seed, before its first event.
    pub fn new(seed: u64, lie: Option<Lie>, trace: bool) -> World {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(lie, &mut chance);
        World::begin(plan, None, chance, trace)
    }

    /// The same, with a ring before it whose proxies break a rule, if one is named.
    pub fn with_ring(seed: u64, sabotage: Option<Sabotage>, trace: bool) -> World {
        let mut chance = Chance::new(seed);
        let mut plan = Plan::draw(None, &mut chance);
        let ring = RingPlan::draw(&mut plan, sabotage, &mut chance);
        let ring = Ring::new(ring, plan.founders, plan.keys, &mut chance);
        World::begin(plan, Some(ring), chance, trace)
    }

    fn begin(plan: Plan, ring: Option<Ring>, chance: Chance, trace: bool) -> World {
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
            ring,
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
        world.begin_ring();
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

    pub(super) fn at_time(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((time, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    /// The next event.
    pub(super) fn next(&mut self) -> Result<(), Violation> {
        let Reverse((time, sequence)) = self.queue.pop().expect("clocks never stop");
        let event = self.events.remove(&sequence).expect("queued together");
        self.turn_ring(time)?;
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
            Event::Pulse => self.after(ring::PULSE, Event::Pulse),
            Event::StartProxy { at } => self.start_proxy(at),
            Event::RingClient { number } => self.ring_client(number),
            Event::RingWatch { number } => self.ring_watch(number),
            Event::RingFault => self.ring_fault(),
        }
        if self.executor.is_called() && !self.calls_due {
            self.calls_due = true;
            self.after(0, Event::Calls);
        }
        self.failure.take().map_or(Ok(()), Err)
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
        stats.digest ^= self.ring.as_ref().map_or(0, Ring::digest);
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
            Event::Start { .. } | Event::Pulse | Event::StartProxy { .. } | Event::RingClient { .. } => None,
            Event::RingWatch { .. } | Event::RingFault => None,
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
            Event::Pulse => 3,
            Event::StartProxy { at } => 1_000 + *at as u64,
            Event::RingClient { number } => 1_100 + *number as u64,
            Event::RingWatch { number } => 1_200 + *number as u64,
            Event::RingFault => 4,
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
                    let followers = up.parts.run.node().followers();
                    followers.iter().try_for_each(|follower| writeln!(f, "     {follower:?}"))?;
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
