//! `hengectl`: etcdctl's commands, flags, outputs and exit codes, against henge or etcd; and `bench`, a load generator. Called by the name
//! of `etcdctl` or `etcdutl` it is that one.
//!
//! **Promises.** What a script reads (standard output, exit code, `Error:` lines) is what etcdctl gives. Progress is shown on a
//! terminal only.
//! **May not know** the server's rooms: it speaks through `client`. What works on files, without a server, is `utl`, over `backup`.
//!
//! ```text
//!   arguments ─ global + one file per command group ─ client ─ answer ─ output/{simple,fields,json,table,protobuf}
//! ```

mod about;
mod alarm;
mod auth;
mod bench;
mod check;
mod endpoint;
mod environment;
mod failure;
mod flags;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod global;
mod kv;
mod lead;
mod lease;
mod member;
mod mirror;
mod name;
mod output;
mod password;
mod replace;
mod ring;
mod snapshot;
mod system;
mod turn;
mod txn;
mod txn_grammar;
mod usage;
#[cfg(feature = "server")]
mod utl;
mod watch;

use clap::{ArgMatches, CommandFactory, Parser, Subcommand, parser::ValueSource};
use failure::Failure;
use global::Global;
use name::Name;
use std::process::ExitCode;

/// A command line client for henge and etcd.
#[derive(Debug, Parser)]
#[command(name = "hengectl", args_override_self = true, disable_version_flag = true, infer_subcommands = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    word: Word,
}

/// The first word that is no flag, by what it takes to obey it.
#[derive(Debug, Subcommand)]
enum Word {
    #[command(flatten)]
    Cluster(Command),
    #[cfg(feature = "server")]
    #[command(flatten)]
    Files(utl::Command),
    #[command(flatten)]
    About(about::Command),
}

/// What is asked of a cluster.
#[derive(Debug, Subcommand)]
enum Command {
    /// Gets the key or a range of keys
    Get(kv::Get),
    /// Puts the given key into the store
    Put(kv::Put),
    /// Removes the specified key or range of keys
    Del(kv::Del),
    /// Processes all the requests in one transaction, read from standard input
    Txn(txn::Args),
    /// Forgets history: revisions below the given one can no longer be read
    #[command(alias = "compact")]
    Compaction(kv::Compaction),
    /// Watches events on keys or prefixes
    Watch(watch::Args),
    /// Grants, renews, shows and revokes leases
    #[command(subcommand)]
    Lease(lease::Command),
    Lock(turn::LockArgs),
    Elect(turn::ElectArgs),
    /// Asks each endpoint for its health, status or hash
    Endpoint(endpoint::Args),
    /// Shows and changes the members of the cluster
    #[command(subcommand)]
    Member(member::Command),
    /// Lists the proxies before the cluster, and how far each has come
    Ring(ring::Args),
    /// Transfers leadership to another member of the cluster
    MoveLeader(lead::MoveLeader),
    /// Validates, starts and cancels a downgrade
    #[command(subcommand)]
    Downgrade(lead::Downgrade),
    /// Enables or disables authentication
    #[command(subcommand)]
    Auth(auth::Auth),
    /// User related commands
    #[command(subcommand)]
    User(auth::User),
    /// Role related commands
    #[command(subcommand)]
    Role(auth::Role),
    /// Lists and lowers alarms
    #[command(subcommand)]
    Alarm(alarm::Command),
    /// Gives free space of the members' stores back to the file system
    Defrag(alarm::Defrag),
    /// Saves a member's state in a file, checks such files, and makes data directories from them
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Makes a mirror at the destination, which may be henge or etcd
    MakeMirror(mirror::Args),
    /// Measures whether the cluster is fast and large enough for a given load
    #[command(subcommand)]
    Check(check::Command),
    /// Generates load and reports throughput and latency percentiles
    Bench(bench::Args),
}

/// The whole command line, under the name that we were called by.
fn command(name: Name) -> clap::Command {
    environment::without_empty(Cli::command().name(name.text()))
}

/// Runs the program on this process's arguments; the answer is its exit code.
pub fn main() -> ExitCode {
    usage::end_with_the_reader();
    let name = Name::called();
    #[cfg(feature = "server")]
    if name == Name::Etcdutl {
        return utl::main();
    }
    let command = command(name);
    let (mut cli, matches) = match usage::parse::<Cli>(name, &command) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let outcome = match cli.word {
        Word::About(asked) => about::run(&asked, name, command),
        #[cfg(feature = "server")]
        Word::Files(asked) => cli.global.printer().and_then(|printer| utl::run(asked, printer)),
        Word::Cluster(asked) => {
            settle(name, &command, &matches, &mut cli.global).and_then(|()| wait(cli.global, asked))
        }
    };
    outcome.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}

/// Looks at flags and variables together, and remembers what was chosen.
fn settle(name: Name, whole: &clap::Command, matches: &ArgMatches, global: &mut Global) -> Result<(), Failure> {
    environment::check(name, whole, matches)?;
    if global.debug {
        environment::show(whole, matches);
    }
    let timeout = matches.value_source("command_timeout");
    global.command_timeout_chosen = timeout.is_some_and(|source| source != ValueSource::DefaultValue);
    Ok(())
}

fn wait(global: Global, command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(run(global, command));
    // A thread that still reads a terminal must not hold the exit.
    runtime.shutdown_background();
    outcome
}

async fn run(global: Global, command: Command) -> Result<(), Failure> {
    let global = global.checked()?.located().await?;
    match command {
        Command::Get(args) => kv::get(&global, args).await,
        Command::Put(args) => kv::put(&global, args).await,
        Command::Del(args) => kv::del(&global, args).await,
        Command::Txn(args) => txn::run(&global, args).await,
        Command::Compaction(args) => kv::compaction(&global, args).await,
        Command::Watch(args) => watch::run(&global, args).await,
        Command::Lease(command) => lease::run(&global, command).await,
        Command::Lock(args) => turn::lock(&global, args).await,
        Command::Elect(args) => turn::elect(&global, args).await,
        Command::Endpoint(args) => endpoint::run(&global, args).await,
        Command::Member(command) => member::run(&global, command).await,
        Command::Ring(args) => ring::run(&global, args).await,
        Command::MoveLeader(args) => lead::move_leader(&global, args).await,
        Command::Downgrade(command) => lead::downgrade(&global, command).await,
        Command::Auth(command) => auth::auth(&global, command).await,
        Command::User(command) => auth::user(&global, command).await,
        Command::Role(command) => auth::role(&global, command).await,
        Command::Alarm(command) => alarm::run(&global, command).await,
        Command::Defrag(args) => alarm::defrag(&global, args).await,
        Command::Snapshot(command) => snapshot::run(&global, command).await,
        Command::MakeMirror(args) => mirror::run(&global, args).await,
        Command::Check(command) => check::run(&global, command).await,
        Command::Bench(args) => bench::run(&global, args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn of_a_repeated_flag_the_last_wins() {
        let cli = Cli::try_parse_from(["hengectl", "get", "a", "--limit=1", "--limit=2", "-w=json"]).expect("parses");
        assert!(matches!(cli.word, Word::Cluster(Command::Get(get)) if get.limit == 2));
    }
}
