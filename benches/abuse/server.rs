//! The server under abuse: started, filled, looked at, killed.

use crate::Cli;
use henge::pb::etcdserverpb::{PutRequest, kv_client::KvClient};
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};
use tonic::transport::{Channel, Endpoint};

/// Longest wait for it to serve.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clients that fill it.
const FILLERS: u64 = 16;

/// One process and its folder. Dropped, both are gone.
pub struct Server {
    pub url: String,
    child: Child,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

/// A connection of its own.
pub async fn connect(url: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
    let endpoint = endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(5));
    endpoint.connect().await.map_err(|error| format!("no connection to {url}: {error}"))
}

impl Server {
    pub async fn start(cli: &Cli) -> Result<Server, String> {
        let dir = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let (url, peer) = (format!("http://{}", cli.address()), format!("http://127.0.0.1:{}", cli.port + 1));
        let log = dir.path().join("log");
        let out = std::fs::File::create(&log).map_err(|error| format!("no log: {error}"))?;
        let mut command = Command::new(cli.etcd_bin.as_ref().unwrap_or(&cli.henge_bin));
        command.arg("--data-dir").arg(dir.path().join("data"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--log-level", "error"]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        if cli.etcd_bin.is_none() {
            command.args(["--memory-budget", &cli.memory_budget.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
        let child = command.spawn().map_err(|error| format!("cannot start the server: {error}"))?;
        let mut server = Server { url, child, log, _dir: dir };
        let began = Instant::now();
        while let Err(why) = server.try_put().await {
            server.is_alive()?;
            if began.elapsed() > PATIENCE {
                return Err(format!("the server does not serve: {why}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(server)
    }

    async fn try_put(&self) -> Result<(), String> {
        let mut kv = KvClient::new(connect(&self.url).await?);
        kv.put(PutRequest { key: "ready".into(), ..PutRequest::default() }).await.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Fills in `bytes` of values below `data/`; how many keys that are.
    pub async fn fill(&self, bytes: u64, val_size: usize) -> Result<u64, String> {
        let keys = bytes / val_size as u64;
        let mut fillers = JoinSet::new();
        for filler in 0..FILLERS {
            let mut kv = KvClient::new(connect(&self.url).await?);
            fillers.spawn(async move {
                for number in (filler..keys).step_by(FILLERS as usize) {
                    let key = format!("data/{number:08}").into();
                    let put = PutRequest { key, value: vec![b'v'; val_size].into(), ..PutRequest::default() };
                    kv.put(put).await.map_err(|error| format!("cannot fill in: {error}"))?;
                }
                Ok::<(), String>(())
            });
        }
        while let Some(done) = fillers.join_next().await {
            done.map_err(|error| error.to_string())??;
        }
        Ok(keys)
    }

    /// The most memory that it had so far.
    pub fn peak_rss_bytes(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        let kib = line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).ok_or("no number")?;
        Ok(kib * 1024)
    }

    /// An error if it has ended.
    pub fn is_alive(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(how)) => {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                Err(format!("the server ended: {how}\n{log}"))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
