//! Watchers that begin in the past, at its edge, or in the future.

use super::*;

#[test]
fn history_comes_first_and_then_live_without_gap_or_duplicate() {
    let mut world = world();
    for value in ["1", "2", "3"] {
        world.put("a", value);
    }
    let mut client = world.open();
    client.create(WatchSpec { start: Revision(3), ..spec("a", "") });
    // It goes live while it reads.
    let job = loop {
        match client.poll() {
            Poll::Ready(Turn::Read(job)) => break job,
            Poll::Ready(Turn::Deliver(delivery)) => assert_eq!(short(&delivery), "0+@4"),
            Poll::Pending => panic!("there is history to read"),
        }
    };
    world.put("a", "4");
    let Poll::Ready(Turn::Deliver(created)) = client.poll() else { panic!("created is due") };
    assert_eq!(short(&created), "0+@4");
    let done = job.run();
    world.put("a", "5");
    assert!(client.poll().is_pending(), "what is live waits for the past");
    client.caught(done);
    assert_eq!(client.told(), ["0: 3a=2 4a=3 5a=4", "0: 6a=5"]);
    assert_eq!(world.hub.counts().behind, 0);
}

#[test]
fn below_the_compacted_revision_a_watcher_is_created_and_cancelled() {
    let mut world = world();
    for value in ["1", "2", "3", "4"] {
        world.put("a", value);
    }
    world.compact(4);
    let mut client = world.open();
    client.create(from(3));
    client.create(from(4));
    assert_eq!(client.told(), ["0+@5", "1+@5", "0x compacted 4", "1: 4a=3 5a=4"]);
    assert_eq!(world.hub.counts(), Counts { streams: 1, watchers: 1, behind: 0 });
}

#[test]
fn a_start_below_the_compacted_revision_is_refused_though_the_hub_lags() {
    let mut world = world();
    world.write_only(&[put("a", "1")]);
    world.write_only(&[put("a", "2")]);
    world.compact(3);
    let mut client = world.open();
    client.create(from(2));
    assert_eq!(client.told(), ["0+@3", "0x compacted 3"]);
    world.publish();
    assert_eq!(client.told(), [""; 0]);
}

#[test]
fn etcd_18089_a_delete_at_the_compacted_revision_is_still_told() {
    let mut world = world();
    world.put("a", "1");
    world.put("b", "1");
    let deleted = world.write(&[delete("a", "")]);
    world.put("b", "2");
    world.compact(deleted.0);
    let mut before = world.open();
    before.create(from(deleted.0));
    assert_eq!(before.told(), ["0+@5", "0: 4a- 5b=2"]);
    world.sweep();
    let mut after = world.open();
    after.create(from(deleted.0));
    let told = after.told();
    assert!(
        told == ["0+@5", "0: 4a- 5b=2"] || told[1].contains("compacted"),
        "the delete or a word, never silence: {told:?}"
    );
}

#[test]
fn etcd_20221_a_start_in_the_future_hears_nothing_before() {
    let mut world = world();
    let mut client = world.open();
    client.create(WatchSpec { progress_notify: true, ..from(4) });
    client.control.request_progress();
    client.deliveries.tick();
    world.put("a", "2");
    assert_eq!(client.told(), ["0+@1"], "no event, and no progress that would lower its start");
    world.put("a", "3");
    assert_eq!(client.told(), ["all~3"], "nothing at or below 3 will follow");
    world.put("a", "4");
    assert_eq!(client.told(), ["0: 4a=4"]);
}

#[test]
fn etcd_15271_a_watcher_that_resumes_ahead_of_a_lagging_member_never_goes_back() {
    let mut world = world();
    world.put("a", "2");
    let mut client = world.open();
    // Seen elsewhere: everything up to 4, which this member has not.
    client.create(from(5));
    for value in ["3", "4", "5"] {
        world.put("a", value);
    }
    assert_eq!(client.told(), ["0+@2", "0: 5a=5"]);
}

#[test]
fn filters_and_previous_values_are_the_same_from_history() {
    let mut world = world();
    let create = |client: &Client| {
        client.create(WatchSpec { no_put: true, prev_kv: true, ..from(2) });
        client.create(WatchSpec { no_delete: true, ..from(2) });
        client.create(WatchSpec { no_put: true, no_delete: true, ..from(2) });
    };
    let mut live = world.open();
    create(&live);
    world.put("a", "1");
    world.put("a", "2");
    world.write(&[delete("a", "b")]);
    assert_eq!(live.told(), ["0+@1", "1+@1", "2+@1", "1: 2a=1 3a=2", "0: 4a-<2"]);
    let mut late = world.open();
    create(&late);
    assert_eq!(late.told(), ["0+@4", "1+@4", "2+@4", "1: 2a=1 3a=2", "0: 4a-<2"]);
}

#[test]
fn what_nobody_published_is_read_from_history() {
    let mut world = world();
    let mut client = world.open();
    client.create(spec("a", ""));
    client.create(WatchSpec { progress_notify: true, ..from(9) });
    world.put("a", "2");
    // A snapshot brings 3 and 4, then 5 is applied.
    world.write_only(&[put("a", "3")]);
    world.write_only(&[put("b", "4")]);
    world.unpublished.clear();
    world.put("a", "5");
    assert_eq!(world.hub.counts().behind, 1, "not the one that begins later");
    client.control.request_progress();
    assert_eq!(client.told(), ["0+@1", "1+@1", "0: 2a=2", "0: 3a=3 5a=5"]);
    // A snapshot brings 6 to 8, and nothing follows.
    for value in ["6", "7", "8"] {
        world.write_only(&[put("a", value)]);
    }
    world.unpublished.clear();
    world.publish();
    assert_eq!(client.told(), ["0: 6a=6 7a=7 8a=8", "all~8"]);
    // One brings 9 and 10, and takes what was before.
    world.write_only(&[put("a", "9")]);
    world.write_only(&[put("a", "10")]);
    world.unpublished.clear();
    world.compact(10);
    world.publish();
    assert_eq!(client.told(), ["0x compacted 10", "1x compacted 10"]);
}

#[test]
fn what_was_published_before_is_not_told_again() {
    let mut world = world();
    let mut client = world.open();
    client.create(spec("a", ""));
    world.write_only(&[put("a", "2")]);
    world.write_only(&[put("a", "3")]);
    let published = world.unpublished.clone();
    world.publish();
    world.hub.publish(published, Revision(3));
    world.put("a", "4");
    assert_eq!(client.told(), ["0+@1", "0: 2a=2 3a=3 4a=4"]);
}

#[test]
fn an_id_that_is_used_again_while_its_former_watcher_meets_a_compaction_loses_nothing() {
    let mut world = World::new(Options { near_revisions: 0, ..Options::default() });
    for value in ["1", "2", "3", "4"] {
        world.put("a", value);
    }
    let mut client = world.open();
    client.create(from(2));
    let Poll::Ready(Turn::Read(job)) = client.poll() else { panic!("there is history to read") };
    world.compact(4);
    let done = job.run();
    // What has come for the second of the id stands in the queue; that it was created is out already.
    client.control.cancel(0);
    client.create(WatchSpec { id: Some(0), ..from(6) });
    let told: Vec<String> = std::iter::from_fn(|| match client.poll() {
        Poll::Ready(Turn::Deliver(delivery)) => Some(short(&delivery)),
        _ => None,
    })
    .collect();
    assert_eq!(told, ["0+@5", "0x", "0+@5"]);
    world.put("a", "5");
    client.caught(done);
    assert_eq!(client.told(), ["0: 6a=5"]);
}
