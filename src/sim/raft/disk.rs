//! One member's log disk: writes in order, synced in groups, lost in a crash if they were not.
//!
//! The model in memory is what the checkers look at. In some runs the member's real [`Wal`] goes along on a [`SimDisk`], and what it
//! recovers after a crash must have everything that the model knows to be synced; the member then continues with what the log says.

use super::checkers::{Rule, Violation};
use crate::{
    io::{Disk as _, Rng, sim_disk::SimDisk},
    raft::{Envelope, LogId},
    sim::Chance,
    types::{ConfState, Entry, HardState, Index, SnapshotMeta, Term},
    wal::{Mark, Options, Wal},
};
use std::{collections::VecDeque, path::Path};

/// Small, so that a run fills several.
const OPTIONS: Options = Options { segment_bytes: 4_096, keep_all: false, zero_ahead_bytes: 200 };

/// What one output of a node owes the disk, and what it may send afterwards.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// A state that was taken over: the log is marked and emptied, before the rest.
    pub restore: Option<SnapshotMeta>,
    /// To be saved.
    pub hard_state: Option<HardState>,
    /// To be saved; the first may replace what stands at its position and after it.
    pub entries: Vec<Entry>,
    /// To be sent when this and all earlier writes are on disk.
    pub then_send: Vec<Envelope>,
    /// Whether it waits for a sync. One that only carries a commit index does not.
    pub needs_sync: bool,
}

/// The disk.
#[derive(Default)]
pub struct Disk {
    /// Where the log starts.
    pub start: LogId,
    /// On disk.
    pub hard_state: HardState,
    /// On disk, after `start`.
    pub entries: Vec<Entry>,
    queue: VecDeque<Write>,
    /// How many writes, from the front of the queue, the sync that is under way covers.
    syncing: usize,
    real: Option<Real>,
}

/// The real log under the model.
struct Real {
    disk: SimDisk,
    wal: Option<Wal<SimDisk>>,
    /// How many writes, from the front of the queue, it was given.
    given: usize,
    /// The first entry that a write since the last sync may have replaced.
    unsure: Option<Index>,
    /// Marks since the last sync that emptied the log: each of them may be found.
    marks: Vec<LogId>,
}

fn dir() -> &'static Path {
    Path::new("/member/wal")
}

impl Disk {
    /// An empty disk that keeps the real log too.
    pub fn real(seed: u64) -> Disk {
        let disk = SimDisk::new(seed);
        // The folder that the log's own is made in is durable before: that is its maker's business.
        disk.create_dir(Path::new("/member")).and_then(|()| disk.sync_dir(Path::new("/"))).expect("a new disk works");
        let wal = Wal::create(disk.clone(), dir(), b"sim", OPTIONS).expect("a new disk is empty and works");
        Disk { real: Some(Real { disk, wal: Some(wal), given: 0, unsure: None, marks: Vec::new() }), ..Disk::default() }
    }

    /// Takes a write.
    pub fn write(&mut self, write: Write) {
        self.queue.push_back(write);
    }

    /// Whether anything waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Begins a sync of everything that waits. False if nothing waits for one, or one is under way.
    pub fn begin_sync(&mut self) -> bool {
        let begins = self.syncing == 0 && self.queue.iter().any(|write| write.needs_sync);
        if begins {
            self.syncing = self.queue.len();
            self.give(self.syncing);
        }
        begins
    }

    /// The sync is done: what it covered is on disk. Returns the last entry of it, and what may be sent now.
    pub fn end_sync(&mut self) -> (Option<LogId>, Vec<Envelope>) {
        if let Some(real) = &mut self.real {
            real.wal.as_mut().expect("a crash ends the sync").sync().expect("the disk works");
            real.given -= self.syncing;
            real.unsure = None;
            real.marks.clear();
        }
        let (mut last, mut send) = (None, Vec::new());
        for _ in 0..std::mem::take(&mut self.syncing) {
            let mut write = self.queue.pop_front().expect("counted when the sync began");
            last = write.entries.last().map(|entry| LogId { index: entry.index, term: entry.term }).or(last);
            send.append(&mut write.then_send);
            self.save(write);
        }
        (last, send)
    }

    /// The power fails: of what was not synced some first part may have reached the medium, down to the middle of a write.
    ///
    /// # Errors
    /// If the real log has not kept what it promised.
    pub fn crash(&mut self, chance: &mut Chance) -> Result<(), Violation> {
        self.syncing = 0;
        if self.real.is_some() {
            let given = chance.below(self.queue.len() as u64 + 1) as usize;
            self.give(given);
            self.queue.clear();
            return self.recover();
        }
        let mut queue = std::mem::take(&mut self.queue);
        let whole = chance.below(queue.len() as u64 + 1) as usize;
        let torn = queue.get(whole).cloned();
        queue.drain(..whole).for_each(|write| self.save(write));
        if let Some(mut torn) = torn {
            // A mark comes first, and has a sync of its own.
            if torn.restore.is_some() && chance.hits(1, 2) {
                return Ok(());
            }
            // Entries come before the hard state in one write.
            torn.entries.truncate(chance.below(torn.entries.len() as u64 + 1) as usize);
            self.save(Write { hard_state: None, ..torn });
        }
        Ok(())
    }

