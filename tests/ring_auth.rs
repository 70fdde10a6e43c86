//! Users behind proxies, on the real binaries with TLS: a proxy that the core trusts answers each from its copies what the core would let them read;
//! one that it does not trust answers nobody; and nobody gets anything by saying that somebody else is speaking.

mod common;

#[path = "../src/tls/tests/authority.rs"]
mod authority;

use authority::Authority;
use common::{PATIENCE, Proxy, eventually, free_url};
use henge::{
    client::{Client, ConnectOptions, Endpoints, PutOptions, TlsOptions, WatchOptions, Watcher},
    pb::etcdserverpb::{AuthenticateRequest, PutRequest, RangeRequest, auth_client::AuthClient, kv_client::KvClient},
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tonic::{
    Code, Request, Status,
    metadata::{MetadataMap, MetadataValue},
    transport::Channel,
};

const READY: &str = "ready to serve client requests";
const LOOPBACK: &[&str] = &["127.0.0.1", "localhost"];
/// So late at most a permission that was taken back stops what a proxy says by itself, and a little for the machine.
const STOPS_IN: Duration = Duration::from_secs(3 + 2);

type Pair = (PathBuf, PathBuf);

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// A core of one member that asks for certificates, and whoever stands before it.
struct World {
    authority: Authority,
    server: Pair,
    core: Proxy,
    _dir: tempfile::TempDir,
}

impl World {
    /// The core with more flags; nobody is asked who they are yet. There are root, alice, who may read and write what begins with "a" and is
    /// known by her certificate, and bob, who may read what begins with "b" and has a password.
    fn start(more: &[&str]) -> World {
        let authority = Authority::new();
        let server = authority.sign("server", LOOPBACK, 1);
        let dir = tempfile::tempdir().expect("a folder");
        let (url, peer) = (free_url().replace("http://", "https://"), free_url());
        let (data, ca, initial) = (dir.path().join("data"), authority.ca(), format!("default={peer}"));
        let flags = [
            ["--listen-client-urls", &url, "--advertise-client-urls", &url, "--data-dir", text(&data)],
            ["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer, "--initial-cluster", &initial],
            ["--cert-file", text(&server.0), "--key-file", text(&server.1), "--trusted-ca-file", text(&ca)],
        ];
        let flags = [&flags.concat()[..], &["--client-cert-auth", "--bcrypt-cost", "4"], more].concat();
        let core = Proxy::start(&url, &flags, READY);
        let world = World { authority, server, core, _dir: dir };
        world.admin(&[
            "user add root:secret",
            "role add root",
            "user grant-role root root",
            "user add alice --no-password",
            "user add bob:builder",
            "role add writer",
            "role grant-permission writer readwrite a --prefix",
            "role add reader",
            "role grant-permission reader read b --prefix",
            "user grant-role alice writer",
            "user grant-role bob reader",
            "put a 1",
            "put b 1",
        ]);
        world
    }

    /// Certificate and key of somebody.
    fn pair(&self, name: &str) -> Pair {
        let found = |end: &str| self.authority.dir().join(format!("{name}{end}.pem"));
        match found("").exists() {
            true => (found(""), found("-key")),
            false => {
                let serial = 2 + name.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte)) % 1_000_000;
                self.authority.sign(name, LOOPBACK, serial)
            }
        }
    }

    /// A proxy of `upstream` that copies everything, known there by the name in its certificate, with more flags.
    fn proxy(&self, name: &str, upstream: &str, more: &[&str]) -> Proxy {
        let url = free_url().replace("http://", "https://");
        let (own, ca) = (self.pair(name), self.authority.ca());
        let flags = [
            ["proxy", "--endpoints", upstream, "--listen-client-urls", &url, "--name"],
            [name, "--cert", text(&own.0), "--key", text(&own.1), "--ring-identity"],
            ["--cacert", text(&ca), "--cert-file", text(&self.server.0), "--key-file", text(&self.server.1)],
        ];
        let flags = [&flags.concat()[..], &["--trusted-ca-file", text(&ca), "--client-cert-auth"], more].concat();
        Proxy::start(&url, &flags, READY)
    }

    fn tls(&self, name: &str) -> TlsOptions {
        let identity = Some(self.pair(name));
        TlsOptions { identity, trusted_ca_file: Some(self.authority.ca()), ..TlsOptions::default() }
    }

    /// A connection with the certificate of `name`.
    fn channel(&self, url: &str, name: &str) -> Channel {
        let options = ConnectOptions { tls: Some(self.tls(name)), ..ConnectOptions::default() };
        self.core.runtime().block_on(async { Endpoints::new([url], &options).expect("an address").pick().1 })
    }

    fn client(&self, url: &str, name: &str, user: Option<(&str, &str)>) -> Client {
        let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
        let tls = Some(self.tls(name));
        let options = ConnectOptions { tls, user, request_timeout: Some(PATIENCE), ..ConnectOptions::default() };
        self.core.runtime().block_on(Client::connect([url], options)).expect("a client")
    }

    /// hengectl with the certificate of `name`.
    fn ctl(&self, url: &str, name: &str, words: &[&str]) -> Output {
        let (own, ca) = (self.pair(name), self.authority.ca());
        let tls = ["--cacert", text(&ca), "--cert", text(&own.0), "--key", text(&own.1)];
        let mut command = Command::new(env!("CARGO_BIN_EXE_hengectl"));
        command.args(["--endpoints", url]).args(tls).args(words).output().expect("it runs")
    }

    /// Lines that root says to the core, each of which must succeed.
    #[track_caller]
    fn admin(&self, lines: &[&str]) {
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            let output = self.ctl(self.core.url(), "root", &words);
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// Where the answer to a read came from; or the refusal.
    fn read(&self, channel: &Channel, key: &'static str, said: &MetadataMap) -> Result<Served, Status> {
        self.read_how(channel, key, said, true)
    }

    fn read_how(&self, channel: &Channel, key: &'static str, said: &MetadataMap, old: bool) -> Result<Served, Status> {
        let mut request = Request::new(RangeRequest { key: key.into(), serializable: old, ..RangeRequest::default() });
        *request.metadata_mut() = said.clone();
        request.set_timeout(Duration::from_secs(2));
        let mut kv = KvClient::new(channel.clone());
        let answer = self.core.runtime().block_on(kv.range(request))?;
        assert_eq!(answer.get_ref().kvs.len(), 1, "{key} is there");
        Ok(if answer.metadata().contains_key("henge-served-by") { Served::ByCopy } else { Served::Upstream })
    }

    /// What a user who has logged in at `channel` shows.
    fn token(&self, channel: &Channel, name: &str, password: &str) -> MetadataMap {
        let request = AuthenticateRequest { name: name.into(), password: password.into() };
        let answer = self.core.runtime().block_on(AuthClient::new(channel.clone()).authenticate(request));
        let mut said = MetadataMap::new();
        said.insert("token", answer.expect("a token").into_inner().token.parse().expect("a text"));
        said
    }

    fn put(&self, channel: &Channel, key: &'static str, said: &MetadataMap) -> Result<(), Status> {
        let mut request = Request::new(PutRequest { key: key.into(), value: "2".into(), ..PutRequest::default() });
        *request.metadata_mut() = said.clone();
        self.core.runtime().block_on(KvClient::new(channel.clone()).put(request)).map(drop)
    }

    fn watch(&self, client: &Client, prefix: &'static str) -> Watcher {
        self.core.runtime().block_on(async {
            let mut watcher = client.watch(prefix, WatchOptions::prefix(prefix));
            assert!(watcher.next().await.expect("an answer").expect("no error").created);
            watcher
        })
    }

    /// The next event's key.
    fn event(&self, watcher: &mut Watcher) -> String {
        self.core.runtime().block_on(async {
            loop {
                let answer = timeout(PATIENCE, watcher.next()).await.expect("in time").expect("an answer");
                let answer = answer.expect("no error");
                if let Some(event) = answer.events.first() {
                    return String::from_utf8_lossy(&event.kv.as_ref().expect("a pair").key).into_owned();
                }
            }
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    ByCopy,
    Upstream,
}

fn nothing() -> MetadataMap {
    MetadataMap::new()
}

#[track_caller]
fn denied<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let refusal = answer.expect_err("it is not allowed");
    assert_eq!(refusal.message(), "etcdserver: permission denied", "{refusal:?}");
}

/// What somebody says who would like to be root.
fn forged() -> MetadataMap {
    let mut said = MetadataMap::new();
    said.insert_bin("henge-client-name-bin", MetadataValue::from_bytes(b"root"));
    said.insert("henge-for-copies", MetadataValue::from_static("1"));
    said
}

#[test]
fn a_trusted_proxy_answers_each_user_from_its_copy_and_stops_when_the_permission_does() {
    let world = World::start(&["--ring-proxy-cn", "other,host"]);
    let proxy = world.proxy("host", world.core.url(), &["--cache-prefix="]);
    let [alice, stranger, bob] = ["alice", "stranger", "bobs-host"].map(|name| world.channel(proxy.url(), name));
    // There is a copy before anybody is asked who they are.
    let from_copy = |channel: &Channel, key: &'static str, said: &MetadataMap| {
        eventually(&format!("{key} comes from the copy"), || {
            world.read(channel, key, said).is_ok_and(|by| by == Served::ByCopy).then_some(())
        });
    };
    from_copy(&stranger, "b", &nothing());
    let mut everything = world.watch(&world.client(proxy.url(), "stranger", None), "b");
    world.admin(&["auth enable"]);
    eventually("a stranger is refused", || world.read(&stranger, "b", &nothing()).err());
    world.core.runtime().block_on(async {
        let end = timeout(PATIENCE, async {
            loop {
                match everything.next().await {
                    Some(Ok(answer)) if !answer.canceled => assert!(answer.events.is_empty(), "{answer:?}"),
                    _ => return,
                }
            }
        });
        end.await.expect("a watch that nobody was asked for ends");
    });

    // A name in a certificate, and a token.
    from_copy(&alice, "a", &nothing());
    assert_eq!(world.read_how(&alice, "a", &nothing(), false).expect("hers"), Served::ByCopy, "linearizable, too");
    denied(world.read(&alice, "b", &nothing()));
    let bobs = world.token(&bob, "bob", "builder");
    from_copy(&bob, "b", &bobs);
    denied(world.read(&bob, "a", &bobs));
    denied(world.read(&stranger, "a", &nothing()));
    let mut bad = MetadataMap::new();
    bad.insert("token", MetadataValue::from_static("no.17"));
    assert_eq!(world.read(&bob, "b", &bad).expect_err("no token").code(), Code::Unauthenticated);
    // The core is told whose certificate a write came with, and knows a token.
    world.put(&alice, "a", &nothing()).expect("hers");
    denied(world.put(&alice, "b", &nothing()));
    denied(world.put(&bob, "b", &bobs));

    // Nobody becomes somebody else by saying so, at a proxy or at the core.
    let core = world.channel(world.core.url(), "stranger");
    for channel in [&stranger, &core] {
        for key in ["a", "b"] {
            denied(world.read(channel, key, &forged()));
            denied(world.put(channel, key, &forged()));
        }
    }
    // Not even a proxy's own certificate is a user, and what it may do for its copies is to read.
    let own = world.channel(world.core.url(), "host");
    assert_eq!(world.read(&own, "a", &nothing()).expect_err("nobody").message(), "etcdserver: user name is empty");
    let mut for_copies = forged();
    for_copies.remove_bin("henge-client-name-bin");
    assert_eq!(world.read(&own, "a", &for_copies).expect("it copies"), Served::Upstream);
    denied(world.put(&own, "a", &for_copies));

    // The ring is seen, by root alone, while users count.
    let root = "--user=root:secret";
    for url in [world.core.url(), proxy.url()] {
        eventually("the proxy is listed", || {
            let output = world.ctl(url, "root", &[root, "ring", "-w", "json"]);
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success() && told.contains("\"host\"")).then_some(())
        });
    }
    assert!(!world.ctl(proxy.url(), "bob", &["--user=bob:builder", "ring"]).status.success());

    // Permissions are taken back: what alice and bob hold ends in time, and they see nothing of what comes then.
    let (alices, bobs_client) =
        (world.client(proxy.url(), "alice", None), world.client(proxy.url(), "bobs-host", Some(("bob", "builder"))));
    let (mut hers, mut his) = (world.watch(&alices, "a"), world.watch(&bobs_client, "b"));
    world.put(&alice, "a", &nothing()).expect("hers");
    assert_eq!(world.event(&mut hers), "a");
    world.admin(&["--user=root:secret put b 3"]);
    assert_eq!(world.event(&mut his), "b");
    let began = Instant::now();
    world.admin(&["--user=root:secret user revoke-role alice writer"]);
    let refusal = eventually("alice is refused", || world.read(&alice, "a", &nothing()).err());
    assert!(began.elapsed() < STOPS_IN, "{:?}: {refusal:?}", began.elapsed());
    denied::<()>(Err(refusal));
    world.admin(&["--user=root:secret put a secret"]);
    let last = world.core.runtime().block_on(async { timeout(PATIENCE, hers.next()).await });
    let last = last.expect("in time").expect("an answer").expect("the cancellation");
    assert!(last.canceled && last.events.is_empty(), "{last:?}");
    assert!(last.cancel_reason.ends_with("etcdserver: permission denied"), "{last:?}");
    // A token of somebody who is gone.
    let began = Instant::now();
    world.admin(&["--user=root:secret user delete bob"]);
    let refusal = eventually("bob is refused", || world.read(&bob, "b", &bobs).err());
    assert!(began.elapsed() < STOPS_IN && refusal.code() == Code::Unauthenticated, "{refusal:?}");
    world.admin(&["--user=root:secret put b secret"]);
    world.core.runtime().block_on(async {
        // It ends, or goes on trying to log in; it hears nothing.
        while let Ok(Some(Ok(answer))) = timeout(Duration::from_secs(1), his.next()).await {
            assert!(answer.events.is_empty(), "{answer:?}");
        }
    });

    // Nobody is asked any more, and then everybody is again.
    world.admin(&["--user=root:secret auth disable"]);
    from_copy(&stranger, "a", &nothing());
    world.admin(&["user grant-role alice writer", "auth enable"]);
    eventually("a stranger is refused again", || world.read(&stranger, "a", &nothing()).err());
    from_copy(&alice, "a", &nothing());
}

#[test]
fn who_is_behind_two_proxies_is_known_to_the_core_and_to_both() {
    let world = World::start(&["--ring-proxy-cn", "near"]);
    let near = world.proxy("near", world.core.url(), &["--cache-prefix=", "--ring-proxy-cn", "far"]);
    let far = world.proxy("far", near.url(), &["--cache-prefix="]);
    world.admin(&["auth enable"]);
    let [alice, stranger] = ["alice", "stranger"].map(|name| world.channel(far.url(), name));
    eventually("alice reads from the copy that is farther", || {
        world.read(&alice, "a", &nothing()).is_ok_and(|by| by == Served::ByCopy).then_some(())
    });
    world.put(&alice, "a", &nothing()).expect("hers");
    eventually("a linearizable read is answered there, too", || {
        world.read_how(&alice, "a", &nothing(), false).is_ok_and(|by| by == Served::ByCopy).then_some(())
    });
    denied(world.put(&alice, "b", &nothing()));
    for said in [nothing(), forged()] {
        denied(world.read(&stranger, "a", &said));
        denied(world.put(&stranger, "a", &said));
    }
    // Who is not trusted by the nearer one says nothing there, whatever the core would believe.
    let unlisted = world.channel(near.url(), "other");
    denied(world.read(&unlisted, "a", &forged()));
    let bob = world.channel(far.url(), "bobs-host");
    let bobs = world.token(&bob, "bob", "builder");
    eventually("a token is known there", || {
        world.read(&bob, "b", &bobs).is_ok_and(|by| by == Served::ByCopy).then_some(())
    });
    let began = Instant::now();
    world.admin(&["--user=root:secret user revoke-role bob reader"]);
    let refusal = eventually("bob is refused", || world.read(&bob, "b", &bobs).err());
    assert!(began.elapsed() < STOPS_IN, "{:?}: {refusal:?}", began.elapsed());
    denied::<()>(Err(refusal));
}

#[test]
fn a_proxy_that_hears_nothing_of_permissions_answers_nobody_and_its_watchers_miss_nothing() {
    let world = World::start(&["--ring-proxy-cn", "host"]);
    let proxy = world.proxy("host", world.core.url(), &["--cache-prefix="]);
    world.admin(&["auth enable"]);
    let alice = world.channel(proxy.url(), "alice");
    let is_from_copy = || world.read(&alice, "a", &nothing()).is_ok_and(|by| by == Served::ByCopy).then_some(());
    eventually("alice reads from the copy", is_from_copy);
    let client = world.client(proxy.url(), "alice", None);
    let mut watcher = world.watch(&client, "a");
    world.core.pause();
    let began = Instant::now();
    eventually("it says nothing by itself", || world.read(&alice, "a", &nothing()).err());
    assert!(began.elapsed() < STOPS_IN + Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(world.read(&alice, "a", &nothing()).is_err(), "nor later");
    world.core.resume();
    eventually("alice reads from the copy again", is_from_copy);
    world.core.runtime().block_on(client.put("a9", "x", PutOptions::default())).expect("hers");
    assert_eq!(world.event(&mut watcher), "a9");
}

#[test]
fn a_proxy_that_the_core_does_not_trust_answers_nobody_and_lends_its_name_to_nobody() {
    // It trusts another one; and this one's name is that of a user who may do everything.
    let world = World::start(&["--ring-proxy-cn", "another"]);
    world.admin(&["user add host --no-password", "user grant-role host root"]);
    let proxy = world.proxy("host", world.core.url(), &["--cache-prefix="]);
    let [alice, bob] = ["alice", "bobs-host"].map(|name| world.channel(proxy.url(), name));
    assert_eq!(world.read(&alice, "b", &nothing()).expect("anybody's"), Served::Upstream);
    world.admin(&["auth enable"]);
    let bobs = world.token(&bob, "bob", "builder");
    for _ in 0..20 {
        for said in [nothing(), forged()] {
            for old in [true, false] {
                let refusal = world.read_how(&alice, "a", &said, old).expect_err("nobody is known");
                assert_eq!(refusal.message(), "etcdserver: user name is empty");
            }
            assert!(world.put(&alice, "a", &said).is_err());
        }
        assert_eq!(world.read(&bob, "b", &bobs).expect("his token passes"), Served::Upstream);
        denied(world.read(&bob, "a", &bobs));
    }
    assert!(proxy.log().contains("upstream does not trust this proxy"), "{}", proxy.log());
}

#[test]
fn signed_tokens_are_checked_without_asking_the_core_who_that_is() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/jwt/testdata");
    let key = |name: &str| text(&keys.join(name)).to_owned();
    let (public, private) = (key("rsa.pub.pem"), key("rsa.pem"));
    let tokens = format!("--auth-token=jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=10m");
    let world = World::start(&["--ring-proxy-cn", "host", &tokens]);
    let proxy = world.proxy("host", world.core.url(), &["--cache-prefix="]);
    world.admin(&["auth enable"]);
    let bob = world.channel(proxy.url(), "bobs-host");
    let bobs = world.token(&bob, "bob", "builder");
    eventually("bob reads from the copy", || {
        world.read(&bob, "b", &bobs).is_ok_and(|by| by == Served::ByCopy).then_some(())
    });
    denied(world.read(&bob, "a", &bobs));
    world.admin(&["--user=root:secret role add unrelated"]);
    eventually("it has nothing to do with bob", || {
        world.read(&bob, "b", &bobs).is_ok_and(|by| by == Served::ByCopy).then_some(())
    });
    world.admin(&["--user=root:secret user delete bob"]);
    let refusal = eventually("bob is refused", || world.read(&bob, "b", &bobs).err());
    assert_eq!(refusal.code(), Code::Unauthenticated, "{refusal:?}");
}

#[test]
fn flags_that_do_not_fit_are_refused() {
    let refusal = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_henge")).args(words).output().expect("henge");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("text")
    };
    let why = refusal(&["--ring-proxy-cn", "host"]);
    assert!(why.contains("--ring-proxy-cn needs --client-cert-auth or --trusted-ca-file"), "{why}");
    let why = refusal(&["proxy", "--endpoints", "https://127.0.0.1:1", "--ring-identity"]);
    assert!(why.contains("--ring-identity needs --cert and --key"), "{why}");
    let authority = Authority::new();
    let (cert, key) = authority.sign_nameless("nameless", &[], 1);
    let listen = free_url();
    let flags = ["proxy", "--endpoints", "https://127.0.0.1:1", "--listen-client-urls", &listen, "--ring-identity"];
    let why = refusal(&[&flags[..], &["--cert", text(&cert), "--key", text(&key)]].concat());
    assert!(why.contains("cert has no Common Name, which --ring-identity needs"), "{why}");
}
