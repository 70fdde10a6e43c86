//! Writing a database in one pass: leaves as they fill, branches behind them, the meta pages last.
//!
//! A tree is built from the bottom. Each level holds two pages back, so that no branch is left with a single child at the end; a page
//! that is written tells the level above its first key. So memory is a few pages for each level, and levels are few.

use super::{
    Error, KEY_BYTES_MAX, PAGE_BYTES, Result,
    page::{BUCKET, ELEMENT, HEADER, IS_BUCKET, Kind, META, Meta, put_header},
};
use std::io::{Seek, SeekFrom, Write};

/// A bucket of at most so many bytes stands in the leaf that names it, as in bbolt.
const INLINE_BYTES_MAX: usize = PAGE_BYTES / 4;

/// A database on its way out.
///
/// Buckets come in the order of their names, keys within a bucket in their order, each once.
pub struct Writer<W: Write + Seek> {
    pages: Pages<W>,
    /// The bucket of buckets.
    root: Tree,
    bucket: Option<(Vec<u8>, Tree)>,
}

impl<W: Write + Seek> Writer<W> {
    /// A database in `out`, from its start. What is written is many small pieces: `out` had better be buffered.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(out: W) -> Result<Writer<W>> {
        let mut pages = Pages { out, next: 2, buffer: Vec::new() };
        pages.seek(2 * PAGE_BYTES as u64)?;
        Ok(Writer { pages, root: Tree::default(), bucket: None })
    }

    /// Begins the next bucket.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is not after the last one, [`Error::Io`].
    pub fn bucket(&mut self, name: &[u8]) -> Result<()> {
        self.end_bucket()?;
        self.bucket = Some((name.to_vec(), Tree::default()));
        Ok(())
    }

    /// Adds a key to the bucket that was begun last.
    ///
    /// # Errors
    /// [`Error::Refused`] for a key that is empty, too long or not after the last one, or without a bucket; [`Error::Io`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match &mut self.bucket {
            Some((_, tree)) => tree.put(0, key, value, &mut self.pages),
            None => Err(refused(key, "there is no bucket for it")),
        }
    }

    /// Completes the database: how many bytes it has. Does not sync.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<u64> {
        self.end_bucket()?;
        let root = match self.root.finish(&mut self.pages)? {
            Finished::Page(id) => id,
            Finished::Small(leaf) => self.pages.write(Kind::Leaf, &leaf)?,
        };
        let freelist = self.pages.write(Kind::Freelist, &Run::default())?;
        let bytes = self.pages.next * PAGE_BYTES as u64;
        self.pages.seek(0)?;
        for id in 0..2 {
            let pages = self.pages.next;
            let meta = Meta { page_bytes: PAGE_BYTES as u32, root, freelist, pages, transaction: id };
            self.pages.write_meta(id, &meta)?;
        }
        self.pages.out.flush().map_err(|source| Error::Io { offset: bytes, source })?;
        Ok(bytes)
    }

    fn end_bucket(&mut self) -> Result<()> {
        let Some((name, tree)) = self.bucket.take() else { return Ok(()) };
        let mut value = vec![0; BUCKET];
        match tree.finish(&mut self.pages)? {
            Finished::Page(id) => value[..8].copy_from_slice(&id.to_le_bytes()),
            Finished::Small(leaf) if leaf.bytes() <= INLINE_BYTES_MAX => leaf.encode(0, Kind::Leaf, &mut value),
            Finished::Small(leaf) => {
                value[..8].copy_from_slice(&self.pages.write(Kind::Leaf, &leaf)?.to_le_bytes());
            }
        }
        self.root.put(IS_BUCKET, &name, &value, &mut self.pages)
    }
}

fn refused(key: &[u8], what: &'static str) -> Error {
    Error::Refused { key: key.escape_ascii().to_string(), what }
}

/// Where pages go.
struct Pages<W> {
    out: W,
    next: u64,
    buffer: Vec<u8>,
}

impl<W: Write + Seek> Pages<W> {
    fn seek(&mut self, offset: u64) -> Result<()> {
        self.out.seek(SeekFrom::Start(offset)).map(drop).map_err(|source| Error::Io { offset, source })
    }

    /// Writes a page, with as many after it as its elements need; its number.
    fn write(&mut self, kind: Kind, run: &Run) -> Result<u64> {
        let id = self.next;
        self.buffer.clear();
        run.encode(id, kind, &mut self.buffer);
        let pages = self.buffer.len().div_ceil(PAGE_BYTES);
        self.buffer.resize(pages * PAGE_BYTES, 0);
        self.emit(id)?;
        self.next += pages as u64;
        Ok(id)
    }

    fn write_meta(&mut self, id: u64, meta: &Meta) -> Result<()> {
        self.buffer.clear();
        put_header(&mut self.buffer, id, Kind::Meta, 0, 0);
        self.buffer.extend_from_slice(&meta.encode());
        debug_assert_eq!(self.buffer.len(), HEADER + META);
        self.buffer.resize(PAGE_BYTES, 0);
        self.emit(id)
    }

    fn emit(&mut self, id: u64) -> Result<()> {
        let offset = id * PAGE_BYTES as u64;
        self.out.write_all(&self.buffer).map_err(|source| Error::Io { offset, source })
    }
}

/// A page that is being filled.
#[derive(Default)]
struct Run {
    elements: Vec<Element>,
    /// Keys and values, one after the other.
    data: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Element {
    /// Of a leaf.
    flags: u32,
    /// Of a branch.
    child: u64,
    key: u32,
    value: u32,
}

impl Element {
    fn bytes(self) -> usize {
        self.key as usize + self.value as usize
    }
}

impl Run {
    fn bytes(&self) -> usize {
        HEADER + ELEMENT * self.elements.len() + self.data.len()
    }

