//! One rule at a time.

use super::*;

/// A world with a link that is up, and a watcher upstream of id 0.
fn linked() -> World {
    let mut world = World::new();
    world.create(b'f', 0, 0, 0);
    world.settle();
    world
}

fn reply(serial: i64, revision: i64) -> WatchResponse {
    let header = Some(ResponseHeader { revision, ..Default::default() });
    WatchResponse { header, watch_id: serial, ..Default::default() }
}

fn revisions(answer: Option<WatchReply>) -> (Vec<i64>, bool) {
    let reply = decoded(answer.expect("a reply"));
    (reply.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect(), reply.fragment)
}

#[test]
fn watchers_that_hubs_serve_ask_nobody_upstream() {
    let mut world = World::new();
    for _ in 0..100 {
        world.create(b'a', b'c', 0, 0);
    }
    world.progress();
    world.put(b'b');
    world.settle();
    assert!(!world.merger.needs_link());
    assert_eq!(world.held.len(), 100);
}

#[test]
fn progress_that_was_asked_for_before_the_first_watcher_came_does_not_wait_for_etcd() {
    let mut world = World { is_etcds: true, ..World::new() };
    world.progress();
    world.settle();
    assert_eq!(world.asked, 1, "etcd says nothing of a stream without watchers");
    world.create(b'a', b'c', 0, 0);
    world.progress();
    world.put(b'b');
    world.settle();
    assert_eq!((world.held.len(), world.asked), (1, 0));
    // Nor once the last one that is served there has gone.
    world.create(b'f', 0, 0, 0);
    world.settle();
    world.cancel(1);
    world.progress();
    world.settle();
    assert_eq!((world.held.len(), world.asked), (1, 0));
}

#[test]
fn creates_are_answered_in_their_order_wherever_they_go() {
    let mut world = World::new();
    world.create(b'f', 0, 0, 0);
    world.create(b'a', 0, 0, 0);
    world.create(b'c', 0, 0, 7);
    assert!(!world.deliver(b'a'), "it waits for the one upstream");
    assert_eq!(world.held.len(), 0);
    world.settle();
    assert_eq!(world.held.keys().collect::<Vec<_>>(), [&0, &1, &7]);
}

#[test]
fn a_watcher_of_a_hub_can_be_cancelled_while_a_create_waits_upstream() {
    let mut world = World::new();
    world.create(b'a', 0, 0, 0);
    world.deliver(b'a');
    world.create(b'f', 0, 0, 0);
    world.cancel(0);
    assert!(world.held.is_empty(), "upstream was not asked");
    world.settle();
    assert_eq!(world.held.len(), 1);
}

#[test]
fn row_6_a_member_that_lags_does_not_take_a_watcher_back() {
    let mut world = linked();
    for _ in 0..3 {
        world.put(b'f');
    }
    world.settle();
    world.link_down();
    world.link_up(2);
    while world.send() || world.hear() {}
    let serial = *world.merger.watchers.keys().next().unwrap();
    assert_eq!(world.upstream.as_ref().unwrap().watchers[&serial].1, 5);
    // Events that it has seen, and a notification from behind, are not passed on.
    let seen = WatchResponse { events: vec![event(&world.log, 4)], ..reply(serial, 4) };
    world.merger.watchers.get_mut(&serial).unwrap().create.progress_notify = true;
    for old in [seen, reply(serial, 3)] {
        world.merger.replied(old).unwrap();
        assert!(world.merger.pop().is_none());
    }
    world.merger.replied(reply(serial, 4)).unwrap();
    assert_eq!(decoded(world.merger.pop().unwrap()).watch_id, 0);
}

#[test]
fn fragments_go_out_together_and_are_begun_anew_after_a_loss() {
    let mut world = linked();
    for _ in 0..3 {
        world.put(b'f');
    }
    let serial = *world.merger.watchers.keys().next().unwrap();
    let part = |world: &World, at: i64, fragment| WatchResponse {
        events: vec![event(&world.log, at)],
        fragment,
        ..reply(serial, 4)
    };
    let first = part(&world, 2, true);
    world.merger.replied(first.clone()).unwrap();
    assert!(world.merger.pop().is_none());
    world.merger.link_down();
    world.merger.link_up();
    let Some(RequestUnion::CreateRequest(again)) = world.merger.next_upstream().unwrap().request_union else {
        panic!("it is created again");
    };
    assert_eq!((again.watch_id, again.start_revision), (serial, 2));
    world.merger.replied(WatchResponse { created: true, ..reply(serial, 4) }).unwrap();
    let (second, third) = (part(&world, 3, true), part(&world, 4, false));
    for part in [first, second, third] {
        assert!(world.merger.pop().is_none());
        world.merger.replied(part).unwrap();
    }
    let told: Vec<_> = (0..3).map(|_| revisions(world.merger.pop())).collect();
    assert_eq!(told, [(vec![2], true), (vec![3], true), (vec![4], false)]);
}

