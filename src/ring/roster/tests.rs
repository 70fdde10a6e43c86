use super::*;
use crate::pb::henge::ring::Copy;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn identity(name: &str) -> Identity {
    Identity { name: name.to_owned(), urls: vec![format!("http://{name}:1")], tier: 1, ..Identity::default() }
}

fn state(revision: i64) -> State {
    let copy = Copy { revision, key: "/config/".into(), range_end: "/config0".into(), ..Copy::default() };
    State { copies: vec![copy], ..State::default() }
}

fn proxy(id: u64, revision: i64) -> Proxy {
    Proxy { id, identity: Some(identity(&id.to_string())), state: Some(state(revision)), is_lost: false }
}

fn news(news: Vec<Proxy>) -> Reports {
    Reports { news, gone: Vec::new() }
}

/// `id=revision`, and `!` if it is lost.
fn known(inner: &Inner) -> String {
    let one = |(id, entry): (&u64, &Entry)| {
        format!("{id}={}{}", entry.revision().0, if entry.lost.is_some() { "!" } else { "" })
    };
    inner.entries.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn who_was_heard_of_is_listed_then_lost_then_forgotten() {
    let mut inner = Inner::default();
    let line = inner.begin(s(0)).unwrap();
    inner.heard(line, news(vec![proxy(1, 5), proxy(2, 6)]), s(1));
    assert_eq!(known(&inner), "1=5 2=6");
    inner.heard(line, Reports { gone: vec![2, 9], ..Reports::default() }, s(2));
    assert_eq!(known(&inner), "1=5");
    inner.end(line, s(10));
    assert_eq!(known(&inner), "1=5!");
    assert_eq!(inner.silence(&inner.entries[&1], s(30)), s(20));
    inner.prune(s(10) + LOST_KEPT);
    assert_eq!((known(&inner), inner.bytes, inner.places.len()), (String::new(), 0, 0));
}

#[test]
fn a_heartbeat_says_that_all_behind_a_line_live() {
    let mut inner = Inner::default();
    let line = inner.begin(s(0)).unwrap();
    inner.heard(line, news(vec![proxy(1, 5), proxy(2, 5)]), s(1));
    inner.heard(line, Reports::default(), s(60));
    assert_eq!(inner.silence(&inner.entries[&2], s(61)), s(1));
    assert_eq!(inner.entries[&2].came, s(1), "what it said is as old as it was");
}

#[test]
fn who_comes_back_over_another_line_is_not_lost_with_the_first() {
    let mut inner = Inner::default();
    let (first, second) = (inner.begin(s(0)).unwrap(), inner.begin(s(0)).unwrap());
    inner.heard(first, news(vec![proxy(1, 5)]), s(1));
    inner.heard(second, news(vec![proxy(1, 6)]), s(2));
    // What the first one has to say of it is of before.
    inner.heard(first, news(vec![Proxy { is_lost: true, ..proxy(1, 5) }]), s(3));
    inner.heard(first, Reports { gone: vec![1], ..Reports::default() }, s(4));
    inner.end(first, s(5));
    assert_eq!(known(&inner), "1=6");
    inner.end(second, s(6));
    assert_eq!(known(&inner), "1=6!");
    inner.heard(inner.next_line, news(vec![Proxy { identity: None, ..proxy(1, 7) }]), s(7));
    assert_eq!(known(&inner), "1=7");
}

#[test]
fn a_process_that_was_started_anew_takes_the_place_of_its_lost_self() {
    let mut inner = Inner::default();
    let line = inner.begin(s(0)).unwrap();
    let again = |id| Proxy { identity: Some(identity("host")), ..proxy(id, 5) };
    inner.heard(line, news(vec![again(1)]), s(1));
    let other = inner.begin(s(1)).unwrap();
    inner.heard(other, news(vec![again(2)]), s(1));
    assert_eq!(known(&inner), "1=5 2=5", "two that live are two, whatever they call themselves");
    inner.end(other, s(2));
    inner.heard(line, news(vec![again(3)]), s(3));
    assert_eq!(known(&inner), "1=5 3=5");
}

#[test]
fn what_has_no_name_and_what_comes_round_in_a_circle_is_left_alone() {
    let mut inner = Inner { own: 7, ..Inner::default() };
    let line = inner.begin(s(0)).unwrap();
    inner.heard(line, news(vec![proxy(7, 5), Proxy { identity: None, ..proxy(1, 5) }]), s(1));
    assert_eq!(known(&inner), "");
}

#[test]
fn what_one_proxy_says_is_bounded_and_so_is_what_all_say() {
    let mut inner = Inner::default();
    let line = inner.begin(s(0)).unwrap();
    let mut large = proxy(1, 5);
    let identity = large.identity.as_mut().unwrap();
    identity.name = "é".repeat(TEXT_MAX);
    identity.urls = vec!["u".repeat(10_000); 100];
    let state = large.state.as_mut().unwrap();
    state.copies = vec![state.copies[0].clone(); COPIES_MAX + 5];
    state.copies[0].key = vec![b'k'; KEY_MAX + 1].into();
    inner.heard(line, news(vec![large.clone()]), s(1));
    let entry = &inner.entries[&1];
    assert_eq!(entry.identity.name.len(), TEXT_MAX);
    assert_eq!(entry.identity.urls.len(), URLS_MAX);
    assert_eq!((entry.state.copies.len(), entry.state.copies_left_out), (COPIES_MAX, 5));
    let each = entry.bytes;
    for id in 2..=(2 * BYTES_MAX / each) as u64 {
        inner.heard(
            line,
            news(vec![Proxy { id, identity: Some(super::tests::identity(&id.to_string())), ..large.clone() }]),
            s(2),
        );
    }
    assert!(inner.bytes <= BYTES_MAX && inner.left_out_at == Some(s(2)), "{} bytes", inner.bytes);
    assert_eq!(inner.bytes, inner.entries.values().map(|entry| entry.bytes).sum::<usize>());
}

#[test]
fn news_are_told_once_and_all_else_from_time_to_time() {
    let mut inner = Inner::default();
    let line = inner.begin(s(0)).unwrap();
    let mut told = Told::default();
    let mut next = |inner: &Inner, wants, now| {
        let (news, gone) = told.diff(&inner.entries, wants, s(100), s(now));
        let one = |proxy: &Proxy| format!("{}{}", proxy.id, if proxy.identity.is_some() { "n" } else { "" });
        (news.iter().map(one).collect::<Vec<_>>().join(" "), gone)
    };
    inner.heard(line, news(vec![proxy(1, 5), proxy(2, 5)]), s(1));
    assert_eq!(next(&inner, Wants::All, 1), ("1n 2n".into(), vec![]));
    assert_eq!(next(&inner, Wants::All, 2), (String::new(), vec![]));
    let mut busy = proxy(1, 5);
    busy.state.as_mut().unwrap().hits = 99;
    inner.heard(line, news(vec![busy, Proxy { identity: None, ..proxy(2, 6) }]), s(3));
    assert_eq!(next(&inner, Wants::All, 3), ("2".into(), vec![]), "a count that changed is no news");
    assert_eq!(next(&inner, Wants::All, 101), ("1".into(), vec![]), "but it comes along some time");
    inner.heard(line, Reports { gone: vec![1], ..Reports::default() }, s(102));
    assert_eq!(next(&inner, Wants::All, 102), (String::new(), vec![1]));
    inner.end(line, s(103));
    assert_eq!(next(&inner, Wants::All, 103), ("2".into(), vec![]), "it is lost now");
    assert_eq!(next(&inner, Wants::All, 500), ("2n".into(), vec![]));
}

#[test]
fn who_has_come_to_a_goal_is_told_of_at_once_and_nobody_else() {
    let mut inner = Inner::default();
    let line = inner.begin(s(0)).unwrap();
    let mut told = Told::default();
    let mut next = |inner: &Inner, wants| {
        let (news, _) = told.diff(&inner.entries, wants, s(100), s(1));
        news.iter().map(|proxy| proxy.id).collect::<Vec<_>>()
    };
    inner.heard(line, news(vec![proxy(1, 5), proxy(2, 5), proxy(3, 9)]), s(1));
    assert_eq!(next(&inner, Wants::All), [1, 2, 3]);
    inner.heard(line, news(vec![proxy(1, 9), proxy(2, 8), proxy(4, 9)]), s(1));
    assert_eq!(next(&inner, Wants::Reached(Revision(9))), [1]);
    assert_eq!(next(&inner, Wants::Reached(Revision(9))), [] as [u64; 0]);
    assert_eq!(next(&inner, Wants::All), [2, 4]);
}

#[test]
fn what_was_said_grows_old_on_the_way() {
    let mut inner = Inner::default();
    let line = inner.begin(s(0)).unwrap();
    let mut old = proxy(1, 5);
    let state = old.state.as_mut().unwrap();
    (state.told_ms, state.copies[0].age_ms) = (1_000, 3_000);
    inner.heard(line, news(vec![old]), s(10));
    let listed = inner.entries[&1].listed(1, s(4), s(14));
    let state = listed.proxy.unwrap().state.unwrap();
    assert_eq!((listed.heard_ms, state.told_ms, state.copies[0].age_ms), (4_000, 5_000, 7_000));
}

#[test]
fn the_more_there_are_the_less_often_each_speaks() {
    let mut inner = Inner::default();
    assert_eq!(inner.interval(), INTERVAL_MIN);
    let line = inner.begin(s(0)).unwrap();
    inner.heard(line, news((1..=3_000).map(|id| proxy(id, 5)).collect()), s(1));
    assert_eq!(inner.interval(), s(10));
    inner.above = s(40);
    assert_eq!(inner.interval(), s(40), "not more than upstream wants to hear");
}

#[test]
fn the_higher_goal_stands_for_a_while() {
    let mut inner = Inner::default();
    assert_eq!(inner.aim(Revision(5), s(0)), Revision(5));
    assert_eq!(inner.aim(Revision(4), s(1)), Revision(5));
    assert_eq!(inner.aim(Revision(7), s(2)), Revision(7));
    assert_eq!(inner.aim(Revision(0), s(3)), Revision(7));
    assert_eq!(inner.aim(Revision(4), s(2) + GOAL_KEPT), Revision(4));
    assert_eq!(inner.aim(Revision(0), s(9) + GOAL_KEPT * 2), Revision(0));
}

#[tokio::test]
async fn those_behind_are_told_when_the_pace_changes_much() {
    let roster = Roster::new(7, 1);
    let mut pace = roster.pace();
    let now = *pace.borrow_and_update();
    assert_eq!((now.id, now.tier, now.interval_ms), (7, 1, 2_000));
    roster.follow(Pace { id: 1, tier: 2, interval_ms: 2_100, goal: 0 });
    assert!(pace.has_changed().unwrap());
    let now = *pace.borrow_and_update();
    assert_eq!((now.tier, now.interval_ms, roster.above()), (3, 2_000, 1));
    roster.follow(Pace { id: 1, tier: 2, interval_ms: 2_100, goal: 0 });
    assert!(!pace.has_changed().unwrap());
    roster.follow(Pace { id: 1, tier: 2, interval_ms: 9_000, goal: 12 });
    let now = *pace.borrow_and_update();
    assert_eq!((now.interval_ms, now.goal), (9_000, 12));
    drop(roster.line().unwrap());
    assert!(roster.list().0.is_empty());
}
