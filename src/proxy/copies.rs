//! The copies of a proxy: which ranges, how much memory, and who keeps them.

use super::{
    Source,
    copy::Copy,
    feed::{Feed, Rules},
    fence::{Fence, Refusal},
};
use crate::{
    runtime,
    types::{KeyRange, Revision, Sabotage},
};
use bytes::Bytes;
use parking_lot::RwLock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::AbortHandle;

/// What is copied, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ranges to copy. Those that overlap become one.
    pub ranges: Vec<KeyRange>,
    /// Memory for all copies together, in bytes. A range that does not fit is not copied.
    pub bytes_max: usize,
    /// How feeds behave.
    pub rules: Rules,
    /// Longest wait for a fence, and for a copy to reach it.
    pub wait_max: Duration,
    /// Upstream is asked this often whether it is still what it was; a little more, by chance.
    pub pulse: Duration,
    /// A rule that this proxy is to break, to prove that somebody notices.
    pub sabotage: Option<Sabotage>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ranges: Vec::new(),
            bytes_max: 512 << 20,
            rules: Rules::default(),
            wait_max: Duration::from_secs(5),
            pulse: Duration::from_secs(5),
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
    pub(super) fence: Fence,
    pub(super) wait_max: Duration,
    pub(super) sabotage: Option<Sabotage>,
    places: Arc<[Place]>,
    budget: Arc<Budget>,
    tasks: Vec<AbortHandle>,
}

