//! Saves the copies of a proxy from time to time.
//!
//! A copy is written whole once; then what happened to it is appended, and now and then that nothing did. It is written anew when what was
//! appended is as much as the rest. So the disk sees about twice what upstream changes, and a few bytes a minute where nothing does.

use super::{
    Shelf, Stamp, WRITING,
    format::{Encoder, End, Head, Note, Record},
};
use crate::{
    mvcc::{Event, EventKind, KeyValue},
    pb::mvccpb,
    proxy::{copies::Ground, copy::Copy},
    runtime,
    server::convert,
    types::{KeyRange, Revision},
};
use std::{
    collections::{HashMap, VecDeque},
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::Instant;

/// How often copies are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether there may be copies at all.
const LOCK_EVERY: Duration = Duration::from_millis(500);
/// How often a copy that does not change is known to be current.
const NOTE_EVERY: Duration = Duration::from_secs(30);
/// What is appended to a small copy before it is written anew.
const APPENDED_MIN: u64 = 1 << 20;
/// A copy is written whole no more often than so many bytes a second allow, in the long run.
const BYTES_A_SECOND: u64 = 256 << 10;
/// And no faster than this while it is.
const BURST_BYTES_A_SECOND: u64 = 16 << 20;
/// One write.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_KEYS: usize = 4_096;

/// See the module.
pub(in crate::proxy) struct Keeper {
    shelf: Arc<Shelf>,
    ground: Arc<Ground>,
    kept: HashMap<KeyRange, Kept>,
    sleeps: Sleeps,
}

/// A copy that lies on disk.
struct Kept {
    copy: Weak<Copy>,
    file: File,
    encoder: Encoder,
    /// Everything up to here is in the file.
    revision: Revision,
    /// Events that the copy had had by then.
    events: u64,
    /// Upstream had nothing else by then, since the ring began.
    known: Duration,
    whole_bytes: u64,
    appended_bytes: u64,
    written_at: Instant,
}

/// Up to where a copy is to be saved.
#[derive(Clone, Copy)]
struct Upto {
    revision: Revision,
    events: u64,
    known: Duration,
    stamp: Stamp,
}

/// Why nothing could be appended.
enum Unappended {
    /// The copy does not have all that is missing in the file.
    TooFar,
    Io(io::Error),
}

impl Keeper {
    pub(in crate::proxy) fn new(shelf: Arc<Shelf>, ground: Arc<Ground>) -> Keeper {
        Keeper { shelf, ground, kept: HashMap::new(), sleeps: Sleeps::new() }
    }

    /// Never returns.
    pub(in crate::proxy) async fn run(mut self) {
        let mut look_at = Instant::now();
        let mut was_locked = false;
        loop {
            tokio::time::sleep(LOCK_EVERY).await;
            let is_locked = self.ground.fence.is_locked() || self.ground.trust.is_guarded();
            if is_locked && !was_locked {
                tracing::warn!("upstream has authentication enabled: saved copies are removed");
            }
            if is_locked {
                self.clear().await;
            } else if look_at <= Instant::now() {
                look_at = Instant::now() + LOOK_EVERY;
                self.look().await;
            }
            was_locked = is_locked;
        }
    }

    async fn clear(&mut self) {
        self.kept.clear();
        let shelf = Arc::clone(&self.shelf);
        // A runtime that ends has no use for the outcome.
        let _ = runtime::spawn_blocking(move || shelf.clear()).await;
    }

    async fn look(&mut self) {
        let places = self.ground.places();
        let wanted: Vec<KeyRange> = places.iter().map(|place| place.range().clone()).collect();
        self.kept.retain(|range, _| wanted.contains(range));
        let shelf = Arc::clone(&self.shelf);
        let _ = runtime::spawn_blocking(move || shelf.keep_only(&wanted)).await;
        let asleep = self.sleeps.look();
        for place in places {
            let Some(copy) = place.copy() else { continue };
            // In this order: what is counted is there.
            let (events, revision) = (copy.events(), copy.revision());
            let fence = &self.ground.fence;
            // One of old is on disk as it is; one that has not been proven yet will be.
            let Some(known) = fence.current_at(revision) else { continue };
            let ago = fence.now().saturating_sub(known) + asleep;
            let upto = Upto { revision, events, known, stamp: Stamp::now().before(ago) };
            let kept = self.kept.remove(place.range());
            let shelf = Arc::clone(&self.shelf);
            let saving = runtime::spawn_blocking(move || shelf.save(&copy, kept, upto));
            match saving.await {
                Ok(Ok(kept)) => drop(self.kept.insert(place.range().clone(), kept)),
                Ok(Err(error)) => tracing::warn!(%error, range = ?place.range(), "a copy cannot be saved"),
                // The runtime ends.
                Err(_) => return,
            }
        }
    }
}

impl Shelf {
    /// Removes copies of other ranges.
    fn keep_only(&self, wanted: &[KeyRange]) {
        let wanted: Vec<_> = wanted.iter().map(|range| self.path(range)).collect();
        self.copies().iter().filter(|path| !wanted.contains(path)).for_each(|path| self.remove_file(path));
    }

    /// Has `copy` on disk up to there, as far as it is time.
    fn save(&self, copy: &Arc<Copy>, kept: Option<Kept>, upto: Upto) -> io::Result<Kept> {
        let Some(mut kept) = kept.filter(|kept| std::ptr::eq(kept.copy.as_ptr(), Arc::as_ptr(copy))) else {
            return self.write(copy, upto);
        };
        let has_changed = kept.events != upto.events;
        if !has_changed && upto.known.saturating_sub(kept.known) < NOTE_EVERY {
            return Ok(kept);
        }
        let may_write = kept.written_at.elapsed().as_secs() >= kept.whole_bytes / BYTES_A_SECOND;
        if kept.appended_bytes > kept.whole_bytes.max(APPENDED_MIN) {
            return if may_write { self.write(copy, upto) } else { Ok(kept) };
        }
        match kept.append(copy, upto) {
            Ok(()) => Ok(kept),
            Err(Unappended::TooFar) if may_write => self.write(copy, upto),
            Err(Unappended::TooFar) => Ok(kept),
            Err(Unappended::Io(error)) => Err(error),
        }
    }

    /// Writes all of `copy`.
    fn write(&self, copy: &Arc<Copy>, upto: Upto) -> io::Result<Kept> {
        let (range, path) = (copy.range(), self.path(copy.range()));
        let unfinished = path.with_extension(WRITING);
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
        let mut file = Paced::new(options.open(&unfinished)?);
        let pin = copy.reader().pin(upto.revision).map_err(|error| io::Error::other(error.text()))?;
        let mut out = Vec::with_capacity(2 * CHUNK_BYTES);
        let mut encoder = Encoder::begin(&mut out);
        encoder.add(Record::Head(Head::new(range, note(copy, upto), copy.compacted().0)), &mut out);
        let (mut rest, mut keys) = (Some(range.clone()), 0);
        while let Some(part) = rest {
            let chunk = copy.reader().chunk(&pin, &part, CHUNK_KEYS, CHUNK_BYTES).map_err(io::Error::other)?;
            keys += chunk.kvs.len() as u64;
            encoder.add(Record::Keys(convert::kvs(chunk.kvs)), &mut out);
            file.write(&out)?;
            out.clear();
            rest = chunk.rest;
        }
        encoder.add(Record::End(End { keys }), &mut out);
        file.write(&out)?;
        file.file.sync_all()?;
        std::fs::rename(&unfinished, &path)?;
        self.sync()?;
        tracing::debug!(?range, revision = %upto.revision, keys, bytes = file.bytes, "a copy is saved");
        Ok(Kept {
            copy: Arc::downgrade(copy),
            encoder,
            revision: upto.revision,
            events: upto.events,
            known: upto.known,
            whole_bytes: file.bytes,
            appended_bytes: 0,
            written_at: Instant::now(),
            file: file.file,
        })
    }
}

impl Kept {
    /// Appends what has happened since, and that there was nothing else.
    fn append(&mut self, copy: &Copy, upto: Upto) -> Result<(), Unappended> {
        let (mut out, mut next) = (Vec::new(), self.revision.next());
        while self.events != upto.events && next <= upto.revision {
            let part = copy.reader().history(next, upto.revision, &|_| true, false, CHUNK_BYTES);
            let part =
                part.map_err(|fault| Unappended::Io(io::Error::other(fault)))?.map_err(|_| Unappended::TooFar)?;
            let events = part.events.into_iter().flat_map(|(_, events)| events).map(event).collect::<Vec<_>>();
            if !events.is_empty() {
                self.encoder.add(Record::Events(events), &mut out);
            }
            next = part.next;
        }
        self.encoder.add(Record::Note(note(copy, upto)), &mut out);
        // A part that is not written whole is no part of the file; who fails here writes another file.
        self.file.write_all(&out).and_then(|()| self.file.sync_data()).map_err(Unappended::Io)?;
        self.appended_bytes += out.len() as u64;
        (self.revision, self.events, self.known) = (upto.revision, upto.events, upto.known);
        Ok(())
    }
}

fn note(copy: &Copy, upto: Upto) -> Note {
    Note::of(&copy.header().at(upto.revision)).at(upto.stamp)
}

fn event(event: Event) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let KeyValue { key, mod_revision, .. } = &event.kv;
    let kv = match event.kind {
        EventKind::Put => convert::kv(event.kv),
        EventKind::Delete => mvccpb::KeyValue { key: key.clone(), mod_revision: mod_revision.0, ..Default::default() },
    };
    mvccpb::Event { r#type: kind.into(), kv: Some(kv), prev_kv: None }
}

/// A file that is written no faster than others can bear.
struct Paced {
    file: File,
    bytes: u64,
    began: Instant,
}

impl Paced {
    fn new(file: File) -> Paced {
        Paced { file, bytes: 0, began: Instant::now() }
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)?;
        self.bytes += chunk.len() as u64;
        let due = Duration::from_secs_f64(self.bytes as f64 / BURST_BYTES_A_SECOND as f64);
        // The first chunk is free: most copies are no more.
        if self.bytes > CHUNK_BYTES as u64 {
            std::thread::sleep(due.saturating_sub(self.began.elapsed()));
        }
        Ok(())
    }
}

/// How long the machine has slept lately: the clock that proofs are told by stands still meanwhile.
struct Sleeps {
    began: (Instant, Stamp),
    /// How much more the machine's clock had gone, the last few times that somebody looked.
    seen: VecDeque<Duration>,
}

impl Sleeps {
    fn new() -> Sleeps {
        Sleeps { began: (Instant::now(), Stamp::now()), seen: VecDeque::new() }
    }

    /// What is to be added to an age that may go back to one of the last looks.
    fn look(&mut self) -> Duration {
        const LOOKS: usize = 24;
        let (began, stamp) = &self.began;
        let asleep = stamp.age(&Stamp::now()).saturating_sub(began.elapsed());
        self.seen.push_back(asleep);
        if self.seen.len() > LOOKS {
            self.seen.pop_front();
        }
        asleep.saturating_sub(self.seen[0])
    }
}

#[cfg(test)]
mod tests;