#[test]
fn a_refusal_upstream_takes_no_id() {
    let mut world = World::new();
    let create = |key: &'static str| {
        as_request(RequestUnion::CreateRequest(WatchCreateRequest { key: key.into(), ..Default::default() }))
    };
    world.merger.request(create("x"));
    world.merger.request(create("y"));
    world.merger.link_up();
    while world.merger.next_upstream().is_some() {}
    let refused =
        WatchResponse { created: true, canceled: true, cancel_reason: "no".to_owned(), ..reply(NO_WATCHER, 5) };
    world.merger.replied(refused.clone()).unwrap();
    assert_eq!(decoded(world.merger.pop().unwrap()), refused);
    world.merger.replied(WatchResponse { created: true, ..reply(2, 5) }).unwrap();
    assert_eq!(decoded(world.merger.pop().unwrap()).watch_id, 0);
    // What a member may not say ends the link, and nothing else.
    assert!(world.merger.replied(WatchResponse { created: true, ..reply(9, 5) }).is_err());
}

#[test]
fn progress_is_the_least_of_all_parts_once_all_have_answered() {
    let mut world = linked();
    world.create(b'a', 0, 0, 0);
    world.create(b'c', 0, 0, 0);
    world.settle();
    for key in *b"abcdef" {
        world.put(key);
    }
    world.level_homes(b'a');
    world.progress();
    while world.deliver(b'a') || world.deliver(b'c') || world.send() {}
    assert_eq!(world.asked, 1, "upstream has not answered");
    while world.hear() {}
    assert_eq!(world.asked, 0);
    assert_eq!(world.held[&1].next, 3, "the least is that of those who lag, and this one has seen more");
    world.settle();
}

#[test]
fn whoever_comes_during_a_round_is_asked_too() {
    let mut world = linked();
    world.progress();
    world.create(b'a', 0, 0, 0);
    while world.send() || world.hear() {}
    assert_eq!(world.asked, 1, "the hub has a watcher now, and has not answered");
    world.settle();
}

#[test]
fn a_watcher_whose_copy_ends_goes_on_where_it_was() {
    let mut world = World::new();
    world.create(b'a', b'c', 0, 0);
    world.put(b'a');
    world.settle();
    world.put(b'b');
    // The new copy lacks the last event: upstream has it.
    world.end_home(b'a', head(&world.log) + 1);
    assert!(world.merger.needs_link());
    world.settle();
    world.put(b'b');
    world.end_home(b'a', 1);
    world.settle();
    assert_eq!(world.held[&0].next, 5);
}

#[test]
fn what_upstream_has_compacted_meanwhile_is_said() {
    let mut world = linked();
    world.link_down();
    world.put(b'f');
    world.put(b'a');
    world.run(Step::Compact);
    world.settle();
    assert!(world.held.is_empty(), "the checks saw compact_revision");
}

#[test]
fn after_a_probe_an_idle_watcher_goes_on_from_there() {
    let mut world = World::new();
    world.create(b'a', 0, 0, 0);
    for _ in 0..5 {
        world.put(b'b');
    }
    world.settle();
    world.merger.probe();
    world.settle();
    world.run(Step::Compact);
    world.end_home(b'a', head(&world.log) + 1);
    world.settle();
    assert_eq!(world.held.len(), 1, "nothing that it needs is compacted");
}

#[test]
fn what_a_copy_has_forgotten_upstream_is_asked_for() {
    let mut world = World::new();
    world.create(b'a', 0, 0, 0);
    world.put(b'a');
    world.deliver(b'a');
    let serial = *world.merger.watchers.keys().next().unwrap();
    let forgotten =
        Delivery::Canceled { id: serial, revision: Revision(2), compacted: Some(Revision(2)), reason: None };
    world.merger.delivered(world.merger.homes.serving[&b'a'], forgotten);
    assert!(world.merger.pop().is_none() && world.merger.needs_link());
    world.settle();
    assert_eq!(world.held[&0].next, 3);
}

#[test]
fn watchers_come_home_when_there_is_a_copy_again() {
    let mut world = World::new();
    world.create(b'a', 0, 0, 0);
    world.settle();
    // The new copy begins behind what the watcher has seen.
    world.end_home(b'a', head(&world.log) + 2);
    for _ in 0..3 {
        world.put(b'a');
    }
    world.settle();
    assert!(world.merger.has_watchers_away() && world.merger.needs_link());
    world.merger.come_home();
    assert!(!world.merger.has_watchers_away() && !world.merger.needs_link());
    world.put(b'a');
    world.settle();
    assert_eq!(world.held[&0].next, 6);
    assert!(world.upstream.as_ref().unwrap().watchers.is_empty(), "upstream has nobody to serve");
}

