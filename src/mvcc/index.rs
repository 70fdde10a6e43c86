//! All keys in order, in memory.
//!
//! Sorted vectors of up to [`CHUNK_MAX`] keys, with the first key and the number of live keys of each chunk beside them: counting
//! the live keys of a range adds up one number per chunk. The numbers are those of the newest state; the past is counted by
//! walking.
//!
//! What is in a chunk, and how a key is found there, is in `chunk`; the rows that are held beside the keys are the business of `hot`.

use super::{
    chunk::{CHUNK_MAX, Chunk, count_live},
    hot::Hot,
    key_index::{Before, Generation, KeyIndex, Sketch},
    record::Stamp,
};
use crate::types::LeaseId;
use std::ops::Bound;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Never empty; a chunk is empty only if it is the only one.
    pub(super) chunks: Vec<Chunk>,
    /// Chunk `i` holds the keys of `[starts[i], starts[i + 1])`; `starts[0]` is the empty key.
    starts: Vec<Box<[u8]>>,
    /// Live keys of each chunk.
    live: Vec<u32>,
    live_total: usize,
    /// What is held of rows.
    pub(super) hot: Hot,
}

/// A place between two keys. `(chunk, chunk.len())` and `(chunk + 1, 0)` are the same place.
type Place = (usize, usize);

/// In which order a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

/// How far one step of a walk may go while it holds the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Keys that are looked at.
    pub(super) looked_at: usize,
    /// Versions that are found.
    pub(super) found: usize,
}

impl Index {
    pub(super) fn new() -> Index {
        Index { chunks: vec![Chunk::default()], starts: vec![Box::default()], live: vec![0], ..Index::default() }
    }

    /// An index of keys that are already sorted.
    pub(super) fn from_sorted(keys: Vec<KeyIndex>) -> Index {
        // Three quarters full: the first inserts then need no splits.
        const FILL: usize = CHUNK_MAX * 3 / 4;
        let mut index = Index::default();
        let mut keys = keys.into_iter();
        loop {
            let entries: Vec<KeyIndex> = keys.by_ref().take(FILL).collect();
            let Some(first) = entries.first() else { break };
            index.starts.push(if index.chunks.is_empty() { Box::default() } else { first.key.clone() });
            index.live.push(count_live(&entries));
            index.live_total += count_live(&entries) as usize;
            index.chunks.push(Chunk::of(entries));
        }
        (0..index.chunks.len()).for_each(|number| index.bounds_changed(number));
        if index.chunks.is_empty() { Index::new() } else { index }
    }

