//! Proxies that begin with what lies on disk, before an upstream that is there or not.

use super::{
    super::{
        age::MAX_AGE,
        kv::{AGE_MS, FROM, SERVED_BY},
        *,
    },
    copies::{Wire, b, compact, covered, jobs, kv, put, range, settings, until},
};
use crate::{
    pb::etcdserverpb as pb,
    server::tests::world,
    types::{Error, Revision},
    watch::{Delivery, Turn, WatchSpec},
};
use prost::Message;
use std::{future::poll_fn, path::Path, time::Duration};
use tokio::time::timeout;
use tonic::{Code, Response, Status, metadata::MetadataMap};
use watch::Locals;

const LONG: Duration = Duration::from_secs(20);

fn saving(dir: &Path) -> Settings {
    let mut settings = settings();
    settings.shelf = Some(Arc::new(Shelf::open(dir).unwrap()));
    (settings.wait_max, settings.rules.pauses.pause_max) = (Duration::from_millis(500), Duration::from_millis(50));
    settings.pulse = Duration::from_millis(100);
    settings
}

async fn ask(copies: &Copies, request: pb::RangeRequest) -> Option<Result<Response<pb::RangeResponse>, Status>> {
    copies.range(&MetadataMap::new(), request).await
}

fn serializable() -> pb::RangeRequest {
    pb::RangeRequest { serializable: true, ..range("jobs/", "jobs0") }
}

/// Waits until there is a file of `copies`, and ends them.
async fn ends_saved(copies: Copies, dir: &Path) {
    until("a file", || std::fs::read_dir(dir).unwrap().any(|file| is_copy(&file.unwrap().path())).then_some(())).await;
    drop(copies);
}

fn is_copy(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "copy")
}

#[tokio::test]
async fn without_upstream_what_was_known_last_is_served_and_says_so_and_when_it_is_back_nothing_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let world = world().await;
    let wire = Wire::to(&world).await;
    put(&world, "jobs/a", "1").await;
    let copies = Copies::start(wire.source(), saving(dir.path()));
    covered(&copies).await;
    ends_saved(copies, dir.path()).await;
    wire.cut();

    let copies = Copies::start(wire.source(), saving(dir.path()));
    let copy = covered(&copies).await;
    let answer = ask(&copies, serializable()).await.expect("answered here").expect("no error");
    assert_eq!(answer.get_ref().kvs[0].value, b("1"));
    let said = |name: &str| answer.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!((said(SERVED_BY).as_deref(), said(FROM).as_deref()), (Some("copy"), Some("disk")));
    let age: u64 = said(AGE_MS).unwrap().parse().unwrap();
    assert!(age < 60_000, "{age}");
    let refused = ask(&copies, range("jobs/a", "")).await.expect("answered here").unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    for (max_age, is_fresh_enough) in [("0s", false), ("1h", true)] {
        let mut metadata = MetadataMap::new();
        metadata.insert(MAX_AGE, max_age.parse().unwrap());
        let answer = copies.range(&metadata, range("jobs/a", "")).await.expect("answered here");
        assert_eq!(answer.is_ok(), is_fresh_enough, "{max_age}");
    }

    // Somebody watches from now, which is what the copy has; upstream goes on, and comes back.
    let local = copies.local(&Caller::default(), &jobs(), Revision(0)).expect("served here");
    let (control, mut deliveries) = local.hub.open();
    control.create(watch_all()).unwrap();
    let mut last = 0;
    for value in ["2", "3"] {
        last = put(&world, "jobs/a", value).await;
    }
    wire.lead_to(&world);
    assert!(copy.reach(Revision(last), LONG).await && !copy.is_over(), "it is the copy from disk that goes on");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let turn = timeout(LONG, poll_fn(|context| deliveries.poll(context))).await.expect("in time");
        match turn {
            Turn::Deliver(Delivery::Events { events, .. }) => {
                let reply = pb::WatchResponse::decode(&events.concat()[..]).unwrap();
                seen.extend(reply.events.into_iter().map(|event| event.kv.unwrap().value));
            }
            Turn::Deliver(_) => {}
            Turn::Read(job) => deliveries.caught(job.run()).unwrap(),
        }
    }
    assert_eq!(seen, [b("2"), b("3")]);
    until("proof", || (copies.age(&copy) < Duration::from_secs(5)).then_some(())).await;
    let answer = ask(&copies, serializable()).await.expect("answered here").expect("no error");
    assert_eq!((answer.metadata().get(FROM), &answer.get_ref().kvs[0].value), (None, &b("3")));
}

