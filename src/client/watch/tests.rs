use super::*;
use crate::pb::{
    etcdserverpb::ResponseHeader,
    mvccpb::{Event, KeyValue},
};

fn answer(revision: i64, events: &[i64]) -> WatchResponse {
    let event =
        |&mod_revision: &i64| Event { kv: Some(KeyValue { mod_revision, ..KeyValue::default() }), ..Event::default() };
    WatchResponse {
        header: Some(ResponseHeader { revision, ..ResponseHeader::default() }),
        events: events.iter().map(event).collect(),
        ..WatchResponse::default()
    }
}

fn revisions(taken: Result<Option<WatchResponse>, Error>) -> Vec<i64> {
    let answer = taken.expect("not canceled").expect("something to hand on");
    answer.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision).collect()
}

#[test]
fn a_watch_from_now_on_resumes_from_where_now_was() {
    let mut resume = Resume::new(0);
    let created = WatchResponse { created: true, ..answer(7, &[]) };
    assert!(resume.take(created.clone()).expect("fine").is_some());
    assert_eq!(resume.next, 8);
    resume.reconnect();
    // The member it comes back to is further on: "now" must not move with it.
    assert!(resume.take(WatchResponse { created: true, ..answer(20, &[]) }).expect("fine").is_none());
    assert_eq!(resume.next, 8);
}

#[test]
fn what_was_handed_on_is_not_handed_on_again() {
    let mut resume = Resume::new(5);
    assert_eq!(revisions(resume.take(answer(6, &[5, 6, 6]))), [5, 6, 6]);
    resume.reconnect();
    assert_eq!(revisions(resume.take(answer(8, &[6, 6, 7, 8]))), [7, 8]);
    assert_eq!(resume.take(answer(8, &[8])).expect("fine"), None);
    assert_eq!(resume.next, 9);
}

#[test]
fn fragments_come_as_one_and_a_half_one_is_dropped_with_its_stream() {
    let mut resume = Resume::new(1);
    let part = |events: &[i64]| WatchResponse { fragment: true, ..answer(9, events) };
    assert_eq!(resume.take(part(&[3, 3])).expect("fine"), None);
    resume.reconnect();
    assert_eq!(resume.next, 1, "half an answer moves nothing");
    assert_eq!(resume.take(part(&[3, 3])).expect("fine"), None);
    assert_eq!(revisions(resume.take(answer(9, &[3, 4]))), [3, 3, 3, 4]);
}

#[test]
fn etcd_15220_progress_on_demand_is_not_relied_on() {
    let mut resume = Resume::new(2);
    assert!(resume.take(WatchResponse { watch_id: -1, ..answer(9, &[]) }).expect("fine").is_some());
    assert_eq!(resume.next, 2);
    assert_eq!(revisions(resume.take(answer(9, &[9]))), [9]);
    assert!(resume.take(answer(30, &[])).expect("fine").is_some());
    assert_eq!(resume.next, 31, "a watcher's own progress is");
}

#[test]
fn compaction_and_refusals_end_the_watch_by_name() {
    let mut resume = Resume::new(2);
    let compacted = WatchResponse { canceled: true, compact_revision: 12, ..answer(20, &[]) };
    assert_eq!(resume.take(compacted), Err(Error::Compacted { compact_revision: 12 }));
    let refused = WatchResponse {
        created: true,
        canceled: true,
        watch_id: -1,
        cancel_reason: "mvcc: watcher range is empty".into(),
        ..answer(20, &[])
    };
    assert_eq!(resume.take(refused), Err(Error::WatchCanceled("mvcc: watcher range is empty".into())));
}

#[test]
fn a_lost_connection_is_no_end_and_a_missing_permission_is() {
    let status = |code, text: &str| Error::Status { code, text: text.into() };
    assert!(!lasting(&status(Code::Unavailable, "etcdserver: no leader")));
    assert!(!lasting(&status(Code::Unknown, "transport error")));
    assert!(!lasting(&Error::Unreachable("refused".into())));
    assert!(lasting(&status(Code::PermissionDenied, "etcdserver: permission denied")));
    assert!(lasting(&status(Code::Unimplemented, "")));
}
