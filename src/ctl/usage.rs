//! What is on the command line, and what is said about a line that makes no sense: in etcdctl's words and with its exit codes.

use super::name::Name;
use clap::{
    ArgAction, Command,
    error::{ContextKind, ContextValue, ErrorKind},
};
use std::{
    collections::BTreeSet,
    error::Error as _,
    ffi::OsString,
    num::{IntErrorKind, ParseIntError},
    process::ExitCode,
};

/// Answers a command line that names no command to run: with help where that was asked for, else with etcdctl's complaint.
pub fn misused(name: Name, mut command: Command, error: &clap::Error) -> ExitCode {
    // `hengectl lease` asks what there is, and so does, as in etcdctl, `hengectl lease nonsense`.
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
    let name = name.text();
    eprintln!("Error: {}\nRun '{name} --help' for usage.", complaint(error, name));
    // etcdctl's exit code for flags and commands that it does not know.
    ExitCode::FAILURE
}

/// What is wrong with the flags, in etcdctl's words where it has any. `name` is the program's.
pub fn complaint(error: &clap::Error, name: &str) -> String {
    let about = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let bare = |flag: &str| flag.split_once([' ', '=']).map_or(flag, |(name, _)| name).trim_end_matches('[').to_owned();
    match (error.kind(), about(ContextKind::InvalidArg), about(ContextKind::InvalidValue)) {
        (ErrorKind::UnknownArgument, Some(flag), _) if flag.starts_with("--") => format!("unknown flag: {flag}"),
        (ErrorKind::UnknownArgument, Some(flag), _) if flag.starts_with('-') => {
            let letter = flag.chars().nth(1).unwrap_or_default();
            format!("unknown shorthand flag: {letter:?} in {flag}")
        }
        (ErrorKind::InvalidValue, Some(flag), None | Some("")) if flag.starts_with("--") => {
            format!("flag needs an argument: {}", bare(flag))
        }
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, Some(flag), Some(value)) => {
            format!("invalid argument {value:?} for {:?} flag: {}", bare(flag), cause(error, value))
        }
        (ErrorKind::MissingRequiredArgument, Some(flag), _) if flag.starts_with("--") => {
            format!("required flag(s) {:?} not set", bare(flag).trim_start_matches('-'))
        }
        (ErrorKind::InvalidSubcommand, ..) => {
            let command = about(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("unknown command {command:?} for {name:?}")
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_string()
        }
    }
}

/// Why a value is none of its flag's, as Go's library says it.
fn cause(error: &clap::Error, value: &str) -> String {
    let source = error.source();
    let number = source.and_then(|source| source.downcast_ref::<ParseIntError>()).map(ParseIntError::kind);
    match (number, source) {
        (Some(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow), _) => {
            format!("strconv.ParseInt: parsing {value:?}: value out of range")
        }
        (Some(_), _) => format!("strconv.ParseInt: parsing {value:?}: invalid syntax"),
        (None, Some(other)) => other.to_string(),
        // What has a list of values here is a boolean there.
        (None, None) => format!("strconv.ParseBool: parsing {value:?}: invalid syntax"),
    }
}

/// Turns `--switch=true` into `--switch` and drops `--switch=false`, up to a `--`: Go programs take both for switches.
pub fn normal_flags(command: &Command, arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut switches = BTreeSet::new();
    collect_switches(command, &mut switches);
    let (mut literal, mut about_users) = (false, false);
    let keep = |argument: OsString| {
        literal |= argument == "--";
        // Their --interactive is true unless it is told otherwise, and so takes a value here, too.
        about_users |= argument == "user";
        let text = argument.to_str().unwrap_or("");
        let switch = text.strip_prefix("--").and_then(|text| text.split_once('='));
        match switch {
            Some(("interactive", _)) if about_users => Some(argument),
            Some((name, value)) if !literal && switches.contains(name) => match value {
                "true" | "1" | "t" | "T" | "TRUE" | "True" => Some(format!("--{name}").into()),
                "false" | "0" | "f" | "F" | "FALSE" | "False" => None,
                _ => Some(argument),
            },
            _ => Some(argument),
        }
    };
    arguments.filter_map(keep).collect()
}

fn collect_switches(command: &Command, into: &mut BTreeSet<String>) {
    let switches = command.get_arguments().filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue));
    into.extend(switches.filter_map(|arg| arg.get_long().map(str::to_owned)));
    command.get_subcommands().for_each(|command| collect_switches(command, into));
}

/// `hengectl get --prefix / | head -1`: when nobody reads any more there is nothing more to do. Programs that don't ignore the signal for
/// it, like etcdctl, end just so.
pub fn end_with_the_reader() {
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

#[cfg(test)]
mod tests {
    use super::{super::command, *};

    #[test]
    fn switches_are_also_taken_with_a_value() {
        let normal = |flags: &[&str]| normal_flags(&command(Name::Hengectl), flags.iter().map(OsString::from));
        let flags = ["get", "--prefix=true", "--keys-only=false", "--", "--prefix=true"];
        assert_eq!(normal(&flags), ["get", "--prefix", "--", "--prefix=true"]);
        let flags = ["user", "add", "a", "--interactive=false"];
        assert_eq!(normal(&flags), flags);
    }

    #[test]
    fn complaints_are_etcdctls() {
        let said = |words: &str| {
            let error = command(Name::Etcdctl).try_get_matches_from(words.split(' ')).expect_err(words);
            complaint(&error, "etcdctl")
        };
        let table = [
            ("etcdctl get a --bogus", "unknown flag: --bogus"),
            ("etcdctl get a -z", "unknown shorthand flag: 'z' in -z"),
            ("etcdctl get a --limit", "flag needs an argument: --limit"),
            (
                "etcdctl get a --limit=x",
                "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "etcdctl get a --hex=maybe",
                "invalid argument \"maybe\" for \"--hex\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            (
                "etcdctl get a --command-timeout=5",
                "invalid argument \"5\" for \"--command-timeout\" flag: time: missing unit in duration \"5\"",
            ),
            ("etcdctl nonsense", "unknown command \"nonsense\" for \"etcdctl\""),
        ];
        for (words, expected) in table {
            assert_eq!(said(words), expected, "{words}");
        }
    }
}
