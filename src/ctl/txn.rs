//! txn: reads the transaction, runs it, prints what came.

use super::{failure::Failure, global::Global, output::Answer, txn_grammar};

/// Processes a transaction.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Input transaction in interactive mode, with prompts
    #[arg(short, long)]
    interactive: bool,
    #[arg(hide = true)]
    rest: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    if !args.rest.is_empty() {
        return Err(Failure::args("txn command does not accept argument"));
    }
    let txn = txn_grammar::read(&mut std::io::stdin().lock(), |prompt| {
        if args.interactive {
            println!("{prompt}");
        }
    })?;
    let answer = global.client().await?.txn(txn).await?;
    global.printer()?.print(&Answer::Txn(answer))
}
