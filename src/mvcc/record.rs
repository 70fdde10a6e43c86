//! The bytes of a stored version: row key and row value, both as etcd writes them.
//!
//! A row key is a revision: main and sub as 8 big-endian bytes each, `_` between them, and `t` at the end if the row is a
//! tombstone. A row value is the protobuf encoding of `mvccpb.KeyValue`; a tombstone's has the key only. The codec is written by
//! hand because it runs for every write and every row that is read, and because decoding must not copy.

use crate::types::{Key, LeaseId, Revision};
use bytes::Bytes;

/// One version of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// The value. Empty in a tombstone.
    pub value: Bytes,
    /// Revision at which this generation of the key began. 0 in a tombstone.
    pub create_revision: Revision,
    /// Revision that wrote this version.
    pub mod_revision: Revision,
    /// Number of puts since creation, from 1. 0 in a tombstone.
    pub version: i64,
    /// The lease that the key is attached to, or [`LeaseId::NONE`].
    pub lease: LeaseId,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The key was created or got a new version.
    Put,
    /// The key was deleted, by a request or with its lease.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new version. Of a delete: key and `mod_revision` only.
    pub kv: KeyValue,
    /// The version that this one replaced, where it was read: see [`Event::lacks_prev`]. `None` also if there was none.
    pub prev: Option<KeyValue>,
}

impl Event {
    /// Whether there was a version before this one that nobody has read.
    pub fn lacks_prev(&self) -> bool {
        self.prev.is_none() && self.kind == EventKind::Put && self.kv.version > 1
    }
}

/// When a version was written, and whether it is a tombstone: all that the index knows of a row, and enough to name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) main: i64,
    pub(super) sub: u32,
    pub(super) tombstone: bool,
}

impl Stamp {
    /// The key of the row.
    pub(super) fn row_key(self) -> RowKey {
        let mut bytes = [0; 18];
        bytes[..8].copy_from_slice(&self.main.to_be_bytes());
        bytes[8] = b'_';
        bytes[9..17].copy_from_slice(&i64::from(self.sub).to_be_bytes());
        bytes[17] = b't';
        RowKey { bytes, len: if self.tombstone { 18 } else { 17 } }
    }

    /// Reads a row key; `None` if it is none.
    pub(super) fn of_row(row_key: &[u8]) -> Option<Stamp> {
        let tombstone = match (row_key.len(), row_key.last()) {
            (17, _) => false,
            (18, Some(b't')) => true,
            _ => return None,
        };
        let main = i64::from_be_bytes(row_key[..8].try_into().ok()?);
        let sub = i64::from_be_bytes(row_key[9..17].try_into().ok()?);
        (row_key[8] == b'_' && main > 0).then_some(Stamp { main, sub: u32::try_from(sub).ok()?, tombstone })
    }
}

/// Reads a row of [`Table::Versions`](crate::engine::Table::Versions): its revision, what happened to the key, and the version as it is
/// stored (of a tombstone: the key alone). `None` if it is no such row, or that of another revision.
pub fn read_row(row_key: &[u8], row: &Bytes) -> Option<(Revision, EventKind, KeyValue)> {
    let stamp = Stamp::of_row(row_key)?;
    let kv = decode(row)?;
    let revision = Revision(stamp.main);
    match stamp.tombstone {
        true => Some((revision, EventKind::Delete, kv)),
        false => (kv.mod_revision == revision).then_some((revision, EventKind::Put, kv)),
    }
}

/// The row value of a version: what [`read_row`] reads.
pub fn write_row(kv: &KeyValue) -> Bytes {
    encode(kv)
}

/// A row key on the stack.
#[derive(Clone, Copy)]
pub(super) struct RowKey {
    bytes: [u8; 18],
    len: usize,
}

impl RowKey {
    /// Before all rows of main revision `main`.
    pub(super) fn before(main: i64) -> RowKey {
        let mut key = Stamp { main, sub: 0, tombstone: false }.row_key();
        key.len = 8;
        key
    }
}

