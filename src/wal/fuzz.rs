//! Any bytes as a log: it is opened or refused, and one that was opened goes on.

use super::{
    Options, Recovered, Wal,
    record::{self, Encoder, WORD},
    segment::Segment,
};
use crate::{
    io::{Disk, DiskFile, sim_disk::SimDisk},
    types::{Entry, EntryKind, Fault, Index, Term},
};
use bytes::Bytes;
use std::path::Path;

/// Bits of the first byte.
const RESEALED: u8 = 1;
const LAST_SEQUENCE: u8 = 2;
const OPTIONS: Options = Options { segment_bytes: 16 << 10, keep_all: false };

/// What lies on the disk, and from where on it is wanted.
struct Plan {
    from: Index,
    segments: Vec<(Segment, Vec<u8>)>,
}

/// Eight bytes say how the others are cut into segments: how they are to be read, what the state machine has, the first indexes of the second and
/// the third segment, and the lengths of the first and the second.
fn plan(data: &[u8]) -> Option<Plan> {
    let ([how, from, second, third, lengths @ ..], rest) = data.split_first_chunk::<8>()?;
    let [first_len, second_len] =
        [&lengths[..2], &lengths[2..]].map(|len| usize::from(u16::from_le_bytes([len[0], len[1]])));
    let (one, rest) = rest.split_at(first_len.min(rest.len()));
    let (two, three) = rest.split_at(second_len.min(rest.len()));
    let sequence = if how & LAST_SEQUENCE != 0 { u64::MAX - 3 } else { 0 };
    let parts = [(Index(0), one), (number(*second), two), (number(*third), three)];
    let parts = parts.into_iter().filter(|(_, bytes)| !bytes.is_empty()).zip(sequence..);
    let mut crc = 0;
    let segments = parts.map(|((first, bytes), sequence)| {
        let bytes = if how & RESEALED != 0 { resealed(bytes, &mut crc) } else { bytes.to_vec() };
        (Segment { sequence, first }, bytes)
    });
    Some(Plan { from: number(*from), segments: segments.collect() })
}

/// Small numbers, and those at the other end.
fn number(byte: u8) -> Index {
    Index(if byte < 0xf0 { byte.into() } else { u64::MAX - u64::from(0xff - byte) })
}

/// The same records with checksums that fit, so that what is in them matters. What is no record ends it as it stands. `crc` goes on from segment
/// to segment.
fn resealed(bytes: &[u8], crc: &mut u32) -> Vec<u8> {
    let (mut encoder, mut rest) = (Encoder { crc: *crc, ..Encoder::default() }, bytes);
    while let Some(word) = rest.first_chunk::<WORD>() {
        let Some((len, padding)) = record::split_word(u64::from_le_bytes(*word)) else { break };
        let Some(record) = len.checked_add(WORD).and_then(|end| rest.get(WORD..end)) else { break };
        let Some(prefix) = record::prefix(record) else { break };
        let Some(data) = record.get(prefix.len..) else { break };
        encoder.any(prefix.kind, data);
        rest = rest.get(WORD + len + padding..).unwrap_or_default();
    }
    *crc = encoder.crc;
    encoder.buffer.extend_from_slice(rest);
    encoder.buffer
}

/// Opens the log that `data` is.
pub(crate) fn target(data: &[u8]) {
    let Some(Plan { from, segments }) = plan(data) else { return };
    let (disk, dir) = (SimDisk::new(1), Path::new("/wal"));
    disk.create_dir(dir).expect("a disk in memory");
    for (segment, bytes) in &segments {
        let mut file = disk.create(&dir.join(segment.name())).expect("a disk in memory");
        file.write_at(0, bytes).expect("a disk in memory");
    }
    let read = Wal::read(&disk, dir, from);
    let (mut wal, recovered) = match (Wal::open(disk.clone(), dir, from, OPTIONS), read) {
        (Ok((wal, recovered)), Ok(read)) => {
            assert_eq!(recovered, read, "a log is opened as it is read");
            (wal, recovered)
        }
        (Err(Fault::Damaged { .. } | Fault::Unusable { .. }), Err(_)) => return,
        (opened, read) => panic!("opened: {:?}, but read: {read:?}", opened.map(|(_, recovered)| recovered)),
    };
    check(from, &recovered);
    let again = Wal::read(&disk, dir, from).expect("a log that was opened is whole");
    assert_eq!(again, Recovered { cut: None, ..recovered.clone() }, "what was cut is gone, and nothing else");
    go_on(&mut wal, &recovered);
    let again = Wal::read(&disk, dir, from).expect("what was appended fits");
    assert!(again.entries.len() >= recovered.entries.len() && again.entries.starts_with(&recovered.entries));
}

fn check(from: Index, recovered: &Recovered) {
    let Recovered { start, entries, mark, hard_state, .. } = recovered;
    assert!(*start >= from, "nothing that was not asked for");
    for (entry, before) in entries.iter().zip(start.0..) {
        assert_eq!(entry.index.previous(), Some(Index(before)), "no entry is missing");
    }
    assert!(entries.windows(2).all(|pair| pair[0].term <= pair[1].term), "terms ascend");
    assert!(mark.index <= hard_state.commit || *mark == super::Mark::default(), "a mark is committed");
}

