//! The rows of the newest versions of neighbouring keys, side by side in memory.
//!
//! Who reads a range walks over the keys anyway; a row that lies there is copied and not looked for. A row is held as it is stored, which is
//! also how it is sent. A new version takes the place of the one before if it is not longer, else it goes to the end, and what was there is a
//! hole until the page is packed anew.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Longer rows are not held: looking for one costs little beside copying it.
pub(super) const ROW_BYTES_MAX: usize = 2 << 10;

/// Below this many bytes holes are not worth packing.
const HOLES_MIN: usize = 1 << 10;

/// The rows of one chunk of keys.
#[derive(Debug, Default)]
pub(super) struct Page {
    bytes: Vec<u8>,
    /// One for each key of the chunk.
    spans: Vec<Span>,
    /// Bytes that belong to no span.
    holes: usize,
    /// Somebody has read from it since it was last considered for eviction.
    asked: AtomicBool,
}

/// Where a row is.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    at: u32,
    /// Bytes that are its own.
    room: u16,
    /// Bytes of the row; 0 if it is not held: there is no row without bytes.
    len: u16,
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        let at = self.at as usize;
        at..at + self.len as usize
    }
}

impl Page {
    /// A page for so many keys, with no row.
    pub(super) fn new(keys: usize) -> Page {
        Page { spans: vec![Span::default(); keys], ..Page::default() }
    }

    /// The row of key number `key`, if it is held.
    pub(super) fn row(&self, key: usize) -> Option<&[u8]> {
        let span = self.spans[key];
        (span.len > 0).then(|| &self.bytes[span.range()])
    }

    /// Holds `row` for key number `key`, in the place of what was there. Too long a row is not held.
    pub(super) fn set(&mut self, key: usize, row: &[u8]) {
        if row.len() > ROW_BYTES_MAX {
            return self.forget(key);
        }
        let len = row.len() as u16;
        let span = self.spans[key];
        if len <= span.room {
            self.spans[key].len = len;
        } else {
            self.holes += usize::from(span.room);
            self.spans[key] = Span { at: self.bytes.len() as u32, room: len, len };
            self.reserve(row.len());
            self.bytes.resize(self.bytes.len() + row.len(), 0);
        }
        let range = self.spans[key].range();
        self.bytes[range].copy_from_slice(row);
        self.pack_if_worthwhile();
    }

    /// The row of key number `key` is that of the newest version no longer. Its place is kept for the next one.
    pub(super) fn forget(&mut self, key: usize) {
        self.spans[key].len = 0;
    }

    /// Room for a key without a row at `key`.
    pub(super) fn insert(&mut self, key: usize) {
        self.spans.insert(key, Span::default());
    }

    /// Key number `key` goes.
    pub(super) fn remove(&mut self, key: usize) {
        let span = self.spans.remove(key);
        self.holes += usize::from(span.room);
        self.pack_if_worthwhile();
    }

    /// The keys from `key` on, with their rows, as a page of their own.
    pub(super) fn split_off(&mut self, key: usize) -> Page {
        let mut upper = Page { spans: self.spans.split_off(key), ..Page::default() };
        upper.asked = AtomicBool::new(self.asked.load(Relaxed));
        upper.repack(&self.bytes);
        let bytes = std::mem::take(&mut self.bytes);
        self.repack(&bytes);
        upper
    }

    /// Takes the keys of `other`, which come after those here.
    pub(super) fn append(&mut self, other: Page) {
        let first = self.spans.len();
        self.spans.resize(first + other.spans.len(), Span::default());
        for (number, span) in other.spans.iter().enumerate().filter(|(_, span)| span.len > 0) {
            self.set(first + number, &other.bytes[span.range()]);
        }
    }

    /// What it takes in memory.
    pub(super) fn memory(&self) -> usize {
        size_of::<Page>() + self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }

    /// Somebody reads from it.
    pub(super) fn ask(&self) {
        // Written only if it changes: all readers share this line.
        if !self.asked.load(Relaxed) {
            self.asked.store(true, Relaxed);
        }
    }

    /// Whether somebody has read from it since this was last asked.
    pub(super) fn was_asked(&mut self) -> bool {
        std::mem::take(self.asked.get_mut())
    }

    /// Less room in advance than a vector takes by itself: there are many pages.
    fn reserve(&mut self, bytes: usize) {
        if self.bytes.capacity() - self.bytes.len() < bytes {
            self.bytes.reserve_exact(bytes + self.bytes.len() / 8);
        }
    }

