//! Keys and half-open ranges of keys, in etcd's spelling.

use bytes::Bytes;
use std::ops::Bound;

/// A key: any bytes but none.
pub type Key = Bytes;

/// A set of keys: one key, or all keys of `[start, end)`.
///
/// etcd spells it as two byte strings, `key` and `range_end`: an empty `range_end` is one key, a single zero byte is "to the end".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyRange {
    /// Exactly this key.
    One(Key),
    /// `start <= key < end`. Empty if `end <= start`, which is no error.
    Span {
        /// First key that belongs to the range.
        start: Key,
        /// First key that no longer does.
        end: Key,
    },
    /// `start <= key`.
    From(Key),
}

impl KeyRange {
    /// Reads etcd's two fields. `key` `"\0"` together with `range_end` `"\0"` is everything.
    pub fn from_wire(key: Bytes, range_end: Bytes) -> KeyRange {
        match range_end.as_ref() {
            [] => KeyRange::One(key),
            [0] => KeyRange::From(if key.as_ref() == [0] { Bytes::new() } else { key }),
            _ => KeyRange::Span { start: key, end: range_end },
        }
    }

    /// Every key that begins with `prefix`; an empty prefix is everything.
    pub fn prefix(prefix: Bytes) -> KeyRange {
        match prefix_end(&prefix) {
            Some(end) => KeyRange::Span { start: prefix, end },
            None => KeyRange::From(prefix),
        }
    }

    /// The first key that may belong to the range.
    pub fn start(&self) -> &Key {
        match self {
            KeyRange::One(key) | KeyRange::From(key) => key,
            KeyRange::Span { start, .. } => start,
        }
    }

    /// Whether `key` belongs to the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => one == key,
            KeyRange::Span { start, end } => start.as_ref() <= key && key < end.as_ref(),
            KeyRange::From(start) => start.as_ref() <= key,
        }
    }

    /// Whether no key can belong to the range.
    pub fn is_empty(&self) -> bool {
        matches!(self, KeyRange::Span { start, end } if end <= start)
    }

    /// Whether some key can belong to both.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        let is_some = !self.is_empty() && !other.is_empty();
        is_some && (self.contains(other.start()) || other.contains(self.start()))
    }

    /// The same set as bounds for an ordered map.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            KeyRange::One(key) => (Bound::Included(key), Bound::Included(key)),
            KeyRange::Span { start, end } => (Bound::Included(start), Bound::Excluded(end)),
            KeyRange::From(start) => (Bound::Included(start), Bound::Unbounded),
        }
    }
}

/// The first key after all keys with `prefix`; `None` if there is none (the prefix is empty, or nothing but 0xff).
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_sibling() {
        assert_eq!(prefix_end(b"ab").as_deref(), Some(&b"ac"[..]));
        assert_eq!(prefix_end(b"a\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert!(KeyRange::prefix(Bytes::from_static(b"\xff")).contains(b"\xff\xff"));
        assert!(!KeyRange::prefix(Bytes::from_static(b"a")).contains(b"b"));
    }

    #[test]
    fn ranges_overlap_if_they_share_a_key() {
        let prefix = |text: &'static str| KeyRange::prefix(Bytes::from_static(text.as_bytes()));
        assert!(prefix("a").overlaps(&prefix("ab")) && prefix("ab").overlaps(&prefix("a")));
        assert!(prefix("").overlaps(&prefix("z")) && KeyRange::One("ab".into()).overlaps(&prefix("a")));
        assert!(!prefix("a").overlaps(&prefix("b")) && !prefix("b").overlaps(&KeyRange::One("a".into())));
        let none = KeyRange::Span { start: "b".into(), end: "b".into() };
        assert!(!none.overlaps(&prefix("")) && !prefix("").overlaps(&none));
    }

    #[test]
    fn a_zero_byte_as_the_end_means_to_the_end() {
        let zero = Bytes::from_static(&[0]);
        assert_eq!(KeyRange::from_wire(zero.clone(), zero.clone()), KeyRange::From(Bytes::new()));
        assert!(KeyRange::from_wire(Bytes::from_static(b"k"), zero).contains(b"zzz"));
    }
}
