//! Opening: the decision table between a torn tail and a damaged log.
//!
//! | found | in the last segment | in a sealed one |
//! | --- | --- | --- |
//! | end of the file, or only zeros | the end | the end |
//! | a zero length, and data in a later sector | cut, unless a barrier follows | damaged |
//! | a bad record of which a sector is missing | cut, unless a barrier follows, or it is the head | damaged |
//! | a record that ends after the file | cut likewise, if its fields agree with its length | damaged |
//! | any other bad record: bytes have changed | damaged | damaged |
//!
//! Damaged too: a missing segment, a checksum that does not continue the segment before, no metadata or two of them, a gap
//! between entries, a committed entry overwritten, a term that goes back, a commit index beyond the last entry. An entry at an
//! index that was there before is no damage: it replaces that one and all after it (a new leader did that). Nor is a mark of an
//! entry that the log doesn't hold: it empties the log, since the state of another member was taken over. The records before it
//! decide, so reading again after a crash during that decides the same.
//!
//! A cut is written back as zeros at once. Otherwise a later, shorter write would leave the end of the torn one behind it.

use super::{
    Cut, Encoder, Mark, Options, Recovered, Segment, Terms, Wal,
    reader::Reader,
    record::{self, Kind, Record},
    segment,
};
use crate::{
    io::{Disk, DiskFile},
    types::{ConfState, Entry, Fault, HardState, Index},
};
use bytes::Bytes;
use std::{io, path::Path};

pub(super) fn open<D: Disk>(disk: D, dir: &Path, from: Index, options: Options) -> Result<(Wal<D>, Recovered), Fault> {
    let Contents { segments, mut file, offset, crc, terms, recovered } = load(&disk, dir, from)?;
    let path = segment::path(dir, *segments.last().expect("there is one to load"));
    if recovered.cut.is_some() {
        file.truncate(offset).map_err(|source| Fault::io("truncate", &path, source))?;
    }
    if file.len().map_err(|source| Fault::io("look at", &path, source))? < options.segment_bytes {
        file.allocate(options.segment_bytes).map_err(|source| Fault::io("allocate", &path, source))?;
    }
    // What was read may still be in memory alone: the process may have died, but not the machine. The barrier before the
    // next batch says that it is not.
    file.sync_data().map_err(|source| Fault::io("fdatasync", &path, source))?;
    remove_leftovers(&disk, dir)?;

    let wal = Wal {
        disk,
        dir: dir.into(),
        options,
        metadata: recovered.metadata.clone(),
        segments,
        file,
        offset,
        encoder: Encoder { buffer: Vec::new(), crc },
        hard_state: recovered.hard_state,
        mark: recovered.mark,
        conf_state: recovered.conf_state.clone(),
        // The state machine may be ahead of the log: a state was taken over and its mark not yet written.
        terms: if terms.last() < from { Terms::ending_at(from) } else { terms },
        synced: offset,
        written_bytes: 0,
        barrier_due: true,
        prepared: None,
        broken: None,
    };
    Ok((wal, recovered))
}

/// What is in the files of a log, and what is needed to go on with them.
pub(super) struct Contents<F> {
    segments: Vec<Segment>,
    /// The last segment, where it ends, and the checksum up to there.
    file: F,
    offset: u64,
    crc: u32,
    terms: Terms,
    pub(super) recovered: Recovered,
}

/// Reads a log, and changes nothing.
pub(super) fn load<D: Disk>(disk: &D, dir: &Path, from: Index) -> Result<Contents<D::File>, Fault> {
    let segments = segment::list(disk, dir)?;
    let Some(&last) = segments.last() else {
        return Err(Fault::Unusable { path: dir.into(), what: "it holds no log".into() });
    };
    segment::check_chain(dir, &segments)?;
    let start = first_to_read(dir, &segments, from)?;
    let mut found = Found::after(from, segments[start]);
    let mut bytes = Vec::new();
    let mut crc = None;
    for &sealed in &segments[start..segments.len() - 1] {
        read(disk, dir, sealed, &mut bytes)?;
        crc = Some(read_sealed(dir, sealed, &bytes, crc, &mut found)?);
    }
    let file = read(disk, dir, last, &mut bytes)?;
    let Tail { offset, crc, cut } = read_last(dir, last, &bytes, crc, &mut found)?;
    drop(bytes);
    found.settle(dir, last)?;
    let (mark, conf_state) = match found.latest_mark() {
        Some(mark) => mark,
        None => earlier_mark(disk, dir, &segments[..start], &found)?,
    };
    let metadata = found.metadata.expect("checked above");
    let start_term = found.terms.at(found.start);
    let (hard_state, start, entries) = (found.hard_state, found.start, found.entries);
    let recovered = Recovered { metadata, hard_state, mark, conf_state, start, start_term, entries, cut };
    Ok(Contents { segments, file, offset, crc, terms: found.terms, recovered })
}

