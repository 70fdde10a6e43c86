//! Kills a real server again and again under load, and checks that its registers stay linearizable and its revisions in order.
//!
//! It knows the server only through its process and through `henge::client`, so any server that takes etcd's flags can be
//! tried. SIGKILL leaves what the system has buffered: this finds what is answered before it is written, lost or done twice
//! in recovery; it does not find a missing fsync.
//!
//! ```text
//!   clients ── read, write, swap ──▶ server          history ──▶ linear (each register), order (revisions)
//!                                      ▲ kill, start
//!                                    rounds
//! ```

mod history;
mod linear;
mod order;
mod random;
mod run;
mod server;
mod workload;

use clap::Parser;
use std::{path::PathBuf, process::ExitCode};

/// Kill a server under load, and check what its clients saw.
#[derive(Clone, Debug, Parser)]
#[command(version, after_help = "Exits with 0 if all checks hold, 1 if one does not, 2 if the run failed.")]
pub struct Args {
    /// The server's program: henge, or any that takes etcd's flags
    #[arg(long, default_value = "target/debug/henge")]
    pub server_bin: PathBuf,
    /// How often to kill and start it
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// Clients at the same time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub clients: u32,
    /// Registers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub keys: u32,
    /// Rules what clients do and when the server is killed; how calls interleave is the machine's
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where data, log and history go: a new or empty directory, kept. Without it a temporary one, kept if a check fails
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run::run(&Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(cause) => {
            eprintln!("jepsen: {cause}");
            ExitCode::from(2)
        }
    }
}
