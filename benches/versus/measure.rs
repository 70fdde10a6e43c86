//! The runs: every row on every server, round after round.

use super::{
    rows::Row,
    servers::{Cluster, Product},
};
use std::{path::PathBuf, process::Stdio, time::Duration};
use tokio::{process::Command, time::Instant};

/// Keys that are there before anything is measured.
const KEYS: &str = "10000";

/// One run of one row on one server.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Figure {
    pub row: &'static str,
    pub product: Product,
    pub members: usize,
    pub round: usize,
    /// When it ended, in seconds since the first began.
    pub at: f64,
    pub per_second: f64,
    /// User and system time of all processes of the server for one operation, in microseconds.
    pub cpu_us: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
    /// Resident memory of all processes of the server, after it.
    pub resident_bytes: u64,
}

/// Runs all of it; says on standard error how it goes.
pub async fn run(rows: &[&Row], clusters: &[Cluster], rounds: usize, seconds: u64) -> Result<Vec<Figure>, String> {
    let duration = format!("{seconds}s");
    for cluster in clusters {
        bench(cluster, &["--total", KEYS, "--sequential", "--clients=64", "put"]).await?;
    }
    let began = Instant::now();
    let mut figures = Vec::new();
    for round in 0..rounds {
        for row in rows {
            // Whoever comes first finds the machine at rest: that must not always be the same one.
            for at in 0..clusters.len() {
                let cluster = &clusters[(at + round) % clusters.len()];
                let is_of_use = cluster.product == row.limit && (cluster.members == 1 || !row.is_for_one_cluster());
                if cluster.product.is_limit() && !is_of_use {
                    continue;
                }
                let load = [&["--duration", duration.as_str()], row.load].concat();
                let outcome = bench(cluster, &load).await.map_err(|why| format!("{}: {why}", row.id))?;
                let figure = Figure {
                    row: row.id,
                    product: cluster.product,
                    members: cluster.members,
                    round,
                    at: began.elapsed().as_secs_f64(),
                    per_second: number(&outcome, "/per_second")?,
                    cpu_us: number(&outcome, "/server_cpu_us_per_operation")?,
                    p50: number(&outcome, "/latency_us/percentiles/p50")? / 1_000.0,
                    p99: number(&outcome, "/latency_us/percentiles/p99")? / 1_000.0,
                    resident_bytes: cluster.resident_bytes(),
                };
                eprintln!(
                    "round {} of {rounds}: {:18} {:22} {:9.0}/s {:8.1} µs",
                    round + 1,
                    row.id,
                    cluster.name(),
                    figure.per_second,
                    figure.cpu_us
                );
                figures.push(figure);
                // What one run leaves to be written must not be paid for by the next.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    Ok(figures)
}

/// One load, from a process of its own.
pub async fn bench(cluster: &Cluster, load: &[&str]) -> Result<serde_json::Value, String> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_hengectl"));
    let mut command = Command::new(&program);
    command.args(["--endpoints", &cluster.endpoints(), "-w", "json", "bench"]).args(load);
    command.args(cluster.pids().map(|pid| format!("--server-pid={pid}")));
    let output = command.stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    if !output.status.success() {
        return Err(format!("{}: {}", cluster.name(), String::from_utf8_lossy(&output.stderr).trim()));
    }
    let outcome: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("the load's outcome: {error}"))?;
    match outcome["errors"].as_object().filter(|errors| !errors.is_empty()) {
        Some(errors) => Err(format!("{}: {errors:?}", cluster.name())),
        None => Ok(outcome),
    }
}

pub fn number(outcome: &serde_json::Value, pointer: &str) -> Result<f64, String> {
    let found = outcome.pointer(pointer).and_then(serde_json::Value::as_f64);
    found.ok_or_else(|| format!("the load's outcome has no {pointer}"))
}
