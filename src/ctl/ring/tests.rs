use super::*;
use crate::pb::henge::ring::{Copy, Healing, Identity, Proxy, State};

fn listed(id: u64, name: &str, lag: i64, age_ms: u64, is_lost: bool) -> Listed {
    let copies = vec![Copy { lag, age_ms, ..Copy::default() }];
    let identity = Some(Identity { name: name.to_owned(), ..Identity::default() });
    let proxy = Proxy { id, identity, state: Some(State { copies, ..State::default() }), is_lost };
    Listed { proxy: Some(proxy), heard_ms: 0 }
}

fn source(id: u64, is_proxy: bool, listening_ms: u64) -> Source {
    Source { id, is_proxy, revision: id as i64, listening_ms, settled_ms: 10, ..Source::default() }
}

fn names(all: &[Listed]) -> Vec<String> {
    all.iter().map(|one| one.proxy.clone().unwrap().identity.unwrap().name).collect()
}

#[test]
fn those_furthest_behind_come_first_and_can_be_had_alone() {
    let mut found = Found::default();
    let all = vec![
        listed(1, "fresh", 0, 900, false),
        listed(2, "also", 0, 1_200, false),
        listed(3, "lost", 0, 0, true),
        listed(4, "far", 90, 0, false),
        listed(5, "old", 0, 600_000, false),
        listed(6, "near", 2, 0, false),
    ];
    found.take(source(1, false, 10), all);
    let mut seen = found.finish().expect("a list");
    assert_eq!(names(&seen.proxies), ["far", "near", "lost", "old", "also", "fresh"]);
    seen.proxies.retain(is_behind);
    assert_eq!(names(&seen.proxies), ["far", "near", "lost"]);
}

#[test]
fn of_one_that_two_know_the_fresher_word_counts() {
    let mut found = Found::default();
    found.take(source(1, false, 10), vec![listed(7, "of before", 0, 0, true), listed(8, "x", 0, 0, false)]);
    found.take(source(2, false, 10), vec![listed(7, "of now", 0, 0, false)]);
    found.take(source(3, false, 10), vec![listed(7, "of before that", 0, 0, true)]);
    let seen = found.finish().expect("a list");
    assert_eq!(names(&seen.proxies), ["of now", "x"]);
    assert!(seen.is_settled);
}

#[test]
fn what_is_missing_is_said() {
    let mut found = Found { strangers: vec!["etcd:1".into()], ..Found::default() };
    found.failures.push(("down:1".into(), Error::Deadline));
    let none = Found { strangers: vec!["etcd:1".into()], ..Found::default() };
    let text = none.finish().err().expect("nobody has a list").text().to_owned();
    assert!(text.starts_with("etcd:1 keeps no list of proxies"), "{text}");
    found.take(source(1, true, 5), Vec::new());
    let seen = found.finish().expect("a list");
    assert!(!seen.is_settled && !seen.is_whole);
    assert_eq!(seen.notes.len(), 3, "{:?}", seen.notes);
}

#[test]
fn an_address_is_the_same_with_and_without_its_scheme() {
    assert!(is_same("http://a:1/", "a:1") && !is_same("a:1", "a:2"));
}

#[test]
fn what_the_leader_heals_is_said_and_who_would_not_heal() {
    let member = |id, doing: Option<&str>| {
        let healing = doing.map(|doing| Healing { core_size: 3, after_ms: 1, doing: doing.to_owned() });
        Source { healing, ..source(id, false, 10) }
    };
    let mut found = Found::default();
    found.take(member(1, Some("all voters are there")), Vec::new());
    found.take(member(2, Some("")), Vec::new());
    found.take(source(9, true, 10), Vec::new());
    assert_eq!(found.finish().expect("a list").notes, ["A core of 3: all voters are there"]);
    let mut found = Found::default();
    found.take(member(1, Some("")), Vec::new());
    found.take(member(0xab, None), Vec::new());
    let notes = found.finish().expect("a list").notes;
    assert!(notes.len() == 1 && notes[0].ends_with("no --core-size: ab"), "{notes:?}");
}
