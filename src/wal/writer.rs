//! Appending: one write per batch, one sync per durable point, a new segment when one is full.

use super::{Encoder, Mark, Options, Segment, Terms, Wal, segment};
use crate::{
    io::{Disk, DiskFile},
    types::{ConfState, Entry, Fault, HardState, Index},
};
use bytes::Bytes;
use std::{ffi::OsString, io, path::Path, path::PathBuf};

/// A buffer that one large batch has grown is given back above this.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// Makes the log in `dir.tmp` and renames the folder: a crash leaves no half log under the real name.
pub(super) fn create<D: Disk>(disk: D, dir: &Path, metadata: &[u8], options: Options) -> Result<Wal<D>, Fault> {
    if Wal::exists(&disk, dir)? {
        return Err(Fault::Unusable { path: dir.into(), what: "it holds a log already".into() });
    }
    let draft = draft_of(dir);
    disk.create_dir(&draft).map_err(|source| Fault::io("create folder", &draft, source))?;
    // What a crash has left of an earlier attempt.
    for leftover in disk.list(&draft).map_err(|source| Fault::io("list", &draft, source))? {
        disk.remove(&leftover).map_err(|source| Fault::io("remove", &leftover, source))?;
    }
    let first = Segment { sequence: 0, first: Index(0) };
    let mut encoder = Encoder::default();
    encoder.crc();
    encoder.metadata(metadata);
    encoder.mark(&Mark::default(), &ConfState::default());
    let path = segment::path(&draft, first);
    let mut file = allocated(&disk, &path, options)?;
    file.write_at(0, &encoder.buffer).map_err(|source| Fault::io("write", &path, source))?;
    file.sync_data().map_err(|source| Fault::io("fdatasync", &path, source))?;
    sync_dir(&disk, &draft)?;
    disk.rename(&draft, dir).map_err(|source| Fault::io("rename to", dir, source))?;
    if let Some(parent) = dir.parent() {
        sync_dir(&disk, parent)?;
    }
    let offset = encoder.buffer.len() as u64;
    encoder.buffer.clear();
    Ok(Wal {
        disk,
        dir: dir.into(),
        options,
        metadata: Bytes::copy_from_slice(metadata),
        segments: vec![first],
        file,
        offset,
        encoder,
        hard_state: HardState::default(),
        mark: Mark::default(),
        conf_state: ConfState::default(),
        terms: Terms::default(),
        synced: offset,
        written_bytes: 0,
        barrier_due: true,
        prepared: None,
        broken: None,
    })
}

fn draft_of(dir: &Path) -> PathBuf {
    let mut name = OsString::from(dir);
    name.push(".tmp");
    name.into()
}

fn allocated<D: Disk>(disk: &D, path: &Path, options: Options) -> Result<D::File, Fault> {
    let mut file = disk.create(path).map_err(|source| Fault::io("create", path, source))?;
    file.allocate(options.segment_bytes).map_err(|source| Fault::io("allocate", path, source))?;
    Ok(file)
}

/// Removes the file of a segment that [`Wal::release`] has given up.
///
/// # Errors
/// [`Fault::Io`] from the disk.
pub fn remove<D: Disk>(disk: &D, segment: &Path) -> Result<(), Fault> {
    let dir = segment.parent().unwrap_or(segment);
    let gone = dir.join(segment::GONE);
    disk.rename(segment, &gone).map_err(|source| Fault::io("rename to", &gone, source))?;
    // One at a time: a crash that kept only a later removal would leave a hole. And before any of its bytes go.
    sync_dir(disk, dir)?;
    disk.remove(&gone).map_err(|source| Fault::io("remove", gone, source))
}

fn sync_dir<D: Disk>(disk: &D, dir: &Path) -> Result<(), Fault> {
    disk.sync_dir(dir).map_err(|source| Fault::io("fsync folder", dir, source))
}

