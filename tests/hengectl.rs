//! hengectl prints what etcdctl prints, and exits as it exits.
//!
//! Needs `etcd`, `etcdctl` and `etcdutl` 3.7 in the path, so it runs only when asked for: `cargo test --test hengectl -- --ignored`.
//! What differs on purpose stands at the end of this file.
#![cfg(feature = "ctl")]

use std::{
    fmt::Write as _,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// An etcd with an empty store. The same ports give the same cluster and member ids.
struct Etcd {
    process: Child,
    dir: tempfile::TempDir,
    client: String,
}

impl Etcd {
    fn start(ports: [u16; 2]) -> Etcd {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let [client, peer] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        let process = Command::new("etcd")
            .args(["--data-dir", dir.path().join("data").to_str().expect("temporary paths are text")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed");
        let etcd = Etcd { process, dir, client: format!("127.0.0.1:{}", ports[0]) };
        let began = Instant::now();
        while !etcd.run(Tools::THEIRS, "$CTL get x").ends_with("exit 0\n") {
            assert!(began.elapsed() < Duration::from_secs(10), "etcd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        etcd
    }

    /// What one line prints, and how it exits.
    fn run(&self, Tools { ctl, utl }: Tools<'_>, line: &str) -> String {
        let output = Command::new("timeout")
            .args(["10", "bash", "-c", line])
            .current_dir(self.dir.path())
            .env("CTL", ctl)
            .env("UTL", utl)
            .env("ETCDCTL_API", "3")
            .env("ETCDCTL_ENDPOINTS", &self.client)
            .stdin(Stdio::null())
            .output()
            .expect("timeout is installed");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        // The Go client logs its retries to standard error, and etcdutl what it does; we warn of variables in words of our own.
        let is_log =
            |said: &str| said.starts_with("{\"level\"") || said.starts_with("20") || said.starts_with("Warning: ");
        for said in String::from_utf8_lossy(&output.stderr).lines().filter(|said| !is_log(said)) {
            let _ = writeln!(text, "2> {said}");
        }
        let _ = writeln!(text, "exit {}", output.status.code().unwrap_or(-1));
        text
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Two ports that were free just now.
fn free_ports() -> [u16; 2] {
    let bound = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    bound.map(|listener| listener.local_addr().expect("a bound socket has an address").port())
}

/// The programs that a script calls `$CTL` and `$UTL`.
#[derive(Clone, Copy)]
struct Tools<'a> {
    ctl: &'a str,
    utl: &'a str,
}

impl Tools<'static> {
    const THEIRS: Tools<'static> = Tools { ctl: "etcdctl", utl: "etcdutl" };
}

/// Runs every line of `script` with both, each against a store that has seen the same lines before.
fn compare(script: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/hengectl").join(script);
    let script = std::fs::read_to_string(path).expect("the script is there");
    let lines: Vec<&str> = script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let ports = free_ports();
    let transcript = |tools: Tools<'_>| {
        let etcd = Etcd::start(ports);
        lines.iter().map(|line| etcd.run(tools, line)).collect::<Vec<String>>()
    };
    let theirs = transcript(Tools::THEIRS);
    // By the names of those that it stands in for.
    let names = tempfile::tempdir().expect("a folder");
    let [ctl, utl] = ["etcdctl", "etcdutl"].map(|name| {
        let path = names.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hengectl"), &path).expect("a link");
        path.into_os_string().into_string().expect("temporary paths are text")
    });
    let ours = transcript(Tools { ctl: &ctl, utl: &utl });
    let mut differences = String::new();
    for ((line, theirs), ours) in lines.iter().zip(theirs).zip(ours).filter(|((_, theirs), ours)| theirs != ours) {
        let _ = writeln!(differences, "$ {line}\n--- etcdctl\n{theirs}--- hengectl\n{ours}");
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn a_group_without_a_command_of_its_own_prints_its_help() {
    let run = |arguments: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_hengectl")).args(arguments.split(' ')).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    for group in ["alarm", "alarm nonsense", "lease nonsense", "endpoint", "endpoint nonsense", "check nonsense"] {
        let (code, help, complaints) = run(group);
        assert!(help.contains("Commands:") && !help.contains("compaction"), "{group}: {help}");
        assert_eq!((code, complaints.as_str()), (Some(0), ""), "{group}");
    }
    let (code, help, complaint) = run("nonsense");
    assert_eq!((code, help.as_str()), (Some(1), ""));
    assert!(complaint.starts_with("Error: unknown command \"nonsense\" for \"hengectl\""), "{complaint}");
}

#[test]
#[ignore = "needs etcd and etcdctl 3.7"]
fn get_put_del_and_compaction_print_what_etcdctl_prints() {
    compare("kv");
}

#[test]
#[ignore = "needs etcd and etcdctl 3.7"]
fn txn_prints_what_etcdctl_prints() {
    compare("txn");
}

#[test]
#[ignore = "needs etcd and etcdctl 3.7"]
fn watch_prints_what_etcdctl_prints() {
    compare("watch");
}

#[test]
#[ignore = "needs etcd and etcdctl 3.7"]
fn changes_of_the_cluster_print_what_etcdctl_prints() {
    compare("membership");
}

#[test]
#[ignore = "needs etcd and etcdctl 3.7"]
fn leases_members_endpoints_and_alarms_print_what_etcdctl_prints() {
    compare("lease_and_cluster");
}

#[test]
#[ignore = "needs etcd and etcdctl 3.7"]
fn users_roles_and_auth_print_what_etcdctl_prints() {
    compare("auth");
}

#[test]
#[ignore = "needs etcd and etcdctl 3.7"]
fn flags_variables_and_the_rest_are_taken_and_refused_as_etcdctl_does() {
    compare("tool");
}

#[test]
#[ignore = "needs etcd, etcdctl and etcdutl 3.7"]
fn files_are_looked_at_as_etcdutl_does() {
    compare("files");
}

// What differs on purpose:
// - by its own name, a flag wins over its variable; etcdctl refuses to run with both, and so does hengectl by that name.
// - usage is printed only when asked for; a wrong flag gives one line. Retries are not logged.
// - a format that a change cannot be told in (`member add -w table`) is refused before the change, not after it.
// - `endpoint health` answers in the order of the endpoints. `member list --consistency` names the value that it does not know.
