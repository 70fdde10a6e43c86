//! Answers of etcd, recorded, and henge's to the same calls: codes, texts, headers, order, edge cases.
//!
//! A script in `tests/surface` is played over gRPC against a fresh server; `surface/player.rs` says how it is written. What follows a step is
//! etcd's answer. Where henge's differs it stands below with `!`, and above the step is a comment that says why.
//!
//! ```sh
//! UPDATE=1 HENGE_BIN=/usr/bin/etcd cargo test --test surface   # writes down what etcd 3.7 answers
//! UPDATE=1 cargo test --test surface                           # writes down where henge differs
//! HENGE_VIA=proxy,copy cargo test --test surface               # through a proxy, and one that copies all keys before that
//! HENGE_VIA=proxy HENGE_BIN=… cargo test --test surface        # etcd, through a proxy
//! ```

mod common;
#[path = "surface/player.rs"]
mod player;

use common::{Proxy, Server, eventually};
use player::Player;
use std::{fmt::Write, path::Path};

/// A step, and what is said to follow it.
#[derive(Default)]
struct Step {
    /// Comments and empty lines above it.
    above: Vec<String>,
    line: String,
    etcds: Vec<String>,
    /// Where they differ.
    henges: Option<Vec<String>>,
}

fn steps(script: &str) -> (Vec<Step>, Vec<String>) {
    let (mut steps, mut above): (Vec<Step>, Vec<String>) = (Vec::new(), Vec::new());
    for line in script.lines() {
        if line.is_empty() || line.starts_with('#') {
            above.push(line.to_owned());
        } else if let Some(answer) = line.strip_prefix("  ") {
            steps.last_mut().expect("a step before its answer").etcds.push(answer.to_owned());
        } else if let Some(answer) = line.strip_prefix('!') {
            let step = steps.last_mut().expect("a step before its answer");
            step.henges.get_or_insert_default().extend(answer.strip_prefix(' ').map(str::to_owned));
        } else {
            steps.push(Step { above: std::mem::take(&mut above), line: line.to_owned(), ..Step::default() });
        }
    }
    (steps, above)
}

fn written(steps: &[Step], below: &[String]) -> String {
    let mut script = String::new();
    for step in steps {
        step.above.iter().for_each(|line| writeln!(script, "{line}").unwrap());
        writeln!(script, "{}", step.line).unwrap();
        step.etcds.iter().for_each(|line| writeln!(script, "  {line}").unwrap());
        match step.henges.as_deref() {
            Some([]) => writeln!(script, "!").unwrap(),
            Some(lines) => lines.iter().for_each(|line| writeln!(script, "! {line}").unwrap()),
            None => {}
        }
    }
    below.iter().for_each(|line| writeln!(script, "{line}").unwrap());
    script
}

fn play(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/surface").join(name).with_extension("txt");
    let (mut steps, below) = steps(&std::fs::read_to_string(&path).expect("a script"));
    let server = Server::start();
    let proxies = Proxy::via(server.url());
    let mut player = Player::of(proxies.last().map_or(server.url(), Proxy::url));
    let is_update = std::env::var("UPDATE").is_ok();
    // etcd writes its own answers down, anybody else what differs from them.
    let is_etcd = std::env::var("HENGE_BIN").is_ok();
    if is_etcd {
        // It serves before it has written down which version its files are of.
        let mut status = || player.play("call Maintenance/Status {}", &[]).concat();
        eventually("the storage version", || (!status().contains("storageVersion=\"3.5.0\"")).then_some(()));
    }
    let mut wrong = String::new();
    for step in &mut steps {
        let expected = step.henges.as_ref().filter(|_| !is_etcd).unwrap_or(&step.etcds);
        let answers = player.play(&step.line, expected);
        // A proxy answers some calls itself, and passes others to the etcd behind it: either may be seen.
        let expected =
            step.henges.as_ref().filter(|henges| !proxies.is_empty() && **henges == answers).unwrap_or(expected);
        if is_update && is_etcd {
            step.etcds = answers;
        } else if is_update {
            step.henges = Some(answers).filter(|answers| *answers != step.etcds);
        } else if *expected != answers {
            writeln!(wrong, "{}\n  expected {expected:#?}\n  got {answers:#?}", step.line).unwrap();
        }
    }
    if is_update {
        std::fs::write(&path, written(&steps, &below)).expect("the script is written");
    }
    assert!(wrong.is_empty(), "{name}:\n{wrong}");
}

#[test]
fn keys_are_answered_as_in_etcd() {
    play("kv");
}

#[test]
fn transactions_are_answered_as_in_etcd() {
    play("txn");
}

#[test]
fn watches_are_answered_as_in_etcd() {
    play("watch");
}

#[test]
fn leases_are_answered_as_in_etcd() {
    play("lease");
}

#[test]
fn changes_of_members_are_answered_as_in_etcd() {
    play("cluster");
}

#[test]
fn maintenance_is_answered_as_in_etcd() {
    play("maintenance");
}

#[test]
fn users_and_roles_are_answered_as_in_etcd() {
    play("auth");
}

#[test]
fn locks_and_elections_are_answered_as_in_etcd() {
    play("contest");
}

#[test]
fn what_is_seldom_asked_is_answered_as_in_etcd() {
    play("rest");
}

#[test]
fn every_difference_has_its_reason() {
    if std::env::var("UPDATE").is_ok() {
        return; // They are being written.
    }
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/surface")).expect("a folder") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let (steps, _) = steps(&std::fs::read_to_string(&path).expect("a script"));
            for step in steps.iter().filter(|step| step.henges.is_some()) {
                let has_reason = step.above.last().is_some_and(|line| line.starts_with("# "));
                assert!(has_reason, "{}: no comment says why henge differs: {}", path.display(), step.line);
            }
        }
    }
}
