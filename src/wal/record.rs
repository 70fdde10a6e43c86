//! Bytes of one record: etcd's frame around `walpb.Record{type = 1, crc = 2, data = 3}`.
//!
//! A frame starts with a 64-bit little-endian word: the record's length in the low 56 bits and, if the record is padded to a
//! multiple of eight, `0x80 | padding` in the top byte. Written by hand, because etcd writes fields even when they are zero
//! and a generated codec would not; and because the checksum leaves the type, the field tags and the padding uncovered, so
//! the reader has to insist on their one valid form to notice a flipped bit there.

use super::Mark;
use crate::types::{ConfState, Entry, EntryKind, HardState, Index, MemberId, Term};
use bytes::Bytes;

/// Bytes of the length word before each record.
pub(super) const WORD: usize = 8;

/// What a record holds. The numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Mark = 5,
}

/// A record as found; `data` is not yet checked against `crc`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub kind: Kind,
    pub crc: u32,
    pub data: &'a [u8],
}

/// Appends frames to a buffer and carries the checksum from one to the next.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// Frames not yet written.
    pub buffer: Vec<u8>,
    /// CRC32C over the data of every record so far, this segment's and all before it.
    pub crc: u32,
}

impl Encoder {
    pub fn metadata(&mut self, metadata: &[u8]) {
        self.record(Kind::Metadata, metadata, &[]);
    }

    /// A record without data that repeats the checksum so far: it opens a segment, and stands between batches as a barrier.
    pub fn crc(&mut self) {
        self.record(Kind::Crc, &[], &[]);
    }

    pub fn entry(&mut self, entry: &Entry) {
        let mut head = Small::default();
        head.field(0x08, entry_kind_number(entry.kind));
        head.field(0x10, entry.term.0);
        head.field(0x18, entry.index.0);
        // etcd leaves out the data of the empty entry that opens a term.
        if !entry.data.is_empty() {
            head.field(0x22, entry.data.len() as u64);
        }
        self.record(Kind::Entry, head.bytes(), &entry.data);
    }

    pub fn state(&mut self, state: &HardState) {
        let mut head = Small::default();
        head.field(0x08, state.term.0);
        head.field(0x10, state.vote.map_or(0, |vote| vote.0));
        head.field(0x18, state.commit.0);
        self.record(Kind::State, head.bytes(), &[]);
    }

    pub fn mark(&mut self, mark: &Mark, conf_state: &ConfState) {
        let mut head = Small::default();
        head.field(0x08, mark.index.0);
        head.field(0x10, mark.term.0);
        if *conf_state == ConfState::default() {
            return self.record(Kind::Mark, head.bytes(), &[]);
        }
        let body = conf_state_bytes(conf_state);
        head.field(0x1a, body.len() as u64);
        self.record(Kind::Mark, head.bytes(), &body);
    }

    /// A record of any kind, with any data.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn any(&mut self, kind: Kind, data: &[u8]) {
        self.record(kind, data, &[]);
    }

    /// One frame; its data is `head` followed by `body`, so that an entry's bytes are copied once.
    fn record(&mut self, kind: Kind, head: &[u8], body: &[u8]) {
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, head), body);
        let mut prefix = Small::default();
        prefix.field(0x08, kind as u64);
        prefix.field(0x10, u64::from(self.crc));
        let data_len = head.len() + body.len();
        if kind != Kind::Crc {
            prefix.field(0x1a, data_len as u64);
        }
        let len = prefix.bytes().len() + data_len;
        let padding = padding_of(len);
        self.buffer.reserve(WORD + len + padding);
        self.buffer.extend_from_slice(&word_of(len).to_le_bytes());
        self.buffer.extend_from_slice(prefix.bytes());
        self.buffer.extend_from_slice(head);
        self.buffer.extend_from_slice(body);
        self.buffer.extend_from_slice(&[0; 8][..padding]);
    }
}

fn padding_of(len: usize) -> usize {
    len.next_multiple_of(8) - len
}

fn word_of(len: usize) -> u64 {
    let padding = padding_of(len) as u64;
    if padding == 0 { len as u64 } else { len as u64 | (0x80 | padding) << 56 }
}

