//! One member's log disk: writes in order, synced in groups, lost in a crash if they were not.

use crate::{
    io::Rng,
    raft::{Envelope, LogId},
    sim::Chance,
    types::{Entry, HardState, Index},
};
use std::collections::VecDeque;

/// What one output of a node owes the disk, and what it may send afterwards.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// To be saved.
    pub hard_state: Option<HardState>,
    /// To be saved; the first may replace what stands at its position and after it.
    pub entries: Vec<Entry>,
    /// To be sent when this and all earlier writes are on disk.
    pub then_send: Vec<Envelope>,
}

/// The disk.
#[derive(Clone, Debug, Default)]
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
}

impl Disk {
    /// Takes a write.
    pub fn write(&mut self, write: Write) {
        self.queue.push_back(write);
    }

    /// Begins a sync of everything that waits. False if there is nothing, or one is under way.
    pub fn begin_sync(&mut self) -> bool {
        let begins = self.syncing == 0 && !self.queue.is_empty();
        if begins {
            self.syncing = self.queue.len();
        }
        begins
    }

    /// The sync is done: what it covered is on disk. Returns the last entry of it, and what may be sent now.
    pub fn end_sync(&mut self) -> (Option<LogId>, Vec<Envelope>) {
        let (mut last, mut send) = (None, Vec::new());
        for mut write in self.queue.drain(..std::mem::take(&mut self.syncing)).collect::<Vec<_>>() {
            last = write.entries.last().map(|entry| LogId { index: entry.index, term: entry.term }).or(last);
            send.append(&mut write.then_send);
            self.save(write);
        }
        (last, send)
    }

    /// The power fails: of what was not synced some first part may have reached the medium, down to the middle of a write.
    pub fn crash(&mut self, chance: &mut Chance) {
        self.syncing = 0;
        let mut queue = std::mem::take(&mut self.queue);
        let whole = chance.below(queue.len() as u64 + 1) as usize;
        let torn = queue.get(whole).cloned();
        queue.drain(..whole).for_each(|write| self.save(write));
        if let Some(mut torn) = torn {
            // Entries come before the hard state in one write.
            torn.entries.truncate(chance.below(torn.entries.len() as u64 + 1) as usize);
            self.save(Write { hard_state: None, ..torn });
        }
    }

    /// The last position on disk.
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(self.start, |entry| LogId { index: entry.index, term: entry.term })
    }

    /// The entry at `index`, if it is on disk and not released.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.start.index.0 + 1)?;
        self.entries.get(offset as usize)
    }

    /// Forgets entries up to `upto`.
    pub fn release(&mut self, upto: Index) {
        if let Some(entry) = self.entry(upto) {
            let start = LogId { index: upto, term: entry.term };
            self.entries.drain(..(upto.0 - self.start.index.0) as usize);
            self.start = start;
        }
    }

    fn save(&mut self, write: Write) {
        if let Some(first) = write.entries.first() {
            let kept = first.index.0.checked_sub(self.start.index.0 + 1).expect("a released entry is written again");
            assert!(kept as usize <= self.entries.len(), "entry {} would leave a hole on disk", first.index);
            self.entries.truncate(kept as usize);
            self.entries.extend(write.entries);
        }
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
    }
}