    /// Gives the real log the first `upto` writes that wait.
    fn give(&mut self, upto: usize) {
        let Some(real) = &mut self.real else { return };
        let wal = real.wal.as_mut().expect("open while the member runs");
        for write in self.queue.range(real.given.min(upto)..upto) {
            if let Some(meta) = &write.restore {
                let mark = LogId { index: meta.index, term: meta.term };
                wal.save_mark(&Mark { index: mark.index, term: mark.term }, &meta.conf_state).expect("the disk works");
                real.marks.push(mark);
            }
            wal.append(write.hard_state.as_ref(), &write.entries).expect("the disk works");
            let first = write.entries.first().map(|entry| entry.index);
            real.unsure = [real.unsure, first].into_iter().flatten().min();
        }
        real.given = real.given.max(upto);
    }

    fn recover(&mut self) -> Result<(), Violation> {
        let Some(real) = &mut self.real else { return Ok(()) };
        real.wal = None;
        real.given = 0;
        real.disk.crash();
        let opened = Wal::open(real.disk.clone(), dir(), self.start.index, OPTIONS);
        let (wal, found) = opened.map_err(|fault| violation(format!("the log does not open: {fault}")))?;
        real.wal = Some(wal);
        let (was, is) = (self.hard_state, found.hard_state);
        if (is.term, is.commit) < (was.term, was.commit)
            || (is.term == was.term && was.vote.is_some() && is.vote != was.vote)
        {
            return Err(violation(format!("{was:?} was synced, but {is:?} is found")));
        }
        let marks = std::mem::take(&mut real.marks);
        // A write that was not synced may have replaced entries.
        let mut unsure = real.unsure.take().unwrap_or(Index(u64::MAX));
        if found.start != self.start.index {
            let mark = marks.into_iter().find(|mark| (mark.index, Some(mark.term)) == (found.start, found.start_term));
            let Some(mark) = mark else {
                return Err(violation(format!(
                    "the log starts after {}, which is no mark that it was given",
                    found.start
                )));
            };
            (self.start, self.entries, unsure) = (mark, Vec::new(), Index(0));
        }
        let sure = self.entries.iter().take_while(|entry| entry.index < unsure);
        let lost = sure.enumerate().find(|(at, was)| found.entries.get(*at) != Some(*was));
        if let Some((_, lost)) = lost {
            return Err(violation(format!("entry {} was synced, but is not found", lost.index)));
        }
        self.hard_state = is;
        self.entries = found.entries;
        Ok(())
    }

    /// A disk that lies: the last `count` synced entries are gone.
    pub fn lose(&mut self, count: u64) {
        let kept = self.entries.len().saturating_sub(count as usize);
        self.entries.truncate(kept);
        self.hard_state.commit = self.hard_state.commit.min(self.last().index);
    }

    /// The last position on disk.
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(self.start, |entry| LogId { index: entry.index, term: entry.term })
    }

    /// The term at `index`, as far as the disk tells.
    pub fn term(&self, index: Index) -> Option<Term> {
        match index == self.start.index {
            true => Some(self.start.term),
            false => self.entry(index).map(|entry| entry.term),
        }
    }

    /// Nothing but a state stands for the log any more.
    pub fn empty(&mut self, start: LogId, conf_state: &ConfState) {
        self.start_over(start);
        if let Some(wal) = self.real.as_mut().and_then(|real| real.wal.as_mut()) {
            wal.save_mark(&Mark { index: start.index, term: start.term }, conf_state).expect("the disk works");
        }
    }

    fn start_over(&mut self, start: LogId) {
        self.start = start;
        self.entries.clear();
        self.hard_state.commit = self.hard_state.commit.max(start.index);
    }

    /// The entry at `index`, if it is on disk and not released.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.start.index.0 + 1)?;
        self.entries.get(offset as usize)
    }

    /// Forgets entries up to `upto`, which the state machine has on disk.
    pub fn release(&mut self, upto: Index, conf_state: &ConfState) {
        let Some(entry) = self.entry(upto) else { return };
        let start = LogId { index: upto, term: entry.term };
        self.entries.drain(..(upto.0 - self.start.index.0) as usize);
        self.start = start;
        if let Some((wal, disk)) = self.real.as_mut().and_then(|real| Some((real.wal.as_mut()?, &real.disk))) {
            wal.save_mark(&Mark { index: start.index, term: start.term }, conf_state).expect("the disk works");
            for segment in wal.release(start.index).expect("the disk works") {
                crate::wal::remove(disk, &segment).expect("the disk works");
            }
        }
    }

    fn save(&mut self, write: Write) {
        if let Some(meta) = &write.restore {
            self.start_over(LogId { index: meta.index, term: meta.term });
        }
        if let Some(first) = write.entries.first() {
            let kept = first.index.0.checked_sub(self.start.index.0 + 1).expect("a released entry is written again");
            assert!(kept as usize <= self.entries.len(), "entry {} would leave a hole on disk", first.index);
            self.entries.truncate(kept as usize);
            self.entries.extend(write.entries);
        }
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
    }
}

fn violation(text: String) -> Violation {
    Violation { rule: Rule::Durability, text }
}
