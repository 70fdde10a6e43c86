//! The log against etcd's own bytes, against a model under crashes, and against flipped bits.

use super::*;
use crate::{
    io::{DiskFile, real::RealDisk, sim_disk::SimDisk},
    types::{EntryKind, MemberId},
};
use std::io::ErrorKind;

mod crash;
mod emptied;

const ETCD: &[u8] = include_bytes!("testdata/etcd-3.4.23.wal");
const SMALL: Options = Options { segment_bytes: 4096, keep_all: false };

fn dir() -> &'static Path {
    Path::new("/member/wal")
}

fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir(Path::new("/member")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn entry(term: u64, index: u64, data: &[u8]) -> Entry {
    Entry { term: Term(term), index: Index(index), kind: EntryKind::Normal, data: Bytes::copy_from_slice(data) }
}

fn state(term: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: Some(MemberId(0x1234_5678_9abc)), commit: Index(commit) }
}

fn new_log(disk: &SimDisk) -> Wal<SimDisk> {
    Wal::create(disk.clone(), dir(), b"who", SMALL).unwrap()
}

fn open(disk: &SimDisk) -> Result<(Wal<SimDisk>, Recovered), Fault> {
    Wal::open(disk.clone(), dir(), Index(0), SMALL)
}

fn indexes(recovered: &Recovered) -> Vec<u64> {
    recovered.entries.iter().map(|entry| entry.index.0).collect()
}

fn paths(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(dir()).unwrap()
}

fn damage(result: Result<(Wal<SimDisk>, Recovered), Fault>) -> String {
    match result {
        Err(fault @ Fault::Damaged { .. }) => fault.to_string(),
        Err(fault) => panic!("another fault: {fault}"),
        Ok((_, recovered)) => panic!("opened: {recovered:?}"),
    }
}

/// Puts a segment with exactly these bytes.
fn plant(disk: &SimDisk, name: &str, bytes: &[u8]) {
    disk.create_dir(dir()).unwrap();
    let mut file = disk.create(&dir().join(name)).unwrap();
    file.write_at(0, bytes).unwrap();
}

const FIRST: &str = "0000000000000000-0000000000000000.wal";

