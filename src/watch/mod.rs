//! The hub: committed events in, streams of replies out.
//!
//! **Promises.** A watcher sees each event of its keys once, in the order of revisions, without a gap, from its first revision on:
//! or it is told that the history is compacted. What a stream holds back is bounded in bytes; a watcher that is beyond the bound
//! falls *behind*, reads history until it is level, and costs nobody else anything: [`Hub::publish`] never waits for a reader. Each
//! event is matched once and encoded once, whoever listens. Progress is never ahead of events.
//! **May not know** requests, users, or time: who holds a stream says when an interval is over.
//!
//! ```text
//!   apply thread ── publish ──▶ matcher ──▶ queue of each stream ─┐
//!                                   ▲ │ bound reached             ├─▶ Deliveries::poll ── replies ──▶ the wire
//!   requests ── Control::create ────┘ ▼                           │        │ ▲
//!                  (start in the past) behind ── Job::run: history ┘ ◀──────┘ │ on a thread that may block
//!                                                   level again: back to the matcher
//! ```
//!
//! A *live* watcher is in the matcher. One that is behind is in its stream's *cohort*: all of them read history together. The hub's
//! *level* is the revision up to which all live watchers have their events in their streams' queues. It may be a little below the
//! store's current revision, never above.
//!
//! **Threads.** The hub has none. A member makes one hub with its store ([`Hub::new`], before anything is applied), and its apply
//! thread publishes each batch: after readers can see it, before those who asked for it hear, so that whoever writes and then
//! watches from now on is not told of that write. Each stream is polled by a task of its own, which runs its [`Job`]s, one at a
//! time, where blocking is allowed, and brings back what they find. Nobody has to tell the hub of compactions: it asks the store
//! when a watcher reads history, and whoever is live needs nothing that a compaction can take.
//!
//! Locks: the hub's first, then a stream's; never two streams' at once.

mod batch;
mod catch_up;
mod control;
mod encode;
mod held;
mod interval;
mod matcher;
mod progress;
mod slots;
mod subscriber;

#[cfg(test)]
mod tests;

pub use catch_up::{Done, Job};
pub use control::Control;
pub use encode::NO_WATCHER;
pub use subscriber::{Deliveries, Turn};

use crate::{
    mvcc::{Event, Reader},
    types::{KeyRange, Revision},
};
use batch::{EventItem, Happening, Wants};
use bytes::Bytes;
use catch_up::Member;
use held::Held;
use matcher::{Matcher, Place};
use parking_lot::Mutex;
use slots::Slots;
use std::{
    collections::BTreeSet,
    mem::size_of,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    task::Waker,
};
use subscriber::{Item, Subscriber};

/// The bounds of a hub.
#[derive(Clone, Debug)]
pub struct Options {
    /// What a stream may hold back, in bytes, before its watchers fall behind. One revision always fits.
    pub stream_bytes_max: usize,
    /// What all streams together may hold back, in bytes. Beyond it each has an equal part, and watchers of streams that hold back more fall
    /// behind.
    pub bytes_max: usize,
    /// `max-request-bytes`: replies above it are split for watchers that ask for fragments.
    pub reply_bytes_max: usize,
    /// About the most bytes of history that a stream has in hand at once.
    pub history_bytes_max: usize,
    /// Revisions behind the hub's level at which watchers go live and have the rest read while their stream's queue is held.
    pub near_revisions: i64,
    /// Most watchers of all streams together; more are refused.
    pub watchers_max: usize,
    /// Replies to creates and cancels that a stream holds back before it stops to read requests.
    pub controls_max: usize,
    /// The store is a copy of a part of another one, so that most revisions have no events here: one that is left out between two
    /// is none that was missed.
    pub is_partial: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            stream_bytes_max: 4 << 20,
            bytes_max: 512 << 20,
            reply_bytes_max: 3 << 19,
            history_bytes_max: 1 << 20,
            near_revisions: 1_000,
            watchers_max: 10_000_000,
            controls_max: 128 << 10,
            is_partial: false,
        }
    }
}

/// What a watcher is to watch.
#[derive(Clone, Debug)]
pub struct WatchSpec {
    /// The id that the client chose; `None`: the next free one, from 0.
    pub id: Option<i64>,
    /// Which keys.
    pub range: KeyRange,
    /// First revision; 0 is the one after the current.
    pub start: Revision,
    /// Leaves puts out.
    pub no_put: bool,
    /// Leaves deletes out.
    pub no_delete: bool,
    /// Adds what an event replaced, where that is still in history.
    pub prev_kv: bool,
    /// Splits replies above [`Options::reply_bytes_max`].
    pub fragment: bool,
    /// Wants to hear of progress after each interval without events.
    pub progress_notify: bool,
}

