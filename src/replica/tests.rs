//! A member on a real log and an engine in memory, which can be crashed at will.

mod cluster;
mod network;

use super::*;
use crate::{
    auth::Author,
    engine::{Engine, Home as _, Memory, MemoryHome},
    machine::{Command, Put, Reply},
    mvcc::RangeQuery,
    types::{Error, Index, Key, KeyRange, LeaseId},
    watch,
};
use bytes::Bytes;
use std::{path::Path, sync::Arc, time::Duration};

fn settings(dir: &Path) -> Settings {
    Settings {
        wal_dir: dir.join("wal"),
        name: "one".into(),
        peer_urls: vec!["http://localhost:2380".into()],
        client_urls: vec!["http://localhost:2379".into()],
        cluster_token: "etcd-cluster".into(),
        initial_cluster: vec![("one".into(), vec!["http://localhost:2380".into()])],
        start_as: StartAs::New,
        force_new_cluster: false,
        heartbeat: Duration::from_millis(20),
        election_ticks: 10,
        pre_vote: true,
        snapshot_count: 50,
        catchup_entries: 10,
        request_bytes_max: 10_000,
        quota_bytes: 0,
        value_cache_bytes: 1 << 20,
        // Flushed by the tests, if at all.
        flush_interval: Duration::from_secs(3600),
        sweep_step: (100, Duration::from_millis(1)),
        auto_compaction: None,
        watch: watch::Options::default(),
        warn_apply_after: Duration::from_secs(10),
        unsafe_no_fsync: false,
        wal_keep_all: false,
        auth_token_ttl: Duration::from_secs(300),
        sabotage: None,
    }
}

/// For a member that is alone.
struct Nobody;

impl Transport for Nobody {
    fn send(&self, letters: Vec<Letter>) {
        assert!(letters.is_empty(), "a lone member has nobody to write to: {letters:?}");
    }
    fn set_members(&self, _: Vec<crate::membership::Member>, _: Vec<crate::types::MemberId>) {}
    fn send_snapshot(&self, to: crate::types::MemberId, _: Outgoing) {
        panic!("nobody lacks anything, {to} neither");
    }
    fn is_sending_snapshot(&self, _: crate::types::MemberId) -> bool {
        false
    }
    fn connected_for(&self, _: crate::types::MemberId) -> Option<Duration> {
        None
    }
}

fn try_run(settings: Settings, engine: &Arc<Memory>) -> Result<Handle, crate::types::Fault> {
    start(settings, Arc::new(MemoryHome::of(engine.clone())), Arc::new(Nobody), flume::bounded(1).1)
}

fn run(dir: &Path, engine: &Arc<Memory>) -> Handle {
    try_run(settings(dir), engine).expect("the member starts")
}

/// Waits until something is there.
async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), found).await.expect("it comes true in time")
}

/// As after kill -9: what was flushed, and the log.
async fn restart(dir: &Path, handle: Handle, engine: &Arc<Memory>) -> (Handle, Arc<Memory>) {
    let crashed = Arc::new(engine.crash());
    stop(handle).await;
    (run(dir, &crashed), crashed)
}

async fn stop(handle: Handle) {
    tokio::task::spawn_blocking(move || handle.stop()).await.expect("the member stops");
}

fn put(key: &str, value: &str) -> Command {
    Command::Put(Put { key: Key::from(key.to_owned()), value: Bytes::from(value.to_owned()), ..Put::default() })
}

