//! Snapshots in etcd's file format, with the programs as they are: saved, looked at, restored, served.

mod common;

use common::Server;
use std::{
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
};

const BUMP: i64 = 1_000_000_000;

fn hengectl(server: &Server, args: &[&str]) -> Output {
    let endpoint = server.url().trim_start_matches("http://");
    Command::new(env!("CARGO_BIN_EXE_hengectl")).args(["--endpoints", endpoint]).args(args).output().expect("hengectl")
}

#[track_caller]
fn succeed(server: &Server, args: &[&str]) -> String {
    let output = hengectl(server, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

/// The server goes on with what is in the file, as another cluster.
fn replace_data(server: &mut Server, file: &Path, more: &[&str]) -> String {
    server.kill();
    std::fs::remove_dir_all(server.data_dir()).expect("its data");
    let data_dir = server.data_dir();
    let args = [&["snapshot", "restore", text(file), "--data-dir", text(&data_dir)], more].concat();
    let output = hengectl(server, &args);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && output.stdout.is_empty(), "{told}");
    server.restart();
    told
}

/// The hash of the history up to `revision` (0: now), as hengectl prints it.
fn hash(server: &Server, revision: i64) -> String {
    succeed(server, &["endpoint", "hashkv", "--rev", &revision.to_string()])
}

#[test]
fn a_saved_snapshot_is_served_again_and_time_does_not_go_back() {
    let mut server = Server::start();
    let file = server.dir().join("snapshot.db");
    for number in 0..50 {
        server.put(&format!("key{number}"), "before");
    }
    let lease = server.grant(3_600);
    let saved_at = server.put_with_lease("leased", "x", lease);
    let told = succeed(&server, &["snapshot", "save", text(&file)]);
    assert_eq!(told, format!("Snapshot saved at {}\nServer version 3.7.0\n", file.display()));
    let status = succeed(&server, &["snapshot", "status", text(&file), "-w", "json"]);
    let status = serde_json::from_str::<serde_json::Value>(&status).expect("JSON");
    assert_eq!((&status["revision"], &status["totalKey"]), (&saved_at.into(), &51.into()));
    let seen_by_watchers = server.put("key1", "after");

    let told = replace_data(&mut server, &file, &[]);
    assert!(told.contains(&format!("51 keys, 1 leases\nRevision {}\n", saved_at + BUMP)), "{told}");
    assert_eq!(server.get("key1").as_deref(), Some("before"));
    assert_eq!(server.get_at("key1", seen_by_watchers).expect_err("forgotten"), COMPACTED);
    assert!(server.put("key1", "again") > saved_at + BUMP);
    assert!(succeed(&server, &["lease", "timetolive", &format!("{lease:x}"), "--keys"]).contains("[leased]"));

    // What was restored survives as what was written does.
    server.kill();
    server.restart();
    assert_eq!(server.get("key1").as_deref(), Some("again"));
    assert_eq!(server.get("key2").as_deref(), Some("before"));
}

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

#[test]
fn a_snapshot_under_load_is_the_state_at_one_revision() {
    let mut server = Server::start();
    let file = server.dir().join("snapshot.db");
    for number in 0..200 {
        server.put(&format!("key{}", number % 20), &number.to_string().repeat(1_000));
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers = [0, 1].map(|writer| {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    number += 1;
                    server.put(&format!("writer{writer}/{}", number % 10), &number.to_string());
                }
            })
        });
        succeed(&server, &["snapshot", "save", text(&file)]);
        done.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
    });
    let status = succeed(&server, &["snapshot", "status", text(&file), "-w", "json"]);
    let status = serde_json::from_str::<serde_json::Value>(&status).expect("JSON");
    let revision = status["revision"].as_i64().expect("a revision");
    let live = hash(&server, revision);
    replace_data(&mut server, &file, &["--bump-revision", "0"]);
    assert_eq!(server.revision(), revision);
    assert_eq!(hash(&server, 0), live);
}

#[test]
fn a_damaged_file_is_refused_and_makes_no_data_directory() {
    let server = Server::start();
    let file = server.dir().join("snapshot.db");
    server.put("key", "value");
    succeed(&server, &["snapshot", "save", text(&file)]);
    let mut bytes = std::fs::read(&file).expect("the file");
    bytes[9_000] ^= 1;
    std::fs::write(&file, bytes).expect("room");
    let target = server.dir().join("restored");
    for args in
        [&["snapshot", "status", text(&file)][..], &["snapshot", "restore", text(&file), "--data-dir", text(&target)]]
    {
        let output = hengectl(&server, args);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("expected sha256") && said.contains("snapshot.db"), "{said}");
    }
    assert!(!target.exists());
}

#[test]
fn flags_that_make_no_sense_are_refused_as_etcdutl_does() {
    let server = Server::start();
    let complaints = [
        (&["snapshot", "save"][..], "snapshot save expects one argument <filename>"),
        (&["snapshot", "status"], "snapshot status requires exactly one argument"),
        (&["snapshot", "restore", "a", "b"], "snapshot restore requires exactly one argument"),
        (&["snapshot", "restore", "a", "--bump-revision=0", "--mark-compacted"], "--mark-compacted required"),
        (&["snapshot", "restore", "a", "--mark-compacted=false"], "--mark-compacted required"),
    ];
    for (args, expected) in complaints {
        let output = hengectl(&server, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(128), "{args:?}: {said}");
        assert!(said.contains(expected), "{said}");
    }
    let two = Command::new(env!("CARGO_BIN_EXE_hengectl"))
        .args(["--endpoints", "127.0.0.1:1,127.0.0.1:2", "snapshot", "save", "file"])
        .output()
        .expect("hengectl");
    let said = String::from_utf8_lossy(&two.stderr).into_owned();
    assert!(said.contains("snapshot must be requested to one selected node, not multiple"), "{said}");
}
