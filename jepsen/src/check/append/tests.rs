use super::*;

/// Transactions that all overlap, so that time says nothing, or one after the other.
struct History {
    txns: Vec<Txn>,
    serial: bool,
}

impl History {
    fn overlapping() -> History {
        History { txns: Vec::new(), serial: false }
    }

    fn serial() -> History {
        History { txns: Vec::new(), serial: true }
    }

    /// Adds one, written as `a1:5` (append 5 to list 1) and `r1:5,6` (read 5 and 6 from list 1; `r1:?` without an answer).
    fn txn(self, text: &str) -> History {
        self.ended(text, End::Ok)
    }

    fn ended(mut self, text: &str, end: End) -> History {
        let steps = text.split_whitespace().map(|word| {
            let (key, rest) = word[1..].split_once(':').expect("key:rest");
            let key = key.parse().expect("a number");
            match (&word[..1], rest) {
                ("a", element) => Step::Append { key, element: element.parse().expect("a number") },
                (_, "?") => Step::Read { key, saw: None },
                (_, list) => {
                    let list = list.split(',').filter(|one| !one.is_empty());
                    Step::Read { key, saw: Some(list.map(|one| one.parse().expect("a number")).collect()) }
                }
            }
        });
        let at = self.txns.len() as u64;
        let (called_ns, returned_ns) = if self.serial { (1 + at * 10, 5 + at * 10) } else { (1 + at, 1000 + at) };
        self.txns.push(Txn { client: at as usize, called_ns, returned_ns, end, steps: steps.collect() });
        self
    }

    fn kinds(&self) -> Vec<String> {
        check(&self.txns).into_iter().map(|finding| finding.kind).collect()
    }
}

#[test]
fn a_serial_history_is_clean() {
    let history =
        History::serial().txn("r1: a1:1").txn("r1:1 a1:2 a2:9").txn("r1:1,2 r2:9").txn("a1:3 r1:1,2,3").txn("r1:1,2,3");
    assert_eq!(history.kinds(), [""; 0]);
}

#[test]
fn overlapping_transactions_may_be_in_any_order_that_fits() {
    let history = History::overlapping().txn("r1:7").txn("a1:7").txn("r1:").txn("a2:1 r1:7").txn("r2: r1:");
    assert_eq!(history.kinds(), [""; 0]);
}

#[test]
fn g0_two_lists_that_disagree_on_who_wrote_first() {
    let history = History::overlapping().txn("a1:1 a2:1").txn("a1:2 a2:2").txn("r1:1,2").txn("r2:2,1");
    assert_eq!(history.kinds(), ["G0"]);
}

#[test]
fn g1a_a_refused_append_that_was_seen() {
    assert_eq!(History::overlapping().ended("a1:1", End::Failed).txn("r1:1").kinds(), ["G1a"]);
    assert_eq!(History::overlapping().ended("a1:1", End::Unknown).txn("r1:1").kinds(), [""; 0]);
}

#[test]
fn g1b_a_transaction_seen_in_its_middle() {
    assert_eq!(History::overlapping().txn("a1:1 a1:2").txn("r1:1").txn("r1:1,2").kinds()[0], "G1b");
    assert_eq!(History::overlapping().txn("a1:1 r1:1 a1:2").txn("r1:1,2").kinds(), [""; 0]);
}

#[test]
fn g1c_two_transactions_that_saw_each_other() {
    assert_eq!(History::overlapping().txn("a1:1 r2:1").txn("a2:1 r1:1").kinds(), ["G1c"]);
}

#[test]
fn g_single_a_read_that_is_half_old() {
    // Saw the append to list 2, but not the one to list 1 of the same transaction.
    assert_eq!(History::overlapping().txn("a1:1 a2:1").txn("r1: r2:1").txn("r1:1").kinds(), ["G-single"]);
}

#[test]
fn g2_two_transactions_that_missed_each_other() {
    assert_eq!(History::overlapping().txn("r1: a2:1").txn("r2: a1:1").txn("r1:1 r2:1").kinds(), ["G2"]);
}

