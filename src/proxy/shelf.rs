//! Copies on disk: what a proxy that begins without a core knows.
//!
//! **Promises.** A file is one copy, as it was at a revision that upstream was at by then, or nothing: what is torn, damaged, foreign, or
//! written by a later version is set aside with a line in the log. A file says of which cluster it is, and when it was last known to be
//! current, by clocks that nobody can make say less ([`Stamp`]). Once upstream has asked who anybody is, there are no files.
//! **May not know** who reads, or what upstream says now.
//!
//! All methods wait for the disk: they belong on threads that may.

mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod keep;
mod stamp;

pub(super) use keep::Keeper;
pub use stamp::Stamp;

use super::{
    copy::{Keep, Loading, Writer},
    feed::replies::{by_revision, event, key_value},
};
use crate::{
    mvcc::Event,
    server::Header,
    types::{ClusterId, KeyRange, MemberId, Revision, Term},
    watch as hub,
};
use format::{Decoder, Head, Note, Record, Unreadable};
use sha2::{Digest, Sha256};
use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io::{self, BufReader, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// A folder of copies.
#[derive(Debug)]
pub struct Shelf {
    dir: PathBuf,
    /// What was here at first.
    found: Vec<KeyRange>,
}

/// The ends of the names of files: copies, one that is being written, and one that could not be read.
const COPY: &str = "copy";
const WRITING: &str = "writing";
const ASIDE: &str = "set-aside";

impl Shelf {
    /// The copies in `dir`, which is made if need be. Nobody else may use it: whoever calls has locked it.
    ///
    /// # Errors
    /// If the folder cannot be made or looked at.
    pub fn open(dir: &Path) -> io::Result<Shelf> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let shelf = Shelf { dir: dir.to_owned(), found: Vec::new() };
        for unfinished in shelf.files(WRITING)? {
            fs::remove_file(unfinished)?;
        }
        Ok(Shelf { found: shelf.ranges(), ..shelf })
    }

    /// The ranges of all copies that were here when it was opened.
    pub(super) fn found(&self) -> &[KeyRange] {
        &self.found
    }

    fn ranges(&self) -> Vec<KeyRange> {
        let mut ranges = Vec::new();
        for path in self.copies() {
            match opened(&path).and_then(|(file, bytes)| head(file, bytes)) {
                Ok((_, head)) if self.path(&head.range()) == path => ranges.push(head.range()),
                Ok(_) => self.set_aside(&path, &"it has the name of another"),
                Err(why) => self.set_aside(&path, &why),
            }
        }
        ranges
    }

    /// The copy of `range`, if it is here and whole.
    pub(super) fn load(&self, range: &KeyRange, keep: Keep, options: hub::Options) -> Option<Writer> {
        let path = self.path(range);
        match opened(&path).and_then(|file| read(file, &path, range, keep, options)) {
            Ok(writer) => Some(writer),
            Err(Unreadable::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(why) => {
                self.set_aside(&path, &why);
                None
            }
        }
    }

    /// Removes the copy of `range`.
    pub(super) fn remove(&self, range: &KeyRange) {
        self.remove_file(&self.path(range));
    }

    /// Removes all copies, those that were set aside included.
    fn clear(&self) {
        let aside = self.files(ASIDE).unwrap_or_default();
        self.copies().iter().chain(&aside).for_each(|path| self.remove_file(path));
    }

    fn copies(&self) -> Vec<PathBuf> {
        self.files(COPY).unwrap_or_else(|error| {
            tracing::warn!(%error, dir = %self.dir.display(), "saved copies cannot be looked at");
            Vec::new()
        })
    }

    fn files(&self, extension: &str) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new(extension)) {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// Where the copy of `range` is.
    fn path(&self, range: &KeyRange) -> PathBuf {
        let (key, end) = super::feed::to_wire(range);
        let digest =
            Sha256::new().chain_update((key.len() as u64).to_le_bytes()).chain_update(key).chain_update(end).finalize();
        let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(name).with_extension(COPY)
    }

    fn remove_file(&self, path: &Path) {
        match fs::remove_file(path).and_then(|()| self.sync()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, file = %path.display(), "a saved copy cannot be removed");
            }
            _ => {}
        }
    }

    /// Keeps a file for whoever wants to know, out of the way. One of a name is kept.
    fn set_aside(&self, path: &Path, why: &dyn std::fmt::Display) {
        let aside = path.with_extension(ASIDE);
        tracing::warn!(file = %path.display(), why = %why, aside = %aside.display(), "a saved copy cannot be used: it is set aside");
        if let Err(error) = fs::rename(path, &aside).and_then(|()| self.sync()) {
            tracing::warn!(%error, file = %path.display(), "a saved copy cannot be set aside");
        }
    }

    /// Makes new names and removals durable.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

