//! Where the copy of one range is found while there is one.

use super::{
    budget::{Leave, Rank},
    copy::Copy,
};
use crate::types::KeyRange;
use parking_lot::RwLock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What went to a member tells of revisions that the copy may not have yet, and what the copy has told a member may not. So for this long
/// after reads have gone the one way, serializable ones that go the other are made linearizable. Calls that pass reach upstream in less.
const SETTLES_IN: Duration = Duration::from_secs(5);

/// It has not happened.
const NEVER: u64 = u64::MAX;

/// A range that is to be copied, and its copy while there is one.
pub(super) struct Place {
    range: KeyRange,
    rank: Arc<Rank>,
    copy: RwLock<Option<Arc<Copy>>>,
    /// Reads of the range since somebody looked, about.
    reads: AtomicU64,
    /// When a read of the range last went upstream as it was, in milliseconds since the ring began.
    passed_ms: AtomicU64,
    /// When there was last a copy, if there is none.
    emptied_ms: AtomicU64,
}

impl Place {
    /// A place for a copy of `range`.
    pub(super) fn new(range: KeyRange, rank: Arc<Rank>) -> Arc<Place> {
        Arc::new(Place {
            range,
            rank,
            copy: RwLock::default(),
            reads: AtomicU64::new(0),
            passed_ms: AtomicU64::new(NEVER),
            emptied_ms: AtomicU64::new(NEVER),
        })
    }

    /// What is to be copied.
    pub(super) fn range(&self) -> &KeyRange {
        &self.range
    }

    /// What its copy is worth.
    pub(super) fn rank(&self) -> &Arc<Rank> {
        &self.rank
    }

    /// Has the copy go, for good.
    pub(super) fn leave(&self, why: Leave) {
        self.rank.leave(why);
    }

    /// The copy, if there is one now.
    pub(super) fn copy(&self) -> Option<Arc<Copy>> {
        self.copy.read().clone().filter(|copy| !copy.is_over())
    }

    /// There is a copy now.
    pub(super) fn fill(&self, copy: &Arc<Copy>, now: Duration) {
        if !self.rank.is_named() {
            // What was read before there was this place, nobody knows.
            self.passed(now);
        }
        *self.copy.write() = Some(Arc::clone(copy));
    }

    /// There is a copy of old, since upstream cannot be asked: nothing newer can have been read.
    pub(super) fn fill_with_old(&self, copy: &Arc<Copy>) {
        *self.copy.write() = Some(Arc::clone(copy));
    }

    /// There is none any more. To be said before the copy is over.
    pub(super) fn empty(&self, now: Duration) {
        let mut copy = self.copy.write();
        if copy.is_some() {
            store(&self.emptied_ms, now);
            *copy = None;
        }
    }

    /// A read of the range goes upstream.
    pub(super) fn passed(&self, now: Duration) {
        store(&self.passed_ms, now);
    }

    /// Whether clients may know of revisions that the copy does not have yet.
    pub(super) fn may_be_behind(&self, now: Duration) -> bool {
        is_recent(&self.passed_ms, now)
    }

    /// Whether clients may know of revisions that a member does not have yet, since a copy told them.
    pub(super) fn was_ahead(&self, now: Duration) -> bool {
        is_recent(&self.emptied_ms, now)
    }

    /// The range was read about so many times.
    pub(super) fn was_read(&self, times: u64) {
        self.reads.fetch_add(times, Relaxed);
    }

    /// Reads since the last call.
    pub(super) fn take_reads(&self) -> u64 {
        self.reads.swap(0, Relaxed)
    }
}

fn store(moment_ms: &AtomicU64, now: Duration) {
    moment_ms.store(u64::try_from(now.as_millis()).unwrap_or(NEVER - 1), Relaxed);
}

fn is_recent(moment_ms: &AtomicU64, now: Duration) -> bool {
    match moment_ms.load(Relaxed) {
        NEVER => false,
        moment => now < Duration::from_millis(moment) + SETTLES_IN,
    }
}
