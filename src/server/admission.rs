//! How much may be under way at once: beyond that a member sheds instead of swelling, and what is cheapest to lose goes first.
//!
//! Each request is of a [`Class`]. One of a class is let in while *all* that is under way, of whatever class, leaves that class room: lists
//! may fill half of the requests and bytes, point reads seven tenths, writes nine, upkeep everything. So the more there is under way, the
//! more classes are shut, and no flood of lists takes a write its place.
//!
//! ```text
//!   0 ─────────────── list ▏50 % ──── read ▏70 % ──── write ▏90 % ── upkeep ▏100 %
//! ```
//!
//! Two things are counted. A *place* is that of a call: it is taken before the call is looked at, and free when its answer has left. A
//! *ticket* is for bytes above the few that each call has for free: a write pays for its copies, and a range for its answer while it reads
//! it, before it takes the memory; its ticket goes with the answer.
//!
//! Every read begins as a small one, where the call is, and waits for nobody. What becomes large is a list, whatever was asked for: it waits
//! for its turn and for room, and begins anew on a thread for lists. See `queue` for whose turn it is, and `tab` for those who do not take
//! what they asked for.
//!
//! A call of little bytes costs two atomic additions, both on one line of the cache, and nothing else.

mod piece;
mod queue;
mod tab;
mod ticket;

pub(crate) use piece::Piece;
pub(crate) use tab::{OpenTab, Tab};
pub use ticket::Ticket;

use crate::types::Error;
use parking_lot::Mutex;
use queue::Queue;
use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// What a request is, from the cheapest to lose to the dearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Ranges whose answer is large, walks over the whole store, streams of ranges.
    List,
    /// Reads whose answer is small.
    Read,
    /// Whatever goes into the log but upkeep; watches.
    Write,
    /// Leases and their renewals, users and roles, alarms: without them everything else ends.
    Upkeep,
}

/// Class, what metrics call it, and the part of everything that it may fill, in percent.
const CLASSES: [(Class, &str, u64); 4] =
    [(Class::List, "list", 50), (Class::Read, "read", 70), (Class::Write, "write", 90), (Class::Upkeep, "upkeep", 100)];

/// Copies of a write while it is under way: the request, the entry, the log's buffer, and what goes to the other members.
const COPIES_OF_A_WRITE: usize = 4;
/// What each call may take without a word: most need no more.
const FREE_BYTES: usize = 4 << 10;
/// An answer above this is that of a list: what is read for nothing until it is known to be one. A thousand keys of a few hundred bytes are none.
const READ_BYTES_MAX: u64 = 512 << 10;
/// Paid at once by an answer that grows.
const STEP_BYTES: usize = 64 << 10;
/// Time between two looks whether there is room.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Longest time that a list waits for room. Clients of etcd that set a time limit begin at 5 s: they are to be told before it is over.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(3);
/// Paid beforehand by a list. If there is not enough for the rest, it comes again with what it would have needed by then.
const WAITED_BYTES_MIN: u64 = 1 << 20;
/// Of all calls so many may be lists that wait: one in this many.
const WAITING_PART: usize = 16;

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Requests under way; at most [`Bounds::CALLS_MAX`].
    pub calls_max: usize,
    /// Bytes of them and of their answers, but for the first 4 KiB of each.
    pub bytes_max: usize,
    /// Bytes of one answer to a range.
    pub answer_bytes_max: usize,
    /// Streams that stay open: watches, keep-alives, ranges in pieces.
    pub streams_max: usize,
}

impl Bounds {
    /// What can be counted.
    pub const CALLS_MAX: usize = (1 << 20) - 1;

    /// The bounds of a member that may use `memory_bytes` altogether: a quarter of it is for requests and answers.
    pub fn within(memory_bytes: usize) -> Bounds {
        let bytes_max = memory_bytes / 4;
        Bounds {
            // So that each has its task and its buffers, beside its bytes.
            calls_max: (memory_bytes / (64 << 10)).clamp(1_000, 28_000),
            bytes_max,
            // Two of the largest are all lists that there may be.
            answer_bytes_max: bytes_max / 4,
            streams_max: (memory_bytes / (16 << 10)).clamp(1_000, 10_000_000),
        }
    }
}

