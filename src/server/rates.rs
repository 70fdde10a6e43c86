//! Rates: how many requests a second a user may make, and how many there may be for the keys of a prefix.
//!
//! Each is a bucket that holds a second's worth, so that who was silent may say that much at once. It is kept as one number, the time at
//! which the bucket would be full again (the *generic cell rate algorithm*), so a request costs one atomic exchange and no lock.

use crate::{
    auth::Author,
    metrics::{Kind, Text},
    types::{Error, KeyRange},
};
use parking_lot::RwLock;
use std::{
    collections::HashMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// Who is nobody's name: all who are not named.
const OTHERS: &str = "*";
/// Users with a bucket of their own by `*`. Beyond, all begin anew.
const OTHERS_MAX: usize = 10_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Requests a second, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateSettings {
    /// Of a user; `*` of each who is not named, and of all together who are nobody.
    pub users: Vec<(String, u32)>,
    /// For keys that begin so. A range counts for each prefix that it touches.
    pub prefixes: Vec<(String, u32)>,
}

/// Counts requests by the second.
#[derive(Debug)]
pub(super) struct Rates {
    began: Instant,
    users: HashMap<Box<str>, Bucket>,
    /// Requests a second of each who is not named, and their buckets.
    others: Option<(u32, RwLock<Others>)>,
    prefixes: Vec<(Box<str>, Bucket)>,
    refused_others: AtomicU64,
}

/// By name, nobody's the empty one.
type Others = HashMap<Arc<str>, Arc<Bucket>>;

#[derive(Debug)]
struct Bucket {
    per_second: u32,
    /// When it is full again, in nanoseconds since the beginning.
    full_at: AtomicU64,
    refused: AtomicU64,
}

impl Bucket {
    fn new(per_second: u32) -> Bucket {
        Bucket { per_second: per_second.max(1), full_at: AtomicU64::default(), refused: AtomicU64::default() }
    }

    /// Takes one at `now_ns`; else how many nanoseconds it takes until there is one.
    fn take(&self, now_ns: u64) -> Result<(), u64> {
        let one = SECOND_NS / u64::from(self.per_second);
        let next = |full_at: u64| {
            let next = full_at.max(now_ns) + one;
            (next - now_ns <= SECOND_NS).then_some(next)
        };
        match self.full_at.fetch_update(Relaxed, Relaxed, next) {
            Ok(_) => Ok(()),
            Err(full_at) => {
                self.refused.fetch_add(1, Relaxed);
                Err((full_at.max(now_ns) + one - now_ns).saturating_sub(SECOND_NS))
            }
        }
    }

    /// Requests that may be made at once at `now_ns`.
    fn left(&self, now_ns: u64) -> u64 {
        let missing = self.full_at.load(Relaxed).saturating_sub(now_ns);
        SECOND_NS.saturating_sub(missing) / (SECOND_NS / u64::from(self.per_second))
    }
}

impl Rates {
    /// `None` if there is nothing to count.
    pub(super) fn of(settings: &RateSettings) -> Option<Rates> {
        if settings.users.is_empty() && settings.prefixes.is_empty() {
            return None;
        }
        let bucket = |(name, per_second): &(String, u32)| (Box::from(name.as_str()), Bucket::new(*per_second));
        let (others, named): (Vec<_>, Vec<_>) = settings.users.iter().partition(|(name, _)| name == OTHERS);
        Some(Rates {
            began: Instant::now(),
            users: named.into_iter().map(bucket).collect(),
            others: others.last().map(|(_, per_second)| (*per_second, RwLock::default())),
            prefixes: settings.prefixes.iter().map(bucket).collect(),
            refused_others: AtomicU64::default(),
        })
    }

    /// Counts a request for `ranges`: one for whoever asks, and one for each prefix that it touches.
    ///
    /// # Errors
    /// [`Error::TooOften`]: it is not to be served. What it was counted for already stays counted.
    pub(super) fn take(&self, author: &Author, ranges: &[KeyRange]) -> Result<(), Error> {
        self.take_at(author, ranges, u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX / 2))
    }

    fn take_at(&self, author: &Author, ranges: &[KeyRange], now_ns: u64) -> Result<(), Error> {
        let too_often = |wait_ns: u64| Error::TooOften { wait_ms: wait_ns.div_ceil(1_000_000) };
        let name = match author {
            Author::User { name, .. } => Some(name),
            Author::Nobody => None,
            // What members do by themselves nobody has asked for, and a proxy copies for all who ask it.
            Author::Member | Author::Proxy => return Ok(()),
        };
        match name.and_then(|name| self.users.get(&**name)) {
            Some(bucket) => bucket.take(now_ns).map_err(too_often)?,
            None => self.take_other(name, now_ns).map_err(too_often)?,
        }
        for (prefix, bucket) in &self.prefixes {
            if ranges.iter().any(|range| touches(range, prefix.as_bytes())) {
                bucket.take(now_ns).map_err(too_often)?;
            }
        }
        Ok(())
    }

    fn take_other(&self, name: Option<&Arc<str>>, now_ns: u64) -> Result<(), u64> {
        let Some((per_second, buckets)) = &self.others else { return Ok(()) };
        let name = name.cloned().unwrap_or_default();
        let known = buckets.read().get(&name).cloned();
        let bucket = known.unwrap_or_else(|| {
            let mut buckets = buckets.write();
            if buckets.len() >= OTHERS_MAX {
                buckets.clear();
            }
            Arc::clone(buckets.entry(name).or_insert_with(|| Arc::new(Bucket::new(*per_second))))
        });
        bucket.take(now_ns).inspect_err(|_| {
            self.refused_others.fetch_add(1, Relaxed);
        })
    }

    /// Says how each bucket is. Those by `*` are one line: users may be many.
    pub(super) fn write(&self, text: &mut Text) {
        let now_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let named = || {
            let users = self.users.iter().map(|(name, bucket)| ("user", &**name, bucket));
            let mut all = users.collect::<Vec<_>>();
            all.sort_by_key(|(_, name, _)| *name);
            all.extend(self.prefixes.iter().map(|(prefix, bucket)| ("prefix", &**prefix, bucket)));
            all
        };
        let help = "Requests a second that a user may make, or that there may be for the keys of a prefix.";
        let mut family = text.family("henge_rate_limit_per_second", Kind::Gauge, help);
        named().iter().for_each(|(kind, of, bucket)| family.sample(&[("kind", *kind), ("of", *of)], bucket.per_second));
        if let Some((per_second, _)) = &self.others {
            family.sample(&[("kind", "user"), ("of", OTHERS)], *per_second);
        }
        let help = "Requests of these that may be made at once.";
        let mut family = text.family("henge_rate_limit_left", Kind::Gauge, help);
        named()
            .iter()
            .for_each(|(kind, of, bucket)| family.sample(&[("kind", *kind), ("of", *of)], bucket.left(now_ns)));
        let help = "Requests that were refused because there were too many of these.";
        let mut family = text.family("henge_rate_limit_refused_total", Kind::Counter, help);
        named().iter().for_each(|(kind, of, bucket)| family.sample(&[("kind", *kind), ("of", *of)], &bucket.refused));
        if self.others.is_some() {
            family.sample(&[("kind", "user"), ("of", OTHERS)], &self.refused_others);
        }
    }
}

