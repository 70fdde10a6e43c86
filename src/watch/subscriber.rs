//! A stream: its watchers by id, its queue, and the order in which its replies go out.

use super::{
    Control, Delivery, ITEM_BYTES, Outlet, Shared, State,
    batch::{Costed, EventItem, Replies},
    catch_up::{Cohort, Done, Job, LOCK_STEP, Member},
    held::Held,
    progress::Progress,
};
use crate::types::{Error, Fault, Revision};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// What the two halves of a stream and the hub share.
pub(super) struct Subscriber {
    /// What the queue holds, and what was taken from it and is not sent.
    queued_bytes: AtomicUsize,
    /// The same of all streams of the hub, and where this one takes from it.
    held: Arc<Held>,
    sum: usize,
    pub(super) inner: Mutex<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) is_closed: bool,
    /// Watchers have gone live whose past is still being read: what is queued has to wait for it.
    pub(super) is_held: bool,
    /// Something other than the queue wants a look.
    is_poked: bool,
    pub(super) watchers: HashMap<i64, Local>,
    next_id: i64,
    pub(super) next_serial: u64,
    items: Vec<Item>,
    /// Items that are not events.
    pub(super) controls: usize,
    /// Watchers that wait for a cohort.
    pub(super) behind: Vec<Member>,
    pub(super) progress: Progress,
    /// Who waits for replies, and who waits to make requests.
    waker: Option<Waker>,
    pub(super) room_waker: Option<Waker>,
}

/// A watcher, as its stream knows it.
pub(super) struct Local {
    pub(super) serial: u64,
    /// In the hub; `None` while it is behind.
    pub(super) slot: Option<u32>,
    pub(super) wants_prev: bool,
}

/// What stands in a queue.
#[derive(Debug)]
pub(super) enum Item {
    Event(EventItem),
    Created { id: i64, revision: i64 },
    Canceled { id: i64, reason: Option<Box<str>> },
    Refused { reason: Box<str> },
}

impl Subscriber {
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// So much is not held back any more.
    fn let_go(&self, bytes: usize) {
        if bytes > 0 {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.held.take(self.sum, bytes);
        }
    }

    /// Events in the queue.
    pub(super) fn queued_events(&self) -> usize {
        let inner = self.inner.lock();
        inner.items.len().saturating_sub(inner.controls)
    }

    /// Appends what a publish has for this stream; returns whom to wake.
    pub(super) fn push(&self, staged: &mut Vec<Item>, bytes: usize, fallen: &mut Vec<Member>) -> Option<Waker> {
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.held.add(bytes);
        let mut inner = self.inner.lock();
        if inner.items.is_empty() {
            std::mem::swap(&mut inner.items, staged);
        } else {
            inner.items.append(staged);
        }
        for member in fallen.drain(..) {
            let local = inner.watchers.get_mut(&member.id).expect("a live watcher is known to its stream");
            local.slot = None;
            inner.behind.push(member);
        }
        inner.waker.take()
    }

    /// Has the stream look again; returns whom to wake.
    pub(super) fn poke(&self) -> Option<Waker> {
        let mut inner = self.inner.lock();
        inner.is_poked = true;
        inner.waker.take()
    }
}

impl Inner {
    /// Whether there is such a watcher, and it is still the same.
    pub(super) fn is(&self, id: i64, serial: u64) -> bool {
        self.watchers.get(&id).is_some_and(|local| local.serial == serial)
    }

    /// Ends a watcher, be it live or behind; `false` if there is none. What is queued for it stays.
    pub(super) fn end(&mut self, id: i64, hub: &Shared, state: &mut State) -> bool {
        let Some(local) = self.watchers.remove(&id) else { return false };
        match local.slot {
            Some(slot) => drop(state.detach(slot)),
            None => drop(hub.behind.fetch_sub(1, Ordering::Relaxed)),
        }
        hub.watchers.fetch_sub(1, Ordering::Relaxed);
        if local.wants_prev {
            hub.prev_watchers.fetch_sub(1, Ordering::Relaxed);
        }
        self.progress.gone(id);
        true
    }

