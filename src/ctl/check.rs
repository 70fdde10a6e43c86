//! check perf and check datascale: is this cluster fast and large enough for a load of this size?

use super::{
    bench::{self, Load, Outcome},
    failure::Failure,
    global::Global,
};
use crate::{
    client::{Client, ConnectOptions, DeleteOptions, GetOptions, PutOptions, TlsOptions},
    tls::{Http, dial},
};
use bytes::Bytes;
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Checks.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Check the performance of the etcd cluster for 60 seconds
    Perf {
        #[command(flatten)]
        args: Args,
        /// The prefix for writing the check's keys; must hold no keys
        #[arg(long, default_value = "/etcdctl-check-perf/")]
        prefix: String,
    },
    /// Check the memory usage of holding data for different workloads on a given server endpoint
    Datascale {
        #[command(flatten)]
        args: Args,
        /// The prefix for writing the check's keys; must hold no keys
        #[arg(long, default_value = "/etcdctl-check-datascale/")]
        prefix: String,
    },
}

/// What to check with.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The workload: s(small), m(medium), l(large), xl(xLarge)
    #[arg(long, default_value = "s")]
    load: String,
    /// Compact storage with the last revision after the test is finished
    #[arg(long)]
    auto_compact: bool,
    /// Defragment storage after the test is finished
    #[arg(long)]
    auto_defrag: bool,
}

/// Connections that the clients share.
const CONNECTIONS: usize = 8;
/// What tidying up may take.
const TIDY: Duration = Duration::from_secs(30);

pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let (perf, args, prefix) = match command {
        Command::Perf { args, prefix } => (true, args, prefix),
        Command::Datascale { args, prefix } => (false, args, prefix),
    };
    // Writes per second of perf, pairs of datascale, and clients of both.
    let (rate, pairs, clients) = match args.load.to_lowercase().as_str() {
        "s" | "small" => (150.0, 10_000, 50),
        "m" | "medium" => (1_000.0, 100_000, 200),
        "l" | "large" => (8_000.0, 1_000_000, 500),
        "xl" | "xlarge" => (15_000.0, 3_000_000, 1_000),
        _ => return Err(Failure::unsupported(format!("unknown load option {}", args.load))),
    };
    let check = Check::begin(global, prefix, perf).await?;
    match perf {
        true => check.perf(&args, rate, clients).await,
        false => check.scale(&args, pairs, clients).await,
    }
}

struct Check<'a> {
    global: &'a Global,
    prefix: String,
    clients: Vec<Client>,
}

impl Check<'_> {
    /// Nothing may be below the prefix: it will be removed.
    async fn begin(global: &Global, prefix: String, perf: bool) -> Result<Check<'_>, Failure> {
        let mut clients = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            clients.push(global.client().await?);
        }
        let key = below(&prefix, "");
        let found = clients[0].get(key, GetOptions { limit: 1, ..GetOptions::prefix(&prefix) }).await?;
        if found.kvs.is_empty() {
            return Ok(Check { global, prefix, clients });
        }
        let remedy = format!("etcdctl del --prefix {prefix}");
        let remedy = if perf { format!("'{remedy}'") } else { remedy };
        Err(Failure::input(format!("prefix {prefix:?} has keys. Delete with {remedy} first")))
    }

    /// Puts keys below the prefix; an interrupt from the keyboard ends it early.
    async fn load(&self, load: Load, key_bytes: usize, value_bytes: usize) -> Option<Outcome> {
        let value = Bytes::from(vec![0; value_bytes]);
        let (clients, prefix) = (self.clients.clone(), self.prefix.clone());
        let put = move |client: usize, number: u64| {
            let client = clients[client % clients.len()].clone();
            let (key, value) = (below(&prefix, &format!("{number:0key_bytes$}")), value.clone());
            async move {
                let put = client.put(key, value, PutOptions::default()).await;
                put.map(drop).map_err(|error| error.to_string())
            }
        };
        let halt = Arc::<AtomicBool>::default();
        let mut driven = pin!(bench::drive(load, Arc::clone(&halt), put));
        tokio::select! {
            outcome = &mut driven => return Some(outcome),
            _ = tokio::signal::ctrl_c() => halt.store(true, Relaxed),
        }
        // A put that is under way could otherwise arrive after its key was removed.
        let _ = tokio::time::timeout(TIDY, driven).await;
        None
    }

    async fn perf(&self, args: &Args, rate: f64, clients: usize) -> Result<(), Failure> {
        let duration = Some(Duration::from_secs(60));
        let load = Load { clients, total: 0, duration, rate, pids: Vec::new() };
        let outcome = self.load(load, 256, 1024).await;
        // What was measured is told even if the keys are still there.
        match self.tidy().await {
            Ok(revision) => self.shrink(args, revision).await?,
            Err(error) => println!("FAIL: Cleanup failed during key deletion: ERROR({})", error.text()),
        }
        let Some(outcome) = outcome else { return Err(Failure::error("interrupted")) };
        if judge(&outcome, rate) { Ok(()) } else { Err(Failure::error("")) }
    }

    async fn scale(&self, args: &Args, pairs: u64, clients: usize) -> Result<(), Failure> {
        let before = self.resident("before").await?;
        println!(
            "Start data scale check for work load [{pairs} key-value pairs, 1024 bytes per key-value, {clients} concurrent clients]."
        );
        let load = Load { clients, total: pairs, duration: None, rate: 0.0, pids: Vec::new() };
        let outcome = self.load(load, 512, 512).await;
        let after = self.resident("after").await;
        let revision = self.tidy().await?;
        self.shrink(args, revision).await?;
        let Some(outcome) = outcome else { return Err(Failure::error("interrupted")) };
        if !is_clean(&outcome) {
            return Err(Failure::error(""));
        }
        let megabytes = (after? - before) / 1024.0 / 1024.0;
        println!("PASS: Approximate system memory used : {megabytes:.2} MB.");
        Ok(())
    }

    /// Removes the check's keys, and tells the revision at which they were gone.
    async fn tidy(&self) -> Result<i64, Failure> {
        let options = ConnectOptions { request_timeout: Some(TIDY), ..self.global.options()? };
        let client = Client::connect(self.global.endpoints(), options).await?;
        let removed = client.delete(below(&self.prefix, ""), DeleteOptions::prefix(&self.prefix)).await?;
        Ok(removed.header.map_or(0, |header| header.revision))
    }

    /// Gives back what the keys have left, if asked to.
    async fn shrink(&self, args: &Args, revision: i64) -> Result<(), Failure> {
        if args.auto_compact {
            println!("Compacting with revision {revision}");
            self.clients[0].compact(revision, true).await?;
            println!("Compacted with revision {revision}");
        }
        if args.auto_defrag {
            for endpoint in self.global.endpoints() {
                println!("Defragmenting {endpoint:?}");
                self.global.client_of(&endpoint).await?.defragment(Some(TIDY)).await?;
                println!("Defragmented {endpoint:?}");
            }
        }
        Ok(())
    }

    /// The resident memory of the first endpoint's process, in bytes, as its metrics tell it.
    async fn resident(&self, when: &str) -> Result<f64, Failure> {
        let endpoint = self.global.endpoints().into_iter().next().unwrap_or_default();
        let page = tokio::time::timeout(Duration::from_secs(5), metrics(&endpoint, self.global.connection().tls)).await;
        let found = page.unwrap_or_else(|_| Err("timed out".to_owned())).and_then(|page| {
            let line = page.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
            let value = line.and_then(|value| value.trim().parse().ok());
            value.ok_or_else(|| "could not find: process_resident_memory_bytes".to_owned())
        });
        found.map_err(|why| {
            println!("fetch error: {why}");
            println!("FAIL: Could not read process_resident_memory_bytes {when} the put operations.");
            Failure::error("")
        })
    }
}

