//! The programs beside the server as people and supervisors meet them: hengectl by etcd's names, mirrors, files, notifications, pages.
#![cfg(all(feature = "ctl", feature = "server"))]

mod common;

use common::{Server, eventually, free_url};
use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

/// hengectl under another name.
fn called(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    if !path.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hengectl"), &path).expect("a link");
    }
    path
}

fn run(program: impl AsRef<Path>, words: &[&str]) -> Output {
    Command::new(program.as_ref()).args(words).stdin(Stdio::null()).output().expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeed(program: impl AsRef<Path>, words: &[&str]) -> String {
    let output = run(program, words);
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    stdout(&output)
}

const HENGECTL: &str = env!("CARGO_BIN_EXE_hengectl");

#[test]
fn the_name_decides_what_the_program_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let (ctl, utl) = (called(dir.path(), "etcdctl"), called(dir.path(), "etcdutl"));
    assert_eq!(succeed(&ctl, &["version"]), "etcdctl version: 3.7.1\nAPI version: 3.7\n");
    assert_eq!(succeed(&utl, &["version"]), "etcdutl version: 3.7.1\nAPI version: 3.7\n");
    assert!(succeed(HENGECTL, &["version"]).starts_with("hengectl version: "));
    for (program, name) in [(ctl.as_path(), "etcdctl"), (&utl, "etcdutl"), (Path::new(HENGECTL), "hengectl")] {
        let output = run(program, &["nonsense"]);
        let expected = format!("Error: unknown command \"nonsense\" for \"{name}\"\nRun '{name} --help' for usage.\n");
        assert_eq!((output.status.code(), stderr(&output)), (Some(1), expected));
        assert!(succeed(program, &["--help"]).contains(&format!("Usage: {name} ")), "{name}");
        let script = succeed(program, &["completion", "bash"]);
        assert!(script.contains(&format!("complete -F _{name}")), "{name}");
    }
    assert_eq!(run(&utl, &["get", "a"]).status.code(), Some(1), "it has no commands for a cluster");
}

#[test]
fn a_flag_beside_its_variable_is_a_conflict_for_etcdctl_alone() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("a folder"));
    server.put("a", "1");
    let get = |program: &Path| {
        let mut command = Command::new(program);
        command.env("ETCDCTL_ENDPOINTS", "127.0.0.1:1").args(["--endpoints", server.url(), "get", "a"]);
        command.output().expect("it runs")
    };
    let refused = get(&called(dir.path(), "etcdctl"));
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("conflicting environment variable ETCDCTL_ENDPOINTS"), "{}", stderr(&refused));
    assert_eq!(stdout(&get(Path::new(HENGECTL))), "a\n1\n");
    // Set to nothing is not set; and what nobody reads is named.
    let mut command = Command::new(HENGECTL);
    command.env("ETCDCTL_COMMAND_TIMEOUT", "").env("ETCDCTL_ENDPOINT", "x").env("ETCDCTL_API", "3");
    let warned = command.args(["--endpoints", server.url(), "get", "a"]).output().expect("it runs");
    assert_eq!(stdout(&warned), "a\n1\n");
    assert_eq!(stderr(&warned), "Warning: unrecognized environment variable ETCDCTL_ENDPOINT\n");
}

/// A mirror under way; it goes with the test.
struct Mirror(Child);

