//! `bench`: load from many clients over few connections, and what it cost.
//!
//! **Promises.** Latency is counted from when an operation was due, not from when this program got round to it. Requests are
//! made ahead of time and connections are shared, so that the generator takes little from the machine it measures.

mod cpu;
mod load;
mod ops;
mod report;
mod streams;

use crate::go;
pub use load::{Load, Outcome, drive};
use load::{connect, run as run_load};
use ops::{Op, Workload};
pub use report::throughput;

use super::{failure::Failure, global::Global, output::Format};
use clap::{Args as Group, Subcommand};
use std::time::Duration;

/// Generates load.
#[derive(Group, Debug)]
pub struct Args {
    #[command(flatten)]
    shape: Shape,
    #[command(subcommand)]
    kind: Kind,
}

/// How much load, of what shape.
#[derive(Group, Clone, Debug)]
pub struct Shape {
    /// Clients working at the same time, each with one operation under way
    #[arg(long, global = true, default_value_t = 32)]
    pub clients: usize,
    /// Connections that the clients share
    #[arg(long, global = true, default_value_t = 4)]
    pub conns: usize,
    /// Operations in all; 0: until --duration has passed
    #[arg(long, global = true, default_value_t = 0)]
    pub total: u64,
    /// How long to run, such as 10s; used when --total is 0
    #[arg(long, global = true, default_value = "10s", value_parser = go::duration)]
    pub duration: Duration,
    /// Operations per second in all; 0: as fast as answers come (closed loop)
    #[arg(long, global = true, default_value_t = 0.0)]
    pub rate: f64,
    /// Bytes in a key
    #[arg(long, global = true, default_value_t = 16)]
    pub key_size: usize,
    /// Bytes in a value
    #[arg(long, global = true, default_value_t = 256)]
    pub val_size: usize,
    /// Different keys
    #[arg(long, global = true, default_value_t = 10_000)]
    pub key_space: u64,
    /// Take the keys in order instead of by chance
    #[arg(long, global = true)]
    pub sequential: bool,
    /// Report the server's CPU time per operation; its process id (may be given several times)
    #[arg(long, global = true)]
    pub server_pid: Vec<u32>,
}

#[derive(Subcommand, Clone, Debug)]
enum Kind {
    /// Puts
    Put,
    /// Reads of one key, or of --limit keys
    Range {
        /// Serializable reads: any member answers from what it has
        #[arg(long)]
        serializable: bool,
        /// Keys in each read
        #[arg(long, default_value_t = 1)]
        limit: i64,
    },
    /// Compare-and-swap: reads a key, then writes it if nobody else did
    Txn,
    /// Reads and puts
    Mixed {
        /// Reads among all operations, in percent
        #[arg(long, default_value_t = 90)]
        reads: u32,
    },
    /// Puts, and how long until every watcher has seen each of them
    Watch {
        /// Watchers over all keys, spread over the connections
        #[arg(long, default_value_t = 100)]
        watchers: usize,
        /// Streams that the watchers share; 0: each has its own
        #[arg(long, default_value_t = 0)]
        streams: usize,
    },
    /// Leases
    Lease {
        /// Renew granted leases instead of granting new ones
        #[arg(long)]
        keep_alive: bool,
        /// Time to live, in seconds
        #[arg(long, default_value_t = 60)]
        ttl: i64,
    },
}

pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let format = global.printer()?.format;
    if !matches!(format, Format::Simple | Format::Json) {
        return Err(Failure::unsupported("bench prints simple or json"));
    }
    let shape = args.shape;
    if shape.clients == 0 || shape.conns == 0 || shape.key_space == 0 || shape.rate < 0.0 {
        return Err(Failure::args("--clients, --conns and --key-space must be at least 1, and --rate not negative"));
    }
    let channels = connect(global, shape.conns).await?;
    let name = match args.kind {
        Kind::Put => "put",
        Kind::Range { .. } => "range",
        Kind::Txn => "txn",
        Kind::Mixed { .. } => "mixed",
        Kind::Watch { .. } => "watch",
        Kind::Lease { .. } => "lease",
    };
    let op = match args.kind {
        Kind::Put => Op::Put,
        Kind::Range { serializable, limit } => Op::Range { serializable, limit },
        Kind::Txn => Op::CompareAndSwap,
        Kind::Mixed { reads } => Op::Mixed { reads },
        Kind::Watch { watchers, streams } => {
            let streams = if streams == 0 { watchers } else { streams.min(watchers) };
            let outcome = streams::fan_out(&channels, &shape, watchers, streams).await?;
            return report::print(name, &shape, &outcome, format);
        }
        Kind::Lease { keep_alive: true, ttl } => {
            let outcome = streams::keep_alive(&channels, &shape, ttl).await?;
            return report::print(name, &shape, &outcome, format);
        }
        Kind::Lease { keep_alive: false, ttl } => Op::Grant { ttl },
    };
    let workload = Workload::new(op, &shape);
    let outcome = run_load(Load::from_shape(&shape), channels, workload).await;
    report::print(name, &shape, &outcome, format)
}
