//! TLS on the real binaries: members, proxies and `hengectl`, with certificates of authorities that live as long as a test.

mod common;

#[path = "../src/tls/tests/authority.rs"]
mod authority;

use authority::Authority;
use common::{Proxy, eventually, free_url};
use henge::tls::{ClientSettings, ClientTls, Http, dial};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const READY: &str = "ready to serve client requests";
const LOOPBACK: &[&str] = &["127.0.0.1", "localhost"];

/// A member with TLS for clients, and the folder of its data.
struct Member {
    process: Proxy,
    address: String,
    _dir: tempfile::TempDir,
}

impl Member {
    /// At `https://address`, and wherever `more` says.
    fn start(more: &[&str]) -> Member {
        let url = free_url().replace("http://", "https://");
        Member::listening(&url, &url, more)
    }

    fn listening(listen: &str, advertise: &str, more: &[&str]) -> Member {
        let dir = tempfile::tempdir().expect("a folder");
        let (data, peer) = (dir.path().join("data"), free_url());
        let flags = [
            "--listen-client-urls",
            listen,
            "--advertise-client-urls",
            advertise,
            "--data-dir",
            data.to_str().expect("a path"),
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("default={peer}"),
        ];
        let process = Proxy::start(advertise, &[&flags, more].concat(), READY);
        let address = advertise.split_once("://").expect("a URL").1.to_owned();
        Member { process, address, _dir: dir }
    }

    fn url(&self) -> &str {
        self.process.url()
    }
}

/// Flags that show a certificate.
fn shows<'a>((cert, key): &'a (PathBuf, PathBuf), names: (&'a str, &'a str)) -> [&'a str; 4] {
    [names.0, text(cert), names.1, text(key)]
}

const SERVES: (&str, &str) = ("--cert-file", "--key-file");
const DIALS: (&str, &str) = ("--cert", "--key");

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

fn ctl(url: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hengectl"));
    command.args(["--endpoints", url]).args(args).output().expect("hengectl")
}