/// A key with this prefix; of none at all, the lowest.
fn below(prefix: &str, key: &str) -> String {
    if prefix.is_empty() && key.is_empty() { "\0".to_owned() } else { format!("{prefix}{key}") }
}

/// Whether all operations have succeeded; says so if not.
fn is_clean(outcome: &Outcome) -> bool {
    if !outcome.errors.is_empty() {
        println!("FAIL: too many errors");
    }
    for (error, times) in &outcome.errors {
        println!("FAIL: ERROR({error}) -> {times}");
    }
    outcome.errors.is_empty()
}

/// Says whether the cluster is fast enough, by etcdctl's measures.
fn judge(outcome: &Outcome, rate: f64) -> bool {
    let mut passed = is_clean(outcome);
    let mut say = |is_good: bool, good: String, bad: String| {
        println!("{}", if is_good { good } else { bad });
        passed &= is_good;
    };
    let throughput = bench::throughput(outcome);
    let writes = throughput as u64 + 1;
    say(
        throughput / rate > 0.9,
        format!("PASS: Throughput is {writes} writes/s"),
        format!("FAIL: Throughput too low: {writes} writes/s"),
    );
    let slowest = outcome.latency_us.max() as f64 / 1e6;
    say(
        slowest <= 0.5,
        format!("PASS: Slowest request took {slowest:.6}s"),
        format!("Slowest request took too long: {slowest:.6}s"),
    );
    let spread = outcome.latency_us.stdev() / 1e6;
    say(spread <= 0.1, format!("PASS: Stddev is {spread:.6}s"), format!("Stddev too high: {spread:.6}s"));
    println!("{}", if passed { "PASS" } else { "FAIL" });
    passed
}

/// The page of metrics of a member, over TLS as its clients speak it.
async fn metrics(endpoint: &str, tls: Option<TlsOptions>) -> Result<String, String> {
    let (scheme, host) = match endpoint.split_once("://") {
        Some((scheme, host)) => (scheme, host.trim_end_matches('/')),
        None if tls.is_some() => ("https", endpoint),
        None => ("http", endpoint),
    };
    let side = match scheme {
        "https" => Some(tls.unwrap_or_default().side().map_err(|error| error.to_string())?),
        _ => None,
    };
    let mut stream = dial(host, side.as_ref(), Http::One).await.map_err(|error| error.to_string())?;
    let fetch = async {
        stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        let mut text = Vec::new();
        // A page of metrics is some tens of kilobytes; more than this is something else.
        stream.take(16 << 20).read_to_end(&mut text).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&text).into_owned())
    };
    fetch.await.map_err(|error| error.to_string())
}