/// A reply on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The watcher exists. Comes before its events.
    Created {
        /// Of the watcher.
        id: i64,
        /// Of the store then; a watcher without a start begins after it.
        revision: Revision,
    },
    /// The watcher does not exist.
    Refused {
        /// Of the store then.
        revision: Revision,
        /// Why, in etcd's words.
        reason: String,
    },
    /// What happened, in the order of revisions.
    Events {
        /// Of the watcher.
        id: i64,
        /// Of the store: at or above those of the events.
        revision: Revision,
        /// Of the last event. The watcher has had all that it is owed up to here, unless the rest follows.
        last: Revision,
        /// Each as the field `events` of a `WatchResponse`, tag and length included. Shared with other streams.
        events: Vec<Bytes>,
        /// The rest of the last revision follows.
        fragment: bool,
    },
    /// The watcher exists no more.
    Canceled {
        /// Of the watcher.
        id: i64,
        /// Of the store then.
        revision: Revision,
        /// Set if what the watcher needed is compacted: watching can begin again here.
        compacted: Option<Revision>,
        /// Set if it was ended by somebody else than the client.
        reason: Option<String>,
    },
    /// No event at or below this revision will follow on the stream.
    Progress {
        /// The watcher that wanted to know in each quiet interval; `None` answers a request, for all watchers.
        id: Option<i64>,
        /// How far the stream is.
        revision: Revision,
    },
}

/// How much a hub has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open streams.
    pub streams: usize,
    /// Watchers of all streams.
    pub watchers: usize,
    /// Those of them that are behind.
    pub behind: usize,
}

/// What waits to be sent, of all streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Events, one for each watcher that is to have it. Those that are already made into replies count as bytes alone.
    pub events: usize,
    /// Bytes; of each stream at most [`Options::stream_bytes_max`] and one revision.
    pub bytes: usize,
}

/// The hub. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    reader: Reader,
    options: Options,
    /// Stored after the queues of all streams have what it promises.
    level: AtomicI64,
    behind: AtomicUsize,
    watchers: AtomicUsize,
    /// Those of them that want to know what events have replaced. The store reads that only for them.
    prev_watchers: Arc<AtomicUsize>,
    held: Arc<Held>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    matcher: Matcher,
    /// Live ones.
    watchers: Slots<Watcher>,
    streams: Slots<Outlet>,
    /// Streams that the publish under way has something for.
    touched: Vec<u32>,
    /// Watchers that the revision under way has no room for.
    falling: Vec<u32>,
    /// Which stream wants to look again at which level.
    waiting: BTreeSet<(i64, u32)>,
    /// Events seen, to number them.
    events: u64,
}

/// A live watcher.
struct Watcher {
    id: i64,
    /// Tells it from an earlier watcher of the same stream and id.
    serial: u64,
    /// Events below are not for it.
    next: i64,
    stream: u32,
    place: Place,
    wants: Wants,
    falling: bool,
}

/// The hub's side of a stream.
struct Outlet {
    subscriber: Arc<Subscriber>,
    /// For the queue, at the end of the publish under way.
    staged: Vec<Item>,
    staged_bytes: usize,
    fallen: Vec<Member>,
    /// The revision for which it was decided whether there is room.
    decided_at: i64,
    is_full: bool,
    /// The last event that was counted in `staged_bytes`: its bytes are shared, so they count once a stream.
    counted: u64,
}

const ITEM_BYTES: usize = size_of::<Item>();

impl Hub {
    /// A hub over the store of `reader`. From the current revision on, [`Hub::publish`] has to tell it of each.
    pub fn new(reader: Reader, options: Options) -> Hub {
        Hub::on_demand(reader, options, Arc::default())
    }

    /// The same over a store that reads what puts replace only while `prev_watchers` is not 0: [`mvcc::Store::prevs_on_demand`]. Watchers
    /// that want it and come while events without it are on their way read those from history.
    ///
    /// [`mvcc::Store::prevs_on_demand`]: crate::mvcc::Store::prevs_on_demand
    pub fn on_demand(reader: Reader, options: Options, prev_watchers: Arc<AtomicUsize>) -> Hub {
        let level = AtomicI64::new(reader.current().0);
        let shared = Shared {
            reader,
            options,
            level,
            behind: AtomicUsize::new(0),
            watchers: AtomicUsize::new(0),
            prev_watchers,
            held: Arc::default(),
            state: Mutex::default(),
        };
        Hub { shared: Arc::new(shared) }
    }

