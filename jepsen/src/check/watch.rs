//! Watchers: every event of the range, once, in order, from the first revision asked for; and never a promise of progress that
//! a later event breaks.

use super::Finding;
use std::collections::{BTreeMap, HashSet};

/// A change of one key. Each value is written at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened, in the store's count.
    pub revision: i64,
    /// Which key.
    pub key: String,
    /// What it was set to; `None`: removed.
    pub value: Option<u64>,
}

/// One thing that a watcher was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A change.
    Event(Event),
    /// That all changes up to this revision were told.
    Progress(i64),
}

/// What one watcher was told, across all its connections.
#[derive(Clone, Debug)]
pub struct Watch {
    /// For people.
    pub name: String,
    /// The first revision asked for.
    pub from: i64,
    /// The last revision that it must know of.
    pub upto: i64,
    /// What it was told, in order.
    pub told: Vec<Told>,
}

/// What the store held at the end, and when that was.
#[derive(Clone, Debug, Default)]
pub struct Final {
    /// The revision of the read.
    pub revision: i64,
    /// Value and revision of each key.
    pub keys: BTreeMap<String, (u64, i64)>,
}

/// All events that any watcher was told of.
type Known<'a> = BTreeMap<(i64, &'a str), Option<u64>>;

/// What contradicts the guarantees. `wrote` are the changes that clients got answers for, `tried` all values that any client wrote.
pub fn check(watches: &[Watch], wrote: &[Event], tried: &HashSet<u64>, last: &Final) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut known = Known::new();
    for watch in watches {
        findings.extend(order(watch));
        for event in events(watch) {
            let Event { revision, key, value } = event;
            if value.is_some_and(|value| !tried.contains(&value)) {
                findings.push(Finding::new("unexpected event", format!("{}: nobody wrote {event:?}", watch.name)));
            }
            if let Some(other) = known.insert((*revision, key), *value).filter(|other| other != value) {
                let what =
                    format!("{key} at revision {revision}: {} was told {value:?}, another {other:?}", watch.name);
                findings.push(Finding::new("watchers disagree", what));
            }
        }
    }
    for event in wrote {
        if known.get(&(event.revision, event.key.as_str())) != Some(&event.value) {
            findings.push(Finding::new(
                "missing event",
                format!("no watcher was told of {event:?}, which was acknowledged"),
            ));
        }
    }
    for watch in watches {
        let told: HashSet<(i64, &str)> = events(watch).map(|event| (event.revision, event.key.as_str())).collect();
        let owed = known.range((watch.from, "")..(watch.upto + 1, ""));
        for (at, value) in owed.filter(|(at, _)| !told.contains(*at)) {
            let what = format!("{} was not told of {} = {value:?} at revision {}", watch.name, at.1, at.0);
            findings.push(Finding::new("missing event", what));
        }
    }
    if replay(&known, last.revision) != last.keys {
        let what = format!("replaying all events up to revision {} gives another store than reading it", last.revision);
        findings.push(Finding::new("events and store differ", what));
    }
    findings
}

fn events(watch: &Watch) -> impl Iterator<Item = &Event> {
    watch.told.iter().filter_map(|told| if let Told::Event(event) = told { Some(event) } else { None })
}

/// What is wrong with the order in which one watcher was told.
fn order(watch: &Watch) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |kind: &str, what: String| findings.push(Finding::new(kind, format!("{}: {what}", watch.name)));
    let mut newest = watch.from;
    let mut progress = 0;
    let mut met: HashSet<(i64, &str)> = HashSet::new();
    for told in &watch.told {
        match told {
            Told::Progress(revision) => progress = progress.max(*revision),
            Told::Event(event) => {
                if !met.insert((event.revision, &event.key)) {
                    add("event twice", format!("{event:?}"));
                } else if event.revision < watch.from {
                    add("event before its start", format!("{event:?}, asked for {} and later", watch.from));
                } else if event.revision < newest {
                    add("events out of order", format!("{event:?} after revision {newest}"));
                }
                if event.revision <= progress {
                    add("early progress", format!("{event:?} after it was said that all up to {progress} was told"));
                }
                newest = newest.max(event.revision);
            }
        }
    }
    findings
}

