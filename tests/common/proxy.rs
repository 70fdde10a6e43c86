//! `henge` as whatever its first argument says, each a process on loopback: what stands before a server, or a server with TLS.

use super::{Server, eventually, free_url};
use henge::{
    client::{Client, ConnectOptions},
    pb::etcdserverpb::{RangeRequest, kv_client::KvClient},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};
use tokio::runtime::Runtime;

/// A process. Dropping it kills it.
pub struct Proxy {
    dir: tempfile::TempDir,
    url: String,
    args: Vec<String>,
    ready: &'static str,
    child: Child,
    runtime: Runtime,
}

impl Proxy {
    /// A proxy of `upstreams`, accepting.
    pub fn of(upstreams: &[&str]) -> Proxy {
        Proxy::with(upstreams, &[])
    }

    /// The same with more flags.
    pub fn with(upstreams: &[&str], more: &[&str]) -> Proxy {
        let url = free_url();
        let endpoints = upstreams.join(",");
        let flags = ["proxy", "--endpoints", &endpoints, "--listen-client-urls", &url];
        Proxy::start(&url, &[&flags, more].concat(), "ready to serve client requests")
    }

    /// The proxies that `HENGE_VIA` names, from the server at `url` outwards: `proxy` is one as it comes, `copy` one that copies all keys
    /// and that answers from its copy by now.
    pub fn via(url: &str) -> Vec<Proxy> {
        let words = std::env::var("HENGE_VIA").unwrap_or_default();
        let mut proxies: Vec<Proxy> = Vec::new();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let upstream = proxies.last().map_or(url, Proxy::url);
            proxies.push(match word {
                "proxy" => Proxy::of(&[upstream]),
                "copy" => Proxy::with(&[upstream], &["--cache-prefix="]),
                other => panic!("HENGE_VIA has {other:?}, which is neither `proxy` nor `copy`"),
            });
            let newest = proxies.last().expect("one more");
            eventually("it answers from its copy", || (word != "copy" || newest.has_a_copy()).then_some(()));
        }
        proxies
    }

    fn has_a_copy(&self) -> bool {
        let request = RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() };
        let read = async {
            let channel = Server::channel(&self.url).await.expect("the proxy is there");
            KvClient::new(channel).range(request).await.expect("an answer").metadata().contains_key("henge-served-by")
        };
        self.runtime.block_on(read)
    }

    /// A gateway to `upstreams`, accepting, with more flags.
    pub fn gateway(upstreams: &[&str], more: &[&str]) -> Proxy {
        let url = free_url();
        let endpoints = upstreams.join(",");
        let listen = url.trim_start_matches("http://");
        let flags = ["gateway", "start", "--endpoints", &endpoints, "--listen-addr", listen];
        Proxy::start(&url, &[&flags, more].concat(), "ready to proxy client requests")
    }

    /// A process that will serve clients at `url`, once `ready` stands in its log.
    pub fn start(url: &str, args: &[&str], ready: &'static str) -> Proxy {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let child = launch(&args, dir.path());
        let runtime = Runtime::new().expect("a runtime");
        let mut proxy = Proxy { dir, url: url.to_owned(), args, ready, child, runtime };
        proxy.await_ready();
        proxy
    }

    fn await_ready(&mut self) {
        eventually("the proxy is ready", || {
            let gone = self.child.try_wait().expect("its state");
            assert!(gone.is_none(), "the proxy ended: {gone:?}\n{}", self.log());
            self.log().contains(self.ready).then_some(())
        });
    }

    /// SIGKILL, and the same once more; its log begins anew.
    pub fn kill_and_restart(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is gone");
        self.child = launch(&self.args, self.dir.path());
        self.await_ready();
    }

    /// Where it serves clients.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A client of it, for tasks on [`Proxy::runtime`].
    pub fn client(&self, options: ConnectOptions) -> Client {
        self.runtime.block_on(Client::connect([&self.url], options)).expect("a client")
    }

    /// Where its clients may run.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Status and body of a plain GET.
    pub fn http(&self, path: &str) -> (u16, String) {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("a connection");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("a request");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
        (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status"), body.to_owned())
    }

    /// Processor time that it has used, in clock ticks (100 a second).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a running proxy");
        // After the name, which may hold anything, utime and stime are the 12th and 13th fields.
        let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect::<Vec<_>>();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// SIGSTOP: it hangs, with its connections open.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("the proxy can be killed");
        self.child.wait().expect("the proxy is gone");
    }

    fn signal(&self, signal: &str) {
        let told = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill(1)");
        assert!(told.success());
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.child.wait().expect("the proxy is gone")
    }
}

fn launch(args: &[String], dir: &Path) -> Child {
    let log = std::fs::File::create(dir.join("log")).expect("a log");
    // Always henge: HENGE_BIN may name another server behind it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
    command.args(args).stdout(Stdio::null()).stderr(log).spawn().expect("the proxy starts")
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
