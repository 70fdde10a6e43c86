//! Ranges that have to ask for the memory that they take.

use super::*;

/// Lets so many bytes be taken at one time.
struct Allowance {
    left: usize,
    held: usize,
    most: usize,
}

impl Allowance {
    fn of(bytes: usize) -> Allowance {
        Allowance { left: bytes, held: 0, most: 0 }
    }
}

impl Meter for Allowance {
    fn take(&mut self, bytes: usize) -> Result<(), Error> {
        self.left = self.left.checked_sub(bytes).ok_or(Error::AnswerTooLarge)?;
        self.held += bytes;
        self.most = self.most.max(self.held);
        Ok(())
    }

    fn give(&mut self, bytes: usize) {
        self.left += bytes;
        self.held -= bytes;
    }
}

/// A store of 40 keys with values of 1,000 bytes, each written twice.
fn bench() -> Bench {
    let mut bench = Bench::new();
    for round in 0..2 {
        for number in 0..40 {
            // Not in the order of keys, so that a sort has something to do.
            let name = format!("k{:02}", number * 7 % 40);
            bench.put(&name, &format!("{round}{:0999}", number * 11 % 40));
        }
    }
    bench
}

fn within(bench: &Bench, query: &RangeQuery, meter: &mut Allowance) -> Result<RangeResult, Error> {
    bench.store.reader().range_within(query, meter).unwrap()
}

fn queries() -> Vec<RangeQuery> {
    let mut all = Vec::new();
    for (target, order) in [
        (SortTarget::Key, SortOrder::None),
        (SortTarget::Key, SortOrder::Descend),
        (SortTarget::Mod, SortOrder::Descend),
        (SortTarget::Value, SortOrder::Ascend),
    ] {
        for (limit, revision, min_mod, keys_only) in
            [(0, 0, 0, false), (3, 0, 0, false), (3, 50, 0, false), (3, 0, 30, true), (0, 50, 0, true)]
        {
            let revision = Revision(revision);
            all.push(RangeQuery { target, order, limit, revision, min_mod, keys_only, ..RangeQuery::default() });
        }
    }
    all
}

#[test]
fn an_answer_holds_what_it_took_and_no_more() {
    let bench = bench();
    for query in queries() {
        let mut meter = Allowance::of(usize::MAX);
        let result = within(&bench, &query, &mut meter).unwrap();
        assert_eq!(result, bench.range(query.clone()).unwrap());
        let bytes = |kv: &KeyValue| kv.key.len() + kv.value.len();
        let answer = result.kvs.iter().map(bytes).sum::<usize>() + result.kvs.len() * size_of::<KeyValue>();
        assert!((answer..=answer + 40 * 1_100).contains(&meter.held), "{answer} {} {query:?}", meter.held);
        if query.target != SortTarget::Value || !query.keys_only {
            assert_eq!(meter.held, answer, "{query:?}");
        }
    }
}

#[test]
fn what_is_not_allowed_is_refused() {
    let bench = bench();
    for query in queries() {
        let mut meter = Allowance::of(usize::MAX);
        within(&bench, &query, &mut meter).unwrap();
        let most = meter.most;
        assert!(within(&bench, &query, &mut Allowance::of(most)).is_ok(), "{query:?}");
        let mut less = Allowance::of(most - 1);
        assert_eq!(within(&bench, &query, &mut less).unwrap_err(), Error::AnswerTooLarge, "{query:?}");
    }
}

#[test]
fn a_range_that_is_known_to_be_too_large_takes_nothing() {
    let bench = bench();
    let mut meter = Allowance::of(40 * size_of::<KeyValue>());
    assert_eq!(within(&bench, &RangeQuery::default(), &mut meter).unwrap_err(), Error::AnswerTooLarge);
    assert_eq!(meter.most, 0);
}

#[test]
fn a_sorted_range_with_a_limit_holds_few_rows_and_a_count_none() {
    let bench = bench();
    let sorted = RangeQuery { target: SortTarget::Mod, limit: 2, ..RangeQuery::default() };
    let mut meter = Allowance::of(usize::MAX);
    within(&bench, &sorted, &mut meter).unwrap();
    assert!(meter.most < 8 * 1_100, "{}", meter.most);
    for revision in [0, 50] {
        let count = RangeQuery { count_only: true, revision: Revision(revision), ..RangeQuery::default() };
        let result = within(&bench, &count, &mut Allowance::of(0)).unwrap();
        assert_eq!(result.count, 40);
    }
}

#[test]
fn keys_are_counted_in_a_range() {
    let mut bench = bench();
    bench.delete("k05");
    let reader = bench.store.reader();
    assert_eq!(reader.keys_in(&KeyRange::From(key("k10"))), 30);
    assert_eq!(reader.keys_in(&KeyRange::Span { start: key("k00"), end: key("k10") }), 9);
}
