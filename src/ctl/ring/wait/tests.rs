use super::*;
use crate::pb::henge::ring::{Proxy, State};

fn listed(copies: &[(&'static str, &'static str, i64)]) -> Listed {
    let copies = copies.iter().map(|(key, range_end, revision)| Copy {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(range_end.as_bytes()),
        revision: *revision,
        ..Copy::default()
    });
    let state = Some(State { copies: copies.collect(), ..State::default() });
    Listed { proxy: Some(Proxy { state, ..Proxy::default() }), heard_ms: 0 }
}

#[test]
fn a_share_is_a_percentage_or_a_fraction() {
    assert_eq!(share("95%"), Ok(0.95));
    assert_eq!(share("0.5"), Ok(0.5));
    for bad in ["95", "-1%", "101%", "x", "", "NaN"] {
        assert!(share(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_revision_has_reached_a_proxy_when_all_copies_that_count_have_it() {
    let reached = |listed: &Listed, revision, prefix: &'static str| {
        has_reached(listed, revision, &KeyRange::prefix(Bytes::from_static(prefix.as_bytes())))
    };
    let two = listed(&[("/a/", "/a0", 9), ("/b/", "/b0", 5)]);
    assert!(reached(&two, 5, "") && !reached(&two, 6, ""));
    assert!(reached(&two, 9, "/a/") && reached(&two, 9, "/a/deeper") && !reached(&two, 6, "/"));
    assert!(reached(&two, 9, "/c/"), "what is not copied is not old");
    assert!(reached(&listed(&[]), 9, ""));
}

#[test]
fn a_share_of_the_ring_may_be_enough() {
    let mut proxies = vec![listed(&[("/a/", "/a0", 9)]); 19];
    proxies.push(listed(&[("/a/", "/a0", 5)]));
    let seen = Seen { proxies, is_settled: true, is_whole: true, notes: Vec::new() };
    let progress = Progress::of(&seen, 9, &KeyRange::prefix(Bytes::new()));
    assert_eq!((progress.reached, progress.total, progress.behind.len()), (19, 20, 1));
    assert!(progress.is_enough(0.95) && progress.is_enough(0.0) && !progress.is_enough(0.96));
}
