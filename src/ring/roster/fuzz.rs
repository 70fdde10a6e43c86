//! Any reports over any streams: whoever listens remembers no more than it may, and says so.

use super::{BYTES_MAX, COPIES_MAX, ENTRIES_MAX, Line, Roster, TEXT_MAX, URLS_MAX, weight};
use crate::{
    pb::henge::ring::{Copy, Identity, Pace, Proxy, Reports, State},
    ring::{
        TIER_MAX,
        news::{Told, Wants},
    },
    types::Revision,
};
use prost::Message as _;

const OWN: u64 = 7;

/// Hears what `data` is: a letter for what happens, a byte for the stream, two for a length, and so many bytes.
pub(crate) fn target(data: &[u8]) {
    let roster = Roster::new(OWN, 0);
    let (mut told, mut lines, mut rest) = (Told::default(), Vec::<(u8, Line)>::new(), data);
    while let Some(([what, line, low, high], after)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (body, after) = after.split_at(length);
        rest = after;
        let number = i64::from_le_bytes(std::array::from_fn(|at| body.get(at).copied().unwrap_or(0)));
        match what {
            b'e' => lines.retain(|(of, _)| of != line),
            b'p' => roster.follow(Pace::decode(body).unwrap_or_default()),
            b'a' => roster.aim(Revision(number)),
            b'n' => {
                let wants = if number == 0 { Wants::All } else { Wants::Reached(Revision(number)) };
                let (news, gone) = roster.news(&mut told, wants);
                assert!(news.iter().all(|proxy| proxy.id != OWN) && gone.len() <= ENTRIES_MAX);
            }
            _ => {
                if !lines.iter().any(|(of, _)| of == line) {
                    lines.extend(roster.line().map(|own| (*line, own)));
                }
                if let (Ok(reports), Some((_, line))) = (Reports::decode(body), lines.iter().find(|(of, _)| of == line))
                {
                    line.heard(reports);
                }
            }
        }
        check(&roster);
    }
}

fn check(roster: &Roster) {
    let pace = *roster.pace().borrow();
    assert!(pace.tier <= TIER_MAX && pace.interval_ms > 0, "{pace:?}");
    let (list, _) = roster.list();
    assert!(list.len() <= ENTRIES_MAX);
    for listed in &list {
        let proxy = listed.proxy.as_ref().expect("whoever is listed is told of");
        let (identity, state) = (proxy.identity.clone().unwrap_or_default(), proxy.state.clone().unwrap_or_default());
        assert!(identity.name.len() <= TEXT_MAX && identity.urls.len() <= URLS_MAX && state.copies.len() <= COPIES_MAX);
    }
    let inner = roster.shared.inner.lock();
    let bytes: usize = inner.entries.values().map(|entry| entry.bytes).sum();
    assert_eq!(bytes, inner.bytes, "what is forgotten is no longer counted");
    assert!(bytes <= BYTES_MAX);
    let weighs = |entry: &super::Entry| entry.bytes == weight(&entry.identity, &entry.state);
    assert!(inner.entries.values().all(weighs) && inner.places.len() <= inner.entries.len());
}

/// A proxy that comes, is told of again, goes and comes back over another stream.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let copy = Copy { key: "a".into(), range_end: "b".into(), revision: 5, lag: 1, age_ms: 20, ..Copy::default() };
    let proxy = |id, is_lost| Proxy {
        id,
        identity: Some(Identity {
            name: format!("p{id}"),
            urls: vec!["http://a:1".into()],
            tier: 1,
            ..Identity::default()
        }),
        state: Some(State { told_ms: 5, clients: 2, copies: vec![copy.clone()], ..State::default() }),
        is_lost,
    };
    let reports = |news, gone| Reports { news, gone }.encode_to_vec();
    let step =
        |what: u8, line: u8, body: Vec<u8>| [&[what, line][..], &(body.len() as u16).to_le_bytes(), &body].concat();
    let pace = Pace { id: 1, tier: 2, interval_ms: 5_000, goal: 9 };
    vec![
        [
            step(b'r', 0, reports(vec![proxy(1, false), proxy(2, false)], vec![])),
            step(b'n', 0, Vec::new()),
            step(b'r', 1, reports(vec![proxy(1, false)], vec![])),
            step(b'r', 0, reports(vec![proxy(1, true)], vec![2])),
            step(b'a', 0, 9_i64.to_le_bytes().to_vec()),
            step(b'n', 0, 9_i64.to_le_bytes().to_vec()),
            step(b'e', 1, Vec::new()),
            step(b'n', 0, Vec::new()),
        ]
        .concat(),
        [step(b'p', 0, pace.encode_to_vec()), step(b'r', 3, reports(vec![proxy(OWN, false)], vec![]))].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_beyond_all_numbers_is_the_farthest_there_can_be() {
        let roster = Roster::new(OWN, 0);
        roster.follow(Pace { tier: u32::MAX, ..Pace::default() });
        assert_eq!(roster.pace().borrow().tier, TIER_MAX);
    }

    /// Each left a place behind that nobody ever took away.
    #[test]
    fn a_proxy_that_calls_itself_something_else_and_goes_leaves_nothing_behind() {
        let roster = Roster::new(OWN, 0);
        let line = roster.line().expect("room");
        for number in 0..100 {
            let named = |name: &str| Proxy {
                id: 1,
                identity: Some(Identity { name: format!("{name}{number}"), ..Identity::default() }),
                state: Some(State::default()),
                is_lost: false,
            };
            line.heard(Reports { news: vec![named("a")], gone: vec![] });
            line.heard(Reports { news: vec![named("b")], gone: vec![] });
            check(&roster);
            line.heard(Reports { news: vec![], gone: vec![1] });
            assert!(roster.shared.inner.lock().places.is_empty());
        }
    }

    #[test]
    fn the_seeds_leave_somebody_listed() {
        let body = &seeds()[0];
        let length = usize::from(u16::from_le_bytes([body[2], body[3]]));
        let reports = Reports::decode(&body[4..4 + length]).expect("reports");
        assert_eq!(reports.news.len(), 2);
        target(body);
    }
}
