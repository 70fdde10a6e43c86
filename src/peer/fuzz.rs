//! Any message of a peer's: it is understood or malformed; and any rows as a snapshot.

use super::convert;
use crate::{machine::fuzz as store, pb::henge::peer as pb, replica::PeerMessage, types::Index};
use bytes::Bytes;
use prost::Message as _;

/// The first byte says what the others are.
const MESSAGE: u8 = b'm';
const HEADER: u8 = b'h';
const ROWS: u8 = b'r';

/// Takes in what `data` is.
pub(crate) fn target(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let bytes = Bytes::copy_from_slice(rest);
    match *how {
        MESSAGE => {
            let Ok(message) = pb::Message::decode(bytes) else { return };
            if let Ok(Some(message)) = convert::from_wire(message) {
                assert_eq!(convert::from_wire(convert::to_wire(message.clone())), Ok(Some(message)));
            }
        }
        HEADER => {
            let Ok(header) = pb::SnapshotHeader::decode(bytes) else { return };
            if let Ok(meta) = convert::header_from_wire(header) {
                assert_eq!(convert::header_from_wire(convert::header_to_wire(&meta, 0)), Ok(meta));
            }
        }
        _ => {
            let Ok(rows) = pb::Rows::decode(bytes) else { return };
            if let Ok(rows) = convert::rows_from_wire(rows) {
                store::opened(rows);
            }
        }
    }
}

/// A message of each kind, and a store with something in each table.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let entry = |kind| pb::Entry { term: 2, kind, data: Bytes::from_static(b"data") };
    let append = pb::Append {
        prev: Some(pb::LogId { index: 7, term: 2 }),
        entries: vec![entry(0), entry(1), entry(2)],
        commit: 8,
    };
    let raft = pb::Raft { term: 3, body: Some(pb::raft::Body::Append(append)) };
    let messages = [
        pb::Message { body: Some(pb::message::Body::Raft(raft)) },
        convert::to_wire(PeerMessage::Refill),
        convert::to_wire(PeerMessage::Hash { index: Index(9), hash: 7 }),
    ];
    let conf_state = pb::ConfState { voters: vec![1, 2], learners: vec![3], ..Default::default() };
    let header = pb::SnapshotHeader { index: 9, term: 2, conf_state: Some(conf_state), bytes_about: 100 };
    let mut seeds: Vec<_> =
        messages.iter().map(|message| [&[MESSAGE], &message.encode_to_vec()[..]].concat()).collect();
    seeds.push([&[HEADER], &header.encode_to_vec()[..]].concat());
    seeds.push([&[ROWS], &convert::rows_to_wire(store::rows()).encode_to_vec()[..]].concat());
    seeds
}
