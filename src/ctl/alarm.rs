//! alarm list and disarm, defrag.

use super::{endpoint, failure::Failure, global::Global, output::Answer};
use crate::pb::etcdserverpb::AlarmType;
use std::time::Instant;

/// Alarm commands.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Lists all alarms
    List {
        #[arg(hide = true)]
        rest: Vec<String>,
    },
    /// Disarms all alarms
    Disarm {
        #[arg(hide = true)]
        rest: Vec<String>,
    },
}

/// Defragments members.
#[derive(clap::Args, Debug)]
pub struct Defrag {
    /// Use all endpoints from the cluster member list
    #[arg(long)]
    cluster: bool,
}

pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let client = global.client().await?;
    let (name, rest) = match &command {
        Command::List { rest } => ("list", rest),
        Command::Disarm { rest } => ("disarm", rest),
    };
    if !rest.is_empty() {
        return Err(Failure::args(format!("alarm {name} command accepts no arguments")));
    }
    let answer = match command {
        Command::List { .. } => client.alarms().await?,
        Command::Disarm { .. } => client.alarm_disarm(0, AlarmType::None).await?,
    };
    global.printer()?.print(&Answer::Alarms(answer))
}

/// One member after the other, so that a store which stops for it never stops all members at once.
pub async fn defrag(global: &Global, args: Defrag) -> Result<(), Failure> {
    let mut failed = false;
    for endpoint in endpoint::targets(global, args.cluster).await? {
        let began = Instant::now();
        match global.client_of(&endpoint).await?.defragment(Some(global.command_timeout)).await {
            Ok(_) => println!("Finished defragmenting etcd member[{endpoint}]. took {:?}", began.elapsed()),
            Err(error) => {
                eprintln!("Failed to defragment etcd member[{endpoint}]. took {:?}. ({error})", began.elapsed());
                failed = true;
            }
        }
    }
    if failed { Err(Failure::error("")) } else { Ok(()) }
}
