//! lease grant, revoke, timetolive, list, keep-alive.

use super::{
    failure::Failure,
    global::Global,
    output::{Answer, Format, Printer},
};
use crate::{client::KeeperState, go, types};

/// Lease commands.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Creates leases
    Grant {
        /// Time to live in seconds
        #[arg(value_name = "TTL")]
        ttl: Vec<String>,
    },
    /// Revokes leases
    Revoke {
        /// The lease, in hexadecimal
        #[arg(value_name = "LEASE_ID")]
        lease: Vec<String>,
    },
    /// Get lease information
    Timetolive {
        /// The lease, in hexadecimal
        #[arg(value_name = "LEASE_ID")]
        lease: Vec<String>,
        /// Get keys attached to this lease
        #[arg(long)]
        keys: bool,
    },
    /// List all active leases
    List {
        #[arg(hide = true)]
        more: Vec<String>,
    },
    /// Keeps leases alive (renew)
    KeepAlive {
        /// The lease, in hexadecimal
        #[arg(value_name = "LEASE_ID")]
        lease: Vec<String>,
        /// Resets the keep-alive time to its original value and exits immediately
        #[arg(long)]
        once: bool,
    },
}

pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let printer = global.printer()?;
    match command {
        Command::Grant { ttl } => {
            let ttl = one(&ttl, "lease grant command needs TTL argument")?;
            let ttl = go::int_of(ttl, 10).map_err(|cause| Failure::args(format!("bad TTL ({cause})")))?;
            let answer = global.client().await?.lease_grant(ttl, 0).await;
            printer.print(&Answer::Grant(
                answer.map_err(|error| Failure::error(format!("failed to grant lease ({error})")))?,
            ))
        }
        Command::Revoke { lease } => {
            let id = lease_id(one(&lease, "lease revoke command needs 1 argument")?)?;
            let answer = global.client().await?.lease_revoke(id).await;
            let answer = answer.map_err(|error| Failure::error(format!("failed to revoke lease ({error})")))?;
            printer.print(&Answer::Revoke(id, answer))
        }
        Command::Timetolive { lease, keys } => {
            let id = lease_id(one(&lease, "lease timetolive command needs lease ID as argument")?)?;
            let answer = global.client().await?.lease_time_to_live(id, keys).await.map_err(Failure::connection)?;
            printer.print(&Answer::TimeToLive(answer, keys))
        }
        Command::List { .. } => {
            let answer = global.client().await?.leases().await.map_err(Failure::connection)?;
            printer.print(&Answer::Leases(answer))
        }
        Command::KeepAlive { lease, once } => {
            let id = lease_id(one(&lease, "lease keep-alive command needs lease ID as argument")?)?;
            keep_alive(global, id, once).await
        }
    }
}

async fn keep_alive(global: &Global, id: i64, once: bool) -> Result<(), Failure> {
    let printer = global.printer()?;
    let client = global.client().await?;
    if once {
        let answer = client.lease_renew(id).await.map_err(Failure::connection)?;
        if answer.ttl <= 0 {
            // etcdctl's code for this, odd as it is.
            return Err(Failure::connection(types::Error::LeaseNotFound));
        }
        return printer.print(&Answer::KeepAlive(answer));
    }
    let mut keeper = match client.lease_keeper(id).await {
        Ok(keeper) => keeper,
        Err(error) if error.is(&types::Error::LeaseNotFound) => {
            over(printer, id);
            return Ok(());
        }
        Err(error) => return Err(Failure::connection(error)),
    };
    let mut state = Some(keeper.state());
    while let Some(KeeperState::Alive { reply, .. }) = state {
        printer.print(&Answer::KeepAlive(reply))?;
        state = keeper.next().await;
    }
    over(printer, id);
    Ok(())
}

/// Says that the lease is no more; the other formats print answers alone.
fn over(printer: Printer, id: i64) {
    if printer.format == Format::Simple {
        println!("lease {id:016x} expired or revoked.");
    }
}

fn one<'a>(words: &'a [String], complaint: &str) -> Result<&'a str, Failure> {
    match words {
        [word] => Ok(word),
        _ => Err(Failure::args(complaint)),
    }
}

/// A lease as etcdctl writes it: hex digits.
pub fn id(text: &str) -> Result<i64, String> {
    go::int_of(text, 16)
}

fn lease_id(text: &str) -> Result<i64, Failure> {
    id(text).map_err(|cause| Failure::args(format!("bad lease ID arg ({cause}), expecting ID in Hex")))
}
