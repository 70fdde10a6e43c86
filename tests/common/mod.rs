//! A real server process for tests: on free ports, in a folder of its own, gone when the test ends.
//!
//! `HENGE_BIN` names another server to test the tests with (a stock etcd, say).

#![allow(dead_code)] // each test file uses its own part

mod cluster;
mod proxy;

#[allow(unused_imports)] // as above
pub use cluster::{Cluster, PATIENCE, eventually};
#[allow(unused_imports)] // as above
pub use proxy::Proxy;

use henge::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, kv_client::KvClient,
    lease_client::LeaseClient,
};
use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// A server process. Dropping it kills it and removes its folder.
pub struct Server {
    dir: tempfile::TempDir,
    url: String,
    /// Where other members reach it; by default nobody needs to.
    peer: Option<String>,
    child: Option<Child>,
    runtime: Runtime,
    args: Vec<String>,
    file_bytes_max: u64,
}

/// A port that nobody listens on, and that nobody else in this program was given: servers bind theirs some time later. Not one that the
/// system would give to an outgoing connection meanwhile: those are from 32768 on.
pub fn free_url() -> String {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("nothing panics with it");
    loop {
        let port = rand::random_range(10_000..32_000);
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return format!("http://127.0.0.1:{port}");
        }
    }
}

impl Server {
    /// A fresh server, serving.
    pub fn start() -> Server {
        Server::start_with(&[])
    }

    /// A fresh server with more flags, serving.
    pub fn start_with(args: &[&str]) -> Server {
        let mut server = Server::prepared(None, args);
        server.restart();
        server
    }

    /// A server that has not been started yet.
    fn prepared(peer: Option<String>, args: &[&str]) -> Server {
        Server {
            dir: tempfile::tempdir().expect("a temporary folder"),
            url: free_url(),
            peer,
            child: None,
            runtime: Runtime::new().expect("a runtime"),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            file_bytes_max: u64::MAX,
        }
    }

