//! Any bytes as a copy on disk: a proxy begins with it, or sets it aside.

use super::{
    Keep, Stamp,
    format::{Encoder, End, Head, Note, PREFIX_BYTES, Record, sum},
    head, read,
};
use crate::{
    mvcc::RangeQuery,
    pb::mvccpb,
    server::Header,
    types::{ClusterId, KeyRange, MemberId, Revision, Term},
    watch as hub,
};
use std::path::Path;

/// The first byte: whether checksums are to be made right.
const CHAINED: u8 = 1;
/// Magic and version.
const PREFACE_BYTES: usize = 12;

/// The same records with checksums that fit, so that what is in them matters. What is no record ends it as it stands.
fn chained(mut file: Vec<u8>) -> Vec<u8> {
    let Some(preface) = file.get(..PREFACE_BYTES) else { return file };
    let (mut chain, mut at) = (crc32c::crc32c(preface), PREFACE_BYTES);
    while let Some(prefix) = file.get(at..at + PREFIX_BYTES) {
        let length = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
        let Some([kind, body @ ..]) = file.get(at + PREFIX_BYTES..at + PREFIX_BYTES + length) else { break };
        chain = sum(chain, *kind, body);
        file[at + 4..at + PREFIX_BYTES].copy_from_slice(&chain.to_le_bytes());
        at += PREFIX_BYTES + length;
    }
    file
}

/// Begins with what `data` is.
pub(crate) fn target(data: &[u8]) {
    let Some((how, file)) = data.split_first() else { return };
    let file = if how & CHAINED != 0 { chained(file.to_vec()) } else { file.to_vec() };
    let Ok((_, head)) = head(&file[..], file.len() as u64) else { return };
    let (range, note) = (head.range(), head.note.unwrap_or_default());
    // So little that some of it is forgotten again.
    let keep = Keep { revisions: 4, bytes: 4_096 };
    let source = (&file[..], file.len() as u64);
    let Ok(writer) = read(source, Path::new("copy"), &range, keep, hub::Options::default()) else { return };
    let copy = writer.copy();
    assert!(copy.revision() >= Revision(note.revision) && copy.revision() == writer.revision());
    // Whoever follows it asks for what comes next.
    let next = copy.revision().next();
    let found = copy.reader().range(&RangeQuery::new(range.clone())).expect("memory").expect("the current revision");
    assert!(found.kvs.iter().all(|kv| range.contains(&kv.key) && kv.mod_revision < next), "{found:?}");
    assert_eq!((found.kvs.len(), found.count), (copy.reader().keys_total(), found.kvs.len() as i64));
    let history = copy.reader().history(Revision(note.revision).next(), copy.revision(), &|_| true, true, 1 << 20);
    if let Ok(part) = history.expect("memory") {
        assert!(part.events.windows(2).all(|pair| pair[0].0 < pair[1].0), "{:?}", part.events);
    }
}

/// A copy with some history, as it is written.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let range = KeyRange::prefix("k".into());
    let header = Header { cluster_id: ClusterId(7), member_id: MemberId(8), revision: Revision(10), term: Term(2) };
    let stamp = Stamp { wall_ms: 1_700_000_000_000, boot_ms: 50_000, boot_id: 3 };
    let note = |revision| Note::of(&Header { revision: Revision(revision), ..header }).at(stamp);
    let kv = |key: &'static str, version, create_revision, mod_revision| mvccpb::KeyValue {
        key: key.into(),
        value: "value".into(),
        version,
        create_revision,
        mod_revision,
        lease: 0,
    };
    let put = |kv| mvccpb::Event { kv: Some(kv), ..Default::default() };
    let deleted = mvccpb::KeyValue { key: "ka".into(), mod_revision: 13, ..Default::default() };
    let delete = mvccpb::Event { r#type: mvccpb::event::EventType::Delete.into(), kv: Some(deleted), prev_kv: None };
    let records = [
        Record::Head(Head::new(&range, note(10), 3)),
        Record::Keys(vec![kv("ka", 2, 4, 9), kv("kb", 1, 5, 5)]),
        Record::End(End { keys: 2 }),
        Record::Events(vec![put(kv("ka", 3, 4, 11)), put(kv("kc", 1, 11, 11)), put(kv("kc", 2, 11, 12))]),
        Record::Note(note(12)),
        Record::Events(vec![delete]),
        Record::Note(note(15)),
    ];
    let mut file = Vec::new();
    let mut encoder = Encoder::begin(&mut file);
    records.into_iter().for_each(|record| encoder.add(record, &mut file));
    vec![[&[0], &file[..]].concat(), [&[CHAINED], &file[..]].concat()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(file: &[u8]) -> Result<Revision, String> {
        let range = KeyRange::prefix("k".into());
        let source = (file, file.len() as u64);
        let read = read(source, Path::new("copy"), &range, Keep::default(), hub::Options::default());
        read.map(|writer| writer.revision()).map_err(|why| why.to_string())
    }

    #[test]
    fn the_seeds_are_copies() {
        for seed in seeds() {
            assert_eq!(begun(&seed[1..]), Ok(Revision(15)));
            assert_eq!(chained(seed[1..].to_vec()), seed[1..], "its checksums are right already");
        }
    }

    /// A proxy that began with it would have counted on, and stopped.
    #[test]
    fn a_copy_at_the_end_of_all_revisions_is_damaged() {
        let last = |at: usize| {
            let notes = [0, 1].map(|number| {
                let revision = Revision(if number == at { i64::MAX } else { 10 });
                Note::of(&Header { cluster_id: ClusterId(7), member_id: MemberId(8), revision, term: Term(2) })
            });
            let mut file = Vec::new();
            let mut encoder = Encoder::begin(&mut file);
            let range = KeyRange::prefix("k".into());
            encoder.add(Record::Head(Head::new(&range, notes[0], 0)), &mut file);
            encoder.add(Record::End(End { keys: 0 }), &mut file);
            encoder.add(Record::Note(notes[1]), &mut file);
            begun(&file)
        };
        assert_eq!(last(2), Ok(Revision(10)));
        assert!(last(0).is_err_and(|why| why.contains("something else")));
        assert!(last(1).is_err_and(|why| why.contains("before what it is about")));
    }
}
