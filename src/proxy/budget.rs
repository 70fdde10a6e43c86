//! The memory of all copies together, and who gives way when it is short.
//!
//! Copies that somebody named stay, and get what there is. The others give way to them, and the colder ones to one that is used at
//! least twice as much: less than that is no reason to load something again.

use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// One that is told to give way does so in this time, or it does not count as one that can.
const GIVES_WAY_IN: Duration = Duration::from_secs(5);

/// How much hotter whoever takes another's memory has to be.
const MUCH_HOTTER: f32 = 2.0;

/// What a copy is worth.
pub(super) struct Rank {
    is_named: bool,
    /// Points, as the bits of an `f32`.
    heat: AtomicU32,
    leave: watch::Sender<Option<Leave>>,
}

/// Why a copy has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Others need its memory.
    Outranked,
    /// Hardly anybody uses it.
    Cold,
    /// Another copy has all that it has.
    Replaced,
    /// Nothing may be answered from copies.
    Locked,
}

impl Rank {
    /// Of a range that somebody named.
    pub(super) fn named() -> Arc<Rank> {
        Rank::new(true, 0.0)
    }

    /// Of a range that is used so much.
    pub(super) fn of(points: f64) -> Arc<Rank> {
        Rank::new(false, points)
    }

    fn new(is_named: bool, points: f64) -> Arc<Rank> {
        let heat = AtomicU32::new((points as f32).to_bits());
        Arc::new(Rank { is_named, heat, leave: watch::Sender::new(None) })
    }

    pub(super) fn is_named(&self) -> bool {
        self.is_named
    }

    pub(super) fn set(&self, points: f64) {
        self.heat.store((points as f32).to_bits(), Relaxed);
    }

    pub(super) fn points(&self) -> f32 {
        f32::from_bits(self.heat.load(Relaxed))
    }

    fn may_push_out(&self, other: &Rank) -> bool {
        !other.is_named && (self.is_named || self.points() >= other.points() * MUCH_HOTTER)
    }

    /// Has the copy go.
    pub(super) fn leave(&self, why: Leave) {
        self.leave.send_if_modified(|told| told.replace(why).is_none());
    }

    /// Returns when the copy has to go.
    pub(super) async fn told(&self) -> Leave {
        let mut told = self.leave.subscribe();
        let why = told.wait_for(Option::is_some).await.ok().and_then(|why| *why);
        // The sender is in `self`.
        why.unwrap_or(Leave::Cold)
    }
}

/// The memory of all copies together.
pub(super) struct Budget {
    bytes_max: usize,
    tenants: Mutex<Tenants>,
    freed: Notify,
}

#[derive(Default)]
struct Tenants {
    used: usize,
    all: Vec<Tenant>,
    next: u64,
}

struct Tenant {
    id: u64,
    bytes: usize,
    rank: Arc<Rank>,
}

/// What comes of a wish for memory.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Taken,
    /// Somebody was told to give way.
    Soon,
    No,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Arc<Budget> {
        Arc::new(Budget { bytes_max, tenants: Mutex::default(), freed: Notify::new() })
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// What is taken now.
    pub(super) fn used(&self) -> usize {
        self.tenants.lock().used
    }

    /// A part of the budget that has nothing yet.
    pub(super) fn claim(self: &Arc<Budget>, rank: &Arc<Rank>) -> Held {
        let mut tenants = self.tenants.lock();
        let id = tenants.next;
        tenants.next += 1;
        tenants.all.push(Tenant { id, bytes: 0, rank: Arc::clone(rank) });
        Held { budget: Arc::clone(self), id, bytes: 0 }
    }

    fn try_resize(&self, id: u64, bytes: usize) -> Room {
        let mut tenants = self.tenants.lock();
        let Some(own) = tenants.all.iter().position(|tenant| tenant.id == id) else { return Room::No };
        let had = tenants.all[own].bytes;
        let wanted = tenants.used - had + bytes;
        if wanted <= self.bytes_max || bytes <= had {
            tenants.used = wanted;
            tenants.all[own].bytes = bytes;
            return Room::Taken;
        }
        let rank = &tenants.all[own].rank;
        let mut others: Vec<&Tenant> =
            tenants.all.iter().filter(|other| other.id != id && rank.may_push_out(&other.rank)).collect();
        others.sort_by(|one, other| one.rank.points().total_cmp(&other.rank.points()));
        let mut missing = wanted - self.bytes_max;
        if others.iter().map(|other| other.bytes).sum::<usize>() < missing {
            return Room::No;
        }
        for other in others {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(other.bytes);
            other.rank.leave(Leave::Outranked);
        }
        Room::Soon
    }
}

/// What one copy takes of the budget; given back when dropped.
pub(super) struct Held {
    budget: Arc<Budget>,
    id: u64,
    bytes: usize,
}

impl Held {
    /// Takes `bytes` in all; others may have to give way first. False, and as it was, if there is not so much.
    pub(super) async fn resize(&mut self, bytes: usize) -> bool {
        if bytes == self.bytes {
            return true;
        }
        let deadline = tokio::time::Instant::now() + GIVES_WAY_IN;
        loop {
            // Before the look: who gives way after it is heard of.
            let mut freed = std::pin::pin!(self.budget.freed.notified());
            freed.as_mut().enable();
            match self.budget.try_resize(self.id, bytes) {
                Room::Taken => {
                    let is_less = bytes < self.bytes;
                    self.bytes = bytes;
                    if is_less {
                        self.budget.freed.notify_waiters();
                    }
                    return true;
                }
                Room::No => return false,
                Room::Soon if tokio::time::timeout_at(deadline, freed).await.is_err() => return false,
                Room::Soon => {}
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        {
            let mut tenants = self.budget.tenants.lock();
            tenants.used -= self.bytes;
            tenants.all.retain(|tenant| tenant.id != self.id);
        }
        self.budget.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_budget_is_for_all_together_and_comes_back() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.claim(&Rank::named()), budget.claim(&Rank::named()));
        assert!(one.resize(60).await && two.resize(40).await && !one.resize(61).await);
        assert!(two.resize(10).await && one.resize(90).await && !two.resize(11).await);
        drop(one);
        assert!(two.resize(100).await);
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn the_coldest_give_way_to_what_is_named_or_much_hotter_and_to_nobody_else() {
        let budget = Budget::new(100);
        let ranks = [Rank::of(10.0), Rank::of(30.0), Rank::of(19.0)];
        let mut cold = budget.claim(&ranks[0]);
        let mut warm = budget.claim(&ranks[1]);
        assert!(cold.resize(40).await && warm.resize(60).await);
        let mut little_hotter = budget.claim(&ranks[2]);
        assert!(!little_hotter.resize(1).await, "19 is not twice 10");
        ranks[2].set(20.0);
        let gives_way = {
            let rank = Arc::clone(&ranks[0]);
            tokio::spawn(async move {
                assert_eq!(rank.told().await, Leave::Outranked);
                drop(cold);
            })
        };
        assert!(little_hotter.resize(40).await && !little_hotter.resize(41).await);
        gives_way.await.unwrap();
        let mut named = budget.claim(&Rank::named());
        let both = [(&ranks[1], warm), (&ranks[2], little_hotter)].map(|(rank, held)| {
            let rank = Arc::clone(rank);
            tokio::spawn(async move {
                rank.told().await;
                drop(held);
            })
        });
        assert!(!named.resize(101).await && named.resize(100).await);
        for one in both {
            one.await.unwrap();
        }
    }
}
