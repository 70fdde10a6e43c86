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
//! A range begins as a point read with a few bytes paid ahead, and pays for its answer while it is read, before it takes the memory. What
//! becomes large is a list from then on, whatever was asked for.

use crate::{mvcc::Meter, types::Error};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// What a request is, from the cheapest to lose to the dearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Ranges whose answer is large, walks over the whole store, streams of ranges.
    List,
    /// Reads whose answer is small.
    Read,
    /// Whatever goes into the log but upkeep.
    Write,
    /// Leases, users and roles, alarms: without them everything else ends.
    Upkeep,
}

/// Class, what metrics call it, and the part of everything that it may fill, in percent.
const CLASSES: [(Class, &str, u64); 4] =
    [(Class::List, "list", 50), (Class::Read, "read", 70), (Class::Write, "write", 90), (Class::Upkeep, "upkeep", 100)];

/// Copies of a write while it is under way: the request, the entry, the log's buffer, and what goes to the other members.
const COPIES_OF_A_WRITE: usize = 4;
/// Paid when a read comes in: most answers need no more.
const READ_BYTES: usize = 4 << 10;
/// An answer above this is that of a list.
const READ_BYTES_MAX: u64 = 256 << 10;
/// Paid at once by an answer that grows.
const STEP_BYTES: usize = 64 << 10;
/// Longest time between two looks whether there is room.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Requests under way; at most [`Bounds::CALLS_MAX`].
    pub calls_max: usize,
    /// Bytes of them and of their answers.
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

/// Bounds what is under way, by number and by bytes. Cheap to clone; all clones share the bounds.
#[derive(Clone, Debug)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    all: Load,
    accounts: [Account; CLASSES.len()],
    streams: AtomicU64,
    streams_shed: AtomicU64,
    /// A list has given bytes back.
    freed: Notify,
}

/// What a class has under way, what may be under way for it to be let in, and how often it was not.
#[derive(Debug)]
struct Account {
    load: Load,
    calls_max: u64,
    bytes_max: u64,
    shed: AtomicU64,
}

/// Calls and their bytes in one number, so that both are counted at once: 20 bits of calls above 44 of bytes.
#[derive(Debug, Default)]
struct Load(AtomicU64);

const CALL: u64 = 1 << 44;

impl Load {
    /// Adds; returns what there was before.
    fn add(&self, calls: u64, bytes: u64) -> (u64, u64) {
        Load::split(self.0.fetch_add(calls * CALL + bytes, Relaxed))
    }

    fn sub(&self, calls: u64, bytes: u64) {
        self.0.fetch_sub(calls * CALL + bytes, Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        Load::split(self.0.load(Relaxed))
    }

    fn split(both: u64) -> (u64, u64) {
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

/// The right to have one request under way; gives it back when dropped.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    class: Class,
    /// Counted.
    bytes: u64,
    /// Of these, not used yet.
    ahead: usize,
}

/// The bytes of an answer that a connection has been given. It may be long until a slow client has read them: then nobody may have more.
#[derive(Debug, Default)]
pub(super) struct Sending {
    bytes: u64,
}

impl Sending {
    /// Counts `bytes` more. Not refused any more: they are there.
    pub(super) fn add(&mut self, admission: &Admission, bytes: usize) {
        let bytes = bytes as u64;
        self.bytes += bytes;
        admission.shared.all.add(0, bytes);
    }

    /// They are sent, or nobody wants them any more.
    pub(super) fn end(&mut self, admission: &Admission) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            admission.shared.all.sub(0, bytes);
        }
    }
}

/// The right to have one stream open; gives it back when dropped.
#[derive(Debug)]
pub struct StreamTicket(Arc<Shared>);

impl Admission {
    /// Within `bounds`.
    pub fn new(bounds: Bounds) -> Admission {
        let calls_max = bounds.calls_max.min(Bounds::CALLS_MAX / 2) as u64;
        let account = |(_, _, percent): (Class, &str, u64)| Account {
            load: Load::default(),
            calls_max: (calls_max * percent).div_ceil(100),
            bytes_max: (bounds.bytes_max as u64 * percent).div_ceil(100),
            shed: AtomicU64::default(),
        };
        Admission {
            shared: Arc::new(Shared {
                bounds,
                all: Load::default(),
                accounts: CLASSES.map(account),
                streams: AtomicU64::default(),
                streams_shed: AtomicU64::default(),
                freed: Notify::new(),
            }),
        }
    }

    /// A ticket for a request that goes into the log and takes `bytes` on the wire.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`]: nothing was done, the client may try again.
    pub fn write(&self, class: Class, bytes: usize) -> Result<Ticket, Error> {
        self.enter(class, bytes.saturating_mul(COPIES_OF_A_WRITE))
    }

    /// A ticket for a read, to which its answer is charged.
    ///
    /// # Errors
    /// As [`Admission::write`].
    pub fn read(&self) -> Result<Ticket, Error> {
        let mut ticket = self.enter(Class::Read, READ_BYTES)?;
        ticket.ahead = READ_BYTES;
        Ok(ticket)
    }

    /// A ticket for a list, or a walk over the whole store, that will take `bytes`.
    ///
    /// # Errors
    /// As [`Admission::write`].
    pub fn list(&self, bytes: usize) -> Result<Ticket, Error> {
        self.enter(Class::List, bytes)
    }