fn watch_all() -> WatchSpec {
    WatchSpec {
        id: None,
        range: jobs(),
        start: Revision(0),
        no_put: false,
        no_delete: false,
        prev_kv: false,
        fragment: false,
        progress_notify: false,
    }
}

#[tokio::test]
async fn with_upstream_there_a_saved_copy_goes_on_from_its_revision_or_is_loaded_again_if_that_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let world = world().await;
    let wire = Wire::to(&world).await;
    put(&world, "jobs/a", "1").await;
    for is_compacted in [false, true] {
        let copies = Copies::start(wire.source(), saving(dir.path()));
        let saved = covered(&copies).await.revision();
        ends_saved(copies, dir.path()).await;
        let written = put(&world, "jobs/a", "2").await;
        let written = written.max(put(&world, "jobs/b", "2").await);
        if is_compacted {
            compact(&world, written).await;
        }
        let copies = Copies::start(wire.source(), saving(dir.path()));
        let there = kv(&world).range(range("jobs/", "jobs0")).await.unwrap().into_inner();
        let here = loop {
            match ask(&copies, range("jobs/", "jobs0")).await {
                Some(here) => break here.expect("no error").into_inner(),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert_eq!(here, there);
        let copy = covered(&copies).await;
        assert_eq!(copy.has_history(saved.next()), !is_compacted, "what was not compacted need not be loaded");
        assert!(ask(&copies, serializable()).await.unwrap().unwrap().metadata().get(FROM).is_none());
    }
}

#[tokio::test]
async fn the_copy_of_a_later_revision_is_discarded_as_soon_as_upstream_is_there() {
    let (world, restored) = (world().await, world().await);
    for n in 0..9 {
        put(&world, "jobs/a", &n.to_string()).await;
    }
    put(&restored, "jobs/a", "of old").await;
    for is_there in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let wire = Wire::to(&world).await;
        let copies = Copies::start(wire.source(), saving(dir.path()));
        covered(&copies).await;
        ends_saved(copies, dir.path()).await;
        wire.cut();
        if is_there {
            wire.lead_to(&restored);
        }
        let copies = Copies::start(wire.source(), saving(dir.path()));
        if !is_there {
            assert!(covered(&copies).await.revision() > Revision(9));
            wire.lead_to(&restored);
        }
        until("the new one", || {
            let copy = copies.covering(&jobs())?;
            let found = copy.reader().range(&crate::mvcc::RangeQuery::new(jobs())).unwrap().ok()?;
            (found.kvs[0].value == b("of old")).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn once_upstream_asks_who_we_are_nothing_stays_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let world = world().await;
    let wire = Wire::to(&world).await;
    put(&world, "jobs/a", "1").await;
    let copies = Copies::start(wire.source(), saving(dir.path()));
    covered(&copies).await;
    until("a file", || std::fs::read_dir(dir.path()).unwrap().next().map(drop)).await;
    world.backend.set_refusal(Some(Error::UserEmpty));
    until("no file", || std::fs::read_dir(dir.path()).unwrap().next().is_none().then_some(())).await;
    assert!(ask(&copies, serializable()).await.is_none());
    drop(copies);
    wire.cut();
    let copies = Copies::start(wire.source(), saving(dir.path()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(ask(&copies, serializable()).await.is_none(), "a proxy that begins later has nothing to tell");
}
