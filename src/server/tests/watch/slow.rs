//! Clients that do not read, or not fast enough.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_nobody_up_and_loses_nothing() {
    const REVISIONS: i64 = 300;
    let world = world().await;
    let (mut slow, mut fast) = (world.watch().await, world.watch().await);
    slow.created(on("a", "")).await;
    fast.created(on("a", "")).await;
    let value = "x".repeat(100_000);
    let mut of_fast = 1;
    for _ in 0..REVISIONS {
        world.put("a", &value).await;
        while of_fast < revision_now(&world) {
            of_fast += fast.next().await.events.len() as i64;
        }
    }
    // Through a proxy it is there that somebody is behind.
    let behind = usize::from(!world.is_via());
    assert_eq!(world.backend.hub().counts().behind, behind, "30 MB are more than a stream may hold");
    let mut last = 1;
    while last < REVISIONS + 1 {
        for event in slow.next().await.events {
            last += 1;
            assert_eq!(event.kv.unwrap().mod_revision, last);
        }
    }
    world.put("a", "live").await;
    assert_eq!(slow.next().await.events[0].kv.as_ref().unwrap().value, "live");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_a_compaction_overtakes_is_told_so_and_nobody_else_is() {
    const REVISIONS: i64 = 200;
    let world = world_with_hub(Options { stream_bytes_max: 1 << 20, ..Options::default() }).await;
    let (mut slow, mut fast) = (world.watch().await, world.watch().await);
    slow.created(on("a", "")).await;
    fast.created(on("a", "")).await;
    let value = "x".repeat(100_000);
    for _ in 0..REVISIONS {
        world.put("a", &value).await;
        let mut of_fast = 0;
        while of_fast < revision_now(&world) {
            of_fast = *revisions(&fast.next().await).last().unwrap();
        }
    }
    let compacted = revision_now(&world);
    world.kv().compact(pb::CompactionRequest { revision: compacted, physical: false }).await.unwrap();
    world.put("a", "after").await;
    let mut last = 1;
    loop {
        let reply = slow.next().await;
        for revision in revisions(&reply) {
            last += 1;
            assert_eq!(revision, last, "no gap before the end");
        }
        if reply.canceled {
            assert_eq!((reply.watch_id, reply.compact_revision, reply.events.len()), (0, compacted, 0));
            break;
        }
    }
    assert!(last < compacted, "what it lacked was gone");
    // The stream lives, and watching goes on where the reply said.
    slow.created(Create { start_revision: compacted, ..on("a", "") }).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(revisions(&slow.next().await));
    }
    assert_eq!(seen, [compacted, compacted + 1]);
    assert_eq!(revisions(&fast.next().await), [compacted + 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_of_a_client_that_does_not_read_hold_no_more_than_the_bound() {
    const WATCHERS: usize = 1_000;
    const REVISIONS: usize = 300;
    const BOUND: usize = 256 << 10;
    let options = Options { stream_bytes_max: BOUND, history_bytes_max: 4 << 10, ..Options::default() };
    let world = world_with_hub(options).await;
    let mut slow = world.watch().await;
    for _ in 0..WATCHERS {
        slow.created(on("a", "b")).await;
    }
    let mut most = 0;
    for number in 0..REVISIONS {
        world.put("a", &number.to_string()).await;
        most = most.max(world.backend.hub().held_bytes());
    }
    // The last revision that still went in may go over.
    assert!(most < BOUND + WATCHERS * 64, "{most} bytes are held");
    assert_eq!(world.backend.hub().counts().behind, WATCHERS);
    let mut next = vec![2; WATCHERS];
    let mut open = WATCHERS;
    while open > 0 {
        let reply = slow.next().await;
        let next = &mut next[reply.watch_id as usize];
        for revision in revisions(&reply) {
            assert_eq!(revision, *next, "watcher {}", reply.watch_id);
            *next += 1;
        }
        open -= usize::from(*next == REVISIONS as i64 + 2);
    }
    assert_eq!(world.backend.hub().held_bytes(), 0);
}
