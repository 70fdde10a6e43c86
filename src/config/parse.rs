//! Command line, environment and file into one map of texts.

use super::{
    flags::{FLAGS, Flag, Kind},
    pages,
    proxy::{GatewayConfig, Program, ProxyConfig},
};
use clap::{Arg, ArgAction, Command, error::ErrorKind};
use std::{collections::BTreeMap, path::Path};

/// What the program was asked to do.
#[derive(Debug)]
pub enum Invocation {
    /// Run a member with these settings. `warnings` belong into the log.
    Run {
        /// Flag name to text; flags that nobody set are absent.
        settings: BTreeMap<&'static str, String>,
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

/// Reads the command line (without the program's name), the `ETCD_*` variables and the file that `--config-file` names.
///
/// # Errors
/// One sentence for each mistake, all at once.
pub fn parse(
    args: impl IntoIterator<Item = String>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Invocation, Vec<String>> {
    let mut warnings = Vec::new();
    let args = args.into_iter().collect::<Vec<_>>();
    if let Some(text) = pages::asked(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        return text.map(Invocation::Print);
    }
    let mut args = args.into_iter().peekable();
    if let Some(program) = args.next_if(|first| Program::named(first).is_some()) {
        return Program::named(&program).expect("it was looked at").parse(args);
    }
    let args = args.map(|arg| go_style(arg, &mut warnings)).collect::<Vec<_>>();
    if args.iter().any(|arg| arg == "--version" || arg == "version") {
        return Ok(Invocation::Print(super::version_text()));
    }
    let matches = match member().no_binary_name(true).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Ok(Invocation::Print(error.to_string())),
        Err(error) => return Err(vec![error.to_string().trim_end().to_owned()]),
    };
    let mut settings = BTreeMap::new();
    for (name, text) in variables {
        match FLAGS.iter().find(|flag| flag.variable() == name) {
            Some(flag) => drop(settings.insert(flag.name, text)),
            None if name.starts_with("ETCD_") && !name.starts_with("ETCD_HENGE_") => {
                warnings.push(format!("unrecognized environment variable {name}"));
            }
            None => {}
        }
    }
    for flag in FLAGS {
        if let Some(text) = matches.get_one::<String>(flag.name) {
            settings.insert(flag.name, text.clone());
        }
    }
    if let Some(file) = settings.get("config-file").filter(|file| !file.is_empty()).cloned() {
        settings = from_file(Path::new(&file))?;
    }
    Ok(Invocation::Run { settings, warnings })
}

/// Reads `args` by a table of their own: a map of what was set.
///
/// # Errors
/// What clap says, as one sentence; `Ok(Err(text))` if the help was asked for.
pub(super) fn by_table(
    mut command: Command,
    flags: &[Flag],
    args: impl IntoIterator<Item = String>,
    warnings: &mut Vec<String>,
) -> Result<Result<BTreeMap<&'static str, String>, String>, Vec<String>> {
    for flag in flags {
        command = command.arg(argument(flag));
    }
    let args = args.into_iter().map(|arg| go_style(arg, warnings)).collect::<Vec<_>>();
    let matches = match command.no_binary_name(true).disable_version_flag(true).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Ok(Err(error.to_string())),
        Err(error) => return Err(vec![error.to_string().trim_end().to_owned()]),
    };
    let set = flags.iter().filter_map(|flag| Some((flag.name, matches.get_one::<String>(flag.name)?.clone())));
    Ok(Ok(set.collect()))
}

