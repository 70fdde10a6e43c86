//! The versions of one key, oldest first.

use super::record::Stamp;
use crate::types::LeaseId;
use std::collections::VecDeque;

/// One key and when it was written. 56 bytes and the key's own; most keys have one version and need no more than that.
#[derive(Debug)]
pub(super) struct KeyIndex {
    pub(super) key: Box<[u8]>,
    /// The newest version.
    main: i64,
    sub: u32,
    sketch: Sketch,
    /// Where the newest generation began, and how many puts it has had. Kept here so that a put needs no read.
    generation: Generation,
    /// Versions before `newest`, ascending; `None` rather than empty. Boxed because most keys have none:
    /// that saves 24 bytes a key.
    #[allow(clippy::box_collection)]
    older: Option<Box<VecDeque<Stamp>>>,
}

/// The life of a key from its creation to its deletion. Meaningless after a tombstone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) created: i64,
    pub(super) version: i64,
}

/// What a put must know of the version that it replaces, where that fits into four bytes: then its row need not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sketch(u32);

impl Sketch {
    const TOMBSTONE: Sketch = Sketch(u32::MAX);
    /// Only the row tells.
    const NONE: Sketch = Sketch(u32::MAX - 1);

    /// Of a version with a value of so many bytes.
    pub(super) fn of(value_bytes: usize, lease: LeaseId) -> Sketch {
        let bytes = u32::try_from(value_bytes).ok().filter(|bytes| *bytes < Sketch::NONE.0);
        bytes.filter(|_| lease == LeaseId::NONE).map_or(Sketch::NONE, Sketch)
    }

    /// How many bytes its value has, if that is known, and also that it has no lease.
    pub(super) fn value_bytes(self) -> Option<usize> {
        (self.0 < Sketch::NONE.0).then_some(self.0 as usize)
    }
}

/// What a key was before a write: enough to take the write back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) newest: Stamp,
    pub(super) generation: Generation,
    pub(super) sketch: Sketch,
}

impl KeyIndex {
    pub(super) fn new(key: Box<[u8]>, newest: Stamp, generation: Generation, sketch: Sketch) -> KeyIndex {
        let mut new = KeyIndex { key, main: 0, sub: 0, sketch, generation, older: None };
        new.set_newest(newest, sketch);
        new
    }

    /// The same versions under another key.
    pub(super) fn named(self, key: Box<[u8]>) -> KeyIndex {
        KeyIndex { key, ..self }
    }

    pub(super) fn newest(&self) -> Stamp {
        Stamp { main: self.main, sub: self.sub, tombstone: self.sketch == Sketch::TOMBSTONE }
    }

    /// `sketch` says nothing of a tombstone.
    fn set_newest(&mut self, newest: Stamp, sketch: Sketch) {
        (self.main, self.sub) = (newest.main, newest.sub);
        self.sketch = if newest.tombstone { Sketch::TOMBSTONE } else { sketch };
    }

    /// Whether the key exists after its newest version.
    pub(super) fn is_live(&self) -> bool {
        self.sketch != Sketch::TOMBSTONE
    }

    pub(super) fn before(&self) -> Before {
        Before { newest: self.newest(), generation: self.generation, sketch: self.sketch }
    }

    /// Adds a version.
    pub(super) fn push(&mut self, stamp: Stamp, generation: Generation, sketch: Sketch) {
        let newest = self.newest();
        assert!(stamp > newest, "versions of a key come in the order of revisions");
        self.older.get_or_insert_default().push_back(newest);
        self.set_newest(stamp, sketch);
        self.generation = generation;
    }

    /// Takes the newest version back. False if none is left: `before` was swept meanwhile, being a tombstone.
    pub(super) fn pop(&mut self, before: Before) -> bool {
        let Some(newest) = self.older.as_mut().and_then(|older| older.pop_back()) else { return false };
        self.set_newest(newest, before.sketch);
        self.generation = before.generation;
        self.forget_empty();
        true
    }

    /// The newest version at or before main revision `at`, which may be a tombstone.
    pub(super) fn at(&self, at: i64) -> Option<Stamp> {
        if self.main <= at {
            return Some(self.newest());
        }
        let older = self.older.as_ref()?;
        let newer_from = older.partition_point(|stamp| stamp.main <= at);
        older.get(newer_from.checked_sub(1)?).copied()
    }

    /// The version that a reader at `at` sees.
    pub(super) fn visible(&self, at: i64) -> Option<Stamp> {
        self.at(at).filter(|stamp| !stamp.tombstone)
    }

    /// The version that `stamp` replaced, unless that was a tombstone.
    pub(super) fn replaced_by(&self, stamp: Stamp) -> Option<Stamp> {
        let older = self.older.as_ref()?;
        let from = older.partition_point(|other| *other < stamp);
        older.get(from.checked_sub(1)?).filter(|other| !other.tombstone).copied()
    }

