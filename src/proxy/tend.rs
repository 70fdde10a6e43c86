//! Begins copies of what is asked for often, and drops those that are not any more.
//!
//! ```text
//!   reads and watches without a copy ─▶ Demand ── hot ──▶ a place, and a feed that loads ──▶ a copy
//!                                         ▲                                                   │ reads, watchers
//!                                  barred └── does not fit · had to make room ◀───────────────┴─▶ cold: dropped
//! ```
//!
//! One copy is loaded at a time. One that overlaps others takes their place: they go once it is there, and their clients go on from it.

use super::{
    Source,
    budget::{Leave, Rank},
    copies::Ground,
    demand::{Demand, Heat, Hunger},
    feed::{Feed, Rules},
    place::Place,
    ranges::{covers, hulls},
};
use crate::{runtime, types::KeyRange};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;

/// See the module.
pub(super) struct Tender {
    ground: Arc<Ground>,
    source: Arc<dyn Source>,
    rules: Rules,
    hunger: Hunger,
    tended: Vec<Tended>,
    feeds: Vec<Feeding>,
}

/// A feed at work. It ends with the tender.
struct Feeding(JoinHandle<(Arc<Place>, End)>);

impl Drop for Feeding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A copy that nobody has named, or one that is about to be.
struct Tended {
    place: Arc<Place>,
    heat: Heat,
    began: Duration,
    /// Events that it has had when it was last looked at.
    events: u64,
    /// Places whose range it has too: they go once there is a copy.
    replaces: Vec<Arc<Place>>,
}

/// Why a feed is no more.
enum End {
    TooLarge,
    Told(Leave),
}

impl Tender {
    pub(super) fn new(ground: Arc<Ground>, source: Arc<dyn Source>, rules: Rules, hunger: Hunger) -> Tender {
        let mut tender = Tender { ground, source, rules, hunger, tended: Vec::new(), feeds: Vec::new() };
        tender.begin_again();
        tender
    }

    /// Goes on with what was in demand when the proxy ended: it lies on disk. It has to prove itself once more.
    fn begin_again(&mut self) {
        let Some(shelf) = self.ground.shelf.clone() else { return };
        let now = self.ground.fence.now();
        let is_new = |range: &&KeyRange| !self.ground.places().iter().any(|place| covers(place.range(), range));
        let saved: Vec<KeyRange> = shelf.found().iter().filter(is_new).take(self.hunger.copies_max).cloned().collect();
        for range in saved {
            let mut heat = Heat::default();
            heat.add(2.0 * self.hunger.begin_at, now, self.hunger.half_life);
            self.plant(range, heat, Vec::new(), now);
        }
    }

    /// Never returns.
    pub(super) async fn run(mut self) {
        loop {
            tokio::time::sleep(self.hunger.tick).await;
            let now = self.ground.fence.now();
            self.weigh(now);
            self.bury(now).await;
            self.drop_cold(now);
            self.begin(now);
        }
    }

    fn demand(&self) -> &Mutex<Demand> {
        self.ground.demand.as_ref().expect("there is no tender without")
    }

    /// Looks at how much each copy is used.
    fn weigh(&mut self, now: Duration) {
        let Hunger { half_life, tick, .. } = self.hunger;
        for tended in &mut self.tended {
            let points = tended.use_since_last(&self.hunger, tick);
            tended.heat.add(points, now, half_life);
            tended.place.rank().set(tended.heat.at(now, half_life));
        }
    }

    /// Takes leave of places whose feeds have ended.
    async fn bury(&mut self, now: Duration) {
        for mut feeding in self.feeds.extract_if(.., |feeding| feeding.0.is_finished()).collect::<Vec<_>>() {
            // A feed that has met a bug: its place is of no use, and another may be tried some day.
            let Ok((place, end)) = (&mut feeding.0).await else { continue };
            let range = place.range();
            let lived = self.tended.iter().find(|tended| Arc::ptr_eq(&tended.place, &place)).map(|one| now - one.began);
            self.tended.retain(|tended| !Arc::ptr_eq(&tended.place, &place));
            let mut demand = self.demand().lock();
            match end {
                End::TooLarge => {
                    tracing::info!(
                        ?range,
                        "a range that is in demand does not fit into the budget, or is not worth so much of it"
                    );
                    demand.bar(range, true, now);
                }
                End::Told(Leave::Outranked) => demand.bar(range, false, now),
                End::Told(Leave::Cold | Leave::Replaced | Leave::Locked) => {
                    if lived.is_some_and(|lived| lived > self.hunger.bar_max / 6) {
                        demand.unbar(range);
                    }
                }
            }
        }
        let tended = &self.tended;
        let is_tended = |place: &Arc<Place>| tended.iter().any(|tended| Arc::ptr_eq(&tended.place, place));
        // Reads of what was copied until now must find the place for a little while: it knows that they must not go back.
        self.ground.retain(|place| place.rank().is_named() || is_tended(place) || place.was_ahead(now));
    }

