//! Events and replies → bytes. The only file of this room that knows the wire.

use super::Delivery;
use crate::{
    mvcc::{Event, EventKind, KeyValue},
    pb::{etcdserverpb as pb, mvccpb},
    types::Revision,
};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// Field 11 of a reply, `events`, length-delimited.
const EVENTS: u8 = 11 << 3 | 2;

/// The id of replies that concern no watcher, or all of them.
pub const NO_WATCHER: i64 = -1;

/// One event as field `events` of a reply, tag and length included, so that replies are made by joining bytes.
pub(super) fn event(event: &Event, prev_kv: bool) -> Bytes {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let prev_kv = event.prev.as_ref().filter(|_| prev_kv).map(kv);
    let event = mvccpb::Event { r#type: kind.into(), kv: Some(kv(&event.kv)), prev_kv };
    let size = event.encoded_len();
    let mut out = BytesMut::with_capacity(1 + prost::length_delimiter_len(size) + size);
    out.put_u8(EVENTS);
    event.encode_length_delimited(&mut out).expect("the buffer grows");
    out.freeze()
}

fn kv(kv: &KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key.clone(),
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        value: kv.value.clone(),
        lease: kv.lease.0,
    }
}

impl Delivery {
    /// The revision that the header of this reply tells.
    pub fn revision(&self) -> Revision {
        match self {
            Delivery::Created { revision, .. }
            | Delivery::Refused { revision, .. }
            | Delivery::Events { revision, .. }
            | Delivery::Canceled { revision, .. }
            | Delivery::Progress { revision, .. } => *revision,
        }
    }

    /// Writes the reply as an `etcdserverpb.WatchResponse`. `header` should tell [`Delivery::revision`].
    pub fn encode(&self, header: Option<pb::ResponseHeader>, out: &mut impl BufMut) {
        let (frame, events) = self.frame(header);
        // The events come last in the message, so what was encoded long ago is appended.
        frame.encode_raw(out);
        events.iter().for_each(|event| out.put_slice(event));
    }

    /// The bytes that [`Delivery::encode`] will write, about.
    pub fn size_hint(&self) -> usize {
        match self {
            Delivery::Events { events, .. } => events.iter().map(Bytes::len).sum::<usize>() + 64,
            Delivery::Refused { reason, .. } | Delivery::Canceled { reason: Some(reason), .. } => reason.len() + 64,
            _ => 64,
        }
    }

    /// The reply without its events, and those.
    fn frame(&self, header: Option<pb::ResponseHeader>) -> (pb::WatchResponse, &[Bytes]) {
        let empty = pb::WatchResponse { header, ..Default::default() };
        let frame = match self {
            Delivery::Created { id, .. } => pb::WatchResponse { watch_id: *id, created: true, ..empty },
            Delivery::Refused { reason, .. } => pb::WatchResponse {
                watch_id: NO_WATCHER,
                created: true,
                canceled: true,
                cancel_reason: reason.clone(),
                ..empty
            },
            Delivery::Events { id, fragment, events, .. } => {
                return (pb::WatchResponse { watch_id: *id, fragment: *fragment, ..empty }, events);
            }
            Delivery::Canceled { id, compacted, reason, .. } => pb::WatchResponse {
                watch_id: *id,
                canceled: true,
                compact_revision: compacted.map_or(0, |compacted| compacted.0),
                cancel_reason: reason.clone().unwrap_or_default(),
                ..empty
            },
            Delivery::Progress { id, .. } => pb::WatchResponse { watch_id: id.unwrap_or(NO_WATCHER), ..empty },
        };
        (frame, &[])
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::types::LeaseId;

    fn decoded(delivery: &Delivery) -> pb::WatchResponse {
        let mut out = Vec::new();
        let header = pb::ResponseHeader { revision: delivery.revision().0, member_id: 7, ..Default::default() };
        delivery.encode(Some(header), &mut out);
        assert!(out.len() <= delivery.size_hint(), "{} <= {}", out.len(), delivery.size_hint());
        let reply = pb::WatchResponse::decode(&out[..]).unwrap();
        assert_eq!(reply.encode_to_vec(), out, "to the byte what the common encoder makes");
        reply
    }

    /// An event as a client sees it: what a test compares.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(in crate::watch) struct Seen {
        pub(in crate::watch) revision: i64,
        pub(in crate::watch) key: Bytes,
        /// `None`: deleted.
        pub(in crate::watch) value: Option<Bytes>,
        pub(in crate::watch) prev: Option<Bytes>,
    }

    /// The events of a delivery, through the wire and back.
    pub(in crate::watch) fn seen(delivery: &Delivery) -> Vec<Seen> {
        let events = decoded(delivery).events.into_iter();
        events
            .map(|event| {
                let deleted = event.r#type() == mvccpb::event::EventType::Delete;
                let kv = event.kv.expect("each event has a key");
                Seen {
                    revision: kv.mod_revision,
                    key: kv.key,
                    value: (!deleted).then_some(kv.value),
                    prev: event.prev_kv.map(|prev| prev.value),
                }
            })
            .collect()
    }

    #[test]
    fn joined_bytes_are_the_message_that_the_common_encoder_makes() {
        let kv = |value: &'static str, revision| KeyValue {
            key: "k".into(),
            value: value.into(),
            create_revision: Revision(2),
            mod_revision: Revision(revision),
            version: 1,
            lease: LeaseId(5),
        };
        let put = Event { kind: EventKind::Put, kv: kv("new", 300), prev: Some(kv("old", 2)) };
        let gone = KeyValue { key: "k".into(), mod_revision: Revision(301), ..KeyValue::default() };
        let delete = Event { kind: EventKind::Delete, kv: gone, prev: None };
        let events = vec![event(&put, true), event(&put, false), event(&delete, true)];
        let reply =
            decoded(&Delivery::Events { id: 4, revision: Revision(301), last: Revision(301), events, fragment: true });
        assert_eq!((reply.watch_id, reply.fragment, reply.header.unwrap().revision), (4, true, 301));
        let prevs: Vec<_> = reply.events.iter().map(|event| event.prev_kv.as_ref().map(|kv| &kv.value[..])).collect();
        assert_eq!(prevs, [Some(&b"old"[..]), None, None]);
        assert_eq!(reply.events[2].r#type(), mvccpb::event::EventType::Delete);
        assert_eq!(reply.events[1].kv.as_ref().unwrap().value, "new");
    }

    #[test]
    fn replies_without_events_have_etcds_fields() {
        let revision = Revision(8);
        let created = decoded(&Delivery::Created { id: 0, revision });
        assert_eq!((created.watch_id, created.created, created.canceled), (0, true, false));
        let refused = decoded(&Delivery::Refused { revision, reason: "no".to_owned() });
        assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, true, true));
        assert_eq!(refused.cancel_reason, "no");
        let compacted = decoded(&Delivery::Canceled { id: 3, revision, compacted: Some(Revision(6)), reason: None });
        assert_eq!((compacted.watch_id, compacted.canceled, compacted.compact_revision), (3, true, 6));
        assert_eq!(decoded(&Delivery::Progress { id: None, revision }).watch_id, -1);
        assert_eq!(decoded(&Delivery::Progress { id: Some(2), revision }).watch_id, 2);
    }
}