    /// Whether this is the same hub, and not one like it.
    pub fn is(&self, other: &Hub) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The current revision of the store.
    pub fn revision(&self) -> Revision {
        self.shared.reader.current()
    }

    /// Opens a stream: the half that takes requests, and the half that gives replies. When the latter is dropped its watchers end.
    pub fn open(&self) -> (Control, Deliveries) {
        subscriber::open(&self.shared)
    }

    /// Hands out what happened, in the order of revisions, once readers of the store can see it. `upto` is the store's current
    /// revision: everything up to it has now been published. For the one thread that applies.
    ///
    /// Takes time for each watcher that an event is for, none for the others, and never waits for a reader of a stream.
    ///
    /// Revisions that are left out, as when a snapshot brought them, cost one walk over all watchers: they fall behind and read
    /// them from history, or are told that they are compacted; unless [`Options::is_partial`] says that they had no events. Revisions
    /// that were published before are ignored.
    pub fn publish(&self, events: Vec<(Revision, Vec<Event>)>, upto: Revision) {
        let mut woken = Vec::new();
        {
            let mut state = self.shared.state.lock();
            let published = self.shared.level.load(Ordering::Relaxed);
            let mut level = published;
            let room = self.shared.options.stream_bytes_now(self.held_bytes(), state.streams.len());
            for (revision, events) in events {
                if revision.0 <= published {
                    continue;
                }
                // There is no revision without an event, if the store has all keys.
                if !self.shared.options.is_partial {
                    state.miss(level + 1, revision.0 - 1);
                }
                state.route(revision, events, room);
                level = revision.0;
            }
            if !self.shared.options.is_partial {
                state.miss(level + 1, upto.0);
            }
            let fallen = state.hand_over(&mut woken);
            self.shared.behind.fetch_add(fallen, Ordering::Relaxed);
            level = level.max(upto.0);
            self.shared.level.store(level, Ordering::Release);
            state.wake_waiting(level, &mut woken);
        }
        // Outside the lock: a woken task may run here and now.
        woken.into_iter().for_each(Waker::wake);
    }

    /// What all streams together hold back, in bytes; of each at most [`Options::stream_bytes_max`] and one revision.
    pub fn held_bytes(&self) -> usize {
        self.shared.held.bytes()
    }

    /// What waits to be sent. Takes time for each stream, not under the hub's lock.
    pub fn queued(&self) -> Queued {
        let streams: Vec<_> = {
            let state = self.shared.state.lock();
            state.streams.iter().map(|(_, outlet)| Arc::clone(&outlet.subscriber)).collect()
        };
        let of = |stream: Arc<Subscriber>| Queued { events: stream.queued_events(), bytes: stream.queued_bytes() };
        let sum = |all: Queued, one: Queued| Queued { events: all.events + one.events, bytes: all.bytes + one.bytes };
        streams.into_iter().map(of).fold(Queued::default(), sum)
    }

