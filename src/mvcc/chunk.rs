//! Neighbouring keys in order: a part of the index.
//!
//! A search looks at *heads*, not at keys: what the bounds of a chunk begin with, all its keys begin with, so that the eight bytes after
//! that tell most keys apart, and lie side by side. The rows of the keys' newest versions may lie beside them, in a [`Page`].

use super::{key_index::KeyIndex, page::Page};

/// Keys of a chunk at most.
pub(super) const CHUNK_MAX: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) entries: Vec<KeyIndex>,
    /// The [`head`] of each entry's key.
    heads: Vec<u64>,
    /// Bytes that both bounds of the chunk begin with, and so every key that is, or is looked for, in it.
    shared: usize,
    /// Rows of newest versions, if any are held.
    pub(super) page: Option<Box<Page>>,
    /// What the page takes by the books of the index.
    pub(super) booked: usize,
}

impl Chunk {
    /// A chunk of keys that are sorted.
    pub(super) fn of(entries: Vec<KeyIndex>) -> Chunk {
        Chunk { heads: heads(&entries, 0), entries, ..Chunk::default() }
    }

    /// Where `key`, which lies between the chunk's bounds, is or belongs.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let wanted = head(key, self.shared);
        let from = self.heads.partition_point(|head| *head < wanted);
        let alike = self.heads[from..].iter().take_while(|head| **head == wanted).count();
        let found = self.entries[from..from + alike].binary_search_by(|entry| (*entry.key).cmp(key));
        found.map(|at| from + at).map_err(|at| from + at)
    }

    pub(super) fn insert(&mut self, at: usize, entry: KeyIndex) {
        self.heads.insert(at, head(&entry.key, self.shared));
        self.entries.insert(at, entry);
        if let Some(page) = &mut self.page {
            page.insert(at);
        }
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.heads.remove(at);
        self.entries.remove(at);
        if let Some(page) = &mut self.page {
            page.remove(at);
        }
    }

    /// What is held of the newest version of entry `at` is that no longer.
    pub(super) fn forget_row(&mut self, at: usize) {
        if let Some(page) = &mut self.page {
            page.forget(at);
        }
    }

    pub(super) fn split_off(&mut self, at: usize) -> Chunk {
        Chunk {
            entries: self.entries.split_off(at),
            heads: self.heads.split_off(at),
            shared: self.shared,
            page: self.page.as_mut().map(|page| Box::new(page.split_off(at))),
            booked: 0,
        }
    }

    /// Takes the entries of `upper`, which come after those here.
    pub(super) fn append(&mut self, mut upper: Chunk) {
        match (&mut self.page, upper.page.take()) {
            (None, None) => {}
            (Some(page), upper_page) => {
                page.append(upper_page.map_or_else(|| Page::new(upper.entries.len()), |page| *page));
            }
            (None, Some(upper_page)) => {
                let mut page = Page::new(self.entries.len());
                page.append(*upper_page);
                self.page = Some(Box::new(page));
            }
        }
        self.heads.extend(heads(&upper.entries, self.shared));
        self.entries.append(&mut upper.entries);
    }

    /// Brings the heads in line with what all keys between the chunk's bounds begin with.
    pub(super) fn set_shared(&mut self, shared: usize) {
        if self.shared != shared {
            self.shared = shared;
            self.heads = heads(&self.entries, shared);
        }
    }

    /// Entries that exist after their newest version.
    pub(super) fn live(&self) -> u32 {
        count_live(&self.entries)
    }

    /// Panics if an invariant is broken. `start` is the chunk's lower bound.
    #[cfg(test)]
    pub(super) fn check(&self, start: &[u8]) {
        assert!(self.entries.len() <= CHUNK_MAX);
        assert_eq!(self.heads, heads(&self.entries, self.shared));
        assert!(self.entries.iter().all(|entry| entry.key.starts_with(&start[..self.shared])));
        assert_eq!(self.booked, self.page.as_ref().map_or(0, |page| page.memory()), "the books are right");
        if let Some(page) = &self.page {
            page.check(self.entries.len());
            let held = |at: usize| page.row(at).is_some();
            assert!((0..self.entries.len()).all(|at| self.entries[at].is_live() || !held(at)), "no row of a tombstone");
        }
    }
}

/// Eight bytes of a key from byte `shared` on, as a number; keys of one chunk with different heads compare as their heads do.
pub(super) fn head(key: &[u8], shared: usize) -> u64 {
    let rest = key.get(shared..).unwrap_or_default();
    match rest.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        // A key that ends here comes before those that go on, except with zeros: then only the keys themselves can tell.
        None => rest.iter().rev().fold(0, |head, byte| head >> 8 | u64::from(*byte) << 56),
    }
}

fn heads(entries: &[KeyIndex], shared: usize) -> Vec<u64> {
    entries.iter().map(|entry| head(&entry.key, shared)).collect()
}

pub(super) fn count_live(entries: &[KeyIndex]) -> u32 {
    entries.iter().filter(|entry| entry.is_live()).count() as u32
}