#[test]
fn a_log_that_etcd_wrote_is_read_and_continued() {
    let disk = disk(1);
    plant(&disk, FIRST, ETCD);
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(indexes(&recovered), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(recovered.entries[0].kind, EntryKind::ConfChange);
    assert_eq!((recovered.hard_state.term, recovered.hard_state.commit), (Term(2), Index(7)));
    assert_eq!((recovered.mark, recovered.cut), (Mark::default(), None));
    assert!(recovered.entries[6].data.windows(7).any(|bytes| bytes == b"value-3"));
    wal.append(None, &[entry(3, 8, b"ours")]).unwrap();
    wal.sync().unwrap();
    assert_eq!(indexes(&open(&disk).unwrap().1), [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// It leaves out what nobody has set: the kind of a normal entry.
#[test]
fn a_log_of_etcd_3_7_is_read_and_left_as_it_is() {
    let disk = disk(1);
    let bytes = include_bytes!("testdata/etcd-3.7.1.wal");
    plant(&disk, FIRST, bytes);
    let recovered = Wal::read(&disk, dir(), Index(3)).unwrap();
    assert_eq!((indexes(&recovered), recovered.start_term), (vec![4, 5, 6], Some(Term(2))));
    assert_eq!(recovered.entries[0].kind, EntryKind::Normal);
    assert_eq!((recovered.hard_state.term, recovered.hard_state.commit), (Term(2), Index(5)));
    assert!(recovered.entries[2].data.windows(6).any(|bytes| bytes == b"value1"));
    let file = disk.open(&paths(&disk)[0]).unwrap();
    assert_eq!((paths(&disk).len(), file.len().unwrap()), (1, bytes.len() as u64));
}

#[test]
fn the_same_records_become_the_bytes_that_etcd_wrote() {
    let mut reader = reader::Reader::new(ETCD, None);
    let mut encoder = Encoder::default();
    while let Some(record) = reader.next().unwrap() {
        match record.kind {
            record::Kind::Metadata => encoder.metadata(record.data),
            record::Kind::Entry => encoder.entry(&record::entry(record.data).unwrap()),
            record::Kind::State => encoder.state(&record::state(record.data).unwrap()),
            record::Kind::Crc => encoder.crc(),
            record::Kind::Mark => {
                let (mark, conf_state) = record::mark(record.data).unwrap();
                encoder.mark(&mark, &conf_state);
            }
        }
    }
    assert_eq!((encoder.buffer.as_slice(), reader.offset), (ETCD, ETCD.len()));
}

#[test]
fn a_new_log_starts_as_etcds_does() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("member/wal");
    std::fs::create_dir(temp.path().join("member")).unwrap();
    assert!(!Wal::exists(&RealDisk::default(), &dir).unwrap());
    let metadata = [0x08, 0xe7, 0x9d, 0xaf, 0xbc, 0xae, 0xa1, 0xaa, 0xbb, 0x5c];
    let metadata = [&metadata[..], &[0x10, 0xac, 0xeb, 0x81, 0xf9, 0x8e, 0xb1, 0xc0, 0xb7, 0x53]].concat();
    let mut wal = Wal::create(RealDisk::default(), &dir, &metadata, Options::default()).unwrap();
    assert!(Wal::exists(&RealDisk::default(), &dir).unwrap());
    let bytes = std::fs::read(dir.join(FIRST)).unwrap();
    assert_eq!((&bytes[..80], bytes.len()), (&ETCD[..80], 64 << 20));
    assert!(bytes[80..].iter().all(|byte| *byte == 0));
    wal.append(Some(&state(1, 1)), &[entry(1, 1, b"a")]).unwrap();
    wal.sync().unwrap();
    let (_, recovered) = Wal::open(RealDisk::default(), &dir, Index(0), Options::default()).unwrap();
    assert_eq!((recovered.metadata.to_vec(), indexes(&recovered)), (metadata, vec![1]));
    assert!(Wal::create(RealDisk::default(), &dir, b"", Options::default()).is_err());
}

#[test]
fn sim_seed_440_an_entry_gives_way_to_one_of_an_older_term_that_a_later_leader_has() {
    let disk = disk(1);
    let mut wal = new_log(&disk);
    // This member led term 7 and told nobody of its entry. The leader of term 8 has one of term 5 there.
    wal.append(Some(&state(7, 1)), &[entry(5, 1, b"a"), entry(7, 2, b"mine")]).unwrap();
    wal.append(Some(&state(8, 1)), &[entry(5, 2, b"theirs"), entry(8, 3, b"")]).unwrap();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries, [entry(5, 1, b"a"), entry(5, 2, b"theirs"), entry(8, 3, b"")]);
}

#[test]
fn entries_that_go_back_replace_what_was_there() {
    let disk = disk(1);
    let mut wal = new_log(&disk);
    wal.append(Some(&state(1, 1)), &(1..6).map(|index| entry(1, index, b"old")).collect::<Vec<_>>()).unwrap();
    wal.append(Some(&state(2, 1)), &[entry(2, 3, b"new")]).unwrap();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries, [entry(1, 1, b"old"), entry(1, 2, b"old"), entry(2, 3, b"new")]);
    let (wal, recovered) = Wal::open(disk, dir(), Index(2), SMALL).unwrap();
    assert_eq!((recovered.entries, wal.last()), (vec![entry(2, 3, b"new")], Index(3)));
}

#[test]
#[should_panic(expected = "would leave a gap")]
fn an_append_that_would_leave_a_gap_is_a_bug() {
    let _ = new_log(&disk(1)).append(None, &[entry(1, 2, b"")]);
}

/// Writes entries `1..=upto` of 1000 bytes, each synced, in segments of 4096.
fn long_log(disk: &SimDisk, upto: u64) -> Wal<SimDisk> {
    let mut wal = new_log(disk);
    for index in 1..=upto {
        wal.append(Some(&state(1, index)), &[entry(1, index, &[index as u8; 1000])]).unwrap();
        wal.sync().unwrap();
    }
    wal
}

/// Releases and removes; how many segments that are.
fn released(disk: &SimDisk, wal: &mut Wal<SimDisk>, upto: u64) -> usize {
    let files = wal.release(Index(upto)).unwrap();
    files.iter().for_each(|segment| super::remove(disk, segment).unwrap());
    files.len()
}

#[test]
fn what_is_released_and_not_removed_is_part_of_the_log_after_a_restart() {
    let disk = disk(1);
    let mut wal = long_log(&disk, 20);
    wal.save_mark(&Mark { index: Index(18), term: Term(1) }, &ConfState::default()).unwrap();
    let files = wal.release(Index(18)).unwrap();
    super::remove(&disk, &files[0]).unwrap();
    let (mut wal, recovered) = Wal::open(disk.clone(), dir(), Index(18), SMALL).unwrap();
    assert_eq!(indexes(&recovered), vec![19, 20]);
    assert_eq!(released(&disk, &mut wal, 18), files.len() - 1);
}

#[test]
fn a_crash_while_a_segments_space_is_given_back_leaves_a_log_that_opens() {
    let disk = disk(1);
    let mut wal = long_log(&disk, 20);
    wal.save_mark(&Mark { index: Index(18), term: Term(1) }, &ConfState::default()).unwrap();
    let gone = dir().join(super::segment::GONE);
    disk.rename(&wal.release(Index(18)).unwrap()[0], &gone).unwrap();
    disk.sync_dir(dir()).unwrap();
    disk.open(&gone).unwrap().truncate(100).unwrap();
    let (_, recovered) = Wal::open(disk.clone(), dir(), Index(18), SMALL).unwrap();
    assert_eq!(indexes(&recovered), vec![19, 20]);
    assert!(!paths(&disk).contains(&gone), "what was left of it is removed");
}

#[test]
fn segments_below_are_released_and_the_rest_opens_from_there() {
    let disk = disk(1);
    let mut wal = long_log(&disk, 20);
    wal.save_mark(&Mark { index: Index(18), term: Term(1) }, &ConfState::default()).unwrap();
    let segments = paths(&disk).len();
    assert!(segments >= 5);
    assert_eq!(released(&disk, &mut wal, 3), 0);
    assert_eq!(released(&disk, &mut wal, 18), 4);
    assert!(damage(open(&disk)).contains("the log starts here"));
    let (_, recovered) = Wal::open(disk.clone(), dir(), Index(18), SMALL).unwrap();
    assert_eq!((indexes(&recovered), recovered.mark.index), (vec![19, 20], Index(18)));
    let options = Options { keep_all: true, ..SMALL };
    assert_eq!(released(&disk, &mut Wal::open(disk.clone(), dir(), Index(18), options).unwrap().0, 20), 0);
    assert_eq!(released(&disk, &mut wal, 1000), 1);
    assert_eq!(paths(&disk).len(), 1, "the open segment stays");
}

#[test]
fn the_mark_is_the_latest_committed_one_and_each_segment_repeats_it() {
    let disk = disk(1);
    let mut wal = long_log(&disk, 3);
    let conf_state = ConfState { voters: vec![MemberId(7)], ..ConfState::default() };
    let mark = Mark { index: Index(2), term: Term(1) };
    wal.save_mark(&mark, &conf_state).unwrap();
    for index in 4..12 {
        wal.append(Some(&state(1, index)), &[entry(1, index, &[1; 1000])]).unwrap();
    }
    let (mut wal, recovered) = Wal::open(disk.clone(), dir(), Index(11), SMALL).unwrap();
    assert_eq!((recovered.mark, recovered.conf_state), (mark, conf_state));
    wal.append(None, &[entry(1, 12, b"")]).unwrap();
    wal.save_mark(&Mark { index: Index(12), term: Term(1) }, &ConfState::default()).unwrap();
    let (wal, recovered) = Wal::open(disk, dir(), Index(11), SMALL).unwrap();
    assert_eq!((recovered.mark, wal.last()), (mark, Index(12)), "12 is not committed yet");
}

#[test]
fn opening_at_the_end_reads_the_last_segment_alone() {
    let disk = disk(1);
    long_log(&disk, 20);
    // Unreadable, if anybody looked.
    disk.open(&paths(&disk)[1]).unwrap().write_at(0, &[0xff; 64]).unwrap();
    damage(open(&disk));
    let (_, recovered) = Wal::open(disk, dir(), Index(20), SMALL).unwrap();
    assert_eq!((recovered.mark, recovered.hard_state.commit), (Mark::default(), Index(20)));
}

#[test]
fn missing_and_foreign_segments_are_faults() {
    let of = |breaking: &dyn Fn(&SimDisk, &[PathBuf])| {
        let disk = disk(1);
        long_log(&disk, 20);
        breaking(&disk, &paths(&disk));
        damage(open(&disk))
    };
    assert!(of(&|disk, paths| disk.remove(&paths[2]).unwrap()).contains("is missing"));
    assert!(of(&|disk, paths| disk.remove(&paths[0]).unwrap()).contains("the log starts here"));
    let fault = of(&|disk, paths| {
        // Another log's segment: good in itself, but not the continuation of this one.
        let mut bytes = vec![0; 4096];
        let mut encoder = Encoder { crc: 5, ..Encoder::default() };
        encoder.crc();
        encoder.metadata(b"who");
        bytes[..encoder.buffer.len()].copy_from_slice(&encoder.buffer);
        let mut file = disk.open(&paths[2]).unwrap();
        file.truncate(0).unwrap();
        file.write_at(0, &bytes).unwrap();
    });
    assert!(fault.contains("does not continue the log"), "{fault}");
    let fault = of(&|disk, paths| disk.open(&paths[1]).unwrap().truncate(1024).unwrap());
    assert!(fault.contains(".wal is damaged at byte "), "{fault}");
}

#[test]
fn what_only_the_records_together_can_tell_is_a_fault() {
    let of = |build: &dyn Fn(&mut Encoder)| {
        let disk = disk(1);
        let mut encoder = Encoder::default();
        encoder.crc();
        build(&mut encoder);
        plant(&disk, FIRST, &encoder.buffer);
        damage(open(&disk))
    };
    assert!(of(&|log| log.entry(&entry(1, 1, b"a"))).contains("in the head"));
    let gap = |log: &mut Encoder| {
        log.metadata(b"who");
        log.entry(&entry(1, 1, b"a"));
        log.entry(&entry(1, 3, b"a"));
    };
    assert!(of(&gap).contains("entry 3 follows entry 1"));
    let stale = |log: &mut Encoder| {
        log.metadata(b"who");
        log.state(&state(1, 9));
    };
    assert!(of(&stale).contains("committed up to 9, but the log ends at 0"));
    let replaced = |log: &mut Encoder| {
        log.metadata(b"who");
        log.entry(&entry(1, 1, b"a"));
        log.state(&state(1, 1));
        log.entry(&entry(2, 1, b"a"));
    };
    assert!(of(&replaced).contains("replaced"));
    let falling = |log: &mut Encoder| {
        log.metadata(b"who");
        log.entry(&entry(2, 1, b"a"));
        log.entry(&entry(1, 2, b"a"));
    };
    assert!(of(&falling).contains("entry 2 of term 1 follows one of term 2"));
    let two = |log: &mut Encoder| {
        log.metadata(b"who");
        log.metadata(b"else");
    };
    assert!(of(&two).contains("metadata differs"));
    let back = |log: &mut Encoder| {
        log.metadata(b"who");
        log.state(&state(2, 0));
        log.state(&state(1, 0));
    };
    assert!(of(&back).contains("term 1 after term 2"));
}

/// A log of two synced entries and a third of 2000 bytes of which the sector at `missing` never arrived.
fn torn_log(missing: u64) -> SimDisk {
    let disk = disk(1);
    let mut wal = new_log(&disk);
    wal.append(Some(&state(1, 1)), &[entry(1, 1, b"a")]).unwrap();
    wal.sync().unwrap();
    wal.append(None, &[entry(1, 2, b"b")]).unwrap();
    wal.sync().unwrap();
    wal.append(None, &[entry(1, 3, &[3; 2000])]).unwrap();
    disk.open(&paths(&disk)[0]).unwrap().write_at(missing, &[0; 512]).unwrap();
    disk
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on() {
    for missing in [512, 1024, 1536] {
        let disk = torn_log(missing);
        let (mut wal, recovered) = open(&disk).unwrap();
        let cut = recovered.cut.clone().expect("the third entry is torn");
        assert_eq!((indexes(&recovered), cut.file), (vec![1, 2], paths(&disk)[0].clone()));
        assert!(cut.offset < 512 && cut.bytes > 1400, "{} {}", cut.offset, cut.bytes);
        wal.append(None, &[entry(2, 3, b"c")]).unwrap();
        wal.sync().unwrap();
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!((indexes(&recovered), recovered.cut), (vec![1, 2, 3], None));
    }
}

#[test]
fn what_looks_torn_is_damage_when_a_later_batch_proves_that_it_was_synced() {
    let disk = disk(1);
    let mut wal = new_log(&disk);
    wal.append(None, &[entry(1, 1, &[1; 1500])]).unwrap();
    wal.sync().unwrap();
    wal.append(None, &[entry(1, 2, b"b")]).unwrap();
    disk.open(&paths(&disk)[0]).unwrap().write_at(512, &[0; 512]).unwrap();
    assert!(damage(open(&disk)).contains("had been synced"));
}

#[test]
fn after_a_failed_write_or_sync_the_log_refuses_everything_and_reopens_without_the_batch() {
    let broken = |power_fails: bool, fail: &dyn Fn(&SimDisk)| {
        let disk = disk(3);
        let mut wal = new_log(&disk);
        wal.append(None, &[entry(1, 1, b"a")]).unwrap();
        wal.sync().unwrap();
        fail(&disk);
        let batch = [entry(1, 2, &[2; 900])];
        assert!(wal.append(None, &batch).and_then(|()| wal.sync()).is_err());
        assert!(wal.append(None, &batch).is_err());
        assert!(wal.sync().is_err() && wal.release(Index(1)).is_err());
        if power_fails {
            disk.crash();
        }
        let (mut wal, recovered) = open(&disk).unwrap();
        assert_eq!(indexes(&recovered), [1]);
        wal.append(None, &batch).unwrap();
        wal.sync().unwrap();
        assert_eq!(indexes(&open(&disk).unwrap().1), [1, 2]);
    };
    for power_fails in [false, true] {
        broken(power_fails, &|disk| disk.fail_write(0, ErrorKind::StorageFull));
        broken(power_fails, &|disk| disk.fail_sync(0, ErrorKind::Other));
    }
}

#[test]
fn an_entry_of_zeros_at_the_end_of_a_segment_is_no_empty_space() {
    let disk = disk(1);
    let mut wal = new_log(&disk);
    wal.append(None, &[entry(1, 1, &[0; 6000])]).unwrap();
    wal.append(None, &[entry(1, 2, &[0; 3000])]).unwrap();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!((recovered.entries[0].data.len(), recovered.entries[1].data.len()), (6000, 3000));
    assert_eq!((recovered.cut, paths(&disk).len()), (None, 2));
}

#[test]
fn one_write_for_a_batch_and_one_sync() {
    let disk = disk(1);
    let mut wal = new_log(&disk);
    let before = disk.counts();
    wal.append(Some(&state(1, 1)), &[entry(1, 1, b"a"), entry(1, 2, b"b"), entry(1, 3, b"c")]).unwrap();
    wal.sync().unwrap();
    wal.sync().unwrap();
    wal.append(Some(&state(1, 1)), &[]).unwrap();
    assert_eq!(disk.counts(), (before.0 + 1, before.1 + 1));
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let disk = disk(1);
    let mut wal = new_log(&disk);
    let mut last_batch = 0;
    for index in 1..=12u64 {
        last_batch = wal.offset;
        let data: Vec<u8> = (0..index * 61 % 700).map(|at| (at * 31 + index) as u8).collect();
        wal.append(Some(&state(1 + index / 4, index - 1)), &[entry(1 + index / 4, index, &data)]).unwrap();
        wal.sync().unwrap();
    }
    let (end, files) = (wal.offset, paths(&disk));
    let sealed = files.len() - 2;
    let whole = open(&disk).unwrap().1;
    for (at, file) in files[..files.len() - 1].iter().chain([&files[sealed]]).enumerate() {
        let len = disk.open(file).unwrap().len().unwrap();
        for offset in 0..len {
            // Two bits of each byte: all eight would take four times as long and are the same cases.
            for bit in [offset % 8, (offset / 8) % 8] {
                let fork = disk.fork(1);
                assert!(fork.flip(file, offset, bit as u8));
                let is_last = at >= sealed;
                match open(&fork) {
                    Err(Fault::Damaged { path, .. }) => assert!(path == *file || !is_last || path > *file),
                    Err(fault) => panic!("byte {offset} bit {bit} of {file:?}: {fault}"),
                    Ok((_, found)) => {
                        assert!(is_last && offset >= last_batch, "byte {offset} bit {bit} of {file:?} went unnoticed");
                        assert!(found.cut.is_some() && whole.entries.starts_with(&found.entries));
                        assert!(offset >= end || found.entries.len() + 1 >= whole.entries.len());
                    }
                }
            }
        }
    }
}
