//! One range of upstream, held as a small store: events in, answers out. It knows neither time nor network; a feed brings what comes.
//!
//! A [`Copy`] is what readers and watchers hold; a [`Writer`] is what the feed holds. A copy lives as long as its history has no hole:
//! then it is *over*, for good, and another one takes its place. Whoever waits or watches on it is told.

use super::{fence::Proof, shelf::Stamp};
use crate::{
    engine::{Batch, Engine, Volatile},
    mvcc::{Diverged, Event, KeyValue, Loader, Reader, Store},
    server::Header,
    types::{Fault, Key, KeyRange, Revision},
    watch::{self as hub, Hub},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{
            AtomicI64, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};
use tokio::sync::watch;

/// Rows that one step of the sweep removes.
const SWEEP_ROWS: usize = 256;

/// What a key costs in the index, about; its rows are counted by the engine.
const KEY_BYTES: usize = 160;

/// What an event costs beside its key and value.
const EVENT_BYTES: usize = 160;

/// How much history a copy keeps. It may keep a quarter more before it forgets some, so that each walk over the keys is worth it.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Revisions with events.
    pub revisions: usize,
    /// Bytes of events, about.
    pub bytes: usize,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { revisions: 10_000, bytes: 64 << 20 }
    }
}

/// When a copy is known to have been current, by what it began with.
#[derive(Clone, Copy, Debug)]
pub enum Known {
    /// The read that it began with was sent then, since the ring began.
    At(Duration),
    /// It lay on disk, and was current then.
    Saved(Stamp),
}

/// A range of upstream, as of some revision, with what has happened there lately.
pub struct Copy {
    range: KeyRange,
    reader: Reader,
    hub: Hub,
    /// The first revision whose events are all here.
    first: Revision,
    known: Known,
    level: watch::Receiver<Revision>,
    wanted: watch::Sender<Revision>,
    over: watch::Sender<bool>,
    header: Mutex<Header>,
    engine: Arc<Volatile>,
    /// Reads that it has answered, and reads of its keys that it could not answer.
    hits: AtomicU64,
    misses: AtomicU64,
    /// Upstream was asked to compact up to here, as far as is known.
    compacted: AtomicI64,
    /// Events that have come.
    events: AtomicU64,
}

impl Copy {
    /// The keys that are here.
    pub fn range(&self) -> &KeyRange {
        &self.range
    }

    /// Reads; only of keys in the range.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Where watchers attach: those of keys in the range, from a revision on that [`Copy::has_history`] knows.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The revision up to which everything is here, readers and watchers included. The sender is gone once the copy is over.
    pub fn level(&self) -> watch::Receiver<Revision> {
        self.level.clone()
    }

    /// The revision up to which everything is here now.
    pub fn revision(&self) -> Revision {
        *self.level.borrow()
    }

    /// What stands in the headers of answers from here: upstream's, at the revision of now.
    pub fn header(&self) -> Header {
        self.header.lock().at(self.revision())
    }

    /// Whether all events from revision `start` on are here. A start of 0 is now, and so always. What upstream was asked to forget is
    /// upstream's to speak of, and at the very revision of a compaction what was replaced is gone.
    pub fn has_history(&self, start: Revision) -> bool {
        let compacted = self.reader.compacted().max(self.compacted());
        start == Revision(0) || start >= self.first && start > compacted
    }

    /// Upstream was asked to forget what is before `revision`.
    pub fn forget(&self, revision: Revision) {
        self.compacted.fetch_max(revision.0, Relaxed);
    }

    /// Memory taken, about.
    pub fn bytes(&self) -> usize {
        self.engine.bytes() + self.reader.keys_total() * KEY_BYTES
    }

    /// A read of keys that are here was answered, or not.
    pub fn count(&self, is_hit: bool) {
        let counter = if is_hit { &self.hits } else { &self.misses };
        counter.fetch_add(1, Relaxed);
    }

