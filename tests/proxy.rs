//! A member, a proxy before it, and a proxy before that: real processes, on loopback.

mod common;

use bytes::Bytes;
use common::{Cluster, PATIENCE, Proxy, Server, eventually};
use henge::{
    client::{
        Client, Compare, ConnectOptions, DeleteOptions, Error, GetOptions, KeeperState, Op, PutOptions, Txn,
        WatchOptions, Watcher,
    },
    pb::etcdserverpb::{
        LeaseKeepAliveRequest, PutRequest, RangeRequest, kv_client::KvClient, lease_client::LeaseClient,
    },
};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tonic::{Code, Status, metadata::MetadataMap, transport::Channel};

fn patient() -> ConnectOptions {
    ConnectOptions { request_timeout: Some(PATIENCE), ..ConnectOptions::default() }
}

async fn read(client: &Client, key: &str) -> Option<String> {
    let answer = client.get(key.to_owned(), GetOptions::default()).await.expect("a get");
    answer.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

/// The values of the next `count` events.
async fn events(watcher: &mut Watcher, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let answer = timeout(PATIENCE, watcher.next()).await.expect("in time").expect("an answer").expect("no error");
        let values = answer.events.into_iter().map(|event| event.kv.expect("a pair").value);
        seen.extend(values.map(|value| String::from_utf8(value.to_vec()).expect("text")));
    }
    seen
}

/// Takes `lock` for a lease, unless somebody has it.
async fn take(client: &Client, lock: &str, lease: i64) -> bool {
    let put = Op::put_with(lock.to_owned(), "mine", PutOptions { lease, ..PutOptions::default() });
    let txn = Txn::new().when([Compare::create_revision(lock.to_owned()).equal(0)]).then([put]);
    client.txn(txn).await.expect("a transaction").succeeded
}

