//! What the program does with wrong flags, used ports, folders in use and damaged files: one clear line, a failing exit, nothing lost.

mod common;

use common::Server;
use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output},
};

fn henge(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_henge")).args(args).output().expect("henge can be started")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_version_begins_with_etcds_four_lines() {
    let output = henge(&["--version"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let heads = ["etcd Version: 3.7.1", "Git SHA: ", "Go Version: ", "Go OS/Arch: "];
    for (line, head) in text.lines().zip(heads) {
        assert!(line.starts_with(head), "{line:?} does not start with {head:?}");
    }
}

#[test]
fn an_unknown_flag_is_named() {
    let output = henge(&["--no-such-flag"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--no-such-flag"), "{}", stderr(&output));
}

#[test]
fn all_wrong_values_are_reported_at_once() {
    let output =
        henge(&["--max-txn-ops=many", "--log-level=loud", "--heartbeat-interval=soon", "--auto-compaction-mode=x"]);
    assert_eq!(output.status.code(), Some(2), "some cannot be read");
    for flag in ["--max-txn-ops", "--log-level", "--heartbeat-interval", "--auto-compaction-mode"] {
        assert!(stderr(&output).contains(flag), "{} does not name {flag}", stderr(&output));
    }
}

#[test]
fn what_can_be_read_and_will_not_do_has_another_code() {
    let output = henge(&["--auto-compaction-mode=x", "--election-timeout=1"]);
    assert_eq!(output.status.code(), Some(1));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("henge.yaml");
    fs::write(&file, "max-txn-ops: many\n").unwrap();
    let output = henge(&["--config-file", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "it is no word of the command line");
}

#[test]
fn a_used_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let output =
        henge(&["--listen-client-urls", &url, "--advertise-client-urls", &url, "--data-dir", data.to_str().unwrap()]);
    assert!(!output.status.success());
    let address = url.trim_start_matches("http://");
    assert!(stderr(&output).contains(address), "{}", stderr(&output));
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let server = Server::start();
    let output = henge(&[
        "--listen-client-urls",
        "http://127.0.0.1:0",
        "--advertise-client-urls",
        "http://127.0.0.1:1",
        "--data-dir",
        server.data_dir().to_str().unwrap(),
    ]);
    assert!(!output.status.success());
    let text = stderr(&output);
    assert!(text.contains(server.data_dir().to_str().unwrap()), "{text}");
    server.put("still", "alive");
}

#[test]
fn an_unwritable_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let data = file.join("data");
    let output = henge(&[
        "--listen-client-urls",
        "http://127.0.0.1:0",
        "--advertise-client-urls",
        "http://127.0.0.1:1",
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains(data.to_str().unwrap()), "{}", stderr(&output));
}

fn wal_files(server: &Server) -> Vec<PathBuf> {
    let mut files = fs::read_dir(server.data_dir().join("member/wal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .collect::<Vec<_>>();
    files.sort();
    files
}

/// Flips one bit of the file at `offset`.
fn flip(path: &PathBuf, offset: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}

#[test]
fn a_flipped_bit_in_the_middle_of_the_log_stops_the_start_and_names_the_file() {
    let mut server = Server::start();
    for i in 0..100 {
        server.put(&format!("key{i}"), "value");
    }
    server.kill();
    let file = wal_files(&server).remove(0);
    // Behind the metadata, long before the end.
    flip(&file, 1_000);
    let output = server.try_start_once();
    assert!(!output.status.success());
    let text = stderr(&output);
    assert!(text.contains(file.file_name().unwrap().to_str().unwrap()), "{text}");
}

#[test]
fn a_store_of_another_engine_is_refused() {
    let mut server = Server::start();
    server.put("a", "1");
    server.stop();
    let output = server.try_start_once_with(&["--storage-engine", "sled"]);
    assert!(!output.status.success());
    let text = stderr(&output);
    assert!(text.contains("redb") && text.contains("sled"), "{text}");
}

#[test]
fn a_damaged_store_stops_the_member_and_is_named() {
    let mut server = Server::start();
    for i in 0..300 {
        server.put(&format!("key{i:03}"), &"value".repeat(20));
    }
    assert!(server.stop().success());
    let store = server.data_dir().join("member/store/store.redb");
    let whole = fs::read(&store).unwrap();
    let rows = whole.windows(6).enumerate().filter(|(_, bytes)| bytes == b"key123").map(|(at, _)| at as u64);
    let rows = rows.collect::<Vec<_>>();
    assert!(!rows.is_empty(), "keys are stored as they are");
    // Every copy of the row, whichever page is in use.
    rows.iter().for_each(|at| flip(&store, *at));
    let output = server.try_start_once();
    assert!(!output.status.success());
    let text = stderr(&output);
    assert!(text.contains(store.to_str().unwrap()) && text.contains("checksum"), "{text}");
    // Whole pages of zeros: redb itself stumbles.
    let mut zeroed = whole.clone();
    zeroed[16 * 1024..].fill(0);
    fs::write(&store, zeroed).unwrap();
    let output = server.try_start_once();
    assert!(!output.status.success());
    let text = stderr(&output);
    assert!(text.lines().any(|line| line.starts_with("henge: ") && line.contains("member/store")), "{text}");
}

#[test]
fn what_the_disk_refuses_to_take_was_never_acknowledged() {
    let mut server = Server::start();
    // Files may not grow beyond the preallocated segment: the store hits the bound first.
    server.stop();
    server.limit_file_bytes(70 << 20);
    server.restart();
    let value = "x".repeat(1_000_000);
    let mut acknowledged = 0;
    while server.try_put(&format!("key{acknowledged:04}"), &value).is_ok() {
        acknowledged += 1;
        assert!(acknowledged < 1_000, "the bound is never met");
    }
    let status = server.wait();
    assert_eq!(status.code(), Some(1));
    let log = server.log();
    assert!(log.lines().any(|line| line.starts_with("henge: ") && line.contains("File too large")), "{log}");
    server.limit_file_bytes(u64::MAX);
    server.restart();
    for number in 0..acknowledged {
        assert_eq!(server.get(&format!("key{number:04}")).map(|value| value.len()), Some(1_000_000), "key{number:04}");
    }
}
