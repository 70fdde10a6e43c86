//! What ranges have to do with each other, and which range a key belongs to.

use crate::types::KeyRange;
use bytes::Bytes;

/// The first key of a range, and the first key after it; `None`: there is none after.
fn ends(range: &KeyRange) -> (Bytes, Option<Bytes>) {
    match range {
        KeyRange::One(key) => (key.clone(), Some([&key[..], &[0]].concat().into())),
        KeyRange::Span { start, end } => (start.clone(), Some(end.clone())),
        KeyRange::From(start) => (start.clone(), None),
    }
}

/// Whether all of `inner` is in `outer`. A range without keys is in none: what etcd says of it depends on how it is written.
pub(super) fn covers(outer: &KeyRange, inner: &KeyRange) -> bool {
    // Every read asks this of every copy: nothing is allocated.
    match (outer, inner) {
        _ if inner.is_empty() => false,
        (_, KeyRange::One(key)) => outer.contains(key),
        (KeyRange::One(key), KeyRange::Span { start, end }) => start == key && end.strip_suffix(&[0]) == Some(&key[..]),
        (KeyRange::Span { start, end }, KeyRange::Span { start: first, end: after }) => start <= first && after <= end,
        (KeyRange::From(start), KeyRange::Span { start: first, .. } | KeyRange::From(first)) => start <= first,
        (KeyRange::One(_) | KeyRange::Span { .. }, KeyRange::From(_)) => false,
    }
}

/// Ranges of which none overlap or touch, that cover the same keys.
pub(super) fn hulls(ranges: Vec<KeyRange>) -> Vec<KeyRange> {
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

/// The range that a key is one of many in: all that has the same beginning up to the last `/`. `None` if that is no more than a
/// slash, since everything may begin with one.
pub(super) fn folder(key: &Bytes) -> Option<KeyRange> {
    let slash = key.iter().rposition(|byte| *byte == b'/')?;
    let prefix = key.slice(..=slash);
    prefix.iter().any(|byte| *byte != b'/').then(|| KeyRange::prefix(prefix))
}

/// Whether `next` can be what is left of `whole` after a page of a list: it begins right behind a key, and ends where the whole does.
pub(super) fn is_rest(whole: &KeyRange, next: &KeyRange) -> bool {
    next.start().last() == Some(&0) && whole != next && covers(whole, next) && ends(whole).1 == ends(next).1
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
        assert!(covers(&KeyRange::From(b("b")), &span("c", "d")) && !covers(&KeyRange::From(b("b")), &span("a", "d")));
        let one = KeyRange::One(b("k"));
        assert!(covers(&one, &one) && covers(&one, &span("k", "k\0")) && !covers(&one, &span("k", "k\0\0")));
        assert!(!covers(&one, &KeyRange::From(b("k"))));
    }

    #[test]
    fn ranges_overlap_if_a_key_can_be_in_both() {
        for (one, other, expected) in [
            (span("a", "c"), span("b", "d"), true),
            (span("a", "c"), span("c", "d"), false),
            (span("a", "c"), KeyRange::One(b("b")), true),
            (KeyRange::One(b("c")), span("a", "c"), false),
            (KeyRange::From(b("b")), span("a", "c"), true),
            (KeyRange::From(b("c")), span("a", "c"), false),
            (KeyRange::From(b("c")), KeyRange::From(b("a")), true),
            (span("a", "c"), span("b", "b"), false),
        ] {
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (expected, expected), "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_key_rolls_up_to_its_folder_and_a_page_to_its_list() {
        assert_eq!(folder(&b("jobs/a/b")), Some(span("jobs/a/", "jobs/a0")));
        assert_eq!(folder(&b("/jobs/a")), Some(span("/jobs/", "/jobs0")));
        for alone in ["jobs", "/jobs", "//x", ""] {
            assert_eq!(folder(&b(alone)), None, "{alone}");
        }
        let whole = span("jobs/", "jobs0");
        assert!(is_rest(&whole, &span("jobs/a\0", "jobs0")));
        for other in [whole.clone(), span("jobs/a", "jobs0"), span("jobs/a\0", "jobs/b"), span("a\0", "jobs0")] {
            assert!(!is_rest(&whole, &other), "{other:?}");
        }
    }
}
