//! Ranges, starts, ids, fragments and progress: the forms that a request may have.

use super::*;

/// Asks for a progress reply, and takes all until it comes: what came before, and its revision.
async fn until_progress(watching: &mut Watching) -> (Vec<WatchResponse>, i64) {
    watching.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let mut before = Vec::new();
    loop {
        let reply = watching.next().await;
        if reply.watch_id == -1 {
            assert!(!reply.created && !reply.canceled && reply.events.is_empty(), "{reply:?}");
            return (before, revision(&reply.header));
        }
        before.push(reply);
    }
}

#[tokio::test]
async fn each_form_of_a_range_sees_its_keys() {
    let world = world().await;
    let mut watching = world.watch().await;
    let forms: [(&str, &str, &[&str]); 7] = [
        ("b", "", &["b"]),
        ("b", "d", &["b", "c"]),
        ("b", "\0", &["b", "c", "d"]),
        ("\0", "\0", &["\0", "a", "b", "c", "d"]),
        // No key is the smallest key.
        ("", "\0", &["\0", "a", "b", "c", "d"]),
        ("", "", &["\0"]),
        ("", "b", &["\0", "a"]),
    ];
    for (key, end, _) in forms {
        watching.created(on(key, end)).await;
    }
    for key in ["\0", "a", "b", "c", "d"] {
        world.put(key, "").await;
    }
    let (replies, _) = until_progress(&mut watching).await;
    let mut seen = vec![Vec::new(); forms.len()];
    for reply in &replies {
        seen[reply.watch_id as usize].extend(keys(reply));
    }
    for ((key, end, wanted), seen) in forms.into_iter().zip(seen) {
        assert_eq!(seen, wanted.iter().map(|key| key.as_bytes()).collect::<Vec<_>>(), "{key:?}..{end:?}");
    }
}

#[tokio::test]
async fn ids_are_chosen_or_the_next_that_is_free_and_end_one_by_one() {
    let world = world().await;
    let mut watching = world.watch().await;
    let mut ids = Vec::new();
    for watch_id in [0, 2, 0, 0, 7, 0] {
        ids.push(watching.created(Create { watch_id, ..on("a", "") }).await.watch_id);
    }
    assert_eq!(ids, [0, 2, 1, 3, 7, 4]);
    let cancel = |watch_id| RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id });
    watching.ask(cancel(99)).await;
    watching.ask(cancel(2)).await;
    let reply = watching.next().await;
    assert_eq!((reply.watch_id, reply.canceled, reply.created), (2, true, false), "the unknown one is not answered");
    watching.ask(cancel(2)).await;
    world.put("a", "").await;
    let (replies, _) = until_progress(&mut watching).await;
    let mut told: Vec<_> = replies.iter().map(|reply| (reply.watch_id, reply.events.len())).collect();
    told.sort_unstable();
    assert_eq!(told, [(0, 1), (1, 1), (3, 1), (4, 1), (7, 1)]);
}

#[tokio::test]
async fn a_start_in_the_future_sees_nothing_below_it() {
    let world = world().await;
    world.put("a", "2").await;
    let mut watching = world.watch().await;
    let created = watching.created(Create { start_revision: 5, progress_notify: true, ..on("a", "") }).await;
    assert_eq!(revision(&created.header), 2, "the current revision, not the one that it waits for");
    for value in ["3", "4", "5", "6"] {
        world.put("a", value).await;
    }
    let (replies, upto) = until_progress(&mut watching).await;
    assert_eq!((replies.iter().flat_map(revisions).collect::<Vec<_>>(), upto), (vec![5, 6], 6));
}

#[tokio::test]
async fn fragments_are_marked_but_for_the_last() {
    let world = world_with_hub(Options { reply_bytes_max: 10_000, ..Options::default() }).await;
    let mut watching = world.watch().await;
    watching.created(Create { fragment: true, ..on("k", "l") }).await;
    watching.created(on("k", "l")).await;
    let value = "x".repeat(3_000);
    let one = |number| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put(&format!("k{number}"), &value))),
    };
    world.kv().txn(pb::TxnRequest { success: (0..8).map(one).collect(), ..Default::default() }).await.unwrap();
    let (replies, _) = until_progress(&mut watching).await;
    let of = |id| replies.iter().filter(move |reply| reply.watch_id == id);
    assert_eq!(
        of(0).map(|reply| (reply.events.len(), reply.fragment)).collect::<Vec<_>>(),
        [(3, true), (3, true), (2, false)]
    );
    assert_eq!(of(1).map(|reply| (reply.events.len(), reply.fragment)).collect::<Vec<_>>(), [(8, false)]);
    assert!(of(0).flat_map(keys).eq(of(1).flat_map(keys)));
}