    /// Removes up to `max` versions, oldest first, that nobody who reads at `bound` or later can see, and adds them to `removed`.
    /// False if no version is left, and the key can go.
    ///
    /// A tombstone exactly at `bound` stays: a watcher that starts there is still owed it.
    pub(super) fn sweep(&mut self, bound: i64, max: usize, removed: &mut Vec<Stamp>) -> bool {
        let hidden = match &self.older {
            None => 0,
            // All but the last of those at or below the bound; if the newest is one of them, that is the last.
            Some(older) if self.main <= bound => older.len(),
            Some(older) => older.partition_point(|stamp| stamp.main <= bound).saturating_sub(1),
        };
        let owed = |stamp: Stamp| !stamp.tombstone || stamp.main >= bound;
        let mut budget = max;
        if let Some(older) = &mut self.older {
            let count = hidden.min(budget);
            removed.extend(older.drain(..count));
            budget -= count;
            let rest_is_visible = count == hidden;
            if rest_is_visible && budget > 0 && older.front().is_some_and(|first| first.main <= bound && !owed(*first))
            {
                removed.extend(older.pop_front());
                budget -= 1;
            }
        }
        self.forget_empty();
        if self.older.is_none() && budget > 0 && self.main <= bound && !owed(self.newest()) {
            removed.push(self.newest());
            return false;
        }
        true
    }

    fn forget_empty(&mut self) {
        if self.older.as_ref().is_some_and(|older| older.is_empty()) {
            self.older = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(main: i64) -> Stamp {
        Stamp { main, sub: 0, tombstone: false }
    }

    fn delete(main: i64) -> Stamp {
        Stamp { main, sub: 0, tombstone: true }
    }

    fn key(stamps: &[Stamp]) -> KeyIndex {
        let mut key = KeyIndex::new(Box::from(&b"k"[..]), stamps[0], Generation::default(), Sketch::NONE);
        stamps[1..].iter().for_each(|stamp| key.push(*stamp, Generation::default(), Sketch::NONE));
        key
    }

    fn swept(stamps: &[Stamp], bound: i64) -> (Vec<Stamp>, bool) {
        let mut removed = Vec::new();
        let stays = key(stamps).sweep(bound, usize::MAX, &mut removed);
        // Whatever the size of the steps, the outcome is the same.
        let (mut slow, mut in_steps) = (key(stamps), Vec::new());
        let mut slow_stays = true;
        for _ in stamps {
            slow_stays = slow_stays && slow.sweep(bound, 1, &mut in_steps);
        }
        assert_eq!((&in_steps, slow_stays), (&removed, stays));
        (removed, stays)
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<KeyIndex>() <= 56);
    }

    #[test]
    fn a_reader_sees_the_newest_version_at_or_before_its_revision() {
        let key = key(&[put(2), put(4), delete(6), put(9)]);
        let seen: Vec<_> = (1..=9).map(|at| key.visible(at).map(|stamp| stamp.main)).collect();
        assert_eq!(seen, [None, Some(2), Some(2), Some(4), Some(4), None, None, None, Some(9)]);
        assert_eq!(key.replaced_by(put(4)), Some(put(2)));
        assert_eq!(key.replaced_by(put(9)), None);
    }

    #[test]
    fn a_sweep_keeps_the_newest_version_at_the_bound_and_all_after() {
        let all = [put(2), put(4), put(6)];
        assert_eq!(swept(&all, 1), (vec![], true));
        assert_eq!(swept(&all, 3), (vec![], true));
        assert_eq!(swept(&all, 4), (vec![put(2)], true));
        assert_eq!(swept(&all, 9), (vec![put(2), put(4)], true));
    }

    #[test]
    fn etcd_18089_a_tombstone_exactly_at_the_bound_is_still_owed() {
        assert_eq!(swept(&[put(2), delete(4)], 4), (vec![put(2)], true));
        assert_eq!(swept(&[put(2), delete(4), put(6)], 4), (vec![put(2)], true));
        assert_eq!(swept(&[put(2), delete(4)], 5), (vec![put(2), delete(4)], false));
        assert_eq!(swept(&[put(2), delete(4), put(6)], 5), (vec![put(2), delete(4)], true));
        assert_eq!(swept(&[delete(4), put(6), delete(8)], 9), (vec![delete(4), put(6), delete(8)], false));
    }

    #[test]
    fn a_write_can_be_taken_back() {
        let mut one = key(&[put(2)]);
        let before = one.before();
        one.push(put(5), Generation { created: 2, version: 2 }, Sketch::of(7, LeaseId::NONE));
        assert_eq!(one.before().sketch.value_bytes(), Some(7));
        assert!(one.pop(before));
        assert_eq!((one.before(), one.older.is_none()), (before, true));
        one.push(delete(6), Generation::default(), Sketch::of(7, LeaseId::NONE));
        assert_eq!((one.is_live(), one.before().newest, one.before().sketch.value_bytes()), (false, delete(6), None));
    }

    #[test]
    fn a_sketch_tells_the_size_of_what_has_no_lease() {
        assert_eq!(Sketch::of(0, LeaseId::NONE).value_bytes(), Some(0));
        assert_eq!(Sketch::of(1 << 20, LeaseId::NONE).value_bytes(), Some(1 << 20));
        assert_eq!(Sketch::of(1 << 20, LeaseId(1)), Sketch::NONE);
        for large in [u32::MAX - 2, u32::MAX - 1, u32::MAX].map(|size| size as usize).into_iter().chain([1 << 40]) {
            let known = Some(large).filter(|size| *size == u32::MAX as usize - 2);
            assert_eq!(Sketch::of(large, LeaseId::NONE).value_bytes(), known);
        }
    }
}
