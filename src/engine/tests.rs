//! What lies beside the suite: other engines' folders, damage, bounds, failing disks and kill -9.

use super::{
    Engine, Kind, Options, Pin, Rows, Size, Store, Table,
    conformance::{ALL, Subject, batch, get, on_disk, put, scan, store_dir},
    open,
    overlay::{Bounds, Overlay},
    redb::Redb,
    sled::Sled,
};
use crate::types::Fault;
use bytes::Bytes;
use std::{
    io::{BufRead, BufReader, Write},
    ops::{Bound, ControlFlow},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

fn refusal(kind: Kind, dir: &Path) -> String {
    match open(kind, dir, Options::default()) {
        Ok(_) => panic!("opened"),
        Err(fault) => fault.to_string(),
    }
}

#[test]
fn another_engines_folder_is_refused_and_left_alone() {
    for (there, asked) in [(Kind::Redb, Kind::Sled), (Kind::Sled, Kind::Redb), (Kind::Redb, Kind::Memory)] {
        let subject = on_disk(there);
        put(subject.engine(), "a", "1");
        subject.engine().flush().expect("a flush");
        let dir = store_dir(&subject.dir);
        let text = refusal(asked, &dir);
        let expected =
            format!("it holds a {there} store, but {asked} was asked for; start with --storage-engine {there}");
        assert!(text.contains(&expected) && text.contains(dir.to_str().expect("text")), "{text}");
        assert_eq!(get(subject.reopen().engine(), "a").as_deref(), Some("1"));
    }
}

#[test]
fn a_store_that_another_has_open_is_refused() {
    for kind in [Kind::Redb, Kind::Sled] {
        let subject = on_disk(kind);
        let text = refusal(kind, &store_dir(&subject.dir));
        assert!(text.contains("another process has it open"), "{text}");
    }
}

#[test]
fn a_second_store_is_built_beside_an_open_one() {
    for kind in [Kind::Redb, Kind::Sled] {
        let subject = on_disk(kind);
        put(subject.engine(), "a", "1");
        let beside = store_dir(&subject.dir).with_extension("incoming");
        {
            let second = open(kind, &beside, Options::default()).expect("a second store");
            put(&*second, "a", "2");
            second.flush().expect("a flush");
        }
        let second = open(kind, &beside, Options::default()).expect("it opens again");
        assert_eq!((get(&*second, "a").as_deref(), get(subject.engine(), "a").as_deref()), (Some("2"), Some("1")));
    }
}

#[test]
fn sled_flushes_once_the_checkpoint_is_gone() {
    let subject = on_disk(Kind::Sled);
    let checkpoint = subject.engine().checkpoint().expect("a checkpoint");
    put(subject.engine(), "a", "1");
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| subject.engine().flush());
        let mut rows = 0;
        let mut count = |_: &[u8], _: Bytes| {
            rows += 1;
            ControlFlow::Continue(())
        };
        checkpoint.scan(Table::Versions, ALL, &mut count).expect("a scan");
        assert_eq!(rows, 0);
        assert!(subject.engine().pending() > 0);
        drop(checkpoint);
        flush.join().expect("a thread").expect("a flush");
    });
    assert_eq!(subject.engine().pending(), 0);
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("FORMAT"), "henge store redb 2\n").expect("a file");
    let text = refusal(Kind::Redb, dir.path());
    assert!(text.contains("the store has format 2, this version of henge reads formats up to 1"), "{text}");
}

#[test]
fn a_folder_of_unknown_contents_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("precious"), "data").expect("a file");
    let text = refusal(Kind::Redb, dir.path());
    assert!(text.contains("precious") && text.contains("no FORMAT file"), "{text}");
    std::fs::write(dir.path().join("FORMAT"), "something else").expect("a file");
    let text = refusal(Kind::Redb, dir.path());
    assert!(text.contains("does not say which store"), "{text}");
}

#[test]
fn a_draft_that_a_crash_left_behind_is_no_obstacle() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("FORMAT.tmp"), "hen").expect("a file");
    open(Kind::Redb, dir.path(), Options::default()).expect("a fresh store");
}

#[test]
fn a_row_that_the_disk_has_changed_is_a_fault_that_names_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let redb = Redb::open(&dir.path().join("file"), 1 << 20, false).expect("a store").expect("nobody else has it");
    redb.insert_raw(Table::Versions, b"key", b"value and four bytes that are no checksum");
    let sled = Sled::open(&dir.path().join("folder"), 1 << 20).expect("a store").expect("nobody else has it");
    sled.insert_raw(Table::Versions, b"key", b"value and four bytes that are no checksum");
    let stores: [(&dyn Store, &str); 2] = [(&redb, "file"), (&sled, "folder")];
    for (store, path) in stores {
        let faults = [
            store.get(Table::Versions, b"key").expect_err("damage"),
            store.scan(Table::Versions, ALL, &mut |_, _| ControlFlow::Continue(())).expect_err("damage"),
        ];
        for fault in faults {
            let text = fault.to_string();
            assert!(matches!(fault, Fault::Damaged { .. }) && text.contains("key") && text.contains(path), "{text}");
        }
    }
}

