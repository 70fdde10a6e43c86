//! kill -9 in a loop under load: no acknowledged write is lost, revisions never go back, and a restart is quick.
//!
//! `HENGE_CRASH_ROUNDS` sets how often (20 unless told otherwise).

mod common;

use common::Server;
use henge::client::{Client, ConnectOptions, GetOptions, Op, Policy, PutOptions, Txn};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const WRITERS: usize = 8;
/// A restart reads at most what the last 100 ms or so have left unflushed; the rest of this is a slow machine.
const RESTART_MAX: Duration = Duration::from_secs(10);

/// What one writer knows: the last number that was acknowledged, and one that may or may not have been written.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    acknowledged: i64,
    tried: i64,
}

fn rounds() -> u32 {
    std::env::var("HENGE_CRASH_ROUNDS").map_or(20, |text| text.parse().expect("HENGE_CRASH_ROUNDS is a number"))
}

fn key(writer: usize, number: i64) -> String {
    format!("log/{writer}/{number:08}")
}

/// Each step writes the writer's counter and a record of it in one transaction, so that a torn one would show.
fn step(writer: usize, number: i64) -> Txn {
    Txn::new()
        .then([Op::put(format!("counter/{writer}"), number.to_string()), Op::put(key(writer, number), "x".repeat(64))])
}

async fn write(url: String, writer: usize, from: Progress, done: Arc<AtomicBool>, latest: Arc<AtomicI64>) -> Progress {
    let once = Policy { attempts_max: 1, ..Policy::default() };
    let options = ConnectOptions { request_timeout: None, retry: once, ..ConnectOptions::default() };
    let client = Client::connect([url], options).await.expect("a client");
    let mut progress = Progress { tried: from.tried.max(from.acknowledged), ..from };
    while !done.load(Ordering::Relaxed) {
        progress.tried += 1;
        match client.txn(step(writer, progress.tried)).await {
            Ok(reply) => {
                progress.acknowledged = progress.tried;
                latest.fetch_max(reply.header.expect("a header").revision, Ordering::Relaxed);
            }
            // Killed under it: what became of this one is not known, and nothing more comes from this process.
            Err(_) => break,
        }
    }
    progress
}

/// Reads back all that the writers were told is written.
async fn check(client: &Client, writers: &mut [Progress], latest: i64) {
    for (writer, progress) in writers.iter_mut().enumerate() {
        let answer = client.get(format!("counter/{writer}"), GetOptions::default()).await.expect("a get");
        let revision = answer.header.expect("a header").revision;
        assert!(revision >= latest, "revision {revision} is behind {latest}, which was acknowledged");
        let found = answer
            .kvs
            .first()
            .map_or(0, |kv| std::str::from_utf8(&kv.value).expect("text").parse::<i64>().expect("a number"));
        assert!(
            (progress.acknowledged..=progress.tried).contains(&found),
            "writer {writer}: {found} found, but {progress:?}"
        );
        // What was in doubt and is there now is as good as acknowledged; what is not there never comes back.
        progress.acknowledged = found;
        let records = client.get(
            format!("log/{writer}/"),
            GetOptions { count_only: true, ..GetOptions::prefix(format!("log/{writer}/")) },
        );
        let last = client.get(key(writer, found), GetOptions::default()).await.expect("a get");
        assert_eq!(last.count, i64::from(found > 0), "writer {writer}: the counter is there without its record");
        let gaps = progress.tried - found;
        let count = records.await.expect("a count").count;
        assert!(count <= found && count + gaps >= 0, "writer {writer}: {count} records for {found} steps");
    }
}

fn survive(args: &[&str], rounds: u32) {
    let mut server = Server::start_with(args);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut writers, latest) = (vec![Progress::default(); WRITERS], Arc::new(AtomicI64::new(0)));
    // Numbers in doubt that turned out not to be written: their records must never show up.
    let mut skipped: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
    let (mut slowest, mut steps) = (Duration::ZERO, 0);
    for round in 0..rounds {
        let done = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for (writer, progress) in writers.iter().copied().enumerate() {
            let (url, done, latest) = (server.url().to_owned(), Arc::clone(&done), Arc::clone(&latest));
            tasks.spawn_on(async move { (writer, write(url, writer, progress, done, latest).await) }, runtime.handle());
        }
        // Spread over the flush interval and beyond, the same in each run.
        std::thread::sleep(Duration::from_millis(50 + u64::from(round * 37 % 400)));
        if round % 5 == 4 {
            server.compact(server.revision() - 10);
        }
        server.kill();
        done.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            while let Some(ended) = tasks.join_next().await {
                let (writer, progress) = ended.expect("a writer");
                steps += progress.acknowledged - writers[writer].acknowledged;
                writers[writer] = progress;
            }
        });
        let before = writers.clone();
        let restarted = Instant::now();
        server.restart();
        slowest = slowest.max(restarted.elapsed());
        runtime.block_on(async {
            let client = Client::connect([server.url()], ConnectOptions::default()).await.expect("a client");
            check(&client, &mut writers, latest.load(Ordering::Relaxed)).await;
            for (writer, progress) in before.iter().enumerate() {
                let lost = (writers[writer].acknowledged + 1..=progress.tried).collect::<Vec<_>>();
                skipped.entry(writer).or_default().extend(lost);
            }
        });
    }
    runtime.block_on(async {
        let client = Client::connect([server.url()], ConnectOptions::default()).await.expect("a client");
        for (writer, progress) in writers.iter().enumerate() {
            let answer = client.get(
                format!("log/{writer}/"),
                GetOptions { keys_only: true, ..GetOptions::prefix(format!("log/{writer}/")) },
            );
            let found = answer.await.expect("a range").kvs.into_iter().map(|kv| kv.key).collect::<Vec<_>>();
            let gone = &skipped[&writer];
            let expected =
                (1..=progress.acknowledged).filter(|number| !gone.contains(number)).map(|number| key(writer, number));
            assert!(
                found.iter().eq(expected.collect::<Vec<_>>().iter().map(String::as_bytes)),
                "writer {writer}: records differ"
            );
        }
        client.put("still", "writable", PutOptions::default()).await.expect("a put");
    });
    assert!(slowest < RESTART_MAX, "the slowest restart took {slowest:?}");
    println!("crash: {rounds} rounds, {steps} acknowledged writes, none lost; slowest restart {slowest:?} ({args:?})");
}

#[test]
fn a_killed_member_has_all_that_it_acknowledged() {
    survive(&[], rounds());
}

#[test]
fn so_has_one_on_sled() {
    survive(&["--storage-engine", "sled"], rounds().div_ceil(4));
}