/// The record length that `word` announces, and the padding after it; `None` if no writer makes such a word.
pub(super) fn split_word(word: u64) -> Option<(usize, usize)> {
    let len = usize::try_from(word & ((1 << 56) - 1)).ok()?;
    (word_of(len) == word).then(|| (len, padding_of(len)))
}

/// What the first bytes of a record say: enough to know whether the length word can be right.
pub(super) struct Prefix {
    pub kind: Kind,
    pub crc: u32,
    /// Bytes of the record before its data.
    pub len: usize,
    /// Bytes of data.
    pub data_len: usize,
}

/// The longest prefix: three tags, a type of one byte, a checksum and a length of up to five.
pub(super) const PREFIX_MAX: usize = 3 + 1 + 5 + 5;

/// Reads the fields before the data. `None` if they are not in the one form that is ever written.
pub(super) fn prefix(record: &[u8]) -> Option<Prefix> {
    let mut rest = record;
    let kind = match field(&mut rest, 0x08)? {
        1 => Kind::Metadata,
        2 => Kind::Entry,
        3 => Kind::State,
        4 => Kind::Crc,
        5 => Kind::Mark,
        _ => return None,
    };
    let crc = u32::try_from(field(&mut rest, 0x10)?).ok()?;
    if kind == Kind::Crc {
        return Some(Prefix { kind, crc, len: record.len() - rest.len(), data_len: 0 });
    }
    let data_len = usize::try_from(field(&mut rest, 0x1a)?).ok()?;
    Some(Prefix { kind, crc, len: record.len() - rest.len(), data_len })
}

/// Decodes the data of an entry record; `None` for anything that is not exactly an entry.
pub(super) fn entry(data: &[u8]) -> Option<Entry> {
    let mut rest = data;
    let kind = match optional(&mut rest, 0x08)? {
        0 => EntryKind::Normal,
        1 => EntryKind::ConfChange,
        2 => EntryKind::ConfChangeV2,
        _ => return None,
    };
    let term = Term(optional(&mut rest, 0x10)?);
    let index = Index(optional(&mut rest, 0x18)?);
    if term.0 == 0 || index.0 == 0 {
        return None;
    }
    let mut body: &[u8] = &[];
    if !rest.is_empty() {
        let len = usize::try_from(field(&mut rest, 0x22)?).ok()?;
        if len != rest.len() {
            return None;
        }
        body = rest;
    }
    Some(Entry { term, index, kind, data: Bytes::copy_from_slice(body) })
}

/// Decodes the data of a hard state record.
pub(super) fn state(data: &[u8]) -> Option<HardState> {
    let mut rest = data;
    let term = Term(optional(&mut rest, 0x08)?);
    let vote = Some(MemberId(optional(&mut rest, 0x10)?)).filter(|vote| vote.0 != 0);
    let commit = Index(optional(&mut rest, 0x18)?);
    rest.is_empty().then_some(HardState { term, vote, commit })
}

/// Decodes the data of a snapshot mark; logs of etcd before 3.5 have no membership in it.
pub(super) fn mark(data: &[u8]) -> Option<(Mark, ConfState)> {
    let mut rest = data;
    let index = Index(optional(&mut rest, 0x08)?);
    let term = Term(optional(&mut rest, 0x10)?);
    let mut conf_state = ConfState::default();
    if !rest.is_empty() {
        let len = usize::try_from(field(&mut rest, 0x1a)?).ok()?;
        if len != rest.len() {
            return None;
        }
        conf_state = conf_state_of(rest)?;
    }
    Some((Mark { index, term }, conf_state))
}

fn entry_kind_number(kind: EntryKind) -> u64 {
    match kind {
        EntryKind::Normal => 0,
        EntryKind::ConfChange => 1,
        EntryKind::ConfChangeV2 => 2,
    }
}

fn conf_state_bytes(conf_state: &ConfState) -> Vec<u8> {
    let lists = [
        (0x08, &conf_state.voters),
        (0x10, &conf_state.learners),
        (0x18, &conf_state.voters_outgoing),
        (0x20, &conf_state.learners_next),
    ];
    let mut bytes = Vec::new();
    for (tag, members) in lists {
        for member in members {
            bytes.push(tag);
            put_varint(&mut bytes, member.0);
        }
    }
    bytes.extend_from_slice(&[0x28, u8::from(conf_state.auto_leave)]);
    bytes
}

