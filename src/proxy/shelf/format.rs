//! How a copy lies in a file.
//!
//! ```text
//!   magic, version │ Head │ Keys … │ End │ Events … Note │ Note │ …
//!                    └─ the range at one revision ─┘ └ appended: what happened since, and up to when it was known to be current
//! ```
//!
//! Each record has its length, and a checksum that goes on from the record before it: none can be missing or from another file. A file is
//! moved into place when it has its End, so one without is damaged. What is appended ends with a Note, and counts if that is whole: what
//! a crash has torn there is as if it had not been written.

use super::Stamp;
use crate::{
    pb::{etcdserverpb as pb, mvccpb},
    server::Header,
    types::KeyRange,
};
use prost::Message;
use std::io::{self, Read};

/// What each file begins with.
const MAGIC: [u8; 8] = *b"henge\x00cp";
/// The newest version that this program knows, and the one that it writes.
const VERSION: u32 = 1;
/// No record is larger: a length beyond is damage.
const RECORD_BYTES_MAX: u32 = 1 << 30;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// The disk says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is no saved copy")]
    Foreign,
    /// A later version of this program wrote it.
    #[error("it has version {0}, and this program knows versions up to {VERSION}")]
    Newer(u32),
    /// The checksum of a record is another, or it makes no sense.
    #[error("it is damaged at byte {at}: {what}")]
    Damaged {
        /// Where the record begins.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// What a file says of its copy.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Head {
    #[prost(bytes = "bytes", tag = "1")]
    key: bytes::Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: bytes::Bytes,
    #[prost(message, optional, tag = "3")]
    pub(super) note: Option<Note>,
    /// Upstream was asked to compact up to here.
    #[prost(int64, tag = "4")]
    pub(super) compacted: i64,
}

impl Head {
    pub(super) fn new(range: &KeyRange, note: Note, compacted: i64) -> Head {
        let (key, range_end) = super::super::feed::to_wire(range);
        Head { key, range_end, note: Some(note), compacted }
    }

    pub(super) fn range(&self) -> KeyRange {
        KeyRange::from_wire(self.key.clone(), self.range_end.clone())
    }
}

/// Up to which revision all is in the file, and when nothing else was there upstream.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Note {
    #[prost(uint64, tag = "1")]
    pub(super) cluster_id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) member_id: u64,
    #[prost(uint64, tag = "3")]
    pub(super) term: u64,
    #[prost(int64, tag = "4")]
    pub(super) revision: i64,
    #[prost(int64, tag = "5")]
    wall_ms: i64,
    #[prost(int64, tag = "6")]
    boot_ms: i64,
    #[prost(fixed64, tag = "7")]
    boot_high: u64,
    #[prost(fixed64, tag = "8")]
    boot_low: u64,
}

impl Note {
    /// Of a copy that upstream has said this about, at no time yet.
    pub(super) fn of(header: &Header) -> Note {
        Note {
            cluster_id: header.cluster_id.0,
            member_id: header.member_id.0,
            term: header.term.0,
            revision: header.revision.0,
            ..Note::default()
        }
    }

    /// Whether a history can be at its revision, and go on from there.
    pub(super) fn is_of_a_history(&self) -> bool {
        (1..i64::MAX / 2).contains(&self.revision)
    }

    pub(super) fn at(self, stamp: Stamp) -> Note {
        let Stamp { wall_ms, boot_ms, boot_id } = stamp;
        Note { wall_ms, boot_ms, boot_high: (boot_id >> 64) as u64, boot_low: boot_id as u64, ..self }
    }

    pub(super) fn stamp(&self) -> Stamp {
        let boot_id = u128::from(self.boot_high) << 64 | u128::from(self.boot_low);
        Stamp { wall_ms: self.wall_ms, boot_ms: self.boot_ms, boot_id }
    }
}

/// The last of the records that have the range.
#[derive(Clone, PartialEq, Message)]
pub(super) struct End {
    #[prost(uint64, tag = "1")]
    pub(super) keys: u64,
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    Head(Head),
    Keys(Vec<mvccpb::KeyValue>),
    End(End),
    /// Whole revisions.
    Events(Vec<mvccpb::Event>),
    Note(Note),
}

