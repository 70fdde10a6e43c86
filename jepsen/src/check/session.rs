//! Sessions: a client that brings what it has seen never sees anything older, whichever proxy it asks; an answer is as new as it
//! was asked to be, and no older than it says; and what it shows is the state at the revision that it names.

use super::{Finding, ms};
use std::collections::{BTreeMap, BTreeSet};

/// A change of one key that was acknowledged. Each value is written at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// Which session.
    pub session: usize,
    /// Which key.
    pub key: String,
    /// What it was set to; `None`: removed.
    pub value: Option<u64>,
    /// The revision of the change.
    pub revision: i64,
    /// When the answer came, in nanoseconds since the start.
    pub returned_ns: u64,
}

/// How new an answer had to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// No older than what the session has seen.
    Seen,
    /// That, and at most so many milliseconds old.
    Age(u64),
    /// As of now: linearizable.
    Now,
}

/// A read that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Which session.
    pub session: usize,
    /// Who answered.
    pub place: String,
    /// When it was asked, in nanoseconds since the start.
    pub called_ns: u64,
    /// When the answer came.
    pub returned_ns: u64,
    /// The keys that were asked for.
    pub keys: Vec<String>,
    /// How new the answer had to be.
    pub wish: Wish,
    /// The newest revision that the session had seen.
    pub seen: i64,
    /// The revision that the answer names.
    pub revision: i64,
    /// How old the answer says it is at most, in milliseconds, if it says so.
    pub age_ms: Option<u64>,
    /// What was there: the value, and the revision at which it was set.
    pub found: BTreeMap<String, (u64, i64)>,
}

/// What is known to have happened at one revision of a key.
type Changes<'a> = BTreeMap<&'a str, BTreeMap<i64, Option<u64>>>;

/// What contradicts the promises. `tried` are all values that anybody tried to write, `open` the keys that somebody may have
/// removed without having been told so.
pub fn check(wrote: &[Wrote], looks: &[Look], tried: &BTreeSet<u64>, open: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let changes = changes(wrote, looks, tried, &mut findings);
    let known = Known::new(wrote, looks);
    for look in looks {
        findings.extend(age(look, &known));
        findings.extend(state(look, &changes, open));
    }
    findings
}

/// Collects all changes that anybody was told of, and says where they contradict each other.
fn changes<'a>(
    wrote: &'a [Wrote],
    looks: &'a [Look],
    tried: &BTreeSet<u64>,
    findings: &mut Vec<Finding>,
) -> Changes<'a> {
    let written = wrote.iter().map(|one| (&one.key, one.revision, one.value, one.returned_ns));
    let found = looks.iter().flat_map(|look| {
        look.found.iter().map(|(key, (value, revision))| (key, *revision, Some(*value), look.returned_ns))
    });
    let mut changes = Changes::new();
    for (key, revision, value, at_ns) in written.chain(found) {
        if let Some(never) = value.filter(|value| !tried.contains(value)) {
            findings
                .push(Finding::new("unexpected value", format!("{key} held {never}, which nobody wrote")).at(at_ns));
        }
        let before = changes.entry(key).or_default().insert(revision, value);
        if let Some(other) = before.filter(|other| *other != value) {
            let what = format!("{key} at revision {revision}: somebody was told {other:?}, somebody else {value:?}");
            findings.push(Finding::new("answers disagree", what).at(at_ns));
        }
    }
    changes
}

/// From when on which revision is known to be there: an answer had named it.
struct Known(Vec<(u64, i64)>);

impl Known {
    fn new(wrote: &[Wrote], looks: &[Look]) -> Known {
        let wrote = wrote.iter().map(|one| (one.returned_ns, one.revision));
        let mut known: Vec<(u64, i64)> =
            wrote.chain(looks.iter().map(|look| (look.returned_ns, look.revision))).collect();
        known.sort_unstable();
        let mut newest = 0;
        for (_, revision) in &mut known {
            newest = newest.max(*revision);
            *revision = newest;
        }
        Known(known)
    }

