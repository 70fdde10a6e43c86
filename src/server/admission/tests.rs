use super::*;

fn within(calls_max: usize, bytes_max: usize) -> Admission {
    Admission::new(Bounds { calls_max, bytes_max, answer_bytes_max: 1 << 20, streams_max: 2 })
}

/// Calls and bytes of all classes.
fn under_way(admission: &Admission) -> (u64, u64) {
    admission.shared.all.read()
}

#[test]
fn the_call_over_a_bound_is_refused_and_leaves_nothing_behind() {
    let admission = within(2, 400);
    let first = admission.write(Class::Upkeep, 60).unwrap();
    assert_eq!(admission.write(Class::Upkeep, 41).unwrap_err(), Error::RequestTooManyRequests);
    let second = admission.write(Class::Upkeep, 40).unwrap();
    assert_eq!(admission.write(Class::Upkeep, 0).unwrap_err(), Error::RequestTooManyRequests);
    assert_eq!(under_way(&admission), (2, 400));
    drop((first, second));
    assert_eq!(under_way(&admission), (0, 0));
    let upkeep = admission.standings().last().unwrap();
    assert_eq!((upkeep.class, upkeep.calls, upkeep.bytes, upkeep.shed), ("upkeep", 0, 0, 2));
}

#[test]
fn a_request_over_all_bytes_is_served_alone() {
    let admission = within(2, 100);
    let large = admission.write(Class::Write, 500).unwrap();
    assert!(admission.write(Class::Upkeep, 1).is_err());
    drop(large);
    assert!(admission.write(Class::Write, 1).is_ok());
    assert!(admission.write(Class::Write, usize::MAX).is_ok());
    assert_eq!(under_way(&admission), (0, 0));
}

#[test]
fn the_fuller_it_is_the_more_classes_are_shut() {
    let admission = within(1_000, 100 << 10);
    let mut held = Vec::new();
    let is_open = |class: Class| match admission.enter(class, 0) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, Error::RequestTooManyRequests);
            false
        }
    };
    let mut fill = |calls: usize| (0..calls).for_each(|_| held.push(admission.enter(Class::Upkeep, 0).unwrap()));
    fill(499);
    assert!(is_open(Class::List));
    fill(1);
    assert!(!is_open(Class::List) && is_open(Class::Read));
    fill(200);
    assert!(!is_open(Class::Read) && is_open(Class::Write));
    fill(200);
    assert!(!is_open(Class::Write) && is_open(Class::Upkeep));
    fill(100);
    assert!(!is_open(Class::Upkeep));
}

#[test]
fn lists_never_fill_what_is_for_writes() {
    let admission = within(1_000, 1_000);
    let lists = (0..50).map(|_| admission.list(10).unwrap()).collect::<Vec<_>>();
    assert!(admission.list(10).is_err());
    assert!(admission.write(Class::Write, 100).is_ok(), "four copies of it fit into the other half");
    drop(lists);
    assert_eq!(under_way(&admission), (0, 0));
}

#[test]
fn an_answer_pays_as_it_grows_and_what_is_large_is_a_list() {
    let admission = within(1_000, 8 << 20);
    let standing = |class: Class| admission.standings().nth(class as usize).unwrap();
    let mut answer = admission.read().unwrap();
    answer.take(READ_BYTES).unwrap();
    assert_eq!(standing(Class::Read).bytes, READ_BYTES as u64);
    answer.take(1).unwrap();
    assert_eq!(standing(Class::Read).bytes, (READ_BYTES + STEP_BYTES) as u64, "paid in steps");
    answer.take(300 << 10).unwrap();
    assert_eq!((standing(Class::Read).calls, standing(Class::Read).bytes), (0, 0));
    assert_eq!(standing(Class::List).calls, 1);
    // What is given back is not paid again.
    let before = standing(Class::List).bytes;
    answer.give(200 << 10);
    answer.take(200 << 10).unwrap();
    assert_eq!(standing(Class::List).bytes, before);
    assert_eq!(answer.take(1 << 20), Err(Error::AnswerTooLarge));
    drop(answer);
    assert_eq!(under_way(&admission), (0, 0));
}

#[test]
fn an_answer_for_which_there_is_no_room_is_refused_before_it_is_there() {
    let admission = within(1_000, 1 << 20);
    let mut first = admission.read().unwrap();
    first.take(500 << 10).unwrap();
    let mut second = admission.read().unwrap();
    assert_eq!(second.take(250 << 10), Err(Error::RequestTooManyRequests), "seven tenths are for reads");
    drop(second);
    let mut small = admission.read().unwrap();
    small.take(20 << 10).unwrap();
    drop(first);
    let mut second = admission.read().unwrap();
    second.take(400 << 10).unwrap();
    drop((second, small));
    assert_eq!(under_way(&admission), (0, 0));
}

#[test]
fn streams_are_counted_by_themselves() {
    let admission = within(0, 0);
    let (first, _second) = (admission.stream().unwrap(), admission.stream().unwrap());
    assert_eq!(admission.stream().unwrap_err(), Error::RequestTooManyRequests);
    assert_eq!(admission.streams(), (2, 2, 1));
    drop(first);
    assert!(admission.stream().is_ok());
}

#[tokio::test]
async fn a_list_in_pieces_waits_for_room() {
    let admission = within(1_000, 1_000);
    let held = admission.list(500).unwrap();
    let waiting = tokio::spawn({
        let admission = admission.clone();
        async move { admission.list_when_there_is_room(200).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(held);
    drop(waiting.await.unwrap());
    assert_eq!(under_way(&admission), (0, 0));
}

#[test]
fn the_bounds_follow_the_memory_and_have_a_least() {
    let large = Bounds::within(8 << 30);
    assert_eq!((large.bytes_max, large.answer_bytes_max, large.calls_max), (2 << 30, 512 << 20, 28_000));
    let small = Bounds::within(64 << 20);
    assert_eq!((small.bytes_max, small.calls_max, small.streams_max), (16 << 20, 1_024, 4_096));
}