    /// The same, as soon as there is room. Not in the order of asking: who asks often is not served more often.
    pub async fn list_when_there_is_room(&self, bytes: usize) -> Ticket {
        loop {
            let freed = self.shared.freed.notified();
            if let Ok(ticket) = self.try_enter(Class::List, bytes as u64) {
                return ticket;
            }
            // Other classes make room as well, and do not say so.
            let _ = tokio::time::timeout(LOOK_AGAIN, freed).await;
        }
    }

    /// A ticket for a stream that stays open.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`]
    pub fn stream(&self) -> Result<StreamTicket, Error> {
        let before = self.shared.streams.fetch_add(1, Relaxed);
        let ticket = StreamTicket(Arc::clone(&self.shared));
        if before < self.shared.bounds.streams_max as u64 {
            return Ok(ticket);
        }
        self.shared.streams_shed.fetch_add(1, Relaxed);
        Err(Error::RequestTooManyRequests)
    }

    fn enter(&self, class: Class, bytes: usize) -> Result<Ticket, Error> {
        self.try_enter(class, bytes as u64).inspect_err(|_| self.shared.count_shed(class))
    }

    fn try_enter(&self, class: Class, bytes: u64) -> Result<Ticket, Error> {
        // Far above any bound, and nothing that does not fit is to be counted even for a moment.
        let bytes = bytes.min(CALL / 1_024);
        // Counted first and checked then: two calls that meet at the bound may both be refused, but never both let in over it.
        let before = self.shared.all.add(1, bytes);
        if !self.shared.has_room(class, before, bytes) {
            self.shared.all.sub(1, bytes);
            return Err(Error::RequestTooManyRequests);
        }
        self.shared.account(class).load.add(1, bytes);
        Ok(Ticket { shared: Arc::clone(&self.shared), class, bytes, ahead: 0 })
    }

    /// How all classes are, the cheapest to lose first.
    pub(super) fn standings(&self) -> impl Iterator<Item = Standing> {
        CLASSES.iter().zip(&self.shared.accounts).map(|((_, class, _), account)| {
            let (calls, bytes) = account.load.read();
            let Account { calls_max, bytes_max, shed, .. } = account;
            let (calls_max, bytes_max, shed) = (*calls_max, *bytes_max, shed.load(Relaxed));
            Standing { class, calls, calls_max, bytes, bytes_max, shed }
        })
    }

    /// Bytes of answers that connections have been given, and may still have.
    pub(super) fn sending_bytes(&self) -> u64 {
        let admitted = self.shared.accounts.iter().map(|account| account.load.read().1).sum::<u64>();
        self.shared.all.read().1.saturating_sub(admitted)
    }

    /// How many streams are open, may be, and were refused.
    pub(super) fn streams(&self) -> (u64, u64, u64) {
        let Shared { streams, streams_shed, bounds, .. } = &*self.shared;
        (streams.load(Relaxed), bounds.streams_max as u64, streams_shed.load(Relaxed))
    }
}

impl Shared {
    fn account(&self, class: Class) -> &Account {
        &self.accounts[class as usize]
    }

    /// Whether a class may have `bytes` more when so many calls and bytes are under way.
    fn has_room(&self, class: Class, (calls, held): (u64, u64), bytes: u64) -> bool {
        let account = self.account(class);
        // What is larger than the whole bound is let in when it is alone, or it could never be served.
        calls < account.calls_max && (held == 0 || held + bytes <= account.bytes_max)
    }

    fn count_shed(&self, class: Class) {
        self.account(class).shed.fetch_add(1, Relaxed);
    }
}

impl Ticket {
    /// For a read of a few keys that is never refused: a health check, a look at who has a lock.
    pub fn aside() -> Ticket {
        let bounds = Bounds { calls_max: 2, bytes_max: 1 << 30, answer_bytes_max: 1 << 30, streams_max: 0 };
        Admission::new(bounds).read().expect("it is the only one there")
    }

    /// Counts `bytes` more.
    fn grow(&mut self, bytes: u64) -> Result<(), Error> {
        if self.class == Class::Read && self.bytes + bytes > READ_BYTES_MAX {
            self.shared.account(Class::Read).load.sub(1, self.bytes);
            self.shared.account(Class::List).load.add(1, self.bytes);
            self.class = Class::List;
        }
        let (calls, held) = self.shared.all.add(0, bytes);
        self.shared.account(self.class).load.add(0, bytes);
        let others = (calls - 1, held - self.bytes);
        self.bytes += bytes;
        if self.shared.has_room(self.class, others, self.bytes) {
            return Ok(());
        }
        self.shared.count_shed(self.class);
        Err(Error::RequestTooManyRequests)
    }
}

/// An answer pays before it takes memory.
impl Meter for Ticket {
    fn take(&mut self, bytes: usize) -> Result<(), Error> {
        if let Some(left) = self.ahead.checked_sub(bytes) {
            self.ahead = left;
            return Ok(());
        }
        let used = self.bytes - self.ahead as u64;
        if used + bytes as u64 > self.shared.bounds.answer_bytes_max as u64 {
            return Err(Error::AnswerTooLarge);
        }
        let step = bytes.max(STEP_BYTES);
        self.grow(step as u64)?;
        self.ahead = self.ahead + step - bytes;
        Ok(())
    }

    fn give(&mut self, bytes: usize) {
        self.ahead += bytes;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.account(self.class).load.sub(1, self.bytes);
        self.shared.all.sub(1, self.bytes);
        if self.class == Class::List {
            self.shared.freed.notify_one();
        }
    }
}

impl Drop for StreamTicket {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
