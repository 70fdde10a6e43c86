use super::*;
use crate::{
    mvcc::RangeQuery,
    proxy::{
        copy::{Keep, Known, Loading, Writer},
        fence::Proof,
    },
    server::Header,
    types::{ClusterId, LeaseId, MemberId, Term},
    watch as hub,
};
use bytes::Bytes;

fn range() -> KeyRange {
    KeyRange::prefix(Bytes::from_static(b"k"))
}

fn pair(key: &str, version: i64, created: i64, at: i64) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from(format!("{key}@{at}")),
        create_revision: Revision(created),
        mod_revision: Revision(at),
        version,
        lease: LeaseId(if at % 2 == 0 { 77 } else { 0 }),
    }
}

fn put(key: &str, version: i64, created: i64, at: i64) -> (Revision, Vec<Event>) {
    (Revision(at), vec![Event { kind: EventKind::Put, kv: pair(key, version, created, at), prev: None }])
}

fn delete(key: &str, at: i64) -> (Revision, Vec<Event>) {
    let kv = KeyValue { key: Bytes::copy_from_slice(key.as_bytes()), mod_revision: Revision(at), ..Default::default() };
    (Revision(at), vec![Event { kind: EventKind::Delete, kv, prev: None }])
}

/// A copy of `keys` keys at revision 10.
fn loaded(keys: usize) -> Writer {
    let (cluster_id, member_id) = (ClusterId(7), MemberId(8));
    let header = Header { cluster_id, member_id, revision: Revision(10), term: Term(2) };
    let mut loading = Loading::new(range(), Proof { header, sent_at: Duration::from_secs(1) });
    let keys: Vec<_> = (0..keys).map(|n| pair(&format!("k{n:05}"), 3, 2, 4 + n as i64 % 6)).collect();
    loading.page(&keys).unwrap().unwrap();
    loading.finish(Keep::default(), hub::Options::default()).unwrap()
}

/// Known to be current a second ago.
fn upto(writer: &Writer, known_s: u64) -> Upto {
    let copy = writer.copy();
    let stamp = Stamp::now().before(Duration::from_secs(1));
    Upto { revision: copy.revision(), events: copy.events(), known: Duration::from_secs(known_s), stamp }
}

fn load(shelf: &Shelf) -> Option<Writer> {
    shelf.load(&range(), Keep::default(), hub::Options::default())
}

fn all(writer: &Writer) -> (Vec<KeyValue>, Revision) {
    let found = writer.copy().reader().range(&RangeQuery::new(range())).unwrap().unwrap();
    (found.kvs, found.revision)
}

fn age(writer: &Writer) -> Duration {
    match writer.copy().known() {
        Known::Saved(stamp) => stamp.age(&Stamp::now()),
        Known::At(_) => panic!("it is from disk"),
    }
}

#[test]
fn a_copy_comes_back_as_it_was_with_what_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path()).unwrap();
    assert!(load(&shelf).is_none());
    let mut writer = loaded(10_000);
    writer.copy().forget(Revision(6));
    let kept = shelf.save(writer.copy(), None, upto(&writer, 1)).unwrap();
    let back = load(&shelf).unwrap();
    assert_eq!(all(&back), all(&writer));
    assert_eq!((back.copy().compacted(), back.copy().header()), (Revision(6), writer.copy().header()));
    assert!((1..60).contains(&age(&back).as_secs()));

    let whole = kept.whole_bytes;
    let events = vec![put("k00001", 4, 2, 12), delete("k00002", 15), put("knew", 1, 16, 16), delete("knew", 18)];
    writer.events(events).unwrap().unwrap();
    writer.progress(Revision(30));
    let kept = shelf.save(writer.copy(), Some(kept), upto(&writer, 2)).unwrap();
    assert!(kept.appended_bytes > 0 && kept.appended_bytes < 1_000, "{} of {whole}", kept.appended_bytes);
    let back = load(&shelf).unwrap();
    assert_eq!((all(&back), back.revision()), (all(&writer), Revision(30)));
    assert!(back.copy().has_history(Revision(11)), "watchers may begin where the file began");

    // Nothing new, and little time: nothing is written. Later it is said that there was nothing new.
    let before = kept.appended_bytes;
    let kept = shelf.save(writer.copy(), Some(kept), upto(&writer, 3)).unwrap();
    assert_eq!(kept.appended_bytes, before);
    let kept = shelf.save(writer.copy(), Some(kept), upto(&writer, 60)).unwrap();
    assert!(kept.appended_bytes > before && kept.appended_bytes < before + 100);
    assert_eq!(Shelf::open(dir.path()).unwrap().found(), [range()]);
}