fn conf_state_of(mut rest: &[u8]) -> Option<ConfState> {
    let mut conf_state = ConfState::default();
    while let Some((&tag, after)) = rest.split_first() {
        rest = after;
        let number = varint(&mut rest)?;
        match tag {
            0x08 => conf_state.voters.push(MemberId(number)),
            0x10 => conf_state.learners.push(MemberId(number)),
            0x18 => conf_state.voters_outgoing.push(MemberId(number)),
            0x20 => conf_state.learners_next.push(MemberId(number)),
            0x28 if number <= 1 => conf_state.auto_leave = number == 1,
            _ => return None,
        }
    }
    Some(conf_state)
}

/// A few fields without an allocation: four tags and four varints at most.
struct Small {
    bytes: [u8; 44],
    len: usize,
}

impl Default for Small {
    fn default() -> Small {
        Small { bytes: [0; 44], len: 0 }
    }
}

impl Small {
    fn field(&mut self, tag: u8, mut number: u64) {
        self.push(tag);
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes `tag` and a varint off the front.
fn field(rest: &mut &[u8], tag: u8) -> Option<u64> {
    let (&first, after) = rest.split_first()?;
    *rest = after;
    if first == tag { varint(rest) } else { None }
}

/// As [`field`], but a field that is not there is 0: etcd 3.7 leaves out those that nobody has set, earlier versions write all.
fn optional(rest: &mut &[u8], tag: u8) -> Option<u64> {
    if rest.first() == Some(&tag) { field(rest, tag) } else { Some(0) }
}

/// Takes a varint off the front; only the shortest form of a number counts.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for (at, &byte) in rest.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            return None;
        }
        number |= bits << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return (byte != 0 || at == 0).then_some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::{raftpb, walpb};
    use prost::Message;

    /// The data of the only record in `encoder`, decoded by generated code.
    fn only(encoder: &Encoder) -> walpb::Record {
        let word = u64::from_le_bytes(encoder.buffer[..8].try_into().unwrap());
        let (len, padding) = split_word(word).unwrap();
        assert_eq!(encoder.buffer.len(), WORD + len + padding);
        walpb::Record::decode(&encoder.buffer[WORD..WORD + len]).unwrap()
    }

    #[test]
    fn generated_code_reads_every_kind_of_record() {
        let mut encoder = Encoder::default();
        let written = Entry {
            term: Term(3),
            index: Index(70_000),
            kind: EntryKind::ConfChange,
            data: Bytes::from_static(b"xyz"),
        };
        encoder.entry(&written);
        let record = only(&encoder);
        assert_eq!((record.r#type, record.crc), (2, crc32c::crc32c(&record.data)));
        let read = raftpb::Entry::decode(record.data.clone()).unwrap();
        assert_eq!((read.term, read.index, read.r#type, &read.data[..]), (3, 70_000, 1, &b"xyz"[..]));
        assert_eq!(entry(&record.data), Some(written));

        let conf_state = ConfState {
            voters: vec![MemberId(1), MemberId(u64::MAX)],
            learners: vec![MemberId(3)],
            voters_outgoing: vec![MemberId(4)],
            learners_next: vec![MemberId(5)],
            auto_leave: true,
        };
        let mut encoder = Encoder::default();
        let written = Mark { index: Index(9), term: Term(2) };
        encoder.mark(&written, &conf_state);
        let record = only(&encoder);
        let read = walpb::Snapshot::decode(record.data.clone()).unwrap();
        assert_eq!(read.conf_state.unwrap().voters, [1, u64::MAX]);
        assert_eq!(mark(&record.data), Some((written, conf_state)));
    }

    #[test]
    fn a_length_word_has_one_form() {
        assert_eq!(split_word(0x8400_0000_0000_0004), Some((4, 4)));
        assert_eq!(split_word(0x10), Some((16, 0)));
        assert_eq!(split_word(0x8300_0000_0000_0004), None);
        assert_eq!(split_word(0x11), None);
    }

    #[test]
    fn padded_varints_and_foreign_fields_are_refused() {
        assert!(state(&[0x08, 1, 0x10, 0, 0x18, 0x81, 0x00]).is_none());
        assert!(state(&[0x08, 1, 0x10, 0, 0x18, 1, 0x20, 1]).is_none());
        assert!(entry(&[0x08, 0, 0x10, 0, 0x18, 1]).is_none());
    }
}