/// Bounds what is under way, by number and by bytes. All copies share the bounds.
///
/// They live as long as the process, as the few edges do that it has: so places and tickets need no count of references, which all
/// processors would write to with each call.
#[derive(Clone, Copy, Debug)]
pub struct Admission(&'static Shared);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    accounts: [Account; CLASSES.len()],
    loads: Loads,
    streams: AtomicU64,
    streams_shed: AtomicU64,
    /// Lists that wait for room.
    queue: Mutex<Queue>,
    /// Connections that have held bytes, by their place in memory.
    tabs: Mutex<HashMap<usize, Arc<Tab>>>,
    /// Connections that were closed because others wanted what they did not take.
    slow_closed: AtomicU64,
}

/// What may be under way for a class to be let in, and how often one was not.
#[derive(Debug)]
struct Account {
    calls_max: u64,
    bytes_max: u64,
    streams_max: u64,
    shed: AtomicU64,
}

/// What is under way of each class. Written with each call: nothing that is only read is to be beside it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Loads([Load; CLASSES.len()]);

/// Calls and their bytes in one number, so that both are counted at once: 20 bits of calls above 44 of bytes.
#[derive(Debug, Default)]
struct Load(AtomicU64);

const CALL: u64 = 1 << 44;

impl Load {
    fn add(&self, calls: u64, bytes: u64) {
        self.0.fetch_add(calls * CALL + bytes, Relaxed);
    }

    fn sub(&self, calls: u64, bytes: u64) {
        self.0.fetch_sub(calls * CALL + bytes, Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        let both = self.0.load(Relaxed);
        (both / CALL, both % CALL)
    }
}

/// How a class is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) class: &'static str,
    pub(super) calls: u64,
    pub(super) calls_max: u64,
    pub(super) bytes: u64,
    pub(super) bytes_max: u64,
    pub(super) shed: u64,
}

/// The right to have one call under way; gives it back when dropped.
#[derive(Debug)]
pub(super) struct CallPlace {
    shared: &'static Shared,
    class: Class,
}