/// A range that is to be copied, and its copy while there is one.
struct Place {
    range: KeyRange,
    copy: Arc<RwLock<Option<Arc<Copy>>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Copies {
    /// Begins to copy. What is not there yet is not covered.
    pub fn start(source: Arc<dyn Source>, settings: Settings) -> Copies {
        let Settings { ranges, bytes_max, rules, wait_max, pulse, sabotage } = settings;
        let fence = Fence::new(Arc::clone(&source), wait_max);
        let budget = Arc::new(Budget::new(bytes_max));
        let place = |range| Place { range, copy: Arc::default() };
        let places: Arc<[Place]> = hulls(ranges).into_iter().map(place).collect();
        let feeds = places.iter().map(|place| Feed {
            range: place.range.clone(),
            source: Arc::clone(&source),
            fence: fence.clone(),
            rules: rules.clone(),
            budget: Arc::clone(&budget),
            place: Arc::clone(&place.copy),
            sabotage,
        });
        let mut tasks: Vec<AbortHandle> = feeds.map(|feed| runtime::spawn(feed.run()).abort_handle()).collect();
        if !places.is_empty() {
            tasks.push(runtime::spawn(feel(Arc::clone(&places), fence.clone(), pulse)).abort_handle());
        }
        Copies { shared: Arc::new(Shared { fence, wait_max, sabotage, places, budget, tasks }) }
    }

    /// The copy that has all keys of `range`, if there is one now.
    pub fn covering(&self, range: &KeyRange) -> Option<Arc<Copy>> {
        let place = self.shared.places.iter().find(|place| covers(&place.range, range))?;
        place.copy.read().clone().filter(|copy| !copy.is_over())
    }

    /// Whether there is anything that could be answered here, now or later.
    pub fn answers_anything(&self) -> bool {
        !self.shared.places.is_empty()
    }

    /// Upstream is being asked to compact at `revision`.
    pub fn forget(&self, revision: Revision) {
        for copy in self.shared.places.iter().filter_map(|place| place.copy.read().clone()) {
            copy.forget(revision);
        }
    }

    /// All copies that there are now.
    pub fn all(&self) -> Vec<Arc<Copy>> {
        let copies = self.shared.places.iter().filter_map(|place| place.copy.read().clone());
        copies.filter(|copy| !copy.is_over()).collect()
    }

    /// The fence of this upstream.
    pub fn fence(&self) -> &Fence {
        &self.shared.fence
    }

    /// Memory that the copies take, about.
    pub fn bytes(&self) -> usize {
        self.shared.budget.used.load(Relaxed)
    }

    /// Memory that they may take.
    pub fn bytes_max(&self) -> usize {
        self.shared.budget.bytes_max()
    }
}

/// Asks upstream now and then how far it is. That bounds the age of what is said here, lets the copies go on beside writes that
/// they do not hear of, and finds out that upstream was restored, or wants to know who asks.
async fn feel(places: Arc<[Place]>, fence: Fence, pulse: Duration) {
    loop {
        tokio::time::sleep(pulse.mul_f64(runtime::chance(1.0..1.2))).await;
        let copies: Vec<_> = places.iter().filter_map(|place| place.copy.read().clone()).collect();
        let before: Vec<_> = copies.iter().map(|copy| copy.revision()).collect();
        let proof = match fence.pass().await {
            Ok(proof) => proof,
            // Who may read here, or watch, is upstream's to say from now on.
            Err(Refusal::Locked) => {
                copies.iter().for_each(|copy| copy.end());
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

/// The memory of all copies together.
pub(super) struct Budget {
    bytes_max: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Budget {
        Budget { bytes_max, used: AtomicUsize::new(0) }
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// A part of the budget that has nothing yet.
    pub(super) fn claim(self: &Arc<Budget>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0 }
    }
}

/// What one copy takes of the budget; given back when dropped.
pub(super) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    /// Takes `bytes` in all. False, and as it was, if there is not so much.
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        let Budget { bytes_max, used } = &*self.budget;
        let fits = |used: usize| {
            let wanted = used - self.bytes + bytes;
            (wanted <= *bytes_max || bytes <= self.bytes).then_some(wanted)
        };
        let is_done = used.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if is_done {
            self.bytes = bytes;
        }
        is_done
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// The first key of a range, and the first key after it; `None`: there is none after.
fn ends(range: &KeyRange) -> (Bytes, Option<Bytes>) {
    match range {
        KeyRange::One(key) => (key.clone(), Some([&key[..], &[0]].concat().into())),
        KeyRange::Span { start, end } => (start.clone(), Some(end.clone())),
        KeyRange::From(start) => (start.clone(), None),
    }
}

/// Whether all of `inner` is in `outer`. A range without keys is in none: what etcd says of it depends on how it is written.
fn covers(outer: &KeyRange, inner: &KeyRange) -> bool {
    if inner.is_empty() {
        return false;
    }
    let ((outer_start, outer_end), (inner_start, inner_end)) = (ends(outer), ends(inner));
    let ends_within = match (&outer_end, &inner_end) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(outer), Some(inner)) => inner <= outer,
    };
    outer_start <= inner_start && ends_within
}

/// Ranges of which none overlap or touch, that cover the same keys.
fn hulls(ranges: Vec<KeyRange>) -> Vec<KeyRange> {
    let mut spans: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).map(ends).collect();
    spans.sort();
    let mut hulls: Vec<(Bytes, Option<Bytes>)> = Vec::new();
    for (start, end) in spans {
        match hulls.last_mut() {
            // To the end: it has all that follows.
            Some((_, None)) => break,
            Some((_, Some(last))) if start <= *last => {
                let further = end.as_ref().is_none_or(|end| end > last);
                if further {
                    hulls.last_mut().expect("just looked at").1 = end;
                }
            }
            _ => hulls.push((start, end)),
        }
    }
    let whole = |(start, end): (Bytes, Option<Bytes>)| match end {
        None => KeyRange::From(start),
        Some(end) if end.strip_suffix(&[0]) == Some(&start) => KeyRange::One(start),
        Some(end) => KeyRange::Span { start, end },
    };
    hulls.into_iter().map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(text: &'static str) -> Bytes {
        Bytes::from(text)
    }

    fn span(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::Span { start: b(start), end: b(end) }
    }

    #[test]
    fn ranges_that_overlap_or_touch_become_one() {
        let ranges =
            vec![span("m", "p"), KeyRange::One(b("z")), span("a", "c"), span("b", "d"), span("d", "e"), span("c", "b")];
        assert_eq!(hulls(ranges), [span("a", "e"), span("m", "p"), KeyRange::One(b("z"))]);
        let open = vec![span("a", "c"), KeyRange::From(b("b")), KeyRange::One(b("x"))];
        assert_eq!(hulls(open), [KeyRange::From(b("a"))]);
        assert_eq!(hulls(vec![span("a", "z"), span("b", "c")]), [span("a", "z")]);
        assert_eq!(hulls(vec![KeyRange::One(b("a")), KeyRange::One(b("a\0"))]), [span("a", "a\0\0")]);
    }

    #[test]
    fn a_range_is_covered_if_all_its_keys_are() {
        let outer = span("b", "d");
        for inner in [span("b", "d"), span("c", "d"), KeyRange::One(b("b")), KeyRange::One(b("czz"))] {
            assert!(covers(&outer, &inner), "{inner:?}");
        }
        for inner in [span("a", "d"), span("b", "e"), KeyRange::One(b("d")), KeyRange::From(b("c")), span("c", "c")] {
            assert!(!covers(&outer, &inner), "{inner:?}");
        }
        assert!(covers(&KeyRange::From(b("b")), &KeyRange::From(b("c"))));
    }

    #[test]
    fn the_budget_is_for_all_together_and_comes_back() {
        let budget = Arc::new(Budget::new(100));
        let (mut one, mut two) = (budget.claim(), budget.claim());
        assert!(one.resize(60) && two.resize(40) && !one.resize(61));
        assert!(two.resize(10) && one.resize(90) && !two.resize(11));
        drop(one);
        assert!(two.resize(100));
        drop(two);
        assert_eq!(budget.used.load(Relaxed), 0);
    }
}