    /// Whether another element with so many bytes would need one page more.
    fn is_full_for(&self, bytes: usize) -> bool {
        self.bytes() + ELEMENT + bytes > PAGE_BYTES
    }

    fn push(&mut self, flags: u32, child: u64, key: &[u8], value: &[u8]) {
        self.elements.push(Element { flags, child, key: key.len() as u32, value: value.len() as u32 });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn first_key(&self) -> &[u8] {
        let len = self.elements.first().map_or(0, |element| element.key as usize);
        &self.data[..len]
    }

    /// Takes the last element off; a branch's.
    fn pop(&mut self) -> Option<(u64, Vec<u8>)> {
        let element = self.elements.pop()?;
        Some((element.child, self.data.split_off(self.data.len() - element.bytes())))
    }

    fn encode(&self, id: u64, kind: Kind, out: &mut Vec<u8>) {
        let overflow = self.bytes().div_ceil(PAGE_BYTES) as u32 - 1;
        put_header(out, id, kind, self.elements.len() as u16, overflow);
        let mut data_at = ELEMENT * self.elements.len();
        for (at, element) in self.elements.iter().enumerate() {
            let position = (data_at - ELEMENT * at) as u32;
            let numbers = match kind {
                Kind::Branch => [position, element.key, element.child as u32, (element.child >> 32) as u32],
                _ => [element.flags, position, element.key, element.value],
            };
            numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
            data_at += element.bytes();
        }
        out.extend_from_slice(&self.data);
    }
}

/// One bucket: the leaf that is being filled, and the branches above.
#[derive(Default)]
struct Tree {
    leaf: Run,
    levels: Vec<Level>,
    last_key: Vec<u8>,
}

/// The pages of one level of branches that are held back.
#[derive(Default)]
struct Level {
    full: Option<Run>,
    open: Run,
}

enum Finished {
    /// The number of the root page.
    Page(u64),
    /// All is in one leaf, not yet written.
    Small(Run),
}

impl Tree {
    fn put<W: Write + Seek>(&mut self, flags: u32, key: &[u8], value: &[u8], pages: &mut Pages<W>) -> Result<()> {
        if key.is_empty() {
            return Err(refused(key, "it is empty"));
        }
        if key.len() > KEY_BYTES_MAX || value.len() > i32::MAX as usize {
            return Err(refused(key, "key or value are too long"));
        }
        if key <= &self.last_key[..] {
            return Err(refused(key, "it is not after the one before"));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        if !self.leaf.elements.is_empty() && self.leaf.is_full_for(key.len() + value.len()) {
            self.flush_leaf(pages)?;
        }
        self.leaf.push(flags, 0, key, value);
        Ok(())
    }

    fn flush_leaf<W: Write + Seek>(&mut self, pages: &mut Pages<W>) -> Result<()> {
        let leaf = std::mem::take(&mut self.leaf);
        let id = pages.write(Kind::Leaf, &leaf)?;
        self.add_child(0, leaf.first_key(), id, pages)
    }

    /// Tells `level` of a page below it.
    fn add_child<W: Write + Seek>(&mut self, level: usize, key: &[u8], id: u64, pages: &mut Pages<W>) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(Level::default());
        }
        let Level { full, open } = &mut self.levels[level];
        // A branch with one child is none, however long the keys.
        if open.elements.len() < 2 || !open.is_full_for(key.len()) {
            open.push(0, id, key, &[]);
            return Ok(());
        }
        let done = full.replace(std::mem::take(open));
        open.push(0, id, key, &[]);
        match done {
            Some(done) => self.write_branch(level, &done, pages),
            None => Ok(()),
        }
    }

    fn write_branch<W: Write + Seek>(&mut self, level: usize, run: &Run, pages: &mut Pages<W>) -> Result<()> {
        let id = pages.write(Kind::Branch, run)?;
        self.add_child(level + 1, run.first_key(), id, pages)
    }

    fn finish<W: Write + Seek>(mut self, pages: &mut Pages<W>) -> Result<Finished> {
        if self.levels.is_empty() {
            return Ok(Finished::Small(self.leaf));
        }
        self.flush_leaf(pages)?;
        let mut level = 0;
        loop {
            let Level { full, mut open } = std::mem::take(&mut self.levels[level]);
            let is_top = level + 1 == self.levels.len();
            match full {
                None if is_top => {
                    return Ok(Finished::Page(match open.elements[..] {
                        [only] => only.child,
                        _ => pages.write(Kind::Branch, &open)?,
                    }));
                }
                // Pages of this level were written, so one is held back.
                None => unreachable!("a level passes pages on only when it holds two"),
                Some(mut full) => {
                    if open.elements.len() == 1 {
                        share(&mut full, &mut open);
                    }
                    self.write_branch(level, &full, pages)?;
                    if !open.elements.is_empty() {
                        self.write_branch(level, &open, pages)?;
                    }
                }
            }
            level += 1;
        }
    }
}

/// Leaves no page with a single child: takes one from the page before, or gives it its own.
fn share(full: &mut Run, open: &mut Run) {
    let Some((lone_child, lone_key)) = open.pop() else { return };
    if full.elements.len() > 2
        && let Some((child, key)) = full.pop()
    {
        open.push(0, child, &key, &[]);
        open.push(0, lone_child, &lone_key, &[]);
    } else {
        full.push(0, lone_child, &lone_key, &[]);
    }
}