#[test]
fn an_idle_watcher_comes_home_to_a_copy_that_began_after_all_that_it_is_known_to_have_seen() {
    let mut world = World::new();
    world.create(b'a', 0, 0, 0);
    world.settle();
    for _ in 0..5 {
        world.put(b'b');
    }
    world.end_home(b'a', head(&world.log) + 1);
    world.settle();
    world.merger.come_home();
    assert!(world.merger.has_watchers_away(), "what it has seen is older than the copy");
    world.settle();
    assert!(!world.merger.has_watchers_away(), "upstream said that it has seen all");
    world.put(b'a');
    world.settle();
    assert_eq!(world.held[&0].next, 8);
}

#[test]
fn who_has_to_leave_a_home_goes_on_from_as_late_as_can_be() {
    let mut world = World::new();
    world.create(b'a', 0, 0, 0);
    for _ in 0..5 {
        world.put(b'b');
    }
    world.settle();
    world.merger.ask_before_the_end(world.merger.homes.serving[&b'a']);
    world.settle();
    world.run(Step::Compact);
    world.end_home(b'a', head(&world.log) + 1);
    world.settle();
    assert_eq!(world.held.len(), 1, "nothing that it needs is compacted");
}

#[test]
fn a_reply_has_a_header_before_upstream_has_said_a_word() {
    let mut world = World::new();
    world.create(b'a', 0, 0, 0);
    world.settle();
    world.put(b'a');
    world.end_home(b'a', head(&world.log) + 1);
    world.cancel(0);
    assert!(world.held.is_empty(), "the check looks at the header of each reply");
}

#[test]
fn upstream_is_asked_again_though_something_else_is_to_be_sent() {
    use Step::{Create, End, Hear, LevelUpstream, LinkUp, Probe, Progress, Put, Send};
    let mut world = World::new();
    let first = Create { key: b'c', end: 0, start: 9, id: 0 };
    let second = Create { key: b'a', end: b'd', start: 0, id: 0 };
    let steps = [Put(b'a'), End(false, 0), Put(b'a'), first, LinkUp(0), Send, Progress, Hear, Put(b'a'), LevelUpstream];
    // Upstream says how far it is while a create is not answered; then the first watcher comes home, which is to be said there.
    let more = [Send, second, Send, End(false, 3), Probe, Hear, Hear, Hear];
    steps.into_iter().chain(more).for_each(|step| world.run(step));
    world.settle();
}

#[test]
fn a_watcher_that_may_not_be_served_here_any_more_goes_upstream_and_is_told_nothing_more_from_here() {
    let mut world = World::new();
    world.create(b'a', 0, 0, 0);
    world.create(b'c', 0, 0, 0);
    world.settle();
    world.put(b'a');
    world.level_homes(b'a');
    // What the hub has for it is not told any more; upstream tells it, if it may be told.
    world.turn_permission(b'a');
    assert!(world.deliver(b'a'));
    assert_eq!(world.held[&0].by_events, 2, "nothing was told");
    world.link_up(0);
    assert!(world.send());
    world.hear();
    let refusal = "rpc error: code = PermissionDenied desc = etcdserver: permission denied".to_owned();
    world.merger.link_down();
    world.upstream = Some(Source::at(head(&world.log), 1));
    world.merger.link_up();
    let Some(RequestUnion::CreateRequest(create)) = world.merger.next_upstream().unwrap().request_union else {
        panic!("it is asked for again")
    };
    let refused = WatchResponse { created: true, canceled: true, cancel_reason: refusal.clone(), ..reply(-1, 3) };
    world.merger.replied(refused).unwrap();
    let told = std::iter::from_fn(|| world.merger.pop()).map(decoded).last().expect("an end");
    assert!(told.canceled && !told.created && told.watch_id == 0 && told.cancel_reason == refusal, "{told:?}");
    assert!(create.watch_id > 0 && !world.merger.is_unproven());
    assert_eq!(world.merger.watchers(), 1, "the other one stays");
}

#[test]
fn a_watcher_whose_stream_can_prove_nothing_any_more_is_not_ended_but_the_stream_is() {
    let mut world = World::new();
    world.create(b'a', 0, 0, 0);
    world.settle();
    world.turn_permission(b'a');
    world.link_up(0);
    world.merger.next_upstream().expect("it is asked for");
    let reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token".to_owned();
    let refused = WatchResponse { created: true, canceled: true, cancel_reason: reason, ..reply(-1, 1) };
    world.merger.replied(refused).unwrap();
    assert!(world.merger.is_unproven());
    assert!(!world.merger.has_reply(), "it is not told that a watcher has ended");
}
