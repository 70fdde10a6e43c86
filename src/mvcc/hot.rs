//! Which rows are held in memory beside their keys: those of newest versions that were lately written or read, within a bound.
//!
//! Whole pages go when there are too many: a hand goes round the chunks, and takes the page that nobody has read from since it last came by.
//! A write is held only where that takes no page from a reader.

use super::{
    chunk::Chunk,
    index::{Budget, Direction, Index},
    page::Page,
    record::{self, Stamp},
};
use std::ops::Bound;

/// Chunks that the hand passes at most, for one row to be held.
const STEPS_MAX: usize = 64;

/// How much is held, and how much may be.
#[derive(Debug, Default)]
pub(super) struct Hot {
    bytes: usize,
    bytes_max: usize,
    /// The chunk that is looked at next when a page has to go.
    hand: usize,
}

impl Hot {
    /// The page of a chunk goes with it.
    pub(super) fn forget(&mut self, chunk: &Chunk) {
        self.bytes -= chunk.booked;
    }

    /// Bytes that pages take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    #[cfg(test)]
    pub(super) fn check(&self, chunks: &[Chunk]) {
        assert_eq!(self.bytes, chunks.iter().map(|chunk| chunk.booked).sum::<usize>(), "the books are right");
    }
}

/// For whom a row is to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// It was written: held if there is room.
    Writer,
    /// It was read: worth a page that nobody reads.
    Reader,
}

/// What a step over a range has found: rows as an answer lists them, one after the other.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) rows: Vec<u8>,
    /// Keys that were found.
    pub(super) keys: usize,
    /// Rows that are not held, and where they belong between the others.
    pub(super) missing: Vec<(usize, Stamp)>,
}

impl Index {
    /// Bounds what is held of rows to `bytes_max`; 0: nothing is.
    pub(super) fn hold_rows(&mut self, bytes_max: usize) {
        self.hot.bytes_max = bytes_max;
        for _ in 0..self.chunks.len().div_ceil(STEPS_MAX) * 2 {
            self.make_room();
        }
    }

    /// Holds `row`, if it is that of the newest version of `key`, and there is room.
    pub(super) fn warm(&mut self, key: &[u8], stamp: Stamp, row: &[u8], whom: For) {
        if self.hot.bytes_max == 0 {
            return;
        }
        let number = self.chunk_of(key);
        let Ok(at) = self.chunks[number].search(key) else { return };
        let chunk = &mut self.chunks[number];
        if chunk.entries[at].newest() != stamp || stamp.tombstone {
            return;
        }
        let is_full = self.hot.bytes.saturating_add(row.len()) > self.hot.bytes_max;
        let page = match &mut chunk.page {
            Some(page) => page,
            None if is_full && whom == For::Writer => return,
            None => chunk.page.insert(Box::new(Page::new(chunk.entries.len()))),
        };
        if whom == For::Reader {
            page.ask();
        }
        page.set(at, row);
        self.book(number);
        self.make_room();
    }

    /// Brings the books in line with the page of chunk `number`.
    pub(super) fn book(&mut self, number: usize) {
        let chunk = &mut self.chunks[number];
        let now = chunk.page.as_ref().map_or(0, |page| page.memory());
        self.hot.bytes = self.hot.bytes + now - chunk.booked;
        chunk.booked = now;
    }

    /// Takes pages while there are too many bytes of them, for a few steps: whoever comes next goes on.
    fn make_room(&mut self) {
        for _ in 0..STEPS_MAX {
            if self.hot.bytes <= self.hot.bytes_max {
                return;
            }
            let number = self.hot.hand % self.chunks.len();
            self.hot.hand = number + 1;
            let chunk = &mut self.chunks[number];
            if chunk.page.as_mut().is_some_and(|page| !page.was_asked()) {
                chunk.page = None;
                self.book(number);
            }
        }
    }

    /// What a reader at revision `at` sees of `key`, with its row if that is held.
    pub(super) fn see(&self, key: &[u8], at: i64) -> Option<(Stamp, Option<&[u8]>)> {
        let chunk = &self.chunks[self.chunk_of(key)];
        let number = chunk.search(key).ok()?;
        let stamp = chunk.entries[number].visible(at)?;
        Some((stamp, held(chunk, number, stamp)))
    }

    /// Adds what a reader at revision `at` sees of a range to `gathered`, until that has `bytes_max` bytes of rows. As
    /// [`Index::walk`], it returns the last key that was looked at if it ended before the range did.
    pub(super) fn gather(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        at: i64,
        direction: Direction,
        Budget { looked_at: looks_max, found: found_max }: Budget,
        bytes_max: usize,
        gathered: &mut Gathered,
    ) -> Option<&[u8]> {
        let mut looks = 0;
        let Gathered { rows, keys, missing } = gathered;
        let (keys_max, bytes_max) = (keys.saturating_add(found_max), rows.len().saturating_add(bytes_max));
        let stopped = self.each(range, direction, |chunk, number| {
            looks += 1;
            if let Some(stamp) = chunk.entries[number].visible(at) {
                *keys += 1;
                match held(chunk, number, stamp) {
                    Some(row) => record::list(rows, row),
                    None => missing.push((rows.len(), stamp)),
                }
            }
            looks >= looks_max || *keys >= keys_max || rows.len() >= bytes_max
        });
        stopped.map(|entry| &*entry.key)
    }
}

