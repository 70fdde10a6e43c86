//! Requests and answers as they stand in `testdata/`. `UPDATE=1` writes the answers anew; the difference is to be read.
//!
//! ```text
//! > POST /v3/kv/put {"key":"Zm9v"}       the request; lines `> name: value` after it are headers
//! < 200 application/json                 status and kind of the answer, headers that tests are about, and the body
//! < {"header":…}
//! ```

use super::client::{Spoken, send, whole};
use crate::server::tests::world;
use http::Request;
use http_body_util::Full;
use std::{fmt::Write, path::Path};
use tonic::body::Body;

/// Headers of an answer that transcripts show.
const SHOWN: &[&str] = &["www-authenticate", "allow", "grpc-metadata-content-type", "access-control-allow-origin"];

async fn play(url: &str, script: &str) -> String {
    let mut out = String::new();
    let mut request: Vec<&str> = Vec::new();
    for line in script.lines().chain([""]) {
        match line.strip_prefix("> ") {
            Some(asked) => request.push(asked),
            None if line.starts_with('<') => {}
            None => {
                if !request.is_empty() {
                    ask(url, &std::mem::take(&mut request), &mut out).await;
                }
                if line.starts_with('#') || !line.is_empty() {
                    writeln!(out, "{line}").unwrap();
                }
            }
        }
    }
    out
}

async fn ask(url: &str, lines: &[&str], out: &mut String) {
    let (first, headers) = lines.split_first().unwrap();
    let mut words = first.splitn(3, ' ');
    let (method, path, body) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
    let mut request = Request::builder().method(method).uri(path);
    for header in headers {
        let (name, value) = header.split_once(": ").expect("a header");
        request = request.header(name, value);
    }
    let body = Body::new(Full::from(body.to_owned()));
    let response = send(url, Spoken::One, request.body(body).unwrap()).await;
    let header = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let kind = header("content-type");
    let shown = SHOWN.iter().map(|name| (name, header(name))).filter(|(_, value)| !value.is_empty());
    let shown: String = shown.map(|(name, value)| format!("< {name}: {value}\n")).collect();
    let (status, body) = whole(response).await;
    lines.iter().for_each(|line| writeln!(out, "> {line}").unwrap());
    write!(out, "{}\n{shown}", format!("< {status} {kind}").trim_end()).unwrap();
    body.lines().for_each(|line| writeln!(out, "< {line}").unwrap());
    out.push('\n');
}

async fn check(name: &str) {
    let world = world().await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gateway/testdata").join(name);
    let script = std::fs::read_to_string(&path).unwrap();
    let played = play(&world.url, &script).await;
    if std::env::var("UPDATE").is_ok() {
        std::fs::write(&path, played).unwrap();
        return;
    }
    for (at, (expected, actual)) in script.lines().zip(played.lines()).enumerate() {
        assert_eq!(actual, expected, "{name}, line {}", at + 1);
    }
    assert_eq!(played, script, "{name}");
}

#[tokio::test]
async fn every_service_answers_over_json_as_over_grpc() {
    check("services").await;
}

#[tokio::test]
async fn json_is_read_and_written_as_etcd_does() {
    check("json").await;
}

#[tokio::test]
async fn what_is_no_call_is_refused_as_etcd_does() {
    check("refusals").await;
}

#[tokio::test]
async fn who_calls_is_told_by_a_token() {
    check("auth").await;
}
