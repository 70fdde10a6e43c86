//! Users and permissions on the real binaries: the way that an operator goes, on three members; what clients do with tokens; snapshots;
//! certificates; and a proxy, which may not answer for a core that asks who somebody is.

mod common;

#[path = "../src/tls/tests/authority.rs"]
mod authority;

use authority::Authority;
use common::{Cluster, PATIENCE, Proxy, Server, eventually, free_url};
use henge::client::{Client, ConnectOptions, GetOptions, PutOptions, WatchOptions};
use std::{
    path::Path,
    process::{Command, Output},
};

/// Cheap hashes: the tests are not about them.
const CHEAP: &[&str] = &["--bcrypt-cost", "4"];

fn run(program: &str, endpoints: &str, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints]).args(words).output().expect("it runs")
}

/// What hengectl prints; it must succeed.
#[track_caller]
fn tells(endpoints: &str, words: &[&str]) -> String {
    let output = run(env!("CARGO_BIN_EXE_hengectl"), endpoints, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What it complains about; it must fail.
#[track_caller]
fn fails(endpoints: &str, words: &[&str]) -> String {
    let output = run(env!("CARGO_BIN_EXE_hengectl"), endpoints, words);
    assert!(!output.status.success(), "{words:?} succeeded");
    String::from_utf8(output.stderr).expect("text").trim_end().to_owned()
}

const DENIED: &str = "Error: etcdserver: permission denied";
const NOBODY: &str = "Error: etcdserver: user name is empty";
const ROOT: &str = "--user=root:secret";
const ALICE: &str = "--user=alice:wonder";

/// Root, and alice who may read and write what begins with "a"; enabled. Each line is checked.
fn enable(endpoints: &str) {
    let script = [
        ("user add root:secret", "User root created\n"),
        ("user add alice --new-user-password=wonder", "User alice created\n"),
        ("role add writer", "Role writer created\n"),
        ("role grant-permission writer readwrite a --prefix", "Role writer updated\n"),
        ("user grant-role alice writer", "Role writer is granted to user alice\n"),
        ("auth status", "Authentication Status: false\nAuthRevision: 6\n"),
        ("auth enable", "Authentication Enabled\n"),
    ];
    for (line, printed) in script {
        assert_eq!(tells(endpoints, &line.split(' ').collect::<Vec<_>>()), printed, "{line}");
    }
}

fn options(user: &str, password: &str) -> ConnectOptions {
    let user = Some((user.to_owned(), password.to_owned()));
    ConnectOptions { user, request_timeout: Some(PATIENCE), ..ConnectOptions::default() }
}

#[test]
fn an_operator_enables_auth_on_three_members_and_it_outlives_them() {
    let mut cluster = Cluster::start_with(3, CHEAP);
    let all = cluster.members.iter().map(Server::url).collect::<Vec<_>>().join(",");
    enable(&all);
    // Each member alone: what one was told all know.
    for at in 0..3 {
        let url = cluster.members[at].url().to_owned();
        eventually("the member has heard of it", || {
            let output = run(env!("CARGO_BIN_EXE_hengectl"), &url, &["get", "a", "--consistency=s"]);
            String::from_utf8_lossy(&output.stderr).contains("user name is empty").then_some(())
        });
        assert_eq!(tells(&url, &[ALICE, "put", "a1", "x"]), "OK\n");
        assert_eq!(tells(&url, &["--user=alice", "--password=wonder", "get", "a", "--prefix"]), "a1\nx\n");
        assert_eq!(fails(&url, &[ALICE, "put", "b", "x"]), DENIED);
        assert_eq!(fails(&url, &[ALICE, "get", "", "--from-key"]), DENIED);
        assert_eq!(fails(&url, &["put", "a1", "x"]), NOBODY);
        assert_eq!(fails(&url, &[ALICE, "user", "list"]), DENIED);
        let wrong = "Error: etcdserver: authentication failed, invalid user ID or password";
        assert_eq!(fails(&url, &["--user=alice:wrong", "get", "a"]), wrong);
        assert_eq!(fails(&url, &["--user=nobody:wrong", "get", "a"]), wrong);
    }
    let script = [
        ("user list", "alice\nroot\n"),
        ("user get alice", "User: alice\nRoles: writer\n"),
        (
            "user get alice --detail",
            "User: alice\n\nRole writer\nKV Read:\n\t[a, b) (prefix a)\nKV Write:\n\t[a, b) (prefix a)\n",
        ),
        ("role list", "root\nwriter\n"),
        ("role get root", "Role root\nKV Read:\n\t[, <open ended>\nKV Write:\n\t[, <open ended>\n"),
        ("role grant-permission writer read c", "Role writer updated\n"),
        ("role grant-permission writer read d --from-key", "Role writer updated\n"),
        (
            "role get writer",
            "Role writer\nKV Read:\n\t[a, b) (prefix a)\n\tc\n\t[d, <open ended>\nKV Write:\n\t[a, b) (prefix a)\n",
        ),
        ("role revoke-permission writer c", "Permission of key c is revoked from role writer\n"),
        (
            "role revoke-permission writer d --from-key",
            "Permission of range [d, <open ended> is revoked from role writer\n",
        ),
        ("auth status", "Authentication Status: true\nAuthRevision: 12\n"),
    ];
    for (line, printed) in script {
        let words = [&[ROOT], &line.split(' ').collect::<Vec<_>>()[..]].concat();
        assert_eq!(tells(&all, &words), printed, "{line}");
    }
    assert!(fails(&all, &[ROOT, "user", "delete", "root"]).contains("invalid auth management"));
    assert!(fails(&all, &[ROOT, "role", "get", "none"]).contains("role name not found"));

    // Killed all at once: what was acknowledged is on their disks.
    cluster.members.iter_mut().for_each(Server::kill);
    cluster.members.iter_mut().for_each(Server::spawn);
    cluster.members.iter_mut().for_each(Server::wait_until_it_serves);
    assert_eq!(tells(&all, &[ALICE, "get", "a1"]), "a1\nx\n");
    assert_eq!(fails(&all, &["get", "a1"]), NOBODY);
    assert_eq!(tells(&all, &[ROOT, "auth", "disable"]), "Authentication Disabled\n");
    assert_eq!(tells(&all, &["get", "a1"]), "a1\nx\n");
}

#[test]
fn other_formats_are_etcdctls() {
    let server = Server::start_with(CHEAP);
    enable(server.url());
    let json = |words: &[&str]| {
        let printed = tells(server.url(), &[&[ROOT, "-w", "json"], words].concat());
        let mut value: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
        value.as_object_mut().expect("an object").remove("header").expect("a header");
        value.to_string()
    };
    assert_eq!(json(&["user", "list"]), r#"{"users":["alice","root"]}"#);
    assert_eq!(json(&["user", "get", "alice"]), r#"{"roles":["writer"]}"#);
    assert_eq!(json(&["role", "get", "writer"]), r#"{"perm":[{"key":"YQ==","permType":2,"range_end":"Yg=="}]}"#);
    assert_eq!(json(&["auth", "status"]), r#"{"authRevision":8,"enabled":true}"#);
    assert_eq!(json(&["role", "add", "other"]), "{}");
    let fields = tells(server.url(), &[ROOT, "-w", "fields", "role", "get", "writer"]);
    assert!(fields.ends_with("\"PermType\" :  READWRITE\n\"Key\" : \"a\"\n\"RangeEnd\" : \"b\"\n"), "{fields}");
    assert!(fails(server.url(), &[ROOT, "-w", "table", "user", "list"]).contains("table not supported"));
}

#[test]
fn a_client_logs_in_again_when_its_token_is_no_good_any_more() {
    let mut server = Server::start_with(CHEAP);
    enable(server.url());
    let url = server.url().to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (alice, mut watcher) = runtime.block_on(async {
        let alice = Client::connect([&url], options("alice", "wonder")).await.expect("a client");
        alice.put("a", "1", PutOptions::default()).await.expect("a put");
        let mut watcher = alice.watch("a", WatchOptions::prefix("a"));
        assert!(watcher.next().await.expect("an answer").expect("no error").created);
        (alice, watcher)
    });
    // A member that restarts has forgotten its tokens.
    server.kill();
    server.restart();
    runtime.block_on(async {
        // A read may find the old connection, and is repeated.
        alice.get("a", GetOptions::default()).await.expect("a get with another token");
        alice.put("a", "2", PutOptions::default()).await.expect("a put");
        let event = tokio::time::timeout(PATIENCE, async {
            loop {
                let answer = watcher.next().await.expect("an answer").expect("no error");
                if let Some(event) = answer.events.first() {
                    return event.kv.clone().expect("a pair").value;
                }
            }
        });
        assert_eq!(event.await.expect("in time"), "2");
        let denied = alice.get("b", GetOptions::default()).await.expect_err("not hers");
        assert!(denied.is(&henge::types::Error::PermissionDenied), "{denied}");
        let wrong = Client::connect([&url], options("alice", "wrong")).await.expect("a client");
        let failed = wrong.get("a", GetOptions::default()).await.expect_err("a wrong password");
        assert!(failed.is(&henge::types::Error::AuthFailed), "{failed}");
    });
    // Whoever has an account where nobody is asked is let in as everybody is.
    assert_eq!(tells(&url, &[ROOT, "auth", "disable"]), "Authentication Disabled\n");
    assert_eq!(tells(&url, &[ALICE, "put", "b", "1"]), "OK\n");
}

#[test]
fn a_watch_that_loses_its_permission_is_told_so_and_sees_nothing_more() {
    let server = Server::start_with(CHEAP);
    enable(server.url());
    let url = server.url().to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let root = Client::connect([&url], options("root", "secret")).await.expect("a client");
        let alice = Client::connect([&url], options("alice", "wonder")).await.expect("a client");
        let mut watcher = alice.watch("a", WatchOptions::prefix("a"));
        assert!(watcher.next().await.expect("an answer").expect("no error").created);
        root.user_revoke_role("alice", "writer").await.expect("a change");
        root.put("a", "secret", PutOptions::default()).await.expect("a put");
        let last = tokio::time::timeout(PATIENCE, watcher.next()).await.expect("in time").expect("an answer");
        let last = last.expect("the cancellation");
        assert!(last.canceled && last.events.is_empty(), "{last:?}");
        assert!(last.cancel_reason.ends_with("etcdserver: permission denied"), "{last:?}");
    });
}

#[test]
fn users_and_roles_are_in_snapshots() {
    let mut server = Server::start_with(CHEAP);
    enable(server.url());
    assert_eq!(tells(server.url(), &[ALICE, "put", "a", "1"]), "OK\n");
    let file = server.dir().join("snapshot.db");
    let file = file.to_str().expect("a path");
    let denied = DENIED.replace("Error: ", "Error: rpc error: code = PermissionDenied desc = ");
    assert_eq!(fails(server.url(), &[ALICE, "snapshot", "save", file]), denied, "streams are told of as in etcd");
    tells(server.url(), &[ROOT, "snapshot", "save", file]);
    server.kill();
    std::fs::remove_dir_all(server.data_dir()).expect("its data");
    let data_dir = server.data_dir();
    tells(server.url(), &["snapshot", "restore", file, "--data-dir", data_dir.to_str().expect("a path")]);
    server.restart();
    assert_eq!(tells(server.url(), &[ALICE, "get", "a"]), "a\n1\n");
    assert_eq!(fails(server.url(), &[ALICE, "get", "b"]), DENIED);
    assert_eq!(fails(server.url(), &["get", "a"]), NOBODY);
    assert_eq!(tells(server.url(), &[ROOT, "role", "list"]), "root\nwriter\n");
}

/// What her password is exchanged for.
async fn token_of_alice(url: &str) -> String {
    let channel = Server::channel(url).await.expect("a connection");
    let mut auth = henge::pb::etcdserverpb::auth_client::AuthClient::new(channel);
    let request = henge::pb::etcdserverpb::AuthenticateRequest { name: "alice".into(), password: "wonder".into() };
    auth.authenticate(request).await.expect("a token").into_inner().token
}

#[test]
fn signed_tokens_are_good_on_every_member_and_after_a_restart() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/jwt/testdata");
    let key = |name: &str| keys.join(name).to_str().expect("a path").to_owned();
    let (public, private) = (key("rsa.pub.pem"), key("rsa.pem"));
    let flag = format!("--auth-token=jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=10m");
    let mut cluster = Cluster::start_with(3, &[CHEAP, &[&flag]].concat());
    let all = cluster.members.iter().map(Server::url).collect::<Vec<_>>().join(",");
    enable(&all);
    let token = cluster.runtime().block_on(token_of_alice(all.split(',').next().expect("one")));
    let shown = format!("--auth-jwt-token={token}");
    cluster.members[1].kill();
    cluster.members[1].restart();
    for member in &cluster.members {
        assert_eq!(tells(member.url(), &[&shown, "put", "a", "1"]), "OK\n");
        assert_eq!(fails(member.url(), &[&shown, "put", "b", "1"]), DENIED);
        assert!(fails(member.url(), &["--auth-jwt-token=a.b.c", "get", "a"]).contains("invalid auth token"));
    }
    // A change that has nothing to do with alice; then one that has.
    tells(&all, &[ROOT, "role", "add", "unrelated"]);
    assert_eq!(tells(&all, &[&shown, "put", "a", "2"]), "OK\n");
    tells(&all, &[ROOT, "user", "revoke-role", "alice", "writer"]);
    assert_eq!(fails(&all, &[&shown, "put", "a", "2"]), DENIED);
    tells(&all, &[ROOT, "user", "delete", "alice"]);
    assert!(fails(&all, &[&shown, "put", "a", "2"]).contains("invalid auth token"));

    let refused =
        Server::start_with(&[]).try_start_once_with(&["--auth-token=jwt,sign-method=RS256,pub-key=/nonexistent"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("/nonexistent"), "{refused:?}");
}

#[test]
fn elliptic_keys_sign_as_openssl_and_go_write_them() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/jwt/testdata");
    let key = |name: &str| keys.join(name).to_str().expect("a path").to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for (method, public, private) in
        [("ES384", "p384.pub.pem", "p384-sec1.pem"), ("ES512", "p521.crt.pem", "p521-sec1.pem")]
    {
        let (public, private) = (key(public), key(private));
        let flag = format!("--auth-token=jwt,pub-key={public},priv-key={private},sign-method={method}");
        let server = Server::start_with(&[CHEAP, &[&flag]].concat());
        enable(server.url());
        let shown = format!("--auth-jwt-token={}", runtime.block_on(token_of_alice(server.url())));
        for _ in 0..2 {
            assert_eq!(tells(server.url(), &[&shown, "put", "a", "1"]), "OK\n", "{method}");
            assert_eq!(fails(server.url(), &[&shown, "put", "b", "1"]), DENIED, "{method}");
        }
        let mut forged = shown.clone();
        let last = forged.pop().expect("a signature");
        forged.insert(forged.len() - 10, if last == 'A' { 'B' } else { 'A' });
        assert!(fails(server.url(), &[&forged, "get", "a"]).contains("invalid auth token"), "{method}");
    }
    let flag = format!("--auth-token=jwt,sign-method=ES512,priv-key={}", key("p256.pem"));
    let refused = Server::start_with(&[]).try_start_once_with(&[&flag]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("it is an EC key on P-256, and the sign-method takes an EC key on P-521"), "{said}");
}

#[test]
fn the_common_name_of_a_certificate_is_a_user() {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let text = |path: &Path| path.to_str().expect("a path").to_owned();
    let server = authority.sign("server", &["127.0.0.1", "localhost"], 1);
    let alice = authority.sign("alice", &["127.0.0.1"], 2);
    let stranger = authority.sign("stranger", &["127.0.0.1"], 3);
    let (url, peer) = (free_url().replace("http://", "https://"), free_url());
    let ca = text(&authority.ca());
    let (cert, key, data) = (text(&server.0), text(&server.1), text(&dir.path().join("data")));
    let initial = format!("default={peer}");
    let flags = [
        ["--listen-client-urls", &url, "--advertise-client-urls", &url, "--data-dir", &data],
        ["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer, "--initial-cluster", &initial],
        ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca],
    ];
    let flags = [&flags.concat()[..], &["--client-cert-auth", "--bcrypt-cost", "4"]].concat();
    let member = Proxy::start(&url, &flags, "ready to serve client requests");
    let with = |(cert, key): &(std::path::PathBuf, std::path::PathBuf), words: &[&str]| {
        let (cert, key) = (text(cert), text(key));
        let tls = ["--cacert", &ca, "--cert", &cert, "--key", &key].map(str::to_owned);
        tls.into_iter().chain(words.iter().map(ToString::to_string)).collect::<Vec<_>>()
    };
    let ask = |who, words: &[&str]| {
        let words = with(who, words);
        run(env!("CARGO_BIN_EXE_hengectl"), member.url(), &words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let said = |output: Output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim_end().to_owned();
    for line in [
        "user add root:secret",
        "user add alice --no-password",
        "role add writer",
        "role grant-permission writer readwrite a --prefix",
        "user grant-role alice writer",
        "auth enable",
    ] {
        let output = ask(&alice, &line.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{line}: {}", said(output));
    }
    assert_eq!(said(ask(&alice, &["put", "a", "1"])), "OK");
    assert_eq!(said(ask(&alice, &["put", "b", "1"])), DENIED);
    assert_eq!(said(ask(&stranger, &["get", "a"])), DENIED, "a name that is no user's");
    assert_eq!(said(ask(&alice, &["--user=root:secret", "put", "b", "1"])), "OK", "a token goes before the name");
    let login = said(ask(&alice, &["--user=alice:guess", "get", "a"]));
    assert!(login.contains("authentication failed"), "who has no password has none that fits: {login}");
}

/// The proxy has a copy of everything, and answers from it until the core asks who somebody is.
#[test]
fn a_proxy_answers_nothing_by_itself_once_the_core_asks_who_somebody_is() {
    let server = Server::start_with(CHEAP);
    server.put("a", "1");
    let proxy = Proxy::with(&[server.url()], &["--cache-prefix="]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let from_copy = |user: Option<&str>, serializable: bool| -> Result<bool, tonic::Status> {
        runtime.block_on(async {
            let channel = tonic::transport::Channel::from_shared(proxy.url().to_owned()).expect("a URL");
            let channel = channel.connect().await.expect("a connection");
            let request = henge::pb::etcdserverpb::RangeRequest { key: "a".into(), serializable, ..Default::default() };
            let mut request = tonic::Request::new(request);
            if let Some(token) = user {
                request.metadata_mut().insert("token", token.parse().expect("a token"));
            }
            let mut kv = henge::pb::etcdserverpb::kv_client::KvClient::new(channel);
            Ok(kv.range(request).await?.metadata().contains_key("henge-served-by"))
        })
    };
    eventually("the proxy answers from its copy", || from_copy(None, true).unwrap_or(false).then_some(()));
    let anonymous = runtime.block_on(async {
        let client = Client::connect([proxy.url()], ConnectOptions::default()).await.expect("a client");
        let mut watcher = client.watch("a", WatchOptions::default());
        assert!(watcher.next().await.expect("an answer").expect("no error").created);
        watcher
    });
    enable(server.url());
    // A linearizable read asks the core first, so it is refused at once; what is served stale follows within a pulse.
    let refusal = from_copy(None, false).expect_err("nobody");
    assert_eq!(refusal.message(), "etcdserver: user name is empty");
    let refusal = eventually("stale reads pass through as well", || from_copy(None, true).err());
    assert_eq!(refusal.message(), "etcdserver: user name is empty");
    let end = runtime.block_on(async {
        let mut watcher = anonymous;
        tokio::time::timeout(PATIENCE, async {
            loop {
                match watcher.next().await {
                    Some(Ok(answer)) if answer.canceled => return answer.cancel_reason,
                    Some(Ok(answer)) => assert!(answer.events.is_empty(), "{answer:?}"),
                    Some(Err(error)) => return error.to_string(),
                    None => return String::new(),
                }
            }
        })
        .await
        .expect("the watch ends")
    });
    assert!(end.contains("user name is empty") || end.contains("permission denied"), "{end}");
    // Whoever is somebody is known to the core, through the proxy.
    for user in [ROOT, ALICE] {
        assert_eq!(tells(proxy.url(), &[user, "put", "a", "2"]), "OK\n");
        assert_eq!(tells(proxy.url(), &[user, "get", "a"]), "a\n2\n");
        assert_eq!(tells(proxy.url(), &[user, "get", "a", "--consistency=s"]), "a\n2\n");
    }
    assert_eq!(fails(proxy.url(), &[ALICE, "get", "b"]), DENIED);
    let printed = runtime.block_on(async {
        let alice = Client::connect([proxy.url()], options("alice", "wonder")).await.expect("a client");
        let mut watcher = alice.watch("a", WatchOptions::default());
        assert!(watcher.next().await.expect("an answer").expect("no error").created);
        alice.put("a", "3", PutOptions::default()).await.expect("a put");
        let answer = tokio::time::timeout(PATIENCE, watcher.next()).await.expect("in time").expect("an answer");
        answer.expect("an event").events.len()
    });
    assert_eq!(printed, 1);
    // And it is let be again when nobody is asked any more.
    tells(server.url(), &[ROOT, "auth", "disable"]);
    eventually("the proxy answers from a copy again", || from_copy(None, true).unwrap_or(false).then_some(()));
}

/// The same with etcd's own program. It must be in the path, so this runs only when asked for.
#[test]
#[ignore = "needs etcdctl"]
fn etcdctl_goes_the_same_way() {
    let cluster = Cluster::start_with(3, CHEAP);
    let all = cluster.members.iter().map(|member| member.url().trim_start_matches("http://")).collect::<Vec<_>>();
    let all = all.join(",");
    let etcdctl = |line: &str| {
        let output = run("etcdctl", &all, &line.split(' ').collect::<Vec<_>>());
        // Old ones log what they try again to standard error.
        let said = if output.status.success() { output.stdout } else { output.stderr };
        String::from_utf8_lossy(&said).into_owned()
    };
    for (line, printed) in [
        ("user add root:secret", "User root created\n"),
        ("user add alice:wonder", "User alice created\n"),
        ("role add writer", "Role writer created\n"),
        ("role grant-permission writer readwrite a b", "Role writer updated\n"),
        ("user grant-role alice writer", "Role writer is granted to user alice\n"),
        ("auth enable", "Authentication Enabled\n"),
        ("--user root:secret user list", "alice\nroot\n"),
        (
            "--user root:secret role get writer",
            "Role writer\nKV Read:\n\t[a, b) (prefix a)\nKV Write:\n\t[a, b) (prefix a)\n",
        ),
        ("--user alice:wonder put a 1", "OK\n"),
        ("--user alice:wonder get a", "a\n1\n"),
        ("--user alice:wonder del a", "1\n"),
        ("--user root:secret lease list", "found 0 leases\n"),
        ("--user root:secret auth disable", "Authentication Disabled\n"),
        ("put b 1", "OK\n"),
    ] {
        assert_eq!(etcdctl(line), printed, "{line}");
    }
    assert!(etcdctl("auth enable").contains("Authentication Enabled"));
    assert!(etcdctl("--user alice:wonder put b 1").contains("permission denied"));
    assert!(etcdctl("put a 1").contains("user name is empty"));
    assert!(etcdctl("--user alice:wrong get a").contains("invalid user ID or password"));
}
