//! What is on the command line, and what is said about a line that makes no sense: in etcdctl's words and with its exit codes.

use super::{flags, name::Name};
use clap::{
    ArgMatches, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};
use std::{
    error::Error as _,
    ffi::OsString,
    num::{IntErrorKind, ParseIntError},
    process::ExitCode,
};

/// Reads this process's command line.
///
/// # Errors
/// With what the program exits: the line names no command to run. It has been answered then, with help where that was asked for, else
/// with etcdctl's complaint.
pub fn parse<T: FromArgMatches>(name: Name, command: &Command) -> Result<(T, ArgMatches), ExitCode> {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let words = flags::normal(command, arguments).map_err(|what| complain(name, &what))?;
    let whole = [program].into_iter().chain(words.iter().cloned());
    let parsed = command.clone().try_get_matches_from(whole);
    let parsed = parsed.and_then(|matches| Ok((T::from_arg_matches(&matches)?, matches)));
    parsed.map_err(|error| misused(name, command, &words, &error))
}

/// Answers a command line that clap does not take.
fn misused(name: Name, command: &Command, words: &[OsString], error: &clap::Error) -> ExitCode {
    // `hengectl lease` asks what there is, and so does, as in etcdctl, `hengectl lease nonsense`.
    let (mut named, mut is_group) = (command, false);
    for word in words.iter().filter_map(|word| word.to_str()) {
        if let Some(below) = flags::named(named, word) {
            (named, is_group) = (below, true);
        }
    }
    let asks = match error.kind() {
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => true,
        ErrorKind::InvalidSubcommand => is_group,
        _ => false,
    };
    if asks {
        return ExitCode::from(u8::from(named.clone().print_help().is_err()));
    }
    if !error.use_stderr() {
        return ExitCode::from(u8::from(error.print().is_err()));
    }
    let unknown = Some(error).filter(|error| error.kind() == ErrorKind::InvalidSubcommand);
    let meant = unknown.and_then(|error| error.get(ContextKind::InvalidSubcommand));
    let meant = meant.map_or_else(String::new, |typed| did_you_mean(command, &typed.to_string()));
    complain(name, &format!("{}{meant}", complaint(error, name.text())))
}

fn complain(name: Name, what: &str) -> ExitCode {
    eprintln!("Error: {what}\nRun '{} --help' for usage.", name.text());
    // etcdctl's exit code for flags and commands that it does not know.
    ExitCode::FAILURE
}

/// Commands whose names are nearly what was typed, or begin so.
fn did_you_mean(command: &Command, typed: &str) -> String {
    let typed = typed.to_lowercase();
    let is_near = |name: &&str| name.starts_with(&typed) || distance(&typed, name) <= NEAR;
    let names = command.get_subcommands().map(Command::get_name).filter(is_near);
    let lines = names.map(|name| format!("\t{name}\n")).collect::<String>();
    if lines.is_empty() { lines } else { format!("\n\nDid you mean this?\n{lines}") }
}

/// So many letters may be wrong.
const NEAR: usize = 2;

/// How many letters must be added, left out or changed to make `to` of `from` (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to = to.chars().collect::<Vec<_>>();
    let mut row = (0..=to.len()).collect::<Vec<_>>();
    for (at, letter) in from.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], at + 1);
        for (to_at, other) in to.iter().enumerate() {
            let changed = corner + usize::from(letter != *other);
            corner = row[to_at + 1];
            row[to_at + 1] = changed.min(corner + 1).min(row[to_at] + 1);
        }
    }
    row[to.len()]
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
    fn complaints_are_etcdctls() {
        let said = |words: &str| {
            let command = command(Name::Etcdctl);
            let error = command.try_get_matches_from(words.split(' ')).expect_err("no command");
            complaint(&error, "etcdctl")
        };
        let table = [
            (
                "etcdctl get a --limit=x",
                "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
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

    #[test]
    fn names_that_are_near_are_told() {
        let meant = |typed| did_you_mean(&command(Name::Etcdctl), typed);
        assert_eq!(meant("gte"), "\n\nDid you mean this?\n\tget\n");
        assert_eq!(meant("xyzzy"), "");
        assert_eq!(meant("LOC"), "\n\nDid you mean this?\n\tlock\n");
        for (from, to, expected) in
            [("", "abc", 3), ("abc", "abc", 0), ("set", "get", 1), ("gte", "get", 2), ("a", "b", 1)]
        {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }
}