    /// How many reads it has answered, and how many it could not.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits.load(Relaxed), self.misses.load(Relaxed))
    }

    /// Upstream was asked to compact up to here, as far as is known.
    pub fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Relaxed))
    }

    /// When the copy is known to have been current, whatever upstream has proven since.
    pub fn known(&self) -> Known {
        self.known
    }

    /// Events that have come since the load; the level is at or beyond the last of them.
    pub fn events(&self) -> u64 {
        self.events.load(Acquire)
    }

    /// Ends the copy: its history has a hole, or is not upstream's any more.
    pub fn end(&self) {
        self.over.send_replace(true);
    }

    /// Whether the copy has ended.
    pub fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Becomes `true` when the copy ends.
    pub fn ended(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// Returns once the copy has ended. Whoever watches here goes on elsewhere, from what it saw last.
    pub async fn over(&self) {
        // The sender is in `self`.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Asks the feed to get as far as `revision`, if it is not: other keys may have been written, of which it does not hear.
    pub fn want(&self, revision: Revision) {
        self.wanted.send_if_modified(|wanted| {
            let is_news = revision > *wanted;
            *wanted = revision.max(*wanted);
            is_news
        });
    }

    /// The furthest revision that anybody has wanted.
    pub fn wanted(&self) -> watch::Receiver<Revision> {
        self.wanted.subscribe()
    }

    /// Waits until the copy has reached `revision`. False if it ends first, or `wait_max` passes.
    pub async fn reach(&self, revision: Revision, wait_max: Duration) -> bool {
        if self.revision() >= revision {
            return true;
        }
        self.want(revision);
        let mut level = self.level();
        let reached = level.wait_for(|level| *level >= revision);
        let reached = tokio::time::timeout(wait_max, reached).await;
        matches!(reached, Ok(Ok(_)))
    }

    /// Whether what upstream said just now can be of the same history. `before` is a revision that the copy had before upstream was
    /// asked: no linearizable read goes below what was committed before it.
    pub fn agrees(&self, before: Revision, proof: &Proof) -> bool {
        proof.header.revision >= before && proof.header.cluster_id == self.header.lock().cluster_id
    }

    /// Why what upstream said cannot be of the same history.
    pub fn disagreement(&self, proof: &Proof) -> String {
        let (own, theirs) = (self.header(), proof.header);
        match own.cluster_id == theirs.cluster_id {
            true => {
                format!("upstream is at revision {}, and was at {}: it was restored", theirs.revision, own.revision)
            }
            false => format!("upstream is cluster {:x}, and was {:x}", theirs.cluster_id.0, own.cluster_id.0),
        }
    }
}

/// A copy on its way: pages of a range at one revision.
pub struct Loading {
    range: KeyRange,
    header: Header,
    known: Known,
    engine: Arc<Volatile>,
    loader: Loader,
    last_key: Option<Key>,
    keys: usize,
}

impl Loading {
    /// Begins with nothing of `range`, as of the revision of `proof`.
    pub fn new(range: KeyRange, proof: Proof) -> Loading {
        Loading::of(range, proof.header, Known::At(proof.sent_at))
    }

    /// The same for what lay on disk: as of the revision of `header`, and current at `stamp`.
    pub fn of_old(range: KeyRange, header: Header, stamp: Stamp) -> Loading {
        Loading::of(range, header, Known::Saved(stamp))
    }

    fn of(range: KeyRange, header: Header, known: Known) -> Loading {
        let engine = Arc::new(Volatile::default());
        let loader = Loader::new(engine.clone(), header.revision);
        Loading { range, header, known, engine, loader, last_key: None, keys: 0 }
    }

    /// The revision of all pages.
    pub fn revision(&self) -> Revision {
        self.header.revision
    }

    /// Whether a page with this header can belong to it.
    pub fn is_of(&self, header: &Header) -> bool {
        header.cluster_id == self.header.cluster_id
    }

    /// What has not come yet.
    pub fn rest(&self) -> KeyRange {
        let Some(last) = &self.last_key else { return self.range.clone() };
        let start = Bytes::from([last, &[0][..]].concat());
        match &self.range {
            KeyRange::Span { end, .. } => KeyRange::Span { start, end: end.clone() },
            KeyRange::One(_) | KeyRange::From(_) => KeyRange::From(start),
        }
    }

    /// Takes the next keys in.
    pub fn page(&mut self, kvs: &[KeyValue]) -> Result<Result<(), Diverged>, Fault> {
        if let Some(alien) = kvs.iter().find(|kv| !self.range.contains(&kv.key)) {
            let what = "has a key that nobody asked for";
            return Ok(Err(Diverged { revision: self.revision(), key: alien.key.clone(), what }));
        }
        if let Some(last) = kvs.last() {
            self.last_key = Some(Bytes::copy_from_slice(&last.key));
        }
        self.keys += kvs.len();
        self.loader.add(kvs)
    }

    /// Memory taken, about.
    pub fn bytes(&self) -> usize {
        self.engine.bytes() + self.keys * KEY_BYTES
    }

    /// The copy, complete as of its revision.
    pub fn finish(self, keep: Keep, options: hub::Options) -> Result<Writer, Fault> {
        let Loading { range, header, known, engine, loader, .. } = self;
        let store = loader.finish()?;
        let options = hub::Options { is_partial: true, ..options };
        let revision = store.current();
        let (level, received) = watch::channel(revision);
        let copy = Arc::new(Copy {
            range,
            reader: store.reader(),
            hub: Hub::new(store.reader(), options),
            first: revision.next(),
            known,
            level: received,
            wanted: watch::Sender::new(revision),
            over: watch::Sender::new(false),
            header: Mutex::new(header),
            engine: Arc::clone(&engine),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            compacted: AtomicI64::new(0),
            events: AtomicU64::new(0),
        });
        Ok(Writer { copy, store, engine, level, keep, kept: VecDeque::new(), kept_bytes: 0, is_sweeping: false })
    }
}

/// The half of a copy that changes it. There is one; when it is dropped the copy is over.
pub struct Writer {
    copy: Arc<Copy>,
    store: Store,
    engine: Arc<Volatile>,
    level: watch::Sender<Revision>,
    keep: Keep,
    /// Revisions with events that are kept, and their bytes.
    kept: VecDeque<(Revision, usize)>,
    kept_bytes: usize,
    is_sweeping: bool,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.copy.end();
    }
}

