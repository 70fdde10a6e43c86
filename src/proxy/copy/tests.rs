use super::*;
use crate::{
    mvcc::{EventKind, RangeQuery},
    types::{ClusterId, Error, LeaseId, MemberId, Term},
    watch::{Delivery, Turn, WatchSpec},
};
use std::task::{Context, Poll, Waker};

const KEEP: Keep = Keep { revisions: 8, bytes: 1 << 20 };

fn proof(revision: i64) -> Proof {
    let (cluster_id, member_id) = (ClusterId(7), MemberId(8));
    let header = Header { cluster_id, member_id, revision: Revision(revision), term: Term(2) };
    Proof { header, sent_at: Duration::from_secs(1) }
}

fn range() -> KeyRange {
    KeyRange::prefix(Bytes::from_static(b"k"))
}

fn kv(key: &str, version: i64, created: i64, at: i64) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from(format!("{key}@{at}")),
        create_revision: Revision(created),
        mod_revision: Revision(at),
        version,
        lease: LeaseId::NONE,
    }
}

fn put(key: &str, version: i64, created: i64, at: i64) -> (Revision, Vec<Event>) {
    (Revision(at), vec![Event { kind: EventKind::Put, kv: kv(key, version, created, at), prev: None }])
}

/// A copy of one key, loaded at revision 10.
fn loaded() -> Writer {
    let mut loading = Loading::new(range(), proof(10));
    loading.page(&[kv("k1", 3, 2, 9)]).unwrap().unwrap();
    loading.finish(KEEP, hub::Options::default()).unwrap()
}

fn at(revision: i64) -> RangeQuery {
    RangeQuery { revision: Revision(revision), ..RangeQuery::new(range()) }
}

#[test]
fn pages_go_on_behind_the_last_key() {
    let mut loading = Loading::new(range(), proof(10));
    assert_eq!(loading.rest(), range());
    loading.page(&[kv("k1", 1, 5, 5), kv("k2", 1, 6, 6)]).unwrap().unwrap();
    let end = Bytes::from_static(b"l");
    assert_eq!(loading.rest(), KeyRange::Span { start: Bytes::from_static(b"k2\0"), end });
    let alien = loading.page(&[kv("m", 1, 6, 6)]).unwrap().unwrap_err();
    assert_eq!(alien.what, "has a key that nobody asked for");
}

#[test]
fn nothing_before_the_load_can_be_read_and_everything_after_can() {
    let mut writer = loaded();
    writer.events(vec![put("k1", 4, 2, 12), put("k2", 1, 15, 15)]).unwrap().unwrap();
    let copy = Arc::clone(writer.copy());
    let seen = |revision| copy.reader().range(&at(revision)).unwrap().map(|found| found.kvs);
    assert_eq!(seen(9), Err(Error::Compacted));
    assert_eq!(seen(11), Ok(vec![kv("k1", 3, 2, 9)]));
    assert_eq!(seen(14), Ok(vec![kv("k1", 4, 2, 12)]));
    assert_eq!(seen(15), Ok(vec![kv("k1", 4, 2, 12), kv("k2", 1, 15, 15)]));
    assert_eq!((copy.revision(), copy.header().revision), (Revision(15), Revision(15)));
    // Deletes at the revision of the load left nothing to load.
    let starts = [0, 9, 10, 11, 99].map(|start| copy.has_history(Revision(start)));
    assert_eq!(starts, [true, false, false, true, true]);
}

#[test]
fn progress_moves_the_level_and_never_back() {
    let mut writer = loaded();
    let copy = Arc::clone(writer.copy());
    writer.progress(Revision(20));
    writer.progress(Revision(13));
    assert_eq!((copy.revision(), copy.reader().current()), (Revision(20), Revision(20)));
    let late = writer.events(vec![put("k1", 4, 2, 20)]).unwrap().unwrap_err();
    assert_eq!(late.what, "was there already");
}

