//! Which term the live entries have, so that a mark can be told from one that contradicts them.

use super::Mark;
use crate::types::{Index, Term};
use std::collections::VecDeque;

/// Terms by runs of equal ones: a log of millions of entries has a handful. Invariant: indexes and terms of `runs` ascend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// Each run begins at its index and ends where the next begins. Before the first one nothing is known.
    runs: VecDeque<(Index, Term)>,
    last: Index,
    /// The mark at which the log was last emptied. Nothing at or before it is written any more.
    base: Index,
}

impl Terms {
    /// Of a log that ends at `last`, of which nothing else is known.
    pub fn ending_at(last: Index) -> Terms {
        Terms { last, ..Terms::default() }
    }

    /// The last live entry, or the mark if the log is empty behind it.
    pub fn last(&self) -> Index {
        self.last
    }

    /// The mark at which the log was last emptied; 0 if it never was.
    pub fn base(&self) -> Index {
        self.base
    }

    /// The term at `index`, as far as it is known.
    pub fn at(&self, index: Index) -> Option<Term> {
        let run = self.runs.iter().rev().find(|(first, _)| *first <= index)?;
        (index <= self.last).then_some(run.1)
    }

    /// An entry is written: it replaces what stood at its place and after it.
    pub fn write(&mut self, index: Index, term: Term) {
        while self.runs.pop_back_if(|(first, _)| *first >= index).is_some() {}
        if self.runs.back().is_none_or(|(_, before)| *before != term) {
            self.runs.push_back((index, term));
        }
        self.last = index;
    }

    /// Whether `mark` empties the log: it lies behind its end, or the entry in its place is another one.
    ///
    /// One at or before an earlier such mark, or where nothing is known, is a repetition that says nothing new.
    pub fn is_emptied_by(&self, mark: &Mark) -> bool {
        match self.at(mark.index) {
            _ if mark.index > self.last => true,
            _ if mark.index <= self.base => false,
            known => known.is_some_and(|term| term != mark.term),
        }
    }

    /// Why `mark` can't be right in a log that is known to be committed up to `commit`.
    pub fn contradiction(&self, mark: &Mark, commit: Index) -> Option<String> {
        let committed = self.at(mark.index).filter(|_| mark.index <= commit && self.is_emptied_by(mark))?;
        Some(format!("entry {} of term {committed} is committed, but a mark has it of term {}", mark.index, mark.term))
    }

    /// A mark is written. The log begins anew after it, or it tells the term of a position whose term was not known.
    pub fn mark(&mut self, mark: &Mark) {
        if self.is_emptied_by(mark) {
            *self = Terms { runs: [(mark.index, mark.term)].into(), last: mark.index, base: mark.index };
        } else if mark.index == self.last && self.at(mark.index).is_none() {
            self.runs = [(mark.index, mark.term)].into();
        }
    }

    /// Nobody will ask below `upto` any more.
    pub fn release(&mut self, upto: Index) {
        while self.runs.get(1).is_some_and(|(next, _)| *next <= upto) {
            self.runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(of: &[(u64, u64)]) -> Terms {
        let mut terms = Terms::default();
        of.iter().for_each(|(index, term)| terms.write(Index(*index), Term(*term)));
        terms
    }

    fn mark(index: u64, term: u64) -> Mark {
        Mark { index: Index(index), term: Term(term) }
    }

    #[test]
    fn terms_are_those_of_the_entries_that_were_written_last() {
        let mut terms = terms(&[(1, 1), (2, 1), (3, 2), (4, 2), (3, 4), (4, 5)]);
        let at = |terms: &Terms| (0..6).map(|index| terms.at(Index(index)).map(|term| term.0)).collect::<Vec<_>>();
        assert_eq!(at(&terms), [None, Some(1), Some(1), Some(4), Some(5), None]);
        terms.release(Index(3));
        assert_eq!(at(&terms), [None, None, None, Some(4), Some(5), None]);
        assert_eq!(terms.last(), Index(4));
    }

    #[test]
    fn a_mark_empties_a_log_that_does_not_hold_it() {
        let log = terms(&[(1, 1), (2, 1), (3, 2)]);
        assert!(!log.is_emptied_by(&mark(2, 1)) && !log.is_emptied_by(&mark(3, 2)) && !log.is_emptied_by(&mark(0, 0)));
        assert!(log.is_emptied_by(&mark(2, 2)) && log.is_emptied_by(&mark(4, 2)));
        let mut emptied = log;
        emptied.mark(&mark(2, 2));
        assert_eq!((emptied.last(), emptied.base(), emptied.at(Index(2))), (Index(2), Index(2), Some(Term(2))));
        assert!(!emptied.is_emptied_by(&mark(1, 9)), "of before");
    }

    #[test]
    fn where_nothing_is_known_a_mark_tells_and_empties_nothing() {
        let mut log = Terms::ending_at(Index(7));
        assert!(!log.is_emptied_by(&mark(5, 3)));
        log.mark(&mark(7, 3));
        assert_eq!((log.at(Index(7)), log.base()), (Some(Term(3)), Index(0)));
    }
}
