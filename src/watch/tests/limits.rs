//! Slow readers, and very many of everything.

use super::*;

fn tight() -> Options {
    Options { stream_bytes_max: 2_000, history_bytes_max: 500, reply_bytes_max: 1_000, ..Options::default() }
}

#[test]
fn a_slow_reader_falls_behind_and_catches_up_without_loss() {
    let mut world = World::new(tight());
    let (mut slow, mut fast) = (world.open(), world.open());
    slow.create(spec("a", ""));
    fast.create(spec("a", ""));
    let mut seen_by_fast = Vec::new();
    for number in 2..1_000 {
        world.put("a", &number.to_string());
        seen_by_fast.extend(fast.replies().iter().flat_map(seen));
    }
    assert_eq!(world.hub.counts().behind, 1, "the slow one alone");
    assert!(slow.deliveries.held_bytes() <= 2_500, "{} bytes are held", slow.deliveries.held_bytes());
    let seen_by_slow: Vec<_> = slow.replies().iter().flat_map(seen).collect();
    assert_eq!(seen_by_slow, seen_by_fast);
    assert_eq!(seen_by_slow.iter().map(|event| event.revision).collect::<Vec<_>>(), (2..1_000).collect::<Vec<_>>());
    assert_eq!((slow.deliveries.held_bytes(), world.hub.counts().behind), (0, 0));
    world.put("a", "live again");
    assert_eq!(slow.told(), ["0: 1000a=live again"]);
}

#[test]
fn all_unread_streams_together_hold_back_what_they_may_and_lose_nothing() {
    let mut world = World::new(Options { bytes_max: 10_000, ..Options::default() });
    let mut clients = (0..20).map(|_| world.open()).collect::<Vec<_>>();
    for client in &mut clients {
        client.create(spec("a", ""));
    }
    for number in 0..200 {
        world.put("a", &format!("{number:0100}"));
    }
    // Of each one revision may be beyond it.
    let held = world.hub.held_bytes();
    assert!((5_000..16_000).contains(&held), "{held} bytes are held");
    assert_eq!(world.hub.counts().behind, 20);
    let rest = clients.split_off(1);
    drop(rest);
    assert!(world.hub.held_bytes() < 5_000, "those who left hold nothing");
    let seen: Vec<_> = clients[0].replies().iter().flat_map(seen).collect();
    assert_eq!(seen.iter().map(|event| event.revision).collect::<Vec<_>>(), (2..202).collect::<Vec<_>>());
    assert_eq!(world.hub.held_bytes(), 0);
}

#[test]
fn etcd_17529_hundreds_of_watchers_of_a_slow_stream_see_the_log_or_are_told_that_it_is_gone() {
    let mut world = World::new(Options { history_bytes_max: 100, ..tight() });
    let mut client = world.open();
    for _ in 0..300 {
        client.create(from(0));
    }
    client.told();
    for number in 0..50 {
        world.put("a", &number.to_string());
    }
    // Some read on before the compaction takes what they lack, some do not.
    let mut delivered: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let mut ended: BTreeMap<i64, i64> = BTreeMap::new();
    let mut note = |delivery: &Delivery| match delivery {
        Delivery::Events { id, .. } => {
            delivered.entry(*id).or_default().extend(seen(delivery).iter().map(|event| event.revision));
        }
        Delivery::Canceled { id, compacted, .. } => drop(ended.insert(*id, compacted.unwrap().0)),
        other => panic!("{other:?}"),
    };
    for _ in 0..20 {
        match client.poll() {
            Poll::Ready(Turn::Deliver(delivery)) => note(&delivery),
            Poll::Ready(Turn::Read(job)) => client.caught(job.run()),
            Poll::Pending => break,
        }
    }
    world.compact(40);
    world.sweep();
    client.replies().iter().for_each(note);
    for id in 0..300 {
        let revisions = delivered.remove(&id).unwrap_or_default();
        let whole: Vec<i64> = (2..2 + revisions.len() as i64).collect();
        assert_eq!(revisions, whole, "watcher {id} has no gap");
        match ended.get(&id) {
            Some(compacted) => assert!(revisions.len() as i64 + 2 < *compacted, "watcher {id} lacked what is gone"),
            None => assert_eq!(revisions.len(), 50, "watcher {id} saw all"),
        }
    }
    assert!(!ended.is_empty());
}

#[test]
fn what_went_live_before_its_past_was_compacted_is_cancelled_without_a_gap() {
    let mut world = World::new(Options { history_bytes_max: 1, ..Options::default() });
    for number in 0..10 {
        world.put("a", &number.to_string());
    }
    let mut client = world.open();
    client.create(from(2));
    client.create(from(9));
    let Poll::Ready(Turn::Read(job)) = client.poll() else { panic!("there is history to read") };
    client.caught(job.run());
    // Both are live now, and the first has read one revision.
    world.put("a", "live");
    world.compact(7);
    let told = client.told();
    assert_eq!(told[..4], ["0+@11", "1+@11", "0: 2a=0", "0x compacted 7"]);
    assert!(told[4..].iter().all(|reply| reply.starts_with("1: ")), "nothing more for the first: {told:?}");
    assert_eq!(told.last().unwrap(), "1: 12a=live");
    assert_eq!((client.deliveries.held_bytes(), world.hub.counts().watchers), (0, 1));
}

