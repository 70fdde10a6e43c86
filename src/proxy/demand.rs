//! What clients ask for and no copy has: a bounded account that forgets, and says which range is worth a copy.
//!
//! Each use of a range is worth points, which lose half their worth in [`Hunger::half_life`]. So the account holds about how often a
//! range is asked for, and what was busy yesterday is nothing today. A key rolls up to its folder, a page of a list to the list. What
//! was tried in vain is barred for a time, and for twice as long the next time.
//!
//! Moments are durations since the ring began; whoever calls knows the time.

use super::ranges::{covers, folder, is_rest};
use crate::types::KeyRange;
use std::{collections::BTreeMap, time::Duration};

/// When a range is worth a copy that nobody has asked for by name.
#[derive(Clone, Debug)]
pub struct Hunger {
    /// Points lose half their worth in this time.
    pub half_life: Duration,
    /// A range with so many points gets a copy. A read is one point.
    pub begin_at: f64,
    /// A copy that has fewer is dropped. Far below [`Hunger::begin_at`], so that nothing comes and goes all the time.
    pub end_below: f64,
    /// What one watcher of a range is worth, each time that it is looked at. More than [`Hunger::begin_at`], so that one is enough: it may
    /// be a moment until somebody looks at the account.
    pub watch_points: f64,
    /// The same for a watcher of one key, which is worth little alone.
    pub key_watch_points: f64,
    /// What an event costs that nobody watches for: it came for the sake of readers, who must outweigh it.
    pub event_points: f64,
    /// Bytes that a copy may take for each point when it begins: a large one has to be in great demand.
    pub bytes_per_point: usize,
    /// Most copies that are nobody's wish by name.
    pub copies_max: usize,
    /// How often the account is looked at.
    pub tick: Duration,
    /// A copy lives so long at least, unless its memory is needed.
    pub life_min: Duration,
    /// For how long a range that did not fit is not tried again: at first, and at most.
    pub bar_min: Duration,
    /// See [`Hunger::bar_min`].
    pub bar_max: Duration,
}

impl Default for Hunger {
    fn default() -> Hunger {
        Hunger {
            half_life: Duration::from_secs(60),
            begin_at: 20.0,
            end_below: 2.0,
            watch_points: 30.0,
            key_watch_points: 5.0,
            event_points: 0.1,
            bytes_per_point: 1 << 20,
            copies_max: 64,
            tick: Duration::from_secs(1),
            life_min: Duration::from_secs(60),
            bar_min: Duration::from_secs(300),
            bar_max: Duration::from_secs(6 * 3_600),
        }
    }
}

/// Ranges that are known, and barred ones. Each note may look at all of them.
const KNOWN_MAX: usize = 512;
const BARS_MAX: usize = 128;

/// No heat is more: what was used a lot must cool in minutes too.
const POINTS_MAX: f64 = 100_000.0;

/// Points that lose their worth.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heat {
    points: f64,
    at: Duration,
}

impl Heat {
    /// What they are worth at `now`.
    pub(super) fn at(&self, now: Duration, half_life: Duration) -> f64 {
        let halves = now.saturating_sub(self.at).as_secs_f64() / half_life.as_secs_f64().max(1e-3);
        self.points * 0.5_f64.powf(halves)
    }

    /// Adds points, or takes some away; there are never fewer than none.
    pub(super) fn add(&mut self, points: f64, now: Duration, half_life: Duration) {
        self.points = (self.at(now, half_life) + points).clamp(0.0, POINTS_MAX);
        self.at = now.max(self.at);
    }
}

/// A range that was tried in vain.
#[derive(Clone, Copy, Debug)]
struct Bar {
    until: Duration,
    pause: Duration,
    /// It does not fit; then nothing that has all of it fits.
    is_too_large: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Demand {
    hunger: Hunger,
    known: BTreeMap<KeyRange, Heat>,
    bars: BTreeMap<KeyRange, Bar>,
}

impl Demand {
    pub(super) fn new(hunger: Hunger) -> Demand {
        Demand { hunger, known: BTreeMap::new(), bars: BTreeMap::new() }
    }

