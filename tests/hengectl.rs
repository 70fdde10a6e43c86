//! hengectl prints what etcdctl prints, and exits as it exits.
//!
//! Each script is run by hengectl against henge, and compared with what etcdctl printed against etcd, which is recorded beside the script.
//! Where `etcd`, `etcdctl` and `etcdutl` 3.7 are in the path, `cargo test --test hengectl -- --ignored` runs both against the same etcd;
//! with `UPDATE=1` it records anew. What differs on purpose stands at the end of this file.
#![cfg(all(feature = "ctl", feature = "server"))]

use std::{
    fmt::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// An etcd or a henge with an empty store. The same ports give the same cluster and member ids.
struct Server {
    process: Child,
    dir: tempfile::TempDir,
    client: String,
}

impl Server {
    fn start(program: &str, ports: [u16; 2], tools: Tools<'_>) -> Server {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let [client, peer] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        let process = Command::new(program)
            .args(["--data-dir", dir.path().join("data").to_str().expect("temporary paths are text")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server is installed");
        let server = Server { process, dir, client: format!("127.0.0.1:{}", ports[0]) };
        let began = Instant::now();
        while !server.run(tools, "$CTL get x").ends_with("exit 0\n") {
            assert!(began.elapsed() < Duration::from_secs(30), "{program} does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
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

impl Drop for Server {
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

/// hengectl by the names of those that it stands in for.
struct Ours(tempfile::TempDir);

impl Ours {
    fn new() -> Ours {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["etcdctl", "etcdutl"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hengectl"), dir.path().join(name)).expect("a link");
        }
        Ours(dir)
    }

    fn paths(&self) -> [String; 2] {
        let path = |name| self.0.path().join(name).into_os_string().into_string();
        ["etcdctl", "etcdutl"].map(|name| path(name).expect("temporary paths are text"))
    }
}

/// A script: lines for a shell.
struct Script {
    lines: Vec<String>,
    recorded: PathBuf,
}

impl Script {
    fn read(name: &str) -> Script {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/hengectl");
        let script = std::fs::read_to_string(dir.join(name)).expect("the script is there");
        let lines = script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned);
        Script { lines: lines.collect(), recorded: dir.join("recorded").join(name) }
    }

    /// What each line prints against a fresh server, with what is the server's own blotted out if `is_masked`.
    fn run(&self, program: &str, ports: [u16; 2], tools: Tools<'_>, is_masked: bool) -> Vec<String> {
        let server = Server::start(program, ports, tools);
        let own = Own::of(&server, ports, tools);
        let run = |line: &String| {
            let text = server.run(tools, line);
            if is_masked { own.mask(text) } else { text }
        };
        self.lines.iter().map(run).collect()
    }
}

/// What a server has that no other has.
struct Own(Vec<(String, String)>);

impl Own {
    fn of(server: &Server, ports: [u16; 2], tools: Tools<'_>) -> Own {
        let list = server.run(tools, "$CTL member list -w json");
        let list = list.lines().next().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let header = list.as_ref().and_then(|list| list.get("header")).expect("a header").clone();
        let mut own =
            vec![(format!(":{}", ports[0]), ":CLIENT".to_owned()), (format!(":{}", ports[1]), ":PEER".to_owned())];
        for (name, mask) in [("cluster_id", "CLUSTER"), ("member_id", "MEMBER")] {
            let id = header[name].as_u64().expect("an id");
            own.extend([(id.to_string(), mask.to_owned())]);
            // Some lines fill up an id that begins with zeros, with as many blanks: after the one that is always there.
            own.extend([(format!(" {id:16x}"), format!(" {mask}")), (format!("{id:x}"), mask.to_owned())]);
        }
        own.extend(["3.7.1", "3.7.2", "3.7.3"].map(|version| (version.to_owned(), "3.7.N".to_owned())));
        Own(own)
    }

    fn mask(&self, text: String) -> String {
        self.0.iter().fold(text, |text, (own, mask)| text.replace(own, mask))
    }
}

/// Lines that print what no two servers share, such as sizes and bytes of ids, or what is a matter of moments: they are compared against one
/// and the same only. So are all watches.
fn is_live(line: &str) -> bool {
    line.ends_with("# live") || line.contains("od -c")
}

fn differences(lines: &[String], theirs: &[String], ours: &[String]) -> String {
    let mut text = String::new();
    for ((line, theirs), ours) in lines.iter().zip(theirs).zip(ours).filter(|((_, theirs), ours)| theirs != ours) {
        let _ = writeln!(text, "$ {line}\n--- etcdctl\n{theirs}--- hengectl\n{ours}");
    }
    text
}

/// Runs every line of a script with both against etcd, each against a store that has seen the same lines before.
fn compare(name: &str) {
    let script = Script::read(name);
    let (ports, names) = (free_ports(), Ours::new());
    let [ctl, utl] = names.paths();
    if std::env::var_os("UPDATE").is_some() && name != "watch" {
        let mut recorded = String::new();
        let theirs = script.run("etcd", ports, Tools::THEIRS, true);
        for (line, output) in script.lines.iter().zip(theirs).filter(|(line, _)| !is_live(line)) {
            let _ = write!(recorded, "$ {line}\n{output}");
        }
        std::fs::write(&script.recorded, recorded).expect("the record can be written");
    }
    let theirs = script.run("etcd", ports, Tools::THEIRS, false);
    let ours = script.run("etcd", ports, Tools { ctl: &ctl, utl: &utl }, false);
    let differences = differences(&script.lines, &theirs, &ours);
    assert!(differences.is_empty(), "{differences}");
}

/// Runs every line of a script with hengectl against henge, and compares with what is recorded of etcd's.
fn replay(name: &str) {
    let script = Script::read(name);
    let names = Ours::new();
    let [ctl, utl] = names.paths();
    let recorded = std::fs::read_to_string(&script.recorded).expect("the record is there");
    let outputs = script.run(env!("CARGO_BIN_EXE_henge"), free_ports(), Tools { ctl: &ctl, utl: &utl }, true);
    let told = script.lines.iter().zip(outputs).filter(|(line, _)| !is_live(line));
    let (lines, ours): (Vec<String>, Vec<String>) = told.map(|(line, output)| (line.clone(), output)).unzip();
    let mut theirs = vec![String::new(); lines.len()];
    let mut at = 0;
    for line in recorded.lines() {
        if lines.get(at).is_some_and(|next| line.strip_prefix("$ ") == Some(next)) {
            at += 1;
        } else if at > 0 {
            theirs[at - 1].push_str(&format!("{line}\n"));
        }
    }
    assert_eq!(at, lines.len(), "the record is of another script; UPDATE=1 with --ignored records it anew");
    let differences = differences(&lines, &theirs, &ours);
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn keys_are_told_as_etcdctl_has_told_them() {
    replay("kv");
}

#[test]
fn transactions_are_told_as_etcdctl_has_told_them() {
    replay("txn");
}

#[test]
fn leases_and_the_cluster_are_told_as_etcdctl_has_told_them() {
    replay("lease_and_cluster");
}

#[test]
fn changes_of_the_cluster_are_told_as_etcdctl_has_told_them() {
    replay("membership");
}

#[test]
fn users_and_roles_are_told_as_etcdctl_has_told_them() {
    replay("auth");
}

#[test]
fn flags_and_variables_are_taken_as_etcdctl_has_taken_them() {
    replay("tool");
}

#[test]
fn files_are_told_as_etcdutl_has_told_them() {
    replay("files");
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
fn an_endpoint_that_does_not_answer_is_passed_over_also_with_a_user() {
    let names = Ours::new();
    let [ctl, utl] = names.paths();
    let tools = Tools { ctl: &ctl, utl: &utl };
    let server = Server::start(env!("CARGO_BIN_EXE_henge"), free_ports(), tools);
    let up = server.client.clone();
    let line = format!(
        "unset ETCDCTL_ENDPOINTS; $CTL --user a:b --endpoints 127.0.0.1:1,{up} endpoint hashkv \
         --dial-timeout 300ms --command-timeout 300ms 2>&1"
    );
    let told = server.run(tools, &line);
    assert!(told.starts_with("Failed to get the hash of endpoint 127.0.0.1:1 ("), "{told}");
    assert!(told.contains(&format!("{up}, ")), "{told}");
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
fn locks_and_elections_print_what_etcdctl_prints() {
    compare("locks");
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
// - `endpoint health` answers in the order of the endpoints; with a user, one that does not answer ends nothing. `member list --consistency` names the value that it does not know.
