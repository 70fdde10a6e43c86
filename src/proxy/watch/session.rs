//! What the tasks of a stream share: its merger, the hubs that it has opened, and whom to wake.

use super::{
    Local, Locals, WatchSettings,
    answers::Part,
    merge::{Home, Homes, Merger},
};
use crate::{
    proxy::Caller,
    server::Header,
    types::{Error, KeyRange, Revision},
    watch::{Control, WatchSpec},
};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};
use tokio::sync::{Notify, watch};
use tonic::Status;

/// See the module.
pub(super) struct Session<L> {
    inner: Mutex<Inner<L>>,
    locals: L,
    requests_max: usize,
    backlog_bytes_max: usize,
    /// There may be room for requests again.
    room: Notify,
    /// There may be something to send upstream.
    link: Notify,
    /// The backlog may have become smaller.
    drained: Notify,
    /// The watchers of all streams.
    open: Arc<AtomicUsize>,
}

impl<L> Drop for Session<L> {
    fn drop(&mut self) {
        self.open.fetch_sub(self.inner.get_mut().counted, Relaxed);
    }
}

/// What is behind the lock.
pub(super) struct Inner<L> {
    pub(super) merger: Merger<Hubs<L>>,
    /// Its watchers, as far as they are counted among all.
    counted: usize,
    /// What the stream ends with.
    failed: Option<Status>,
    /// Who waits for replies.
    waker: Option<Waker>,
}

/// The hubs that a stream has opened.
pub(super) struct Hubs<L> {
    locals: L,
    /// Whose stream it is.
    caller: Arc<Caller>,
    opened: BTreeMap<Home, Opened>,
    next: u64,
    /// The other halves of those that were opened last, for whoever polls them.
    parts: Vec<Part>,
}

struct Opened {
    local: Local,
    control: Control,
}

/// What there is for a client.
pub(super) enum Next<T> {
    Parts(Vec<Part>),
    WatchReply(T),
    Failed(Status),
}

impl<L: Locals> Session<L> {
    /// A stream of `caller` without watchers; those to come are counted in `open`.
    pub(super) fn new(locals: L, caller: Arc<Caller>, settings: &WatchSettings, open: Arc<AtomicUsize>) -> Session<L> {
        let hubs = Hubs { locals: locals.clone(), caller, opened: BTreeMap::new(), next: 0, parts: Vec::new() };
        Session {
            inner: Mutex::new(Inner { merger: Merger::new(hubs), counted: 0, failed: None, waker: None }),
            locals,
            requests_max: settings.requests_max,
            backlog_bytes_max: settings.backlog_bytes_max,
            room: Notify::new(),
            link: Notify::new(),
            drained: Notify::new(),
            open,
        }
    }

    /// What [`Locals::stamp`] says.
    pub(super) fn stamp(&self) -> u64 {
        self.locals.stamp()
    }

    /// What [`Locals::changed`] gives.
    pub(super) fn changed(&self) -> Option<watch::Receiver<u64>> {
        self.locals.changed()
    }

