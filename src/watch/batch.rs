//! What happened, shared by all who are told; and how the events of a watcher become replies.

use super::{Delivery, encode};
use crate::{
    mvcc::{Event, EventKind},
    types::Revision,
};
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock},
};

/// An event, encoded at most once in each of its two forms: by the first subscriber who sends it, not by the thread that applies.
#[derive(Debug)]
pub(super) struct Happening {
    pub(super) revision: i64,
    event: Event,
    plain: OnceLock<Bytes>,
    with_prev: OnceLock<Bytes>,
}

impl Happening {
    pub(super) fn new(revision: Revision, event: Event) -> Arc<Happening> {
        Arc::new(Happening { revision: revision.0, event, plain: OnceLock::new(), with_prev: OnceLock::new() })
    }

    /// About the memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        let Event { kv, prev, .. } = &self.event;
        EVENT_OVERHEAD
            + kv.key.len()
            + kv.value.len()
            + prev.as_ref().map_or(0, |prev| prev.key.len() + prev.value.len())
    }

    /// Field `events` of a reply with this event alone, tag and length included.
    pub(super) fn encoded(&self, prev_kv: bool) -> &Bytes {
        let prev_kv = prev_kv && self.event.prev.is_some();
        let form = if prev_kv { &self.with_prev } else { &self.plain };
        form.get_or_init(|| encode::event(&self.event, prev_kv))
    }
}

const EVENT_OVERHEAD: usize = 200;

/// How a watcher wants its events.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wants {
    pub(super) no_put: bool,
    pub(super) no_delete: bool,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
}

