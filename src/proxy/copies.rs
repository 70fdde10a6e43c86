//! The copies of a proxy: which ranges, how much memory, and who keeps them.

use super::{
    Source,
    budget::{Budget, Rank},
    copy::Copy,
    demand::{Demand, Hunger},
    feed::{Feed, Rules},
    fence::{Fence, Refusal},
    place::Place,
    ranges::{covers, hulls},
    shelf::{Keeper, Shelf},
    tend::Tender,
    trust::{Trust, Trusted},
};
use crate::{
    runtime,
    types::{KeyRange, Revision, Sabotage},
};
use parking_lot::{Mutex, RwLock};
use std::{cell::Cell, sync::Arc, time::Duration};
use tokio::task::AbortHandle;

/// What is copied, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ranges to copy. Those that overlap become one.
    pub ranges: Vec<KeyRange>,
    /// When other ranges are copied too; `None`: never.
    pub hunger: Option<Hunger>,
    /// Where copies are saved, if at all.
    pub shelf: Option<Arc<Shelf>>,
    /// Memory for all copies together, in bytes. A range that does not fit is not copied.
    pub bytes_max: usize,
    /// How feeds behave.
    pub rules: Rules,
    /// Longest wait for a fence, and for a copy to reach it.
    pub wait_max: Duration,
    /// Upstream is asked this often whether it is still what it was; a little more, by chance.
    pub pulse: Duration,
    /// Who trusts this proxy with users and permissions, and whom it trusts.
    pub trust: Trusted,
    /// A rule that this proxy is to break, to prove that somebody notices.
    pub sabotage: Option<Sabotage>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ranges: Vec::new(),
            hunger: None,
            shelf: None,
            bytes_max: 512 << 20,
            rules: Rules::default(),
            wait_max: Duration::from_secs(5),
            pulse: Duration::from_secs(5),
            trust: Trusted::default(),
            sabotage: None,
        }
    }
}

/// All copies of one upstream. Cheap to clone; when the last clone is dropped, the feeds end.
#[derive(Clone)]
pub struct Copies {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) ground: Arc<Ground>,
    pub(super) wait_max: Duration,
    tasks: Vec<AbortHandle>,
}

/// What the copies stand on. The tasks that keep them hold it too.
pub(super) struct Ground {
    pub(super) fence: Fence,
    /// What is known of users.
    pub(super) trust: Trust,
    pub(super) budget: Arc<Budget>,
    places: RwLock<Vec<Arc<Place>>>,
    /// Where copies are saved, if at all.
    pub(super) shelf: Option<Arc<Shelf>>,
    /// What has no copy and is asked for, if that is to lead to any.
    pub(super) demand: Option<Mutex<Demand>>,
    /// A rule that is to be broken.
    pub(super) sabotage: Option<Sabotage>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Copies {
    /// Begins to copy. What is not there yet is not covered.
    pub fn start(source: Arc<dyn Source>, settings: Settings) -> Copies {
        let Settings { ranges, hunger, shelf, bytes_max, rules, wait_max, pulse, trust, sabotage } = settings;
        let fence = Fence::new(Arc::clone(&source), wait_max);
        let trust = Trust::new(trust, Arc::clone(&source));
        let ground = Ground::new(fence, bytes_max, ranges, hunger.clone(), shelf.clone());
        let ground = Arc::new(Ground { trust, sabotage, ..ground });
        let feed = |place: &Arc<Place>| Feed::new(place, &ground, &source, &rules);
        let feeds: Vec<Feed> = ground.places().iter().map(feed).collect();
        let mut tasks: Vec<AbortHandle> =
            feeds.into_iter().map(|feed| runtime::spawn(feed.run()).abort_handle()).collect();
        tasks.extend(ground.trust.start(&ground));
        if ground.answers_anything() {
            tasks.push(runtime::spawn(feel(Arc::clone(&ground), pulse)).abort_handle());
        }
        if let Some(hunger) = hunger {
            let tender = Tender::new(Arc::clone(&ground), source, rules, hunger);
            tasks.push(runtime::spawn(tender.run()).abort_handle());
        }
        if let Some(shelf) = shelf {
            tasks.push(runtime::spawn(Keeper::new(shelf, Arc::clone(&ground)).run()).abort_handle());
        }
        Copies { shared: Arc::new(Shared { ground, wait_max, tasks }) }
    }

    /// The copy that has all keys of `range`, if there is one now.
    pub fn covering(&self, range: &KeyRange) -> Option<Arc<Copy>> {
        self.shared.ground.find(range)?.copy
    }

    /// Whether there is anything that could be answered here, now or later.
    pub fn answers_anything(&self) -> bool {
        self.shared.ground.answers_anything()
    }

    /// Upstream is being asked to compact at `revision`.
    pub fn forget(&self, revision: Revision) {
        self.shared.ground.copies().iter().for_each(|copy| copy.forget(revision));
    }

    /// All copies that there are now.
    pub fn all(&self) -> Vec<Arc<Copy>> {
        self.shared.ground.copies()
    }

    /// The fence of this upstream.
    pub fn fence(&self) -> &Fence {
        &self.shared.ground.fence
    }

    /// What is known of users.
    pub(super) fn trust(&self) -> &Trust {
        &self.shared.ground.trust
    }

    /// Memory that the copies take, about.
    pub fn bytes(&self) -> usize {
        self.shared.ground.budget.used()
    }

    /// Memory that they may take.
    pub fn bytes_max(&self) -> usize {
        self.shared.ground.budget.bytes_max()
    }
}

/// What [`Ground::find`] found.
pub(super) struct Found {
    pub(super) place: Arc<Place>,
    pub(super) copy: Option<Arc<Copy>>,
    /// Another copy was read from until lately.
    after_another: bool,
}

impl Found {
    /// Whether clients may know of revisions that the copy does not have yet.
    pub(super) fn may_be_behind(&self, now: Duration) -> bool {
        self.after_another || self.place.may_be_behind(now)
    }

