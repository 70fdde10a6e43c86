//! The API as JSON, on real processes: a member, a proxy before it, and one that copies all keys. What a transcript of `curl` would show.

mod common;

use common::{PATIENCE, Proxy, Server, eventually, free_url};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    process::Command,
};

/// An answer over HTTP/1.1, read as it comes.
struct Answer {
    stream: BufReader<TcpStream>,
    status: u16,
    headers: Vec<(String, String)>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn line_of(stream: &mut BufReader<TcpStream>) -> String {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a line in time");
        line.trim_end().to_owned()
    }

    /// The next piece, of an answer without a length; `None` at its end.
    fn piece(&mut self) -> Option<Value> {
        assert_eq!(self.header("transfer-encoding"), Some("chunked"));
        let bytes = usize::from_str_radix(&Answer::line_of(&mut self.stream), 16).expect("a length");
        let mut piece = vec![0; bytes];
        self.stream.read_exact(&mut piece).expect("the piece in time");
        assert_eq!(Answer::line_of(&mut self.stream), "");
        (bytes > 0).then(|| serde_json::from_slice(&piece).expect("a piece is an object"))
    }

    fn text(mut self) -> String {
        let mut text = String::new();
        self.stream.read_to_string(&mut text).expect("the rest in time");
        text
    }
}

