use super::*;
use crate::mvcc::Meter;
use tokio::time::advance;

/// A ticket of a list that waited for nobody.
fn list(admission: &Admission) -> Ticket {
    Ticket::of(admission.0, Class::List, None)
}

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
    let lists = (0..2).map(|_| {
        let mut list = list(&admission);
        list.take(1 << 20).unwrap();
        list
    });
    let lists = lists.collect::<Vec<_>>();
    assert_eq!(list(&admission).take(1 << 20), Err(Error::NoRoom));
    assert!(admission.write(Class::Write, 1_000_000).is_ok(), "four copies of it fit into the other half");
    drop(lists);
    assert_eq!(under_way(&admission), (0, 0));
}

#[test]
fn an_answer_pays_as_it_grows_and_what_is_large_is_no_read() {
    let admission = within(1_000, 8 << 20);
    let standing = |class: Class| admission.standings().nth(class as usize).unwrap();
    let mut answer = admission.read();
    answer.take(FREE_BYTES).unwrap();
    assert_eq!((standing(Class::Read).bytes, answer.has_paid()), (0, false));
    answer.take(1).unwrap();
    assert_eq!(standing(Class::Read).bytes, STEP_BYTES as u64, "paid in steps");
    // What is given back is not paid again.
    answer.take(150 << 10).unwrap();
    let before = standing(Class::Read).bytes;
    answer.give(100 << 10);
    answer.take(100 << 10).unwrap();
    assert_eq!(standing(Class::Read).bytes, before);
    assert_eq!(answer.take(500 << 10), Err(Error::NoRoom), "it comes again as a list");
    assert_eq!(answer.take(2 << 20), Err(Error::AnswerTooLarge));
    drop(answer);
    let mut answer = list(&admission);
    answer.take(300 << 10).unwrap();
    assert_eq!(standing(Class::List).bytes, 600 << 10, "the rows, and what is made of them");
    answer.is_offered(300 << 10);
    assert_eq!(standing(Class::List).bytes, 300 << 10, "the rows are gone");
    drop(answer);
    assert_eq!(under_way(&admission), (0, 0));
}

