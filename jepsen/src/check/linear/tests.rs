use super::*;

const STEPS: u64 = 1_000_000;

fn operation(called_ns: u64, returned_ns: impl Into<Option<u64>>, action: Action) -> Operation {
    Operation { key: 0, client: 0, called_ns, returned_ns: returned_ns.into(), action, revision: None }
}

fn read(called_ns: u64, returned_ns: u64, saw: impl Into<Value>) -> Operation {
    operation(called_ns, returned_ns, Action::Read(saw.into()))
}

fn write(called_ns: u64, returned_ns: impl Into<Option<u64>>, value: u64) -> Operation {
    operation(called_ns, returned_ns, Action::Write(value))
}

fn swap(called_ns: u64, returned_ns: impl Into<Option<u64>>, from: impl Into<Value>, to: u64) -> Operation {
    operation(called_ns, returned_ns, Action::Swap { from: from.into(), to })
}

fn accepts(history: &[Operation]) {
    assert_eq!(check(history, STEPS), Verdict::Linearizable);
}

/// Asserts a violation whose stuck call is `history[stuck]`.
fn rejects(history: &[Operation], stuck_at: usize) {
    match check(history, STEPS) {
        Verdict::Violation { stuck, .. } => assert_eq!(stuck, history[stuck_at]),
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn an_empty_history_and_one_call_are_linearizable() {
    accepts(&[]);
    accepts(&[write(1, 2, 1)]);
    accepts(&[read(1, 2, None)]);
}

#[test]
fn calls_one_after_the_other_keep_their_order() {
    accepts(&[write(1, 2, 1), read(3, 4, 1), write(5, 6, 2), read(7, 8, 2)]);
    rejects(&[write(1, 2, 1), write(3, 4, 2), read(5, 6, 1)], 2);
}

#[test]
fn a_stale_read_is_rejected() {
    rejects(&[write(1, 2, 1), write(3, 4, 2), read(5, 6, 2), read(7, 8, 1)], 3);
}

#[test]
fn a_lost_write_is_rejected() {
    rejects(&[write(1, 2, 1), read(3, 4, None)], 1);
}

#[test]
fn a_value_from_nowhere_is_rejected() {
    rejects(&[write(1, 2, 1), read(3, 4, 7)], 1);
}

#[test]
fn overlapping_calls_may_take_effect_in_either_order() {
    accepts(&[write(1, 10, 1), write(2, 9, 2), read(11, 12, 1)]);
    accepts(&[write(1, 10, 1), write(2, 9, 2), read(11, 12, 2)]);
}

#[test]
fn two_readers_must_agree_on_the_order_of_overlapping_writes() {
    let both = [write(1, 20, 1), write(1, 20, 2)];
    accepts(&[both[0], both[1], read(2, 3, 1), read(4, 5, 2), read(21, 22, 2)]);
    match check(&[both[0], both[1], read(2, 3, 1), read(4, 5, 2), read(6, 7, 1)], STEPS) {
        Verdict::Violation { .. } => {}
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn a_read_that_overlaps_a_write_may_see_either_but_not_go_back() {
    accepts(&[write(1, 10, 1), read(2, 3, None), read(4, 5, 1)]);
    rejects(&[write(1, 10, 1), read(2, 3, 1), read(4, 5, None)], 2);
}

#[test]
fn a_write_without_an_answer_may_take_effect_late_or_never() {
    accepts(&[write(1, 2, 1), write(3, None, 2), read(10, 11, 1)]);
    accepts(&[write(1, 2, 1), write(3, None, 2), read(10, 11, 1), read(12, 13, 2)]);
    // But not before its call, and not twice.
    rejects(&[write(1, 2, 1), read(3, 4, 2), write(5, None, 2)], 1);
    rejects(&[write(1, 2, 1), write(3, None, 2), read(4, 5, 2), write(6, 7, 3), read(8, 9, 2)], 4);
}

#[test]
fn a_swap_takes_effect_only_on_what_it_expects() {
    accepts(&[swap(1, 2, None, 1), swap(3, 4, 1, 2), read(5, 6, 2)]);
    rejects(&[write(1, 2, 1), swap(3, 4, None, 2)], 1);
}

#[test]
fn two_swaps_from_the_same_value_cannot_both_win() {
    match check(&[write(1, 2, 1), swap(3, 9, 1, 2), swap(3, 9, 1, 3)], STEPS) {
        Verdict::Violation { explained, .. } => assert_eq!(explained.len(), 2),
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn a_swap_without_an_answer_that_was_seen_took_effect_on_what_it_expected() {
    accepts(&[write(1, 2, 1), swap(3, None, 1, 2), read(10, 11, 2)]);
    match check(&[write(1, 2, 1), write(3, 4, 5), swap(5, None, 1, 2), read(10, 11, 2)], STEPS) {
        Verdict::Violation { .. } => {}
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn a_refusal_must_have_seen_another_value_than_it_expected() {
    let refused = |called_ns, returned_ns, from, saw| operation(called_ns, returned_ns, Action::Refused { from, saw });
    accepts(&[write(1, 2, 1), refused(3, 4, Some(7), Some(1))]);
    accepts(&[refused(3, 4, Some(7), None)]);
    rejects(&[write(1, 2, 1), refused(3, 4, Some(1), Some(1))], 1);
    rejects(&[write(1, 2, 1), write(3, 4, 2), refused(5, 6, Some(7), Some(1))], 2);
}

#[test]
fn unseen_calls_without_an_answer_cost_nothing() {
    let mut history: Vec<Operation> = (0..200).map(|at| write(1 + at, None, 1000 + at)).collect();
    history.push(write(300, 301, 1));
    history.push(read(302, 303, 1));
    assert_eq!(check(&history, 100), Verdict::Linearizable);
}

#[test]
fn a_search_that_takes_too_long_says_so() {
    assert_eq!(check(&[write(1, 2, 1), read(3, 4, 1)], 1), Verdict::Undecided);
}

/// Tries every order: the definition, for histories of a few calls.
fn brute_force(history: &[Operation], taken: &mut Vec<bool>, value: Value) -> bool {
    if history.iter().zip(&*taken).all(|(operation, taken)| *taken || operation.returned_ns.is_none()) {
        return true;
    }
    for at in 0..history.len() {
        // It may come next if nothing that is left returned before it was called.
        let blocked =
            |other: usize| !taken[other] && history[other].returned_ns.is_some_and(|end| end < history[at].called_ns);
        if taken[at] || (0..history.len()).any(blocked) {
            continue;
        }
        if let Some(next) = apply(value, history[at].action) {
            taken[at] = true;
            if brute_force(history, taken, next) {
                return true;
            }
            taken[at] = false;
        }
    }
    false
}

#[test]
fn it_agrees_with_trying_every_order() {
    let mut random = crate::random::Random::new(1);
    let (mut accepted, mut rejected) = (0, 0);
    for _ in 0..20_000 {
        let mut history = Vec::new();
        for at in 0..2 + random.below(5) {
            let called_ns = 1 + random.below(12);
            let returned_ns = called_ns + 1 + random.below(8);
            let some = |value: u64| (value > 0).then_some(value);
            let (one, two) = (random.below(5), random.below(5));
            let unique = at + 1;
            let action = match random.below(4) {
                0 => Action::Read(some(one)),
                1 => Action::Write(unique),
                2 => Action::Swap { from: some(one), to: unique },
                _ => Action::Refused { from: some(one), saw: some(two) },
            };
            let unanswered = action.writes().is_some() && random.below(4) == 0;
            history.push(operation(called_ns, (!unanswered).then_some(returned_ns), action));
        }
        let expected = brute_force(&history, &mut vec![false; history.len()], None);
        let found = check(&history, STEPS);
        assert_eq!(found == Verdict::Linearizable, expected, "{history:#?}\n{found:?}");
        *(if expected { &mut accepted } else { &mut rejected }) += 1;
    }
    // Both happen often enough for the comparison to mean something.
    assert!(accepted > 1000 && rejected > 1000, "{accepted} accepted, {rejected} rejected");
}
