//! Tickets: bytes that a call may hold.

use super::{Account, Admission, Bounds, CALL, Class, FREE_BYTES, READ_BYTES_MAX, STEP_BYTES, Shared, Tab};
use crate::{mvcc::Meter, types::Error};
use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Copies of a list while it is made: the rows that were read, and what is sent.
const COPIES_OF_A_LIST: usize = 2;

/// The right to hold bytes for a call; gives them back when dropped.
#[derive(Debug)]
pub struct Ticket {
    shared: &'static Shared,
    class: Class,
    /// Whose connection holds it.
    tab: Option<Arc<Tab>>,
    /// That were not paid for, and need not be.
    free: usize,
    /// Counted.
    paid: u64,
    used: usize,
    /// Bytes of the answer that the connection has not taken yet.
    offered: AtomicU64,
    /// Where it says how much was wanted when there was no room.
    wanted: Option<Arc<AtomicU64>>,
}

impl Ticket {
    pub(super) fn new(shared: &'static Shared, class: Class, free: usize) -> Ticket {
        let offered = AtomicU64::new(0);
        Ticket { shared, class, tab: None, free, paid: 0, used: 0, offered, wanted: None }
    }

    /// That nothing is free for.
    pub(super) fn of(shared: &'static Shared, class: Class, tab: Option<Arc<Tab>>) -> Ticket {
        let mut ticket = Ticket::new(shared, class, 0);
        ticket.tab = tab;
        ticket
    }

    /// For a read of a few keys that is never refused: a health check, a look at who has a lock.
    pub fn aside() -> Ticket {
        static ASIDE: LazyLock<Admission> =
            LazyLock::new(|| Admission::new(Bounds { answer_bytes_max: 1 << 30, ..Bounds::within(1 << 40) }));
        Ticket::new(ASIDE.0, Class::List, FREE_BYTES)
    }

    /// Whether it is for a read that is short, whatever it looks like: what takes long, or much, is refused and comes again as a list.
    pub(in crate::server) fn is_for_little(&self) -> bool {
        self.class == Class::Read
    }

    /// Whether it is for what has turned out to be large.
    pub(in crate::server) fn is_for_much(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether it holds more than what each call has for free.
    pub(in crate::server) fn has_paid(&self) -> bool {
        self.paid > 0
    }

    /// Says there how much was wanted when there was no room.
    pub(super) fn tells(mut self, wanted: &Arc<AtomicU64>) -> Ticket {
        self.wanted = Some(Arc::clone(wanted));
        self
    }

    /// The answer is there: `bytes`, which the connection may take from now on, and nothing else any more.
    pub(in crate::server) fn is_offered(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        if self.paid > bytes {
            self.shared.load(self.class).sub(0, self.paid - bytes);
            self.tab.iter().for_each(|tab| tab.let_go(self.paid - bytes));
            self.paid = bytes;
            self.made_room();
        }
        if let Some(tab) = &self.tab {
            tab.is_offered(bytes);
            *self.offered.get_mut() = bytes;
        }
    }

    /// The connection has taken `bytes` of it.
    pub(super) fn is_taken(&self, bytes: usize) {
        if let Some(tab) = &self.tab {
            let bytes = (bytes as u64).min(self.offered.load(Relaxed));
            self.offered.fetch_sub(bytes, Relaxed);
            tab.takes(bytes);
        }
    }

    pub(super) fn count(&mut self, bytes: u64) {
        self.shared.load(self.class).add(0, bytes);
        self.paid += bytes;
        self.tab.iter().for_each(|tab| tab.hold(bytes));
    }

    fn uncount(&mut self, bytes: u64) {
        self.shared.load(self.class).sub(0, bytes);
        self.paid -= bytes;
        self.tab.iter().for_each(|tab| tab.let_go(bytes));
    }

    /// Pays for `bytes` more, if there is room for them.
    pub(super) fn pay(&mut self, bytes: u64) -> Result<(), Error> {
        // Far above any bound, and what is counted at once must not run over.
        let bytes = bytes.min(CALL / 1_024);
        self.count(bytes);
        let (calls, held) = self.shared.under_way();
        let Account { calls_max, bytes_max, .. } = self.shared.account(self.class);
        // What is larger than the whole bound is let in when it is alone, or it could never be served.
        if calls <= *calls_max && (held <= self.paid || held <= *bytes_max) {
            return Ok(());
        }
        self.uncount(bytes);
        // A read goes on as a list, which waits before it is refused, and counts then.
        if self.class > Class::Read {
            self.shared.count_shed(self.class);
            self.shared.wants_room();
        }
        Err(Error::NoRoom)
    }

    /// What was counted of a list is free.
    fn made_room(&self) {
        if self.class == Class::List {
            self.shared.serve();
        }
    }

    fn pay_for(&mut self, used: usize) -> Result<(), Error> {
        let copies = if self.class == Class::List { COPIES_OF_A_LIST } else { 1 };
        let missing = used.saturating_mul(copies).saturating_sub(self.free + self.paid as usize);
        if missing == 0 {
            return Ok(());
        }
        let missing = missing.max(STEP_BYTES) as u64;
        if self.class == Class::Read {
            if self.paid + missing > READ_BYTES_MAX {
                return Err(Error::NoRoom);
            }
            // Little is read where the call is.
            self.tab = self.tab.take().or_else(Tab::current);
        }
        self.pay(missing)
    }
}

/// An answer pays before it takes memory.
impl Meter for Ticket {
    fn take(&mut self, bytes: usize) -> Result<(), Error> {
        let used = self.used.saturating_add(bytes);
        if used > self.shared.bounds.answer_bytes_max.max(self.free) {
            return Err(Error::AnswerTooLarge);
        }
        if let Err(error) = self.pay_for(used) {
            let copies = used.saturating_mul(COPIES_OF_A_LIST) as u64;
            if let Some(wanted) = &self.wanted {
                wanted.store(copies, Relaxed);
                self.shared.wants_room();
            }
            return Err(error);
        }
        self.used = used;
        Ok(())
    }

    fn give(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let offered = *self.offered.get_mut();
        if let Some(tab) = self.tab.as_ref().filter(|_| offered > 0) {
            tab.takes(offered);
        }
        if self.paid > 0 {
            self.uncount(self.paid);
            self.made_room();
        }
    }
}