/// Whether there can be a key of `range` that begins with `prefix`.
fn touches(range: &KeyRange, prefix: &[u8]) -> bool {
    if let KeyRange::One(key) = range {
        return key.starts_with(prefix);
    }
    let (from, to) = range.bounds();
    let begins_in_time = match from {
        Bound::Unbounded => true,
        // Above all keys with the prefix it comes too late.
        Bound::Included(start) | Bound::Excluded(start) => start <= prefix || start.starts_with(prefix),
    };
    let ends_late_enough = match to {
        Bound::Unbounded => true,
        Bound::Included(end) => end >= prefix,
        Bound::Excluded(end) => end > prefix,
    };
    begins_in_time && ends_late_enough
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn rates(users: &[(&str, u32)], prefixes: &[(&str, u32)]) -> Rates {
        let own = |list: &[(&str, u32)]| list.iter().map(|(name, rate)| ((*name).to_owned(), *rate)).collect();
        Rates::of(&RateSettings { users: own(users), prefixes: own(prefixes) }).unwrap()
    }

    fn one(key: &str) -> Vec<KeyRange> {
        vec![KeyRange::One(key.to_owned().into())]
    }

    #[test]
    fn a_bucket_holds_a_second_and_fills_with_time() {
        let bucket = Bucket::new(10);
        let took = |now_ns| (0..20).filter(|_| bucket.take(now_ns).is_ok()).count();
        assert_eq!(took(5 * SECOND_NS), 10);
        assert_eq!(bucket.take(5 * SECOND_NS), Err(100 * MS), "until there is the next one");
        assert_eq!((took(5 * SECOND_NS + 250 * MS), bucket.left(5 * SECOND_NS + 250 * MS)), (2, 0));
        assert_eq!(bucket.left(60 * SECOND_NS), 10, "it does not hold more than a second");
        assert_eq!(took(60 * SECOND_NS), 10);
    }

    #[test]
    fn users_have_their_own_and_the_others_one_each() {
        let rates = rates(&[("alice", 3), ("*", 2)], &[]);
        let served = |author: &Author| (0..5).filter(|_| rates.take_at(author, &[], 0).is_ok()).count();
        assert_eq!(served(&Author::user("alice", 1)), 3);
        assert_eq!((served(&Author::user("bob", 1)), served(&Author::user("carol", 1))), (2, 2));
        assert_eq!((served(&Author::Nobody), served(&Author::Member)), (2, 5));
        assert_eq!(rates.take_at(&Author::Nobody, &[], 0), Err(Error::TooOften { wait_ms: 500 }));
        assert_eq!(rates.refused_others.load(Relaxed), 10);
    }

    #[test]
    fn only_keys_of_a_prefix_count_for_it() {
        let rates = rates(&[], &[("/hot/", 2)]);
        let take = |ranges: &[KeyRange]| rates.take_at(&Author::Nobody, ranges, 0).is_ok();
        let others = (0..10).all(|_| take(&one("/cold/a")) && take(&one("/hot")));
        assert!(others);
        let everything = KeyRange::From(bytes::Bytes::new());
        assert_eq!([take(&one("/hot/a")), take(&[everything]), take(&one("/hot/b"))], [true, true, false]);
        assert!(take(&one("/cold/a")));
    }

    #[test]
    fn nothing_to_count_is_no_rates() {
        assert!(Rates::of(&RateSettings::default()).is_none());
    }

    proptest! {
        #[test]
        fn a_range_touches_a_prefix_if_it_has_a_key_of_it(
            start in "[a-c]{0,3}", end in "[a-c]{0,3}", prefix in "[a-c]{1,2}", open in any::<bool>(),
        ) {
            let range = match open {
                true => KeyRange::From(start.clone().into()),
                false => KeyRange::Span { start: start.clone().into(), end: end.clone().into() },
            };
            // Keys up to this length tell all ranges of the test apart.
            let letters = || ["", "a", "b", "c"];
            let keys = letters().into_iter().flat_map(|a| letters().map(|b| format!("{a}{b}")));
            let keys = keys.flat_map(|ab| letters().map(|c| format!("{ab}{c}"))).flat_map(|abc| letters().map(|d| format!("{abc}{d}")));
            let has_one = keys.into_iter().any(|key| key.starts_with(&prefix) && range.contains(key.as_bytes()));
            // It may say so of a range that ends before it begins, which has no keys at all.
            prop_assert!(touches(&range, prefix.as_bytes()) || !has_one);
            let is_sound = open || start < end;
            prop_assert!(!is_sound || !touches(&range, prefix.as_bytes()) || has_one, "{range:?} {prefix}");
        }
    }
}
