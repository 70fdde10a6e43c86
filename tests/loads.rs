//! `hengectl bench` and `check`: loads that end with a report, and that leave nothing behind when they are ended before.

mod common;

use common::{PATIENCE, Server, eventually};
use std::{
    process::{Command, Output, Stdio},
    time::Instant,
};

fn hengectl(server: &Server, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hengectl"));
    command.args(["--endpoints", server.url()]).args(words);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn each_kind_of_load_ends_with_its_percentiles() {
    let server = Server::start();
    for kind in ["put", "range", "txn", "mixed", "watch", "lease"] {
        let words = ["bench", kind, "--total", "50", "--clients", "4", "--conns", "2"];
        let ran = hengectl(&server, &words).output().expect("the program runs");
        let said = said(&ran);
        assert!(ran.status.success(), "{kind}: {said}");
        let lines = [&format!("{kind}: 4 clients on 2 connections"), " operations in ", "p50 ", "p99 "];
        assert!(lines.iter().all(|line| said.contains(*line)), "{kind}: {said}");
    }
}

#[test]
fn a_check_of_a_small_load_has_a_verdict() {
    let server = Server::start();
    let ran = hengectl(&server, &["check", "datascale", "--load", "s"]).output().expect("the program runs");
    let told = said(&ran);
    assert!(
        told.contains("Start data scale check for work load [10000 key-value pairs, 1024 bytes per key-value, 50"),
        "{told}"
    );
    assert!(told.contains("PASS: ") || told.contains("FAIL: "), "{told}");
    let left =
        hengectl(&server, &["get", "--prefix", "", "--count-only", "-w", "fields"]).output().expect("the program runs");
    assert!(said(&left).contains(r#""Count" : 0"#), "{}", said(&left));
}

#[test]
fn a_check_that_is_interrupted_removes_its_keys_and_has_no_verdict() {
    let server = Server::start();
    let mut command = hengectl(&server, &["check", "perf", "--load", "s"]);
    let mut check = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program runs");
    let before = server.revision();
    eventually("it writes", || (server.revision() > before + 10).then_some(()));
    let told = Command::new("kill").args(["-INT", &check.id().to_string()]).status().expect("kill(1)");
    assert!(told.success());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = check.try_wait().expect("its state") {
            break status;
        }
        assert!(Instant::now() < deadline, "it goes on");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert!(!status.success());
    let left =
        hengectl(&server, &["get", "--prefix", "", "--count-only", "-w", "fields"]).output().expect("the program runs");
    assert!(said(&left).contains(r#""Count" : 0"#), "{}", said(&left));
}
