use super::*;

fn within(calls_max: usize, bytes_max: usize) -> Admission {
    Admission::new(Bounds { calls_max, bytes_max, answer_bytes_max: 1 << 20, streams_max: 2 })
}

/// Calls and bytes of all classes.
fn under_way(admission: &Admission) -> (u64, u64) {
    admission.0.under_way()
}

#[test]
fn the_call_over_a_bound_is_refused_and_leaves_nothing_behind() {
    let admission = within(2, 40_000);
    let first = admission.write(Class::Upkeep, 6_000).unwrap();
    assert_eq!(admission.write(Class::Upkeep, 4_001).unwrap_err(), Error::RequestTooManyRequests);
    let second = admission.write(Class::Upkeep, 4_000).unwrap();
    let calls = [(); 2].map(|()| admission.call(Class::Upkeep).unwrap());
    assert_eq!(admission.call(Class::Upkeep).unwrap_err(), Error::RequestTooManyRequests);
    assert_eq!(under_way(&admission), (2, 40_000));
    drop((first, second, calls));
    assert_eq!(under_way(&admission), (0, 0));
    let upkeep = admission.standings().last().unwrap();
    assert_eq!((upkeep.class, upkeep.calls, upkeep.bytes, upkeep.shed), ("upkeep", 0, 0, 2));
}

#[test]
fn a_request_over_all_bytes_is_served_alone() {
    let admission = within(2, 10_000);
    let large = admission.write(Class::Write, 50_000).unwrap();
    assert!(admission.write(Class::Upkeep, 2_000).is_err());
    assert!(admission.write(Class::Write, 1_000).is_ok(), "a call has a little for free");
    drop(large);
    assert!(admission.write(Class::Write, 2_000).is_ok());
    assert!(admission.write(Class::Write, usize::MAX).is_ok());
    assert_eq!(under_way(&admission), (0, 0));
}

#[test]
fn the_fuller_it_is_the_more_classes_are_shut() {
    let admission = within(1_000, 100 << 10);
    let mut held = Vec::new();
    let is_open = |class: Class| match admission.call(class) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, Error::RequestTooManyRequests);
            false
        }
    };
    let mut fill = |calls: usize| (0..calls).for_each(|_| held.push(admission.call(Class::Upkeep).unwrap()));
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
    let admission = within(1_000, 10 << 20);
    let lists = (0..5).map(|_| {
        let mut list = admission.read();
        list.take(1_000_000).unwrap();
        list
    });
    let lists = lists.collect::<Vec<_>>();
    assert_eq!(admission.read().take(1_000_000), Err(Error::NoRoom));
    assert!(admission.write(Class::Write, 1_000_000).is_ok(), "four copies of it fit into the other half");
    drop(lists);
    assert_eq!(under_way(&admission), (0, 0));
}

#[test]
fn an_answer_pays_as_it_grows_and_what_is_large_is_a_list() {
    let admission = within(1_000, 8 << 20);
    let standing = |class: Class| admission.standings().nth(class as usize).unwrap();
    let mut answer = admission.read();
    answer.take(FREE_BYTES).unwrap();
    assert_eq!((standing(Class::Read).bytes, answer.has_paid()), (0, false));
    answer.take(1).unwrap();
    assert_eq!(standing(Class::Read).bytes, STEP_BYTES as u64, "paid in steps");
    answer.take(300 << 10).unwrap();
    assert_eq!(standing(Class::Read).bytes, 0);
    // What is given back is not paid again.
    let before = standing(Class::List).bytes;
    assert!(before >= 300 << 10);
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
    let mut first = admission.read();
    first.take(500 << 10).unwrap();
    let mut second = admission.read();
    assert_eq!(second.take(250 << 10), Err(Error::NoRoom), "seven tenths are for reads");
    drop(second);
    let mut small = admission.read();
    small.take(20 << 10).unwrap();
    drop(first);
    let mut second = admission.read();
    second.take(400 << 10).unwrap();
    drop((second, small));
    assert_eq!(under_way(&admission), (0, 0));
}

#[test]
fn streams_are_counted_by_themselves_and_renewals_come_before_watches() {
    let admission = Admission::new(Bounds { streams_max: 10, ..Bounds::within(1 << 30) });
    let mut watches = (0..9).map(|_| admission.stream(Class::Write).unwrap()).collect::<Vec<_>>();
    assert_eq!(admission.stream(Class::Write).unwrap_err(), Error::RequestTooManyRequests);
    let _renewals = admission.stream(Class::Upkeep).unwrap();
    assert_eq!(admission.streams(), (10, 10, 1));
    watches.truncate(8);
    assert!(admission.stream(Class::Write).is_err() && admission.stream(Class::Upkeep).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_list_waits_for_room_and_begins_again() {
    let admission = within(1_000, 8 << 20);
    let list = async |mut ticket: Ticket| ticket.take(1 << 20).map(|()| ticket);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(admission.list_when_there_is_room(1 << 20).await);
    }
    let waiting = tokio::spawn(async move { admission.reading(list).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    held.pop();
    let read = waiting.await.unwrap().unwrap();
    let began = Instant::now();
    assert_eq!(admission.reading(list).await.unwrap_err(), Error::NoRoom);
    assert!(began.elapsed() >= ROOM_WAIT_MAX);
    assert_eq!(admission.standings().next().unwrap().shed, 1);
    drop((held, read));
    assert_eq!(under_way(&admission), (0, 0));
    assert_eq!(admission.0.waiting.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_lists_wait_than_may() {
    let admission = within(48, 8 << 20);
    let full = admission.write(Class::Write, usize::MAX).unwrap();
    let list = async |mut ticket: Ticket| ticket.take(1 << 20);
    let waiting = (0..5).map(|_| tokio::spawn(async move { admission.reading(list).await })).collect::<Vec<_>>();
    tokio::task::yield_now().await;
    assert_eq!(waiting.iter().filter(|waiting| waiting.is_finished()).count(), 2);
    drop(full);
    let mut served = 0;
    for read in waiting {
        served += usize::from(matches!(read.await.unwrap(), Ok(())));
    }
    assert_eq!(served, 3);
}

#[test]
fn the_bounds_follow_the_memory_and_have_a_least() {
    let large = Bounds::within(8 << 30);
    assert_eq!((large.bytes_max, large.answer_bytes_max, large.calls_max), (2 << 30, 512 << 20, 28_000));
    let small = Bounds::within(64 << 20);
    assert_eq!((small.bytes_max, small.calls_max, small.streams_max), (16 << 20, 1_024, 4_096));
}
