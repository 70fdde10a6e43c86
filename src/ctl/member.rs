//! member list.

use super::{failure::Failure, global::Global, output::Answer};

/// Member commands.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Lists all members in the cluster
    List {
        /// Linearizable(l) or Serializable(s)
        #[arg(long, default_value = "l")]
        consistency: String,
    },
}

pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    let Command::List { consistency } = command;
    let linearizable = match consistency.as_str() {
        "l" => true,
        "s" => false,
        other => return Err(Failure::unsupported(format!("unknown consistency flag {other:?}"))),
    };
    let answer = global.client().await?.member_list(linearizable).await?;
    global.printer()?.print(&Answer::Members(answer))
}