fn replay(known: &Known<'_>, upto: i64) -> BTreeMap<String, (u64, i64)> {
    let mut keys = BTreeMap::new();
    for ((revision, key), value) in known.range(..(upto + 1, "")) {
        match value {
            Some(value) => drop(keys.insert(key.to_string(), (*value, *revision))),
            None => drop(keys.remove(*key)),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(revision: i64, key: &str, value: u64) -> Told {
        Told::Event(Event { revision, key: key.into(), value: Some(value) })
    }

    fn delete(revision: i64, key: &str) -> Told {
        Told::Event(Event { revision, key: key.into(), value: None })
    }

    fn watch(from: i64, told: &[Told]) -> Watch {
        Watch { name: "w".into(), from, upto: 4, told: told.to_vec() }
    }

    /// Checks against a store where a=1 came at revision 2, b=2 and a=3 together at 3, and b went at 4.
    fn kinds(watches: &[Watch]) -> Vec<String> {
        let wrote = [Event { revision: 2, key: "a".into(), value: Some(1) }];
        let last = Final { revision: 4, keys: BTreeMap::from([("a".to_string(), (3, 3))]) };
        check(watches, &wrote, &HashSet::from([1, 2, 3]), &last).into_iter().map(|finding| finding.kind).collect()
    }

    fn whole() -> Vec<Told> {
        vec![put(2, "a", 1), put(3, "a", 3), put(3, "b", 2), delete(4, "b")]
    }

    #[test]
    fn whole_and_late_watches_are_clean() {
        let late = watch(3, &whole()[1..]);
        assert_eq!(kinds(&[watch(1, &whole()), late]), [""; 0]);
        let mut told = whole();
        told.insert(3, Told::Progress(3));
        assert_eq!(kinds(&[watch(1, &told)]), [""; 0]);
    }

    #[test]
    fn a_gap_is_found() {
        let gap = watch(1, &[put(2, "a", 1), put(3, "a", 3), delete(4, "b")]);
        assert_eq!(kinds(&[watch(1, &whole()), gap]), ["missing event"]);
        let short = watch(1, &whole()[..3]);
        assert_eq!(kinds(&[watch(1, &whole()), short]), ["missing event"]);
    }

    #[test]
    fn a_gap_that_all_watchers_share_is_found() {
        let all = &whole()[1..];
        assert_eq!(kinds(&[watch(1, all), watch(1, all)]), ["missing event"]);
        let without_last = &whole()[..3];
        assert_eq!(kinds(&[watch(1, without_last)]), ["events and store differ"]);
    }

    #[test]
    fn an_event_twice_or_out_of_order_or_too_early_is_found() {
        let mut told = whole();
        told.push(delete(4, "b"));
        assert_eq!(kinds(&[watch(1, &told)]), ["event twice"]);
        let mut told = whole();
        told.swap(0, 1);
        assert_eq!(kinds(&[watch(1, &told)]), ["events out of order"]);
        assert_eq!(kinds(&[watch(3, &whole())]), ["event before its start"]);
    }

    #[test]
    fn progress_ahead_of_events_is_found() {
        let mut told = whole();
        told.insert(1, Told::Progress(3));
        assert_eq!(kinds(&[watch(1, &told)]), ["early progress", "early progress"]);
    }

    #[test]
    fn watchers_that_disagree_and_events_from_nowhere_are_found() {
        let mut told = whole();
        told[2] = put(3, "b", 9);
        let found = kinds(&[watch(1, &whole()), watch(1, &told)]);
        assert_eq!(found, ["unexpected event", "watchers disagree"]);
    }
}
