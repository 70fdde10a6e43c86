//! Runs real clusters under faults, and checks that they keep what they promise.
//!
//! It knows the server only through its processes, etcd's flags and `henge::client`, so any server that takes etcd's flags can
//! be tried: etcd itself is the proof that the harness is right.
//!
//! ```text
//!   matrix ── run ──▶ cluster (processes, hosts, disks) ◀── nemesis
//!              │            ▲
//!              │        workload (clients) ──▶ history ──▶ check ──▶ report
//! ```

mod check;
mod cluster;
mod disk;
mod matrix;
mod nemesis;
mod random;
mod report;
mod run;
mod timeline;
mod workload;

use clap::Parser;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let args = matrix::Args::parse();
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        eprintln!("jepsen: cannot listen for signals");
        return ExitCode::from(2);
    };
    // Whoever ends first drops the run, and with it processes, disks and hosts.
    tokio::select! {
        done = matrix::main(&args) => match done {
            Ok(code) => ExitCode::from(code),
            Err(cause) => {
                eprintln!("jepsen: {cause}");
                ExitCode::from(2)
            }
        },
        _ = interrupt.recv() => ExitCode::from(130),
        _ = terminate.recv() => ExitCode::from(143),
    }
}
