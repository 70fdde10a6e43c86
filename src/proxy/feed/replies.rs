//! What the replies of a feed's watch say, in our words.

use crate::{
    mvcc::{Event, EventKind, KeyValue},
    pb::{etcdserverpb as pb, mvccpb},
    types::{LeaseId, Revision},
    watch::NO_WATCHER,
};

/// What a reply means for the copy.
#[derive(Debug, PartialEq)]
pub(super) enum News {
    Nothing,
    /// Whole revisions.
    Events(Vec<(Revision, Vec<Event>)>),
    /// Nothing at or below will follow. `is_answer`: somebody had asked.
    Progress {
        upto: Revision,
        is_answer: bool,
    },
    Compacted(Revision),
    Canceled(String),
}

/// Puts fragments together: the revision that one ends with may go on in the next.
#[derive(Default)]
pub(super) struct Inbox {
    unfinished: Vec<Event>,
}

impl Inbox {
    pub(super) fn take(&mut self, reply: pb::WatchResponse) -> News {
        if reply.canceled {
            return match reply.compact_revision {
                0 => News::Canceled(reply.cancel_reason),
                at => News::Compacted(Revision(at)),
            };
        }
        if reply.created {
            return News::Nothing;
        }
        if reply.events.is_empty() && !self.unfinished.is_empty() && reply.watch_id == NO_WATCHER {
            // Between two fragments: the revision that is on its way may be below.
            return News::Nothing;
        }
        if reply.events.is_empty() && !reply.fragment && self.unfinished.is_empty() {
            let upto = Revision(reply.header.map_or(0, |header| header.revision));
            return News::Progress { upto, is_answer: reply.watch_id == NO_WATCHER };
        }
        let mut whole = std::mem::take(&mut self.unfinished);
        whole.extend(reply.events.into_iter().map(event));
        if reply.fragment {
            let last = whole.last().map(|event| event.kv.mod_revision);
            let from = whole.iter().position(|event| Some(event.kv.mod_revision) == last).unwrap_or(whole.len());
            self.unfinished = whole.split_off(from);
        }
        if whole.is_empty() { News::Nothing } else { News::Events(by_revision(whole)) }
    }
}

/// Events by their revisions.
pub(in crate::proxy) fn by_revision(events: Vec<Event>) -> Vec<(Revision, Vec<Event>)> {
    let mut all: Vec<(Revision, Vec<Event>)> = Vec::new();
    for event in events {
        match all.last_mut() {
            Some((revision, same)) if *revision == event.kv.mod_revision => same.push(event),
            _ => all.push((event.kv.mod_revision, vec![event])),
        }
    }
    all
}

/// An event in our words. One about no key fits nowhere, and the copy will say so.
pub(in crate::proxy) fn event(event: mvccpb::Event) -> Event {
    let deletes = event.r#type() == mvccpb::event::EventType::Delete;
    let kv = key_value(event.kv.unwrap_or_default());
    let kv = match deletes {
        true => KeyValue { key: kv.key, mod_revision: kv.mod_revision, ..KeyValue::default() },
        false => kv,
    };
    Event { kind: if deletes { EventKind::Delete } else { EventKind::Put }, kv, prev: None }
}

/// A pair in our words.
pub(in crate::proxy) fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        version: kv.version,
        lease: LeaseId(kv.lease),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, revision: i64) -> mvccpb::Event {
        let kv = mvccpb::KeyValue { key: key.into(), mod_revision: revision, ..Default::default() };
        mvccpb::Event { kv: Some(kv), ..Default::default() }
    }

    fn reply(fragment: bool, events: &[(&'static str, i64)]) -> pb::WatchResponse {
        let events = events.iter().map(|(key, revision)| put(key, *revision)).collect();
        pb::WatchResponse { fragment, events, ..Default::default() }
    }

    fn revisions(news: News) -> Vec<(i64, usize)> {
        match news {
            News::Events(all) => all.iter().map(|(revision, events)| (revision.0, events.len())).collect(),
            News::Nothing => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_revision_that_fragments_cut_comes_whole() {
        let mut inbox = Inbox::default();
        assert_eq!(revisions(inbox.take(reply(true, &[("a", 5), ("b", 6)]))), [(5, 1)]);
        assert_eq!(revisions(inbox.take(reply(true, &[("c", 6)]))), []);
        assert_eq!(revisions(inbox.take(reply(true, &[("d", 6), ("e", 7)]))), [(6, 3)]);
        assert_eq!(revisions(inbox.take(reply(false, &[]))), [(7, 1)]);
        assert_eq!(revisions(inbox.take(reply(false, &[("f", 8), ("g", 8)]))), [(8, 2)]);
    }

    #[test]
    fn replies_without_events_tell_how_far_upstream_is() {
        let header = |revision| Some(pb::ResponseHeader { revision, ..Default::default() });
        let mut inbox = Inbox::default();
        let created = pb::WatchResponse { created: true, header: header(9), ..Default::default() };
        assert_eq!(inbox.take(created), News::Nothing);
        for (watch_id, is_answer) in [(0, false), (NO_WATCHER, true)] {
            let progress = pb::WatchResponse { watch_id, header: header(9), ..Default::default() };
            assert_eq!(inbox.take(progress), News::Progress { upto: Revision(9), is_answer });
        }
        let compacted = pb::WatchResponse { canceled: true, compact_revision: 7, ..Default::default() };
        assert_eq!(inbox.take(compacted), News::Compacted(Revision(7)));
    }
}
