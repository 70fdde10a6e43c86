//! `ETCDCTL_*` variables beside the command line: which of them count, and what they must not contradict.

use super::{failure::Failure, name::Name};
use clap::{ArgMatches, Command, parser::ValueSource};
use std::ffi::{OsStr, OsString};

const PREFIX: &str = "ETCDCTL_";
/// Read by `watch` itself.
const OF_WATCH: [&str; 2] = ["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];
/// Chose between etcd's API versions, long ago; still set in many scripts, and without a choice now.
const OF_OLD: &str = "ETCDCTL_API";
/// Flags that etcdctl refuses to take as an empty text. As variables, empty means unset.
const FILES: [&str; 3] = ["cert", "key", "cacert"];
/// Never shown by `--debug`.
const SECRETS: [&str; 2] = ["password", "auth_jwt_token"];

/// The command with variables that are set to nothing left out: to etcdctl they are not set.
pub fn without_empty(command: Command) -> Command {
    command.mut_args(|arg| {
        let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if is_empty { arg.env(None::<&'static str>) } else { arg }
    })
}

/// Refuses what contradicts itself, and warns of variables that nobody reads.
///
/// To `etcdctl` a flag with its variable set beside it is a contradiction; to `hengectl` the flag wins, as with every flag of henge.
///
/// # Errors
/// An empty text for a file, and, by the name of `etcdctl`, the contradiction.
pub fn check(name: Name, command: &Command, matches: &ArgMatches) -> Result<(), Failure> {
    let flags = flags(command, matches);
    let set = |variable: &OsStr| std::env::var_os(variable).is_some();
    if let Some(both) = flags.iter().find(|flag| name == Name::Etcdctl && flag.is_typed && set(&flag.variable)) {
        let variable = both.variable.to_string_lossy();
        return Err(Failure::error(format!(
            "conflicting environment variable {variable} is shadowed by corresponding command-line flag (either unset environment variable or disable flag)"
        )));
    }
    let empty = |name: &&&str| flags.iter().any(|flag| flag.name == **name && flag.is_typed && flag.value.is_empty());
    if let Some(file) = FILES.iter().find(empty) {
        return Err(Failure::args(format!("empty string is passed to --{file} option")));
    }
    for variable in unknown(&flags, std::env::vars_os().map(|(name, _)| name)) {
        eprintln!("Warning: unrecognized environment variable {variable}");
    }
    Ok(())
}

/// Prints the global flags in use to standard error, by the names of their variables.
pub fn show(command: &Command, matches: &ArgMatches) {
    for Flag { name, variable, value, .. } in flags(command, matches) {
        let value = value.to_string_lossy();
        let shown = match (name.as_str(), value.split_once(':')) {
            ("user", Some((user, _))) => format!("{user}:…"),
            (name, _) if SECRETS.contains(&name) && !value.is_empty() => "…".to_owned(),
            ("endpoints", _) => format!("[{}]", value.replace(',', " ")),
            _ => value.into_owned(),
        };
        eprintln!("{}={shown}", variable.to_string_lossy());
    }
}

/// A flag that is also read from a variable.
struct Flag {
    name: String,
    variable: OsString,
    /// On the command line.
    is_typed: bool,
    value: OsString,
}

/// In the order of their names.
fn flags(command: &Command, matches: &ArgMatches) -> Vec<Flag> {
    let mut flags = Vec::new();
    for arg in command.get_arguments() {
        let (id, Some(variable)) = (arg.get_id().as_str(), arg.get_long().map(variable)) else { continue };
        if matches.ids().all(|known| known.as_str() != id) || !arg.is_global_set() {
            continue;
        }
        let is_typed = matches.value_source(id) == Some(ValueSource::CommandLine);
        let value = matches.get_raw(id).and_then(|mut values| values.next_back()).unwrap_or_default();
        flags.push(Flag { name: id.to_owned(), variable, is_typed, value: value.to_owned() });
    }
    flags.sort_by(|one, other| one.name.cmp(&other.name));
    flags
}

fn variable(flag: &str) -> OsString {
    format!("{PREFIX}{}", flag.replace('-', "_").to_uppercase()).into()
}

fn unknown(flags: &[Flag], variables: impl Iterator<Item = OsString>) -> Vec<String> {
    let names = variables.filter_map(|name| name.into_string().ok());
    let is_known = |name: &String| {
        OF_WATCH.contains(&name.as_str()) || name == OF_OLD || flags.iter().any(|flag| *flag.variable == **name)
    };
    names.filter(|name| name.starts_with(PREFIX) && !is_known(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_no_flag_reads_are_named() {
        let command = super::super::command(Name::Etcdctl);
        let matches = command.clone().try_get_matches_from(["etcdctl", "get", "a"]).expect("parses");
        let flags = flags(&command, &matches);
        let names = ["ETCDCTL_ENDPOINTS", "ETCDCTL_ENDPOINT", "ETCDCTL_WATCH_KEY", "ETCDCTL_API", "HOME"];
        assert_eq!(unknown(&flags, names.iter().map(OsString::from)), ["ETCDCTL_ENDPOINT"]);
        assert!(flags.iter().any(|flag| flag.variable == "ETCDCTL_INSECURE_SKIP_TLS_VERIFY" && !flag.is_typed));
    }

    #[test]
    fn an_empty_text_is_no_file() {
        let command = super::super::command(Name::Etcdctl);
        let check = |flag: &str| {
            let matches = command.clone().try_get_matches_from(["etcdctl", flag, "get", "a"]).expect("parses");
            check(Name::Etcdctl, &command, &matches)
        };
        assert_eq!(check("--cacert="), Err(Failure::args("empty string is passed to --cacert option")));
        assert_eq!(check("--cacert=a"), Ok(()));
        assert_eq!(check("--user="), Ok(()));
    }
}