    /// How much there is to do.
    pub fn counts(&self) -> Counts {
        Counts {
            streams: self.shared.state.lock().streams.len(),
            watchers: self.shared.watchers.load(Ordering::Relaxed),
            behind: self.shared.behind.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    /// About what a stream may take of history at once: when all hold back much, no more than what each may hold back.
    fn history_bytes_now(&self) -> usize {
        let held = self.held.bytes();
        match held < self.options.bytes_max {
            true => self.options.history_bytes_max,
            false => {
                let streams = self.state.lock().streams.len();
                self.options.history_bytes_max.min(self.options.stream_bytes_now(held, streams))
            }
        }
    }
}

impl Options {
    /// What each of `streams` may hold back when all together hold back `held` bytes.
    fn stream_bytes_now(&self, held: usize, streams: usize) -> usize {
        match held < self.bytes_max {
            true => self.stream_bytes_max,
            false => self.stream_bytes_max.min(self.bytes_max / streams.max(1)),
        }
    }
}

impl State {
    /// Stages the events of one revision for those who want them.
    fn route(&mut self, revision: Revision, events: Vec<Event>, stream_bytes_max: usize) {
        let State { matcher, watchers, streams, touched, falling, events: number, .. } = self;
        let lacks_prev = events.iter().any(Event::lacks_prev);
        for event in events {
            *number += 1;
            let (kind, key) = (event.kind, event.kv.key.clone());
            let (mut event, mut happening) = (Some(event), None);
            matcher.visit(&key, &mut |slot| {
                let watcher = watchers.get_mut(slot);
                if revision.0 < watcher.next || !watcher.wants.kind(kind) {
                    return;
                }
                let outlet = streams.get_mut(watcher.stream);
                if outlet.decided_at != revision.0 {
                    outlet.decide(revision.0, stream_bytes_max);
                    touched.push(watcher.stream);
                }
                // Decided once a revision, so that a watcher has all of it or nothing.
                if outlet.is_full || (lacks_prev && watcher.wants.prev_kv) {
                    if !watcher.falling {
                        (watcher.falling, watcher.next) = (true, revision.0);
                        falling.push(slot);
                    }
                    return;
                }
                let happening = happening.get_or_insert_with(|| {
                    Happening::new(revision, event.take().expect("made once for all who want it"))
                });
                outlet.stage(watcher.id, watcher.wants, happening, *number);
            });
        }
        for slot in std::mem::take(&mut self.falling) {
            let stream = self.watchers.get(slot).stream;
            let member = self.detach(slot);
            self.streams.get_mut(stream).fallen.push(member);
        }
    }

    /// Has all for whom there may have been something in revisions that nobody published read them from history.
    fn miss(&mut self, first: i64, last: i64) {
        if first > last {
            return;
        }
        let missed = |watcher: &Watcher| watcher.next <= last;
        let slots: Vec<u32> =
            self.watchers.iter().filter(|(_, watcher)| missed(watcher)).map(|(slot, _)| slot).collect();
        for slot in slots {
            let stream = self.watchers.get(slot).stream;
            let mut member = self.detach(slot);
            member.next = member.next.max(first);
            let outlet = self.streams.get_mut(stream);
            outlet.fallen.push(member);
            self.touched.push(stream);
        }
    }

    /// Puts what was staged into the queues of the streams; returns how many watchers fell behind.
    fn hand_over(&mut self, woken: &mut Vec<Waker>) -> usize {
        let mut fallen = 0;
        for stream in std::mem::take(&mut self.touched) {
            let outlet = self.streams.get_mut(stream);
            // Touched by several revisions it is here several times.
            if outlet.staged.is_empty() && outlet.fallen.is_empty() {
                continue;
            }
            fallen += outlet.fallen.len();
            let bytes = std::mem::take(&mut outlet.staged_bytes);
            woken.extend(outlet.subscriber.push(&mut outlet.staged, bytes, &mut outlet.fallen));
        }
        fallen
    }

    fn wake_waiting(&mut self, level: i64, woken: &mut Vec<Waker>) {
        while let Some((_, stream)) = self.waiting.first().copied().filter(|(target, _)| *target <= level) {
            self.waiting.pop_first();
            woken.extend(self.streams.get(stream).subscriber.poke());
        }
    }

    /// Makes a watcher live.
    fn attach(&mut self, stream: u32, id: i64, serial: u64, keys: &matcher::Keys, wants: Wants, next: i64) -> u32 {
        let place = self.matcher.insert(keys, self.watchers.next());
        self.watchers.insert(Watcher { id, serial, next, stream, place, wants, falling: false })
    }

    /// Ends a live watcher.
    fn detach(&mut self, slot: u32) -> Member {
        let watcher = self.watchers.remove(slot);
        let (keys, moved) = self.matcher.remove(watcher.place);
        if let Some(moved) = moved {
            self.watchers.get_mut(moved).place = watcher.place;
        }
        let Watcher { id, serial, next, wants, .. } = watcher;
        Member { id, serial, keys, wants, next, until: i64::MAX }
    }
}

impl Outlet {
    fn new(subscriber: Arc<Subscriber>) -> Outlet {
        Outlet {
            subscriber,
            staged: Vec::new(),
            staged_bytes: 0,
            fallen: Vec::new(),
            decided_at: 0,
            is_full: false,
            counted: 0,
        }
    }

    fn decide(&mut self, revision: i64, stream_bytes_max: usize) {
        self.decided_at = revision;
        self.is_full = self.subscriber.queued_bytes() + self.staged_bytes > stream_bytes_max;
    }

    fn stage(&mut self, id: i64, wants: Wants, happening: &Arc<Happening>, number: u64) {
        let mut cost = ITEM_BYTES;
        if self.counted != number {
            self.counted = number;
            cost += happening.bytes();
        }
        self.staged_bytes += cost;
        let cost = u32::try_from(cost).expect("an event came in a request, which is far below 4 GiB");
        self.staged.push(Item::Event(EventItem { id, happening: Arc::clone(happening), cost, wants }));
    }
}
