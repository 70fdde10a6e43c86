//! check perf and check datascale: is this cluster fast and large enough for a load of this size?

use super::{
    bench::{self, Load, Op, Shape, Workload},
    failure::Failure,
    global::Global,
};
use crate::client::{Client, DeleteOptions, GetOptions};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Checks.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Check the performance of the etcd cluster for 60 seconds
    Perf(Args),
    /// Check the memory usage of holding data for different workloads on a given server endpoint
    Datascale(Args),
}

/// What to check with.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The workload: s(small), m(medium), l(large), xl(xLarge)
    #[arg(long, default_value = "s")]
    load: String,
    /// The prefix for writing the check's keys; must hold no keys
    #[arg(long, default_value = "")]
    prefix: String,
    /// Compact storage with the last revision after the test is finished
    #[arg(long)]
    auto_compact: bool,
    /// Defragment storage after the test is finished
    #[arg(long)]
    auto_defrag: bool,
}

pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let (perf, args) = match command {
        Command::Perf(args) => (true, args),
        Command::Datascale(args) => (false, args),
    };
    // Writes per second and clients of perf; pairs and clients of datascale.
    let (rate, perf_clients, pairs, scale_clients) = match args.load.to_lowercase().as_str() {
        "s" | "small" => (150.0, 50, 10_000, 50),
        "m" | "medium" => (1_000.0, 200, 100_000, 200),
        "l" | "large" => (8_000.0, 500, 1_000_000, 500),
        "xl" | "xlarge" => (15_000.0, 1_000, 3_000_000, 1_000),
        other => return Err(Failure::unsupported(format!("unknown load option {other}"))),
    };
    let default = if perf { "/etcdctl-check-perf/" } else { "/etcdctl-check-datascale/" };
    let prefix = if args.prefix.is_empty() { default } else { &args.prefix };
    let client = global.client().await?;
    let found = client.get(prefix.to_string(), GetOptions { limit: 1, ..GetOptions::prefix(prefix) }).await?;
    if found.count > 0 {
        return Err(Failure::input(format!(
            "prefix {prefix:?} has keys. Delete with 'etcdctl del --prefix {prefix}' first"
        )));
    }
    let verdict = if perf {
        check_perf(global, prefix, rate, perf_clients).await
    } else {
        check_scale(global, prefix, pairs, scale_clients).await
    };
    // Whatever came of it, the keys go.
    tidy(global, &client, prefix, &args).await?;
    if verdict? { Ok(()) } else { Err(Failure::error("")) }
}

fn shape(key_size: usize, val_size: usize, clients: usize) -> Shape {
    Shape {
        clients,
        conns: 8,
        total: 0,
        duration: Duration::from_secs(60),
        rate: 0.0,
        key_size,
        val_size,
        key_space: u64::MAX,
        sequential: true,
        server_pid: Vec::new(),
    }
}

async fn check_perf(global: &Global, prefix: &str, rate: f64, clients: usize) -> Result<bool, Failure> {
    let shape = Shape { rate, sequential: false, key_space: 1 << 40, ..shape(256, 1024, clients) };
    let channels = bench::connect(global, shape.conns).await?;
    let outcome =
        bench::run_load(Load::from_shape(&shape), channels, Workload::new(Op::Put, &shape).below(prefix)).await;
    let mut passed = true;
    let mut judge = |good: bool, pass: String, fail: String| {
        println!("{}", if good { format!("PASS: {pass}") } else { fail });
        passed &= good;
    };
    if !outcome.errors.is_empty() {
        let each = outcome.errors.iter().map(|(error, times)| format!("\nFAIL: ERROR({error}) -> {times}"));
        judge(false, String::new(), format!("FAIL: too many errors{}", each.collect::<String>()));
    }
    let throughput = bench::throughput(&outcome);
    let text = format!("{} writes/s", throughput as u64 + 1);
    judge(throughput >= rate * 0.9, format!("Throughput is {text}"), format!("FAIL: Throughput too low: {text}"));
    let slowest = outcome.latency_us.max() as f64 / 1e6;
    judge(
        slowest <= 0.5,
        format!("Slowest request took {slowest:.6}s"),
        format!("Slowest request took too long: {slowest:.6}s"),
    );
    let spread = outcome.latency_us.stdev() / 1e6;
    judge(spread <= 0.1, format!("Stddev is {spread:.6}s"), format!("Stddev too high: {spread:.6}s"));
    println!("{}", if passed { "PASS" } else { "FAIL" });
    Ok(passed)
}

async fn check_scale(global: &Global, prefix: &str, pairs: u64, clients: usize) -> Result<bool, Failure> {
    let endpoint = global.endpoints().into_iter().next().unwrap_or_default();
    let before = resident(&endpoint).await?;
    println!(
        "Start data scale check for work load [{pairs} key-value pairs, 1024 bytes per key-value, {clients} concurrent clients]."
    );
    let shape = Shape { total: pairs, ..shape(512, 512, clients) };
    let channels = bench::connect(global, shape.conns).await?;
    let outcome =
        bench::run_load(Load::from_shape(&shape), channels, Workload::new(Op::Put, &shape).below(prefix)).await;
    let after = resident(&endpoint).await?;
    if !outcome.errors.is_empty() {
        println!("FAIL: too many errors");
        for (error, times) in &outcome.errors {
            println!("FAIL: ERROR({error}) -> {times}");
        }
        return Ok(false);
    }
    let megabytes = (after - before).max(0.0) / 1024.0 / 1024.0;
    println!("PASS: Approximate system memory used : {megabytes:.2} MB.");
    Ok(true)
}

/// Removes the check's keys, and the history they left if asked to.
async fn tidy(global: &Global, client: &Client, prefix: &str, args: &Args) -> Result<(), Failure> {
    let removed = client.delete(prefix.to_string(), DeleteOptions::prefix(prefix)).await?;
    let revision = removed.header.map_or(0, |header| header.revision);
    if args.auto_compact {
        println!("Compacting with revision {revision}");
        client.compact(revision, true).await?;
        println!("Compacted with revision {revision}");
    }
    if args.auto_defrag {
        for endpoint in global.endpoints() {
            println!("Defragmenting {endpoint:?}");
            global.client_of(&endpoint).await?.defragment(None).await?;
            println!("Defragmented {endpoint:?}");
        }
    }
    Ok(())
}

/// The resident memory that a member's metrics report, in bytes.
async fn resident(endpoint: &str) -> Result<f64, Failure> {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host).trim_end_matches('/');
    let failed = |cause: String| Failure::error(format!("cannot read the metrics of {endpoint}: {cause}"));
    let fetch = async {
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        let mut text = Vec::new();
        // A page of metrics is some tens of kilobytes; more than this is something else.
        stream.take(16 << 20).read_to_end(&mut text).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let page = tokio::time::timeout(Duration::from_secs(5), fetch).await;
    let page = page.map_err(|_| failed("timed out".into()))?.map_err(|error| failed(error.to_string()))?;
    let line = page.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.and_then(|value| value.trim().parse().ok()).ok_or_else(|| failed("no process_resident_memory_bytes".into()))
}
