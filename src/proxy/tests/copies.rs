//! Copies of an upstream that is served over loopback, by way of a wire that can be cut.

mod random;
mod stock;

use super::super::{
    age::{MAX_AGE, MIN_REVISION},
    *,
};
use crate::{
    client::{ConnectOptions, Endpoints},
    pb::etcdserverpb::{self as pb, kv_client::KvClient},
    server::tests::{World, world},
    types::{Error, KeyRange, Revision},
    watch::WatchSpec,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tonic::{Code, metadata::MetadataMap, transport::Channel};

/// A way to an upstream that can be cut, or lead elsewhere.
pub(super) struct Wire {
    pub(super) address: String,
    state: Arc<Mutex<WireState>>,
}

pub(super) struct WireState {
    target: Option<String>,
    links: JoinSet<()>,
}

impl Wire {
    pub(super) async fn to(world: &World) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(WireState { target: None, links: JoinSet::new() }));
        let wire = Wire { address, state: Arc::clone(&state) };
        wire.lead_to(world);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut state = state.lock();
                let Some(target) = state.target.clone() else { continue };
                state.links.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        wire
    }

    /// Ends all connections, and refuses others from now on.
    pub(super) fn cut(&self) {
        let mut state = self.state.lock();
        state.target = None;
        state.links.abort_all();
    }

    pub(super) fn lead_to(&self, world: &World) {
        self.state.lock().target = Some(world.url.strip_prefix("http://").unwrap().to_owned());
    }

    pub(super) fn source(&self) -> Arc<dyn Source> {
        Arc::new(Endpoints::new([&self.address], &ConnectOptions::default()).unwrap())
    }
}

pub(super) fn kv(world: &World) -> KvClient<Channel> {
    KvClient::new(world.channel.clone())
}

pub(super) fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(super) async fn put(world: &World, key: &str, value: &str) -> i64 {
    let request = pb::PutRequest { key: b(key), value: b(value), ..Default::default() };
    kv(world).put(request).await.unwrap().into_inner().header.unwrap().revision
}

pub(super) async fn delete(world: &World, key: &str) {
    kv(world).delete_range(pb::DeleteRangeRequest { key: b(key), ..Default::default() }).await.unwrap();
}

pub(super) async fn compact(world: &World, revision: i64) {
    kv(world).compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
}

pub(super) fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: b(key), range_end: b(end), ..Default::default() }
}

pub(super) fn jobs() -> KeyRange {
    KeyRange::prefix(b("jobs/"))
}

pub(super) fn settings() -> Settings {
    Settings { ranges: vec![jobs()], pulse: Duration::from_secs(3_600), ..Settings::default() }
}

pub(super) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..4_000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("in vain: {what}");
}

pub(super) async fn covered(copies: &Copies) -> Arc<Copy> {
    until("a copy", || copies.covering(&jobs())).await
}

/// The keys and values that the copies answer with.
async fn local(copies: &Copies, request: pb::RangeRequest) -> Vec<(Bytes, Bytes)> {
    let reply = copies.range(&MetadataMap::new(), request).await.expect("answered here").expect("no error");
    reply.into_inner().kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
}