#[test]
fn what_is_cancelled_while_its_past_is_compacted_ends_without_a_gap() {
    let mut world = World::new(Options { history_bytes_max: 1, ..Options::default() });
    for number in 0..10 {
        world.put("a", &number.to_string());
    }
    let mut client = world.open();
    client.create(from(2));
    let Poll::Ready(Turn::Read(job)) = client.poll() else { panic!("there is history to read") };
    client.caught(job.run());
    world.put("a", "live");
    world.compact(7);
    client.control.cancel(0);
    client.create(WatchSpec { id: Some(0), ..from(0) });
    assert_eq!(client.create(WatchSpec { id: Some(1), ..from(0) }), 1);
    world.put("a", "again");
    let told = client.told();
    assert_eq!(told[..5], ["0+@11", "0: 2a=0", "0x", "0+@12", "1+@12"], "{told:?}");
    assert!(told.contains(&"0: 13a=again".to_owned()), "{told:?}");
}

#[test]
fn a_busy_stream_reads_history_beside_its_queue() {
    let mut world = World::new(tight());
    for number in 0..3_000 {
        world.put("a", &number.to_string());
    }
    let mut client = world.open();
    client.create(spec("a", ""));
    client.create(from(2));
    let mut last = 1;
    // Each time that the stream is looked at there is something new in its queue.
    for turn in 0.. {
        assert!(turn < 20_000, "the one that is behind starves at {last}");
        if turn < 3_000 {
            world.put("a", "more");
        }
        match client.poll() {
            Poll::Ready(Turn::Deliver(delivery @ Delivery::Events { id: 1, .. })) => {
                for event in seen(&delivery) {
                    assert_eq!(event.revision, last + 1);
                    last += 1;
                }
            }
            Poll::Ready(Turn::Deliver(_)) => {}
            Poll::Ready(Turn::Read(job)) => client.caught(job.run()),
            Poll::Pending => break,
        }
    }
    assert_eq!(last, world.store.current().0);
}

#[test]
fn one_event_for_very_many_watchers_is_bounded_and_reaches_all() {
    let mut world = World::new(Options { stream_bytes_max: 1 << 20, ..Options::default() });
    let mut client = world.open();
    const WATCHERS: usize = 50_000;
    for _ in 0..WATCHERS {
        client.create(spec("a", ""));
    }
    assert_eq!(client.replies().len(), WATCHERS);
    for value in ["1", "2", "3"] {
        world.put("a", value);
    }
    assert!(world.hub.counts().behind > 0, "three events for each of them are more than the bound");
    let mut delivered = vec![0; WATCHERS];
    for delivery in client.replies() {
        let Delivery::Events { id, ref events, .. } = delivery else { panic!("{delivery:?}") };
        delivered[id as usize] += events.len();
    }
    assert!(delivered.iter().all(|events| *events == 3));
    assert_eq!(world.hub.counts().behind, 0);
}

#[test]
fn requests_wait_while_too_many_replies_are_not_read() {
    let world = World::new(Options { controls_max: 10, ..Options::default() });
    let mut client = world.open();
    let asks = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&asks));
    let mut context = Context::from_waker(&waker);
    for _ in 0..10 {
        assert!(client.control.poll_room(&mut context).is_ready());
        client.create(spec("a", ""));
    }
    assert!(client.control.poll_room(&mut context).is_pending());
    let Poll::Ready(Turn::Deliver(_)) = client.poll() else { panic!("there are replies") };
    assert!(asks.0.load(Ordering::SeqCst), "woken when there is room");
    assert!(client.control.poll_room(&mut context).is_ready());
}

#[test]
fn watchers_above_the_bound_are_refused() {
    let world = World::new(Options { watchers_max: 1, ..Options::default() });
    let mut client = world.open();
    client.create(spec("a", ""));
    client.control.create(spec("b", "")).unwrap_err();
    assert_eq!(client.told(), ["0+@1", "!etcdserver: too many requests"]);
    client.control.cancel(0);
    client.create(spec("b", ""));
}

#[test]
fn fragments_split_a_revision_and_nothing_else_does() {
    let mut world = World::new(tight());
    let mut client = world.open();
    client.create(WatchSpec { fragment: true, ..from(0) });
    client.create(from(0));
    client.told();
    let large = "x".repeat(400);
    world.write(&[put("a", &large), put("b", &large), put("c", &large)]);
    let shape = |replies: Vec<Delivery>| -> Vec<(i64, usize, bool)> {
        let one = |delivery: Delivery| match delivery {
            Delivery::Events { id, events, fragment, .. } => (id, events.len(), fragment),
            other => panic!("{other:?}"),
        };
        replies.into_iter().map(one).collect()
    };
    assert_eq!(shape(client.replies()), [(0, 2, true), (0, 1, false), (1, 3, false)]);
}

#[test]
fn history_that_is_in_hand_counts_too_and_there_is_less_of_it_when_all_hold_back_much() {
    let mut world = World::new(Options { bytes_max: 10_000, ..Options::default() });
    for number in 0..200 {
        world.put("a", &format!("{number:0100}"));
    }
    let mut clients = (0..20).map(|_| world.open()).collect::<Vec<_>>();
    let mut held = Vec::new();
    for client in &mut clients {
        client.create(WatchSpec { start: Revision(2), ..spec("a", "") });
        // It has history read, and takes nothing of it.
        loop {
            match client.poll() {
                Poll::Ready(Turn::Read(job)) => break client.caught(job.run()),
                Poll::Ready(Turn::Deliver(_)) => {}
                Poll::Pending => panic!("there is history to read"),
            }
        }
        held.push(world.hub.held_bytes());
    }
    assert!((60_000..70_000).contains(&held[0]), "the first one has all of it in hand: {held:?}");
    assert!(held[19] < held[0] + 40_000, "the others have little each: {held:?}");
    let rest = clients.split_off(10);
    drop(rest);
    for client in &mut clients {
        let seen: Vec<_> = client.replies().iter().flat_map(seen).collect();
        assert_eq!(seen.iter().map(|event| event.revision).collect::<Vec<_>>(), (2..202).collect::<Vec<_>>());
    }
    assert_eq!(world.hub.held_bytes(), 0);
}