    /// `range` was read or watched, which is worth `points`.
    pub(super) fn note(&mut self, range: &KeyRange, points: f64, now: Duration) {
        if range.is_empty() {
            return;
        }
        let half_life = self.hunger.half_life;
        let range = self.rolled_up(range, now);
        if let Some(heat) = self.known.get_mut(&range) {
            return heat.add(points, now, half_life);
        }
        if self.known.len() >= KNOWN_MAX {
            let worth = |heat: &Heat| heat.at(now, half_life);
            let coldest = self.known.iter().min_by(|(_, one), (_, other)| worth(one).total_cmp(&worth(other)));
            // A walk over many keys that are read once each must not push out what is asked for all the time.
            let Some(coldest) = coldest.filter(|(_, heat)| worth(heat) <= points).map(|(range, _)| range.clone())
            else {
                return;
            };
            self.known.remove(&coldest);
        }
        self.known.insert(range, Heat { points, at: now });
    }

    /// Somebody watches `range`.
    pub(super) fn note_watch(&mut self, range: &KeyRange, now: Duration) {
        let points = match range {
            KeyRange::One(_) => self.hunger.key_watch_points,
            KeyRange::Span { .. } | KeyRange::From(_) => self.hunger.watch_points,
        };
        self.note(range, points, now);
    }

    /// The range that a use of `range` speaks for.
    fn rolled_up(&self, range: &KeyRange, now: Duration) -> KeyRange {
        match range {
            KeyRange::One(key) => match folder(key) {
                Some(folder) if !self.is_too_large(&folder, now) => folder,
                // The folder does not fit; this key does.
                _ => range.clone(),
            },
            _ if self.known.contains_key(range) => range.clone(),
            _ => self.known.keys().find(|whole| is_rest(whole, range)).unwrap_or(range).clone(),
        }
    }

    fn is_too_large(&self, range: &KeyRange, now: Duration) -> bool {
        self.bars.iter().any(|(barred, bar)| bar.is_too_large && now < bar.until && covers(range, barred))
    }

    /// Whether a copy of `range` was tried in vain lately.
    pub(super) fn is_barred(&self, range: &KeyRange, now: Duration) -> bool {
        self.bars.get(range).is_some_and(|bar| now < bar.until) || self.is_too_large(range, now)
    }

    /// The range that is worth a copy more than any other, and its points.
    pub(super) fn hottest(&self, now: Duration) -> Option<(KeyRange, f64)> {
        let worth = self.known.iter().map(|(range, heat)| (range, heat.at(now, self.hunger.half_life)));
        let is_due =
            |(range, points): &(&KeyRange, f64)| *points >= self.hunger.begin_at && !self.is_barred(range, now);
        let hottest = worth.filter(is_due).max_by(|(_, one), (_, other)| one.total_cmp(other));
        hottest.map(|(range, points)| (range.clone(), points))
    }

    /// Forgets what `is_of_use` no more, and what nobody has asked for in a long time.
    pub(super) fn keep(&mut self, now: Duration, is_of_use: impl Fn(&KeyRange) -> bool) {
        let half_life = self.hunger.half_life;
        self.known.retain(|range, heat| heat.at(now, half_life) > 0.01 && is_of_use(range));
    }

    /// A copy of `range` was tried, and it is better not to try again soon.
    pub(super) fn bar(&mut self, range: &KeyRange, is_too_large: bool, now: Duration) {
        let Hunger { bar_min, bar_max, .. } = self.hunger;
        let pause = self.bars.get(range).map_or(bar_min, |bar| (bar.pause * 2).min(bar_max));
        self.bars.insert(range.clone(), Bar { until: now + pause, pause, is_too_large });
        if self.bars.len() > BARS_MAX {
            let first = self.bars.iter().min_by_key(|(_, bar)| bar.until).map(|(range, _)| range.clone());
            first.map(|range| self.bars.remove(&range));
        }
    }

