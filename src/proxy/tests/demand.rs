//! Copies that come because they are asked for, and go when they are not.

use super::{
    super::*,
    copies::{Wire, b, delete, jobs, put, range, until},
};
use crate::{
    client::{ConnectOptions, WatchOptions},
    pb::etcdserverpb::{self as pb, kv_client::KvClient},
    server::{
        Identity,
        tests::{World, world},
    },
    types::{KeyRange, Revision},
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use watch::Locals;

const LONG: Duration = Duration::from_secs(20);

fn hungry() -> Hunger {
    let ms = Duration::from_millis;
    // Machines that run tests are busy: what is worth a copy is so for a while.
    let watch_points = 200.0;
    Hunger { tick: ms(10), half_life: ms(400), life_min: ms(100), bar_min: ms(300), watch_points, ..Hunger::default() }
}

fn settings(hunger: Hunger) -> Settings {
    Settings { hunger: Some(hunger), ..Settings::default() }
}

/// Reads until a copy answers; what was passed on before.
async fn until_answered(copies: &Copies, request: &pb::RangeRequest) -> usize {
    let read = async {
        let mut passed = 0;
        while copies.range(&MetadataMap::new(), request.clone()).await.is_none() {
            passed += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        passed
    };
    timeout(LONG, read).await.expect("a copy in time")
}

async fn until_gone(copies: &Copies, range: &KeyRange) {
    until("no copy", || copies.covering(range).is_none().then_some(())).await;
    until("its memory", || (copies.bytes() == 0).then_some(())).await;
}

#[tokio::test]
async fn keys_that_are_read_often_bring_a_copy_of_their_folder_and_it_goes_when_they_are_not() {
    let world = world().await;
    put(&world, "jobs/a", "1").await;
    let copies = Copies::start(Wire::to(&world).await.source(), settings(hungry()));
    assert!(until_answered(&copies, &range("jobs/a", "")).await > 10);
    assert!(copies.covering(&jobs()).is_some());
    // As long as it is in use it stays.
    let until = tokio::time::Instant::now() + Duration::from_secs(1);
    while tokio::time::Instant::now() < until {
        assert!(copies.range(&MetadataMap::new(), range("jobs/b", "")).await.is_some());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    until_gone(&copies, &jobs()).await;
    assert!(copies.range(&MetadataMap::new(), range("jobs/a", "")).await.is_none());
}

#[tokio::test]
async fn one_watched_range_is_enough_and_nothing_is_copied_that_nobody_asked_for_often() {
    let world = world().await;
    let copies = Copies::start(Wire::to(&world).await.source(), settings(hungry()));
    for _ in 0..3 {
        assert!(copies.range(&MetadataMap::new(), range("other/", "other0")).await.is_none());
    }
    assert!(copies.local(&Caller::default(), &jobs(), Revision(0)).is_none());
    until("a copy", || copies.covering(&jobs())).await;
    assert!(copies.local(&Caller::default(), &jobs(), Revision(0)).is_some());
    assert!(copies.covering(&KeyRange::One(b("other/a"))).is_none());
    // Who has a token is nobody to copy for.
    let token = Caller::of(Identity { token: Some("t".into()), ..Identity::default() });
    assert!(copies.local(&token, &KeyRange::prefix(b("secret/")), Revision(0)).is_none());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(copies.covering(&KeyRange::prefix(b("secret/"))).is_none());
}

#[tokio::test]
async fn ranges_that_overlap_share_one_copy() {
    let world = world().await;
    put(&world, "jobs/a/1", "1").await;
    put(&world, "jobs/b/1", "1").await;
    let copies = Copies::start(Wire::to(&world).await.source(), settings(hungry()));
    let watch = |range: &KeyRange| copies.local(&Caller::default(), range, Revision(0));
    let [one, whole] = [KeyRange::prefix(b("jobs/a/")), jobs()];
    watch(&one);
    let narrow = until("the narrow one", || copies.covering(&one)).await;
    watch(&whole);
    until("the wide one", || copies.covering(&whole)).await;
    narrow.over().await;
    assert!(Arc::ptr_eq(&copies.covering(&one).unwrap(), &copies.covering(&whole).unwrap()));
}

#[tokio::test]
async fn a_range_that_does_not_fit_is_tried_once_and_its_keys_may_be_copied_alone() {
    let world = world().await;
    put(&world, "jobs/large", &"x".repeat(100_000)).await;
    put(&world, "jobs/small", "1").await;
    let hunger = Hunger { bar_min: Duration::from_secs(3_600), ..hungry() };
    let copies = Copies::start(Wire::to(&world).await.source(), Settings { bytes_max: 50_000, ..settings(hunger) });
    until_answered(&copies, &range("jobs/small", "")).await;
    assert!(copies.covering(&jobs()).is_none());
    // One fence for each load: that of the folder, and that of the key; and one for the answer.
    assert!(copies.fence().calls() <= 4, "{}", copies.fence().calls());
    for _ in 0..100 {
        assert!(copies.range(&MetadataMap::new(), range("jobs/", "jobs0")).await.is_none());
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(copies.covering(&jobs()).is_none() && copies.bytes() <= 50_000);
}

#[tokio::test]
async fn what_is_much_hotter_takes_the_memory_of_what_is_colder_and_a_named_range_takes_it_of_all() {
    let world = world().await;
    for key in ["cold/a", "hot/a"] {
        put(&world, key, &"x".repeat(30_000)).await;
    }
    let hunger = Hunger { half_life: Duration::from_secs(60), bar_min: Duration::from_secs(3_600), ..hungry() };
    let settings = Settings { bytes_max: 50_000, ranges: vec![jobs()], ..settings(hunger) };
    let copies = Copies::start(Wire::to(&world).await.source(), settings);
    until("the named one", || copies.covering(&jobs())).await;
    let [cold, hot] = ["cold/", "hot/"].map(|prefix| KeyRange::prefix(b(prefix)));
    copies.local(&Caller::default(), &cold, Revision(0));
    until("the cold one", || copies.covering(&cold)).await;
    for _ in 0..10 {
        copies.local(&Caller::default(), &hot, Revision(0));
    }
    until("the hot one", || copies.covering(&hot)).await;
    assert!(copies.covering(&cold).is_none());
    put(&world, "jobs/a", &"x".repeat(30_000)).await;
    until("its end", || copies.covering(&hot).is_none().then_some(())).await;
    assert!(copies.covering(&jobs()).is_some());
    assert!(copies.bytes() <= 50_000);
}

/// A proxy whose copies come and go all the time.
async fn restless(world: &World) -> (Ring, server::Serving, String) {
    let listener = Listener::bind("http://127.0.0.1:0").await.unwrap();
    let own = listener.url();
    let upstream = Upstream::new(std::slice::from_ref(&world.url), ConnectOptions::default()).unwrap();
    let home_every = Duration::from_millis(20);
    let watch = WatchSettings { home_every, ..WatchSettings::default() };
    // No copy lives longer than it takes to be hardly used: and one watcher is hardly any use.
    let hunger = Hunger { watch_points: 25.0, end_below: 19.0, half_life: Duration::from_millis(100), ..hungry() };
    let named =
        Own { name: "proxy".to_owned(), urls: vec![own.clone()], is_listed: false, resolver: None, standby: None };
    let ring = Ring::with(upstream, named, settings(hunger), watch).unwrap();
    let serving = ring.serve(vec![listener], &ConnectionSettings::default());
    (ring, serving, own)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_go_on_exactly_while_copies_come_and_go() {
    let world = world().await;
    let (ring, _serving, url) = restless(&world).await;
    let copies = ring.shared.copies.clone();
    let client = crate::client::Client::connect([&url], ConnectOptions::default()).await.unwrap();
    let mut watchers = Vec::new();
    for _ in 0..3 {
        let mut watcher = client.watch("jobs/", WatchOptions::prefix("jobs/"));
        assert!(timeout(LONG, watcher.next()).await.unwrap().unwrap().unwrap().created);
        watchers.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.last().is_none_or(|(_, key)| key != "jobs/end") {
                let answer = watcher.next().await.expect("an answer").expect("no error");
                seen.extend(answer.events.iter().map(|event| {
                    let kv = event.kv.as_ref().expect("a pair");
                    (kv.mod_revision, String::from_utf8(kv.key.to_vec()).unwrap())
                }));
            }
            seen
        }));
    }
    let reader = tokio::spawn({
        let url = url.clone();
        async move {
            let channel = tonic::transport::Channel::from_shared(url).unwrap().connect().await.unwrap();
            let mut kv = KvClient::new(channel);
            let (mut seen, mut here, mut there) = (0, 0, 0);
            loop {
                let request = pb::RangeRequest { serializable: true, ..range("jobs/", "jobs0") };
                let answer = kv.range(request).await.unwrap();
                match answer.metadata().contains_key("henge-served-by") {
                    true => here += 1,
                    false => there += 1,
                }
                let revision = answer.get_ref().header.unwrap().revision;
                assert!(revision >= seen, "{revision} after {seen}");
                seen = revision;
                if answer.get_ref().kvs.iter().any(|kv| kv.key == "jobs/end") {
                    return (here, there);
                }
            }
        }
    });
    let mut expected = Vec::new();
    let (mut had_copy, mut turns) = (false, 0);
    let began = tokio::time::Instant::now();
    while turns < 6 {
        assert!(began.elapsed() < Duration::from_secs(60), "only {turns} turns");
        for key in ["jobs/a", "elsewhere", "jobs/b"] {
            let revision = put(&world, key, &turns.to_string()).await;
            if key.starts_with("jobs/") {
                expected.push((revision, key));
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        let has_copy = copies.covering(&jobs()).is_some();
        turns += usize::from(has_copy != had_copy);
        had_copy = has_copy;
        if has_copy && turns % 2 == 1 {
            // One is enough of a reason to keep it: have it go by hand.
            let places = copies.shared.ground.places();
            places.iter().for_each(|place| place.leave(budget::Leave::Cold));
        }
    }
    delete(&world, "jobs/a").await;
    let end = put(&world, "jobs/end", "1").await;
    expected.extend([(end - 1, "jobs/a"), (end, "jobs/end")]);
    let expected: Vec<_> = expected.into_iter().map(|(revision, key)| (revision, key.to_owned())).collect();
    for watcher in watchers {
        assert_eq!(timeout(LONG, watcher).await.expect("in time").unwrap(), expected);
    }
    let (here, there) = timeout(LONG, reader).await.expect("in time").unwrap();
    assert!(here > 0 && there > 0, "{here} {there}");
}