/// The row of version `stamp` of entry `number`, if that is its newest, and held.
fn held(chunk: &Chunk, number: usize, stamp: Stamp) -> Option<&[u8]> {
    let page = chunk.page.as_ref()?;
    let row = page.row(number).filter(|_| chunk.entries[number].newest() == stamp)?;
    page.ask();
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mvcc::key_index::Sketch, types::LeaseId};

    fn put(index: &mut Index, key: u64, main: i64, row: &[u8], whom: For) {
        let (key, stamp) = (format!("key-{key:04}"), Stamp { main, sub: 0, tombstone: false });
        index.put(key.as_bytes(), stamp, Sketch::of(1, LeaseId::NONE));
        index.warm(key.as_bytes(), stamp, row, whom);
    }

    fn held_of(index: &Index, key: u64, at: i64) -> Option<Vec<u8>> {
        let key = format!("key-{key:04}");
        index.see(key.as_bytes(), at).and_then(|(_, row)| row.map(<[u8]>::to_vec))
    }

    #[test]
    fn only_the_newest_version_has_a_row() {
        let mut index = Index::new();
        index.hold_rows(1 << 20);
        put(&mut index, 1, 2, b"two", For::Writer);
        put(&mut index, 1, 3, b"three", For::Writer);
        assert_eq!((held_of(&index, 1, 3), held_of(&index, 1, 2)), (Some(b"three".to_vec()), None));
        // What was read of an older version comes too late.
        index.warm(b"key-0001", Stamp { main: 2, sub: 0, tombstone: false }, b"two", For::Reader);
        assert_eq!(held_of(&index, 1, 3), Some(b"three".to_vec()));
        index.delete(b"key-0001", Stamp { main: 4, sub: 0, tombstone: true });
        assert_eq!((held_of(&index, 1, 4), held_of(&index, 1, 3)), (None, None));
        index.check();
    }

    #[test]
    fn without_a_bound_nothing_is_held() {
        let mut index = Index::new();
        put(&mut index, 1, 2, b"two", For::Reader);
        assert_eq!((held_of(&index, 1, 2), index.hot.bytes()), (None, 0));
    }

    #[test]
    fn pages_that_nobody_reads_go_first_and_writers_take_none() {
        let mut index = Index::new();
        let bytes_max = 200 << 10;
        index.hold_rows(bytes_max);
        // About half of them find room.
        for key in 0..2_000 {
            put(&mut index, key, key as i64 + 2, &[7; 200], For::Writer);
            assert!(index.hot.bytes() <= bytes_max + (64 << 10), "{} bytes", index.hot.bytes());
        }
        index.check();
        let held = (0..2_000).filter(|key| held_of(&index, *key, i64::MAX).is_some()).collect::<Vec<_>>();
        assert!(held.len() > 400 && held.len() < 1_200, "{} are held", held.len());
        // All that is held has just been asked for. Then readers want others, again and again, and one of the old ones.
        let kept = held[0];
        for key in 1_200..2_000 {
            let name = format!("key-{key:04}");
            let stamp = Stamp { main: key + 2, sub: 0, tombstone: false };
            index.warm(name.as_bytes(), stamp, &[7; 200], For::Reader);
            assert!(held_of(&index, kept, i64::MAX).is_some(), "what is read all the time stays, after {key}");
        }
        index.check();
        assert!(index.hot.bytes() <= bytes_max + (64 << 10));
        assert!(held_of(&index, 1_999, i64::MAX).is_some());
        index.hold_rows(0);
        index.check();
        assert_eq!(index.hot.bytes(), 0);
    }

    #[test]
    fn rows_are_gathered_in_both_directions_and_in_steps() {
        let mut index = Index::new();
        index.hold_rows(1 << 20);
        (0..300).for_each(|key| put(&mut index, key, key as i64 + 2, &[key as u8; 10], For::Writer));
        // One that is not held, in the middle.
        index.put(b"key-0100", Stamp { main: 400, sub: 0, tombstone: false }, Sketch::of(1, LeaseId::NONE));
        for direction in [Direction::Ascending, Direction::Descending] {
            let (mut all, mut steps) = (Gathered::default(), 0);
            let mut last: Option<Box<[u8]>> = None;
            loop {
                let after = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let bounds = match direction {
                    Direction::Ascending => (after, Bound::Unbounded),
                    Direction::Descending => (Bound::Unbounded, after),
                };
                let budget = Budget { looked_at: 70, found: usize::MAX };
                steps += 1;
                last = index.gather(bounds, 1_000, direction, budget, 500, &mut all).map(Box::from);
                if last.is_none() {
                    break;
                }
            }
            assert_eq!((all.keys, all.missing.len(), all.rows.len()), (300, 1, 299 * 12));
            assert_eq!(all.missing[0].1.main, 400);
            let before = if direction == Direction::Ascending { 100 } else { 199 };
            assert_eq!(all.missing[0].0, before * 12);
            assert_eq!(all.rows[..3], [0x12, 10, if direction == Direction::Ascending { 0 } else { 299_u16 as u8 }]);
            assert!(steps >= 299 * 12 / 512, "{steps} steps");
        }
    }
}