impl Record {
    /// Its kind on disk, and its bytes.
    fn encoded(self) -> (u8, Vec<u8>) {
        match self {
            Record::Head(head) => (1, head.encode_to_vec()),
            Record::Keys(kvs) => (2, pb::RangeResponse { kvs, ..Default::default() }.encode_to_vec()),
            Record::End(end) => (3, end.encode_to_vec()),
            Record::Events(events) => (4, pb::WatchResponse { events, ..Default::default() }.encode_to_vec()),
            Record::Note(note) => (5, note.encode_to_vec()),
        }
    }

    fn decoded(kind: u8, body: bytes::Bytes) -> Option<Record> {
        Some(match kind {
            1 => Record::Head(Head::decode(body).ok()?),
            2 => Record::Keys(pb::RangeResponse::decode(body).ok()?.kvs),
            3 => Record::End(End::decode(body).ok()?),
            4 => Record::Events(pb::WatchResponse::decode(body).ok()?.events),
            5 => Record::Note(Note::decode(body).ok()?),
            _ => return None,
        })
    }
}

/// What precedes a record: its length without this, and its checksum.
pub(super) const PREFIX_BYTES: usize = 8;

/// Makes the bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoder {
    chain: u32,
}

impl Encoder {
    /// For the records of a new file, which begins with what is written to `out`.
    pub(super) fn begin(out: &mut Vec<u8>) -> Encoder {
        let preface = preface(VERSION);
        out.extend(preface);
        Encoder { chain: crc32c::crc32c(&preface) }
    }

    /// Adds a record.
    pub(super) fn add(&mut self, record: Record, out: &mut Vec<u8>) {
        let (kind, body) = record.encoded();
        let length = u32::try_from(body.len() + 1).ok().filter(|length| *length <= RECORD_BYTES_MAX);
        let length = length.expect("a record has some pairs of what came in one message, or one");
        self.chain = sum(self.chain, kind, &body);
        out.extend(length.to_le_bytes());
        out.extend(self.chain.to_le_bytes());
        out.push(kind);
        out.extend(body);
    }
}

fn preface(version: u32) -> [u8; 12] {
    let mut preface = [0; 12];
    preface[..8].copy_from_slice(&MAGIC);
    preface[8..].copy_from_slice(&version.to_le_bytes());
    preface
}

pub(super) fn sum(chain: u32, kind: u8, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(chain, &[kind]), body)
}

/// Reads the records of a file.
pub(super) struct Decoder<R> {
    file: R,
    /// Where the next record begins, and where the file ends.
    at: u64,
    bytes: u64,
    chain: u32,
}

impl<R: Read> Decoder<R> {
    /// A file of so many bytes, from its beginning.
    pub(super) fn open(mut file: R, bytes: u64) -> Result<Decoder<R>, Unreadable> {
        let mut found = [0; 12];
        if bytes < found.len() as u64 {
            return Err(Unreadable::Foreign);
        }
        file.read_exact(&mut found)?;
        let version = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
        match version {
            _ if found[..8] != MAGIC || version == 0 => Err(Unreadable::Foreign),
            VERSION => Ok(Decoder { file, at: found.len() as u64, bytes, chain: crc32c::crc32c(&found) }),
            newer => Err(Unreadable::Newer(newer)),
        }
    }

    /// What is before is no record of a sound file.
    pub(super) fn damaged(&self, what: &'static str) -> Unreadable {
        Unreadable::Damaged { at: self.at, what }
    }

