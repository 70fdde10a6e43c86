//! What one connection has asked for and not taken yet.
//!
//! Answers that are not read hold room which others may need. So a connection is watched while it has some: it is to take what it asked for at
//! [`TAKEN_BYTES_S`] at least, after a grace. One that does not is *slow*. That harms nobody while there is room. When somebody has to wait for
//! room, the slow connection that holds most of it is closed, and with it goes what it holds.

use super::{Admission, Shared, Ticket};
use parking_lot::Mutex;
use std::{
    cell::RefCell,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// What a connection is to take of what it asked for, in bytes a second: a link that is slower cannot be told from a client that does not read.
const TAKEN_BYTES_S: u64 = 256 << 10;
/// How long it may take nothing.
const GRACE: Duration = Duration::from_secs(2);

thread_local! {
    /// Whose call the running task works at.
    static CURRENT: RefCell<Option<Arc<Tab>>> = const { RefCell::new(None) };
}

/// What a connection has of what all share.
#[derive(Debug)]
pub(crate) struct Tab {
    admission: Admission,
    /// Bytes of its tickets.
    held: AtomicU64,
    unread: Mutex<Unread>,
    /// Whether it is among those that are looked at when room is wanted.
    is_known: AtomicBool,
    is_closed: AtomicBool,
    closed: Notify,
}

/// Answers that are ready for a connection to take.
#[derive(Debug)]
struct Unread {
    bytes: u64,
    /// When it is slow, unless it takes more.
    due: Instant,
}

/// The tab of a connection that is there. Dropped, it is not looked at any more.
#[derive(Debug)]
pub(crate) struct OpenTab(Arc<Tab>);

impl Tab {
    /// Of a connection that begins.
    pub(crate) fn open(admission: Admission) -> OpenTab {
        let unread = Mutex::new(Unread { bytes: 0, due: Instant::now() });
        let (is_known, is_closed) = (AtomicBool::new(false), AtomicBool::new(false));
        let held = AtomicU64::new(0);
        OpenTab(Arc::new(Tab { admission, held, unread, is_known, is_closed, closed: Notify::new() }))
    }

    /// That of the call which the running task works at, if it came over a connection. Tasks that a call starts have none.
    pub(crate) fn current() -> Option<Arc<Tab>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Does some of the work at a call of `tab`.
    pub(crate) fn during<T>(tab: &mut Option<Arc<Tab>>, work: impl FnOnce() -> T) -> T {
        struct Back<'a>(&'a mut Option<Arc<Tab>>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                CURRENT.with_borrow_mut(|current| mem::swap(current, self.0));
            }
        }
        CURRENT.with_borrow_mut(|current| mem::swap(current, tab));
        let _back = Back(tab);
        work()
    }

    /// A ticket for an answer of `bytes` that is there already: there is no refusing it any more.
    pub(in crate::server) fn sends(self: &Arc<Tab>, bytes: usize) -> Ticket {
        self.admission.sends(bytes, Some(Arc::clone(self)))
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    pub(super) fn hold(self: &Arc<Tab>, bytes: u64) {
        self.held.fetch_add(bytes, Relaxed);
        if !self.is_known.swap(true, Relaxed) {
            self.admission.0.tabs.lock().insert(self.key(), Arc::clone(self));
        }
    }

    pub(super) fn let_go(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    /// It may take `bytes` from now on.
    pub(super) fn is_offered(&self, bytes: u64) {
        let mut unread = self.unread.lock();
        if unread.bytes == 0 {
            unread.due = Instant::now() + GRACE;
        }
        unread.bytes += bytes;
    }

    /// It has taken `bytes`, or they are offered no longer.
    pub(super) fn takes(&self, bytes: u64) {
        let mut unread = self.unread.lock();
        unread.bytes -= bytes;
        let earned = Duration::from_micros(bytes.saturating_mul(1_000_000) / TAKEN_BYTES_S);
        unread.due = (unread.due + earned).min(Instant::now() + GRACE);
    }

    fn is_slow(&self, now: Instant) -> bool {
        let unread = self.unread.lock();
        unread.bytes > 0 && now > unread.due
    }

    /// Waits until the connection is to be closed, for others to have its room.
    pub(crate) async fn closed(&self) {
        self.closed.notified().await;
    }

    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl OpenTab {
    /// For a call.
    pub(crate) fn tab(&self) -> &Arc<Tab> {
        &self.0
    }
}

impl Drop for OpenTab {
    fn drop(&mut self) {
        // A call that is on its way may take a first ticket yet: then there is nobody left to close.
        if self.0.is_known.swap(true, Relaxed) {
            self.0.admission.0.tabs.lock().remove(&self.0.key());
        }
    }
}

impl Shared {
    /// Somebody wants room: closes the slow connection that holds most.
    pub(super) fn close_a_slow_one(&self) {
        let now = Instant::now();
        let tabs = self.tabs.lock();
        let slow = tabs.values().filter(|tab| !tab.is_closed.load(Relaxed) && tab.held() > 0 && tab.is_slow(now));
        if let Some(slow) = slow.max_by_key(|tab| tab.held()) {
            slow.is_closed.store(true, Relaxed);
            slow.closed.notify_one();
            self.slow_closed.fetch_add(1, Relaxed);
        }
    }
}
