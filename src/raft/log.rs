//! The log in memory: what may still be needed of it, how far it is on disk, how far it is committed.
//!
//!   released | start+1 ............ stable | ......... last
//!                        commit (anywhere from start to last)

use super::message::LogId;
use crate::types::{Entry, Index, Term};
use std::collections::VecDeque;

/// Entries without gaps after `start`. Invariants: `start <= stable <= last`, `start <= commit <= last`, terms never fall.
#[derive(Debug)]
pub(super) struct Log {
    /// The last position that is not held; its term is still known.
    start: LogId,
    entries: VecDeque<Entry>,
    /// Known to be on this member's disk.
    stable: Index,
    commit: Index,
    /// Entries that were replaced while their write was on its way. A completion that names one of them may be that of the first
    /// write, although the same entry is back in the log: it proves nothing.
    doubtful: Vec<LogId>,
}

impl Log {
    /// A log that starts after `start`, of which everything is on disk.
    pub(super) fn new(start: LogId, entries: Vec<Entry>, commit: Index) -> Log {
        let mut log = Log {
            start,
            entries: VecDeque::with_capacity(entries.len()),
            stable: start.index,
            commit: start.index,
            doubtful: Vec::new(),
        };
        entries.into_iter().for_each(|entry| log.push(entry));
        log.stable = log.last().index;
        log.commit_to(commit);
        log
    }

    pub(super) fn start(&self) -> LogId {
        self.start
    }

    pub(super) fn last(&self) -> LogId {
        self.entries.back().map_or(self.start, |entry| LogId { index: entry.index, term: entry.term })
    }

    pub(super) fn stable(&self) -> Index {
        self.stable
    }

    pub(super) fn commit(&self) -> Index {
        self.commit
    }

    fn offset(&self, index: Index) -> Option<usize> {
        let offset = index.0.checked_sub(self.start.index.0 + 1)?;
        usize::try_from(offset).ok().filter(|offset| *offset < self.entries.len())
    }

    /// The term at `index`, if it is known.
    pub(super) fn term(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        self.offset(index).map(|offset| self.entries[offset].term)
    }

    pub(super) fn matches(&self, at: LogId) -> bool {
        self.term(at.index) == Some(at.term)
    }

    /// The entries of `from..to` that are held.
    pub(super) fn range(&self, from: Index, to: Index) -> impl Iterator<Item = &Entry> + use<'_> {
        let first = self.start.index.0 + 1;
        let clamp = |index: Index| (index.0.max(first) - first).min(self.entries.len() as u64) as usize;
        let (from, to) = (clamp(from), clamp(to));
        self.entries.range(from..to.max(from))
    }

    /// Entries from `from` on, up to about `bytes_max` of data but at least one if there is one; and their bytes.
    pub(super) fn page(&self, from: Index, bytes_max: usize) -> (Vec<Entry>, usize) {
        let (mut count, mut bytes) = (0, 0);
        for entry in self.range(from, Index(u64::MAX)) {
            if count > 0 && bytes + entry.data.len() > bytes_max {
                break;
            }
            count += 1;
            bytes += entry.data.len();
        }
        (self.range(from, Index(from.0 + count)).cloned().collect(), bytes)
    }

    /// Adds one entry at the end.
    pub(super) fn push(&mut self, entry: Entry) {
        let last = self.last();
        assert!(entry.index == last.index.next(), "entry {} after {} would leave a hole", entry.index, last.index);
        assert!(entry.term >= last.term, "term {} after {} at {}", entry.term, last.term, entry.index);
        self.entries.push_back(entry);
    }

    /// Takes over a leader's entries after a position that matches. Returns those that are new here; what stood at their positions, and
    /// after them, is gone.
    pub(super) fn splice(&mut self, mut entries: Vec<Entry>) -> Vec<Entry> {
        // What is here already stays: a late, short append must not cut off what a newer one brought.
        let known = entries.iter().take_while(|entry| self.term(entry.index) == Some(entry.term)).count();
        entries.drain(..known);
        if let Some(first) = entries.first() {
            self.truncate(first.index);
            entries.iter().cloned().for_each(|entry| self.push(entry));
        }
        entries
    }

    fn truncate(&mut self, from: Index) {
        assert!(from > self.commit, "entry {from} would be replaced, but {} is committed", self.commit);
        let Some(offset) = self.offset(from) else { return };
        let on_their_way = self.entries.range(offset..).filter(|entry| entry.index > self.stable);
        self.doubtful.extend(on_their_way.map(|entry| LogId { index: entry.index, term: entry.term }));
        self.entries.truncate(offset);
        self.stable = self.stable.min(self.last().index);
    }

    /// A write that ended with `upto` is on disk. False if that is no news, or may speak of a write that was since replaced.
    pub(super) fn persisted(&mut self, upto: LogId) -> bool {
        if upto.index <= self.stable || !self.matches(upto) || self.doubtful.contains(&upto) {
            return false;
        }
        self.stable = upto.index;
        if self.stable == self.last().index {
            // Completions come in order: those of all replaced writes have come.
            self.doubtful.clear();
        }
        true
    }

    /// Everything up to `index` is committed, as far as it is here. False if that is no news.
    pub(super) fn commit_to(&mut self, index: Index) -> bool {
        let index = index.min(self.last().index);
        let news = index > self.commit;
        self.commit = self.commit.max(index);
        news
    }

    /// Starts anew after `start`, which is committed and on disk in another form; nothing of what was here remains.
    pub(super) fn reset(&mut self, start: LogId) {
        assert!(start.index > self.commit, "the log is reset to {}, but {} is committed", start.index, self.commit);
        let on_their_way = self.entries.iter().filter(|entry| entry.index > self.stable);
        self.doubtful.extend(on_their_way.map(|entry| LogId { index: entry.index, term: entry.term }));
        self.entries = VecDeque::new();
        (self.start, self.stable, self.commit) = (start, start.index, start.index);
    }

    /// Forgets entries up to `upto`, as far as they are committed and on disk.
    pub(super) fn release(&mut self, upto: Index) {
        let upto = upto.min(self.stable).min(self.commit);
        let Some(offset) = self.offset(upto) else { return };
        self.start = LogId { index: upto, term: self.entries[offset].term };
        self.entries.drain(..=offset);
    }

    /// The last position, at or before `from`, whose term is at most `term`: a log that has `term` at `from` can match ours only up to
    /// there. With it one refusal skips a whole term instead of one entry (Raft paper, end of section 5.3).
    pub(super) fn last_at_most(&self, from: Index, term: Term) -> LogId {
        let from = from.min(self.last().index);
        // Terms never fall, so the entries with a term of at most `term` come first.
        let count = self.entries.partition_point(|entry| entry.term <= term && entry.index <= from);
        let found = count.checked_sub(1).map(|last| &self.entries[last]);
        found.map_or(self.start, |entry| LogId { index: entry.index, term: entry.term })
    }
}

#[cfg(test)]
mod tests;