    /// Live keys in the newest state.
    pub(super) fn live_total(&self) -> usize {
        self.live_total
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<&KeyIndex> {
        let chunk = &self.chunks[self.chunk_of(key)];
        chunk.search(key).ok().map(|at| &chunk.entries[at])
    }

    /// Adds a version. Returns what the key was before, if it was known, and its generation now.
    pub(super) fn put(&mut self, key: &[u8], stamp: Stamp, sketch: Sketch) -> (Option<Before>, Generation) {
        let number = self.chunk_of(key);
        let newborn = Generation { created: stamp.main, version: 1 };
        match self.chunks[number].search(key) {
            Ok(at) => {
                self.chunks[number].forget_row(at);
                let entry = &mut self.chunks[number].entries[at];
                let before = entry.before();
                let generation = match entry.is_live() {
                    true => Generation { version: before.generation.version + 1, ..before.generation },
                    false => newborn,
                };
                entry.push(stamp, generation, sketch);
                if before.newest.tombstone {
                    self.count(number, 1);
                }
                (Some(before), generation)
            }
            Err(at) => {
                self.insert(number, at, KeyIndex::new(key.into(), stamp, newborn, sketch));
                (None, newborn)
            }
        }
    }

    /// Adds a tombstone. `None`, and no change, if the key is not live.
    pub(super) fn delete(&mut self, key: &[u8], stamp: Stamp) -> Option<Before> {
        let number = self.chunk_of(key);
        let at = self.chunks[number].search(key).ok()?;
        let chunk = &mut self.chunks[number];
        let entry = &mut chunk.entries[at];
        let before = entry.is_live().then(|| entry.before())?;
        entry.push(stamp, Generation::default(), Sketch::of(0, LeaseId::NONE));
        chunk.forget_row(at);
        self.count(number, -1);
        Some(before)
    }

    /// Takes the newest version of `key` back; `before` is what the write returned. Whether that changed the number of live keys.
    pub(super) fn undo(&mut self, key: &[u8], before: Option<Before>) -> bool {
        let number = self.chunk_of(key);
        let at = self.chunks[number].search(key).expect("a key that was just written is in the index");
        let chunk = &mut self.chunks[number];
        let entry = &mut chunk.entries[at];
        let was_live = entry.is_live();
        let stays = before.is_some_and(|before| entry.pop(before));
        let is_live = stays && entry.is_live();
        chunk.forget_row(at);
        self.count(number, i32::from(is_live) - i32::from(was_live));
        if !stays {
            self.remove(number, at);
            self.drop_if_empty(number);
        }
        is_live != was_live
    }

    /// Live keys of a range in the newest state.
    pub(super) fn count_live(&self, range: (Bound<&[u8]>, Bound<&[u8]>)) -> usize {
        let (from, to) = self.places(range);
        let partly = |number: usize| {
            let (start, end) = self.part(number, from, to);
            count_live(&self.chunks[number].entries[start..end]) as usize
        };
        let last = to.0.min(self.chunks.len() - 1);
        if from.0 == last {
            return partly(last);
        }
        let between: u64 = self.live[from.0 + 1..last].iter().map(|live| u64::from(*live)).sum();
        partly(from.0) + between as usize + partly(last)
    }

    /// Adds what a reader at revision `at` sees of a range to `found`. Returns the last key that was looked at if the budget ended
    /// before the range did: the walk goes on beyond it.
    pub(super) fn walk(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        at: i64,
        direction: Direction,
        budget: Budget,
        found: &mut Vec<Stamp>,
    ) -> Option<&[u8]> {
        let mut looked_at = 0;
        let found_max = found.len().saturating_add(budget.found);
        let stopped = self.each(range, direction, |chunk, number| {
            found.extend(chunk.entries[number].visible(at));
            looked_at += 1;
            looked_at >= budget.looked_at || found.len() >= found_max
        });
        stopped.map(|entry| &*entry.key)
    }

    /// Visits the entries of a range, each as a chunk and a place in it, until `visit` says that it has enough. The last one then.
    pub(super) fn each(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        mut visit: impl FnMut(&Chunk, usize) -> bool,
    ) -> Option<&KeyIndex> {
        let (from, to) = self.places(range);
        let mut part = |number: usize| {
            let (chunk, (start, end)) = (&self.chunks[number], self.part(number, from, to));
            let stopped = match direction {
                Direction::Ascending => (start..end).find(|at| visit(chunk, *at)),
                Direction::Descending => (start..end).rev().find(|at| visit(chunk, *at)),
            };
            stopped.map(|at| &chunk.entries[at])
        };
        let mut chunks = from.0..=to.0.min(self.chunks.len() - 1);
        match direction {
            Direction::Ascending => chunks.find_map(&mut part),
            Direction::Descending => chunks.rev().find_map(&mut part),
        }
    }

    /// One step of the sweep: from key `from` on, looks at up to `keys_max` keys and removes up to about `rows_max` versions.
    /// Returns the key to go on from, or `None` at the end.
    pub(super) fn sweep(
        &mut self,
        from: &[u8],
        bound: i64,
        keys_max: usize,
        rows_max: usize,
        removed: &mut Vec<Stamp>,
    ) -> Option<Box<[u8]>> {
        let (mut number, mut at) = self.lower(Bound::Included(from));
        let mut looked_at = 0;
        while number < self.chunks.len() {
            let chunk = &mut self.chunks[number];
            if at < chunk.entries.len() && (looked_at == keys_max || removed.len() >= rows_max) {
                let next = chunk.entries[at].key.clone();
                self.merge_small(number);
                return Some(next);
            }
            let Some(entry) = chunk.entries.get_mut(at) else {
                // A chunk that went, or was merged into the one before, leaves its number to the next.
                number += usize::from(!self.drop_if_empty(number) && !self.merge_small(number));
                at = 0;
                continue;
            };
            looked_at += 1;
            match entry.sweep(bound, rows_max - removed.len(), removed) {
                true if removed.len() >= rows_max => continue, // the same key again: it may have more to give
                true => at += 1,
                false => self.remove(number, at),
            }
        }
        None
    }

    pub(super) fn chunk_of(&self, key: &[u8]) -> usize {
        // `starts[0]` is at or before every key.
        self.starts.partition_point(|start| **start <= *key) - 1
    }

    fn count(&mut self, number: usize, change: i32) {
        self.live[number] =
            self.live[number].checked_add_signed(change).expect("live keys of a chunk are counted right");
        self.live_total = self.live_total.checked_add_signed(change as isize).expect("live keys are counted right");
    }

    fn insert(&mut self, mut number: usize, mut at: usize, entry: KeyIndex) {
        if self.chunks[number].entries.len() == CHUNK_MAX {
            let is_append = number + 1 == self.chunks.len() && at == CHUNK_MAX;
            // Keys that come in order leave full chunks behind, not halves.
            let split = if is_append { CHUNK_MAX } else { CHUNK_MAX / 2 };
            let upper = self.chunks[number].split_off(split);
            let start = upper.entries.first().map_or_else(|| entry.key.clone(), |first| first.key.clone());
            let upper_live = upper.live();
            self.live[number] -= upper_live;
            self.live.insert(number + 1, upper_live);
            self.starts.insert(number + 1, start);
            self.chunks.insert(number + 1, upper);
            for part in [number, number + 1] {
                self.bounds_changed(part);
                self.book(part);
            }
            if at > split || is_append {
                (number, at) = (number + 1, at - split);
            }
        }
        let live = i32::from(entry.is_live());
        self.chunks[number].insert(at, entry);
        self.book(number);
        self.count(number, live);
    }

    fn remove(&mut self, number: usize, at: usize) {
        self.chunks[number].remove(at);
        self.book(number);
    }

    /// Removes a chunk without keys, unless it is the only one.
    fn drop_if_empty(&mut self, number: usize) -> bool {
        let goes = self.chunks[number].entries.is_empty() && self.chunks.len() > 1;
        if goes {
            let chunk = self.chunks.remove(number);
            self.hot.forget(&chunk);
            self.live.remove(number);
            self.starts.remove(number);
            self.starts[0] = Box::default();
            self.bounds_changed(number.saturating_sub(1));
        }
        goes
    }

    /// Moves what is left of a chunk to the one before, if both are small.
    fn merge_small(&mut self, number: usize) -> bool {
        let size = |number: usize| self.chunks[number].entries.len();
        let goes = number > 0 && size(number - 1) + size(number) <= CHUNK_MAX / 2;
        if goes {
            let chunk = self.chunks.remove(number);
            self.hot.forget(&chunk);
            self.live[number - 1] += self.live.remove(number);
            self.starts.remove(number);
            self.chunks[number - 1].append(chunk);
            self.book(number - 1);
            self.bounds_changed(number - 1);
        }
        goes
    }

    /// Brings the heads of a chunk in line with its bounds.
    fn bounds_changed(&mut self, number: usize) {
        let shared = match self.starts.get(number + 1) {
            Some(end) => self.starts[number].iter().zip(end).take_while(|(a, b)| a == b).count(),
            None => 0,
        };
        self.chunks[number].set_shared(shared);
    }

    fn places(&self, (from, to): (Bound<&[u8]>, Bound<&[u8]>)) -> (Place, Place) {
        let start = self.lower(from);
        let end = match to {
            Bound::Included(key) => self.lower(Bound::Excluded(key)),
            Bound::Excluded(key) => self.lower(Bound::Included(key)),
            Bound::Unbounded => (self.chunks.len(), 0),
        };
        // An end before the start is an empty range.
        (start, end.max(start))
    }

    /// The place of the first key that satisfies a lower bound.
    fn lower(&self, bound: Bound<&[u8]>) -> Place {
        match bound {
            Bound::Unbounded => (0, 0),
            Bound::Included(key) => {
                let number = self.chunk_of(key);
                (number, self.chunks[number].search(key).unwrap_or_else(|at| at))
            }
            Bound::Excluded(key) => {
                let number = self.chunk_of(key);
                (number, self.chunks[number].search(key).map_or_else(|at| at, |at| at + 1))
            }
        }
    }

    /// Which entries of chunk `number` lie between two places.
    fn part(&self, number: usize, from: Place, to: Place) -> (usize, usize) {
        let start = if number == from.0 { from.1 } else { 0 };
        let end = if number == to.0 { to.1 } else { self.chunks[number].entries.len() };
        (start, end)
    }

    /// Panics if an invariant is broken.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.chunks.len() == self.starts.len() && self.chunks.len() == self.live.len());
        let keys: Vec<&[u8]> = self.chunks.iter().flat_map(|chunk| &chunk.entries).map(|entry| &*entry.key).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "keys ascend");
        for (number, chunk) in self.chunks.iter().enumerate() {
            let entries = &chunk.entries;
            chunk.check(&self.starts[number]);
            assert!(!entries.is_empty() || self.chunks.len() == 1);
            assert_eq!(self.live[number], chunk.live());
            assert!(
                entries.iter().all(|entry| self.chunk_of(&entry.key) == number),
                "keys are where they are looked for"
            );
        }
        self.hot.check(&self.chunks);
        assert_eq!(self.live_total, self.live.iter().map(|live| *live as usize).sum::<usize>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ALL: Budget = Budget { looked_at: usize::MAX, found: usize::MAX };

    fn key(number: u64) -> Vec<u8> {
        format!("key-{number:06}").into_bytes()
    }

    #[test]
    fn counts_and_walks_agree_with_a_plain_map() {
        let mut index = Index::new();
        let mut model: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for main in 2..6_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let name = key(random % 1_500);
            if random >> 32 & 3 == 0 {
                let deleted = index.delete(&name, Stamp { main, sub: 0, tombstone: true }).is_some();
                assert_eq!(deleted, model.remove(&name).is_some());
            } else {
                index.put(&name, Stamp { main, sub: 0, tombstone: false }, Sketch::of(1, LeaseId::NONE));
                model.insert(name, main);
            }
            if main % 500 == 0 {
                index.check();
                let (low, high) = (key(random % 700), key(400 + random % 900));
                if low < high {
                    let expected: Vec<i64> = model.range(low.clone()..high.clone()).map(|(_, main)| *main).collect();
                    let range = (Bound::Included(&low[..]), Bound::Excluded(&high[..]));
                    assert_eq!(index.count_live(range), expected.len());
                    for direction in [Direction::Ascending, Direction::Descending] {
                        let mut found = Vec::new();
                        assert_eq!(index.walk(range, main, direction, ALL, &mut found), None);
                        let mut mains: Vec<i64> = found.iter().map(|stamp| stamp.main).collect();
                        if direction == Direction::Descending {
                            mains.reverse();
                        }
                        assert_eq!(mains, expected);
                    }
                }
            }
        }
        let mut removed = Vec::new();
        let mut from = Some(Box::default());
        while let Some(key) = from {
            let before = removed.len();
            from = index.sweep(&key, 6_000, 100, before + 10, &mut removed);
            index.check();
        }
        assert_eq!(index.live_total(), model.len());
        let keys: usize = index.chunks.iter().map(|chunk| chunk.entries.len()).sum();
        assert_eq!(keys, model.len(), "dead keys are gone");
    }

