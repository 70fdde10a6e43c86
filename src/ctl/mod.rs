//! `hengectl`: etcdctl's commands, flags, outputs and exit codes, against henge or etcd; and `bench`, a load generator.
//!
//! **Promises.** What a script reads (standard output, exit code, `Error:` lines) is what etcdctl gives. Progress is shown on a
//! terminal only.
//! **May not know** the server's rooms: it speaks through `client`. What works on files, without a server, is `utl`, over `backup`.
//!
//! ```text
//!   arguments ─ global + one file per command group ─ client ─ answer ─ output/{simple,fields,json,table,protobuf}
//! ```

mod alarm;
mod auth;
mod bench;
mod check;
mod endpoint;
mod failure;
mod global;
mod kv;
mod lead;
mod lease;
mod member;
mod output;
mod quote;
mod replace;
mod ring;
mod snapshot;
mod turn;
mod txn;
mod txn_grammar;
#[cfg(feature = "server")]
mod utl;
mod watch;

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use failure::Failure;
use global::Global;
use std::{ffi::OsString, process::ExitCode};

/// The version of etcd's API that this program follows.
const API_VERSION: &str = "3.7";

/// A command line client for henge and etcd.
#[derive(Debug, Parser)]
#[command(name = "hengectl", args_override_self = true, disable_version_flag = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

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
    #[cfg(feature = "server")]
    Import(utl::Import),
    /// Measures whether the cluster is fast and large enough for a given load
    #[command(subcommand)]
    Check(check::Command),
    /// Generates load and reports throughput and latency percentiles
    Bench(bench::Args),
    /// Prints the version
    Version,
}

/// Runs the program on this process's arguments; the answer is its exit code.
pub fn main() -> ExitCode {
    end_with_the_reader();
    let arguments = normal_flags(std::env::args_os());
    let cli = match Cli::command().try_get_matches_from(arguments).and_then(|found| Cli::from_arg_matches(&found)) {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::io(format!("cannot start: {error}")).report(),
    };
    let outcome = runtime.block_on(run(cli));
    // A thread that still reads a terminal must not hold the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// `hengectl get --prefix / | head -1`: when nobody reads any more there is nothing more to do. Programs that don't ignore the signal for
/// it, like etcdctl, end just so.
fn end_with_the_reader() {
    /// As a shell reports a process that SIGPIPE ended.
    const ENDED_BY_SIGPIPE: i32 = 128 + 13;
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        if text.is_some_and(|text| text.starts_with("failed printing to stdout") && text.contains("Broken pipe")) {
            std::process::exit(ENDED_BY_SIGPIPE);
        }
        others(panic);
    }));
}

/// Answers a command line that names no command to run: with help where that was asked for, else with etcdctl's complaint.
fn misused(error: &clap::Error) -> ExitCode {
    // `hengectl lease` asks what there is, and so does, as in etcdctl, `hengectl lease nonsense`.
    let mut command = Cli::command();
    let (mut named, mut is_group) = (&mut command, false);
    for word in std::env::args().skip(1) {
        if named.find_subcommand(&word).is_some() {
            named = named.find_subcommand_mut(&word).expect("found just now");
            is_group = true;
        }
    }
    let asks = match error.kind() {
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => true,
        ErrorKind::InvalidSubcommand => is_group,
        _ => false,
    };
    if asks {
        return ExitCode::from(u8::from(named.print_help().is_err()));
    }
    if !error.use_stderr() {
        return ExitCode::from(u8::from(error.print().is_err()));
    }
    eprintln!("Error: {}\nRun 'hengectl --help' for usage.", complaint(error));
    // etcdctl's exit code for flags and commands that it does not know.
    ExitCode::FAILURE
}

/// What is wrong with the flags, in etcdctl's words where it has any.
fn complaint(error: &clap::Error) -> String {
    let about = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match (error.kind(), about(ContextKind::InvalidArg), about(ContextKind::InvalidValue)) {
        (ErrorKind::UnknownArgument, Some(flag), _) if flag.starts_with('-') => format!("unknown flag: {flag}"),
        (ErrorKind::ValueValidation, Some(flag), Some(value)) => {
            let name = flag.split_once(' ').map_or(flag, |(name, _)| name);
            format!("invalid argument {value:?} for {name:?} flag")
        }
        (ErrorKind::InvalidSubcommand, ..) => {
            let name = about(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("unknown command {name:?} for \"hengectl\"")
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_string()
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let global = cli.global.checked()?.asked()?.located().await?;
    match cli.command {
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
        #[cfg(feature = "server")]
        Command::Import(args) => utl::import(args),
        Command::Check(command) => check::run(&global, command).await,
        Command::Bench(args) => bench::run(&global, args).await,
        Command::Version => {
            println!("hengectl version: {}\nAPI version: {API_VERSION}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

/// Command flags that are switches, which Go programs also take as `--prefix=true`.
const SWITCHES: &[&str] = &[
    "prefix",
    "from-key",
    "keys-only",
    "count-only",
    "print-value-only",
    "prev-kv",
    "ignore-value",
    "ignore-lease",
    "interactive",
    "progress-notify",
    "keys",
    "once",
    "physical",
    "cluster",
    "range",
    "auto-compact",
    "auto-defrag",
    "auto-promote",
    "learner",
    "skip-preflight",
    "behind",
    "copies",
    "detail",
    "no-password",
    "listen",
];

/// Turns `--switch=true` into `--switch` and drops `--switch=false`, up to a `--`.
fn normal_flags(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut literal, mut about_users) = (false, false);
    let keep = |argument: OsString| {
        literal |= argument == "--";
        // Their --interactive is true unless it is told otherwise.
        about_users |= argument == "user";
        let text = argument.to_str().unwrap_or("");
        let switch = text.strip_prefix("--").and_then(|text| text.split_once('='));
        match switch {
            Some(("interactive", _)) if about_users => Some(argument),
            Some((name, value)) if !literal && SWITCHES.contains(&name) => match value {
                "true" | "1" | "t" | "T" | "TRUE" | "True" => Some(format!("--{name}").into()),
                "false" | "0" | "f" | "F" | "FALSE" | "False" => None,
                _ => Some(argument),
            },
            _ => Some(argument),
        }
    };
    arguments.filter_map(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn switches_are_also_taken_with_a_value() {
        let flags = ["get", "--prefix=true", "--keys-only=false", "--", "--prefix=true"];
        let normal = normal_flags(flags.iter().map(OsString::from));
        assert_eq!(normal, ["get", "--prefix", "--", "--prefix=true"]);
        let flags = ["user", "add", "a", "--interactive=false"];
        assert_eq!(normal_flags(flags.iter().map(OsString::from)), flags);
    }

    #[test]
    fn of_a_repeated_flag_the_last_wins() {
        let cli = Cli::try_parse_from(["hengectl", "get", "a", "--limit=1", "--limit=2", "-w=json"]).expect("parses");
        assert!(matches!(cli.command, Command::Get(get) if get.limit == 2));
    }
}
