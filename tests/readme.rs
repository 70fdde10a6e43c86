//! The README's transcript is what the binaries print.

mod common;

use common::Server;
use std::{path::Path, process::Command};

/// A command of the transcript, and what stands below it.
struct Exchange {
    command: String,
    output: String,
}

/// The exchanges of the README's `console` blocks. A line with a prompt begins one; a here-document belongs to its command.
fn transcript() -> Vec<Exchange> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("a README");
    let mut exchanges: Vec<Exchange> = Vec::new();
    let (mut inside, mut here_document) = (false, false);
    for line in readme.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => {
                if let Some(command) = line.strip_prefix("$ ") {
                    exchanges.push(Exchange { command: format!("{command}\n"), output: String::new() });
                    here_document = command.contains("<<'END'");
                    continue;
                }
                let current = exchanges.last_mut().expect("a console block begins with a prompt");
                let text = if here_document { &mut current.command } else { &mut current.output };
                text.push_str(line);
                text.push('\n');
                here_document &= line != "END";
            }
        }
    }
    exchanges
}

/// The first lease id in a text: sixteen hexadecimal digits in a row.
fn lease_id(text: &str) -> Option<&str> {
    let is_id = |word: &&str| word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split(|c: char| !c.is_ascii_alphanumeric()).find(is_id)
}

/// How many seconds a lease has left depends on the moment.
fn without_remaining(text: &str) -> String {
    match text.split_once("remaining(") {
        Some((before, after)) => {
            format!("{before}remaining(…){}", after.split_once(')').expect("a closing bracket").1)
        }
        None => text.to_owned(),
    }
}

#[test]
fn the_transcript_is_what_the_binaries_print() {
    let server = Server::start();
    let folder = Path::new(env!("CARGO_BIN_EXE_hengectl")).parent().expect("a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let exchanges = transcript();
    assert!(exchanges.len() >= 8, "only {} commands: has the README's form changed?", exchanges.len());
    let mut leases: Vec<(String, String)> = Vec::new();
    for Exchange { mut command, mut output } in exchanges {
        for (documented, real) in &leases {
            command = command.replace(documented, real);
            output = output.replace(documented, real);
        }
        let ran = Command::new("sh")
            .args(["-c", &command])
            .env("PATH", &path)
            .env("ETCDCTL_ENDPOINTS", server.url())
            .output()
            .expect("a shell");
        let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
        if let (Some(documented), Some(real)) = (lease_id(&output), lease_id(&printed))
            && documented != real
        {
            leases.push((documented.to_owned(), real.to_owned()));
            output = output.replace(documented, real);
        }
        assert_eq!(
            without_remaining(&printed),
            without_remaining(&output),
            "after: {command}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}
