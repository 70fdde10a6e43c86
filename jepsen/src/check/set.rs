//! A set to which elements are only added: what was acknowledged is there, and what was seen stays.

use super::{Finding, ms};
use crate::timeline::End;
use std::collections::{BTreeMap, BTreeSet};

/// An attempt to add an element. Each element is added at most once.
#[derive(Clone, Copy, Debug)]
pub struct Add {
    /// What.
    pub element: u64,
    /// When, in nanoseconds since the start.
    pub called_ns: u64,
    /// When it was over.
    pub returned_ns: u64,
    /// How it ended.
    pub end: End,
}

/// A linearizable read of the whole set.
#[derive(Clone, Debug)]
pub struct Read {
    /// When, in nanoseconds since the start.
    pub called_ns: u64,
    /// When it was over.
    pub returned_ns: u64,
    /// What was there.
    pub elements: BTreeSet<u64>,
}

/// What contradicts a set. The last read decides what is lost; of what was added after it nothing is said.
pub fn check(adds: &[Add], reads: &[Read]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tried: BTreeMap<u64, &Add> = adds.iter().map(|add| (add.element, add)).collect();
    let Some(last) = reads.iter().max_by_key(|read| read.called_ns) else {
        return vec![Finding::new("no final read", "the set was never read")];
    };
    for element in reads.iter().flat_map(|read| &read.elements).collect::<BTreeSet<_>>() {
        match tried.get(element) {
            None => findings.push(Finding::new("unexpected element", format!("{element} was never added"))),
            Some(add) if add.end == End::Failed => {
                let what = format!("{element} is there although adding it was refused at {}", ms(add.returned_ns));
                findings.push(Finding::new("refused yet there", what).at(add.returned_ns));
            }
            Some(_) => {}
        }
    }
    // Known to be there from this time on: acknowledged, or seen by a read that was over.
    let mut known: BTreeMap<u64, u64> =
        adds.iter().filter(|add| add.end == End::Ok).map(|add| (add.element, add.returned_ns)).collect();
    for read in reads {
        for element in &read.elements {
            let since = known.entry(*element).or_insert(read.returned_ns);
            *since = (*since).min(read.returned_ns);
        }
    }
    for (element, since) in &known {
        if last.called_ns > *since && !last.elements.contains(element) {
            let what = format!("{element} was there at {} and is not in the final read", ms(*since));
            findings.push(Finding::new("lost element", what).at(*since));
            continue;
        }
        let misses = |read: &&Read| read.called_ns > *since && !read.elements.contains(element);
        if let Some(read) = reads.iter().find(misses) {
            let what =
                format!("{element} was there at {} but not in a read that began at {}", ms(*since), ms(read.called_ns));
            findings.push(Finding::new("stale read", what).at(read.called_ns));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(element: u64, called_ns: u64, returned_ns: u64, end: End) -> Add {
        Add { element, called_ns, returned_ns, end }
    }

    fn read(called_ns: u64, returned_ns: u64, elements: &[u64]) -> Read {
        Read { called_ns, returned_ns, elements: elements.iter().copied().collect() }
    }

    fn kinds(adds: &[Add], reads: &[Read]) -> Vec<String> {
        check(adds, reads).into_iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn all_acknowledged_and_any_unknown_elements_may_be_there() {
        let adds =
            [add(1, 1, 2, End::Ok), add(2, 1, 5, End::Unknown), add(3, 1, 5, End::Unknown), add(4, 1, 2, End::Failed)];
        assert!(kinds(&adds, &[read(10, 11, &[1, 2])]).is_empty());
    }

    #[test]
    fn a_lost_element_is_found() {
        assert_eq!(kinds(&[add(1, 1, 2, End::Ok)], &[read(10, 11, &[])]), ["lost element"]);
        // Nobody acknowledged it, but somebody saw it.
        let adds = [add(1, 1, 20, End::Unknown)];
        assert_eq!(kinds(&adds, &[read(3, 4, &[1]), read(30, 31, &[])]), ["lost element"]);
    }

    #[test]
    fn nothing_is_said_of_what_was_added_after_the_last_read() {
        assert!(kinds(&[add(1, 1, 5, End::Ok)], &[read(2, 3, &[])]).is_empty());
    }

    #[test]
    fn a_stale_read_is_found_but_an_overlapping_one_is_none() {
        let adds = [add(1, 1, 5, End::Ok)];
        assert_eq!(kinds(&adds, &[read(6, 7, &[]), read(10, 11, &[1])]), ["stale read"]);
        assert!(kinds(&adds, &[read(4, 7, &[]), read(10, 11, &[1])]).is_empty());
        // Seen by one read, missed by a later one.
        let adds = [add(1, 1, 9, End::Ok)];
        assert_eq!(kinds(&adds, &[read(2, 3, &[1]), read(4, 5, &[]), read(10, 11, &[1])]), ["stale read"]);
    }

    #[test]
    fn what_nobody_added_or_what_was_refused_is_found() {
        assert_eq!(kinds(&[], &[read(1, 2, &[9])]), ["unexpected element"]);
        assert_eq!(kinds(&[add(9, 1, 2, End::Failed)], &[read(3, 4, &[9])]), ["refused yet there"]);
        assert_eq!(kinds(&[], &[]), ["no final read"]);
    }
}