async fn get(handle: &Handle, key: &str) -> Option<Bytes> {
    handle.read_index().await.expect("a leader");
    let query = RangeQuery::new(KeyRange::One(Key::from(key.to_owned())));
    let found = handle.reader().range(&query).expect("a sound store").expect("a current revision");
    found.kvs.into_iter().next().map(|kv| kv.value)
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_state_is_wrong_is_on_the_disk_long_before_the_next_flush() {
    let dir = tempfile::tempdir().expect("a folder");
    let home = Arc::new(MemoryHome::of(Arc::new(Memory::default())));
    let handle =
        start(settings(dir.path()), home.clone(), Arc::new(Nobody), flume::bounded(1).1).expect("the member starts");
    handle.shared.quarantine();
    eventually(|| home.is_distrusted().expect("a sound home").then_some(())).await;
    stop(handle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_flushed_comes_back_from_the_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = Arc::new(Memory::default());
    let handle = run(dir.path(), &engine);
    handle.propose(put("flushed", "1")).await.expect("a leader");
    engine.flush().expect("memory");
    let last = handle.propose(put("unflushed", "2")).await.expect("a leader");
    let (handle, _engine) = restart(dir.path(), handle, &engine).await;
    assert_eq!(get(&handle, "flushed").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(get(&handle, "unflushed").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(handle.reader().current(), last.revision);
    stop(handle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_log_and_its_first_entry_is_no_obstacle() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = crate::wal::Options::default();
    let disk = crate::io::real::RealDisk::default();
    drop(founding::create(disk, &settings(dir.path()), options).expect("a log"));
    let handle = run(dir.path(), &Arc::new(Memory::default()));
    handle.propose(put("a", "1")).await.expect("a leader");
    assert_eq!(handle.view().members().len(), 1);
    stop(handle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_its_log_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = Arc::new(Memory::default());
    let handle = run(dir.path(), &engine);
    handle.propose(put("a", "1")).await.expect("a leader");
    stop(handle).await;
    std::fs::remove_dir_all(dir.path().join("wal")).expect("a log");
    let Err(fault) = try_run(settings(dir.path()), &engine) else { panic!("started") };
    assert!(fault.to_string().contains("its log is missing"), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_comes_too_late_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let handle = run(dir.path(), &Arc::new(Memory::default()));
    let large = handle.propose(put("a", &"x".repeat(20_000))).await;
    assert_eq!(large.map(|applied| applied.index), Err(Error::RequestTooLarge));
    stop(handle.clone()).await;
    let late = handle.propose(put("a", "1")).await;
    assert_eq!(late.map(|applied| applied.index), Err(Error::Stopped));
    assert_eq!(handle.read_index().await, Err(Error::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_proposals_at_once_share_few_syncs_and_each_has_its_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    let handle = run(dir.path(), &Arc::new(Memory::default()));
    handle.read_index().await.expect("a leader");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..500 {
        let handle = handle.clone();
        tasks.spawn(async move { handle.propose(put(&number.to_string(), "x")).await.expect("a leader") });
    }
    let mut indexes = Vec::new();
    while let Some(applied) = tasks.join_next().await {
        let applied = applied.expect("a task");
        assert!(matches!(applied.result, Ok(Reply::Put { prev: None })));
        indexes.push(applied.index);
    }
    indexes.sort();
    indexes.dedup();
    assert_eq!(indexes.len(), 500);
    let status = handle.status();
    assert!(status.wal_syncs.0 < 400, "{} syncs for 500 puts", status.wal_syncs.0);
    assert!(status.applied >= Index(500), "{status:?}");
    // The member's own proposal, which publishes its name and addresses, may still be on its way.
    let answered = async {
        while handle.status().proposals_pending > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answered).await.expect("nobody waits for an answer any more");
    stop(handle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_renewed_by_the_leader_and_end_by_themselves() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = Arc::new(Memory::default());
    let handle = run(dir.path(), &engine);
    let granted = handle.lease_grant(&Author::Member, LeaseId::NONE, 0).await.expect("a leader");
    let Ok(Reply::LeaseGrant { id, ttl_s }) = granted.result else { panic!("{granted:?}") };
    assert_eq!(ttl_s, 1, "raised to one and a half election timeouts, in whole seconds");
    let leased = Put { key: Key::from("a".to_owned()), lease: id, ..Put::default() };
    handle.propose(Command::Put(leased)).await.expect("a leader");
    assert_eq!(handle.lease_keep_alive(vec![id]).await, Ok(vec![Some(1)]));
    let (handle, _engine) = restart(dir.path(), handle, &engine).await;
    assert_eq!(handle.lease_keep_alive(vec![id]).await, Ok(vec![Some(1)]), "a new leader's clock knows it");
    let ended = async {
        while handle.view().has_lease(id) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the lease ends");
    assert_eq!(get(&handle, "a").await, None);
    assert_eq!(handle.lease_keep_alive(vec![id]).await, Ok(vec![None]));
    stop(handle).await;
}
