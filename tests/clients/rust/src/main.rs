//! Runs the tests of the crate `etcd-client` against the server that `tests/interop.sh` has started.
//!
//! Each test gets a client of its own. A line a test on stdout; exits with 1 unless all passed.

mod harness;
mod tests;

use etcd_client::Client;
use harness::{Outcome, endpoint, name};
use std::{future::Future, pin::Pin, process::ExitCode, time::Duration};

type Test = fn(Client) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// Names and functions, in the order in which they run.
macro_rules! table {
    ($($name:literal => $function:path,)*) => {
        [$(($name, (|client| Box::pin($function(client))) as Test)),*]
    };
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let all = table! {
        "put and get" => tests::put_and_get,
        "ranges: prefix, limit, from a key on, sorted, at a revision" => tests::ranges,
        "deletes" => tests::deletes,
        "transactions: success and failure" => tests::transactions,
        "transactions within a transaction" => tests::nested_transactions,
        "leases: grant, time to live, renewal, revocation" => tests::leases,
        "lease expiry removes keys" => tests::lease_expiry,
        "watch: prefix, history, filter, previous pair, cancel" => tests::watches,
        "watch survives a restart" => tests::watch_survives_a_restart,
        "a kept lease lives across a restart" => tests::lease_survives_a_restart,
        "status, members, alarms, hash" => tests::status_and_members,
        "errors by their codes and texts" => tests::errors,
        "compaction, and reads and watches below it" => tests::compaction,
    };
    let mut failures = 0;
    for (title, test) in all {
        match run(test).await {
            Ok(()) => println!("ok   {}  {title}", name()),
            Err(cause) => {
                failures += 1;
                println!("FAIL {}  {title}\n     {cause}", name());
            }
        }
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(test: Test) -> Outcome {
    let client = Client::connect([endpoint()], None).await?;
    tokio::time::timeout(Duration::from_secs(90), test(client)).await.map_err(|_| "took more than 90 s")?
}