    /// Where it serves clients.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its data.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What it wrote to standard error so far, all runs together.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn command(&self, more: &[&str]) -> Command {
        let bin = std::env::var("HENGE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_henge").to_owned());
        let mut command = match self.file_bytes_max {
            u64::MAX => Command::new(bin),
            bytes => {
                // Blocks of 512 bytes. Ignored, the signal becomes an error of the write.
                let limited = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", bytes / 512);
                let mut command = Command::new("sh");
                command.args(["-c", &limited, &bin]);
                command
            }
        };
        let alone = free_url();
        let (listen, advertise) = match &self.peer {
            Some(peer) => (peer.as_str(), peer.as_str()),
            None => (alone.as_str(), "http://localhost:2380"),
        };
        command
            .args(["--listen-client-urls", &self.url, "--advertise-client-urls", &self.url, "--data-dir"])
            .arg(self.data_dir())
            .args(["--listen-peer-urls", listen, "--initial-advertise-peer-urls", advertise])
            .args(&self.args)
            .args(more);
        command
    }

    /// Starts the process again on the same folder and port, and waits until it serves.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_until_it_serves();
    }

    /// The same with more flags for this one run.
    pub fn restart_with(&mut self, args: &[&str]) {
        self.spawn_with(args);
        self.wait_until_it_serves();
    }

    /// Starts the process.
    pub fn spawn(&mut self) {
        self.spawn_with(&[]);
    }

    fn spawn_with(&mut self, args: &[&str]) {
        assert!(self.child.is_none(), "the server runs already");
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log");
        self.child = Some(self.command(args).stdout(Stdio::null()).stderr(log).spawn().expect("the server starts"));
    }

    /// Waits until linearizable reads are answered.
    pub fn wait_until_it_serves(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.try_get("readiness", 0) {
            if error.contains("user name is empty") {
                return; // it asks who we are, so it does
            }
            let gone = self.child.as_mut().expect("a child").try_wait().expect("its state");
            assert!(gone.is_none(), "the server ended: {gone:?}\n{}", self.log());
            assert!(Instant::now() < deadline, "the server does not serve: {error}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the process for a run that is expected to fail by itself.
    pub fn try_start_once(&self) -> Output {
        self.try_start_once_with(&[])
    }

    /// The same with more flags.
    pub fn try_start_once_with(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the server starts")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server can be killed");
            child.wait().expect("the server is gone");
        }
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("its state").is_none())
    }

    /// SIGSTOP: it hangs, with its connections open.
    pub fn pause(&self) {
        self.signal("-STOP");
        // On a busy machine it runs on until one of its threads has taken the signal.
        eventually("the server is stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("a running server");
            stat.rsplit_once(')').expect("a name").1.starts_with(" T").then_some(())
        });
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let told = Command::new("kill").args([signal, &self.pid().to_string()]).status().expect("kill(1)");
        assert!(told.success());
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("-TERM");
        let mut child = self.child.take().expect("a running server");
        child.wait().expect("the server is gone")
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    /// A connection of its own.
    pub async fn channel(url: &str) -> Result<Channel, String> {
        let endpoint = Channel::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
        endpoint.connect_timeout(Duration::from_secs(2)).connect().await.map_err(|error| error.to_string())
    }

    fn call<T, F: Future<Output = Result<T, tonic::Status>>>(
        &self,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, String> {
        self.runtime.block_on(async {
            let channel = Server::channel(&self.url).await?;
            tokio::time::timeout(PATIENCE, call(channel))
                .await
                .map_err(|_| "timed out".to_owned())?
                .map_err(|status| status.message().to_owned())
        })
    }

    /// From the next start on no file of the server may grow beyond so many bytes.
    pub fn limit_file_bytes(&mut self, bytes: u64) {
        self.file_bytes_max = bytes;
    }

    /// Waits for a server that ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.take().expect("a running server").wait().expect("the server is gone")
    }

    /// Writes, or says why not.
    pub fn try_put(&self, key: &str, value: &str) -> Result<i64, String> {
        let request =
            PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() };
        let reply = self.call(|channel| async move { KvClient::new(channel).put(request).await })?;
        Ok(reply.into_inner().header.expect("a header").revision)
    }

    /// Writes, and returns the revision.
    pub fn put(&self, key: &str, value: &str) -> i64 {
        self.put_with_lease(key, value, 0)
    }

    /// Writes a key that ends with a lease.
    pub fn put_with_lease(&self, key: &str, value: &str, lease: i64) -> i64 {
        let request =
            PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), lease, ..PutRequest::default() };
        let reply = self.call(|channel| async move { KvClient::new(channel).put(request).await });
        reply.expect("a put").into_inner().header.expect("a header").revision
    }

    fn try_get(&self, key: &str, revision: i64) -> Result<(Option<String>, i64), String> {
        let request = RangeRequest { key: key.to_owned().into(), revision, ..RangeRequest::default() };
        let reply = self.call(|channel| async move { KvClient::new(channel).range(request).await })?.into_inner();
        let value = reply.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
        Ok((value, reply.header.expect("a header").revision))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<String> {
        self.try_get(key, 0).expect("a get").0
    }

    /// The value of a key at a revision, or the refusal.
    pub fn get_at(&self, key: &str, revision: i64) -> Result<String, String> {
        Ok(self.try_get(key, revision)?.0.unwrap_or_default())
    }

    /// The store's revision.
    pub fn revision(&self) -> i64 {
        self.try_get("revision", 0).expect("a get").1
    }

    /// Deletes a key.
    pub fn delete(&self, key: &str) {
        let request = DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
        self.call(|channel| async move { KvClient::new(channel).delete_range(request).await }).expect("a delete");
    }

    /// Makes a lease.
    pub fn grant(&self, ttl_s: i64) -> i64 {
        let request = LeaseGrantRequest { ttl: ttl_s, id: 0 };
        let reply = self.call(|channel| async move { LeaseClient::new(channel).lease_grant(request).await });
        reply.expect("a grant").into_inner().id
    }

    /// Forgets history before a revision.
    pub fn compact(&self, revision: i64) {
        let request = CompactionRequest { revision, physical: true };
        self.call(|channel| async move { KvClient::new(channel).compact(request).await }).expect("a compaction");
    }

    /// Waits until a key is no longer there.
    pub fn wait_until_gone(&self, key: &str, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.get(key).is_some() {
            assert!(Instant::now() < deadline, "{key} is still there");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The folder that is removed with the server.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