    /// Does something with the merger, and wakes all for whom something follows.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Merger<Hubs<L>>) -> T) -> T {
        let mut inner = self.inner.lock();
        let result = act(&mut inner.merger);
        self.wake(inner);
        result
    }

    /// The same for whoever is about to call [`Session::poll`], and needs no waking.
    pub(super) fn with_polled<T>(&self, act: impl FnOnce(&mut Merger<Hubs<L>>) -> T) -> T {
        let mut inner = self.inner.lock();
        inner.waker = None;
        let result = act(&mut inner.merger);
        self.wake(inner);
        result
    }

    /// Ends the stream.
    pub(super) fn fail(&self, status: Status) {
        let mut inner = self.inner.lock();
        inner.failed.get_or_insert(status);
        self.wake(inner);
    }

    fn wake(&self, mut inner: MutexGuard<'_, Inner<L>>) {
        let has_news = inner.merger.has_reply() || inner.failed.is_some() || !inner.merger.homes.parts.is_empty();
        let waker = inner.waker.take_if(|_| has_news);
        let wants_link = inner.merger.wants_link();
        let (before, now) = (inner.counted, inner.merger.watchers());
        inner.counted = now;
        drop(inner);
        if now != before {
            // Wraps, and so counts down as well.
            self.open.fetch_add(now.wrapping_sub(before), Relaxed);
        }
        // Outside the lock: a woken task may run here and now.
        waker.into_iter().for_each(Waker::wake);
        if wants_link {
            self.link.notify_one();
        }
    }

    /// What there is for the client. `rest`: if there is nothing, `context` is woken when there is.
    pub(super) fn poll(&self, context: &Context<'_>, rest: bool) -> Poll<Next<crate::server::WatchReply>> {
        let mut inner = self.inner.lock();
        inner.waker = None;
        if let Some(status) = inner.failed.take() {
            return Poll::Ready(Next::Failed(status));
        }
        if !inner.merger.homes.parts.is_empty() {
            return Poll::Ready(Next::Parts(std::mem::take(&mut inner.merger.homes.parts)));
        }
        let Some(answer) = inner.merger.pop() else {
            if rest {
                inner.waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        };
        drop(inner);
        self.room.notify_one();
        self.drained.notify_one();
        Poll::Ready(Next::WatchReply(answer))
    }

    /// A hub of this stream is no more.
    pub(super) fn home_ended(&self, home: Home) {
        self.with_polled(|merger| {
            merger.home_ended(home);
            merger.homes.opened.remove(&home);
        });
    }

    /// Whether there are watchers upstream.
    pub(super) fn has_watchers_away(&self) -> bool {
        self.inner.lock().merger.has_watchers_away()
    }

    /// Waits until the client may make another request.
    pub(super) async fn has_room(&self) {
        while self.inner.lock().merger.held_requests() >= self.requests_max {
            self.room.notified().await;
        }
    }

    /// Waits until a link upstream is of use, and there is room for what it brings.
    pub(super) async fn needs_link(&self) {
        while !self.inner.lock().merger.needs_link() {
            self.link.notified().await;
        }
        self.has_drained().await;
    }

    /// Whether what came from upstream is more than a stream may hold.
    pub(super) fn is_full(&self) -> bool {
        self.inner.lock().merger.backlog_bytes() > self.backlog_bytes_max
    }

    /// Waits until the client has read about half of what a stream may hold.
    pub(super) async fn has_drained(&self) {
        while self.inner.lock().merger.backlog_bytes() > self.backlog_bytes_max / 2 {
            self.drained.notified().await;
        }
    }

    /// Something may be there to send upstream.
    pub(super) async fn link_has_news(&self) {
        self.link.notified().await;
    }
}

impl<L: Locals> Hubs<L> {
    fn local(&self, range: &KeyRange, start: Revision) -> Option<Local> {
        let local = self.locals.local(&self.caller, range, start)?;
        // Its end may not have been noticed everywhere.
        let is_over = *local.ended.borrow() || local.ended.has_changed().is_err();
        (!is_over).then_some(local)
    }
}

impl<L: Locals> Homes for Hubs<L> {
    fn has(&self, range: &KeyRange) -> bool {
        self.local(range, Revision(0)).is_some()
    }

    fn allows(&self, range: &KeyRange) -> bool {
        self.locals.allows(&self.caller, range)
    }

    fn find(&mut self, range: &KeyRange, start: Revision) -> Option<Home> {
        let local = self.local(range, start)?;
        if let Some((home, _)) = self.opened.iter().find(|(_, opened)| opened.local.hub.is(&local.hub)) {
            return Some(*home);
        }
        let home = Home(self.next);
        self.next += 1;
        let (control, deliveries) = local.hub.open();
        self.parts.push(Part::new(home, deliveries, local.ended.clone()));
        self.opened.insert(home, Opened { local, control });
        Some(home)
    }

    fn attach(&mut self, home: Home, spec: WatchSpec) -> Result<(), Error> {
        self.opened[&home].control.create(spec).map(drop)
    }

    fn detach(&mut self, home: Home, serial: i64) {
        self.opened[&home].control.cancel(serial);
    }

    fn ask(&mut self, home: Home) {
        let Opened { local, control } = &self.opened[&home];
        (local.refresh)();
        control.request_progress();
    }

    fn header(&self, home: Home) -> Header {
        let local = &self.opened[&home].local;
        (local.header)().at(local.hub.revision())
    }
}