#[test]
fn an_answer_for_which_there_is_no_room_is_refused_before_it_is_there() {
    let admission = within(1_000, 1 << 20);
    let mut first = list(&admission);
    first.take(260 << 10).unwrap();
    let mut second = admission.read();
    assert_eq!(second.take(250 << 10), Err(Error::NoRoom), "seven tenths are for reads");
    drop(second);
    let mut small = admission.read();
    small.take(20 << 10).unwrap();
    drop(first);
    let mut second = admission.read();
    second.take(200 << 10).unwrap();
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

/// A list of 1 MiB, which takes two; what is left of it is half.
async fn one_mib(mut ticket: Ticket) -> Result<Ticket, Error> {
    ticket.take(1 << 20)?;
    ticket.is_offered(1 << 20);
    Ok(ticket)
}

/// One that comes over the connection of `tab`.
async fn listing(admission: Admission, tab: Option<Arc<Tab>>) -> Result<Ticket, Error> {
    let mut reading = Box::pin(admission.reading(one_mib));
    let mut tab = tab;
    std::future::poll_fn(move |context| Tab::during(&mut tab, || reading.as_mut().poll(context))).await
}

/// As the connection takes it, from its first byte to its last.
fn takes(ticket: &Ticket) {
    ticket.is_taken(1 << 20);
}

#[tokio::test(start_paused = true)]
async fn a_list_waits_for_room_and_begins_again() {
    let admission = within(1_000, 8 << 20);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(listing(admission, None).await.unwrap());
    }
    let waiting = tokio::spawn(listing(admission, None));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    held.pop();
    let read = waiting.await.unwrap().unwrap();
    let began = Instant::now();
    assert_eq!(listing(admission, None).await.unwrap_err(), Error::NoRoom);
    assert!(began.elapsed() >= ROOM_WAIT_MAX);
    assert_eq!(admission.standings().next().unwrap().shed, 1);
    drop((held, read));
    assert_eq!(under_way(&admission), (0, 0));
    assert_eq!(admission.0.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_lists_wait_than_may_and_the_connection_with_most_gives_way() {
    let admission = within(64, 8 << 20);
    let full = admission.write(Class::Write, usize::MAX).unwrap();
    let [greedy, modest] = [(); 2].map(|()| Tab::open(admission));
    let wait = |open: &OpenTab| tokio::spawn(listing(admission, Some(Arc::clone(open.tab()))));
    let first = (0..5).map(|_| wait(&greedy)).collect::<Vec<_>>();
    tokio::task::yield_now().await;
    assert_eq!(first.iter().filter(|waiting| waiting.is_finished()).count(), 1, "four may wait");
    let second = wait(&modest);
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    assert_eq!(first.iter().filter(|waiting| waiting.is_finished()).count(), 2);
    drop(full);
    drop(second.await.unwrap().unwrap());
    let mut served = 0;
    for read in first {
        served += usize::from(read.await.unwrap().is_ok());
    }
    assert_eq!(served, 3);
    assert_eq!(under_way(&admission), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn whose_connection_holds_least_is_next_however_many_others_wait() {
    let admission = within(1_000, 8 << 20);
    let [greedy, modest] = [(); 2].map(|()| Tab::open(admission));
    let listing = |open: &OpenTab| listing(admission, Some(Arc::clone(open.tab())));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(listing(&greedy).await.unwrap());
    }
    let others = (0..10).map(|_| tokio::spawn(listing(&greedy))).collect::<Vec<_>>();
    tokio::task::yield_now().await;
    let last = tokio::spawn(listing(&modest));
    tokio::task::yield_now().await;
    held.pop();
    let last = last.await.unwrap().unwrap();
    assert!(others.iter().all(|waiting| !waiting.is_finished()));
    others.iter().for_each(|waiting| waiting.abort());
    for waiting in others {
        assert!(waiting.await.unwrap_err().is_cancelled());
    }
    drop((held, last));
    assert_eq!(under_way(&admission), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_its_answers_is_closed_when_others_want_the_room() {
    let admission = within(1_000, 8 << 20);
    let [slow, steady, modest] = [(); 3].map(|()| Tab::open(admission));
    let listing = |open: &OpenTab| listing(admission, Some(Arc::clone(open.tab())));
    let unread = [listing(&slow).await.unwrap(), listing(&slow).await.unwrap()];
    let read = listing(&steady).await.unwrap();
    advance(Duration::from_secs(60)).await;
    assert_eq!(admission.queue(), (0, 0), "while nobody waits it harms nobody");
    takes(&read);
    let waiting = tokio::spawn(listing(&modest));
    slow.tab().closed().await;
    assert!(!waiting.is_finished());
    // The connection goes, and with it what it held.
    drop((slow, unread));
    drop(waiting.await.unwrap().unwrap());
    drop(read);
    assert_eq!((admission.queue(), under_way(&admission)), ((0, 1), (0, 0)));
    drop((steady, modest));
    assert!(admission.0.tabs.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_takes_its_answers_slowly_but_steadily_is_left_alone() {
    let admission = within(1_000, 8 << 20);
    let [steady, modest] = [(); 2].map(|()| Tab::open(admission));
    let mut read = Vec::new();
    for _ in 0..3 {
        read.push(listing(admission, Some(Arc::clone(steady.tab()))).await.unwrap());
    }
    for _ in 0..10 {
        let waiting = tokio::spawn(listing(admission, Some(Arc::clone(modest.tab()))));
        advance(Duration::from_millis(200)).await;
        read[0].is_taken(64 << 10);
        waiting.abort();
    }
    assert_eq!(admission.queue().1, 0);
    let waiting = tokio::spawn(listing(admission, Some(Arc::clone(modest.tab()))));
    // It stops.
    steady.tab().closed().await;
    drop((steady, read));
    assert!(waiting.await.unwrap().is_ok());
}

#[test]
fn the_bounds_follow_the_memory_and_have_a_least() {
    let large = Bounds::within(8 << 30);
    assert_eq!((large.bytes_max, large.answer_bytes_max, large.calls_max), (2 << 30, 512 << 20, 28_000));
    let small = Bounds::within(64 << 20);
    assert_eq!((small.bytes_max, small.calls_max, small.streams_max), (16 << 20, 1_024, 4_096));
}