    /// The newest revision that somebody had been told of before `at_ns`.
    fn before(&self, at_ns: u64) -> i64 {
        let later = self.0.partition_point(|(known_ns, _)| *known_ns < at_ns);
        later.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

/// What is wrong with how old `look` is.
fn age(look: &Look, known: &Known) -> Vec<Finding> {
    let mut findings = Vec::new();
    let told_before = |age_ms: u64| known.before(look.called_ns.saturating_sub(age_ms.saturating_mul(1_000_000)));
    let mut least = |kind: &str, least: i64| {
        if look.revision < least {
            let what = format!("revision {least} was known, and this came:\n{}", show(look));
            findings.push(Finding::new(kind, what).at(look.called_ns));
        }
    };
    least("session went back", look.seen);
    match look.wish {
        Wish::Seen => {}
        Wish::Age(max_ms) => least("older than asked for", told_before(max_ms)),
        Wish::Now => least("stale read", told_before(0)),
    }
    if let Some(age_ms) = look.age_ms {
        least("older than it says", told_before(age_ms));
    }
    findings
}

/// What is wrong with what `look` shows, as the state of its revision.
fn state(look: &Look, changes: &Changes<'_>, open: &BTreeSet<String>) -> Vec<Finding> {
    let none = BTreeMap::new();
    let wrong = look.keys.iter().filter_map(|key| {
        let last = changes.get(key.as_str()).unwrap_or(&none).range(..=look.revision).next_back();
        let what = match (last, look.found.get(key)) {
            (_, Some((_, revision))) if *revision > look.revision => format!("{key} is of a later revision"),
            (Some((at, value)), Some((_, revision))) if revision < at => {
                format!("{key} is of revision {revision}, but was {value:?} since revision {at}")
            }
            (Some((at, Some(value))), None) if !open.contains(key) => {
                format!("{key} is not there, but was {value} since revision {at}")
            }
            _ => return None,
        };
        Some(Finding::new("not of its revision", format!("{what}:\n{}", show(look))).at(look.called_ns))
    });
    wrong.collect()
}

/// One read, for people.
pub fn show(look: &Look) -> String {
    let Look { session, place, wish, seen, revision, .. } = look;
    let age = look.age_ms.map_or(String::new(), |age| format!(", at most {age} ms old"));
    let found: Vec<String> =
        look.found.iter().map(|(key, (value, revision))| format!("{key}={value}@{revision}")).collect();
    format!(
        "  {} to {}  session {session} at {place}, had seen {seen}, wants {wish:?}: revision {revision}{age}, of {} keys {}",
        ms(look.called_ns),
        ms(look.returned_ns),
        look.keys.len(),
        found.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn put(revision: i64, key: &str, value: u64, at_ms: u64) -> Wrote {
        Wrote { session: 0, key: key.into(), value: Some(value), revision, returned_ns: at_ms * MS }
    }

    /// A look at `a` and `b` that begins at `at_ms` and takes one.
    fn look(at_ms: u64, wish: Wish, revision: i64, found: &[(&str, u64, i64)]) -> Look {
        Look {
            session: 0,
            place: "p1.1".into(),
            called_ns: at_ms * MS,
            returned_ns: (at_ms + 1) * MS,
            keys: vec!["a".into(), "b".into()],
            wish,
            seen: 0,
            revision,
            age_ms: None,
            found: found.iter().map(|(key, value, revision)| (key.to_string(), (*value, *revision))).collect(),
        }
    }

    /// Of a store where a=1 came at revision 2 (10 ms), b=2 at 3 (20 ms), a=3 at 4 (30 ms), and b went at 5 (40 ms).
    fn kinds(looks: &[Look]) -> Vec<String> {
        kinds_with(looks, &[])
    }

    fn kinds_with(looks: &[Look], open: &[&str]) -> Vec<String> {
        let gone = Wrote { session: 0, key: "b".into(), value: None, revision: 5, returned_ns: 40 * MS };
        let wrote = [put(2, "a", 1, 10), put(3, "b", 2, 20), put(4, "a", 3, 30), gone];
        let open = open.iter().map(ToString::to_string).collect();
        check(&wrote, looks, &BTreeSet::from([1, 2, 3, 4]), &open).into_iter().map(|finding| finding.kind).collect()
    }

    const AT_2: &[(&str, u64, i64)] = &[("a", 1, 2)];
    const AT_3: &[(&str, u64, i64)] = &[("a", 1, 2), ("b", 2, 3)];
    const AT_5: &[(&str, u64, i64)] = &[("a", 3, 4)];

    #[test]
    fn a_session_may_see_the_past_but_not_go_back_to_it() {
        let old = look(100, Wish::Seen, 3, AT_3);
        assert_eq!(kinds(std::slice::from_ref(&old)), [""; 0]);
        assert_eq!(kinds(&[Look { seen: 3, ..old.clone() }]), [""; 0]);
        assert_eq!(kinds(&[Look { seen: 4, ..old }]), ["session went back"]);
    }

    #[test]
    fn a_linearizable_read_is_of_its_time() {
        assert_eq!(kinds(&[look(100, Wish::Now, 5, AT_5)]), [""; 0]);
        assert_eq!(kinds(&[look(100, Wish::Now, 3, AT_3)]), ["stale read"]);
        // Revision 4 was acknowledged while it was under way.
        let during = Look { called_ns: 29 * MS, ..look(100, Wish::Now, 3, AT_3) };
        assert_eq!(kinds(&[during]), [""; 0]);
        // Nobody was told of 6 but by another read, which is as good.
        let newer = look(100, Wish::Seen, 6, &[("a", 4, 6)]);
        assert_eq!(kinds(&[newer, look(102, Wish::Now, 5, AT_5)]), ["stale read"]);
    }

    #[test]
    fn an_answer_is_no_older_than_asked_for_and_than_it_says() {
        assert_eq!(kinds(&[look(45, Wish::Age(20), 3, AT_3)]), [""; 0]);
        assert_eq!(kinds(&[look(45, Wish::Age(10), 3, AT_3)]), ["older than asked for"]);
        let says = |age_ms| Look { age_ms: Some(age_ms), ..look(45, Wish::Seen, 3, AT_3) };
        assert_eq!(kinds(&[says(15)]), [""; 0]);
        assert_eq!(kinds(&[says(14)]), ["older than it says"]);
        assert_eq!(kinds(&[says(u64::MAX)]), [""; 0]);
    }

    #[test]
    fn what_is_shown_is_the_state_of_the_revision_that_is_named() {
        // b came with revision 3, a=3 with 4, and b went with 5.
        assert_eq!(kinds(&[look(100, Wish::Seen, 3, AT_2)]), ["not of its revision"]);
        assert_eq!(kinds(&[look(100, Wish::Seen, 4, AT_3)]), ["not of its revision"]);
        assert_eq!(kinds(&[look(100, Wish::Seen, 5, &[("a", 3, 4), ("b", 2, 3)])]), ["not of its revision"]);
        assert_eq!(kinds(&[look(100, Wish::Seen, 3, &[("a", 3, 4), ("b", 2, 3)])]), ["not of its revision"]);
        // A read that saw what nobody acknowledged binds the others.
        let unknown = look(100, Wish::Seen, 6, &[("a", 4, 6)]);
        assert_eq!(kinds(&[unknown, look(100, Wish::Seen, 7, AT_5)]), ["not of its revision"]);
    }

    #[test]
    fn a_key_that_somebody_may_have_removed_may_be_missing() {
        assert_eq!(kinds(&[look(100, Wish::Seen, 6, &[])]), ["not of its revision"]);
        assert_eq!(kinds_with(&[look(100, Wish::Seen, 6, &[])], &["a"]), [""; 0]);
    }

    #[test]
    fn values_from_nowhere_and_two_values_at_one_revision_are_found() {
        assert_eq!(kinds(&[look(100, Wish::Seen, 6, &[("a", 9, 6)])]), ["unexpected value"]);
        assert_eq!(kinds(&[look(100, Wish::Seen, 2, &[("a", 4, 2)])]), ["answers disagree"]);
    }
}
