//! The log against a plain list that never forgets.

use super::*;
use proptest::prelude::*;

/// What happens to a log. Numbers are taken modulo what is possible.
#[derive(Clone, Debug)]
enum Step {
    /// A leader's entries: how many of ours before them stay, how many follow, by how much their term is newer.
    Splice {
        keep: u64,
        count: u64,
        newer: u64,
    },
    Persist {
        upto: u64,
    },
    Commit {
        upto: u64,
    },
    Release {
        upto: u64,
    },
    /// An old append once more.
    Again {
        from: u64,
        count: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..10_u64, 1..6_u64, 0..3_u64).prop_map(|(keep, count, newer)| Step::Splice { keep, count, newer }),
        3 => (0..10_u64).prop_map(|upto| Step::Persist { upto }),
        2 => (0..10_u64).prop_map(|upto| Step::Commit { upto }),
        1 => (0..10_u64).prop_map(|upto| Step::Release { upto }),
        1 => (0..10_u64, 1..5_u64).prop_map(|(from, count)| Step::Again { from, count }),
    ];
    proptest::collection::vec(step, 1..60)
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index: Index(index), term: Term(term), data: vec![0; (index % 5) as usize].into(), ..Entry::default() }
}

/// The list: entry `i` is at `i - 1`. What the real log must agree with.
#[derive(Default)]
struct Model {
    terms: Vec<u64>,
    stable: u64,
    commit: u64,
    start: u64,
    /// Positions at and after this one were replaced since the last completion, so none of them counts yet.
    pending: Vec<(u64, u64)>,
}

impl Model {
    fn last(&self) -> u64 {
        self.terms.len() as u64
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index == 0 { Some(0) } else { self.terms.get(index as usize - 1).copied() }
    }

    fn agrees(&self, log: &Log) -> Result<(), TestCaseError> {
        prop_assert_eq!((log.last().index.0, log.last().term.0), (self.last(), self.term(self.last()).unwrap_or(0)));
        prop_assert_eq!((log.start().index.0, log.commit().0, log.stable().0), (self.start, self.commit, self.stable));
        for index in 0..self.last() + 3 {
            let known = (index >= self.start).then(|| self.term(index)).flatten();
            prop_assert_eq!(log.term(Index(index)).map(|term| term.0), known, "term at {}", index);
        }
        let held = log.range(Index(0), Index(u64::MAX)).map(|entry| (entry.index.0, entry.term.0)).collect::<Vec<_>>();
        let expected = (self.start + 1..=self.last()).map(|index| (index, self.term(index).unwrap_or(0)));
        prop_assert_eq!(held, expected.collect::<Vec<_>>());
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_log_agrees_with_a_list(steps in steps()) {
        let (mut log, mut model) = (Log::new(LogId::default(), Vec::new(), Index(0)), Model::default());
        for step in steps {
            match step {
                Step::Splice { keep, count, newer } => {
                    // A leader never replaces what is committed.
                    let keep = model.commit + keep % (model.last() - model.commit + 1);
                    let term = model.terms.last().copied().unwrap_or(0).max(1) + newer;
                    let entries = (keep + 1..=keep + count).map(|index| entry(index, term)).collect::<Vec<_>>();
                    let known = entries.iter().take_while(|entry| model.term(entry.index.0) == Some(term)).count() as u64;
                    let added = log.splice(entries);
                    prop_assert_eq!(added.len() as u64, count - known);
                    if known < count {
                        let cut = keep + known;
                        for index in cut.max(model.stable) + 1..=model.last() {
                            model.pending.push((index, model.terms[index as usize - 1]));
                        }
                        model.terms.truncate(cut as usize);
                        model.stable = model.stable.min(cut);
                        model.terms.extend((known..count).map(|_| term));
                    }
                }
                Step::Persist { upto } => {
                    let upto = upto % (model.last() + 1);
                    let at = (upto, model.term(upto).unwrap_or(0));
                    let news = upto > model.stable && !model.pending.contains(&at);
                    prop_assert_eq!(log.persisted(LogId { index: Index(at.0), term: Term(at.1) }), news);
                    if news {
                        model.stable = upto;
                        if upto == model.last() {
                            model.pending.clear();
                        }
                    }
                }
                Step::Commit { upto } => {
                    let upto = upto % (model.last() + 2);
                    let news = upto.min(model.last()) > model.commit;
                    prop_assert_eq!(log.commit_to(Index(upto)), news);
                    model.commit = model.commit.max(upto.min(model.last()));
                }
                Step::Release { upto } => {
                    log.release(Index(upto));
                    model.start = model.start.max(upto.min(model.stable).min(model.commit));
                }
                Step::Again { from, count } => {
                    let from = model.start + 1 + from % (model.last() - model.start + 1);
                    let again = (from..from + count).filter_map(|index| Some(entry(index, model.term(index)?)));
                    prop_assert_eq!(log.splice(again.collect()), Vec::new(), "what is known is no news");
                }
            }
            model.agrees(&log)?;
        }
    }

    #[test]
    fn a_page_has_at_least_one_entry_and_no_more_bytes_than_asked(terms in proptest::collection::vec(1..2_u64, 1..20), from in 1..20_u64, bytes in 0..30_usize) {
        let entries = terms.iter().zip(1..).map(|(term, index)| entry(index, *term)).collect::<Vec<_>>();
        let log = Log::new(LogId::default(), entries, Index(0));
        let (page, page_bytes) = log.page(Index(from), bytes);
        prop_assert_eq!(page.iter().map(|entry| entry.data.len()).sum::<usize>(), page_bytes);
        prop_assert!(page.iter().zip(from..).all(|(entry, index)| entry.index.0 == index));
        let left = (log.last().index.0 + 1).saturating_sub(from);
        prop_assert_eq!(page.is_empty(), left == 0);
        prop_assert!(page.len() == 1 || page_bytes <= bytes || left == 0);
        let next = page.len() as u64 + from;
        let is_full = next > log.last().index.0 || page_bytes + (next % 5) as usize > bytes;
        prop_assert!(is_full, "the next one would have had room");
    }

    #[test]
    fn the_hint_is_the_last_position_of_a_term_that_is_old_enough(steps in proptest::collection::vec(0..3_u64, 1..30), from in 0..40_u64, term in 0..30_u64) {
        let mut now = 1;
        let terms = steps.iter().map(|step| { now += step; now }).collect::<Vec<u64>>();
        let entries = terms.iter().zip(1..).map(|(term, index)| entry(index, *term)).collect::<Vec<_>>();
        let log = Log::new(LogId::default(), entries, Index(0));
        let found = log.last_at_most(Index(from), Term(term));
        let brute = (1..=from.min(terms.len() as u64)).rev().find(|index| terms[*index as usize - 1] <= term).unwrap_or(0);
        prop_assert_eq!(found.index.0, brute);
    }
}
