//! Real threads: one publishes as fast as it can, others attach, cancel and read.

use super::*;
use std::{sync::atomic::AtomicI64, thread};

#[test]
fn watchers_that_attach_while_others_publish_see_each_revision_once() {
    const ROUNDS: usize = 20;
    let mut world = World::new(Options { stream_bytes_max: 20_000, ..Options::default() });
    let hub = world.hub.clone();
    let reached = AtomicI64::new(1);
    thread::scope(|scope| {
        let mut readers = Vec::new();
        for seed in 0..3_i64 {
            let (hub, reached) = (hub.clone(), &reached);
            readers.push(scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let (control, deliveries) = hub.open();
                    let mut client = Client { control, deliveries, woken: Arc::new(Woken(AtomicBool::new(true))) };
                    let current = reached.load(Ordering::Acquire);
                    let starts = [0, (current - 50 * seed).max(1), current + 20, (current - 2_000).max(1)];
                    let mut next: BTreeMap<i64, i64> = BTreeMap::new();
                    for start in starts {
                        let id = client.create(from(start));
                        next.insert(id, start);
                    }
                    let until = current + 500;
                    let (mut looks, mut asked, mut answered) = (0_u64, 0, 0);
                    while next.values().any(|next| *next <= until) || answered < asked {
                        looks += 1;
                        assert!(looks < 100_000_000, "stuck at {next:?} of {until}, {answered} of {asked} answered");
                        if looks % 50 == 1 && asked < 20 {
                            client.control.request_progress();
                            asked += 1;
                        }
                        match client.poll() {
                            Poll::Ready(Turn::Deliver(Delivery::Created { id, revision })) => {
                                let next = next.get_mut(&id).unwrap();
                                if *next == 0 {
                                    *next = revision.0 + 1;
                                }
                                *next = (*next).max(2);
                            }
                            Poll::Ready(Turn::Deliver(delivery @ Delivery::Events { id, .. })) => {
                                for event in seen(&delivery) {
                                    let next = next.get_mut(&id).unwrap();
                                    assert_eq!(event.revision, *next, "watcher {id} of reader {seed}");
                                    *next += 1;
                                }
                            }
                            Poll::Ready(Turn::Deliver(Delivery::Progress { id: None, revision })) => {
                                assert!(next.values().all(|next| *next > revision.0), "{revision} before {next:?}");
                                answered += 1;
                            }
                            Poll::Ready(Turn::Deliver(other)) => panic!("{other:?}"),
                            Poll::Ready(Turn::Read(job)) => client.caught(job.run()),
                            Poll::Pending => thread::yield_now(),
                        }
                    }
                }
            }));
        }
        let mut turns = 0_u32;
        while !readers.iter().all(|reader| reader.is_finished()) {
            turns = turns.wrapping_add(1);
            // Whoever is behind has to be given a chance: with less time for readers than for the writer nobody ever gets level.
            if hub.counts().behind > 0 && !turns.is_multiple_of(64) {
                thread::yield_now();
                continue;
            }
            // Now and then the hub lags behind the store by several revisions.
            for number in 0..world.store.current().0 % 4 + 1 {
                world.write_only(&[put("a", &number.to_string())]);
            }
            world.publish();
            reached.store(world.store.current().0, Ordering::Release);
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert_eq!(hub.counts(), Counts::default());
}
