//! What a read costs: the core alone, a proxy with a copy, and a server that does nothing.

use crate::{
    Ring,
    processes::{Processes, spent},
};
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Clients working at the same time
    #[arg(long, default_value_t = 1_000)]
    clients: usize,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds; every variant is measured once in each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[command(flatten)]
    ring: Ring,
}

/// One way to read, and what it has cost so far.
struct Variant {
    name: &'static str,
    url: String,
    serializable: bool,
    /// Operations per second, core µs/op, front µs/op; one for each round.
    figures: Vec<[f64; 3]>,
}

pub async fn run(args: Args) -> Result<(), String> {
    let ring = Ring { proxies: 1, ..args.ring.clone() };
    let processes = Processes::start(&ring, "").await?;
    let limit = Limit::start(ring.port + 1_000)?;
    let (core, proxy) = (processes.core[0].url.clone(), processes.proxies[0].url.clone());
    load(&core, &["--total", "10000", "--sequential", "put"], args.clients).await?;
    let variant =
        |name, url: &str, serializable| Variant { name, url: url.to_owned(), serializable, figures: Vec::new() };
    let mut variants = [
        variant("linearizable, direct", &core, false),
        variant("linearizable, through a copy", &proxy, false),
        variant("serializable, direct", &core, true),
        variant("serializable, from a copy", &proxy, true),
        variant("a server that does nothing", &limit.url, true),
    ];
    let seconds = format!("{}s", args.seconds);
    for _ in 0..args.rounds {
        for variant in &mut variants {
            let before = (spent(&processes.core).cpu, spent(&processes.proxies).cpu, limit.cpu());
            let mut words = vec!["--duration", seconds.as_str(), "range"];
            words.extend(variant.serializable.then_some("--serializable"));
            let (operations, took) = load(&variant.url, &words, args.clients).await?;
            let each = |cpu: Duration| cpu.as_micros() as f64 / operations.max(1.0);
            let front = spent(&processes.proxies).cpu - before.1 + (limit.cpu() - before.2);
            variant.figures.push([operations / took, each(spent(&processes.core).cpu - before.0), each(front)]);
        }
    }
    println!("{:32} {:>10} {:>12} {:>21}", "", "reads/s", "core µs/read", "proxy/limit µs/read");
    for variant in &mut variants {
        let median = |at: usize| {
            let mut column: Vec<f64> = variant.figures.iter().map(|figures| figures[at]).collect();
            column.sort_by(f64::total_cmp);
            column.get(column.len() / 2).copied().unwrap_or(f64::NAN)
        };
        println!("{:32} {:>10.0} {:>12.2} {:>21.2}", variant.name, median(0), median(1), median(2));
    }
    Ok(())
}

/// Runs `hengectl bench`; operations and seconds.
async fn load(url: &str, words: &[&str], clients: usize) -> Result<(f64, f64), String> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_hengectl"));
    command.args(["--endpoints", url, "-w", "json", "bench", "--clients", &clients.to_string()]).args(words);
    let output = command.output().await.map_err(|error| format!("cannot run hengectl: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let figure = |name: &str| report[name].as_f64().ok_or_else(|| format!("no {name} in {report}"));
    Ok((figure("operations")?, figure("seconds")?))
}

/// The server that does nothing. Dropped, it is killed.
struct Limit {
    child: Child,
    url: String,
}

impl Limit {
    fn start(port: u16) -> Result<Limit, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["limit", "--listen", &format!("127.0.0.1:{port}")]).stdin(Stdio::null());
        let child = command.spawn().map_err(|error| format!("cannot start the limit server: {error}"))?;
        Ok(Limit { child, url: format!("http://127.0.0.1:{port}") })
    }

    fn cpu(&self) -> Duration {
        crate::processes::of(self.child.id()).cpu
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
