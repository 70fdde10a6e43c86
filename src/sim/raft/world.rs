//! One event queue, and what each event does.

use super::{
    checkers::{Checkers, Rule, Slot, Violation, broken},
    disk::{Disk, Write},
    event::Event,
    member::Member,
    plan::{Lie, Plan, TICK, Weather},
};
use crate::{
    io::Rng,
    raft::{Envelope, Input, LogId, Members, Output, Proposal, ReadId, Role, Verdict},
    sim::Chance,
    types::{ConfState, EntryKind, Index, MemberId},
};
use bytes::Bytes;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    fmt,
};

/// Most events that may wait: more is a storm of messages that beget each other.
const EVENTS_MAX: usize = 50_000;
/// How many of the last events a report shows.
const TRACE_MAX: usize = 60;

/// What a run has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inputs given to nodes.
    pub steps: u64,
    /// Elections won.
    pub elections: u64,
    /// Crashes of members.
    pub crashes: u64,
    /// Entries committed.
    pub committed: u64,
    /// Reads answered with an index.
    pub reads: u64,
    /// Committed changes of membership that a member applied.
    pub changes: u64,
    /// States that arrived.
    pub states: u64,
    /// States that were taken over.
    pub taken_over: u64,
    /// A digest of all events: two runs of one seed must agree.
    pub digest: u64,
}

/// The world.
pub struct World {
    pub(super) plan: Plan,
    pub(super) chance: Chance,
    pub(super) now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
    pub(super) members: Vec<Member>,
    pub(super) checkers: Checkers,
    pub(super) weather: Weather,
    /// `blocked[from][to]`: a partition may work one way only.
    pub(super) blocked: Vec<Vec<bool>>,
    /// The end of all faults.
    pub(super) healed: bool,
    next_id: u64,
    pub(super) stats: Stats,
    trace: Option<VecDeque<String>>,
}

impl World {
    /// A world with everyone up. `trace` keeps what happens for a report, which is slow.
    pub fn new(seed: u64, lie: Option<Lie>, trace: bool) -> World {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(seed, lie, &mut chance);
        let count = (plan.members + plan.spares) as usize;
        let members = (1..=plan.members + plan.spares).map(|id| {
            let disk = if plan.real_log { Disk::real(chance.next_u64()) } else { Disk::default() };
            Member::new(crate::raft::Config { id: MemberId(id), ..plan.config }, disk)
        });
        let members = members.collect::<Vec<_>>();
        let founders = ConfState { voters: (1..=plan.members).map(MemberId).collect(), ..ConfState::default() };
        let mut world = World {
            plan,
            chance,
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            members,
            checkers: Checkers::new(founders),
            weather: plan.weather,
            blocked: vec![vec![false; count]; count],
            healed: false,
            next_id: 0,
            stats: Stats::default(),
            trace: trace.then(VecDeque::new),
        };
        (0..count).for_each(|at| world.start(at));
        world.after(1, Event::Client);
        world.after(1, Event::Fault);
        world
    }