impl<D: Disk> Wal<D> {
    /// Writes a batch with one system call, durable only after [`Wal::sync`]. An entry at an index that the log already has
    /// replaces it and all after it. A segment that this fills is sealed, which syncs it.
    ///
    /// # Errors
    /// After any error the log is broken: the batch may be there in part, and nothing may follow it.
    ///
    /// # Panics
    /// If the entries would leave a gap, or replace what a mark that emptied the log stands for.
    pub fn append(&mut self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<(), Fault> {
        self.refuse_if_broken()?;
        // One from before a mark that emptied the log would let it look as if the mark were not committed.
        let raised = |state: &HardState| HardState { commit: state.commit.max(self.terms.base()), ..*state };
        let changed = hard_state.map(raised).filter(|state| *state != self.hard_state);
        if changed.is_none() && entries.is_empty() {
            return Ok(());
        }
        self.start_batch();
        for entry in entries {
            let (base, last) = (self.terms.base(), self.terms.last());
            assert!(entry.index <= last.next(), "entry {} would leave a gap after {last} in the log", entry.index);
            assert!(entry.index > base, "entry {} would come before the log's beginning after {base}", entry.index);
            self.encoder.entry(entry);
            self.terms.write(entry.index, entry.term);
        }
        if let Some(state) = changed {
            self.encoder.state(&state);
            self.hard_state = state;
        }
        self.write_batch()
    }

    /// Bytes that were appended since the log was opened.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Returns once everything appended is on the medium.
    ///
    /// # Errors
    /// After an error the log is broken. A failed sync is never repeated: the system may have thrown away what it could not
    /// write, and would then report success.
    pub fn sync(&mut self) -> Result<(), Fault> {
        self.refuse_if_broken()?;
        if self.synced == self.offset {
            return Ok(());
        }
        let synced = self.file.sync_data().map_err(|source| Fault::io("fdatasync", self.path(), source));
        self.break_on(synced, "a sync failed")?;
        self.synced = self.offset;
        self.barrier_due = true;
        // Ahead of time, so that the cut does not wait for the allocation too.
        if self.offset > self.options.segment_bytes / 2 {
            self.prepare()?;
        }
        Ok(())
    }

    /// Records, durably, that the state machine's state stands for the log up to `mark`. If the log doesn't hold the entry that the
    /// mark names, this empties the log; appends go on right after the mark.
    ///
    /// # Errors
    /// [`Fault::Damaged`], and nothing is written, if the entry there is another one but committed: either the log or the state
    /// is not this member's. Else as [`Wal::append`].
    pub fn save_mark(&mut self, mark: &Mark, conf_state: &ConfState) -> Result<(), Fault> {
        self.refuse_if_broken()?;
        if let Some(what) = self.terms.contradiction(mark, self.hard_state.commit) {
            return Err(Fault::Damaged { path: self.path(), offset: None, what });
        }
        self.start_batch();
        self.encoder.mark(mark, conf_state);
        self.mark = *mark;
        self.conf_state = conf_state.clone();
        self.terms.mark(mark);
        // The head of the next segment repeats both.
        self.hard_state.commit = self.hard_state.commit.max(self.terms.base());
        self.write_batch()?;
        self.sync()
    }

    /// Gives up the sealed segments without a live entry from `upto` on, and says which files they are. The caller is to [`remove`] them, in
    /// this order, but at leisure: a system may take 15 ms over a file of 64 MiB, and whoever appends should not wait for that. What is
    /// still there when the log is opened again is part of it again.
    ///
    /// The entry at `upto` itself stays: without its term a mark that came instead of it could not be told from one that repeats it.
    ///
    /// # Errors
    /// [`Fault::Io`] if a write or a sync has failed before.
    pub fn release(&mut self, upto: Index) -> Result<Vec<PathBuf>, Fault> {
        self.refuse_if_broken()?;
        if self.options.keep_all {
            return Ok(Vec::new());
        }
        self.terms.release(upto);
        // A segment's name says where the live entries of all before it end. Names may go back, where entries were replaced.
        let needed = self.segments.iter().rposition(|segment| segment.first <= upto).unwrap_or(0);
        Ok(self.segments.drain(..needed).map(|segment| segment::path(&self.dir, segment)).collect())
    }

    /// Makes the next segment's file ready. Called from [`Wal::sync`]; also harmless at any idle moment.
    pub fn prepare(&mut self) -> Result<(), Fault> {
        self.refuse_if_broken()?;
        if self.prepared.is_none() {
            let file = allocated(&self.disk, &self.dir.join(segment::NEXT), self.options);
            self.prepared = Some(self.break_on(file, "no space for the next segment")?);
        }
        Ok(())
    }

    /// Last entry of the log, or the mark if the log is empty behind it.
    pub fn last(&self) -> Index {
        self.terms.last()
    }

    /// What is needed to start a batch: a barrier, if what came before is known to be on the medium.
    fn start_batch(&mut self) {
        self.encoder.buffer.clear();
        if std::mem::take(&mut self.barrier_due) {
            self.encoder.crc();
        }
    }

    fn write_batch(&mut self) -> Result<(), Fault> {
        let written = self
            .file
            .write_at(self.offset, &self.encoder.buffer)
            .map_err(|source| Fault::io("write", self.path(), source));
        self.break_on(written, "a write failed")?;
        self.offset += self.encoder.buffer.len() as u64;
        self.written_bytes += self.encoder.buffer.len() as u64;
        if self.encoder.buffer.capacity() > BUFFER_BYTES_MAX {
            self.encoder.buffer = Vec::new();
        }
        if self.offset >= self.options.segment_bytes {
            let cut = self.cut();
            self.break_on(cut, "starting a segment failed")?;
        }
        Ok(())
    }

    /// Seals the open segment and starts the next one.
    ///
    /// The order matters to a crash: the old segment is whole before the new one has its name (a bad record in a sealed one
    /// is damage), and the new one has its head and its name before anything is appended to it.
    fn cut(&mut self) -> Result<(), Fault> {
        self.sync()?;
        self.prepare()?;
        let draft = self.dir.join(segment::NEXT);
        let mut file = self.prepared.take().expect("prepared just now");
        self.encoder.buffer.clear();
        self.encoder.crc();
        self.encoder.metadata(&self.metadata);
        if self.hard_state != HardState::default() {
            self.encoder.state(&self.hard_state);
        }
        // Even if it is (0, 0): otherwise opening would look for a better one in all the segments before.
        self.encoder.mark(&self.mark, &self.conf_state);
        file.write_at(0, &self.encoder.buffer).map_err(|source| Fault::io("write", &draft, source))?;
        file.sync_data().map_err(|source| Fault::io("fdatasync", &draft, source))?;
        let previous = *self.segments.last().expect("a log has a segment");
        let next = Segment { sequence: previous.sequence + 1, first: self.terms.last().next() };
        let path = segment::path(&self.dir, next);
        self.disk.rename(&draft, &path).map_err(|source| Fault::io("rename to", &path, source))?;
        sync_dir(&self.disk, &self.dir)?;
        self.segments.push(next);
        self.file = file;
        self.offset = self.encoder.buffer.len() as u64;
        self.synced = self.offset;
        self.barrier_due = true;
        Ok(())
    }

    pub(super) fn path(&self) -> PathBuf {
        segment::path(&self.dir, *self.segments.last().expect("a log has a segment"))
    }

    fn refuse_if_broken(&self) -> Result<(), Fault> {
        let Some(what) = self.broken else { return Ok(()) };
        let what = format!("{what} earlier; restart this member once the disk is well");
        Err(Fault::Io { doing: "use the log", path: self.path(), source: io::Error::other(what) })
    }

    /// The first error breaks the log for good.
    ///
    /// What was not synced is taken back as far as the disk still lets us; nobody was told about it. After a failed sync the
    /// system may hold such data in memory as if it were clean. A restart of this process would read it from there, sync
    /// once more, hear of no error, and take it for durable.
    fn break_on<T>(&mut self, result: Result<T, Fault>, what: &'static str) -> Result<T, Fault> {
        if result.is_err() && self.broken.is_none() {
            self.broken = Some(what);
            // An error here changes nothing: recovery judges what is left.
            let _ = self.file.truncate(self.synced).and_then(|()| self.file.allocate(self.options.segment_bytes));
        }
        result
    }
}