    /// Whether clients may know of revisions that a member does not have yet, since a copy told them.
    pub(super) fn was_ahead(&self, now: Duration) -> bool {
        self.copy.is_none() && self.place.was_ahead(now)
    }
}

impl Ground {
    /// With places for `ranges`, which somebody has named.
    pub(super) fn new(
        fence: Fence,
        bytes_max: usize,
        ranges: Vec<KeyRange>,
        hunger: Option<Hunger>,
        shelf: Option<Arc<Shelf>>,
    ) -> Ground {
        Ground {
            trust: Trust::new(Trusted::default(), Arc::clone(fence.source())),
            fence,
            shelf,
            budget: Budget::new(bytes_max),
            places: RwLock::new(hulls(ranges).into_iter().map(|range| Place::new(range, Rank::named())).collect()),
            demand: hunger.map(|hunger| Mutex::new(Demand::new(hunger))),
            sabotage: None,
        }
    }

    fn answers_anything(&self) -> bool {
        self.demand.is_some() || !self.places.read().is_empty()
    }

    /// The places of now.
    pub(super) fn places(&self) -> Vec<Arc<Place>> {
        self.places.read().clone()
    }

    /// Adds a place: behind those that were named, which are asked first.
    pub(super) fn add(&self, place: &Arc<Place>) {
        self.places.write().push(Arc::clone(place));
    }

    /// Removes places.
    pub(super) fn retain(&self, keep: impl Fn(&Arc<Place>) -> bool) {
        self.places.write().retain(|place| keep(place));
    }

    /// The place that has all of `range`, one with a copy if there is any.
    pub(super) fn find(&self, range: &KeyRange) -> Option<Found> {
        let mut without: Option<Found> = None;
        for place in self.places.read().iter().filter(|place| covers(place.range(), range)) {
            let copy = place.copy();
            let was_ahead = without.as_ref().is_some_and(|found| found.was_ahead(self.fence.now()));
            match copy {
                Some(_) => return Some(Found { place: Arc::clone(place), copy, after_another: was_ahead }),
                // One that clients have read from lately says the most.
                None if !was_ahead => without = Some(Found { place: Arc::clone(place), copy, after_another: false }),
                None => {}
            }
        }
        without
    }

    /// The copies of now.
    pub(super) fn copies(&self) -> Vec<Arc<Copy>> {
        self.places.read().iter().filter_map(|place| place.copy()).collect()
    }

    /// Nothing may be answered here until upstream says otherwise.
    pub(super) fn lock(&self) {
        self.copies().iter().for_each(|copy| copy.end());
    }

    /// A read of `range` is to be counted at `place`, or as one of what has no copy. Counts a sample, and never waits for a lock.
    pub(super) fn note_read(&self, range: &KeyRange, place: Option<&Place>) {
        let Some(demand) = &self.demand else { return };
        let Some(times) = sampled() else { return };
        match place {
            Some(place) => place.was_read(times.into()),
            None => {
                if let Some(mut demand) = demand.try_lock() {
                    demand.note(range, times.into(), self.fence.now());
                }
            }
        }
    }

    /// Somebody watches `range`, for which there is no copy.
    pub(super) fn note_watch(&self, range: &KeyRange) {
        let Some(demand) = &self.demand else { return };
        if let Some(mut demand) = demand.try_lock() {
            demand.note_watch(range, self.fence.now());
        }
    }
}

thread_local! {
    /// Reads on this thread until one is counted, that one included. 0: none was made.
    static UNTIL_COUNTED: Cell<u32> = const { Cell::new(0) };
}

/// One of so many reads is counted, for all of them: so that threads have nothing in common for the others.
const SAMPLE: u32 = 8;

/// Now and then, for how many reads the one that is being made is to count. By chance, or those of a loop would be the same ones each time.
fn sampled() -> Option<u32> {
    let gap = || 1 + runtime::below(2 * SAMPLE as usize - 1) as u32;
    let until = match UNTIL_COUNTED.get() {
        0 => gap(),
        until => until,
    };
    let is_counted = until == 1;
    UNTIL_COUNTED.set(if is_counted { gap() } else { until - 1 });
    is_counted.then_some(SAMPLE)
}

/// Asks upstream now and then how far it is. That bounds the age of what is said here, lets the copies go on beside writes that
/// they do not hear of, and finds out that upstream was restored, or wants to know who asks.
async fn feel(ground: Arc<Ground>, pulse: Duration) {
    let fence = &ground.fence;
    loop {
        tokio::time::sleep(pulse.mul_f64(runtime::chance(1.0..1.2))).await;
        let copies = ground.copies();
        // A proxy that copies nothing need not know; but once locked, nobody else would find out that upstream is not any more.
        if copies.is_empty() && !fence.is_locked() {
            continue;
        }
        let before: Vec<_> = copies.iter().map(|copy| copy.revision()).collect();
        let proof = match fence.pass().await {
            Ok(proof) => proof,
            // Who may read here, or watch, is upstream's to say from now on.
            Err(Refusal::Locked) => {
                ground.lock();
                continue;
            }
            Err(_) => continue,
        };
        for (copy, before) in copies.iter().zip(before) {
            if copy.agrees(before, &proof) {
                copy.want(proof.header.revision);
            } else {
                fence.forget();
                copy.end();
            }
        }
    }
}
