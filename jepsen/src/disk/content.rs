//! What a file holds: what a reader sees, and what would be left without power.

use crate::random::Random;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Bytes of a page, the unit of what is kept.
pub const PAGE: u64 = 4096;
/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

type Page = [u8; PAGE as usize];

/// Bytes in pages; a page that is not there is zero.
#[derive(Clone, Debug, Default)]
struct Pages {
    size: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

/// A file: its pages, those of the last sync, and which differ. Equal pages are shared.
#[derive(Clone, Debug, Default)]
pub struct Content {
    live: Pages,
    durable: Pages,
    dirty: BTreeSet<u64>,
    /// Space up to here is set aside (`fallocate`), so that a write below it needs no new space.
    reserved: u64,
}

/// The pages that `len` bytes at `offset` touch, each with its part of them.
fn spans(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + len;
    (offset / PAGE..end.div_ceil(PAGE)).map(move |page| {
        let start = page * PAGE;
        (page, (offset.max(start) - start) as usize, (end.min(start + PAGE) - start) as usize)
    })
}

impl Content {
    /// Bytes a reader sees.
    pub fn size(&self) -> u64 {
        self.live.size
    }

    /// Pages a reader sees that take space.
    pub fn pages(&self) -> u64 {
        self.live.pages.len() as u64
    }

    /// Up to `len` bytes from `offset`.
    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let len = len.min(self.live.size.saturating_sub(offset));
        let mut bytes = Vec::with_capacity(len as usize);
        for (page, from, to) in spans(offset, len) {
            match self.live.pages.get(&page) {
                Some(page) => bytes.extend_from_slice(&page[from..to]),
                None => bytes.resize(bytes.len() + to - from, 0),
            }
        }
        bytes
    }

    /// Whether writing `len` bytes at `offset` takes new space.
    pub fn needs_space(&self, offset: u64, len: u64) -> bool {
        offset + len > self.reserved && spans(offset, len).any(|(page, _, _)| !self.live.pages.contains_key(&page))
    }

    /// Writes `bytes` at `offset`.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (page, from, to) in spans(offset, bytes.len() as u64) {
            let (part, others) = rest.split_at(to - from);
            rest = others;
            let held = self.live.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(held)[from..to].copy_from_slice(part);
            self.dirty.insert(page);
        }
        self.live.size = self.live.size.max(offset + bytes.len() as u64);
    }

    /// Sets aside space up to `end`, and with `grow` makes the file as long.
    pub fn reserve(&mut self, end: u64, grow: bool) {
        self.reserved = self.reserved.max(end);
        if grow {
            self.live.size = self.live.size.max(end);
        }
    }

    /// Cuts or extends to `size` bytes.
    pub fn truncate(&mut self, size: u64) {
        if size < self.live.size {
            let gone = self.live.pages.split_off(&size.div_ceil(PAGE));
            self.dirty.extend(gone.keys());
            let within = (size % PAGE) as usize;
            if let Some(last) = self.live.pages.get_mut(&(size / PAGE)).filter(|_| within > 0) {
                // What is cut off must not come back when the file grows again.
                Arc::make_mut(last)[within..].fill(0);
                self.dirty.insert(size / PAGE);
            }
            self.reserved = self.reserved.min(size);
        }
        self.live.size = size;
    }

    /// Makes durable what a reader sees.
    pub fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.keep(page, |live, _| live);
        }
        self.durable.size = self.live.size;
    }

    /// Sets the durable page to what `choose` makes of the live and the durable one.
    fn keep(&mut self, page: u64, choose: impl FnOnce(Option<Arc<Page>>, Option<Arc<Page>>) -> Option<Arc<Page>>) {
        let kept = choose(self.live.pages.get(&page).cloned(), self.durable.pages.get(&page).cloned());
        match kept {
            Some(kept) => drop(self.durable.pages.insert(page, kept)),
            None => drop(self.durable.pages.remove(&page)),
        }
    }

    /// Loses what was not synced. With `survive`, chance decides which of it reached the disk all the same: pages in any
    /// order, some of them half. Returns whether anything was lost.
    pub fn power_cut(&mut self, survive: Option<&mut Random>) -> bool {
        let mut lost = !self.dirty.is_empty() || self.live.size != self.durable.size;
        if let Some(random) = survive {
            lost = false;
            if random.below(2) == 0 {
                self.durable.size = self.live.size;
            }
            for page in std::mem::take(&mut self.dirty) {
                match random.below(4) {
                    0 => lost = true,
                    1 => {
                        let sectors = random.below(PAGE / SECTOR as u64) as usize;
                        self.keep(page, |live, durable| torn(live, durable, sectors));
                        lost = true;
                    }
                    _ => self.keep(page, |live, _| live),
                }
            }
            lost |= self.durable.size != self.live.size;
        }
        let size = self.durable.size;
        drop(self.durable.pages.split_off(&size.div_ceil(PAGE)));
        if let Some(last) = self.durable.pages.get_mut(&(size / PAGE)) {
            Arc::make_mut(last)[(size % PAGE) as usize..].fill(0);
        }
        self.dirty.clear();
        self.live = self.durable.clone();
        self.reserved = self.reserved.min(size);
        lost
    }
}

