//! The ring at full size: a core, proxies around it, and tens of thousands of simulated hosts, each with a watch and a renewed lease.
//!
//! ```text
//! cargo bench --bench ring                                          90,000 hosts through 10 proxies around 5 voters
//! cargo bench --bench ring -- hosts --proxies 0 --etcd-bin etcd     the same hosts on etcd itself
//! cargo bench --bench ring -- reads                                 what reads cost core and proxy
//! cargo bench --bench ring -- logins                                10,000 hosts log in, their leader dies, and they log in again
//! ```
//!
//! Everything runs on this machine, the hosts too: times are those of an overcrowded machine, CPU times are those of each process alone.

mod hosts;
#[path = "../versus/limit.rs"]
mod limit;
mod logins;
mod processes;
mod reads;
mod scenario;
mod stats;
mod trust;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

#[derive(Parser, Debug)]
#[command(about = "Measures a core and its ring of proxies under tens of thousands of simulated hosts")]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    /// Given by cargo
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Hosts attach, get events, renew leases; then a proxy dies, and then the core
    Hosts(scenario::Args),
    /// What a read costs: direct, through a copy, and of a server that does nothing
    Reads(reads::Args),
    /// What it costs the core that hosts log in, and that they need not when its leader changes
    Logins(logins::Args),
    #[command(hide = true)]
    Limit(limit::Args),
}

/// How the processes are started.
#[derive(clap::Args, Clone, Debug)]
struct Ring {
    /// Voters of the core
    #[arg(long, default_value_t = 5)]
    voters: usize,
    /// Proxies; 0: the hosts go to the core
    #[arg(long, default_value_t = 10)]
    proxies: usize,
    /// An etcd server to use as the core instead of henge
    #[arg(long)]
    etcd_bin: Option<PathBuf>,
    /// A henge server to use instead of the one built with this program
    #[arg(long, default_value = env!("CARGO_BIN_EXE_henge"))]
    henge_bin: PathBuf,
    /// First of the ports to use
    #[arg(long, default_value_t = 24_000)]
    port: u16,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    let outcome = match cli.what.unwrap_or_else(|| What::Hosts(scenario::Args::default())) {
        What::Hosts(args) => runtime.block_on(scenario::run(args)),
        What::Reads(args) => runtime.block_on(reads::run(args)),
        What::Logins(args) => runtime.block_on(logins::run(args)),
        What::Limit(args) => runtime.block_on(limit::run(args)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("Error: {why}");
    ExitCode::FAILURE
}
