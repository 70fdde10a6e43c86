//! move-leader, and the three downgrade commands.

use super::{failure::Failure, global::Global, member, output::Answer};
use crate::{client::Client, pb::etcdserverpb::downgrade_request::DowngradeAction};

/// Hands the lead over.
#[derive(clap::Args, Debug)]
pub struct MoveLeader {
    #[arg(value_name = "TRANSFEREE-MEMBER-ID")]
    rest: Vec<String>,
}

/// Downgrade commands.
#[derive(clap::Subcommand, Debug)]
pub enum Downgrade {
    /// Validate downgrade capability before starting downgrade
    Validate {
        #[arg(value_name = "TARGET_VERSION")]
        rest: Vec<String>,
    },
    /// Start a downgrade action to cluster
    Enable {
        #[arg(value_name = "TARGET_VERSION")]
        rest: Vec<String>,
    },
    /// Cancel the ongoing downgrade action to cluster
    Cancel {
        #[arg(hide = true)]
        rest: Vec<String>,
    },
}

pub async fn move_leader(global: &Global, args: MoveLeader) -> Result<(), Failure> {
    let [target] = &args.rest[..] else { return Err(Failure::args("move-leader command needs 1 argument")) };
    let (to, printer) = (member::id(target)?, global.printer()?.for_changes()?);
    let (client, from) = leader(global, &global.endpoints()).await?;
    let answer = client.move_leader(to).await?;
    printer.print(&Answer::MoveLeader { from, to, answer })
}

/// A client for the leader alone, and its id. An endpoint that does not answer is passed over: it does not lead.
pub async fn leader(global: &Global, endpoints: &[String]) -> Result<(Client, u64), Failure> {
    let mut failed = None;
    for endpoint in endpoints {
        let client = global.client_of(endpoint).await?;
        match client.status().await {
            Ok(status) => match status.header {
                Some(header) if header.member_id == status.leader => return Ok((client, status.leader)),
                _ => {}
            },
            Err(error) => failed = Some(Failure::error(error)),
        }
    }
    Err(failed.unwrap_or_else(|| Failure::args(format!("no leader endpoint given at [{}]", endpoints.join(" ")))))
}

pub async fn downgrade(global: &Global, command: Downgrade) -> Result<(), Failure> {
    let (action, what, version) = match &command {
        Downgrade::Validate { rest } => (DowngradeAction::Validate, "validate", target(rest)?),
        Downgrade::Enable { rest } => (DowngradeAction::Enable, "enable", target(rest)?),
        Downgrade::Cancel { .. } => (DowngradeAction::Cancel, "cancel", ""),
    };
    let printer = global.printer()?.for_changes()?;
    let answer = global.client().await?.downgrade(action, version).await?;
    printer.print(&Answer::Downgrade(what, answer))
}

fn target(rest: &[String]) -> Result<&str, Failure> {
    match rest {
        [] => Err(Failure::args("TARGET_VERSION not provided")),
        [version] if version.is_empty() => Err(Failure::args("target version not provided")),
        [version] => Ok(version),
        _ => Err(Failure::args("too many arguments")),
    }
}