impl Writer {
    /// The other half.
    pub fn copy(&self) -> &Arc<Copy> {
        &self.copy
    }

    /// The revision up to which everything is here.
    pub fn revision(&self) -> Revision {
        self.store.current()
    }

    /// Memory taken, about.
    pub fn bytes(&self) -> usize {
        self.copy.bytes()
    }

    /// Takes in what happened: whole revisions, ascending. Readers see it, then watchers, then those who wait for the level.
    ///
    /// # Errors
    /// [`Diverged`] if it does not follow from what is here. Then the copy is of no use any more.
    pub fn events(&mut self, events: Vec<(Revision, Vec<Event>)>) -> Result<Result<(), Diverged>, Fault> {
        let mut published = Vec::with_capacity(events.len());
        for (revision, events) in events {
            if let Some(alien) = events.iter().find(|event| !self.copy.range.contains(&event.kv.key)) {
                let what = "has a key that nobody asked for";
                return Ok(Err(Diverged { revision, key: alien.kv.key.clone(), what }));
            }
            let cost = |event: &Event| event.kv.key.len() + event.kv.value.len() + EVENT_BYTES;
            let bytes = events.iter().map(cost).sum();
            let mut batch = Batch::default();
            let events = match self.store.repeat(revision, events, &mut batch)? {
                Ok(events) => events,
                Err(diverged) => return Ok(Err(diverged)),
            };
            self.engine.write(batch)?;
            self.kept.push_back((revision, bytes));
            self.kept_bytes += bytes;
            published.push((revision, events));
        }
        let count: usize = published.iter().map(|(_, events)| events.len()).sum();
        self.publish(published);
        // After the level: whoever reads this first, and then the level, has them all.
        self.copy.events.fetch_add(count as u64, Release);
        Ok(Ok(()))
    }

    /// Nothing more will come up to `upto`. What is below the level changes nothing: it comes from a member that lags behind.
    pub fn progress(&mut self, upto: Revision) {
        if upto > self.store.current() {
            self.store.advance(upto);
            self.publish(Vec::new());
        }
    }

    fn publish(&mut self, events: Vec<(Revision, Vec<Event>)>) {
        let current = self.store.current();
        self.store.publish();
        self.copy.hub.publish(events, current);
        self.level.send_replace(current);
    }

    /// It lay on disk, and was current at `stamp`, later than was said at first. For a copy that nobody has seen.
    pub(super) fn was_current_at(&mut self, stamp: Stamp) {
        let copy = Arc::get_mut(&mut self.copy).expect("nobody has seen a copy that is being read from disk");
        copy.known = Known::Saved(stamp);
    }

    /// Upstream said this about itself. False if it is another cluster.
    pub fn heard(&mut self, header: &Header) -> bool {
        let mut known = self.copy.header.lock();
        if known.cluster_id != header.cluster_id {
            return false;
        }
        (known.member_id, known.term) = (header.member_id, known.term.max(header.term));
        true
    }

    /// Forgets history beyond what is to be kept, a little at a time. True: call again.
    pub fn tidy(&mut self) -> Result<bool, Fault> {
        if !self.is_sweeping && !self.forget()? {
            return Ok(false);
        }
        self.is_sweeping = self.copy.reader.compact_step(SWEEP_ROWS)?;
        Ok(self.is_sweeping)
    }

    /// Moves the mark of compaction, if there is much more than should be kept. Whether it did.
    fn forget(&mut self) -> Result<bool, Fault> {
        let Keep { revisions, bytes } = self.keep;
        if self.kept.len() <= revisions + revisions / 4 && self.kept_bytes <= bytes + bytes / 4 {
            return Ok(false);
        }
        let mut mark = None;
        while self.kept.len() > revisions || self.kept_bytes > bytes {
            let Some((revision, cost)) = self.kept.pop_front() else { break };
            self.kept_bytes -= cost;
            mark = Some(revision);
        }
        let Some(mark) = mark else { return Ok(false) };
        let mut batch = Batch::default();
        // At the mark itself everything can be read still, so what was replaced next has its earlier version.
        if self.store.compact(mark, &mut batch).is_err() {
            return Ok(false);
        }
        self.engine.write(batch)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