/// The latest segment that starts at or before the first wanted entry: when it was begun, the log ended just before its name. The
/// entry at `from` is wanted too, if it is there, for its term.
fn first_to_read(dir: &Path, segments: &[Segment], from: Index) -> Result<usize, Fault> {
    let begins_by = |index: Index| segments.iter().rposition(|segment| segment.first <= index);
    begins_by(from).or_else(|| begins_by(from.next())).ok_or_else(|| {
        let what = format!("the log starts here, but the state ends at {from}; restore this member from the others");
        Fault::Damaged { path: segment::path(dir, segments[0]), offset: None, what }
    })
}

fn read<D: Disk>(disk: &D, dir: &Path, segment: Segment, bytes: &mut Vec<u8>) -> Result<D::File, Fault> {
    let path = segment::path(dir, segment);
    let file = disk.open(&path).map_err(|source| Fault::io("open", &path, source))?;
    let mut whole = || {
        let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
        bytes.resize(len, 0);
        let mut filled = 0;
        while filled < len {
            match file.read_at(filled as u64, &mut bytes[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    };
    whole().map_err(|source| Fault::io("read", &path, source))?;
    Ok(file)
}

/// Where the last segment ends.
struct Tail {
    offset: u64,
    crc: u32,
    cut: Option<Cut>,
}

fn read_last(dir: &Path, last: Segment, bytes: &[u8], crc: Option<u32>, found: &mut Found) -> Result<Tail, Fault> {
    let damaged = |offset: usize, what: String| damaged(dir, last, offset, what);
    let mut reader = Reader::new(bytes, crc);
    let mut has_head = false;
    let why = loop {
        let offset = reader.offset;
        match reader.next() {
            Ok(Some(record)) => {
                found.absorb(&record).map_err(|what| damaged(offset, what))?;
                has_head |= record.kind == Kind::Metadata;
            }
            Ok(None) => break "a missing record before data",
            Err(damage) if damage.torn => break damage.what,
            Err(damage) => return Err(damaged(damage.offset, damage.what.into())),
        }
    };
    // The head was synced before the file got its name.
    let Some(crc) = reader.crc.filter(|_| has_head) else {
        return Err(damaged(reader.offset, format!("{why}, in the head of the segment")));
    };
    let offset = reader.offset as u64;
    let Some(torn_bytes) = reader.data_after() else { return Ok(Tail { offset, crc, cut: None }) };
    if let Some(barrier) = reader.barrier_after() {
        return Err(damaged(reader.offset, format!("{why}, though all before byte {barrier} had been synced")));
    }
    let cut = Cut { file: segment::path(dir, last), offset, bytes: torn_bytes as u64 };
    Ok(Tail { offset, crc, cut: Some(cut) })
}

/// Returns the checksum at the segment's end.
fn read_sealed(dir: &Path, sealed: Segment, bytes: &[u8], crc: Option<u32>, found: &mut Found) -> Result<u32, Fault> {
    let damaged = |offset: usize, what: String| damaged(dir, sealed, offset, what);
    let mut reader = Reader::new(bytes, crc);
    loop {
        let offset = reader.offset;
        match reader.next() {
            Ok(Some(record)) => found.absorb(&record).map_err(|what| damaged(offset, what))?,
            Ok(None) => break,
            Err(damage) => return Err(damaged(damage.offset, damage.what.into())),
        }
    }
    match reader.crc {
        Some(crc) if reader.data_after().is_none() => Ok(crc),
        _ => Err(damaged(reader.offset, "a missing record in a sealed segment".into())),
    }
}

/// The latest committed mark of the segments that need not be read for their entries. Logs of ours repeat the mark at the
/// head of each segment, so this walk is for logs that etcd wrote.
fn earlier_mark<D: Disk>(
    disk: &D,
    dir: &Path,
    segments: &[Segment],
    found: &Found,
) -> Result<(Mark, ConfState), Fault> {
    let mut bytes = Vec::new();
    for &sealed in segments.iter().rev() {
        read(disk, dir, sealed, &mut bytes)?;
        // Nothing but marks is wanted: entries up to the end of the numbers count as applied.
        let mut earlier = Found::after(Index(u64::MAX - 1), sealed);
        read_sealed(dir, sealed, &bytes, None, &mut earlier)?;
        earlier.hard_state = found.hard_state;
        if let Some(mark) = earlier.latest_mark() {
            return Ok(mark);
        }
    }
    Ok((Mark::default(), ConfState::default()))
}

/// A next segment that was made ready and not used, and one whose space was being given back.
fn remove_leftovers<D: Disk>(disk: &D, dir: &Path) -> Result<(), Fault> {
    [segment::NEXT, segment::GONE].map(|name| dir.join(name)).into_iter().try_for_each(|leftover| {
        match disk.remove(&leftover) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Fault::io("remove", leftover, source)),
            _ => Ok(()),
        }
    })
}

fn damaged(dir: &Path, segment: Segment, offset: usize, what: String) -> Fault {
    Fault::Damaged { path: segment::path(dir, segment), offset: Some(offset as u64), what }
}

/// What the records add up to.
struct Found {
    from: Index,
    metadata: Option<Bytes>,
    hard_state: HardState,
    marks: Vec<(Mark, ConfState)>,
    /// `from`, or a later mark that emptied the log.
    start: Index,
    /// `entries[i]` has index `start + 1 + i`.
    entries: Vec<Entry>,
    terms: Terms,
}

impl Found {
    /// Before the first record of `segment` is read.
    fn after(from: Index, segment: Segment) -> Found {
        Found {
            from,
            metadata: None,
            hard_state: HardState::default(),
            marks: Vec::new(),
            start: from,
            entries: Vec::new(),
            terms: Terms::ending_at(segment.first.previous().unwrap_or_default()),
        }
    }

    /// Adds one record. `Err` says why the log can't be right.
    fn absorb(&mut self, record: &Record<'_>) -> Result<(), String> {
        match record.kind {
            Kind::Metadata => self.metadata(record.data),
            Kind::Entry => self.entry(record::entry(record.data).ok_or("not an entry")?),
            Kind::State => self.state(record::state(record.data).ok_or("not a hard state")?),
            Kind::Mark => {
                let (mark, conf_state) = record::mark(record.data).ok_or("not a snapshot mark")?;
                self.mark(mark, conf_state)
            }
            // The reader has compared it already.
            Kind::Crc => Ok(()),
        }
    }

    fn metadata(&mut self, data: &[u8]) -> Result<(), String> {
        match &self.metadata {
            Some(metadata) if metadata[..] != *data => Err("metadata differs from that of earlier segments".into()),
            _ => {
                self.metadata = Some(Bytes::copy_from_slice(data));
                Ok(())
            }
        }
    }

    fn state(&mut self, state: HardState) -> Result<(), String> {
        if state.term < self.hard_state.term {
            return Err(format!("term {} after term {}", state.term, self.hard_state.term));
        }
        self.hard_state = state;
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), String> {
        let (base, last) = (self.terms.base(), self.terms.last());
        if entry.index.previous() > Some(last) {
            return Err(format!("entry {} follows entry {last}: those between are missing", entry.index));
        }
        if entry.index <= base {
            return Err(format!("entry {} comes after the log was emptied up to {base}", entry.index));
        }
        let before = entry.index.previous().and_then(|index| self.terms.at(index)).unwrap_or_default();
        if entry.term < before {
            return Err(format!("entry {} of term {} follows one of term {before}", entry.index, entry.term));
        }
        // An entry that is not committed may be replaced by one of an older term: a new leader has the older one in its log, and
        // opens its own term after it. Only neighbours have their terms in order.
        let known = self.terms.at(entry.index).filter(|_| entry.index <= self.hard_state.commit);
        if let Some(old) = known.filter(|old| *old != entry.term) {
            return Err(format!("entry {} of term {old} replaced by one of term {}", entry.index, entry.term));
        }
        self.terms.write(entry.index, entry.term);
        if entry.index <= self.from {
            self.entries.clear();
            return Ok(());
        }
        let at = usize::try_from(entry.index.0 - self.start.0 - 1).map_err(|_| "an index out of reach")?;
        assert!(at <= self.entries.len(), "terms and entries disagree about where the log ends");
        self.entries.truncate(at);
        self.entries.push(entry);
        Ok(())
    }

    fn mark(&mut self, mark: Mark, conf_state: ConfState) -> Result<(), String> {
        if let Some(what) = self.terms.contradiction(&mark, self.hard_state.commit) {
            return Err(what);
        }
        if self.terms.is_emptied_by(&mark) {
            self.entries.clear();
            self.start = mark.index.max(self.from);
        }
        self.terms.mark(&mark);
        self.marks.push((mark, conf_state));
        Ok(())
    }

    fn latest_mark(&self) -> Option<(Mark, ConfState)> {
        self.marks.iter().rev().find(|(mark, _)| mark.index <= self.hard_state.commit).cloned()
    }

    /// What only the whole log can tell.
    fn settle(&mut self, dir: &Path, last: Segment) -> Result<(), Fault> {
        let damaged = |what: String| Err(Fault::Damaged { path: segment::path(dir, last), offset: None, what });
        if self.metadata.is_none() {
            return damaged("the log has no metadata".into());
        }
        // What is taken over was committed, and the record that says so comes after the mark.
        self.hard_state.commit = self.hard_state.commit.max(self.terms.base());
        let end = self.start.0 + self.entries.len() as u64;
        if self.hard_state.commit.0 > end {
            return damaged(format!("committed up to {}, but the log ends at {end}", self.hard_state.commit));
        }
        Ok(())
    }
}
