//! What many keys and many idle watchers take, and what maintenance does to those who write meanwhile.

use super::{
    measure::{bench, number},
    servers::{Cluster, Product, Programs},
};
use henge::pb::etcdserverpb::{
    WatchCreateRequest, WatchRequest, watch_client::WatchClient, watch_request::RequestUnion,
};
use std::{fmt::Write as _, path::PathBuf, process::Stdio, time::Duration};
use tokio::{process::Command, sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};

/// Watchers on each shared stream.
const ON_ONE_STREAM: usize = 1_000;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Keys
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes in each value
    #[arg(long, default_value_t = 256)]
    val_size: usize,
    /// Puts per second while maintenance runs
    #[arg(long, default_value_t = 2_000)]
    rate: u64,
    /// Idle watchers on shared streams
    #[arg(long, default_value_t = 1_000_000)]
    watchers: usize,
    /// Idle watchers with a stream each
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
}

/// Everything on one product after the other.
pub async fn run(programs: &Programs, args: &Args) -> Result<String, String> {
    let mut text = format!(
        "{} keys, values of {} bytes, {} puts/s while something runs\n\n| | fill | memory | disk | restart | puts: p99, p99.9, \
         max in ms | while compacting | while a snapshot is taken | while defragmenting | idle watcher: shared, own stream |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        args.keys, args.val_size, args.rate
    );
    let products = [Some(Product::Henge), programs.etcd.is_some().then_some(Product::Etcd)];
    for product in products.into_iter().flatten() {
        let line = of(programs, product, args).await?;
        eprintln!("{line}");
        let _ = writeln!(text, "{line}");
    }
    Ok(text)
}

async fn of(programs: &Programs, product: Product, args: &Args) -> Result<String, String> {
    let mut cluster = Cluster::start(programs, product, 1, 9).await?;
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let (keys, size) = (args.keys.to_string(), args.val_size.to_string());
    let fill = ["--clients=256", "--sequential", "--total", &keys, "--key-space", &keys, "--val-size", &size, "put"];
    let began = Instant::now();
    bench(&cluster, &fill).await?;
    let filled = began.elapsed();
    eprintln!("{}: filled in {filled:.1?}", cluster.name());
    let (memory, disk) = (cluster.resident_bytes(), cluster.disk_bytes());
    let restart = cluster.restart().await?;

    let quiet = puts(&cluster, args, None).await?;
    // Each key has a second revision: there is something to compact.
    bench(&cluster, &fill).await?;
    let revision = revision(&cluster).await?;
    let compacting = puts(&cluster, args, Some(vec!["compact".into(), revision.to_string()])).await?;
    let file = cluster.folder().join("backup.db");
    let saving = puts(&cluster, args, Some(vec!["snapshot".into(), "save".into(), file.display().to_string()])).await?;
    let defragmenting = puts(&cluster, args, Some(vec!["defrag".into(), "--command-timeout=60s".into()])).await?;
    drop(cluster);

    let shared = idle(programs, product, args.watchers, ON_ONE_STREAM).await?;
    let own = idle(programs, product, args.streams, 1).await?;
    Ok(format!(
        "| {} | {filled:.1?} | {} | {} | {restart:.2?} | {quiet} | {compacting} | {saving} | {defragmenting} | {shared} B, {own} B |",
        product.name(),
        mib(memory),
        mib(disk)
    ))
}

/// Ten seconds of puts at a rate, beside a command of hengectl's: latencies, and the longest.
async fn puts(cluster: &Cluster, args: &Args, command: Option<Vec<String>>) -> Result<String, String> {
    let (rate, keys, size) = (args.rate.to_string(), args.keys.to_string(), args.val_size.to_string());
    let load = ["--clients=256", "--duration=10s", "--rate", &rate, "--key-space", &keys, "--val-size", &size, "put"];
    let beside = async {
        let Some(command) = &command else { return Ok(String::new()) };
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        hengectl(cluster, command).await.map(|_| format!(" ({:.1?})", began.elapsed()))
    };
    let (outcome, took) = tokio::join!(bench(cluster, &load), beside);
    let (outcome, took) = (outcome?, took?);
    let ms = |what: &str| number(&outcome, &format!("/latency_us/{what}")).map(|us| us / 1_000.0);
    Ok(format!("{:.1}, {:.1}, {:.0}{took}", ms("percentiles/p99")?, ms("percentiles/p99.9")?, ms("max")?))
}

async fn hengectl(cluster: &Cluster, words: &[String]) -> Result<Vec<u8>, String> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_hengectl"));
    let mut command = Command::new(&program);
    command.args(["--endpoints", &cluster.endpoints()]).args(words).stdin(Stdio::null());
    let output = command.output().await.map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("{}: {words:?}: {}", cluster.name(), String::from_utf8_lossy(&output.stderr).trim())),
    }
}

async fn revision(cluster: &Cluster) -> Result<i64, String> {
    let words = ["get", "versus", "-w", "json"].map(str::to_owned);
    let answer: serde_json::Value = serde_json::from_slice(&hengectl(cluster, &words).await?)
        .map_err(|error| format!("the answer to get: {error}"))?;
    answer["header"]["revision"].as_i64().ok_or_else(|| "the answer to get names no revision".to_owned())
}

/// Bytes of resident memory for each of so many watchers that nothing happens to, with `together` on a stream.
async fn idle(programs: &Programs, product: Product, watchers: usize, together: usize) -> Result<u64, String> {
    let cluster = Cluster::start(programs, product, 1, 9).await?;
    let before = cluster.resident_bytes();
    let mut kept: Vec<(mpsc::Sender<WatchRequest>, Streaming<_>)> = Vec::new();
    let mut client = None;
    for at in 0..watchers.div_ceil(together) {
        // A connection for a hundred streams.
        if at % 100 == 0 {
            let url = cluster.endpoints();
            let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| format!("{url}: {error}"))?;
            let channel = endpoint.connect().await.map_err(|error| format!("{url}: {error}"))?;
            client = Some(WatchClient::new(channel));
        }
        let Some(client) = &mut client else { continue };
        let (requests, stream) = mpsc::channel(together.min(256));
        let create = |number: usize| {
            let key = format!("idle/{at:08}/{number:08}").into();
            let create = WatchCreateRequest { key, ..WatchCreateRequest::default() };
            WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
        };
        let refused = |status: tonic::Status| format!("a watch was refused: {}", status.message());
        requests.try_send(create(0)).map_err(|error| error.to_string())?;
        let mut answers = client.watch(ReceiverStream::new(stream)).await.map_err(refused)?.into_inner();
        answers.message().await.map_err(refused)?;
        let rest = async {
            for number in 1..together {
                requests.send(create(number)).await.map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        };
        let created = async {
            for _ in 1..together {
                answers.message().await.map_err(refused)?;
            }
            Ok::<(), String>(())
        };
        tokio::try_join!(rest, created)?;
        kept.push((requests, answers));
    }
    let taken = cluster.resident_bytes().saturating_sub(before);
    Ok(taken / watchers.max(1) as u64)
}
