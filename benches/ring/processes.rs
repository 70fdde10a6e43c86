//! The processes of a ring: started, looked at, killed.

use crate::{Ring, trust::Trust};
use henge::{
    client::{Client, ConnectOptions},
    pb::etcdserverpb::{PutRequest, kv_client::KvClient},
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a process to serve.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest wait for an answer to a client that repeats what failed.
const CALL_MAX: Duration = Duration::from_secs(30);

/// One server process. Dropped, it is killed.
pub struct Process {
    bin: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    pub url: String,
    child: Option<Child>,
}

impl Process {
    fn new(bin: &Path, args: Vec<String>, log: PathBuf, url: String) -> Process {
        Process { bin: bin.to_owned(), args, log, url, child: None }
    }

    pub fn start(&mut self) -> Result<(), String> {
        let open = || File::options().create(true).append(true).open(&self.log);
        let log = open().map_err(|error| format!("cannot write {}: {error}", self.log.display()))?;
        let mut command = Command::new(&self.bin);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|error| format!("cannot start {}: {error}", self.bin.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself, which whoever needs it will notice.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the flags say beside addresses and names.
#[derive(Default)]
pub struct Setup {
    /// More flags of each member.
    pub member_flags: Vec<String>,
    /// What proxies copy, whoever asks.
    pub prefix: String,
    /// The core speaks TLS with clients, and trusts its proxies.
    pub trust: Option<Trust>,
}

/// A core and its proxies, in a folder that goes with them.
pub struct Processes {
    pub core: Vec<Process>,
    pub proxies: Vec<Process>,
    trust: Option<Trust>,
    _dir: tempfile::TempDir,
}

impl Processes {
    /// Starts all of them, the proxies with copies of `prefix`, and waits until they serve.
    pub async fn start(ring: &Ring, prefix: &str) -> Result<Processes, String> {
        Processes::start_with(ring, Setup { prefix: prefix.to_owned(), ..Setup::default() }).await
    }

    /// The same with more that is not as usual.
    pub async fn start_with(ring: &Ring, setup: Setup) -> Result<Processes, String> {
        let Setup { member_flags, prefix, trust } = setup;
        let dir = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let url = |number: usize| format!("http://127.0.0.1:{}", usize::from(ring.port) + number);
        let core_url = |number: usize| match &trust {
            Some(_) => url(number).replace("http://", "https://"),
            None => url(number),
        };
        let members: Vec<String> = (0..ring.voters).map(|at| format!("m{at}={}", url(2 * at + 1))).collect();
        let bin = ring.etcd_bin.as_ref().unwrap_or(&ring.henge_bin);
        let member = |at: usize| {
            let (client, peer) = (core_url(2 * at), url(2 * at + 1));
            let data_dir = dir.path().join(format!("m{at}")).display().to_string();
            let args = [
                ("name", format!("m{at}")),
                ("data-dir", data_dir),
                ("listen-client-urls", client.clone()),
                ("advertise-client-urls", client.clone()),
                ("listen-peer-urls", peer.clone()),
                ("initial-advertise-peer-urls", peer),
                ("initial-cluster", members.join(",")),
                ("log-level", "warn".to_owned()),
            ];
            let args = [flags(&args), member_flags.clone(), trust.as_ref().map_or_else(Vec::new, Trust::member_flags)];
            Process::new(bin, args.concat(), dir.path().join(format!("m{at}.log")), client)
        };
        let mut core: Vec<Process> = (0..ring.voters).map(member).collect();
        let endpoints = core.iter().map(|member| member.url.as_str()).collect::<Vec<_>>().join(",");
        let proxy = |at: usize| {
            let listen = url(2 * ring.voters + at);
            let args = [
                ("endpoints", endpoints.clone()),
                ("listen-client-urls", listen.clone()),
                ("cache-prefix", prefix.clone()),
                ("log-level", "warn".to_owned()),
            ];
            let trusted = trust.as_ref().map_or_else(Vec::new, |trust| trust.proxy_flags(at));
            let args = [vec!["proxy".to_owned()], flags(&args), trusted];
            Process::new(&ring.henge_bin, args.concat(), dir.path().join(format!("p{at}.log")), listen)
        };
        let mut proxies: Vec<Process> = (0..ring.proxies).map(proxy).collect();
        for process in core.iter_mut().chain(&mut proxies) {
            process.start()?;
        }
        let processes = Processes { core, proxies, trust, _dir: dir };
        // A core with TLS is asked through its proxies.
        let asked = processes.core.iter().filter(|member| member.url.starts_with("http://"));
        for process in asked.chain(&processes.proxies) {
            serves(&process.url).await?;
        }
        Ok(processes)
    }

    /// A client for these addresses, of members or proxies, who is `user` with a password.
    pub async fn client(&self, urls: &[&str], (user, password): (&str, &str)) -> Result<Client, String> {
        let options = ConnectOptions {
            user: Some((user.to_owned(), password.to_owned())),
            tls: self.trust.as_ref().map(Trust::tls),
            request_timeout: Some(CALL_MAX),
            ..ConnectOptions::default()
        };
        Client::connect(urls, options).await.map_err(|error| format!("{urls:?}: {error}"))
    }

    /// Where hosts go.
    pub fn front(&self) -> Vec<String> {
        let front = if self.proxies.is_empty() { &self.core } else { &self.proxies };
        front.iter().map(|process| process.url.clone()).collect()
    }
}

/// `--name=value` of each.
pub fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

/// A connection that is made when it is needed, and again when it is lost.
pub fn channel(url: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| format!("{url}: {error}"))?;
    Ok(endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(5)).connect_lazy())
}

/// Waits until a write through `url` is acknowledged.
pub async fn serves(url: &str) -> Result<(), String> {
    let mut kv = KvClient::new(channel(url)?);
    let began = Instant::now();
    loop {
        let put = kv.put(PutRequest { key: "bench-ring-ready".into(), ..PutRequest::default() });
        let refused = match tokio::time::timeout(Duration::from_secs(2), put).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "no answer".to_owned(),
        };
        if began.elapsed() > PATIENCE {
            return Err(format!("{url} does not serve: {refused}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What these processes have spent together, and the memory that they hold.
pub fn spent<'a>(processes: impl IntoIterator<Item = &'a Process>) -> Usage {
    let each = processes.into_iter().filter_map(Process::pid).map(of);
    each.fold(Usage::default(), |sum, one| Usage {
        cpu: sum.cpu + one.cpu,
        resident_bytes: sum.resident_bytes + one.resident_bytes,
    })
}

/// CPU time since a moment, of processes of which some end and others begin meanwhile.
pub struct Meter(Vec<(u32, Duration)>);

impl Meter {
    pub fn start(processes: &[Process]) -> Meter {
        Meter(processes.iter().filter_map(Process::pid).map(|pid| (pid, of(pid).cpu)).collect())
    }

    /// What those that run now have spent since then. Of those that have ended nobody can tell any more.
    pub fn cpu(&self, processes: &[Process]) -> Duration {
        let before = |pid: u32| self.0.iter().find(|(known, _)| *known == pid).map_or(Duration::ZERO, |(_, cpu)| *cpu);
        processes.iter().filter_map(Process::pid).map(|pid| of(pid).cpu.saturating_sub(before(pid))).sum()
    }
}

/// What one process has spent. Nothing, if it is gone.
pub fn of(pid: u32) -> Usage {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stat = read("stat");
    // The program's name may hold blanks and brackets, so fields count from the last one.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let status = read("status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Usage {
        // USER_HZ is 100 on every Linux that programs meet.
        cpu: Duration::from_millis((ticks(11) + ticks(12)) * 10),
        resident_bytes: kilobytes.unwrap_or(0) * 1_024,
    }
}

/// User and system time, and resident memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_bytes: u64,
}