    /// A copy of `range` did well: should it not fit some day, that is for the first time.
    pub(super) fn unbar(&mut self, range: &KeyRange) {
        self.bars.remove(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn key(text: &str) -> KeyRange {
        KeyRange::One(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn prefix(text: &str) -> KeyRange {
        KeyRange::prefix(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn demand() -> Demand {
        Demand::new(Hunger::default())
    }

    #[test]
    fn points_lose_half_their_worth_in_a_half_life_and_are_never_below_none() {
        let mut heat = Heat::default();
        heat.add(8.0, s(10), s(60));
        assert_eq!((heat.at(s(10), s(60)), heat.at(s(70), s(60)), heat.at(s(190), s(60))), (8.0, 4.0, 1.0));
        heat.add(-100.0, s(70), s(60));
        assert_eq!(heat.at(s(70), s(60)), 0.0);
        heat.add(1e9, s(70), s(60));
        assert_eq!(heat.at(s(70), s(60)), POINTS_MAX);
    }

    #[test]
    fn keys_of_a_folder_are_hot_together_and_a_slow_trickle_is_not() {
        let mut demand = demand();
        for n in 0..19 {
            demand.note(&key(&format!("jobs/{n}")), 1.0, s(0));
        }
        assert_eq!(demand.hottest(s(0)), None);
        demand.note(&key("jobs/x"), 1.0, s(0));
        assert_eq!(demand.hottest(s(0)), Some((prefix("jobs/"), 20.0)));
        assert_eq!(demand.hottest(s(30)), None, "it was a moment");
        let mut trickle = self::demand();
        for minute in 0..600 {
            trickle.note(&key("jobs/a"), 5.0, s(minute * 60));
            assert_eq!(trickle.hottest(s(minute * 60)), None);
        }
    }

    #[test]
    fn a_watched_range_is_hot_at_once_and_the_hottest_comes_first() {
        let mut demand = demand();
        demand.note_watch(&prefix("a/"), s(0));
        demand.note_watch(&prefix("b/"), s(0));
        demand.note(&prefix("b/"), 1.0, s(0));
        demand.note_watch(&key("c/one"), s(0));
        assert!(demand.hottest(s(5)).is_some(), "it may be a moment until somebody looks");
        assert_eq!(demand.hottest(s(0)).map(|(range, _)| range), Some(prefix("b/")));
        demand.keep(s(0), |range| *range != prefix("b/"));
        assert_eq!(demand.hottest(s(0)).map(|(range, _)| range), Some(prefix("a/")));
        demand.keep(s(0), |range| *range != prefix("a/"));
        assert_eq!(demand.hottest(s(0)), None, "one watcher of one key is no reason");
    }

    #[test]
    fn pages_of_a_list_speak_for_the_list() {
        let mut demand = demand();
        let end = Bytes::from_static(b"jobs0");
        demand.note(&prefix("jobs/"), 10.0, s(0));
        demand.note(&KeyRange::Span { start: Bytes::from_static(b"jobs/77\0"), end }, 10.0, s(0));
        assert_eq!(demand.hottest(s(0)), Some((prefix("jobs/"), 20.0)));
    }

    #[test]
    fn what_is_too_large_is_barred_with_all_around_it_and_for_longer_each_time() {
        let mut demand = demand();
        demand.note(&key("big/a"), 50.0, s(0));
        demand.note(&prefix(""), 50.0, s(0));
        demand.bar(&prefix("big/"), true, s(0));
        assert_eq!(demand.hottest(s(0)), None);
        // The key alone may fit.
        demand.note(&key("big/a"), 50.0, s(0));
        assert_eq!(demand.hottest(s(0)), Some((key("big/a"), 50.0)));
        assert!(demand.is_barred(&prefix("big/"), s(299)) && !demand.is_barred(&prefix("big/"), s(300)));
        demand.bar(&prefix("big/"), true, s(300));
        assert!(demand.is_barred(&prefix("big/"), s(899)) && !demand.is_barred(&prefix("big/"), s(900)));
        // One that had to make room says nothing about others.
        demand.bar(&prefix("small/"), false, s(0));
        assert!(demand.is_barred(&prefix("small/"), s(0)) && !demand.is_barred(&prefix("s"), s(0)));
    }

    #[test]
    fn the_account_is_bounded_and_one_walk_over_many_keys_does_not_push_out_what_is_hot() {
        let mut demand = demand();
        for n in 0..KNOWN_MAX / 2 {
            demand.note(&prefix(&format!("hot-{n}/")), 5.0, s(0));
        }
        for n in 0..10_000 {
            demand.note(&key(&format!("once-{n}")), 1.0, s(0));
            demand.bar(&key(&format!("once-{n}")), true, s(n));
        }
        assert_eq!((demand.known.len(), demand.bars.len()), (KNOWN_MAX, BARS_MAX));
        assert!(demand.known.contains_key(&prefix("hot-0/")));
        demand.keep(s(3_600), |_| true);
        assert!(demand.known.is_empty());
    }
}
