//! What a member promises across restarts: nothing acknowledged is lost, revisions never go back, leases go on.

mod common;

use common::Server;
use std::time::{Duration, Instant};

#[test]
fn a_graceful_stop_is_quick_and_loses_nothing() {
    let mut server = Server::start();
    let revision = server.put("a", "1");
    let stopped = Instant::now();
    assert!(server.stop().success());
    assert!(stopped.elapsed() < Duration::from_millis(1_500), "took {:?}", stopped.elapsed());
    server.restart();
    assert_eq!(server.get("a").as_deref(), Some("1"));
    assert_eq!(server.revision(), revision);
}

#[test]
fn a_fresh_store_is_at_revision_one() {
    assert_eq!(Server::start().revision(), 1);
}

#[test]
fn kill_loses_nothing_and_the_revision_goes_on() {
    let mut server = Server::start();
    for round in 0..3 {
        let revision = server.put("key", &round.to_string());
        server.kill();
        server.restart();
        assert_eq!(server.get("key"), Some(round.to_string()));
        assert_eq!(server.revision(), revision);
    }
}

#[test]
fn a_lease_outlives_a_restart_and_still_ends() {
    let mut server = Server::start();
    let lease = server.grant(2);
    server.put_with_lease("leased", "x", lease);
    server.kill();
    server.restart();
    assert_eq!(server.get("leased").as_deref(), Some("x"));
    server.wait_until_gone("leased", Duration::from_secs(15));
}

#[test]
fn compaction_survives_a_kill() {
    let mut server = Server::start();
    for i in 0..50 {
        server.put("key", &i.to_string());
    }
    let revision = server.revision();
    server.compact(revision - 5);
    server.kill();
    server.restart();
    assert_eq!(server.revision(), revision);
    assert!(server.get_at("key", revision - 6).is_err_and(|text| text.contains("has been compacted")));
    assert_eq!(server.get_at("key", revision - 5).as_deref(), Ok("44"));
}