impl Mirror {
    fn start(from: &Server, to: &Server, flags: &[&str]) -> Mirror {
        let words = [&["--endpoints", from.url(), "make-mirror", to.url()], flags].concat();
        let child = Command::new(HENGECTL).args(words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        Mirror(child.expect("it starts"))
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_mirror_has_what_was_there_and_what_comes() {
    let (source, target) = (Server::start(), Server::start());
    // More than one step of the first pass.
    for number in 0..1_203 {
        source.put(&format!("app/{number:04}"), "old");
    }
    source.put("other", "x");
    let _mirror = Mirror::start(&source, &target, &["--prefix", "app/", "--dest-prefix", "copy/"]);
    eventually("the last key is there", || target.get("copy/1202"));
    source.put("app/0007", "new");
    source.delete("app/0008");
    source.put("app/later", "1");
    eventually("changes come", || target.get("copy/later"));
    assert_eq!(target.get("copy/0007").as_deref(), Some("new"));
    assert_eq!((target.get("copy/0008"), target.get("other"), target.get("app/0001")), (None, None, None));
    let count =
        succeed(HENGECTL, &["--endpoints", target.url(), "get", "", "--prefix", "--count-only", "-w", "fields"]);
    assert!(count.contains("\"Count\" : 1203\n"), "{count}");
}

#[test]
fn a_mirror_from_a_revision_leaves_out_what_was_before() {
    let (source, target) = (Server::start(), Server::start());
    source.put("a", "1");
    let from = source.put("b", "2");
    source.delete("a");
    let _mirror = Mirror::start(&source, &target, &["--rev", &from.to_string(), "--max-txn-ops", "1"]);
    eventually("the change is there", || target.get("b"));
    source.put("c", "3");
    eventually("later ones come, too", || target.get("c"));
    assert_eq!(target.get("a"), None);

    source.compact(source.revision());
    let mut late = Mirror::start(&source, &target, &["--rev", &from.to_string()]);
    let end = late.0.wait().expect("it ends");
    let mut said = String::new();
    std::io::Read::read_to_string(late.0.stderr.as_mut().expect("piped"), &mut said).expect("text");
    assert_eq!(
        (end.code(), said.as_str()),
        (Some(1), "Error: etcdserver: mvcc: required revision has been compacted\n")
    );
}

#[test]
fn a_file_has_the_hash_that_the_member_tells() {
    let server = Server::start();
    for number in 0..20 {
        server.put(&format!("k{}", number % 7), &number.to_string());
    }
    server.delete("k3");
    server.compact(12);
    let file = server.dir().join("a.db");
    let file = file.to_str().expect("text");
    let ctl = |words: &[&str]| succeed(HENGECTL, &[&["--endpoints", server.url()], words].concat());
    ctl(&["snapshot", "save", file]);
    for revision in ["0", "15", "12"] {
        let live = ctl(&["endpoint", "hashkv", "--rev", revision]);
        let saved = succeed(HENGECTL, &["hashkv", file, "--rev", revision]);
        let (live, saved) = (live.trim().split(", ").collect::<Vec<_>>(), saved.trim().split(", ").collect::<Vec<_>>());
        assert_eq!((live[1], live[2]), (saved[0], saved[1]), "at {revision}");
        assert_eq!(saved[2], "12");
    }
    for (revision, why) in [("11", "compacted"), ("2000", "future revision")] {
        let refused = run(HENGECTL, &["hashkv", file, "--rev", revision]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains(why), "{}", stderr(&refused));
    }
}

#[test]
fn a_stopped_members_store_is_made_smaller_and_serves_as_before() {
    let mut server = Server::start();
    let value = "x".repeat(20_000);
    for number in 0..200 {
        server.put(&format!("k{number}"), &value);
    }
    let deleted = (0..199).map(|number| format!("k{number}")).collect::<Vec<_>>();
    deleted.iter().for_each(|key| server.delete(key));
    server.compact(server.revision());
    let data_dir = server.data_dir();
    let dir = data_dir.to_str().expect("text");
    let in_use = run(called(server.dir(), "etcdutl"), &["--timeout", "100ms", "defrag", "--data-dir", dir]);
    assert_eq!(in_use.status.code(), Some(1));
    assert!(stderr(&in_use).contains("another process is using this data directory"), "{}", stderr(&in_use));
    assert!(server.stop().success());

    let bytes = || std::fs::metadata(data_dir.join("member/store/store.redb")).expect("the store").len();
    let before = bytes();
    let words = ["defrag", "--data-dir", dir];
    assert_eq!(succeed(called(server.dir(), "etcdutl"), &words), "");
    assert!(bytes() < before, "{} of {before}", bytes());
    succeed(HENGECTL, &words);
    for (version, code) in [("3.7", 0), ("3.6", 1), ("3.4", 128), ("4", 128)] {
        let output = run(HENGECTL, &["migrate", "--data-dir", dir, "--target-version", version]);
        assert_eq!(output.status.code(), Some(code), "{version}: {}", stderr(&output));
    }
    server.restart();
    assert_eq!(server.get("k199").as_deref(), Some(&*value));
    assert_eq!(server.get("k1"), None);
}

#[test]
fn a_supervisor_is_told_when_the_member_serves_and_when_it_stops() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
    let url = free_url();
    let mut member = Command::new(env!("CARGO_BIN_EXE_henge"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--listen-peer-urls", &free_url()])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let told = || {
        let mut bytes = [0; 100];
        let length = socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!(told(), "READY=1\n");
    // It does serve.
    succeed(HENGECTL, &["--endpoints", &url, "put", "a", "1"]);
    assert!(Command::new("kill").arg(member.id().to_string()).status().expect("kill(1)").success());
    assert_eq!(told(), "STOPPING=1\n");
    assert!(member.wait().expect("it ends").success());
}

#[test]
fn scripts_and_pages_come_from_the_programs_themselves() {
    let dir = tempfile::tempdir().expect("a folder");
    let henge = env!("CARGO_BIN_EXE_henge");
    for program in [henge, HENGECTL] {
        let script = dir.path().join("script");
        std::fs::write(&script, succeed(program, &["completion", "bash"])).expect("written");
        succeed("bash", &["-n", script.to_str().expect("text")]);
        assert!(succeed(program, &["man"]).contains(".TH"));
    }
    assert!(succeed(henge, &["man", "proxy"]).contains(".TH henge-proxy 1"));
    let pages = dir.path().join("man1");
    succeed(HENGECTL, &["man", pages.to_str().expect("text")]);
    assert!(pages.join("hengectl.1").exists() && pages.join("hengectl-make-mirror.1").exists());
    let refused = run(henge, &["completion", "tcsh"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("henge completion bash"), "{}", stderr(&refused));
}
