//! Permissions over keys, and what several of them make together.

use crate::types::{Key, KeyRange};
use bytes::Bytes;

/// What a permission lets its holder do. The number is etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    /// See values.
    Read = 0,
    /// Change values.
    Write = 1,
    /// Both.
    ReadWrite = 2,
}

impl Kind {
    /// The kind with this number.
    pub fn from_number(number: i32) -> Option<Kind> {
        [Kind::Read, Kind::Write, Kind::ReadWrite].into_iter().find(|kind| *kind as i32 == number)
    }
}

/// One permission of a role, in etcd's spelling, by which it is also taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What.
    pub kind: Kind,
    /// The first key.
    pub key: Bytes,
    /// Empty: one key; a zero byte: to the end; else the first key that no longer belongs to it.
    pub range_end: Bytes,
}

impl Permission {
    /// Whether there can be keys in it. etcd refuses the others.
    pub fn is_valid(&self) -> bool {
        let is_range = self.range_end.is_empty() || self.key < self.range_end || self.range_end.as_ref() == [0];
        !self.key.is_empty() && is_range
    }

    /// Its keys.
    pub fn range(&self) -> KeyRange {
        KeyRange::from_wire(self.key.clone(), self.range_end.clone())
    }
}

/// A set of keys, as ranges in their order that neither overlap nor touch: what several permissions cover together is found to be
/// covered, even if none of them covers it alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range>);

/// Keys from `start` up to `end`, which does not belong to it; to the last one if that is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    start: Key,
    end: Option<Key>,
}

impl Range {
    fn of(range: &KeyRange) -> Range {
        let start = first_of(range);
        let end = match range {
            // The next key after it.
            KeyRange::One(key) => Some([key.as_ref(), &[0]].concat().into()),
            KeyRange::Span { end, .. } => Some(end.clone()),
            KeyRange::From(_) => None,
        };
        Range { start, end }
    }

    fn reaches(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| end.as_ref() >= key)
    }
}

/// No key is empty, so what begins there begins at the lowest that there can be.
fn first_of(range: &KeyRange) -> Key {
    match range.start() {
        start if start.is_empty() => Bytes::from_static(&[0]),
        start => start.clone(),
    }
}

impl FromIterator<KeyRange> for Ranges {
    fn from_iter<I: IntoIterator<Item = KeyRange>>(ranges: I) -> Ranges {
        let mut all: Vec<Range> =
            ranges.into_iter().filter(|range| !range.is_empty()).map(|range| Range::of(&range)).collect();
        all.sort_by(|a, b| a.start.cmp(&b.start));
        let mut joined: Vec<Range> = Vec::new();
        for range in all {
            match joined.last_mut() {
                Some(last) if last.reaches(&range.start) => {
                    let longer = range.end.as_ref().is_none_or(|end| !last.reaches(end));
                    if longer {
                        last.end = range.end;
                    }
                }
                _ => joined.push(range),
            }
        }
        Ranges(joined)
    }
}

impl Ranges {
    /// Whether every key that can be in `range` is in this set. Of a range without keys its first must be: who may not even name a
    /// place learns nothing about it.
    pub fn cover(&self, range: &KeyRange) -> bool {
        let start = first_of(range);
        let after = self.0.partition_point(|own| own.start <= start);
        let Some(own) = after.checked_sub(1).map(|at| &self.0[at]) else { return false };
        let has_start = own.end.as_ref().is_none_or(|end| *end > start);
        has_start
            && match range {
                KeyRange::One(_) => true,
                KeyRange::Span { end, .. } => own.reaches(end),
                KeyRange::From(_) => own.end.is_none(),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(key: &'static str, range_end: &'static str) -> Permission {
        Permission { kind: Kind::Read, key: key.into(), range_end: range_end.into() }
    }

    fn ranges(permissions: &[(&'static str, &'static str)]) -> Ranges {
        permissions.iter().map(|(key, end)| permission(key, end).range()).collect()
    }

    fn range(key: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_wire(key.into(), end.into())
    }

    #[test]
    fn permissions_that_touch_are_one() {
        let both = ranges(&[("b", "c"), ("a", "b")]);
        assert!(both.cover(&range("a", "c")) && both.cover(&range("aa", "bb")) && !both.cover(&range("a", "cc")));
        // A key, and everything after it.
        let point = ranges(&[("a", ""), ("a\0", "b")]);
        assert!(point.cover(&range("a", "b")));
        let gap = ranges(&[("a", ""), ("a\u{1}", "b")]);
        assert!(!gap.cover(&range("a", "b")));
    }

    #[test]
    fn only_what_is_open_ended_covers_what_is() {
        assert!(!ranges(&[("a", "\u{7f}")]).cover(&range("b", "\0")));
        assert!(ranges(&[("a", "\0")]).cover(&range("b", "\0")));
        assert!(ranges(&[("\0", "b"), ("b", "\0")]).cover(&range("\0", "\0")), "together they are everything");
        assert!(!ranges(&[("a", "\0")]).cover(&range("\0", "\0")));
    }

    #[test]
    fn a_longer_range_is_not_cut_by_a_shorter_one_inside() {
        let inside = ranges(&[("a", "z"), ("b", "c")]);
        assert!(inside.cover(&range("a", "z")));
        assert!(ranges(&[("a", "\0"), ("b", "c")]).cover(&range("x", "\0")));
    }

    #[test]
    fn etcds_rules_for_what_is_a_permission() {
        for (key, end, is_valid) in
            [("", "", false), ("", "b", false), ("a", "", true), ("a", "b", true), ("b", "a", false), ("a", "a", false)]
        {
            assert_eq!(permission(key, end).is_valid(), is_valid, "{key:?} {end:?}");
        }
        assert!(permission("a", "\0").is_valid() && permission("\0", "\0").is_valid());
    }
}