/// A file, and how many bytes it has.
fn opened(path: &Path) -> Result<(BufReader<File>, u64), Unreadable> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    Ok((BufReader::with_capacity(1 << 18, file), bytes))
}

fn head<R: Read>(file: R, bytes: u64) -> Result<(Decoder<R>, Head), Unreadable> {
    let mut decoder = Decoder::open(file, bytes)?;
    match decoder.next()? {
        Some(Record::Head(head)) if head.note.is_some() => Ok((decoder, head)),
        _ => Err(decoder.damaged("it has no head")),
    }
}

/// What a note says of upstream.
fn header(note: &Note) -> Header {
    Header {
        cluster_id: ClusterId(note.cluster_id),
        member_id: MemberId(note.member_id),
        revision: Revision(note.revision),
        term: Term(note.term),
    }
}

/// The copy of `range` in a file of so many bytes. `path` names it in the log.
fn read<R: Read>(
    (file, bytes): (R, u64),
    path: &Path,
    range: &KeyRange,
    keep: Keep,
    options: hub::Options,
) -> Result<Writer, Unreadable> {
    let (mut decoder, head) = head(file, bytes)?;
    let note = head.note.unwrap_or_default();
    if head.range() != *range || !note.is_of_a_history() {
        return Err(decoder.damaged("it is the copy of something else"));
    }
    let now = Stamp::now();
    let mut loading = Loading::of_old(range.clone(), header(&note), note.stamp().retold(&now));
    let mut keys = 0;
    loop {
        match decoder.next()? {
            Some(Record::Keys(kvs)) => {
                keys += kvs.len() as u64;
                let kvs: Vec<_> = kvs.into_iter().map(key_value).collect();
                if !matches!(loading.page(&kvs), Ok(Ok(()))) {
                    return Err(decoder.damaged("its keys make no sense"));
                }
            }
            Some(Record::End(end)) if end.keys == keys => break,
            _ => return Err(decoder.damaged("it has no end")),
        }
    }
    let mut writer = loading.finish(keep, options).map_err(|_| decoder.damaged("its keys make no sense"))?;
    writer.copy().forget(Revision(head.compacted));
    let mut events = Vec::new();
    loop {
        match decoder.next() {
            Ok(None) => return Ok(writer),
            Ok(Some(Record::Events(more))) => events.extend(more.into_iter().map(event)),
            Ok(Some(Record::Note(note))) if note.cluster_id == writer.copy().header().cluster_id.0 => {
                let is_later = |event: &Event| event.kv.mod_revision.0 > note.revision;
                if !note.is_of_a_history() || events.iter().any(is_later) {
                    return Err(decoder.damaged("a note is of before what it is about"));
                }
                if !matches!(writer.events(by_revision(std::mem::take(&mut events))), Ok(Ok(()))) {
                    return Err(decoder.damaged("its events make no sense"));
                }
                writer.progress(Revision(note.revision));
                writer.heard(&header(&note));
                writer.was_current_at(note.stamp().retold(&now));
                while matches!(writer.tidy(), Ok(true)) {}
            }
            Ok(Some(_)) => return Err(decoder.damaged("a record is out of place")),
            Err(Unreadable::Io(error)) => return Err(error.into()),
            Err(torn) => {
                // It was being written when the process ended. What is before it counts.
                tracing::info!(file = %path.display(), %torn, revision = %writer.revision(), "the end of a saved copy is left out");
                return Ok(writer);
            }
        }
    }
}
