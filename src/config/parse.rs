//! Command line, environment and file into one map of texts.

use super::{
    Config,
    bootstrap::initial_cluster,
    file,
    flags::{FLAGS, Flag, Kind, VARIABLE, variable},
    pages,
    proxy::{GatewayConfig, Program, ProxyConfig},
    said::{Said, Settings},
    words::{self, Asked},
};
use clap::{Arg, ArgAction, Command};
use std::path::Path;

/// What the program was asked to do.
#[derive(Debug)]
pub enum Invocation {
    /// Run a member with these settings. `warnings` belong into the log.
    Run {
        /// Flag name to text; flags that nobody set are absent.
        settings: Settings,
        /// Things that are odd but no reason to stop.
        warnings: Vec<String>,
    },
    /// Run a proxy.
    Proxy {
        /// What it was told.
        config: Box<ProxyConfig>,
        /// As above.
        warnings: Vec<String>,
    },
    /// Run a gateway.
    Gateway {
        /// What it was told.
        config: GatewayConfig,
        /// As above.
        warnings: Vec<String>,
    },
    /// Print this and exit with success (help, version).
    Print(String),
}

/// [`parse`] of what this process was started with. What is no text is shown as well as it can be if it is a word of the command line, and
/// passed over if it is a variable.
///
/// # Errors
/// As [`parse`].
pub fn parse_own() -> Result<Invocation, Vec<String>> {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let variables = std::env::vars_os();
    parse(args, variables.filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?))))
}

/// With which code this process ends if [`parse_own`] has found mistakes, or the settings have: as etcd's, whose flags are read by Go's
/// flag package, and that ends the process by itself where it cannot read a member's flag.
pub fn failing_code_of_own() -> u8 {
    failing_code(std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect())
}

fn failing_code(words: Vec<String>) -> u8 {
    let is_member = words.first().is_none_or(|first| Program::named(first).is_none());
    if is_member && words::are_misspelled(words, FLAGS) { 2 } else { 1 }
}