    fn pack_if_worthwhile(&mut self) {
        if self.holes >= HOLES_MIN && self.holes > self.bytes.len() / 4 {
            let bytes = std::mem::take(&mut self.bytes);
            self.repack(&bytes);
        }
    }

    /// Copies the rows of all spans, which are places in `from`, to places of their own.
    fn repack(&mut self, from: &[u8]) {
        let bytes = self.spans.iter().map(|span| usize::from(span.len)).sum();
        self.bytes = Vec::with_capacity(bytes);
        self.holes = 0;
        for span in &mut self.spans {
            let at = self.bytes.len() as u32;
            self.bytes.extend_from_slice(&from[span.range()]);
            *span = Span { at, room: span.len, len: span.len };
        }
    }

    /// Panics if an invariant is broken.
    #[cfg(test)]
    pub(super) fn check(&self, keys: usize) {
        assert_eq!(self.spans.len(), keys, "one span for each key");
        let rooms: usize = self.spans.iter().map(|span| usize::from(span.room)).sum();
        assert_eq!(rooms + self.holes, self.bytes.len(), "all bytes are somebody's, or holes");
        let mut spans: Vec<Span> = self.spans.iter().copied().filter(|span| span.room > 0).collect();
        spans.sort_by_key(|span| span.at);
        let ends = |span: &Span| span.at as usize + usize::from(span.room);
        assert!(spans.is_sorted_by(|a, b| ends(a) <= b.at as usize), "rooms do not overlap");
        assert!(self.spans.iter().all(|span| span.len <= span.room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Set(usize, u8, usize),
        Forget(usize),
        Insert(usize),
        Remove(usize),
        SplitOff(usize),
        Swap(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (any::<usize>(), any::<u8>(), prop_oneof![1..40_usize, 300..900_usize, Just(ROW_BYTES_MAX), Just(ROW_BYTES_MAX + 1)])
                .prop_map(|(key, byte, len)| Step::Set(key, byte, len)),
            2 => any::<usize>().prop_map(Step::Forget),
            2 => any::<usize>().prop_map(Step::Insert),
            2 => any::<usize>().prop_map(Step::Remove),
            1 => any::<usize>().prop_map(Step::SplitOff),
            1 => any::<usize>().prop_map(Step::Swap),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn a_page_holds_what_a_list_of_rows_holds(steps in steps()) {
            let mut page = Page::new(3);
            let mut model: Vec<Option<Vec<u8>>> = vec![None; 3];
            for step in steps {
                let keys = model.len();
                match step {
                    Step::Insert(at) => {
                        page.insert(at % (keys + 1));
                        model.insert(at % (keys + 1), None);
                    }
                    Step::SplitOff(at) => {
                        // The lower half goes on.
                        let upper = page.split_off(at % (keys + 1));
                        let rows = model.split_off(at % (keys + 1));
                        upper.check(rows.len());
                        for (key, row) in rows.iter().enumerate() {
                            prop_assert_eq!(upper.row(key), row.as_deref());
                        }
                        if model.is_empty() {
                            (page, model) = (upper, rows);
                        }
                    }
                    Step::Swap(at) => {
                        let mut upper = page.split_off(at % (keys + 1));
                        upper.append(std::mem::take(&mut page));
                        page = upper;
                        model.rotate_left(at % (keys + 1));
                    }
                    _ if keys == 0 => {}
                    Step::Set(at, byte, len) => {
                        page.set(at % keys, &vec![byte; len]);
                        model[at % keys] = (len <= ROW_BYTES_MAX).then(|| vec![byte; len]);
                    }
                    Step::Forget(at) => {
                        page.forget(at % keys);
                        model[at % keys] = None;
                    }
                    Step::Remove(at) => {
                        page.remove(at % keys);
                        model.remove(at % keys);
                    }
                }
                page.check(model.len());
                for (key, row) in model.iter().enumerate() {
                    prop_assert_eq!(page.row(key), row.as_deref());
                }
            }
        }
    }

    #[test]
    fn versions_of_one_length_take_each_others_place() {
        let mut page = Page::new(2);
        page.set(0, &[1; 100]);
        page.set(1, &[2; 100]);
        let before = page.memory();
        for version in 0..100 {
            page.forget(0);
            page.set(0, &[version; 100]);
        }
        assert_eq!((page.row(0), page.memory()), (Some(&[99; 100][..]), before));
    }

    #[test]
    fn holes_do_not_pile_up() {
        let mut page = Page::new(1);
        for len in (1..=1_000).chain(1..=1_000) {
            page.set(0, &vec![7; len]);
        }
        assert!(page.memory() < 4 << 10, "{} bytes", page.memory());
    }
}