    /// Runs to the end: faults, then peace.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run(&mut self) -> Result<(), Violation> {
        while self.now < self.plan.chaos {
            self.next()?;
        }
        self.heal()?;
        self.prove_alive()?;
        let (_, conf_state) = self.checkers.membership_at(self.checkers.commit());
        self.check_durable(Index(0), &Members::new(conf_state))?;
        self.stats.elections = self.checkers.elections() as u64;
        self.stats.committed = self.checkers.commit().0;
        Ok(())
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at_time(self.now + delay, event);
    }

    fn at_time(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((time, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    pub(super) fn next(&mut self) -> Result<(), Violation> {
        let Reverse((time, sequence)) = self.queue.pop().expect("clocks never stop");
        let event = self.events.remove(&sequence).expect("queued together");
        self.now = time;
        if let Some(at) = event.member()
            && self.members[at].paused_until > time
        {
            // The disk goes on while the process stands still, but that only shows when it wakes up.
            self.at_time(self.members[at].paused_until, event);
            return Ok(());
        }
        self.stats.digest = (self.stats.digest ^ time ^ event.kind()).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
        if event.life().is_some_and(|(at, life)| self.members[at].life != life || self.members[at].node.is_none()) {
            return Ok(());
        }
        self.note(|| format!("{event:?}"));
        if self.events.len() > EVENTS_MAX {
            return broken(Rule::Liveness, format!("a storm: {} events wait", self.events.len()));
        }
        match event {
            Event::Tick { at, life } => {
                self.after(self.members[at].tick_every, Event::Tick { at, life });
                if self.plan.snapshots {
                    self.help(at);
                }
                self.step(at, Input::Tick)
            }
            Event::State { at, meta } => self.state_arrives(at, meta),
            Event::Stalled { stalled, .. } if stalled && self.healed => Ok(()),
            Event::Stalled { at, stalled, .. } => self.tell_stalled(at, stalled),
            Event::Deliver { at, from, message } => self.step(at, Input::Received { from, message }),
            Event::Act { at, .. } => self.act(at),
            Event::Synced { at, life } => self.synced(at, life),
            Event::Told { at, last, send, .. } => self.told(at, last, send),
            Event::Client => self.client(),
            Event::Fault => self.fault(),
            Event::Restart { at } => {
                self.start(at);
                Ok(())
            }
        }
    }

    /// Starts a member that is down.
    pub(super) fn start(&mut self, at: usize) {
        if self.members[at].node.is_some() || self.members[at].gone {
            return;
        }
        let seed = self.chance.next_u64();
        let applied = match self.plan.lie {
            Some(Lie::ForgetsMembers) => Index(0),
            _ => self.members[at].flushed.index,
        };
        let (_, conf_state) = self.checkers.membership_at(applied);
        self.members[at].start(self.checkers.committed(), conf_state, seed);
        let life = self.members[at].life;
        let phase = self.chance.between(1, TICK);
        self.after(phase, Event::Tick { at, life });
    }

    /// One input, and a look at what it did.
    pub(super) fn step(&mut self, at: usize, input: Input) -> Result<(), Violation> {
        let member = &mut self.members[at];
        let Some(node) = &mut member.node else { return Ok(()) };
        let before = node.status();
        let (reads, failed) = (member.out.reads.len(), member.out.reads_failed.len());
        let restore = member.out.restore.as_ref().map(|meta| meta.index);
        let is_tick = matches!(input, Input::Tick);
        node.step(input, &mut member.out);
        self.stats.steps += 1;
        let after = node.status();
        if let Some(meta) = member.out.restore.as_ref().filter(|meta| Some(meta.index) != restore) {
            member.shadow = self.checkers.committed()[..meta.index.0 as usize].to_vec();
        }
        if is_tick && member.stalled && after.role == Role::Leader && !node.members().is_alone(after.id) {
            return broken(Rule::Stalled, format!("{} leads without a disk", after.id));
        }
        self.checkers.appended(&mut member.shadow, &member.out.append)?;
        let known = self.checkers.commit();
        self.checkers.stepped(before, after, &member.shadow)?;
        if self.checkers.commit() > known {
            let members = node.members().clone();
            self.check_durable(known, &members)?;
        }
        let (node, member) = (self.members[at].status(), &mut self.members[at]);
        debug_assert_eq!(node, Some(after));
        for (read, index) in &member.out.reads[reads..] {
            self.checkers.read_ends(after.id, *read, Some(*index))?;
            self.stats.reads += 1;
        }
        for read in &member.out.reads_failed[failed..] {
            self.checkers.read_ends(after.id, *read, None)?;
        }
        if before.role != after.role || before.term != after.term {
            self.note(|| format!("  {}: {:?} of {}", after.id, after.role, after.term));
        }
        let is_new = after.role == Role::Leader && before.role != Role::Leader;
        if is_new && !self.healed && self.chance.hits(self.plan.strike, 100) {
            self.strike(at);
        }
        let member = &mut self.members[at];
        if !member.act_due && !member.out.is_empty() {
            member.act_due = true;
            let life = member.life;
            let delay = self.chance.between(0, self.plan.act_delay_max);
            self.after(delay, Event::Act { at, life });
        }
        Ok(())
    }

    /// Everything committed after `from` must be on the disks of a quorum of `members`.
    fn check_durable(&self, from: Index, members: &Members) -> Result<(), Violation> {
        let has = |id: MemberId, index: Index, slot: &Slot| {
            let disk = &self.members[id.0 as usize - 1].disk;
            // The state machine's state stands for what was released.
            disk.entry(index).map_or(index <= disk.start.index, |found| Slot::of(found) == *slot)
        };
        let holds = |index: Index, slot: &Slot| members.votes(|id| Some(has(id, index, slot))) == Verdict::Won;
        self.checkers.durable(from, holds)
    }

    /// Does what the output says, in the order that its documentation asks for.
    fn act(&mut self, at: usize) -> Result<(), Violation> {
        // Now and then what is committed has waited for company long enough.
        if self.chance.hits(25, 100) {
            self.step(at, Input::TellCommit)?;
        }
        let member = &mut self.members[at];
        member.act_due = false;
        let Output { restore, send_now, hard_state, append, mut send_durable, committed, .. } =
            std::mem::take(&mut member.out);
        if let Some(meta) = &restore {
            self.takes_over(at, meta)?;
        }
        let member = &mut self.members[at];
        let Some(node) = &member.node else { return Ok(()) };
        let entries = node.entries(committed.start, committed.end);
        self.checkers.applies(member.id(), member.applied, &entries)?;
        member.applied = entries.last().map_or(member.applied, |entry| entry.index);
        self.apply_changes(at, &entries)?;
        let member = &mut self.members[at];
        let (mut send, lies) = (send_now, self.plan.lie);
        if lies == Some(Lie::SendsBeforeSync) {
            send.append(&mut send_durable);
        }
        let saved = member.disk.hard_state;
        let needs_sync = restore.is_some()
            || !append.is_empty()
            || !send_durable.is_empty()
            || hard_state.is_some_and(|state| (state.term, state.vote) != (saved.term, saved.vote));
        let last = append.last().map(|entry| LogId { index: entry.index, term: entry.term });
        if restore.is_some() || hard_state.is_some() || !append.is_empty() || !member.disk.is_idle() {
            member.disk.write(Write { restore, hard_state, entries: append, then_send: send_durable, needs_sync });
        } else {
            // All that they speak of is on disk.
            send.append(&mut send_durable);
        }
        self.send(at, send)?;
        self.sync(at);
        match last {
            Some(last) if lies == Some(Lie::ClaimsPersisted) => {
                self.step(at, Input::Persisted { upto: last.index, term: last.term })
            }
            _ => Ok(()),
        }
    }

    fn sync(&mut self, at: usize) {
        let member = &mut self.members[at];
        if member.disk.begin_sync() {
            let (life, slow) = (member.life, member.slow_disk);
            let hangs = member.hung_until.saturating_sub(self.now);
            let delay = self.chance.between(1, self.plan.sync_max) + self.chance.between(0, slow);
            self.after(delay + hangs, Event::Synced { at, life });
        }
    }

    fn synced(&mut self, at: usize, life: u64) -> Result<(), Violation> {
        let (last, send) = self.members[at].disk.end_sync();
        self.members[at].install_staged();
        // A crash may come in between: on disk, but nobody was told.
        let delay = self.chance.between(0, 3);
        self.after(delay, Event::Told { at, life, last, send });
        Ok(())
    }

    fn told(&mut self, at: usize, last: Option<LogId>, send: Vec<Envelope>) -> Result<(), Violation> {
        self.send(at, send)?;
        if let Some(last) = last {
            self.step(at, Input::Persisted { upto: last.index, term: last.term })?;
        }
        self.sync(at);
        Ok(())
    }

    fn send(&mut self, at: usize, envelopes: Vec<Envelope>) -> Result<(), Violation> {
        let (from, term) = (self.members[at].id(), self.members[at].status().expect("it is up").term);
        for envelope in envelopes {
            self.checkers.sends(from, term, &envelope)?;
            let to = envelope.to.0 as usize - 1;
            let Weather { dropped, doubled, late, delay_max } = self.weather;
            if self.blocked[at][to] || self.chance.hits(dropped, 1_000) {
                continue;
            }
            let copies = 1 + u64::from(self.chance.hits(doubled, 1_000));
            for _ in 0..copies {
                let held_up = if self.chance.hits(late, 1_000) { 20 * TICK } else { 0 };
                let delay = self.chance.between(1, delay_max + held_up);
                self.after(delay, Event::Deliver { at: to, from, message: envelope.message.clone() });
            }
        }
        Ok(())
    }

    /// A request at any member, leader or not.
    fn client(&mut self) -> Result<(), Violation> {
        let delay = self.chance.between(1, self.plan.client_gap);
        self.after(delay, Event::Client);
        if self.healed {
            return Ok(());
        }
        let anyone = self.anyone();
        let leader = if self.chance.hits(1, 2) { self.leader() } else { None };
        let at = leader.unwrap_or(anyone);
        if self.members[at].paused_until > self.now {
            return Ok(());
        }
        match self.chance.hits(1, 3) {
            true => self.read(at),
            false => {
                let count = self.chance.between(1, 3);
                let proposals = (0..count).map(|_| self.proposal()).collect();
                self.step(at, Input::Propose(proposals))
            }
        }
    }

    /// A command that was never proposed before.
    pub(super) fn proposal(&mut self) -> Proposal {
        let mut data = self.unique();
        data.resize(8 + self.chance.below(60) as usize, b'.');
        Proposal { kind: EntryKind::Normal, data: Bytes::from(data) }
    }

    /// The beginning of a payload that nothing else has.
    pub(super) fn unique(&mut self) -> Vec<u8> {
        self.next_id += 1;
        self.next_id.to_be_bytes().to_vec()
    }

    pub(super) fn read(&mut self, at: usize) -> Result<(), Violation> {
        let Some(status) = self.members[at].status() else { return Ok(()) };
        self.next_id += 1;
        let read = ReadId(self.next_id);
        self.checkers.read_begins(status.id, read);
        if self.plan.lie == Some(Lie::ReadsLocally) {
            return self.checkers.read_ends(status.id, read, Some(status.commit));
        }
        self.step(at, Input::ReadIndex(read))
    }

    /// What the run has done.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_MAX {
                trace.pop_front();
            }
            trace.push_back(format!("{:>6} {}", self.now, what()));
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.plan)?;
        for member in &self.members {
            let disk = &member.disk;
            writeln!(f, "  {}: {:?}", member.id(), member.status())?;
            writeln!(
                f,
                "     applied {}, flushed {:?}, disk {:?} + {} entries to {:?}, {:?}",
                member.applied,
                member.flushed,
                disk.start,
                disk.entries.len(),
                disk.last(),
                disk.hard_state
            )?;
        }
        self.trace.iter().flatten().try_for_each(|line| writeln!(f, "{line}"))
    }
}