#[test]
fn history_is_forgotten_in_steps_and_readers_see_what_is_kept() {
    let mut writer = loaded();
    let copy = Arc::clone(writer.copy());
    for n in 1..=40 {
        writer.events(vec![put("k1", 3 + n, 2, 10 + 3 * n)]).unwrap().unwrap();
        while writer.tidy().unwrap() {}
        let (oldest, now) = (copy.reader().compacted().0, 10 + 3 * n);
        assert!(now - oldest <= 3 * 10, "not more than a quarter too much: {oldest}..{now}");
        if n > 10 {
            assert!(now - oldest >= 3 * 8, "not too little: {oldest}..{now}");
        }
        for revision in [oldest, oldest + 1, now] {
            let found = copy.reader().range(&at(revision)).unwrap().unwrap();
            let written = if revision >= 13 { 10 + (revision - 10) / 3 * 3 } else { 9 };
            assert_eq!(found.kvs[0].mod_revision, Revision(written));
        }
        // At the mark itself a watcher would not be told what was replaced.
        assert!(!copy.has_history(Revision(oldest)) && copy.has_history(Revision(oldest + 1)));
    }
    assert!(writer.bytes() < 12 * 200 + 1_000, "{}", writer.bytes());
}

fn deliveries(deliveries: &mut crate::watch::Deliveries) -> Vec<Delivery> {
    let mut found = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(turn) = deliveries.poll(&mut context) {
        match turn {
            Turn::Deliver(delivery) => found.push(delivery),
            Turn::Read(job) => deliveries.caught(job.run()).unwrap(),
        }
    }
    found
}

#[test]
fn watchers_are_level_over_revisions_of_other_keys_and_may_begin_in_kept_history() {
    let mut writer = loaded();
    let copy = Arc::clone(writer.copy());
    let (control, mut stream) = copy.hub().open();
    let spec = |start| WatchSpec {
        id: None,
        range: range(),
        start: Revision(start),
        no_put: false,
        no_delete: false,
        prev_kv: true,
        fragment: false,
        progress_notify: false,
    };
    control.create(spec(0)).unwrap();
    writer.events(vec![put("k1", 4, 2, 17)]).unwrap().unwrap();
    writer.progress(Revision(30));
    writer.events(vec![put("k1", 5, 2, 40), put("k2", 1, 44, 44)]).unwrap().unwrap();
    assert_eq!(copy.hub().counts().behind, 0);
    control.create(spec(18)).unwrap();
    let of = |wanted| move |delivery: &Delivery| matches!(delivery, Delivery::Events { id, .. } if *id == wanted);
    let all = deliveries(&mut stream);
    let events = |wanted| {
        all.iter()
            .filter(|delivery| of(wanted)(delivery))
            .map(|delivery| match delivery {
                Delivery::Events { events, .. } => events.len(),
                _ => 0,
            })
            .sum::<usize>()
    };
    assert_eq!((events(0), events(1)), (3, 2));
}

#[tokio::test]
async fn who_waits_is_told_of_the_level_or_of_the_end() {
    let mut writer = loaded();
    let copy = Arc::clone(writer.copy());
    let long = Duration::from_secs(60);
    assert!(copy.reach(Revision(10), long).await);
    assert!(!copy.reach(Revision(11), Duration::from_millis(1)).await);
    assert_eq!(*copy.wanted().borrow(), Revision(11));
    let waiting = tokio::spawn({
        let copy = Arc::clone(&copy);
        async move { (copy.reach(Revision(11), long).await, copy.reach(Revision(99), long).await) }
    });
    tokio::task::yield_now().await;
    writer.progress(Revision(12));
    tokio::task::yield_now().await;
    assert!(!copy.is_over());
    drop(writer);
    assert_eq!(waiting.await.unwrap(), (true, false));
    copy.over().await;
}

#[test]
fn another_cluster_or_an_earlier_revision_is_no_continuation() {
    let mut writer = loaded();
    let copy = Arc::clone(writer.copy());
    assert!(copy.agrees(Revision(10), &proof(10)) && copy.agrees(Revision(10), &proof(11)));
    assert!(!copy.agrees(Revision(10), &proof(9)));
    let mut other = proof(11);
    other.header.cluster_id = ClusterId(99);
    assert!(!copy.agrees(Revision(10), &other) && !writer.heard(&other.header));
    let newer = Header { term: Term(5), member_id: MemberId(3), ..proof(11).header };
    assert!(writer.heard(&newer));
    assert_eq!((copy.header().term, copy.header().member_id), (Term(5), MemberId(3)));
    assert_eq!(copy.header().revision, Revision(10), "it is what is here, not what upstream has");
}
