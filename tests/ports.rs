//! What is served where: plain HTTP beside gRPC, on ports of its own, and from several processes on one port.

mod common;

use common::Server;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
};

fn free_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("a bound address"))
}

/// Status line and body of a plain GET.
fn get(url: &str, path: &str) -> (String, String) {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("a request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

#[test]
fn health_and_version_are_beside_grpc() {
    let server = Server::start();
    let (status, body) = get(server.url(), "/health");
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", r#"{"health":"true","reason":""}"#));
    let (_, body) = get(server.url(), "/version");
    assert_eq!(body, r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#);
    assert_eq!(get(server.url(), "/nowhere").0, "HTTP/1.1 404 Not Found");
}

#[test]
fn http_can_have_ports_of_its_own() {
    let (http, metrics) = (free_url(), free_url());
    let server = Server::start_with(&["--listen-client-http-urls", &http, "--listen-metrics-urls", &metrics]);
    server.put("a", "1");
    for url in [&http, &metrics] {
        assert_eq!(get(url, "/health").0, "HTTP/1.1 200 OK");
    }
    assert_eq!(get(server.url(), "/health").0, "HTTP/1.1 404 Not Found");
    for path in ["/version", "/debug/vars"] {
        assert_eq!(get(&http, path).0, "HTTP/1.1 200 OK", "{path}");
        assert_eq!(get(&metrics, path).0, "HTTP/1.1 404 Not Found", "{path}");
    }
    assert_eq!(get(&metrics, "//livez").0, "HTTP/1.1 307 Temporary Redirect");
}

#[test]
fn a_port_can_be_shared() {
    let first = Server::start_with(&["--socket-reuse-port"]);
    let dir = first.dir().join("other");
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_henge"))
        .args(["--listen-client-urls", first.url(), "--advertise-client-urls", first.url(), "--socket-reuse-port"])
        .arg("--data-dir")
        .arg(&dir)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("a second process");
    let mut lines = BufReader::new(second.stderr.take().expect("its log")).lines().map_while(Result::ok);
    let serves = lines.any(|line| line.contains("ready to serve client requests"));
    second.kill().expect("a kill");
    second.wait().expect("its end");
    assert!(serves);
}