/// Appends an entry where the log says that it ends, if the log reaches as far as the state.
fn go_on(wal: &mut Wal<SimDisk>, recovered: &Recovered) {
    let last = Index(recovered.start.0 + recovered.entries.len() as u64);
    let reaches = recovered.start_term.is_some() || !recovered.entries.is_empty() || last == Index(0);
    // Where the numbers end a log cannot go on.
    if !reaches || wal.last() != last || last.0 >= u64::MAX - 1 {
        return;
    }
    let before = recovered.entries.last().map(|entry| entry.term).or(recovered.start_term).unwrap_or_default();
    let term = Term(before.max(recovered.hard_state.term).0.max(1));
    let entry = Entry { index: last.next(), term, kind: EntryKind::Normal, data: Bytes::from_static(b"next") };
    wal.append(None, std::slice::from_ref(&entry)).expect("a disk in memory");
    wal.sync().expect("a disk in memory");
    assert_eq!(wal.last(), entry.index);
}

/// Logs of etcd's and of ours, as they are and with checksums that go along.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let etcd = [&include_bytes!("testdata/etcd-3.4.23.wal")[..], include_bytes!("testdata/etcd-3.7.1.wal")];
    let mut seeds = Vec::new();
    for how in [0, RESEALED] {
        for from in [0, 3] {
            seeds.extend(etcd.map(|log| [&[how, from, 0, 0, 0xff, 0xff, 0, 0], log].concat()));
        }
        seeds.push(ours(how));
    }
    seeds
}

/// Three segments, with an entry that replaces another and a mark that empties the log.
fn ours(how: u8) -> Vec<u8> {
    let entry = |term: u64, index: u64| Entry {
        term: Term(term),
        index: Index(index),
        kind: EntryKind::Normal,
        data: Bytes::from(vec![b'x'; 40]),
    };
    let mut encoder = Encoder::default();
    let (mut lens, mut begun) = (Vec::new(), 0);
    for part in 0..3_u64 {
        encoder.crc();
        encoder.metadata(b"who");
        let commit = Index(2 * part);
        encoder.state(&crate::types::HardState { term: Term(part + 1), vote: None, commit });
        encoder.mark(&super::Mark { index: commit, term: Term(part) }, &crate::types::ConfState::default());
        for at in 1..=2 {
            encoder.entry(&entry(part + 1, 2 * part + at));
        }
        encoder.crc();
        encoder.entry(&entry(part + 1, 2 * part + 2));
        lens.push((encoder.buffer.len() - begun) as u16);
        begun = encoder.buffer.len();
    }
    encoder.mark(&super::Mark { index: Index(9), term: Term(4) }, &crate::types::ConfState::default());
    let [one, two] = [lens[0], lens[1]].map(u16::to_le_bytes);
    [&[how, 0, 3, 5, one[0], one[1], two[0], two[1]], &encoder.buffer[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_logs_that_open() {
        for seed in seeds() {
            let Plan { from, segments } = plan(&seed).expect("it has a head");
            let (disk, dir) = (SimDisk::new(1), Path::new("/wal"));
            disk.create_dir(dir).unwrap();
            for (segment, bytes) in &segments {
                disk.create(&dir.join(segment.name())).unwrap().write_at(0, bytes).unwrap();
            }
            Wal::read(&disk, dir, from).expect("it opens");
        }
    }

    /// A log of one segment with these records after its head.
    fn log(fill: impl Fn(&mut Encoder)) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.crc();
        encoder.metadata(b"who");
        fill(&mut encoder);
        [&[0, 0, 0, 0, 0xff, 0xff, 0, 0], &encoder.buffer[..]].concat()
    }

    #[test]
    fn an_entry_after_a_mark_at_the_last_index_is_damage_and_no_overflow() {
        let last = super::super::Mark { index: Index(u64::MAX), term: Term(1) };
        let data = log(|encoder| {
            encoder.mark(&last, &crate::types::ConfState::default());
            let entry = Entry { term: Term(1), index: Index(7), kind: EntryKind::Normal, data: Bytes::new() };
            encoder.entry(&entry);
        });
        target(&data);
        let (disk, dir) = (SimDisk::new(1), Path::new("/wal"));
        disk.create_dir(dir).unwrap();
        let segment = Segment { sequence: 0, first: Index(0) };
        disk.create(&dir.join(segment.name())).unwrap().write_at(0, &data[8..]).unwrap();
        assert!(matches!(Wal::read(&disk, dir, Index(0)), Err(Fault::Damaged { .. })));
    }

    #[test]
    fn two_segments_with_the_last_number_are_no_chain_and_no_overflow() {
        let (disk, dir) = (SimDisk::new(1), Path::new("/wal"));
        disk.create_dir(dir).unwrap();
        for first in [0, 1] {
            let segment = Segment { sequence: u64::MAX, first: Index(first) };
            disk.create(&dir.join(segment.name())).unwrap().write_at(0, b"anything").unwrap();
        }
        assert!(matches!(Wal::read(&disk, dir, Index(0)), Err(Fault::Damaged { .. })));
    }
}
