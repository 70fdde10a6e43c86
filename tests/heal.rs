//! A core that puts proxies which volunteer in the place of voters that are gone: real processes, on loopback.
#![cfg(feature = "ctl")]

mod common;

use common::{Cluster, PATIENCE, Proxy, eventually, free_url};
use henge::{
    client::{Client, ConnectOptions, GetOptions, PutOptions},
    pb::etcdserverpb::Member,
};
use std::{
    collections::BTreeSet,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// Longer than a host takes to find its member dead and to start it again: up to three seconds.
const AFTER: Duration = Duration::from_secs(5);
const HEALING: &[&str] = &["--core-size=3", "--core-heal-after=5s"];

/// A proxy whose host volunteers, and the member that it starts. Dropping it ends both.
struct Volunteer {
    proxy: Proxy,
    dir: tempfile::TempDir,
    peer_url: String,
    client_url: String,
}

impl Volunteer {
    fn of(cluster: &Cluster, name: &str) -> Volunteer {
        let (dir, peer_url, client_url) = (tempfile::tempdir().expect("a folder"), free_url(), free_url());
        let upstreams = cluster.members.iter().map(|member| member.url()).collect::<Vec<_>>();
        let data_dir = dir.path().to_str().expect("a path");
        let proxy = Proxy::with(
            &upstreams,
            &[
                &["--name", name, "--data-dir", data_dir][..],
                &["--standby-peer-url", &peer_url, "--standby-client-url", &client_url],
                &["--standby-flags", &HEALING.join(" ")],
            ]
            .concat(),
        );
        Volunteer { proxy, dir, peer_url, client_url }
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default().trim().to_owned()
    }

    /// The member's process, if there was one.
    fn pid(&self) -> Option<u32> {
        self.file("standby/pid").parse().ok()
    }

    fn kill_member(&self) {
        let pid = self.pid().expect("its member was started").to_string();
        assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill(1)").success());
    }

    fn is_voter(&self, members: &[Member]) -> bool {
        members.iter().any(|member| member.peer_ur_ls.contains(&self.peer_url) && !member.is_learner)
    }
}

impl Drop for Volunteer {
    fn drop(&mut self) {
        // Who would start it again goes first.
        self.proxy.kill();
        if let Some(pid) = self.pid() {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(std::process::Stdio::null()).status();
        }
    }
}

fn client(cluster: &Cluster, urls: &[&str]) -> Client {
    let options = ConnectOptions { request_timeout: Some(Duration::from_secs(5)), ..ConnectOptions::default() };
    cluster.runtime().block_on(Client::connect(urls, options)).expect("a client")
}

/// The members as whoever of `urls` answers lists them.
fn members(cluster: &Cluster, urls: &[&str], linearizable: bool) -> Option<Vec<Member>> {
    let client = client(cluster, urls);
    Some(cluster.runtime().block_on(client.member_list(linearizable)).ok()?.members)
}

/// Waits until the core has three voters, all of them started and no learners, and `is_so`.
fn healed(cluster: &Cluster, urls: &[&str], what: &str, is_so: impl Fn(&[Member]) -> bool) -> Vec<Member> {
    let began = Instant::now();
    // Several conditions in a row, each of them with the patience of one.
    let seen = std::cell::RefCell::new(Vec::new());
    loop {
        if let Some(members) = members(cluster, urls, true) {
            let is_whole = members.len() == 3 && members.iter().all(|one| !one.is_learner && !one.name.is_empty());
            if is_whole && is_so(&members) {
                return members;
            }
            *seen.borrow_mut() = members;
        }
        assert!(began.elapsed() < PATIENCE * 3, "still not so: {what}: {:?}", seen.borrow());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Writes one key after the other until it is stopped.
struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, Duration)>,
}

impl Writer {
    fn start(cluster: &Cluster, urls: &[&str]) -> Writer {
        let (stop, client) = (Arc::new(AtomicBool::new(false)), client(cluster, urls));
        let stopped = Arc::clone(&stop);
        let task = cluster.runtime().spawn(async move {
            let (mut written, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
            while !stopped.load(SeqCst) {
                let key = format!("w/{written:06}");
                // It may have been applied without an answer; then it is written twice.
                if client.put(key, "v", PutOptions::default()).await.is_ok() {
                    written += 1;
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
            }
            (written, longest)
        });
        Writer { stop, task }
    }

    /// How many writes were acknowledged.
    fn finish(self, cluster: &Cluster) -> usize {
        self.stop.store(true, SeqCst);
        let (written, longest) = cluster.runtime().block_on(self.task).expect("it has not panicked");
        assert!(written > 0 && longest < PATIENCE, "{written} writes, and one took {longest:?}");
        written
    }
}

fn count(cluster: &Cluster, urls: &[&str]) -> usize {
    let client = client(cluster, urls);
    let prefix = GetOptions { count_only: true, ..GetOptions::prefix("w/") };
    eventually("the core answers", || {
        let read = cluster.runtime().block_on(client.get("w/", prefix.clone())).ok()?;
        usize::try_from(read.count).ok()
    })
}

fn ring(urls: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hengectl"));
    let Output { stdout, stderr, .. } =
        command.args(["ring", "-w", "json"]).env("ETCDCTL_ENDPOINTS", urls.join(",")).output().expect("hengectl runs");
    (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn voters_that_are_gone_are_replaced_one_by_one_and_never_at_the_price_of_the_quorum() {
    let mut cluster = Cluster::start_with(3, HEALING);
    let own = cluster.members.iter().map(|member| member.url().to_owned()).collect::<Vec<_>>();
    let (one, two) = (Volunteer::of(&cluster, "one"), Volunteer::of(&cluster, "two"));
    let mut urls = own.iter().map(String::as_str).collect::<Vec<_>>();
    eventually("both are listed", || {
        let (all, notes) = ring(&urls);
        let both = [&one, &two].iter().all(|host| all.contains(&host.peer_url)) && !all.contains("serves");
        (both && all.matches("\"standby\":\"stands by\"").count() == 2 && notes.contains("all voters are there"))
            .then_some(())
    });
    let of_standbys = [one.client_url.clone(), two.client_url.clone()];
    urls.extend(of_standbys.iter().map(String::as_str));
    let writer = Writer::start(&cluster, &urls);

    // The one that leads.
    let first = cluster.leader(&[0, 1, 2]);
    let first_id = cluster.id(first);
    cluster.members[first].kill();
    let rest = (0..3).filter(|at| *at != first).collect::<Vec<_>>();
    let after_one = healed(&cluster, &urls, "a standby takes the place of the first", |members| {
        members.iter().all(|member| member.id != first_id) && (one.is_voter(members) || two.is_voter(members))
    });
    let (mut hired, free) = if one.is_voter(&after_one) { (one, two) } else { (two, one) };
    assert!(!free.is_voter(&after_one) && free.pid().is_none(), "one is enough");

    // Its proxy is killed, and finds it running.
    let pid = hired.pid().expect("it runs");
    hired.proxy.kill_and_restart();
    eventually("the proxy has found its member", || {
        ring(&[urls[rest[0]]]).0.contains("\"standby\":\"serves\"").then_some(())
    });
    assert_eq!(hired.pid(), Some(pid), "it was not started again");
    // Then the member itself, which is started again.
    hired.kill_member();
    eventually("the member is started again", || hired.pid().filter(|again| *again != pid));

    // One that follows, or leads by now.
    let second = rest[0];
    let second_id = healed(&cluster, &urls, "all are there", |_| true)
        .iter()
        .find(|member| member.client_ur_ls == [own[second].clone()])
        .expect("it is listed")
        .id;
    // It counts for a quorum again.
    eventually("the member serves again", || members(&cluster, &[&hired.client_url], true));
    cluster.members[second].kill();
    healed(&cluster, &urls, "the other takes the place of the second", |members| {
        members.iter().all(|member| member.id != second_id) && free.is_voter(members) && hired.is_voter(members)
    });
    let written = writer.finish(&cluster);
    assert_eq!(count(&cluster, &urls), written, "every write that was acknowledged is there");

    // Two of three are gone, and there would be one to take their place.
    let third = Volunteer::of(&cluster, "three");
    eventually("the third is listed", || ring(&urls).0.contains(&third.peer_url).then_some(()));
    let last = rest[1];
    hired.proxy.kill();
    hired.kill_member();
    cluster.members[last].kill();
    let alone = [free.client_url.as_str()];
    let ids = |members: &[Member]| members.iter().map(|member| (member.id, member.is_learner)).collect::<BTreeSet<_>>();
    let before = ids(&members(&cluster, &alone, false).expect("it answers"));
    let began = Instant::now();
    while began.elapsed() < AFTER * 3 {
        let now = ids(&eventually("it answers", || members(&cluster, &alone, false)));
        assert_eq!(now, before, "something was changed without a quorum");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!((before.len(), third.pid()), (3, None));

    // With one of them there is a quorum again, and the other is replaced.
    cluster.members[last].restart();
    let urls = [own[last].as_str(), &free.client_url, &third.client_url];
    healed(&cluster, &urls, "the third takes the place of the one that is gone", |members| {
        third.is_voter(members) && free.is_voter(members) && !hired.is_voter(members)
    });
    assert_eq!(count(&cluster, &urls), written, "nothing is lost");
}

#[test]
fn a_core_of_one_grows_and_who_is_removed_sets_its_data_aside_and_can_come_again() {
    let cluster = Cluster::start_with(1, HEALING);
    let hosts = [Volunteer::of(&cluster, "one"), Volunteer::of(&cluster, "two")];
    let urls = [cluster.members[0].url(), &hosts[0].client_url, &hosts[1].client_url];
    let writer = Writer::start(&cluster, &urls);
    let members = healed(&cluster, &urls, "both volunteers vote", |_| true);
    let id = members.iter().find(|member| member.peer_ur_ls.contains(&hosts[0].peer_url)).expect("it votes").id;
    assert_eq!(hosts[0].file("standby/member-id"), format!("{id:x}"));

    eventually("it may leave", || cluster.ask_of(&[0], async |client| client.member_remove(id).await).ok());
    eventually("its data is set aside", || {
        (hosts[0].file("standby.removed/member-id") == format!("{id:x}")).then_some(())
    });
    let members = healed(&cluster, &urls, "it votes again", |members| hosts[0].is_voter(members));
    assert!(members.iter().all(|member| member.id != id), "it is another member: {members:?}");
    let written = writer.finish(&cluster);
    assert_eq!(count(&cluster, &[&hosts[0].client_url]), written, "it has everything");
}

#[test]
fn flags_that_lack_each_other_are_refused() {
    let refused = |words: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
        let Output { status, stderr, .. } = command.args(words.split(' ')).output().expect("henge runs");
        assert!(!status.success(), "{words}");
        String::from_utf8_lossy(&stderr).into_owned()
    };
    let text = refused("proxy --standby-peer-url http://127.0.0.1:1");
    for missing in ["--standby-peer-url needs --standby-client-url", "--standby-peer-url needs --data-dir"] {
        assert!(text.contains(missing), "{text}");
    }
    assert!(refused("--core-size 4").contains("an odd number of voters, at least 3"));
}