    #[test]
    fn keys_that_differ_late_or_in_zeros_are_told_apart() {
        let mut index = Index::new();
        let mut names: Vec<Vec<u8>> = vec![Vec::new()];
        for length in 0..12 {
            for last in [0, 1, 0xff] {
                for prefix in [&b""[..], b"a", b"a-long-common-prefix/"] {
                    names.push([prefix, &vec![0; length], &[last]].concat());
                }
            }
        }
        (0..300_u32).for_each(|number| names.push([&b"a-long-common-prefix/"[..], &number.to_be_bytes()].concat()));
        for (number, name) in names.iter().rev().enumerate() {
            index.put(name, Stamp { main: number as i64 + 2, sub: 0, tombstone: false }, Sketch::of(1, LeaseId::NONE));
            index.check();
        }
        names.sort();
        names.dedup();
        assert_eq!(index.live_total(), names.len());
        assert!(names.iter().all(|name| *index.find(name).unwrap().key == **name));
        assert!(index.find(b"a-long-common-prefix/\0\0\0\0\0\0\0\0\0\0\0\0\0").is_none());
    }

    #[test]
    fn keys_that_come_in_order_fill_their_chunks() {
        let mut index = Index::new();
        for main in 1..=1_000 {
            index.put(&key(main), Stamp { main: main as i64, sub: 0, tombstone: false }, Sketch::of(1, LeaseId::NONE));
        }
        index.check();
        assert_eq!(index.chunks.len(), 1_000_usize.div_ceil(CHUNK_MAX));
    }

    #[test]
    fn an_empty_index_has_an_answer_to_everything() {
        let mut index = Index::new();
        assert_eq!(index.count_live((Bound::Unbounded, Bound::Unbounded)), 0);
        let reversed: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(b"z"), Bound::Excluded(b"a"));
        assert_eq!(index.walk(reversed, 9, Direction::Ascending, ALL, &mut Vec::new()), None);
        assert_eq!(index.sweep(b"", 9, 10, 10, &mut Vec::new()), None);
        index.put(b"a", Stamp { main: 2, sub: 0, tombstone: false }, Sketch::of(1, LeaseId::NONE));
        index.undo(b"a", None);
        index.check();
        assert_eq!(index.live_total(), 0);
    }
}