/// The right to have one stream open; gives it back when dropped.
#[derive(Debug)]
pub struct StreamTicket(&'static Shared);

impl Admission {
    /// Within `bounds`.
    pub fn new(bounds: Bounds) -> Admission {
        let calls_max = bounds.calls_max.min(Bounds::CALLS_MAX / 2) as u64;
        let account = |(_, _, percent): (Class, &str, u64)| Account {
            calls_max: (calls_max * percent).div_ceil(100),
            bytes_max: (bounds.bytes_max as u64 * percent).div_ceil(100),
            streams_max: (bounds.streams_max as u64 * percent).div_ceil(100),
            shed: AtomicU64::default(),
        };
        Admission(Box::leak(Box::new(Shared {
            bounds,
            accounts: CLASSES.map(account),
            loads: Loads::default(),
            streams: AtomicU64::default(),
            streams_shed: AtomicU64::default(),
            queue: Mutex::default(),
            tabs: Mutex::default(),
            slow_closed: AtomicU64::default(),
        })))
    }

    /// A place for a call.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`]: nothing was done, the client may try again.
    pub(super) fn call(&self, class: Class) -> Result<CallPlace, Error> {
        let place = CallPlace { shared: self.0, class };
        self.0.load(class).add(1, 0);
        // Counted first and checked then: of two calls that meet at the bound both may be refused. A place that is dropped is given back.
        let (calls, _) = self.0.under_way();
        if calls <= self.0.account(class).calls_max {
            return Ok(place);
        }
        self.0.count_shed(class);
        Err(Error::RequestTooManyRequests)
    }

    /// A ticket for a request that goes into the log and takes `bytes` on the wire.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`]: nothing was done, the client may try again.
    pub fn write(&self, class: Class, bytes: usize) -> Result<Ticket, Error> {
        let mut ticket = Ticket::new(self.0, class, FREE_BYTES);
        let bytes = bytes.saturating_mul(COPIES_OF_A_WRITE);
        if bytes > FREE_BYTES {
            ticket.pay(bytes as u64).map_err(|_| Error::RequestTooManyRequests)?;
        }
        Ok(ticket)
    }

    /// A ticket for a read, to which its answer is charged.
    pub fn read(&self) -> Ticket {
        Ticket::new(self.0, Class::Read, FREE_BYTES)
    }

    /// A ticket for an answer of `bytes` that is there already: there is no refusing it any more.
    fn sends(&self, bytes: usize, tab: Option<Arc<Tab>>) -> Ticket {
        let class = if bytes as u64 > READ_BYTES_MAX { Class::List } else { Class::Read };
        let mut ticket = Ticket::of(self.0, class, tab);
        ticket.count(bytes as u64);
        ticket
    }

    /// Reads with a ticket. What turns out to be a list waits for its turn and begins again: it has taken nothing yet, and a client that is
    /// refused would come back anyway. Who waits is bounded, and so is how long.
    ///
    /// # Errors
    /// [`Error::NoRoom`], and those of `read`.
    pub async fn reading<T, F>(&self, read: impl Fn(Ticket) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        match read(self.read()).await {
            // Kept apart, and made only if it is needed, so that reads that are small have small futures.
            Err(Error::NoRoom) => Box::pin(self.read_when_there_is_room(read)).await,
            other => other,
        }
    }

    async fn read_when_there_is_room<T, F>(&self, read: impl Fn(Ticket) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (tab, until) = (Tab::current(), Instant::now() + ROOM_WAIT_MAX);
        // It keeps its turn: otherwise one after the other would come as far as there is room, and begin anew.
        let number = self.0.number();
        let most = self.0.account(Class::List).bytes_max;
        let (mut bytes, wanted) = (WAITED_BYTES_MIN.min(most), Arc::new(AtomicU64::new(0)));
        while Instant::now() < until {
            let ticket = self.0.list(number, tab.clone(), bytes, Some(until)).await?;
            match read(ticket.tells(&wanted)).await {
                Err(Error::NoRoom) => {}
                other => return other,
            }
            // That did not fit a moment ago: so it waits in the line, and does not walk and walk.
            let more = bytes.max(wanted.load(Relaxed)).min(most);
            if more == bytes {
                sleep(LOOK_AGAIN).await;
            }
            bytes = more;
        }
        Err(self.0.shed_list())
    }

    /// A ticket for a list of `tab` that will take `bytes`, when it is its turn and there is room.
    pub(super) async fn list_when_there_is_room(&self, tab: Option<Arc<Tab>>, bytes: usize) -> Result<Ticket, Error> {
        self.0.list(self.0.number(), tab, bytes as u64, None).await
    }

    /// A ticket for a stream that stays open.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`]
    pub fn stream(&self, class: Class) -> Result<StreamTicket, Error> {
        let before = self.0.streams.fetch_add(1, Relaxed);
        let ticket = StreamTicket(self.0);
        if before < self.0.account(class).streams_max {
            return Ok(ticket);
        }
        self.0.streams_shed.fetch_add(1, Relaxed);
        Err(Error::RequestTooManyRequests)
    }

    /// How all classes are, the cheapest to lose first.
    pub(super) fn standings(&self) -> impl Iterator<Item = Standing> {
        CLASSES.iter().zip(&self.0.accounts).map(|((class, name, _), account)| {
            let (calls, bytes) = self.0.load(*class).read();
            let Account { calls_max, bytes_max, shed, .. } = account;
            let (calls_max, bytes_max, shed) = (*calls_max, *bytes_max, shed.load(Relaxed));
            Standing { class: name, calls, calls_max, bytes, bytes_max, shed }
        })
    }

    /// Lists that wait for room, and connections that were closed for it.
    pub(super) fn queue(&self) -> (u64, u64) {
        (self.0.waiting(), self.0.slow_closed())
    }

    /// How many streams are open, may be, and were refused.
    pub(super) fn streams(&self) -> (u64, u64, u64) {
        let Shared { streams, streams_shed, bounds, .. } = self.0;
        (streams.load(Relaxed), bounds.streams_max as u64, streams_shed.load(Relaxed))
    }
}

impl Shared {
    fn account(&self, class: Class) -> &Account {
        &self.accounts[class as usize]
    }

    fn load(&self, class: Class) -> &Load {
        &self.loads.0[class as usize]
    }

    /// Calls and bytes of all classes.
    fn under_way(&self) -> (u64, u64) {
        let both = self.loads.0.iter().map(Load::read);
        both.fold((0, 0), |(calls, bytes), (more_calls, more_bytes)| (calls + more_calls, bytes + more_bytes))
    }

    fn count_shed(&self, class: Class) {
        self.account(class).shed.fetch_add(1, Relaxed);
    }
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        self.shared.load(self.class).sub(1, 0);
    }
}

impl Drop for StreamTicket {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