/// Go's flag package takes `-name` for `--name`; etcd 3.6 spelled young flags `--experimental-name`.
fn go_style(arg: String, warnings: &mut Vec<String>) -> String {
    let Some(body) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else { return arg };
    if body.len() <= 1 || body.starts_with('-') {
        return arg;
    }
    match body.strip_prefix("experimental-") {
        Some(body) => {
            warnings.push(format!("--experimental-{body} is deprecated: use --{body}"));
            format!("--{body}")
        }
        None => format!("--{body}"),
    }
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

fn from_file(path: &Path) -> Result<BTreeMap<&'static str, String>, Vec<String>> {
    let named = |what: String| format!("config file {}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| vec![named(error.to_string())])?;
    from_text(&text).map_err(|mistakes| mistakes.into_iter().map(named).collect())
}

/// What a file says.
pub(super) fn from_text(text: &str) -> Result<BTreeMap<&'static str, String>, Vec<String>> {
    let tree: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).map_err(|error| vec![error.to_string()])?;
    let (mut settings, mut mistakes) = (BTreeMap::new(), Vec::new());
    match tree {
        serde_yaml_ng::Value::Null => {}
        serde_yaml_ng::Value::Mapping(map) => {
            for (key, value) in map {
                let key = key.as_str().unwrap_or_default().to_owned();
                match (key.as_str(), FLAGS.iter().find(|flag| flag.name == key), scalar(&value)) {
                    (_, Some(flag), Some(text)) => drop(settings.insert(flag.name, text)),
                    (_, Some(_), None) => mistakes.push(format!("{key} must be a single value or a list of values")),
                    ("client-transport-security", None, _) => {
                        mistakes.extend(transport_security(&mut settings, &key, CLIENT_SECURITY, &value));
                    }
                    ("peer-transport-security", None, _) => {
                        mistakes.extend(transport_security(&mut settings, &key, PEER_SECURITY, &value));
                    }
                    _ => mistakes.push(format!("unknown key {key:?}")),
                }
            }
        }
        _ => mistakes.push("must be a mapping of flag names to values".to_owned()),
    }
    if mistakes.is_empty() { Ok(settings) } else { Err(mistakes) }
}

/// Key in a section of etcd's file, and the flag that it stands for.
type Section = &'static [(&'static str, &'static str)];

const CLIENT_SECURITY: Section = &[
    ("cert-file", "cert-file"),
    ("key-file", "key-file"),
    ("client-cert-file", "client-cert-file"),
    ("client-key-file", "client-key-file"),
    ("client-cert-auth", "client-cert-auth"),
    ("trusted-ca-file", "trusted-ca-file"),
    ("auto-tls", "auto-tls"),
    ("allowed-cn", "client-cert-allowed-cn"),
    ("allowed-hostname", "client-cert-allowed-hostname"),
    // Of clients the addresses are not looked at anyway.
    ("skip-client-san-verification", ""),
];
const PEER_SECURITY: Section = &[
    ("cert-file", "peer-cert-file"),
    ("key-file", "peer-key-file"),
    ("client-cert-file", "peer-client-cert-file"),
    ("client-key-file", "peer-client-key-file"),
    ("client-cert-auth", "peer-client-cert-auth"),
    ("trusted-ca-file", "peer-trusted-ca-file"),
    ("auto-tls", "peer-auto-tls"),
    ("allowed-cn", "peer-cert-allowed-cn"),
    ("allowed-hostname", "peer-cert-allowed-hostname"),
    ("skip-client-san-verification", "peer-skip-client-san-verification"),
];

/// Reads a section of etcd's file; the flags that stand in it are set as if they stood outside.
fn transport_security(
    settings: &mut BTreeMap<&'static str, String>,
    name: &str,
    section: Section,
    value: &serde_yaml_ng::Value,
) -> Vec<String> {
    let map = match value {
        serde_yaml_ng::Value::Null => return Vec::new(),
        serde_yaml_ng::Value::Mapping(map) => map,
        _ => return vec![format!("{name} must be a mapping")],
    };
    let mut mistakes = Vec::new();
    for (key, value) in map {
        let key = key.as_str().unwrap_or_default();
        match (section.iter().find(|(known, _)| *known == key), scalar(value)) {
            (None, _) => mistakes.push(format!("unknown key {key:?} in {name}")),
            (Some(_), None) => mistakes.push(format!("{name}: {key} must be a single value or a list of values")),
            (Some((_, "")), _) => {}
            // A key without a value sets nothing.
            (Some(_), Some(text)) if text.is_empty() => {}
            (Some((_, flag)), Some(text)) => drop(settings.insert(flag, text)),
        }
    }
    mistakes
}