#[test]
fn the_api_is_the_same_through_a_proxy_and_through_a_proxy_of_a_proxy() {
    let server = Server::start();
    let near = Proxy::of(&[server.url()]);
    let far = Proxy::of(&[near.url()]);
    for (name, proxy) in [("near", &near), ("far", &far)] {
        let client = proxy.client(patient());
        proxy.runtime().block_on(async {
            let mut watcher = client.watch(format!("{name}/"), WatchOptions::prefix(format!("{name}/")));
            assert!(watcher.next().await.expect("an answer").expect("no error").created);
            let (key, lock) = (format!("{name}/key"), format!("{name}/lock"));
            for value in ["1", "2"] {
                client.put(key.clone(), value, PutOptions::default()).await.expect("a put");
            }
            assert_eq!(read(&client, &key).await.as_deref(), Some("2"));

            let lease = client.lease_grant(60, 0).await.expect("a lease").id;
            assert!(take(&client, &lock, lease).await && !take(&client, &lock, lease).await);
            assert_eq!(client.lease_renew(lease).await.expect("a renewal").ttl, 60);
            let left = client.lease_time_to_live(lease, true).await.expect("what is left");
            assert_eq!(left.keys, [lock.as_str()]);
            assert_eq!(events(&mut watcher, 3).await, ["1", "2", "mine"]);
            client.lease_revoke(lease).await.expect("a revocation");
            assert_eq!(client.lease_renew(lease).await.expect("an answer").ttl, 0);
            assert_eq!(read(&client, &lock).await, None);

            let deleted = client.delete(key.clone(), DeleteOptions::default()).await.expect("a delete");
            assert_eq!(deleted.deleted, 1);
            assert_eq!(events(&mut watcher, 2).await, ["", ""]);
            let refused = client.put("", "x", PutOptions::default()).await.expect_err("no key");
            assert_eq!(refused.to_string(), "etcdserver: key is not provided");
            assert_eq!(client.member_list(true).await.expect("a list").members.len(), 1);
            assert!(client.status().await.expect("a status").leader != 0);
        });
        assert_eq!(proxy.http("/health"), (200, r#"{"health":"true","reason":""}"#.to_owned()));
        assert!(proxy.http("/version").1.contains("etcdserver"));
    }
}

/// One put and one renewal, each sent once: why they failed.
async fn refusals(url: &str) -> [Status; 2] {
    let channel = Server::channel(url).await.expect("the proxy is there");
    let put = PutRequest { key: "away".into(), ..PutRequest::default() };
    let mut client = KvClient::new(channel.clone());
    let put = client.put(put);
    let renewal = async {
        let once = tokio_stream::once(LeaseKeepAliveRequest { id: 7 });
        LeaseClient::new(channel).lease_keep_alive(once).await?.into_inner().message().await
    };
    let (put, renewal) = tokio::join!(put, renewal);
    [put.expect_err("nobody is there"), renewal.expect_err("nobody is there")]
}

#[test]
fn while_the_core_is_away_calls_fail_fast_and_when_it_is_back_all_goes_on() {
    let mut server = Server::start();
    let near = Proxy::of(&[server.url()]);
    let far = Proxy::of(&[near.url()]);
    let client = far.client(patient());
    let (mut watcher, keeper) = far.runtime().block_on(async {
        let mut watcher = client.watch("jobs/", WatchOptions::prefix("jobs/"));
        assert!(watcher.next().await.expect("an answer").expect("no error").created);
        let lease = client.lease_grant(60, 0).await.expect("a lease").id;
        let keeper = client.lease_keeper(lease).await.expect("a keeper");
        client.put("jobs/1", "before", PutOptions::default()).await.expect("a put");
        (watcher, keeper)
    });
    server.kill();
    for proxy in [&near, &far] {
        for _ in 0..3 {
            let began = Instant::now();
            let refused = proxy.runtime().block_on(refusals(proxy.url()));
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}: {refused:?}", began.elapsed());
            let upstream = server.url().trim_start_matches("http://");
            for refusal in refused {
                assert_eq!(refusal.code(), Code::Unavailable, "{refusal:?}");
                assert!(refusal.message().contains(upstream), "{refusal:?}");
            }
        }
        assert_eq!(proxy.http("/health").0, 503);
    }
    // With a watcher, a keeper and a reader that all want back (LESSONS A13).
    let (began, before) = (Instant::now(), near.cpu_ticks() + far.cpu_ticks());
    let impatient = ConnectOptions { request_timeout: Some(Duration::from_secs(2)), ..ConnectOptions::default() };
    let reader = far.client(impatient);
    far.runtime().block_on(reader.get("jobs/1", GetOptions::default())).expect_err("nobody is there");
    let (took, used) = (began.elapsed(), near.cpu_ticks() + far.cpu_ticks() - before);
    assert!(u128::from(used) * 10 < took.as_millis() / 2, "{used} ticks in {took:?}");

    server.restart();
    far.runtime().block_on(async {
        assert_eq!(read(&client, "jobs/1").await.as_deref(), Some("before"));
        client.put("jobs/1", "after", PutOptions::default()).await.expect("a put");
        assert_eq!(events(&mut watcher, 2).await, ["before", "after"]);
    });
    let lease = keeper.id();
    let renewed = far.runtime().block_on(client.lease_renew(lease)).expect("a renewal");
    assert_eq!(renewed.ttl, 60);
    assert!(matches!(keeper.state(), KeeperState::Alive { .. }), "{:?}", keeper.state());
}

#[test]
fn a_core_that_hangs_with_its_connections_open_is_given_up_in_time() {
    let server = Server::start();
    let proxy = Proxy::of(&[server.url()]);
    proxy.runtime().block_on(async {
        let channel = Server::channel(proxy.url()).await.expect("the proxy is there");
        let read = RangeRequest { key: "a".into(), ..RangeRequest::default() };
        KvClient::new(channel).range(read).await.expect("a get");
    });
    server.pause();
    let began = Instant::now();
    let refused = proxy.runtime().block_on(refusals(proxy.url()));
    server.resume();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    for refusal in refused {
        assert_eq!(refusal.code(), Code::Unavailable, "{refusal:?}");
    }
    let client = proxy.client(patient());
    assert_eq!(proxy.runtime().block_on(read(&client, "nothing")), None);
}

#[test]
fn a_proxy_of_one_member_finds_the_others_and_outlives_the_first() {
    let mut cluster = Cluster::start(3);
    let proxy = Proxy::of(&[cluster.members[0].url()]);
    eventually("the proxy knows all members", || {
        let log = proxy.log();
        let line = log.lines().rfind(|line| line.contains("the members of upstream"))?;
        cluster.members.iter().all(|member| line.contains(member.url())).then_some(())
    });
    cluster.members[0].kill();
    let client = proxy.client(patient());
    proxy.runtime().block_on(async {
        client.put("key", "value", PutOptions::default()).await.expect("a put");
        assert_eq!(read(&client, "key").await.as_deref(), Some("value"));
    });
    drop(cluster);
}

#[test]
fn a_proxy_that_is_told_to_stop_ends_streams_and_exits_in_time() {
    let server = Server::start();
    let mut proxy = Proxy::of(&[server.url()]);
    let channel = proxy.runtime().block_on(async {
        let channel = Server::channel(proxy.url()).await.expect("the proxy is there");
        let mut watcher =
            Client::connect([proxy.url()], patient()).await.expect("a client").watch("a", WatchOptions::default());
        assert!(watcher.next().await.expect("an answer").expect("no error").created);
        (channel, watcher)
    });
    let began = Instant::now();
    assert!(proxy.stop().success());
    assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert!(!proxy.log().contains(r#""level":"error""#), "{}", proxy.log());
    drop(channel);
}

/// What a proxy says to one serializable read of a key, and where it has that from.
async fn ask(channel: &Channel, key: &str) -> Result<(Option<Bytes>, MetadataMap), Status> {
    let read = RangeRequest { key: key.to_owned().into(), serializable: true, ..RangeRequest::default() };
    let (metadata, answer, _) = KvClient::new(channel.clone()).range(read).await?.into_parts();
    Ok((answer.kvs.into_iter().next().map(|kv| kv.value), metadata))
}

#[test]
fn what_a_host_watches_and_reads_often_is_copied_and_another_proxy_copies_it_from_there() {
    let server = Server::start();
    let near = Proxy::of(&[server.url()]);
    let far = Proxy::of(&[near.url()]);
    let plain = Proxy::with(&[server.url()], &["--cache-auto=false"]);
    let client = far.client(patient());
    let mut watcher = far.runtime().block_on(async {
        client.put("jobs/a", "1", PutOptions::default()).await.expect("a put");
        let mut watcher = client.watch("jobs/", WatchOptions::prefix("jobs/"));
        assert!(watcher.next().await.expect("an answer").expect("no error").created);
        watcher
    });
    for (proxy, is_copied) in [(&far, true), (&near, true), (&plain, false)] {
        let channel = proxy.runtime().block_on(Server::channel(proxy.url())).expect("the proxy is there");
        let reads = |count: usize| {
            let all = async {
                for _ in 0..count {
                    let (value, metadata) = ask(&channel, "jobs/a").await.expect("an answer");
                    assert_eq!(value.as_deref(), Some(&b"1"[..]));
                    if metadata.contains_key("henge-served-by") {
                        return Some(());
                    }
                }
                None
            };
            proxy.runtime().block_on(all)
        };
        match is_copied {
            true => eventually("a copy", || reads(50)),
            false => assert!(reads(200).is_none()),
        }
    }
    far.runtime().block_on(async {
        for value in ["2", "3"] {
            client.put("jobs/a", value, PutOptions::default()).await.expect("a put");
        }
        assert_eq!(events(&mut watcher, 2).await, ["2", "3"]);
    });
}

#[test]
fn a_proxy_that_is_killed_and_finds_no_core_serves_what_it_knew_and_goes_on_when_there_is_one() {
    let mut server = Server::start();
    let data = tempfile::tempdir().expect("a folder");
    let flags = ["--cache-prefix", "jobs/", "--data-dir", data.path().to_str().expect("a path")];
    let mut proxy = Proxy::with(&[server.url()], &flags);
    let client = proxy.client(patient());
    let written = proxy.runtime().block_on(client.put("jobs/a", "1", PutOptions::default())).expect("a put");
    let written = written.header.expect("a header").revision;
    let copies = data.path().join("copies");
    // What is still being written has another name, and the first that is saved may be older than the key.
    let has_the_key = |file: std::fs::DirEntry| {
        let path = file.path();
        let is_whole = path.extension().is_some_and(|end| end == "copy");
        is_whole && std::fs::read(path).is_ok_and(|bytes| bytes.windows(6).any(|part| part == b"jobs/a"))
    };
    let saved = || std::fs::read_dir(&copies).ok()?.flatten().any(has_the_key).then_some(());
    eventually("a saved copy", saved);
    proxy.runtime().block_on(client.put("jobs/b", "1", PutOptions::default())).expect("a put");
    server.kill();
    proxy.kill_and_restart();
    let channel = proxy.runtime().block_on(Server::channel(proxy.url())).expect("the proxy is there");
    let (_, said) = eventually("an answer", || {
        let answer = proxy.runtime().block_on(ask(&channel, "jobs/a")).ok()?;
        assert_eq!(answer.0.as_deref(), Some(&b"1"[..]));
        Some(answer)
    });
    let text = |name: &str| said.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!((text("henge-served-by"), text("henge-from")), ("copy".to_owned(), "disk".to_owned()));
    let number = |name: &str| text(name).parse::<i64>().unwrap_or(-1);
    assert!(number("henge-revision") >= written && (1..60_000).contains(&number("henge-age-ms")), "{said:?}");
    let began = Instant::now();
    let now = RangeRequest { key: "jobs/a".into(), ..RangeRequest::default() };
    let refused = proxy.runtime().block_on(KvClient::new(channel.clone()).range(now)).expect_err("no core");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());

    // Whoever watches meanwhile gets what happened since the copy, and what happens later.
    let start = number("henge-revision") + 1;
    let options = WatchOptions { start_revision: start, ..WatchOptions::prefix("jobs/") };
    let mut watcher = proxy.runtime().block_on(async {
        let mut watcher = client.watch("jobs/", options);
        assert!(
            timeout(PATIENCE, watcher.next()).await.expect("in time").expect("an answer").expect("no error").created
        );
        watcher
    });
    server.restart();
    proxy.runtime().block_on(async {
        client.put("jobs/c", "end", PutOptions::default()).await.expect("a put");
        let mut seen = Vec::new();
        while seen.last().map(String::as_str) != Some("end") {
            seen.extend(events(&mut watcher, 1).await);
        }
        assert!(
            [&["1", "end"][..], &["end"]].contains(&&seen.iter().map(String::as_str).collect::<Vec<_>>()[..]),
            "{seen:?}"
        );
        assert_eq!(read(&client, "jobs/b").await.as_deref(), Some("1"));
        let (_, said) = ask(&channel, "jobs/a").await.expect("an answer");
        assert!(said.get("henge-served-by").is_some() && said.get("henge-from").is_none(), "{said:?}");
    });
    let other = std::process::Command::new(env!("CARGO_BIN_EXE_henge"))
        .args(["proxy", "--endpoints", server.url(), "--listen-client-urls", &common::free_url(), "--data-dir"])
        .arg(data.path())
        .output()
        .expect("henge");
    assert!(!other.status.success(), "two proxies in one folder");
}

#[test]
fn a_gateway_carries_calls_to_whoever_is_there() {
    let mut server = Server::start();
    let dead = common::free_url();
    let gateway = Proxy::gateway(&[&dead, server.url()], &["--retry-delay=100ms"]);
    let client = gateway.client(patient());
    gateway.runtime().block_on(async {
        client.put("key", "value", PutOptions::default()).await.expect("a put");
        assert_eq!(read(&client, "key").await.as_deref(), Some("value"));
    });
    assert!(gateway.log().contains("deactivated endpoint"), "{}", gateway.log());
    server.kill();
    let impatient = ConnectOptions { request_timeout: Some(Duration::from_secs(1)), ..ConnectOptions::default() };
    let refused = gateway.runtime().block_on(gateway.client(impatient).get("key", GetOptions::default()));
    assert!(matches!(refused, Err(Error::Deadline | Error::Status { .. } | Error::Unreachable(_))), "{refused:?}");
    server.restart();
    assert_eq!(gateway.runtime().block_on(read(&client, "key")).as_deref(), Some("value"));
}
