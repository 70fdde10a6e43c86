//! alarm list and disarm, defrag.

use super::{
    endpoint,
    failure::Failure,
    global::Global,
    output::{Answer, took},
};
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
    /// Instead of members that run: the data directory of one that is stopped
    #[cfg(feature = "server")]
    #[arg(long, conflicts_with = "cluster")]
    data_dir: Option<std::path::PathBuf>,
    #[arg(hide = true)]
    more: Vec<String>,
}

/// How long `defrag --data-dir` waits for a member that has not quite stopped, as etcdutl does.
#[cfg(feature = "server")]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

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
    #[cfg(feature = "server")]
    if let Some(data_dir) = &args.data_dir {
        return super::utl::defragment(data_dir, PATIENCE);
    }
    let mut failed = false;
    for endpoint in endpoint::targets(global, args.cluster).await? {
        let began = Instant::now();
        match global.client_of(&endpoint).await?.defragment(Some(global.command_timeout)).await {
            Ok(_) => println!("Finished defragmenting etcd member[{endpoint}]. took {}", took(began.elapsed())),
            Err(error) => {
                let took = took(began.elapsed());
                eprintln!("Failed to defragment etcd member[{endpoint}]. took {took}. ({error})");
                failed = true;
            }
        }
    }
    if failed { Err(Failure::error("")) } else { Ok(()) }
}