fn scalar(value: &serde_yaml_ng::Value) -> Option<String> {
    use serde_yaml_ng::Value;
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Sequence(list) => Some(list.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(",")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str], variables: &[(&str, &str)]) -> Result<BTreeMap<&'static str, String>, Vec<String>> {
        let args = args.iter().map(|arg| (*arg).to_owned());
        let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        match parse(args, variables)? {
            Invocation::Run { settings, .. } => Ok(settings),
            other => panic!("not a member: {other:?}"),
        }
    }

    #[test]
    fn go_spellings_are_understood_and_the_last_one_wins() {
        let settings = run(&["-name", "a", "--name=b", "--pre-vote=false", "--unsafe-no-fsync"], &[]).unwrap();
        assert_eq!(settings["name"], "b");
        assert_eq!(settings["pre-vote"], "false");
        assert_eq!(settings["unsafe-no-fsync"], "true");
    }

    #[test]
    fn negative_numbers_are_values() {
        assert_eq!(run(&["--quota-backend-bytes", "-1"], &[]).unwrap()["quota-backend-bytes"], "-1");
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_unknown_variables_only_warn() {
        let settings = run(&["--name", "flag"], &[("ETCD_NAME", "variable"), ("ETCD_DATA_DIR", "d"), ("ETCD_X", "y")]);
        let settings = settings.unwrap();
        assert_eq!((settings["name"].as_str(), settings["data-dir"].as_str()), ("flag", "d"));
    }

    #[test]
    fn an_unknown_flag_is_named() {
        assert!(run(&["--no-such-flag=1"], &[]).unwrap_err()[0].contains("--no-such-flag"));
    }

    #[test]
    fn experimental_spellings_are_accepted() {
        let settings = run(&["--experimental-compaction-batch-limit=7"], &[]).unwrap();
        assert_eq!(settings["compaction-batch-limit"], "7");
    }

    #[test]
    fn a_config_file_silences_flags_and_reports_every_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("henge.yaml");
        std::fs::write(&path, "name: from-file\nquota-backend-bytes: 5\n").unwrap();
        let file = path.to_str().unwrap();
        let settings = run(&["--name", "flag", "--config-file", file], &[]).unwrap();
        assert_eq!((settings["name"].as_str(), settings["quota-backend-bytes"].as_str()), ("from-file", "5"));
        let etcds = "client-transport-security:\n  cert-file: c.pem\n  key-file: k.pem\n  client-cert-auth: true\n  trusted-ca-file:\n  auto-tls: false\npeer-transport-security:\n  cert-file: p.pem\n  allowed-cn: [a, b]\n  skip-client-san-verification: true\ncipher-suites: [\n  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,\n  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384\n]\n";
        std::fs::write(&path, etcds).unwrap();
        let settings = run(&["--config-file", file], &[]).unwrap();
        let expected = [
            ("auto-tls", "false"),
            ("cert-file", "c.pem"),
            ("cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
            ("client-cert-auth", "true"),
            ("key-file", "k.pem"),
            ("peer-cert-allowed-cn", "a,b"),
            ("peer-cert-file", "p.pem"),
            ("peer-skip-client-san-verification", "true"),
        ];
        assert_eq!(settings, expected.map(|(name, text)| (name, text.to_owned())).into());
        std::fs::write(&path, "client-transport-security: {ca: x, cert-file: {}}\n").unwrap();
        assert_eq!(run(&["--config-file", file], &[]).unwrap_err().len(), 2);
        std::fs::write(&path, "nope: 1\nnothing: 2\n").unwrap();
        assert_eq!(run(&["--config-file", file], &[]).unwrap_err().len(), 2);
    }
}
