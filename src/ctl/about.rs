//! What the program says of itself: version, global flags, completion scripts, manual pages. No cluster is asked.

use super::{failure::Failure, name::Name};
use clap::{ArgAction, Command as Clap};
use clap_complete::Shell;
use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
};

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Shows the flags that every command takes
    Options {
        #[arg(hide = true)]
        more: Vec<String>,
    },
    /// Prints the version
    Version {
        #[arg(hide = true)]
        more: Vec<String>,
    },
    Completion(Completion),
    /// Prints the manual page, or writes one for each command into a folder
    Man {
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Prints a completion script for a shell
///
/// For this session: source <(hengectl completion bash). For every session: hengectl completion bash >
/// /etc/bash_completion.d/hengectl, or for zsh a file named _hengectl in a folder of $fpath.
#[derive(clap::Args, Debug)]
pub struct Completion {
    /// bash, zsh, fish or powershell
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    shell: Vec<String>,
}

pub fn run(asked: &Command, name: Name, whole: Clap) -> Result<(), Failure> {
    match asked {
        Command::Options { .. } => print(&options(&whole)),
        Command::Version { .. } => print(&name.version()),
        Command::Completion(args) => completion(args, name, whole),
        Command::Man { dir: None } => page(whole),
        Command::Man { dir: Some(dir) } => pages(whole, dir),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    print!("{text}");
    Ok(())
}

pub fn completion(args: &Completion, name: Name, mut whole: Clap) -> Result<(), Failure> {
    let name = name.text();
    let [shell] = &args.shell[..] else {
        return Err(Failure::error(format!("accepts 1 arg(s), received {}", args.shell.len())));
    };
    let shell = match shell.as_str() {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        "powershell" => Shell::PowerShell,
        other => return Err(Failure::error(format!("invalid argument {other:?} for \"{name} completion\""))),
    };
    // Into memory first: writing to a pipe that nobody reads is no reason to panic.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut whole, name, &mut script);
    std::io::stdout().write_all(&script).map_err(|error| Failure::io(format!("standard output: {error}")))
}

fn page(whole: Clap) -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(whole).render(&mut page).map_err(Failure::io)?;
    std::io::stdout().write_all(&page).map_err(|error| Failure::io(format!("standard output: {error}")))
}

fn pages(whole: Clap, dir: &Path) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(whole, dir));
    written.map_err(|error| Failure::io(format!("{}: {error}", dir.display())))
}

/// The global flags, one a line in the order of their names, in the form of Go's flag library.
fn options(whole: &Clap) -> String {
    let mut rows = whole.get_arguments().filter(|arg| arg.is_global_set()).map(row).collect::<Vec<_>>();
    rows.sort();
    let width = rows.iter().map(|(_, flag, _)| flag.chars().count()).max().unwrap_or(0);
    let mut text = "The following options can be passed to any command:\n\n".to_owned();
    for (_, flag, help) in rows {
        let _ = writeln!(text, "{flag:width$}   {help}");
    }
    text
}

/// Name, flag with its kind of value, and help with its default.
fn row(arg: &clap::Arg) -> (String, String, String) {
    let name = arg.get_long().unwrap_or_default();
    let default = arg.get_default_values().first().map(|value| value.to_string_lossy()).unwrap_or_default();
    let takes_none = matches!(arg.get_action(), ArgAction::SetTrue);
    let is_bool = takes_none || matches!(&*default, "true" | "false");
    let kind = match name {
        _ if is_bool => "",
        "endpoints" => " strings",
        _ if name.ends_with("timeout") || name.ends_with("time") => " duration",
        _ if name.ends_with("bytes") => " int",
        _ => " string",
    };
    let letter = arg.get_short().map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
    let default = match (kind, &*default) {
        // Go's library keeps to itself what is zero.
        (_, "" | "0" | "false") => String::new(),
        (" strings", text) => format!(" (default [{text}])"),
        (" string", text) => format!(" (default {text:?})"),
        (_, text) => format!(" (default {text})"),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    (name.to_owned(), format!("  {letter}--{name}{kind}"), format!("{help}{default}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_global_flags_are_etcdctls() {
        // As `etcdctl options` of v3.7 lists them, without its words.
        let expected = [
            "      --auth-jwt-token string",
            "      --cacert string",
            "      --cert string",
            "      --command-timeout duration (default 5s)",
            "      --debug",
            "      --dial-timeout duration (default 2s)",
            "  -d, --discovery-srv string",
            "      --discovery-srv-name string",
            "      --endpoints strings (default [127.0.0.1:2379])",
            "      --hex",
            "      --insecure-discovery (default true)",
            "      --insecure-skip-tls-verify",
            "      --insecure-transport (default true)",
            "      --keepalive-time duration (default 2s)",
            "      --keepalive-timeout duration (default 6s)",
            "      --key string",
            "      --max-recv-bytes int",
            "      --max-request-bytes int",
            "      --password string",
            "      --user string",
            "  -w, --write-out string (default \"simple\")",
        ];
        let command = super::super::command(Name::Etcdctl);
        let mut rows = command.get_arguments().filter(|arg| arg.is_global_set()).map(row).collect::<Vec<_>>();
        rows.sort();
        let shown = rows.iter().map(|(_, flag, help)| {
            let default = help.rfind(" (default ").map_or("", |at| &help[at..]);
            format!("{flag}{default}")
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn look(command: &clap::Command, words: &[&str], left_out: &mut Vec<String>) {
            let words = [words, &[command.get_name()]].concat();
            let below = command.get_subcommands().filter(|below| below.get_name() != "help");
            below.for_each(|below| look(below, &words, left_out));
            let asked =
                super::super::command(Name::Hengectl).try_get_matches_from(words.iter().chain(&["--help"]).copied());
            let kind = asked.map(|_| ()).map_err(|error| error.kind());
            left_out.extend((kind != Err(clap::error::ErrorKind::DisplayHelp)).then(|| format!("{words:?}: {kind:?}")));
        }
        let mut left_out = Vec::new();
        look(&super::super::command(Name::Hengectl), &[], &mut left_out);
        assert_eq!(left_out, Vec::<String>::new());
    }

    #[test]
    fn every_shell_and_every_command_is_told() {
        let command = super::super::command(Name::Hengectl);
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command.clone(), "hengectl", &mut script);
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains("make-mirror") && script.contains("dest-cacert"), "{shell}");
        }
        let dir = tempfile::tempdir().expect("a folder");
        pages(command, &dir.path().join("man1")).expect("written");
        let page = std::fs::read_to_string(dir.path().join("man1/hengectl-lease-grant.1")).expect("a page");
        assert!(page.contains(".TH") && page.contains("Creates leases"), "{page}");
    }
}