/// The first `sectors` of the new page, the rest of the old one.
fn torn(new: Option<Arc<Page>>, old: Option<Arc<Page>>, sectors: usize) -> Option<Arc<Page>> {
    let mut page = old.map_or([0; PAGE as usize], |old| *old);
    let written = new.map_or([0; PAGE as usize], |new| *new);
    page[..sectors * SECTOR].copy_from_slice(&written[..sectors * SECTOR]);
    Some(Arc::new(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_the_rest_does_not() {
        let mut content = Content::default();
        content.write(0, b"kept");
        content.sync();
        content.write(4, b" lost");
        assert_eq!(content.read(0, 100), b"kept lost");
        assert!(content.power_cut(None));
        assert_eq!(content.read(0, 100), b"kept");
        assert!(!content.power_cut(None));
    }

    #[test]
    fn an_overwrite_that_was_not_synced_gives_the_old_bytes_back() {
        let mut content = Content::default();
        content.write(5000, b"old");
        content.sync();
        content.write(5000, b"new");
        content.truncate(1);
        content.power_cut(None);
        assert_eq!(content.read(5000, 3), b"old");
        assert_eq!(content.read(0, 5000), vec![0; 5000]);
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut content = Content::default();
        content.write(0, &[7; 10_000]);
        content.truncate(5000);
        content.truncate(10_000);
        assert_eq!(content.read(4999, 3), [7, 0, 0]);
        content.sync();
        content.power_cut(None);
        assert_eq!(content.read(4999, 3), [7, 0, 0]);
        assert_eq!(content.size(), 10_000);
    }

    #[test]
    fn reserved_space_and_held_pages_need_no_more() {
        let mut content = Content::default();
        content.reserve(8192, true);
        assert_eq!(content.size(), 8192);
        assert!(!content.needs_space(0, 8192));
        assert!(content.needs_space(8000, 193));
        content.write(8192, b"x");
        assert!(!content.needs_space(8193, 10));
    }

    #[test]
    fn a_torn_cut_keeps_synced_bytes_and_mixes_only_old_and_new() {
        for seed in 0..200 {
            let mut content = Content::default();
            content.write(0, &[1; 3 * PAGE as usize]);
            content.sync();
            content.write(PAGE, &[2; 4 * PAGE as usize]);
            content.power_cut(Some(&mut Random::new(seed)));
            assert_eq!(content.read(0, PAGE), vec![1; PAGE as usize]);
            assert!(content.size() == 3 * PAGE || content.size() == 5 * PAGE);
            let rest = content.read(PAGE, 2 * PAGE);
            assert!(rest.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0] && *byte > 0)));
        }
    }
}