    pub(super) fn control(&mut self, item: Item) -> Option<Waker> {
        self.items.push(item);
        self.controls += 1;
        self.waker.take()
    }

    pub(super) fn choose_id(&mut self, wanted: Option<i64>) -> Result<i64, Error> {
        if let Some(id) = wanted {
            return if self.watchers.contains_key(&id) { Err(Error::WatchIdInUse) } else { Ok(id) };
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Ok(self.next_id - 1)
    }
}

pub(super) fn open(hub: &Arc<Shared>) -> (Control, Deliveries) {
    let (held, sum) = (Arc::clone(&hub.held), hub.held.sum());
    let subscriber = Subscriber { queued_bytes: AtomicUsize::new(0), held, sum, inner: Mutex::default() };
    let subscriber = Arc::new(subscriber);
    let stream = hub.state.lock().streams.insert(Outlet::new(Arc::clone(&subscriber)));
    let control = Control { hub: Arc::clone(hub), subscriber: Arc::clone(&subscriber), stream };
    let hub = Arc::clone(hub);
    let ready = VecDeque::new();
    (control, Deliveries { hub, subscriber, stream, ready, past_bytes: 0, past: Past::None, floor: 0, waits_for: None })
}

/// What is to be done next for a stream.
#[must_use]
pub enum Turn {
    /// Send this.
    Deliver(Delivery),
    /// Run this where it may block, and bring the outcome to [`Deliveries::caught`]. Go on polling meanwhile.
    Read(Job),
}

/// The half of a stream that gives replies. Dropping it ends the stream and its watchers.
pub struct Deliveries {
    hub: Arc<Shared>,
    subscriber: Arc<Subscriber>,
    stream: u32,
    /// Taken from the queue or from history, in the order of sending.
    ready: VecDeque<Costed>,
    /// Bytes of history in it. They count among what all streams hold back, and not against the queue of this one.
    past_bytes: usize,
    past: Past,
    /// The highest revision that a header of this stream has told.
    floor: i64,
    /// The level at which the hub will poke this stream.
    waits_for: Option<i64>,
}

/// Who reads history.
enum Past {
    None,
    Waiting(Box<Cohort>),
    Running,
}

impl Deliveries {
    /// What to do next. Wakes the caller when there is something again.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        loop {
            if let Some((delivery, cost)) = self.ready.pop_front() {
                self.subscriber.let_go(cost);
                return Poll::Ready(Turn::Deliver(delivery));
            }
            // An idle stream keeps no memory for busy times.
            self.ready = VecDeque::new();
            self.let_go_past();
            self.take_queue();
            // History is read beside the queue, not after it: a busy queue is never empty.
            if matches!(self.past, Past::Waiting(_))
                && let Past::Waiting(cohort) = std::mem::replace(&mut self.past, Past::Running)
            {
                let (hub, subscriber) = (Arc::clone(&self.hub), Arc::clone(&self.subscriber));
                return Poll::Ready(Turn::Read(Job { hub, subscriber, stream: self.stream, cohort }));
            }
            if self.ready.is_empty() && self.may_rest(context) {
                return Poll::Pending;
            }
        }
    }

    /// Takes what a job has brought.
    ///
    /// # Errors
    /// The [`Fault`] that the job met: the member has to stop.
    pub fn caught(&mut self, done: Done) -> Result<(), Fault> {
        let Done { cohort, found, compacted, result } = done;
        self.past = cohort.map_or(Past::None, Past::Waiting);
        let is_level = matches!(self.past, Past::None);
        let level = self.hub.level.load(Ordering::Acquire);
        let mut inner = self.subscriber.inner.lock();
        // Those who have gone live are cancelled in the queue, which is held; the others at once.
        let was_held = inner.is_held;
        let mut events = Vec::with_capacity(found.len());
        for (serial, item) in found {
            if was_held || inner.is(item.id, serial) {
                inner.progress.had_event(item.id);
                events.push(item);
            }
        }
        if is_level {
            inner.is_held = false;
        }
        drop(inner);
        let newest = events.last().map_or(0, |item| item.happening.revision);
        self.floor = self.floor.max(level).max(newest);
        let mut replies = Replies::new(self.hub.options.reply_bytes_max, Revision(self.floor), &mut self.ready);
        events.iter().for_each(|item| replies.add(item));
        replies.flush();
        let bytes = bytes_of(&events);
        self.past_bytes += bytes;
        self.subscriber.held.add(bytes);
        let ended: HashSet<i64> = compacted.iter().map(|(id, _)| *id).collect();
        self.end_compacted(compacted);
        // Only a queue that is held has anything of those who read history, and all of it. Of one that goes on, what stands in it
        // under such an id is a later watcher's, whose beginning may be out already.
        if was_held {
            self.purge(&ended);
        }
        result
    }

    /// All history that was in hand has been sent.
    fn let_go_past(&mut self) {
        if self.past_bytes > 0 {
            self.subscriber.held.take(self.subscriber.sum, std::mem::take(&mut self.past_bytes));
        }
    }

    /// How many watchers will end with this stream. Dropping very many takes milliseconds: do that where it may block.
    pub fn watchers(&self) -> usize {
        self.subscriber.inner.lock().watchers.len()
    }

    /// What this stream holds back, of [`super::Options::stream_bytes_max`].
    pub fn held_bytes(&self) -> usize {
        self.subscriber.queued_bytes()
    }

    /// An interval is over: watchers that want to know, and had no events in it, are told how far they are.
    pub fn tick(&mut self) {
        let mut inner = self.subscriber.inner.lock();
        if inner.progress.tick() {
            inner.is_poked = true;
        }
    }

    /// Makes replies of the queue, and says what may be said of progress.
    fn take_queue(&mut self) {
        // Read before the queue: whatever is up to here is in it, or was.
        let level = self.hub.level.load(Ordering::Acquire);
        let mut inner = self.subscriber.inner.lock();
        if inner.is_held {
            return;
        }
        inner.is_poked = false;
        inner.controls = 0;
        let items = std::mem::take(&mut inner.items);
        let room_waker = inner.room_waker.take();
        // In the same breath as the queue: all that these had before they fell behind goes out before what they read.
        if matches!(self.past, Past::None) && !inner.behind.is_empty() {
            self.past = Past::Waiting(Box::new(Cohort::new(std::mem::take(&mut inner.behind))));
        }
        if inner.progress.listens() {
            for item in &items {
                if let Item::Event(event) = item {
                    inner.progress.had_event(event.id);
                }
            }
        }
        let owes_progress = inner.progress.is_owed() && matches!(self.past, Past::None);
        drop(inner);
        room_waker.into_iter().for_each(Waker::wake);
        self.reply(items, level);
        if owes_progress {
            self.tell_progress(level);
        }
    }

    fn reply(&mut self, items: Vec<Item>, level: i64) {
        let newest = items.iter().rev().find_map(|item| match item {
            Item::Event(event) => Some(event.happening.revision),
            _ => None,
        });
        if let Some(newest) = newest {
            self.floor = self.floor.max(level).max(newest);
        }
        let current = self.hub.reader.current();
        let mut replies = Replies::new(self.hub.options.reply_bytes_max, Revision(self.floor), &mut self.ready);
        let mut told = 0;
        for item in items {
            match item {
                Item::Event(event) => replies.add(&event),
                Item::Created { id, revision } => {
                    told = told.max(revision);
                    replies.between(Delivery::Created { id, revision: Revision(revision) });
                }
                Item::Canceled { id, reason } => {
                    told = current.0;
                    let reason = reason.map(String::from);
                    replies.between(Delivery::Canceled { id, revision: current, compacted: None, reason });
                }
                Item::Refused { reason } => {
                    told = current.0;
                    replies.between(Delivery::Refused { revision: current, reason: reason.into() });
                }
            }
        }
        replies.flush();
        self.floor = self.floor.max(told);
    }

    fn tell_progress(&mut self, level: i64) {
        let due = self.subscriber.inner.lock().progress.due(level, self.floor);
        if !due.replies.is_empty() {
            self.floor = self.floor.max(level);
        }
        self.ready.extend(due.replies.into_iter().map(|delivery| (delivery, 0)));
        if due.wait_for == self.waits_for {
            return;
        }
        let mut state = self.hub.state.lock();
        if let Some(old) = self.waits_for.take() {
            state.waiting.remove(&(old, self.stream));
        }
        let Some(target) = due.wait_for else { return };
        if self.hub.level.load(Ordering::Relaxed) >= target {
            // It got there meanwhile, and will not say so again.
            self.subscriber.inner.lock().is_poked = true;
            return;
        }
        state.waiting.insert((target, self.stream));
        self.waits_for = Some(target);
    }

    /// Ends watchers whose next revision is gone, behind all that they were told so far.
    fn end_compacted(&mut self, compacted: Vec<(i64, u64)>) {
        if compacted.is_empty() {
            return;
        }
        let revision = self.hub.reader.current();
        let oldest = self.hub.reader.compacted();
        for some in compacted.chunks(LOCK_STEP) {
            let mut state = self.hub.state.lock();
            let mut inner = self.subscriber.inner.lock();
            for (id, serial) in some {
                if inner.is(*id, *serial) && inner.end(*id, &self.hub, &mut state) {
                    let compacted = Some(oldest);
                    self.ready.push_back((Delivery::Canceled { id: *id, revision, compacted, reason: None }, 0));
                }
            }
        }
        self.floor = self.floor.max(revision.0);
    }

    /// Takes what had already arrived for watchers that ended out of the queue: there would be a gap before it. Also for those
    /// that were cancelled meanwhile, which the queue will say.
    fn purge(&self, ended: &HashSet<i64>) {
        if ended.is_empty() {
            return;
        }
        let mut inner = self.subscriber.inner.lock();
        let mut bytes = 0;
        let mut passed = HashSet::new();
        inner.items.retain(|item| match item {
            // The id may have been given to a new watcher since.
            Item::Created { id, .. } => {
                passed.insert(*id);
                true
            }
            Item::Event(event) if ended.contains(&event.id) && !passed.contains(&event.id) => {
                bytes += event.cost as usize;
                false
            }
            _ => true,
        });
        self.subscriber.let_go(bytes);
    }

    /// Whether there is nothing to do; then `context` is woken when there is.
    fn may_rest(&self, context: &Context<'_>) -> bool {
        let mut inner = self.subscriber.inner.lock();
        if inner.is_held {
            // The end of the job that runs is the next thing to happen.
            return true;
        }
        let can_read = matches!(self.past, Past::None) && !inner.behind.is_empty();
        if !inner.items.is_empty() || inner.is_poked || can_read {
            return false;
        }
        inner.waker = Some(context.waker().clone());
        true
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let (ids, waker) = {
            let mut inner = self.subscriber.inner.lock();
            inner.is_closed = true;
            (inner.watchers.keys().copied().collect::<Vec<i64>>(), inner.room_waker.take())
        };
        waker.into_iter().for_each(Waker::wake);
        // In steps, so that a stream of very many watchers does not hold up the hub.
        for some in ids.chunks(LOCK_STEP) {
            let mut state = self.hub.state.lock();
            let mut inner = self.subscriber.inner.lock();
            for id in some {
                inner.end(*id, &self.hub, &mut state);
            }
        }
        let mut state = self.hub.state.lock();
        if let Some(target) = self.waits_for {
            state.waiting.remove(&(target, self.stream));
        }
        state.streams.remove(self.stream);
        drop(state);
        // Nothing is pushed from here on.
        self.subscriber.let_go(self.subscriber.queued_bytes());
        self.let_go_past();
    }
}

/// What the events of a job take. Those who want the same one stand beside each other, and share it.
fn bytes_of(events: &[EventItem]) -> usize {
    let shared = events.chunk_by(|one, next| Arc::ptr_eq(&one.happening, &next.happening));
    shared.map(|same| same[0].happening.bytes()).sum()
}

const _: () = assert!(ITEM_BYTES <= 32, "very many of them are made");