fn ask(url: &str, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("a request");
    let mut stream = BufReader::new(stream);
    let status =
        Answer::line_of(&mut stream).split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let mut headers = Vec::new();
    loop {
        let line = Answer::line_of(&mut stream);
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    Answer { stream, status, headers }
}

fn call(url: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = ask(url, "POST", path, "", &body.to_string());
    assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    (answer.status, serde_json::from_str(&answer.text()).expect("JSON"))
}

fn succeeds(url: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = call(url, path, body);
    assert_eq!(status, 200, "{path} {body}: {answer}");
    answer
}

/// A member, and the ways to it.
struct Ways {
    server: Server,
    proxies: Vec<Proxy>,
}

impl Ways {
    fn new() -> Ways {
        let server = Server::start();
        let near = Proxy::of(&[server.url()]);
        let copy = Proxy::with(&[near.url()], &["--cache-prefix="]);
        Ways { server, proxies: vec![near, copy] }
    }

    fn urls(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let urls = std::iter::once(self.server.url()).chain(self.proxies.iter().map(Proxy::url));
        ["ZGlyZWN0", "cHJveHk=", "Y29weQ=="].into_iter().zip(urls)
    }
}

#[test]
fn the_api_is_there_as_json_whoever_is_asked() {
    let ways = Ways::new();
    for (key, url) in ways.urls() {
        let put = succeeds(url, "/v3/kv/put", &json!({"key": key, "value": "YQ=="}));
        let revision = put["header"]["revision"].as_str().expect("a revision").to_owned();
        let read = succeeds(url, "/v3/kv/range", &json!({"key": key}));
        let kv =
            json!({"key": key, "create_revision": revision, "mod_revision": revision, "version": "1", "value": "YQ=="});
        assert_eq!((&read["kvs"], &read["count"]), (&json!([kv]), &json!("1")), "{url}");
        assert_eq!(read["header"]["cluster_id"], put["header"]["cluster_id"]);

        let txn = json!({
            "compare": [{"key": key, "target": "VALUE", "value": "YQ=="}],
            "success": [{"request_delete_range": {"key": key, "prev_kv": true}}],
        });
        let txn = succeeds(url, "/v3/kv/txn", &txn);
        assert_eq!(txn["responses"][0]["response_delete_range"]["prev_kvs"], json!([kv]), "{url}");

        let lease = succeeds(url, "/v3/lease/grant", &json!({"TTL": 60}))["ID"].clone();
        let kept = ask(url, "POST", "/v3/lease/keepalive", "", &json!({"ID": lease}).to_string()).piece();
        assert_eq!(kept.expect("a line")["result"]["TTL"], "60", "{url}");
        succeeds(url, "/v3/kv/lease/revoke", &json!({"ID": lease}));
        assert_eq!(call(url, "/v3/lease/revoke", &json!({"ID": lease})).0, 404, "{url}");

        assert_eq!(succeeds(url, "/v3/cluster/member/list", &json!({}))["members"].as_array().map(Vec::len), Some(1));
        assert_eq!(succeeds(url, "/v3/maintenance/status", &json!({}))["version"], "3.7.1");
        assert_eq!(succeeds(url, "/v3/auth/status", &json!({}))["authRevision"], "1");
        let future = call(url, "/v3/kv/range", &json!({"key": key, "revision": "99999"}));
        let text = "etcdserver: mvcc: required revision is a future revision";
        assert_eq!(future, (400, json!({"error": text, "code": 11, "message": text})), "{url}");
        assert_eq!(ask(url, "GET", "/v3/kv/range", "", "").status, 501, "{url}");
        assert_eq!(ask(url, "POST", "/v3/nowhere", "", "{}").status, 404, "{url}");
    }
}

#[test]
fn a_watch_is_a_line_for_each_reply_until_the_client_leaves() {
    let ways = Ways::new();
    for (key, url) in ways.urls() {
        let create = json!({"create_request": {"key": key}}).to_string();
        let mut watch = ask(url, "POST", "/v3/watch", "", &create);
        assert_eq!((watch.status, watch.header("content-type")), (200, Some("application/json")), "{url}");
        assert_eq!(watch.piece().expect("a line")["result"]["created"], true, "{url}");
        for value in ["YQ==", "Yg=="] {
            succeeds(ways.server.url(), "/v3/kv/put", &json!({"key": key, "value": value}));
            let event = watch.piece().expect("a line");
            assert_eq!(event["result"]["events"][0]["kv"]["value"], value, "{url}");
        }
        watch.stream.get_ref().shutdown(Shutdown::Both).expect("it leaves");
        // One that stays until the server goes is told why, or cut.
        let unwatched = ask(url, "POST", "/v3/watch", "grpc-timeout: 1m\r\n", &create);
        assert_eq!(unwatched.text().lines().filter(|line| line.contains(r#""code":4"#)).count(), 1, "{url}");
    }
}

#[test]
fn an_answer_says_where_it_is_from() {
    let ways = Ways::new();
    let (_, copy) = ways.urls().last().expect("a proxy with a copy");
    succeeds(ways.server.url(), "/v3/kv/put", &json!({"key": "YQ=="}));
    eventually("the copy answers", || {
        let answer = ask(copy, "POST", "/v3/kv/range", "", r#"{"key":"YQ=="}"#);
        (answer.header("grpc-metadata-henge-served-by") == Some("copy")).then_some(())
    });
}

#[test]
fn http_2_is_the_same() {
    let ways = Ways::new();
    for (key, url) in ways.urls() {
        let body = json!({"key": key, "value": "YQ=="}).to_string();
        let curl = Command::new("curl")
            .args(["--silent", "--http2-prior-knowledge", "--max-time", "20", "--write-out", " %{http_version}"])
            .args(["--data", &body, &format!("{url}/v3/kv/put")])
            .output();
        // Without the program there is nothing to ask with; the unit tests speak HTTP/2 by themselves.
        let Ok(answer) = curl else { return };
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert!(answer.starts_with(r#"{"header":{"#) && answer.ends_with(" 2"), "{url}: {answer}");
    }
}

#[test]
fn the_gateway_is_where_clients_are_and_only_if_it_is_wanted() {
    let (http, metrics) = (free_url(), free_url());
    let server = Server::start_with(&["--listen-client-http-urls", &http, "--listen-metrics-urls", &metrics]);
    succeeds(&http, "/v3/kv/put", &json!({"key": "YQ=="}));
    for (url, what) in [(metrics.as_str(), "the port of health"), (server.url(), "the port of gRPC alone")] {
        assert_eq!(ask(url, "POST", "/v3/kv/range", "", r#"{"key":"YQ=="}"#).status, 404, "{what}");
    }

    let without = Server::start_with(&["--enable-grpc-gateway=false"]);
    let metrics = free_url();
    let proxy = Proxy::with(&[without.url()], &["--enable-grpc-gateway=false", "--listen-metrics-urls", &metrics]);
    for url in [without.url(), proxy.url(), metrics.as_str()] {
        assert_eq!(ask(url, "POST", "/v3/kv/range", "", r#"{"key":"YQ=="}"#).status, 404);
        assert_eq!(ask(url, "GET", "/health", "", "").status, 200);
    }
    let before = Proxy::of(&[without.url()]);
    succeeds(before.url(), "/v3/kv/range", &json!({"key": "YQ=="}));
}

#[test]
fn pages_and_names_are_let_in_as_the_flags_say() {
    let flags = ["--cors=http://page.example", "--host-whitelist=good.example,127.0.0.1"];
    let server = Server::start_with(&flags);
    let proxy = Proxy::with(&[server.url()], &flags);
    for url in [server.url(), proxy.url()] {
        let allowed = |origin: &str| {
            let answer = ask(url, "OPTIONS", "/v3/kv/range", &format!("origin: {origin}\r\n"), "");
            assert_eq!(answer.status, 200);
            answer.header("access-control-allow-origin").map(str::to_owned)
        };
        assert_eq!(allowed("http://page.example").as_deref(), Some("http://page.example"));
        assert_eq!(allowed("http://other.example"), None);

        let address = url.trim_start_matches("http://");
        for (host, status) in [("good.example", "200"), ("rebound.example:80", "421"), (address, "200")] {
            let mut stream = TcpStream::connect(address).expect("a connection");
            write!(stream, "GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").expect("a request");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            assert_eq!(answer.split(' ').nth(1), Some(status), "{host}: {answer}");
        }
    }
    let bad = Server::start_with(&[]).try_start_once_with(&["--cors=page.example"]);
    assert!(String::from_utf8_lossy(&bad.stderr).contains("is no origin"), "{bad:?}");
}