/// What it prints; it must succeed.
fn tells(url: &str, args: &[&str]) -> String {
    let output = ctl(url, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a text")
}

/// Its exit code and complaint; it must fail, and not because it waited in vain.
fn fails(url: &str, args: &[&str]) -> (i32, String) {
    let began = Instant::now();
    let output = ctl(url, args);
    let text = String::from_utf8(output.stderr).expect("a text");
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(began.elapsed() < Duration::from_secs(4), "{args:?}: {text}");
    (output.status.code().expect("an exit code"), text)
}

/// Body of a plain GET over TLS and HTTP/1.1.
fn https_get(member: &Proxy, address: &str, path: &str, ca: &Path) -> String {
    let settings = ClientSettings { trusted_ca_file: Some(ca.to_owned()), ..ClientSettings::default() };
    let tls = ClientTls::new(settings).expect("a usable file");
    member.runtime().block_on(async {
        let mut stream = dial(address, Some(&tls), Http::One).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a request");
        stream.flush().await.expect("a request");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("a reply");
        reply.split_once("\r\n\r\n").expect("a head").1.to_owned()
    })
}

/// Body of a plain GET without TLS.
fn http_get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("a request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    reply.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

#[test]
fn a_member_serves_grpc_and_http_with_tls_and_all_commands_speak_it() {
    let ours = Authority::new();
    let pair = ours.sign("server", LOOPBACK, 1);
    let metrics = free_url().replace("http://", "https://");
    let flags = [&shows(&pair, SERVES)[..], &["--listen-metrics-urls", &metrics]].concat();
    let member = Member::start(&flags);
    let ca = ["--cacert", text(&ours.ca())].map(str::to_owned);
    let ca = [ca[0].as_str(), ca[1].as_str()];
    let tell = |args: &[&str]| tells(member.url(), &[args, &ca].concat());
    assert_eq!(tell(&["put", "colour", "blue"]), "OK\n");
    assert_eq!(tell(&["get", "colour"]), "colour\nblue\n");
    // A certificate, or a CA, makes addresses without a scheme secure.
    assert_eq!(tells(&member.address, &[&["get", "colour"][..], &ca].concat()), "colour\nblue\n");
    assert!(tell(&["member", "list"]).contains(member.url()));
    assert!(tell(&["endpoint", "status", "--cluster"]).contains(member.url()));
    let file = ours.dir().join("snapshot.db");
    tell(&["snapshot", "save", text(&file)]);
    assert!(fs::metadata(&file).expect("a snapshot").len() > 0);
    assert!(tell(&["bench", "put", "--total", "50", "--clients", "4", "--conns", "2"]).contains("50"));
    let url = metrics.split_once("://").expect("a URL").1;
    for address in [&member.address, url] {
        assert!(https_get(&member.process, address, "/health", &ours.ca()).contains(r#""health":"true""#));
    }
    assert!(https_get(&member.process, &member.address, "/version", &ours.ca()).contains("etcdserver"));
    // Whoever comes without TLS is not served, and does no harm.
    fails(&format!("http://{}", member.address), &["--command-timeout=1s", "get", "colour"]);
    assert_eq!(tell(&["get", "colour"]), "colour\nblue\n");
}

#[test]
fn http_and_https_live_side_by_side_on_two_ports_or_one() {
    let ours = Authority::new();
    let pair = ours.sign("server", LOOPBACK, 1);
    let (plain, only_http) = (free_url(), free_url().replace("http://", "https://"));
    let both = plain.replace("http://", "https://");
    let listen = format!("{plain},{both}");
    let flags = [&shows(&pair, SERVES)[..], &["--listen-client-http-urls", &only_http]].concat();
    let member = Member::listening(&listen, &both, &flags);
    let ca = ours.ca();
    assert_eq!(tells(&plain, &["put", "a", "1"]), "OK\n");
    assert_eq!(tells(&both, &["--cacert", text(&ca), "get", "a"]), "a\n1\n");
    let address = only_http.split_once("://").expect("a URL").1;
    assert!(https_get(&member.process, address, "/health", &ca).contains(r#""health":"true""#));
    // gRPC is elsewhere, and HTTP is not where gRPC is.
    let (_, why) = fails(&only_http, &["--cacert", text(&ca), "get", "a"]);
    assert!(why.contains("gRPC is on another one"), "{why}");
    assert_eq!(http_get(&member.address, "/health"), "");
    assert!(member.process.log().contains("scheme is HTTP while key and cert files are present"));
}

#[test]
fn hengectl_says_what_is_wrong_with_a_server_and_at_once() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let member = Member::start(&shows(&ours.sign("server", LOOPBACK, 1), SERVES));
    let get = |url: &str, flags: &[&str]| fails(url, &[flags, &["get", "a"]].concat());
    let (code, why) = get(member.url(), &["--cacert", text(&theirs.ca())]);
    let expected = format!(
        "Error: TLS with {}: its certificate is signed by none of the authorities in {}\n",
        member.address,
        theirs.ca().display()
    );
    assert_eq!((code, why), (2, expected));
    let (code, why) = get(member.url(), &[]);
    assert!(code == 2 && why.starts_with("Error: TLS with "), "{why}");
    let (_, why) = get(member.url(), &["--cacert", "/no/such.pem"]);
    assert!(why.contains("/no/such.pem"), "{why}");
    // A watch says so too, instead of waiting.
    let (code, why) = fails(member.url(), &["--cacert", text(&theirs.ca()), "watch", "a"]);
    assert!(code != 0 && why.contains("none of the authorities"), "{why}");
    assert_eq!(tells(member.url(), &["--insecure-skip-tls-verify", "put", "a", "1"]), "OK\n");
    let elsewhere = Member::start(&shows(&ours.sign("elsewhere", &["db.example.com"], 2), SERVES));
    let (_, why) = get(elsewhere.url(), &["--cacert", text(&ours.ca())]);
    assert!(why.contains("made out to") && why.contains("db.example.com"), "{why}");
    let expired = Member::start(&shows(&ours.sign_expired("old", LOOPBACK, 3), SERVES));
    let (_, why) = get(expired.url(), &["--cacert", text(&ours.ca())]);
    assert!(why.contains("expired"), "{why}");
    // One that speaks no TLS, first of two: the other one answers.
    let both = format!("{},{}", elsewhere.url(), member.url());
    assert_eq!(tells(&both, &["--cacert", text(&ours.ca()), "get", "a"]), "a\n1\n");
}

#[test]
fn clients_show_certificates_where_they_are_asked_to() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (ca, crl) = (ours.ca(), ours.revoke(&[13]));
    let asks = ["--client-cert-auth", "--trusted-ca-file", text(&ca), "--client-crl-file", text(&crl)];
    let pair = ours.sign("server", LOOPBACK, 1);
    let names = ["--client-cert-allowed-hostname", "good.example.com,better.example.com"];
    let member = Member::start(&[&shows(&pair, SERVES)[..], &asks, &names].concat());
    let client = |pair: &(PathBuf, PathBuf)| [&["--cacert", text(&ca)][..], &shows(pair, DIALS)].concat().join(" ");
    let put =
        |flags: &str| ctl(member.url(), &[&flags.split(' ').collect::<Vec<_>>()[..], &["put", "a", "1"]].concat());
    let refused = |flags: &str| {
        let output = put(flags);
        assert!(!output.status.success(), "{flags}");
        String::from_utf8(output.stderr).expect("a text")
    };
    let good = client(&ours.sign("good", &["good.example.com"], 12));
    assert!(put(&good).status.success(), "{}", refused(&good));
    let why = refused(&format!("--cacert {}", ca.display()));
    assert!(why.contains("it asks for a client certificate, and got none"), "{why}");
    let why = refused(&client(&theirs.sign("stranger", &["good.example.com"], 2)));
    assert!(why.contains("does not accept the client certificate") && why.contains("stranger.pem"), "{why}");
    let why = refused(&client(&ours.sign("revoked", &["good.example.com"], 13)));
    assert!(why.contains("(CertificateRevoked)"), "{why}");
    let why = refused(&client(&ours.sign("old", &["bad.example.com"], 14)));
    assert!(why.contains("does not accept the client certificate"), "{why}");
    eventually("the log says who was rejected", || {
        let log = member.process.log();
        (log.matches("rejected connection on client endpoint").count() >= 4).then_some(())
    });
    // Revoked while the member runs.
    ours.revoke(&[12, 13]);
    let why = refused(&good);
    assert!(why.contains("(CertificateRevoked)"), "{why}");
}

#[test]
fn certificates_are_renewed_without_a_restart_and_bad_files_are_not_taken() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (cert, key) = ours.sign("server", LOOPBACK, 1);
    let member = Member::start(&shows(&(cert.clone(), key.clone()), SERVES));
    let trusts = |authority: &Authority| tells(member.url(), &["--cacert", text(&authority.ca()), "put", "a", "1"]);
    trusts(&ours);
    fs::write(&cert, "-----BEGIN CERTIFICATE-----\nnonsense\n").expect("written");
    trusts(&ours);
    eventually("the log names the file", || {
        let log = member.process.log();
        (log.contains("certificates have changed and are not usable") && log.contains(text(&cert))).then_some(())
    });
    let (new_cert, new_key) = theirs.sign("server", LOOPBACK, 1);
    fs::copy(new_key, &key).expect("copied");
    fs::copy(new_cert, &cert).expect("copied");
    trusts(&theirs);
    let (_, why) = fails(member.url(), &["--cacert", text(&ours.ca()), "put", "a", "1"]);
    assert!(why.contains("none of the authorities"), "{why}");
}

#[test]
fn a_member_makes_a_certificate_if_asked_to_and_refuses_to_start_without_any() {
    let member = Member::start(&["--auto-tls"]);
    assert_eq!(tells(member.url(), &["--insecure-skip-tls-verify", "put", "a", "1"]), "OK\n");
    let made = member._dir.path().join("data/fixtures/client/cert.pem");
    assert_eq!(tells(member.url(), &["--cacert", text(&made), "get", "a"]), "a\n1\n");

    let start = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_henge")).args(args).output().expect("henge");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("a text")
    };
    let url = free_url().replace("http://", "https://");
    let urls = ["--listen-client-urls", &url, "--advertise-client-urls", &url];
    let why = start(&urls);
    let expected =
        format!("TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme");
    assert!(why.contains(&expected), "{why}");
    let dir = tempfile::tempdir().expect("a folder");
    let missing = ["--cert-file", "/no/such.pem", "--key-file", "/no/key.pem", "--data-dir", text(dir.path())];
    let why = start(&[&urls[..], &missing].concat());
    assert!(why.contains("/no/such.pem"), "{why}");
}

#[test]
fn silence_and_garbage_hold_up_nobody_and_are_cut() {
    let ours = Authority::new();
    let member = Member::start(&shows(&ours.sign("server", LOOPBACK, 1), SERVES));
    let mut silent = Vec::new();
    for at in 0..600 {
        let mut stream = TcpStream::connect(&member.address).expect("a connection");
        match at % 3 {
            0 => {}
            // The beginning of a handshake record that never ends.
            1 => stream.write_all(&[0x16, 3, 1, 2, 0]).expect("written"),
            _ => drop(stream.write_all(b"GET / HTTP/1.1\r\n\r\n")),
        }
        silent.push(stream);
    }
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(tells(member.url(), &["--cacert", text(&ours.ca()), "put", "a", "1"]), "OK\n");
    }
    assert!(began.elapsed() < Duration::from_secs(8), "honest clients waited {:?}", began.elapsed());
    // The youngest of those that have only begun is cut by the deadline.
    let last = silent.iter_mut().rev().nth(1).expect("a silent one");
    last.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut rest = Vec::new();
    // An end or a reset, but no timeout.
    let end = last.read_to_end(&mut rest);
    assert!(
        !matches!(&end, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        "it is still there: {end:?}"
    );
    assert!(member.process.log().contains("no TLS handshake within 10 s"));
}

#[test]
fn a_proxy_speaks_tls_on_both_sides() {
    let (core_ca, edge_ca) = (Authority::new(), Authority::new());
    let pair = core_ca.sign("server", LOOPBACK, 1);
    let ca = core_ca.ca();
    let asks = ["--client-cert-auth", "--trusted-ca-file", text(&ca)];
    let member = Member::start(&[&shows(&pair, SERVES)[..], &asks].concat());

    let url = free_url().replace("http://", "https://");
    let own = core_ca.sign_nameless("proxy", &[], 2);
    let towards = [&["--endpoints", member.url(), "--cacert", text(&ca)][..], &shows(&own, DIALS)].concat();
    let shown = edge_ca.sign("edge", LOOPBACK, 1);
    let (edge, crl) = (edge_ca.ca(), edge_ca.revoke(&[9]));
    let from =
        [&shows(&shown, SERVES)[..], &["--trusted-ca-file", text(&edge), "--client-crl-file", text(&crl)]].concat();
    let flags = [&["proxy", "--listen-client-urls", &url, "--cache-prefix", "cached/"][..], &towards, &from].concat();
    let proxy = Proxy::start(&url, &flags, READY);

    let host = edge_ca.sign("host", &[], 3);
    let as_host = [&["--cacert", text(&edge)][..], &shows(&host, DIALS)].concat();
    let tell = |args: &[&str]| tells(&url, &[args, &as_host].concat());
    for key in ["cached/a", "b"] {
        assert_eq!(tell(&["put", key, "1"]), "OK\n");
        assert_eq!(tell(&["get", key]), format!("{key}\n1\n"));
    }
    let lease = tell(&["lease", "grant", "60"]);
    let id = lease.split(' ').nth(1).expect("an id");
    assert!(tell(&["lease", "keep-alive", "--once", id]).contains("keepalived"));
    let (_, why) = fails(&url, &["--cacert", text(&edge), "get", "b"]);
    assert!(why.contains("it asks for a client certificate"), "{why}");
    let revoked = edge_ca.sign("revoked", &[], 9);
    let (_, why) = fails(&url, &[&["--cacert", text(&edge), "get", "b"][..], &shows(&revoked, DIALS)].concat());
    assert!(why.contains("(CertificateRevoked)"), "{why}");

    // etcd's spelling, one more tier, and plain HTTP of the core through both.
    let tree_url = free_url().replace("http://", "https://");
    let listen = tree_url.split_once("://").expect("a URL").1;
    let nameless = edge_ca.sign_nameless("tree", &[], 4);
    let dials = [&["--cacert", text(&edge)][..], &shows(&nameless, DIALS)].concat();
    let endpoint = url.split_once("://").expect("a URL").1;
    let flags = [
        &["grpc-proxy", "start", "--endpoints", endpoint, "--listen-addr", listen][..],
        &dials,
        &shows(&shown, SERVES),
    ];
    let tree = Proxy::start(&tree_url, &flags.concat(), READY);
    assert_eq!(tells(&tree_url, &["--cacert", text(&edge), "get", "cached/a"]), "cached/a\n1\n");
    assert!(https_get(&tree, listen, "/version", &edge).contains("etcdserver"));
    assert!(https_get(&tree, listen, "/health", &edge).contains(r#""health":"true""#));

    // All clients of a proxy would be taken for whom its certificate names.
    let named = core_ca.sign("somebody", &[], 5);
    let flags = [
        &["proxy", "--endpoints", member.url(), "--listen-client-urls", "http://127.0.0.1:0"][..],
        &shows(&named, DIALS),
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_henge")).args(flags.concat()).output().expect("henge");
    let why = String::from_utf8(output.stderr).expect("a text");
    assert!(why.contains("cert has non empty Common Name (somebody): ") && !output.status.success(), "{why}");
    drop(proxy);
}

#[test]
fn a_proxy_says_why_it_cannot_speak_with_the_core() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let member = Member::start(&shows(&ours.sign("server", LOOPBACK, 1), SERVES));
    let url = free_url();
    let ca = theirs.ca();
    let flags = ["proxy", "--endpoints", member.url(), "--listen-client-urls", &url, "--cacert", text(&ca)];
    let _proxy = Proxy::start(&url, &flags, READY);
    // A write is told at once; a read would be tried again until its deadline.
    let output = ctl(&url, &["put", "a", "1"]);
    let why = String::from_utf8(output.stderr).expect("a text");
    assert!(why.contains("no upstream could be reached") && why.contains("none of the authorities"), "{why}");
}