#[tokio::test]
async fn what_an_event_replaced_is_told_while_it_is_there() {
    let world = world().await;
    for value in ["2", "3", "4"] {
        world.put("a", value).await;
    }
    world.kv().compact(pb::CompactionRequest { revision: 3, physical: true }).await.unwrap();
    let mut watching = world.watch().await;
    watching.created(Create { start_revision: 3, prev_kv: true, ..on("a", "") }).await;
    let (replies, _) = until_progress(&mut watching).await;
    let prevs: Vec<_> = replies.iter().flat_map(|reply| &reply.events).map(|event| event.prev_kv.as_ref()).collect();
    assert_eq!(prevs.len(), 2);
    assert!(prevs[0].is_none(), "the compaction has taken it");
    assert_eq!(prevs[1].unwrap().value, "3");
}

#[tokio::test]
async fn requested_progress_waits_for_all_who_read_history() {
    const REVISIONS: i64 = 3_000;
    let world = world_with_hub(Options { history_bytes_max: 1_000, ..Options::default() }).await;
    for number in 0..REVISIONS {
        world.put("a", &number.to_string()).await;
    }
    let mut watching = world.watch().await;
    watching.create(Create { start_revision: 1, ..on("a", "") }).await;
    watching.create(on("a", "")).await;
    watching.create(Create { start_revision: 1_500, ..on("a", "") }).await;
    let (replies, upto) = until_progress(&mut watching).await;
    assert_eq!(upto, REVISIONS + 1);
    let seen = |id| replies.iter().filter(move |reply| reply.watch_id == id).flat_map(revisions);
    assert!(seen(0).eq(2..=upto));
    assert_eq!(seen(1).count(), 0);
    assert!(seen(2).eq(1_500..=upto));
}

#[tokio::test]
async fn only_a_watcher_without_events_is_told_of_progress() {
    let interval = Duration::from_millis(500);
    let world = world_with(Settings { watch_progress_interval: interval, ..Settings::default() }).await;
    let mut watching = world.watch().await;
    watching.created(Create { progress_notify: true, ..on("busy", "") }).await;
    watching.created(Create { progress_notify: true, ..on("quiet", "") }).await;
    watching.created(on("quiet", "")).await;
    let began = std::time::Instant::now();
    while began.elapsed() < interval * 4 {
        world.put("busy", "").await;
        let reply = watching.next().await;
        assert_eq!(reply.events.is_empty(), reply.watch_id == 1, "{reply:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Whatever is still on its way comes first.
    let mut told = [0; 3];
    while told[0] == 0 {
        let reply = watching.next().await;
        told[reply.watch_id as usize] += usize::from(reply.events.is_empty());
    }
    assert!(told[1] > 0 && told[2] == 0, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_written_meanwhile_each_revision_comes_once() {
    const WATCHERS: usize = 40;
    const REVISIONS: i64 = 600;
    let world = world().await;
    let writers = (0..4).map(|writer| {
        let mut kv = world.kv();
        tokio::spawn(async move {
            for number in 0..REVISIONS / 4 {
                kv.put(put(&format!("{writer}"), &number.to_string())).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut watching = world.watch().await;
    let mut next: Vec<Option<i64>> = vec![None; WATCHERS];
    let starts = |number: usize| [0, 1, 100, revision_now(&world) + 5][number % 4];
    let mut created = 0;
    while next.iter().any(|next| next.is_none_or(|next| next < REVISIONS + 2)) {
        if created < WATCHERS {
            watching
                .create(Create { start_revision: starts(created), watch_id: created as i64 + 1, ..on("", "\0") })
                .await;
            created += 1;
        }
        let reply = watching.next().await;
        let current = revision(&reply.header);
        let watcher = reply.watch_id as usize - 1;
        if reply.created {
            assert_eq!(next[watcher], None, "created comes first");
            // Of those in the past and the future the first event tells.
            next[watcher] = Some(if watcher.is_multiple_of(4) { current + 1 } else { 0 });
        }
        for revision in revisions(&reply) {
            let next = next[watcher].as_mut().expect("created comes first");
            let first = match watcher % 4 {
                1 => 2,
                2 => 100,
                _ => revision,
            };
            assert_eq!(revision, if *next == 0 { first } else { *next }, "watcher {watcher}");
            assert!(revision <= current, "the header is not below the events");
            *next = revision + 1;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
}
