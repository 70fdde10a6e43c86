//! The program that we are by the name of `etcdutl`: commands about files alone.

use super::{HashKv, Import, Migrate, Restore, defragment, hash_kv, import, migrate, restore, status, system};
use crate::{
    ctl::{
        about::{self, Completion},
        failure::Failure,
        name::Name,
        output::{Format, Printer},
        usage,
    },
    go,
};
use clap::{CommandFactory, Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// An administrative command line tool for the files of henge and etcd.
#[derive(Debug, Parser)]
#[command(name = "etcdutl", args_override_self = true, disable_version_flag = true, infer_subcommands = true)]
struct Cli {
    /// Set the output format: fields, json, protobuf, simple, table
    #[arg(short, long, global = true, default_value = "simple")]
    write_out: String,
    /// How long to wait for a data directory that is in use; 0: forever
    #[arg(long, global = true, default_value = "10s", value_parser = go::duration)]
    timeout: Duration,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Gives free space of a stopped member's store back to the file system
    Defrag {
        /// The data directory, not in use by a member
        #[arg(long)]
        data_dir: PathBuf,
    },
    /// Checks snapshot files, and makes data directories from them
    #[command(subcommand)]
    Snapshot(Snapshot),
    Hashkv(HashKv),
    Migrate(Migrate),
    Import(Import),
    /// Prints the version
    Version {
        #[arg(hide = true)]
        more: Vec<String>,
    },
    Completion(Completion),
}

#[derive(Debug, Subcommand)]
enum Snapshot {
    /// Checks a given file and tells what is in it
    Status {
        #[arg(value_name = "FILENAME", value_parser = system::path())]
        files: Vec<PathBuf>,
    },
    Restore(Restore),
}

/// Runs the program on this process's arguments; the answer is its exit code.
pub fn main() -> ExitCode {
    match usage::parse::<Cli>(Name::Etcdutl, &Cli::command()) {
        Ok((cli, _)) => run(cli).map_or_else(Failure::report, |()| ExitCode::SUCCESS),
        Err(code) => code,
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let printer = || Format::parse(&cli.write_out).map(|format| Printer { format, hex: false, values_only: false });
    match cli.command {
        Command::Defrag { data_dir } => defragment(&data_dir, cli.timeout),
        Command::Snapshot(Snapshot::Status { files }) => match &files[..] {
            [file] => status(printer()?, file),
            _ => Err(Failure::args("snapshot status requires exactly one argument")),
        },
        Command::Snapshot(Snapshot::Restore(args)) => restore(args, Name::Etcdutl),
        Command::Hashkv(args) => hash_kv(&args, printer()?),
        Command::Migrate(args) => migrate(&args),
        Command::Import(args) => import(args),
        Command::Version { .. } => {
            print!("{}", Name::Etcdutl.version());
            Ok(())
        }
        Command::Completion(args) => about::completion(&args, Name::Etcdutl, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