impl std::ops::Deref for RowKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Field numbers of `mvccpb.KeyValue`, with the wire type in the low three bits.
const KEY: u8 = 1 << 3 | 2;
const CREATE: u8 = 2 << 3;
const MOD: u8 = 3 << 3;
const VERSION: u8 = 4 << 3;
const VALUE: u8 = 5 << 3 | 2;
const LEASE: u8 = 6 << 3;
/// A `KeyValue` in a list of them.
const LISTED: u8 = 2 << 3 | 2;

/// The row value of a version. Fields in the order of their numbers, zeros left out: the bytes that etcd's encoder makes.
pub(super) fn encode(kv: &KeyValue) -> Bytes {
    let size = bytes_size(&kv.key)
        + number_size(kv.create_revision.0)
        + number_size(kv.mod_revision.0)
        + number_size(kv.version)
        + bytes_size(&kv.value)
        + number_size(kv.lease.0);
    let mut out = Vec::with_capacity(size);
    put_bytes(&mut out, KEY, &kv.key);
    put_number(&mut out, CREATE, kv.create_revision.0);
    put_number(&mut out, MOD, kv.mod_revision.0);
    put_number(&mut out, VERSION, kv.version);
    put_bytes(&mut out, VALUE, &kv.value);
    put_number(&mut out, LEASE, kv.lease.0);
    debug_assert_eq!(out.len(), size, "the size was computed by the same rules");
    out.into()
}

/// Adds a row to a list, as answers to ranges have it: field 2 of `etcdserverpb.RangeResponse`.
pub(super) fn list(out: &mut Vec<u8>, row: &[u8]) {
    out.push(LISTED);
    put_varint(out, row.len() as u64);
    out.extend_from_slice(row);
}

/// The row value of a tombstone: the key only.
pub(super) fn encode_tombstone(key: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes_size(key));
    put_bytes(&mut out, KEY, key);
    out.into()
}

fn varint_size(number: u64) -> usize {
    // Seven bits a byte, and one byte for 0.
    (70 - (number | 1).leading_zeros() as usize) / 7
}

fn bytes_size(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { 1 + varint_size(bytes.len() as u64) + bytes.len() }
}