#[test]
fn another_copy_of_the_range_is_written_whole_and_so_is_one_that_has_forgotten_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path()).unwrap();
    let first = loaded(3);
    let kept = shelf.save(first.copy(), None, upto(&first, 1)).unwrap();
    let mut writer = loaded(5);
    let kept = shelf.save(writer.copy(), Some(kept), upto(&writer, 2)).unwrap();
    assert_eq!(all(&load(&shelf).unwrap()), all(&writer));
    for n in 0..30_000 {
        writer.events(vec![put("k00001", 4 + n, 2, 11 + n)]).unwrap().unwrap();
    }
    while writer.tidy().unwrap() {}
    assert!(writer.copy().reader().compacted() > kept.revision);
    let kept = shelf.save(writer.copy(), Some(kept), upto(&writer, 3)).unwrap();
    assert_eq!(kept.appended_bytes, 0);
    assert_eq!(all(&load(&shelf).unwrap()), all(&writer));
}

#[test]
fn what_a_crash_has_torn_is_as_if_it_had_not_been_written() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path()).unwrap();
    let mut writer = loaded(3);
    let kept = shelf.save(writer.copy(), None, upto(&writer, 1)).unwrap();
    let (before, whole) = (all(&writer), kept.whole_bytes);
    writer.events(vec![put("k00001", 4, 2, 12), put("k00001", 5, 2, 13)]).unwrap().unwrap();
    let kept = shelf.save(writer.copy(), Some(kept), upto(&writer, 2)).unwrap();
    let path = shelf.path(&range());
    let file = std::fs::read(&path).unwrap();
    assert_eq!(file.len() as u64, whole + kept.appended_bytes);
    for cut in whole as usize..file.len() {
        std::fs::write(&path, &file[..cut]).unwrap();
        assert_eq!(all(&load(&shelf).unwrap()), before, "cut at {cut}");
    }
    // One that was not finished is not there.
    std::fs::write(path.with_extension(WRITING), &file).unwrap();
    assert_eq!(Shelf::open(dir.path()).unwrap().files(WRITING).unwrap(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_cannot_be_read_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path()).unwrap();
    let writer = loaded(3);
    shelf.save(writer.copy(), None, upto(&writer, 1)).unwrap();
    let path = shelf.path(&range());
    let sound = std::fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut file = sound.clone();
        file[at] ^= 1;
        file
    };
    let other = shelf.path(&KeyRange::prefix(Bytes::from_static(b"other")));
    for (what, file) in [
        ("cut", sound[..sound.len() - 1].to_vec()),
        ("flipped", flipped(sound.len() / 2)),
        ("newer", flipped(9)),
        ("foreign", b"something else".to_vec()),
        ("empty", Vec::new()),
    ] {
        std::fs::write(&path, &file).unwrap();
        assert!(load(&shelf).is_none() && !path.exists(), "{what}");
        assert_eq!(std::fs::read(path.with_extension("set-aside")).unwrap(), file, "{what}");
    }
    std::fs::write(&other, &sound).unwrap();
    assert!(Shelf::open(dir.path()).unwrap().found().is_empty() && !other.exists(), "it has another's name");
    std::fs::write(&path, &sound).unwrap();
    assert_eq!(all(&load(&shelf).unwrap()), all(&writer));
    shelf.clear();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "what was set aside goes too");
}

#[test]
fn copies_of_ranges_that_nobody_wants_any_more_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path()).unwrap();
    let writer = loaded(1);
    shelf.save(writer.copy(), None, upto(&writer, 1)).unwrap();
    shelf.keep_only(&[range()]);
    assert!(load(&shelf).is_some());
    shelf.keep_only(&[]);
    assert!(load(&shelf).is_none());
}
