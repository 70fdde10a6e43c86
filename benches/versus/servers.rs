//! What is compared: each a cluster of processes in a folder that goes with it.

use henge::pb::etcdserverpb::{PutRequest, kv_client::KvClient};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::Instant;
use tonic::transport::Endpoint;

/// Longest wait for a server.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose program is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Product {
    Henge,
    Etcd,
    /// A server that does nothing, and answers writes at once.
    Limit,
    /// The same, but a write waits for one fdatasync a batch.
    LimitSynced,
}

impl Product {
    pub fn name(self) -> &'static str {
        match self {
            Product::Henge => "henge",
            Product::Etcd => "etcd",
            Product::Limit => "limit",
            Product::LimitSynced => "limit with fdatasync",
        }
    }

    /// Whether it does nothing but answer.
    pub fn is_limit(self) -> bool {
        matches!(self, Product::Limit | Product::LimitSynced)
    }
}

/// Programs, and where they may listen.
#[derive(Clone, Debug)]
pub struct Programs {
    pub henge: PathBuf,
    pub etcd: Option<PathBuf>,
    pub port: u16,
    /// Where data goes: a real disk, or fdatasync costs nothing.
    pub dir: PathBuf,
}

/// A running cluster. Dropped, it is killed and its data is gone.
pub struct Cluster {
    pub product: Product,
    pub members: usize,
    urls: Vec<String>,
    starts: Vec<Start>,
    children: Vec<Child>,
    dir: tempfile::TempDir,
}

/// How a process is started.
struct Start {
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself, which whoever needs it has noticed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Cluster {
    /// Starts one and waits until it serves. `number` tells it from others that run at the same time.
    pub async fn start(programs: &Programs, product: Product, members: usize, number: u16) -> Result<Cluster, String> {
        let dir = tempfile::tempdir_in(&programs.dir)
            .map_err(|error| format!("no temporary folder in {}: {error}", programs.dir.display()))?;
        let port = |at: usize| programs.port + number * 10 + at as u16;
        let url = |at: usize| format!("http://127.0.0.1:{}", port(at));
        let urls: Vec<String> = (0..members).map(|at| url(2 * at)).collect();
        let peers = (0..members).map(|at| format!("m{at}={}", url(2 * at + 1))).collect::<Vec<_>>().join(",");
        let mut cluster = Cluster { product, members, urls, starts: Vec::new(), children: Vec::new(), dir };
        for at in 0..members {
            let folder = cluster.dir.path().to_owned();
            let (program, args) = match product {
                Product::Henge => (programs.henge.clone(), member(&folder, at, &url, &peers)),
                Product::Etcd => {
                    let program = programs.etcd.clone().ok_or("no etcd server; name one with --etcd-bin")?;
                    (program, member(&folder, at, &url, &peers))
                }
                Product::Limit | Product::LimitSynced => {
                    let own = std::env::current_exe().map_err(|error| format!("who am I? {error}"))?;
                    let mut args = vec!["limit".to_owned(), format!("--listen=127.0.0.1:{}", port(2 * at))];
                    if product == Product::LimitSynced {
                        args.push(format!("--synced={}", folder.join(format!("values{at}")).display()));
                    }
                    (own, args)
                }
            };
            cluster.starts.push(Start { program, args, log: folder.join(format!("m{at}.log")) });
        }
        cluster.spawn()?;
        cluster.wait().await?;
        Ok(cluster)
    }

    fn spawn(&mut self) -> Result<(), String> {
        for start in &self.starts {
            self.children.push(spawn(&start.program, &start.args, &start.log)?);
        }
        Ok(())
    }

    async fn wait(&self) -> Result<(), String> {
        for url in &self.urls {
            serves(url).await?;
        }
        Ok(())
    }

    /// Kills all processes at once, starts them again, and says how long it took until each acknowledged a write.
    pub async fn restart(&mut self) -> Result<Duration, String> {
        for mut child in self.children.drain(..) {
            let _ = child.kill(); // it may have ended by itself, which whoever needs it has noticed
            let _ = child.wait();
        }
        let began = Instant::now();
        self.spawn()?;
        self.wait().await?;
        Ok(began.elapsed())
    }

    /// The folder that goes with it.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// What its data takes on disk, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(self.dir.path())
    }

    pub fn name(&self) -> String {
        match (self.product, self.members) {
            (product, 1) => product.name().to_owned(),
            (product, members) if product.is_limit() => format!("{}, {members} servers", product.name()),
            (product, members) => format!("{}, {members} members", product.name()),
        }
    }

    /// For `--endpoints`.
    pub fn endpoints(&self) -> String {
        self.urls.join(",")
    }

    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.children.iter().map(Child::id)
    }

    /// Resident memory of all its processes, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.pids().map(resident_bytes).sum()
    }
}

/// Flags that etcd and henge both take.
fn member(folder: &Path, at: usize, url: &dyn Fn(usize) -> String, peers: &str) -> Vec<String> {
    let (client, peer) = (url(2 * at), url(2 * at + 1));
    [
        ("name", format!("m{at}")),
        ("data-dir", folder.join(format!("m{at}")).display().to_string()),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer),
        ("initial-cluster", peers.to_owned()),
        ("quota-backend-bytes", (8_u64 << 30).to_string()),
        ("log-level", "error".to_owned()),
    ]
    .map(|(name, value)| format!("--{name}={value}"))
    .to_vec()
}

fn spawn(program: &Path, args: &[String], log: &Path) -> Result<Child, String> {
    let log = File::create(log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().map_err(|error| format!("cannot start {}: {error}", program.display()))
}

/// Waits until a write is acknowledged.
async fn serves(url: &str) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| format!("{url}: {error}"))?;
    let mut kv = KvClient::new(endpoint.connect_lazy());
    let began = Instant::now();
    loop {
        let put = kv.put(PutRequest { key: "versus".into(), ..PutRequest::default() });
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

/// Blocks, not lengths: files may have holes.
fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let bytes = entries.filter_map(Result::ok).map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => disk_bytes(&entry.path()),
        _ => entry.metadata().map_or(0, |file| file.blocks() * 512),
    });
    bytes.sum()
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(|rest| {
        let mut words = rest.split_whitespace();
        words.next()?.parse::<u64>().ok()
    });
    kilobytes.unwrap_or(0) * 1_024
}