fn number_size(number: i64) -> usize {
    if number == 0 { 0 } else { 1 + varint_size(number as u64) }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn put_number(out: &mut Vec<u8>, tag: u8, number: i64) {
    if number != 0 {
        out.push(tag);
        // Negative numbers take ten bytes, as protobuf's int64 does.
        put_varint(out, number as u64);
    }
}

/// Reads a row value without copying: key and value are slices of `row`. `None` if the bytes are no `mvccpb.KeyValue`.
pub(super) fn decode(row: &Bytes) -> Option<KeyValue> {
    let mut kv = KeyValue::default();
    let mut at = 0;
    while at < row.len() {
        match take_varint(row, &mut at)? {
            tag if tag == u64::from(KEY) => kv.key = take_slice(row, &mut at)?,
            tag if tag == u64::from(VALUE) => kv.value = take_slice(row, &mut at)?,
            tag if tag == u64::from(CREATE) => kv.create_revision = Revision(take_varint(row, &mut at)? as i64),
            tag if tag == u64::from(MOD) => kv.mod_revision = Revision(take_varint(row, &mut at)? as i64),
            tag if tag == u64::from(VERSION) => kv.version = take_varint(row, &mut at)? as i64,
            tag if tag == u64::from(LEASE) => kv.lease = LeaseId(take_varint(row, &mut at)? as i64),
            tag => skip(row, &mut at, tag)?,
        }
    }
    Some(kv)
}

/// The key of a row value, which our encoder writes first; falls back to a whole decode.
pub(super) fn key_of(row: &Bytes) -> Option<Bytes> {
    if row.first() == Some(&KEY) {
        let mut at = 1;
        return take_slice(row, &mut at);
    }
    decode(row).map(|kv| kv.key)
}

fn take_varint(row: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *row.get(*at)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take_slice(row: &Bytes, at: &mut usize) -> Option<Bytes> {
    let len = usize::try_from(take_varint(row, at)?).ok()?;
    let end = at.checked_add(len).filter(|end| *end <= row.len())?;
    let slice = row.slice(*at..end);
    *at = end;
    Some(slice)
}

/// Passes over a field of a newer writer.
fn skip(row: &[u8], at: &mut usize, tag: u64) -> Option<()> {
    let len = match tag & 7 {
        0 => return take_varint(row, at).map(drop),
        1 => 8,
        2 => usize::try_from(take_varint(row, at)?).ok()?,
        5 => 4,
        _ => return None,
    };
    *at = at.checked_add(len).filter(|end| *end <= row.len())?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::mvccpb;
    use prost::Message;

    fn example(lease: i64) -> KeyValue {
        KeyValue {
            key: Bytes::from_static(b"foo"),
            value: Bytes::from_static(b"bar"),
            create_revision: Revision(2),
            mod_revision: Revision(300),
            version: 4,
            lease: LeaseId(lease),
        }
    }

    fn to_pb(kv: &KeyValue) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: kv.key.clone(),
            create_revision: kv.create_revision.0,
            mod_revision: kv.mod_revision.0,
            version: kv.version,
            value: kv.value.clone(),
            lease: kv.lease.0,
        }
    }

    #[test]
    fn a_row_value_is_the_protobuf_encoding_to_the_byte() {
        assert_eq!(encode(&example(7)).as_ref(), b"\x0a\x03foo\x10\x02\x18\xac\x02\x20\x04\x2a\x03bar\x30\x07");
        for kv in [example(0), example(7), example(-1), example(i64::MAX), KeyValue::default()] {
            assert_eq!(encode(&kv), to_pb(&kv).encode_to_vec());
            assert_eq!(decode(&encode(&kv)), Some(kv));
        }
        let long = KeyValue { value: vec![b'x'; 70_000].into(), ..example(1) };
        assert_eq!(encode(&long), to_pb(&long).encode_to_vec());
        assert_eq!(encode_tombstone(b"foo").as_ref(), b"\x0a\x03foo");
    }

    #[test]
    fn decoding_shares_the_rows_memory() {
        let row = encode(&example(0));
        let kv = decode(&row).unwrap();
        assert!(row.as_ptr_range().contains(&kv.value.as_ptr()));
        assert_eq!(key_of(&row), Some(kv.key));
    }

    #[test]
    fn cut_or_mangled_rows_are_refused_without_a_panic() {
        let row = encode(&example(9));
        for cut in 1..row.len() {
            let part = row.slice(..cut);
            assert_eq!(decode(&part).is_some(), mvccpb::KeyValue::decode(part.as_ref()).is_ok(), "cut at {cut}");
        }
        assert_eq!(decode(&Bytes::from_static(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")), None);
        assert_eq!(decode(&Bytes::from_static(&[0x80; 12])), None);
    }

    #[test]
    fn fields_of_a_newer_writer_are_passed_over() {
        let mut row = encode(&example(9)).to_vec();
        row.extend_from_slice(b"\x3a\x02zz\x40\x05\x4d\x01\x02\x03\x04");
        assert_eq!(decode(&row.into()), Some(example(9)));
    }

    #[test]
    fn row_keys_are_etcds_and_sort_by_revision() {
        let put = Stamp { main: 0x0102, sub: 3, tombstone: false };
        assert_eq!(&*put.row_key(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03");
        let tombstone = Stamp { tombstone: true, ..put };
        assert_eq!(tombstone.row_key().last(), Some(&b't'));
        for stamp in [put, tombstone] {
            assert_eq!(Stamp::of_row(&stamp.row_key()), Some(stamp));
        }
        assert!(*RowKey::before(0x0102) < *put.row_key());
        assert!(*tombstone.row_key() < *RowKey::before(0x0103));
        assert_eq!(Stamp::of_row(b"short"), None);
    }
}