#[tokio::test]
async fn a_range_is_answered_as_upstream_would_to_the_byte() {
    let world = world().await;
    for (key, value) in [("jobs/b", "2"), ("other", "x"), ("jobs/a", "9"), ("jobs/c", "1"), ("jobs/a", "3")] {
        put(&world, key, value).await;
    }
    delete(&world, "jobs/c").await;
    let copies = Copies::start(Wire::to(&world).await.source(), settings());
    let copy = covered(&copies).await;
    let loaded = copy.revision().0;
    put(&world, "jobs/c", "1").await;
    put(&world, "other", "y").await;
    let mut requests = Vec::new();
    for (key, end) in [("jobs/", "jobs0"), ("jobs/a", ""), ("jobs/b", "jobs/c\0"), ("jobs/zzz", "")] {
        for sort_target in 0..5 {
            for sort_order in 0..3 {
                let sorted = pb::RangeRequest { sort_target, sort_order, ..range(key, end) };
                requests.extend([
                    sorted.clone(),
                    pb::RangeRequest { limit: 1, ..sorted.clone() },
                    pb::RangeRequest { keys_only: true, serializable: true, ..sorted.clone() },
                    pb::RangeRequest { count_only: true, ..sorted.clone() },
                    pb::RangeRequest { min_mod_revision: 5, max_create_revision: loaded, ..sorted },
                ]);
            }
        }
    }
    for request in requests {
        // A linearizable one first, so that the others are level too.
        let here = copies.range(&MetadataMap::new(), request.clone()).await.expect("answered here").expect("no error");
        let there = kv(&world).range(request.clone()).await.unwrap().into_inner();
        assert_eq!(here.metadata().get(kv::SERVED_BY).unwrap(), "copy");
        assert_eq!(here.metadata().get(kv::REVISION).unwrap(), &there.header.unwrap().revision.to_string()[..]);
        assert!(here.metadata().get(kv::AGE_MS).is_some());
        assert_eq!(here.into_inner(), there, "{request:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_answered_exactly_is_passed_on() {
    let world = world().await;
    put(&world, "jobs/a", "1").await;
    let first = put(&world, "jobs/a", "2").await;
    let copies = Copies::start(Wire::to(&world).await.source(), settings());
    covered(&copies).await;
    // Whether there is a leader, only upstream knows.
    let mut leader = MetadataMap::new();
    leader.insert("hasleader", "true".parse().unwrap());
    let serializable = pb::RangeRequest { serializable: true, ..range("jobs/a", "") };
    assert!(copies.range(&leader, serializable).await.is_none());
    assert!(copies.range(&leader, range("jobs/a", "")).await.is_some());
    world.backend.set_leader(None);
    assert!(copies.range(&leader, range("jobs/a", "")).await.is_none());
    world.backend.set_leader(Some(crate::server::tests::ME));
    let at = |revision| pb::RangeRequest { revision, ..range("jobs/a", "") };
    let wrong_sort = pb::RangeRequest { sort_order: 9, ..range("jobs/a", "") };
    for request in [at(first - 1), at(first + 9), range("", ""), range("jobs/", "k"), range("a", ""), wrong_sort] {
        assert!(copies.range(&MetadataMap::new(), request.clone()).await.is_none(), "{request:?}");
    }
    let mut token = MetadataMap::new();
    token.insert("token", "t".parse().unwrap());
    assert!(copies.range(&token, range("jobs/a", "")).await.is_none());
}

#[tokio::test]
async fn the_past_is_answered_here_as_long_as_upstream_still_has_it() {
    let world = world().await;
    let wire = Wire::to(&world).await;
    let mut settings = settings();
    settings.wait_max = Duration::from_millis(300);
    let copies = Copies::start(wire.source(), settings);
    covered(&copies).await;
    let revisions =
        [put(&world, "jobs/a", "1").await, put(&world, "other", "x").await, put(&world, "jobs/a", "2").await];
    for serializable in [false, true] {
        for revision in revisions {
            let request = pb::RangeRequest { revision, serializable, ..range("jobs/", "jobs0") };
            let here =
                copies.range(&MetadataMap::new(), request.clone()).await.expect("answered here").expect("no error");
            assert_eq!(here.into_inner(), kv(&world).range(request).await.unwrap().into_inner());
        }
    }
    compact(&world, revisions[2]).await;
    let at = |revision, serializable| pb::RangeRequest { revision, serializable, ..range("jobs/a", "") };
    for serializable in [false, true] {
        let old = copies.range(&MetadataMap::new(), at(revisions[0], serializable)).await;
        assert!(old.is_none(), "upstream has forgotten it, whatever is here");
        assert_eq!(local(&copies, at(revisions[2], serializable)).await, [(b("jobs/a"), b("2"))]);
    }
    // Those who ask at the same time for what is there, and for now, are not disturbed.
    let asked = [at(revisions[0], false), at(0, false), range("jobs/a", "")];
    let none = MetadataMap::new();
    let (old, now, also_now) = tokio::join!(
        copies.range(&none, asked[0].clone()),
        copies.range(&none, asked[1].clone()),
        copies.range(&none, asked[2].clone())
    );
    assert!(old.is_none() && now.is_some_and(|now| now.is_ok()) && also_now.is_some_and(|now| now.is_ok()));
    wire.cut();
    assert_eq!(
        local(&copies, at(revisions[2], true)).await,
        [(b("jobs/a"), b("2"))],
        "a member without the others would too"
    );
    let refused = copies.range(&MetadataMap::new(), at(revisions[2], false)).await.expect("answered here");
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_linearizable_read_sees_every_write_before_it() {
    let world = world().await;
    let copies = Copies::start(Wire::to(&world).await.source(), settings());
    covered(&copies).await;
    for n in 0..100 {
        let key = if n % 3 == 0 { "elsewhere" } else { "jobs/a" };
        let written = put(&world, key, &n.to_string()).await;
        let reply = copies.range(&MetadataMap::new(), range("jobs/a", "")).await.expect("here").expect("no error");
        assert!(
            reply.get_ref().header.unwrap().revision >= written,
            "also after writes of which the copy hears nothing"
        );
        if n % 3 != 0 {
            assert_eq!(reply.get_ref().kvs[0].value, b(&n.to_string()));
        }
    }
}

#[tokio::test]
async fn a_thousand_linearizable_reads_at_once_cost_upstream_a_few() {
    let world = world().await;
    put(&world, "jobs/a", "1").await;
    let copies = Copies::start(Wire::to(&world).await.source(), settings());
    covered(&copies).await;
    let before = copies.fence().calls();
    let mut reads = JoinSet::new();
    for _ in 0..1_000 {
        let copies = copies.clone();
        reads.spawn(async move { local(&copies, range("jobs/a", "")).await });
    }
    while let Some(read) = reads.join_next().await {
        assert_eq!(read.unwrap(), [(b("jobs/a"), b("1"))]);
    }
    let cost = copies.fence().calls() - before;
    assert!(cost <= 20, "{cost}");
}

#[tokio::test]
async fn a_serializable_read_asks_nobody_and_goes_on_while_upstream_is_away() {
    let world = world().await;
    put(&world, "jobs/a", "1").await;
    let wire = Wire::to(&world).await;
    let mut settings = settings();
    settings.wait_max = Duration::from_millis(300);
    let copies = Copies::start(wire.source(), settings);
    covered(&copies).await;
    wire.cut();
    let serializable = pb::RangeRequest { serializable: true, ..range("jobs/", "jobs0") };
    assert_eq!(local(&copies, serializable).await, [(b("jobs/a"), b("1"))]);
    let linearizable = copies.range(&MetadataMap::new(), range("jobs/a", "")).await.expect("answered here");
    assert_eq!(linearizable.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn the_caller_says_how_old_an_answer_may_be() {
    let world = world().await;
    let written = put(&world, "jobs/a", "1").await;
    let copies = Copies::start(Wire::to(&world).await.source(), settings());
    let copy = covered(&copies).await;
    let ask = async |name: &'static str, value: &str| {
        let mut metadata = MetadataMap::new();
        metadata.insert(name, value.parse().unwrap());
        let before = copies.fence().calls();
        let reply = copies.range(&metadata, range("jobs/a", "")).await.expect("answered here");
        (reply, copies.fence().calls() - before)
    };
    assert_eq!(ask(MAX_AGE, "1h").await.1, 0);
    let rev = format!("rev={written}");
    assert_eq!(ask(MAX_AGE, &rev).await.1, 0);
    assert_eq!(ask(MAX_AGE, "0s").await.1, 1);
    let (reply, calls) = ask(MIN_REVISION, &written.to_string()).await;
    assert_eq!((reply.is_ok(), calls), (true, 1), "by itself it does not make a read stale");
    // The copy hears nothing of this one.
    let later = put(&world, "other", "1").await;
    assert!(copy.revision().0 < later);
    let (reply, calls) = ask(MAX_AGE, &format!("rev={later}")).await;
    assert_eq!((reply.unwrap().get_ref().header.unwrap().revision, calls), (later, 1));
    let (reply, _) = ask(MIN_REVISION, &(later + 1).to_string()).await;
    assert_eq!(reply.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(ask(MAX_AGE, "soon").await.0.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_lost_upstream_costs_no_event_and_repeats_none() {
    let world = world().await;
    put(&world, "jobs/a", "0").await;
    let wire = Wire::to(&world).await;
    let copies = Copies::start(wire.source(), settings());
    let copy = covered(&copies).await;
    for round in 0..5 {
        put(&world, "jobs/a", &format!("{round}-before")).await;
        wire.cut();
        put(&world, "jobs/b", &format!("{round}-meanwhile")).await;
        delete(&world, "jobs/b").await;
        let last = put(&world, "jobs/a", &format!("{round}-after")).await;
        wire.lead_to(&world);
        until("the level", || (copy.revision().0 >= last).then_some(())).await;
    }
    assert!(!copy.is_over(), "the same copy all along: it refuses what does not follow");
    let from = copy.reader().compacted().next();
    let history = copy.reader().history(from, Revision(i64::MAX), &|_| true, false, usize::MAX).unwrap().unwrap();
    assert_eq!(history.events.len(), 20);
}

#[tokio::test]
async fn a_compaction_while_away_makes_a_new_copy_and_ends_the_old_one() {
    let world = world().await;
    put(&world, "jobs/a", "0").await;
    let wire = Wire::to(&world).await;
    let copies = Copies::start(wire.source(), settings());
    let old = covered(&copies).await;
    let (control, _stream) = old.hub().open();
    let spec = WatchSpec {
        id: None,
        range: jobs(),
        start: Revision(0),
        no_put: false,
        no_delete: false,
        prev_kv: false,
        fragment: false,
        progress_notify: false,
    };
    control.create(spec).unwrap();
    wire.cut();
    put(&world, "jobs/a", "1").await;
    let last = put(&world, "jobs/a", "2").await;
    compact(&world, last).await;
    wire.lead_to(&world);
    old.over().await;
    let new = covered(&copies).await;
    assert!(!Arc::ptr_eq(&old, &new) && new.revision().0 >= last && old.revision() < new.revision());
    assert!(!new.has_history(old.revision().next()), "who watched the old one has to ask upstream");
    assert_eq!(local(&copies, range("jobs/a", "")).await, [(b("jobs/a"), b("2"))]);
}

#[tokio::test]
async fn an_upstream_that_was_restored_ends_the_copy_at_the_next_fence() {
    let (world, restored) = (world().await, world().await);
    for n in 0..9 {
        put(&world, "jobs/a", &n.to_string()).await;
    }
    put(&restored, "jobs/a", "of old").await;
    let wire = Wire::to(&world).await;
    let copies = Copies::start(wire.source(), settings());
    let old = covered(&copies).await;
    wire.cut();
    wire.lead_to(&restored);
    old.over().await;
    let new = covered(&copies).await;
    assert!(new.revision() < old.revision());
    assert_eq!(local(&copies, range("jobs/a", "")).await, [(b("jobs/a"), b("of old"))]);
}

#[tokio::test]
async fn a_member_that_lags_is_waited_for_and_the_revision_never_goes_back() {
    let (ahead, behind) = (world().await, world().await);
    for world in [&ahead, &behind] {
        put(world, "jobs/a", "1").await;
    }
    let last = put(&ahead, "jobs/a", "2").await;
    let wire = Wire::to(&ahead).await;
    // Linearizable reads are those of the whole cluster, whatever the member behind the wire knows.
    let fence = fence::Fence::new(Wire::to(&ahead).await.source(), Duration::from_secs(5));
    let ground = copies::Ground::new(fence, 1 << 20, vec![jobs()], None, None);
    let place = ground.places().remove(0);
    let feed = feed::Feed::new(&place, &ground, &wire.source(), &feed::Rules::default());
    let feeding = tokio::spawn(feed.run());
    let copy: Arc<Copy> = until("a copy", || place.copy()).await;
    assert_eq!(copy.revision().0, last);
    wire.cut();
    wire.lead_to(&behind);
    assert!(!copy.reach(Revision(last + 1), Duration::from_millis(300)).await);
    assert_eq!(copy.revision().0, last);
    put(&behind, "jobs/a", "2").await;
    assert_eq!(put(&behind, "jobs/a", "3").await, last + 1);
    assert!(copy.reach(Revision(last + 1), Duration::from_secs(20)).await);
    assert!(!copy.is_over());
    feeding.abort();
}

#[tokio::test]
async fn a_range_that_does_not_fit_is_passed_through() {
    let world = world().await;
    put(&world, "jobs/a", &"x".repeat(4_000)).await;
    put(&world, "tasks/a", "small").await;
    let mut settings = settings();
    (settings.bytes_max, settings.ranges) = (2_000, vec![jobs(), KeyRange::prefix(b("tasks/"))]);
    let copies = Copies::start(Wire::to(&world).await.source(), settings);
    until("the small one", || copies.covering(&KeyRange::One(b("tasks/a")))).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(copies.range(&MetadataMap::new(), range("jobs/a", "")).await.is_none());
    assert!(copies.bytes() <= 2_000);
    // One that grows too much goes too.
    put(&world, "tasks/b", &"x".repeat(4_000)).await;
    until("its end", || copies.covering(&KeyRange::One(b("tasks/a"))).is_none().then_some(())).await;
    assert_eq!(copies.bytes(), 0);
}

#[tokio::test]
async fn large_ranges_come_in_parts_and_whole() {
    let world = world().await;
    for n in 0..300 {
        // Of different sizes, so that pages are too.
        put(&world, &format!("jobs/{n:04}"), &"v".repeat(n * 50)).await;
    }
    for streams in [true, false] {
        let mut settings = settings();
        settings.rules.streams = streams;
        let copies = Copies::start(Wire::to(&world).await.source(), settings);
        covered(&copies).await;
        let request = range("jobs/", "jobs0");
        let here = copies.range(&MetadataMap::new(), request.clone()).await.expect("answered here").expect("no error");
        assert_eq!(here.into_inner(), kv(&world).range(request).await.unwrap().into_inner(), "streams: {streams}");
    }
}

#[tokio::test]
async fn an_upstream_that_asks_who_we_are_is_left_to_answer_by_itself() {
    let world = world().await;
    put(&world, "jobs/a", "1").await;
    let mut settings = settings();
    settings.pulse = Duration::from_millis(50);
    let copies = Copies::start(Wire::to(&world).await.source(), settings);
    let copy = covered(&copies).await;
    world.backend.set_refusal(Some(Error::UserEmpty));
    // Nobody has asked for a linearizable read: it is found out all the same.
    copy.over().await;
    let serializable = pb::RangeRequest { serializable: true, ..range("jobs/a", "") };
    assert!(copies.range(&MetadataMap::new(), serializable.clone()).await.is_none());
    world.backend.set_refusal(None);
    covered(&copies).await;
    assert_eq!(local(&copies, serializable).await, [(b("jobs/a"), b("1"))]);
}

#[tokio::test]
async fn a_refusal_of_upstream_is_the_answer_to_a_linearizable_read() {
    let world = world().await;
    put(&world, "jobs/a", "1").await;
    let copies = Copies::start(Wire::to(&world).await.source(), settings());
    let copy = covered(&copies).await;
    for refusal in [Error::NoLeader, Error::RequestTooManyRequests, Error::Corrupt] {
        world.backend.set_refusal(Some(refusal.clone()));
        let answer = copies.range(&MetadataMap::new(), range("jobs/a", "")).await.expect("answered here");
        assert_eq!(answer.unwrap_err().message(), refusal.text());
    }
    assert!(!copy.is_over());
}

#[tokio::test]
async fn who_begins_to_watch_now_is_level_with_what_was_written() {
    let world = world().await;
    let copies = Copies::start(Wire::to(&world).await.source(), settings());
    let copy = covered(&copies).await;
    for key in ["jobs/a", "other"] {
        let written = put(&world, key, "1").await;
        assert!(copies.be_level(&copy).await);
        assert!(copy.revision().0 >= written);
    }
    world.backend.set_refusal(Some(Error::NoLeader));
    assert!(!copies.be_level(&copy).await);
}