    /// The next record; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Record>, Unreadable> {
        let left = self.bytes - self.at;
        if left == 0 {
            return Ok(None);
        }
        if left < PREFIX_BYTES as u64 {
            return Err(self.damaged("it ends in the middle of a record"));
        }
        let mut prefix = [0; PREFIX_BYTES];
        self.file.read_exact(&mut prefix)?;
        let [length, wanted] =
            [&prefix[..4], &prefix[4..]].map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
        if length == 0 || length > RECORD_BYTES_MAX {
            return Err(self.damaged("a record has an impossible length"));
        }
        if u64::from(length) > left - PREFIX_BYTES as u64 {
            return Err(self.damaged("it ends in the middle of a record"));
        }
        let mut body = vec![0; length as usize];
        self.file.read_exact(&mut body)?;
        let chain = sum(self.chain, body[0], &body[1..]);
        if chain != wanted {
            return Err(self.damaged("a checksum is wrong"));
        }
        let Some(record) = Record::decoded(body[0], bytes::Bytes::from(body).slice(1..)) else {
            return Err(self.damaged("a record makes no sense"));
        };
        (self.chain, self.at) = (chain, self.at + PREFIX_BYTES as u64 + u64::from(length));
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn records() -> Vec<Record> {
        let range = KeyRange::prefix(Bytes::from_static(b"jobs/"));
        let note = Note { cluster_id: 7, member_id: 8, term: 2, revision: 10, ..Note::default() };
        let note = note.at(Stamp { wall_ms: 1_700_000_000_000, boot_ms: 50_000, boot_id: u128::MAX / 3 });
        let kv = |key: &'static str| mvccpb::KeyValue { key: key.into(), mod_revision: 9, ..Default::default() };
        let event = mvccpb::Event { kv: Some(kv("jobs/a")), ..Default::default() };
        vec![
            Record::Head(Head::new(&range, note, 3)),
            Record::Keys(vec![kv("jobs/a"), kv("jobs/b")]),
            Record::End(End { keys: 2 }),
            Record::Events(vec![event]),
            Record::Note(Note { revision: 12, ..note }),
        ]
    }

    fn file() -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::begin(&mut out);
        records().into_iter().for_each(|record| encoder.add(record, &mut out));
        out
    }

    /// The records, and why there are no more.
    fn read(file: &[u8]) -> (Vec<Record>, Option<Unreadable>) {
        let mut found = Vec::new();
        let mut decoder = match Decoder::open(file, file.len() as u64) {
            Ok(decoder) => decoder,
            Err(why) => return (found, Some(why)),
        };
        loop {
            match decoder.next() {
                Ok(Some(record)) => found.push(record),
                Ok(None) => return (found, None),
                Err(why) => return (found, Some(why)),
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let (found, why) = read(&file());
        assert_eq!((found, why.map(|why| why.to_string())), (records(), None));
        let Record::Head(head) = &records()[0] else { unreachable!() };
        assert_eq!(head.range(), KeyRange::prefix(Bytes::from_static(b"jobs/")));
        assert_eq!(head.note.unwrap().stamp().boot_id, u128::MAX / 3);
    }

    #[test]
    fn the_format_stays_as_it_is() {
        let digest = crc32c::crc32c(&file());
        assert_eq!((file().len(), &file()[..12]), (GOLDEN.0, &b"henge\x00cp\x01\0\0\0"[..]));
        assert_eq!(digest, GOLDEN.1, "files of earlier versions have to be readable: a change is a new version");
    }

    const GOLDEN: (usize, u32) = (189, 0x96227a12);

    #[test]
    fn other_files_and_later_versions_are_told_apart() {
        let mut newer = file();
        newer[8] = 2;
        assert!(matches!(read(&newer).1, Some(Unreadable::Newer(2))));
        for foreign in [&b""[..], b"short", b"something else entirely"] {
            assert!(matches!(read(foreign).1, Some(Unreadable::Foreign)), "{foreign:?}");
        }
    }

    proptest! {
        #[test]
        fn a_torn_file_has_a_beginning_of_its_records_and_nothing_else(cut in 12..file().len()) {
            let (found, why) = read(&file()[..cut]);
            prop_assert_eq!(&found[..], &records()[..found.len()]);
            prop_assert!(why.is_some() || found.len() < records().len());
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(at in 0..file().len() * 8) {
            let mut file = file();
            file[at / 8] ^= 1 << (at % 8);
            let (found, why) = read(&file);
            prop_assert!(why.is_some());
            prop_assert_eq!(&found[..], &records()[..found.len()]);
        }
    }
}