    fn drop_cold(&mut self, now: Duration) {
        let Hunger { half_life, end_below, life_min, .. } = self.hunger;
        let is_locked = self.ground.fence.is_locked();
        for tended in &mut self.tended {
            let is_cold = now - tended.began > life_min && tended.heat.at(now, half_life) < end_below;
            match () {
                () if is_locked => tended.place.leave(Leave::Locked),
                () if is_cold => tended.place.leave(Leave::Cold),
                () if tended.place.copy().is_some() => {
                    tended.replaces.drain(..).for_each(|place| place.leave(Leave::Replaced));
                }
                () => {}
            }
        }
    }

    /// Begins the copy that is asked for most, if no other is being loaded.
    fn begin(&mut self, now: Duration) {
        let places = self.ground.places();
        // One that does not come to anything must not hold up the others for ever.
        let is_begun = |tended: &Tended| tended.place.copy().is_none() && now - tended.began < LOADS_IN;
        let is_loading = self.tended.iter().any(is_begun);
        let mut demand = self.demand().lock();
        // What has a place is counted there.
        demand.keep(now, |range| !places.iter().any(|place| covers(place.range(), range) && !place.was_ahead(now)));
        if is_loading || self.tended.len() >= self.hunger.copies_max || self.ground.fence.is_locked() {
            return;
        }
        let Some((wanted, points)) = demand.hottest(now) else { return };
        let (range, replaces) = self.widened(&wanted);
        if range != wanted && demand.is_barred(&range, now) {
            demand.bar(&wanted, false, now);
            return;
        }
        drop(demand);
        let half_life = self.hunger.half_life;
        let mut heat = Heat::default();
        heat.add(points, now, half_life);
        for tended in self.tended.iter().filter(|tended| replaces.iter().any(|place| Arc::ptr_eq(place, &tended.place)))
        {
            heat.add(tended.heat.at(now, half_life), now, half_life);
        }
        tracing::info!(?range, points, replaces = replaces.len(), "a range is in demand: it is copied");
        self.plant(range, heat, replaces, now);
    }

    /// Begins a copy of `range`.
    fn plant(&mut self, range: KeyRange, heat: Heat, replaces: Vec<Arc<Place>>, now: Duration) {
        let place = Place::new(range, Rank::of(heat.at(now, self.hunger.half_life)));
        let feed = Feed::new(&place, &self.ground, &self.source, &self.rules).worth(self.hunger.bytes_per_point);
        let life = live(Arc::clone(&place), feed, Arc::clone(&self.ground));
        self.feeds.push(Feeding(runtime::spawn(life)));
        self.ground.add(&place);
        self.tended.push(Tended { place, heat, began: now, events: 0, replaces });
    }

    /// `wanted` with all that it overlaps of what is tended; and those.
    fn widened(&self, wanted: &KeyRange) -> (KeyRange, Vec<Arc<Place>>) {
        let (mut range, mut replaces) = (wanted.clone(), Vec::<Arc<Place>>::new());
        // Wider, it may overlap more.
        loop {
            let is_new = |place: &Arc<Place>| !replaces.iter().any(|known| Arc::ptr_eq(known, place));
            let others = self.tended.iter().map(|tended| &tended.place);
            let more =
                others.filter(|place| is_new(place) && place.range().overlaps(&range)).cloned().collect::<Vec<_>>();
            if more.is_empty() {
                return (range, replaces);
            }
            let all = more.iter().map(|place| place.range().clone()).chain([range]).collect();
            range = hulls(all).into_iter().next().expect("ranges with keys have a hull");
            replaces.extend(more);
        }
    }
}

impl Tended {
    /// What its use in the last `tick` is worth.
    fn use_since_last(&mut self, hunger: &Hunger, tick: Duration) -> f64 {
        let reads = self.place.take_reads() as f64;
        let Some(copy) = self.place.copy() else { return reads };
        let events = copy.events();
        let fresh = events.saturating_sub(std::mem::replace(&mut self.events, events)) as f64;
        match copy.hub().counts().watchers {
            0 => reads - fresh * hunger.event_points,
            // As much as the account gives those who have no copy, over the time between two looks at them.
            watchers => {
                reads + watchers as f64 * hunger.watch_points * (tick.as_secs_f64() / WATCH_LOOKED_AT.as_secs_f64())
            }
        }
    }
}

/// How long the next copy waits for one that is being loaded.
const LOADS_IN: Duration = Duration::from_secs(60);

/// How often streams say that they watch what has no copy.
const WATCH_LOOKED_AT: Duration = super::watch::HOME_EVERY;

/// The life of one copy.
async fn live(place: Arc<Place>, feed: Feed, ground: Arc<Ground>) -> (Arc<Place>, End) {
    let end = {
        let mut feeding = std::pin::pin!(feed.run_while_it_fits());
        let end = tokio::select! {
            biased;
            why = place.rank().told() => End::Told(why),
            () = &mut feeding => End::TooLarge,
        };
        // Before the feed and with it the copy is dropped: nobody is to find it then.
        place.empty(ground.fence.now());
        end
    };
    if let End::Told(why) = &end {
        tracing::info!(range = ?place.range(), ?why, "a copy is dropped");
    }
    (place, end)
}