#[test]
fn the_size_follows_what_is_written_and_deleted() {
    let subject = on_disk(Kind::Redb);
    let value = "x".repeat(1_000);
    for i in 0..100 {
        put(subject.engine(), &i.to_string(), &value);
    }
    subject.engine().flush().expect("a flush");
    let full = subject.engine().size().expect("a size");
    assert!(full.used_bytes > 100_000 && full.file_bytes >= full.used_bytes, "{full:?}");
    for i in 0..90 {
        subject.engine().write(batch(&[(Table::Versions, &i.to_string(), None)])).expect("a write");
    }
    subject.engine().flush().expect("a flush");
    let subject = subject.reopen();
    let rest = subject.engine().size().expect("a size");
    assert!(rest.used_bytes < 15_000, "{rest:?}");
}

#[test]
fn much_that_waits_wakes_the_flusher_once_and_then_holds_writers_up() {
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let bounds = Bounds {
        wake_bytes: 10_000,
        wait_bytes: 20_000,
        wake: Some(Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        })),
    };
    let dir = tempfile::tempdir().expect("a folder");
    let store = Redb::open(&dir.path().join("file"), 1 << 20, false).expect("a store").expect("nobody else has it");
    let engine = Overlay::new("redb", store, bounds);
    let value = "x".repeat(1_000);
    let mut written = 0;
    while engine.pending() <= 20_000 {
        put(&engine, &written.to_string(), &value);
        written += 1;
    }
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| put(&engine, "held up", "until there is room"));
        assert_eq!(get(&engine, "held up"), None);
        engine.flush().expect("a flush");
        writer.join().expect("a writer");
    });
    assert!(get(&engine, "held up").is_some() && get(&engine, "0").is_some());
}

/// A store that fails when told to.
#[derive(Default)]
struct Failing(AtomicBool);

impl Store for Failing {
    fn commit(&self, _: Rows<'_>) -> super::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Fault::io("write", "store", std::io::Error::from(std::io::ErrorKind::StorageFull))),
            false => Ok(()),
        }
    }

    fn get(&self, _: Table, _: &[u8]) -> super::Result<Option<Bytes>> {
        Ok(None)
    }

    fn scan(
        &self,
        _: Table,
        _: (Bound<&[u8]>, Bound<&[u8]>),
        _: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> super::Result<()> {
        Ok(())
    }

    fn pin(&self) -> super::Result<Pin> {
        Err(Fault::Engine { engine: "failing", doing: "pin", cause: "it holds nothing".to_owned() })
    }

    fn size(&self) -> super::Result<Size> {
        Ok(Size::default())
    }
}

#[test]
fn after_a_failed_flush_nothing_more_is_written_and_reads_go_on() {
    let engine = Overlay::new("failing", Failing::default(), Bounds::default());
    put(&engine, "a", "1");
    engine.store().0.store(true, Ordering::Relaxed);
    let text = engine.flush().expect_err("a full disk").to_string();
    assert!(text.contains("write store: no storage space"), "{text}");
    // The disk may have room again: what it has of the failed commit is not known.
    engine.store().0.store(false, Ordering::Relaxed);
    for result in [engine.flush(), engine.write(batch(&[(Table::Versions, "b", Some("2"))]))] {
        let text = result.expect_err("refused").to_string();
        assert!(text.contains("an earlier flush failed"), "{text}");
    }
    assert_eq!(get(&engine, "a").as_deref(), Some("1"));
}

#[test]
fn a_killed_process_leaves_whole_batches_in_order() {
    if let (Ok(kind), Some(dir)) = (std::env::var("HENGE_TEST_ENGINE"), std::env::var_os("HENGE_TEST_DIR")) {
        return write_until_killed(&kind, Path::new(&dir));
    }
    for kind in [Kind::Redb, Kind::Sled] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut flushed = 0;
        for round in 1..=4 {
            let mut child = Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", "--nocapture", "engine::tests::a_killed_process_leaves_whole_batches_in_order"])
                .env("HENGE_TEST_ENGINE", kind.to_string())
                .env("HENGE_TEST_DIR", dir.path())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a child");
            let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
            let numbers =
                lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("flushed ")?.parse::<u64>().ok());
            let mut seen = 0;
            for number in numbers {
                flushed = number;
                seen += 1;
                // After a few flushes, in the middle of whatever comes next.
                if seen == 3 * round {
                    child.kill().expect("a kill");
                }
            }
            child.wait().expect("its end");
            let engine = open(kind, dir.path(), Options::default()).expect("the store opens again");
            let last: u64 = get(&*engine, "last").expect("flushed").parse().expect("a number");
            assert!(last >= flushed, "{kind}: {last} of {flushed}");
            for table in [Table::Versions, Table::Leases] {
                let rows = scan(&*engine, table, (Bound::Included(b"row"), Bound::Unbounded)).len() as u64;
                assert_eq!(rows, last, "{kind}: {table:?}");
            }
        }
    }
}

/// What the killed process does: numbered batches, flushed now and then, each flush reported.
fn write_until_killed(kind: &str, dir: &Path) {
    let engine = open(kind.parse().expect("a store's name"), dir, Options::default()).expect("a store");
    let first = get(&*engine, "last").map_or(1, |last| last.parse::<u64>().expect("a number") + 1);
    for number in first.. {
        let (number, key) = (number.to_string(), format!("row{number:08}"));
        let ops = [
            (Table::Versions, &key[..], Some("1")),
            (Table::Leases, &key[..], Some("1")),
            (Table::Versions, "last", Some(&number[..])),
        ];
        engine.write(batch(&ops)).expect("a write");
        if number.ends_with('0') {
            engine.flush().expect("a flush");
            println!("flushed {number}");
            std::io::stdout().flush().expect("a parent");
        }
    }
}
