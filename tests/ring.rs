//! Three members, a proxy, and a proxy before that, as `hengectl ring` shows them: real processes, on loopback.
#![cfg(feature = "ctl")]

mod common;

use common::{Cluster, Proxy, Server, eventually};
use serde_json::Value;
use std::process::{Command, Output};

fn hengectl(endpoints: &str, words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hengectl"));
    command.args(words.split(' ')).env("ETCDCTL_ENDPOINTS", endpoints).output().expect("hengectl runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The ring as JSON, once there are proxies of these tiers, each with a copy. A proxy hears from its upstream where it stands.
fn ring(endpoints: &str, tiers: &[u64]) -> Vec<Value> {
    eventually("all proxies are listed", || {
        let output = hengectl(endpoints, "ring -w json");
        let all = serde_json::from_slice::<Vec<Value>>(&output.stdout).ok()?;
        let has_copies = all.iter().all(|one| one["copies"].as_array().is_some_and(|copies| copies.len() == 1));
        let mut found = all.iter().filter_map(|one| one["tier"].as_u64()).collect::<Vec<_>>();
        found.sort_unstable();
        (found == tiers && has_copies).then_some(all)
    })
}

fn by_name<'a>(all: &'a [Value], name: &str) -> &'a Value {
    all.iter().find(|one| one["name"] == name).expect("a proxy of that name")
}

#[test]
fn the_ring_is_seen_from_everywhere_and_a_revision_reaches_it() {
    let cluster = Cluster::start(3);
    let near = Proxy::with(&[cluster.members[0].url()], &["--name=near", "--cache-prefix=/config/"]);
    let far = Proxy::with(&[near.url()], &["--name=far", "--cache-prefix=/config/"]);
    let members = cluster.members.iter().map(Server::url).collect::<Vec<_>>().join(",");
    // Asked of a proxy, of one member, and of all of them, it is the same ring.
    for endpoints in [far.url(), cluster.members[1].url(), &members] {
        let all = ring(endpoints, &[1, 2]);
        let (of_near, of_far) = (by_name(&all, "near"), by_name(&all, "far"));
        assert_eq!((&of_near["tier"], &of_far["tier"]), (&1.into(), &2.into()));
        assert_eq!((&of_far["upstream"], &of_far["upstreamID"]), (&near.url().into(), &of_near["id"]));
        assert_eq!((&of_near["state"], &of_far["copies"][0]["lag"]), (&"ok".into(), &0.into()));
    }
    let table = out(&hengectl(&members, "ring -w table"));
    assert!(table.contains("│ NAME") && table.contains("│ near │"), "{table}");
    let copies = out(&hengectl(&members, "ring --copies"));
    assert!(copies.contains("far, ") && copies.contains(", /config/*, "), "{copies}");
    assert_eq!(out(&hengectl(&members, "ring --behind")), "");

    // Copies of idle keys find out how far they are when somebody waits for it.
    let revision = cluster.members[0].put("elsewhere", "1");
    let waited = hengectl(&members, &format!("ring wait --rev {revision} --timeout 60s"));
    assert!(waited.status.success(), "{waited:?}");
    assert_eq!(out(&waited), format!("revision {revision} has reached 2 of 2 proxies\n"));
    let all = ring(&members, &[1, 2]);
    assert!(all.iter().all(|one| one["copies"][0]["revision"].as_i64() >= Some(revision)), "{all:?}");
    let never = hengectl(&members, &format!("ring wait --rev {} --timeout 1s", revision + 1_000));
    assert!(!never.status.success() && String::from_utf8_lossy(&never.stderr).contains("does not exist yet"));

    // A proxy that hangs has what it had; who waits is told which one it is.
    far.pause();
    let revision = cluster.members[0].put("/config/a", "2");
    let waited = hengectl(&members, &format!("ring wait --rev {revision} --prefix /config/ --timeout 3s"));
    assert!(!waited.status.success(), "{waited:?}");
    assert!(out(&waited).starts_with("far, ") && out(&waited).lines().count() == 1, "{waited:?}");
    assert!(String::from_utf8_lossy(&waited.stderr).contains("has reached 1 of 2 proxies"), "{waited:?}");
    let some = hengectl(&members, &format!("ring wait --rev {revision} --share 50% --timeout 30s"));
    assert!(some.status.success(), "{some:?}");
    let other = hengectl(&members, &format!("ring wait --rev {revision} --prefix /elsewhere/ --timeout 30s"));
    assert!(other.status.success(), "{other:?}");
    far.resume();
    let waited = hengectl(&members, &format!("ring wait --rev {revision} --timeout 60s"));
    assert!(waited.status.success(), "{waited:?}");
}

#[test]
fn who_stops_leaves_the_ring_and_who_is_killed_is_lost() {
    let server = Server::start();
    let mut one = Proxy::with(&[server.url()], &["--name=one", "--cache-prefix=/a/"]);
    let mut other = Proxy::with(&[server.url()], &["--name=other", "--cache-prefix=/a/"]);
    ring(server.url(), &[1, 1]);
    assert!(one.stop().success());
    let all = ring(server.url(), &[1]);
    assert_eq!(all[0]["name"], "other");
    other.kill();
    eventually("it is lost", || out(&hengectl(server.url(), "ring --behind")).contains(", lost, ").then_some(()));
}