impl Wants {
    pub(super) fn kind(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// An event on its way to one watcher.
#[derive(Debug)]
pub(super) struct EventItem {
    pub(super) id: i64,
    pub(super) happening: Arc<Happening>,
    /// What it counts in its stream's bound.
    pub(super) cost: u32,
    pub(super) wants: Wants,
}

/// A delivery, and what it gives back to its stream's bound.
pub(super) type Costed = (Delivery, usize);

/// Gathers the events of each watcher into replies: whole revisions together, as many as fit. The replies of one watcher go out
/// one after the other: clients put fragments together only if nothing stands between them.
pub(super) struct Replies<'a> {
    bytes_max: usize,
    /// Revision of the store that the headers tell.
    revision: Revision,
    open: Vec<Reply>,
    by_id: HashMap<i64, usize>,
    out: &'a mut VecDeque<Costed>,
}

struct Reply {
    id: i64,
    full: Vec<Costed>,
    events: Vec<Bytes>,
    bytes: usize,
    cost: usize,
    /// The revision of the last event, and where its events begin; the revision of the event before that.
    last: i64,
    last_begins: usize,
    before_last: i64,
}

impl<'a> Replies<'a> {
    /// Replies of up to `bytes_max` bytes go to `out`.
    pub(super) fn new(bytes_max: usize, revision: Revision, out: &'a mut VecDeque<Costed>) -> Replies<'a> {
        Replies { bytes_max, revision, open: Vec::new(), by_id: HashMap::new(), out }
    }

    /// Adds an event. Those of one watcher come in the order of revisions, and those of one revision are all there at `flush`.
    pub(super) fn add(&mut self, item: &EventItem) {
        let EventItem { id, happening, cost, wants } = item;
        let encoded = happening.encoded(wants.prev_kv).clone();
        let at = self.place(*id);
        let reply = &mut self.open[at];
        if !reply.events.is_empty() && reply.bytes + encoded.len() + REPLY_OVERHEAD > self.bytes_max {
            // Where the revision begins is where to cut. Inside one, only for those who can put it together again.
            if happening.revision != reply.last {
                reply.cut(reply.events.len(), self.revision, false);
            } else if reply.last_begins > 0 {
                reply.cut(reply.last_begins, self.revision, false);
            }
            let is_over = reply.bytes + encoded.len() + REPLY_OVERHEAD > self.bytes_max;
            if wants.fragment && is_over && !reply.events.is_empty() {
                reply.cut(reply.events.len(), self.revision, true);
            }
        }
        if happening.revision != reply.last {
            (reply.before_last, reply.last) = (reply.last, happening.revision);
            reply.last_begins = reply.events.len();
        }
        reply.bytes += encoded.len();
        reply.cost += *cost as usize;
        reply.events.push(encoded);
    }

    /// Lets out what is left.
    pub(super) fn flush(&mut self) {
        self.by_id.clear();
        for mut reply in self.open.drain(..) {
            reply.cut(reply.events.len(), self.revision, false);
            self.out.extend(reply.full);
        }
    }

    /// Lets out a reply that must stand between those before and those after.
    pub(super) fn between(&mut self, delivery: Delivery) {
        self.flush();
        self.out.push_back((delivery, 0));
    }

    fn place(&mut self, id: i64) -> usize {
        // Most streams have one watcher, and most events go to the same one as the last.
        if let Some(last) = self.open.last()
            && last.id == id
        {
            return self.open.len() - 1;
        }
        *self.by_id.entry(id).or_insert_with(|| {
            self.open.push(Reply {
                id,
                full: Vec::new(),
                events: Vec::new(),
                bytes: 0,
                cost: 0,
                last: 0,
                last_begins: 0,
                before_last: 0,
            });
            self.open.len() - 1
        })
    }
}

/// Room for the header and the other fields.
const REPLY_OVERHEAD: usize = 64;

impl Reply {
    /// Makes a reply of the first `events`.
    fn cut(&mut self, events: usize, revision: Revision, fragment: bool) {
        let last = Revision(if events == self.events.len() { self.last } else { self.before_last });
        let rest = self.events.split_off(events);
        let events = std::mem::replace(&mut self.events, rest);
        (self.bytes, self.last_begins) = (self.events.iter().map(Bytes::len).sum(), 0);
        let delivery = Delivery::Events { id: self.id, revision, last, events, fragment };
        self.full.push((delivery, std::mem::take(&mut self.cost)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::KeyValue;

    /// What replies of at most 1,000 bytes are made of events, given as (revision, bytes): (events, fragment) of each.
    fn replies(fragment: bool, events: &[(i64, usize)]) -> Vec<(usize, bool)> {
        let mut given = events.iter();
        let mut out = VecDeque::new();
        let mut replies = Replies::new(1_000, Revision(9), &mut out);
        for (revision, bytes) in events {
            let kv = KeyValue { value: vec![b'x'; *bytes].into(), ..KeyValue::default() };
            let happening = Happening::new(Revision(*revision), Event { kind: EventKind::Put, kv, prev: None });
            replies.add(&EventItem { id: 1, happening, cost: 1, wants: Wants { fragment, ..Wants::default() } });
        }
        replies.flush();
        assert_eq!(out.iter().map(|(_, cost)| cost).sum::<usize>(), events.len(), "what was counted is given back");
        out.into_iter()
            .map(|(delivery, _)| match delivery {
                Delivery::Events { events, fragment, last, .. } => {
                    assert_eq!(given.nth(events.len() - 1).map(|(revision, _)| *revision), Some(last.0));
                    (events.len(), fragment)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_revision_is_split_for_those_alone_who_asked_for_fragments() {
        assert_eq!(replies(false, &[(2, 600), (2, 600), (2, 600)]), [(3, false)]);
        assert_eq!(replies(true, &[(2, 600), (2, 600), (2, 600)]), [(1, true), (1, true), (1, false)]);
        // One event is never split.
        assert_eq!(replies(true, &[(2, 5_000)]), [(1, false)]);
    }

    #[test]
    fn revisions_share_a_reply_while_they_fit() {
        assert_eq!(replies(false, &[(2, 100), (3, 100), (4, 100)]), [(3, false)]);
        assert_eq!(replies(false, &[(2, 600), (3, 600), (4, 100)]), [(1, false), (2, false)]);
        // The second revision grows too large only after it has begun: the cut is where it began.
        assert_eq!(replies(false, &[(2, 500), (3, 300), (3, 300), (3, 600)]), [(1, false), (3, false)]);
        assert_eq!(replies(true, &[(2, 500), (3, 300), (3, 300), (3, 600)]), [(1, false), (2, true), (1, false)]);
    }
}