/// Reads the command line (without the program's name), the `ETCD_*` variables and the file that `--config-file` names.
///
/// # Errors
/// One sentence for each mistake, those in the settings' values included: all at once.
pub fn parse(
    args: impl IntoIterator<Item = String>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Invocation, Vec<String>> {
    let args = args.into_iter().collect::<Vec<_>>();
    if let Some(text) = pages::asked(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        return text.map(Invocation::Print);
    }
    let mut args = args.into_iter().peekable();
    if let Some(program) = args.next_if(|first| Program::named(first).is_some()) {
        return Program::named(&program).expect("it was looked at").parse(args);
    }
    let mut said = match words::read(args, FLAGS, of_variables(variables)) {
        Asked::Run(said) => said,
        Asked::Help => return Ok(Invocation::Print(member().render_help().to_string())),
        Asked::Version => return Ok(Invocation::Print(super::version_text())),
    };
    if let Some(path) = said.settings.get("config-file").filter(|path| !path.is_empty()) {
        // As in etcd the file is then all that counts; that something else was misspelled is told all the same.
        let of_file = file::read(Path::new(path));
        said.settings = of_file.settings;
        said.mistakes.extend(of_file.mistakes);
        said.warnings.extend(of_file.warnings);
    }
    let Said { settings, warnings, .. } = said.or_mistakes(mistakes_in)?;
    Ok(Invocation::Run { settings, warnings })
}

/// What is wrong with the values, where something else is wrong already.
fn mistakes_in(settings: &Settings) -> Vec<String> {
    let mut settings = settings.clone();
    // For a member that does not start anyway no names are looked up.
    let cluster = settings.remove("initial-cluster").unwrap_or_default();
    let mistakes = Config::from_settings(&settings, &mut Vec::new()).err().unwrap_or_default();
    mistakes.into_iter().chain(initial_cluster(&cluster).err()).collect()
}

/// What `ETCD_*` variables say. One that is set to nothing is not set, and one that stands for nothing is no mistake: others read
/// variables of that kind, too.
fn of_variables(variables: impl IntoIterator<Item = (String, String)>) -> Said {
    let mut said = Said::default();
    let ours = |(name, text): &(String, String)| {
        name.starts_with(VARIABLE) && !name.starts_with("ETCD_HENGE_") && !text.is_empty()
    };
    let mut variables = variables.into_iter().filter(ours).collect::<Vec<_>>();
    // Former names first: the present ones win, in whatever order the system has them.
    variables.sort_by_key(|(name, _)| !name.starts_with("ETCD_EXPERIMENTAL_"));
    for (name, text) in variables {
        let flag = name[VARIABLE.len()..].to_lowercase().replace('_', "-");
        match said.meant(FLAGS, &flag, variable).filter(|_| variable(&flag) == name) {
            Some(meant) => said.set(meant, text),
            None => said.warnings.push(format!("unrecognized environment variable {name}")),
        }
    }
    said
}

/// The member's command line.
pub(super) fn member() -> Command {
    let mut command = Command::new("henge")
        .about("A Raft-replicated, persistent key-value store that speaks etcd's v3 API")
        .disable_version_flag(true)
        .override_usage(
            "henge [--flag value]…          a member\n       henge proxy [--flag value]…    a proxy of a cluster, or of another proxy (--help for its flags)\n       henge gateway [--flag value]…  a plain TCP proxy (--help for its flags)\n       henge completion SHELL         a completion script for bash, zsh, fish or powershell\n       henge man [PROGRAM]            a manual page",
        )
        .after_help("Each flag can also be set by a variable: --data-dir is ETCD_DATA_DIR. The flag wins.");
    for flag in FLAGS {
        command = command.arg(argument(flag));
    }
    command.arg(Arg::new("version").long("version").help("Prints the version and exits.").action(ArgAction::SetTrue))
}

/// One flag of a table.
pub(super) fn argument(flag: &Flag) -> Arg {
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .help(flag.help)
        .help_heading(flag.group)
        // Repeated flags are no mistake: the last one wins.
        .overrides_with(flag.name)
        .allow_hyphen_values(true)
        .action(ArgAction::Set);
    let arg = match flag.default {
        "" => arg.value_name(value_name(flag.kind)),
        default => arg.value_name(value_name(flag.kind)).help(format!("{} [default: {default}]", flag.help)),
    };
    match flag.kind {
        Kind::Bool => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg.num_args(1),
    }
}

fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "TEXT",
        Kind::Int => "NUMBER",
        Kind::Bool => "BOOL",
        Kind::Duration => "DURATION",
        Kind::Urls => "URL,…",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str], variables: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let args = args.iter().map(|arg| (*arg).to_owned());
        let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        match parse(args, variables)? {
            Invocation::Run { settings, .. } => Ok(settings),
            other => panic!("not a member: {other:?}"),
        }
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_unknown_variables_only_warn() {
        let settings = run(&["--name", "flag"], &[("ETCD_NAME", "variable"), ("ETCD_DATA_DIR", "d"), ("ETCD_X", "y")]);
        let settings = settings.unwrap();
        assert_eq!((settings["name"].as_str(), settings["data-dir"].as_str()), ("flag", "d"));
    }

    #[test]
    fn variables_stand_in_for_flags_under_former_names_as_well() {
        for (variables, name, expected) in [
            (&[("ETCD_NAME", "a")][..], "name", Some("a")),
            (&[("ETCD_NAME", "")], "name", None),
            (&[("etcd_name", "a")], "name", None),
            (&[("ETCD_name", "a")], "name", None),
            (&[("ETCD_EXPERIMENTAL_COMPACTION_BATCH_LIMIT", "7")], "compaction-batch-limit", Some("7")),
            (
                &[("ETCD_COMPACTION_BATCH_LIMIT", "8"), ("ETCD_EXPERIMENTAL_COMPACTION_BATCH_LIMIT", "7")],
                "compaction-batch-limit",
                Some("8"),
            ),
            (&[("ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK", "true")], "feature-gates", Some("InitialCorruptCheck=true")),
            (&[("ETCD_HENGE_CLAIM_VERSION", "3.5.0")], "name", None),
        ] {
            let settings = run(&[], variables).expect("no mistake");
            assert_eq!(settings.get(name).map(String::as_str), expected, "{variables:?}");
        }
    }

    #[test]
    fn what_is_misspelled_and_what_has_no_meaning_are_told_together() {
        let mistakes = run(&["--no-such-flag=1", "--log-level=loud", "--nope"], &[("ETCD_MAX_TXN_OPS", "x")]);
        let mistakes = mistakes.unwrap_err();
        for (mistake, text) in mistakes.iter().zip(["--no-such-flag", "--nope", "--max-txn-ops", "--log-level"]) {
            assert!(mistake.contains(text), "{mistakes:?}");
        }
        assert_eq!(mistakes.len(), 4, "{mistakes:?}");
    }

    #[test]
    fn what_cannot_be_read_ends_otherwise_than_what_will_not_do() {
        let code = |words: &[&str]| failing_code(words.iter().map(|word| (*word).to_owned()).collect());
        for unread in [
            &["--no-such-flag"][..],
            &["--data-dir"],
            &["--max-txn-ops=x"],
            &["--max-txn-ops=-1"],
            &["--pre-vote=maybe"],
            &["--backend-batch-interval=5"],
            &["--raft-read-timeout=soon"],
            &["--listen-peer-urls=ftp://a:1"],
            &["--feature-gates=Foo=true"],
            &["--experimental-initial-corrupt-check=maybe"],
            &["--initial-cluster-state=old"],
            &["--log-level=loud"],
            &["--name=a", "--no-such-flag", "--auto-compaction-mode=x"],
        ] {
            assert_eq!(code(unread), 2, "{unread:?}");
        }
        for other in [
            &["--auto-compaction-mode=x"][..],
            &["--quota-backend-bytes=-1", "--auth-token=rot13"],
            &["--election-timeout=1"],
            &["--listen-peer-urls=http://example.com:1"],
            &["start"],
            &["gateway", "--no-such-flag"],
        ] {
            assert_eq!(code(other), 1, "{other:?}");
        }
    }

    #[test]
    fn a_config_file_silences_flags_and_reports_every_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("henge.yaml");
        std::fs::write(&path, "name: from-file\nquota-backend-bytes: 5\n").unwrap();
        let file = path.to_str().unwrap();
        let settings = run(&["--name", "flag", "--config-file", file], &[]).unwrap();
        assert_eq!((settings["name"].as_str(), settings["quota-backend-bytes"].as_str()), ("from-file", "5"));
        std::fs::write(&path, "nope: 1\nmax-txn-ops: none\n").unwrap();
        let mistakes = run(&["--config-file", file, "--nothing"], &[]).unwrap_err();
        let expected = ["unknown flag --nothing".to_owned(), format!("config file {file}: unknown key \"nope\"")];
        assert_eq!(mistakes[..2], expected);
        assert!(mistakes[2].contains("--max-txn-ops"), "{mistakes:?}");
        assert_eq!(run(&["--config-file", "/nonexistent"], &[]).unwrap_err().len(), 1);
    }

    #[test]
    fn the_help_has_all_flags_by_subject() {
        let Ok(Invocation::Print(help)) = parse(["--help".to_owned()], []) else { panic!("no help") };
        let groups = FLAGS.iter().map(|flag| flag.group).collect::<std::collections::BTreeSet<_>>();
        for group in groups {
            let section = help.split_once(&format!("\n{group}:\n")).unwrap_or_else(|| panic!("no heading {group}")).1;
            let section = section.split("\n\n").next().unwrap_or_default();
            let section = section.split_whitespace().collect::<Vec<_>>();
            for flag in FLAGS.iter().filter(|flag| flag.group == group) {
                let named = |word: &&str| {
                    word.strip_prefix("--").is_some_and(|name| name.split(['[', '=']).next() == Some(flag.name))
                };
                assert!(section.iter().any(named), "--{} under {group}:\n{help}", flag.name);
            }
        }
    }
}