#[test]
fn a_stale_read_is_found_by_time() {
    assert_eq!(History::serial().txn("a1:1").txn("r1:").txn("r1:1").kinds(), ["G-single-realtime"]);
    assert_eq!(History::overlapping().txn("a1:1").txn("r1:").txn("r1:1").kinds(), [""; 0]);
}

#[test]
fn appends_in_another_order_than_they_were_acknowledged_are_found() {
    assert_eq!(History::serial().txn("a1:1").txn("a1:2").txn("r1:2,1").kinds(), ["G0-realtime"]);
}

#[test]
fn a_read_from_the_future_is_found() {
    assert_eq!(History::serial().txn("r1:1").txn("a1:1").kinds(), ["G1c-realtime"]);
}

#[test]
fn one_without_an_answer_may_take_effect_late_but_not_before_its_call() {
    let late = History::serial().ended("a1:1", End::Unknown).txn("r1:").txn("r1:1");
    assert_eq!(late.kinds(), [""; 0]);
    let early = History::serial().txn("r1:1").ended("a1:1", End::Unknown);
    assert_eq!(early.kinds(), ["G1c-realtime"]);
}

#[test]
fn a_lost_append_is_found() {
    assert_eq!(History::serial().txn("a1:1").txn("a1:2").txn("r1:2").kinds(), ["lost append"]);
    assert_eq!(History::serial().txn("a1:1").ended("a1:2", End::Unknown).txn("r1:1").kinds(), [""; 0]);
}

#[test]
fn elements_twice_or_from_nowhere_are_found() {
    assert_eq!(History::serial().txn("a1:1").txn("r1:1,1").kinds(), ["duplicate element"]);
    assert_eq!(History::serial().txn("r1:8").kinds(), ["unexpected element"]);
}

#[test]
fn two_orders_of_one_list_are_found() {
    let history = History::overlapping().txn("a1:1").txn("a1:2").txn("r1:1,2").txn("r1:2,1");
    assert_eq!(history.kinds(), ["incompatible order"]);
}

#[test]
fn a_transaction_that_contradicts_itself_is_found() {
    assert_eq!(History::overlapping().txn("a1:1 r1:").txn("r1:1").kinds(), ["internal"]);
    assert_eq!(History::overlapping().txn("r1: r1:1").txn("a1:1").kinds()[0], "internal");
    assert_eq!(History::overlapping().txn("r1: a1:1 r1:1").kinds(), [""; 0]);
}

#[test]
fn a_cycle_is_told_with_all_its_transactions() {
    let history = History::overlapping().txn("r1: a2:1").txn("r2: a1:1").txn("r1:1 r2:1");
    let finding = &check(&history.txns)[0];
    assert!(finding.what.contains("client 0") && finding.what.contains("client 1"), "{}", finding.what);
    assert!(finding.what.contains("did not see in list"), "{}", finding.what);
}

/// Any history that a single store makes is clean, however calls overlap it.
#[test]
fn what_one_store_did_is_clean_whatever_the_answers_timing() {
    let mut random = crate::random::Random::new(5);
    for _ in 0..50 {
        let (mut store, mut txns) = (HashMap::<u64, Vec<u64>>::new(), Vec::new());
        for at in 0..60u64 {
            let steps = (0..1 + random.below(4)).map(|step| {
                let key = random.below(3);
                let list = store.entry(key).or_default();
                if random.below(2) == 0 {
                    list.push(at * 10 + step);
                    Step::Append { key, element: at * 10 + step }
                } else {
                    Step::Read { key, saw: Some(list.clone()) }
                }
            });
            let steps: Vec<Step> = steps.collect();
            // It took effect at `at * 100`, within its call.
            let moment = 1000 + at * 100;
            let (called_ns, returned_ns) = (moment - random.below(500), moment + 1 + random.below(500));
            let answered = random.below(5) > 0;
            let steps = match answered {
                true => steps,
                false => steps
                    .into_iter()
                    .map(|step| match step {
                        Step::Read { key, .. } => Step::Read { key, saw: None },
                        append => append,
                    })
                    .collect(),
            };
            let end = if answered { End::Ok } else { End::Unknown };
            txns.push(Txn { client: at as usize, called_ns, returned_ns, end, steps });
        }
        assert_eq!(check(&txns), []);
    }
}
