//! The half of a stream that takes requests: watchers come and go.

use super::{
    Shared, WatchSpec,
    batch::Wants,
    catch_up::Member,
    matcher::Keys,
    subscriber::{Item, Local, Subscriber},
};
use crate::types::Error;
use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
};

/// The half of a stream that takes requests. None of its methods waits.
pub struct Control {
    pub(super) hub: Arc<Shared>,
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) stream: u32,
}

impl Control {
    /// Creates a watcher. The stream replies `Delivery::Created` or `Delivery::Refused`, whatever the caller does with the result.
    ///
    /// # Errors
    /// [`Error::WatchRangeEmpty`], [`Error::WatchIdInUse`], [`Error::Compacted`] for a negative start (as etcd says it),
    /// [`Error::RequestTooManyRequests`] above [`super::Options::watchers_max`]; [`Error::Canceled`] if the stream has ended.
    pub fn create(&self, spec: WatchSpec) -> Result<i64, Error> {
        let created = self.try_create(spec);
        if let Err(error) = &created {
            self.refuse(error.text());
        }
        created
    }

    /// Replies that a watcher was not created, for a reason that lies outside of the hub.
    pub fn refuse(&self, reason: &str) {
        let waker = self.subscriber.inner.lock().control(Item::Refused { reason: reason.into() });
        waker.into_iter().for_each(Waker::wake);
    }

    /// Ends a watcher. The stream replies `Delivery::Canceled`, and nothing of that watcher after it. An unknown id is ignored.
    pub fn cancel(&self, id: i64) -> bool {
        self.end(id, None)
    }

    /// Ends a watcher for a reason that lies outside of the hub, which the reply tells.
    pub fn cancel_for(&self, id: i64, reason: &str) -> bool {
        self.end(id, Some(reason.into()))
    }

    /// All watchers of the stream.
    pub fn ids(&self) -> HashSet<i64> {
        self.subscriber.inner.lock().watchers.keys().copied().collect()
    }

    fn end(&self, id: i64, reason: Option<Box<str>>) -> bool {
        let waker = {
            let mut state = self.hub.state.lock();
            let mut inner = self.subscriber.inner.lock();
            if !inner.end(id, &self.hub, &mut state) {
                return false;
            }
            inner.control(Item::Canceled { id, reason })
        };
        waker.into_iter().for_each(Waker::wake);
        true
    }

    /// Asks for `Delivery::Progress` once every watcher of the stream has caught up: at or above what the store is at now.
    pub fn request_progress(&self) {
        self.subscriber.inner.lock().progress.request(self.hub.reader.current().0);
        self.subscriber.poke().into_iter().for_each(Waker::wake);
    }

    /// Ready when the stream takes more requests: not while too many replies to earlier ones wait to be sent.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.subscriber.inner.lock();
        if inner.controls < self.hub.options.controls_max || inner.is_closed {
            return Poll::Ready(());
        }
        inner.room_waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn try_create(&self, spec: WatchSpec) -> Result<i64, Error> {
        if spec.start.0 < 0 {
            return Err(Error::Compacted);
        }
        if spec.range.is_empty() {
            return Err(Error::WatchRangeEmpty);
        }
        let WatchSpec { no_put, no_delete, prev_kv, fragment, .. } = spec;
        let wants = Wants { no_put, no_delete, prev_kv, fragment };
        let keys = Keys::from(&spec.range);
        // Under the hub's lock no revision is published: each comes either from history or live.
        let mut state = self.hub.state.lock();
        let mut inner = self.subscriber.inner.lock();
        if inner.is_closed {
            return Err(Error::Canceled);
        }
        if self.hub.watchers.load(Ordering::Relaxed) >= self.hub.options.watchers_max {
            return Err(Error::RequestTooManyRequests);
        }
        let id = inner.choose_id(spec.id)?;
        let (level, current) = (self.hub.level.load(Ordering::Relaxed), self.hub.reader.current());
        let start = if spec.start.0 == 0 { current.next() } else { spec.start };
        let serial = inner.next_serial;
        inner.next_serial += 1;
        // The store may be ahead of the hub: what lies between will be published. But what is compacted must be refused.
        let slot = if start.0 > level && start >= self.hub.reader.compacted() {
            Some(state.attach(self.stream, id, serial, &keys, wants, start.0))
        } else {
            self.hub.behind.fetch_add(1, Ordering::Relaxed);
            inner.behind.push(Member { id, serial, keys, wants, next: start.0, until: i64::MAX });
            None
        };
        self.hub.watchers.fetch_add(1, Ordering::Relaxed);
        if wants.prev_kv {
            self.hub.prev_watchers.fetch_add(1, Ordering::Relaxed);
        }
        inner.watchers.insert(id, Local { serial, slot, wants_prev: wants.prev_kv });
        let future = Some(start.0 - 1).filter(|before| *before > current.0);
        inner.progress.created(id, spec.progress_notify, future);
        let waker = inner.control(Item::Created { id, revision: current.0 });
        drop((inner, state));
        waker.into_iter().for_each(Waker::wake);
        Ok(id)
    }
}
