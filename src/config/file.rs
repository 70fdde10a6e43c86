//! etcd's file: YAML, whose keys are the names of flags, and a few sections.

use super::{
    flags::{FLAGS, Flag, Kind},
    said::{Meant, Said},
};
use serde_yaml_ng::{Number, Value};
use std::path::Path;

/// What the file at `path` says; what is wrong with it names the file.
pub(super) fn read(path: &Path) -> Said {
    let mut said = match std::fs::read_to_string(path) {
        Ok(text) => of_text(&text),
        Err(error) => Said { mistakes: vec![error.to_string()], ..Said::default() },
    };
    let named = |what: &mut String| *what = format!("config file {}: {what}", path.display());
    said.mistakes.iter_mut().chain(&mut said.warnings).for_each(named);
    said
}

/// What a file says that holds `text`.
pub(super) fn of_text(text: &str) -> Said {
    let mut said = Said::default();
    match serde_yaml_ng::from_str(text) {
        Ok(Value::Null) => {}
        Ok(Value::Mapping(map)) => map.iter().for_each(|(key, value)| entry(&mut said, key, value)),
        Ok(_) => said.mistakes.push("must be a mapping of flag names to values".to_owned()),
        Err(error) => said.mistakes.push(error.to_string()),
    }
    said
}

fn entry(said: &mut Said, key: &Value, value: &Value) {
    // As in etcd, whose file is read as JSON by Go.
    let key = key.as_str().unwrap_or_default().to_ascii_lowercase();
    let key = key.as_str();
    if let Some((_, section)) = SECTIONS.iter().find(|(name, _)| *name == key) {
        return read_section(said, key, section, value);
    }
    if let Some((_, former)) = FORMER.iter().find(|(name, _)| *name == key) {
        return read_former(said, key, *former, value);
    }
    match (said.meant(FLAGS, key, str::to_owned), scalar(value)) {
        (None, _) => said.mistakes.push(format!("unknown key {key:?}")),
        (Some(_), None) => said.mistakes.push(format!("{key} must be a single value or a list of values")),
        // A key without a value sets nothing.
        (Some(_), Some(_)) if value.is_null() => {}
        (Some(Meant::Flag(flag)), Some(text)) if is_nothing(flag, &text) => {}
        (Some(Meant::Flag(flag)), Some(text)) if flag.kind == Kind::Duration && value.is_number() => {
            said.set(Meant::Flag(flag), in_nanoseconds(text));
        }
        (Some(meant), Some(text)) => said.set(meant, text),
    }
}

/// In etcd's file all durations are numbers, and these are nanoseconds.
fn in_nanoseconds(number: String) -> String {
    number + "ns"
}

/// Whether etcd's file leaves the default as it is with `text`, where the flag would not.
fn is_nothing(flag: &Flag, text: &str) -> bool {
    match flag.name {
        "initial-cluster-state" => text.is_empty(),
        "self-signed-cert-validity" => text == "0",
        _ => flag.kind == Kind::Urls && text.is_empty(),
    }
}

/// Keys of etcd's files that are no flags, or do nothing there.
#[derive(Clone, Copy)]
enum Former {
    /// Passed over, and why.
    Idle(&'static str),
    /// Refused if something is asked for, and why. What is listed asks for nothing.
    Refused(&'static str, &'static [&'static str]),
}

const NO_DISCOVERY: &str = "the discovery service is not there yet; use initial-cluster or discovery-srv";
const NO_V2_PROXY: &str = "there is no v2 proxy; `henge proxy` is one of its own";

const FORMER: &[(&str, Former)] = &[
    ("discovery-config", Former::Refused(NO_DISCOVERY, &[])),
    ("discovery-fallback", Former::Idle("it is of the v2 discovery, which is gone")),
    ("local-address", Former::Idle("the system chooses from which address members are dialled")),
    ("enable-v2", Former::Idle("the v2 API is gone")),
    ("proxy", Former::Refused(NO_V2_PROXY, &["off", "false"])),
    ("proxy-failure-wait", Former::Idle(NO_V2_PROXY)),
    ("proxy-refresh-interval", Former::Idle(NO_V2_PROXY)),
    ("proxy-dial-timeout", Former::Idle(NO_V2_PROXY)),
    ("proxy-write-timeout", Former::Idle(NO_V2_PROXY)),
    ("proxy-read-timeout", Former::Idle(NO_V2_PROXY)),
];

fn read_former(said: &mut Said, key: &str, former: Former, value: &Value) {
    match former {
        _ if asks_for_nothing(value) => {}
        Former::Idle(why) => said.warnings.push(format!("{key} has no effect: {why}")),
        Former::Refused(why, nothing) => match scalar(value) {
            Some(text) if nothing.contains(&text.as_str()) => {
                said.warnings.push(format!("{key} has no effect: {why}"));
            }
            _ => said.mistakes.push(format!("{key} cannot be honoured: {why}")),
        },
    }
}

/// No value, an empty one, or a mapping of such.
fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Sequence(list) => list.iter().all(asks_for_nothing),
        Value::Mapping(map) => map.values().all(asks_for_nothing),
        _ => false,
    }
}

/// Key in a section, and the flag that it stands for.
type Section = &'static [(&'static str, &'static str)];

const SECTIONS: &[(&str, Section)] = &[
    (
        "client-transport-security",
        &[
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
        ],
    ),
    (
        "peer-transport-security",
        &[
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
        ],
    ),
    ("socket-options", &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")]),
];

/// Reads a section; the flags that stand in it are set as if they stood outside.
fn read_section(said: &mut Said, name: &str, section: Section, value: &Value) {
    let map = match value {
        Value::Null => return,
        Value::Mapping(map) => map,
        _ => return said.mistakes.push(format!("{name} must be a mapping")),
    };
    for (key, value) in map {
        let key = key.as_str().unwrap_or_default().to_ascii_lowercase();
        match (section.iter().find(|(known, _)| *known == key), scalar(value)) {
            (None, _) => said.mistakes.push(format!("unknown key {key:?} in {name}")),
            (Some(_), None) => said.mistakes.push(format!("{name}: {key} must be a single value or a list of values")),
            (Some((_, "")), _) => {}
            (Some(_), Some(text)) if text.is_empty() => {}
            (Some((_, flag)), Some(text)) => drop(said.settings.insert(flag, text)),
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(number(value)),
        Value::String(value) => Some(value.clone()),
        Value::Sequence(list) => Some(list.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(",")),
        _ => None,
    }
}

/// A number that is whole is spelled so, whatever it looked like: `8e9` is 8000000000, as for Go's JSON.
fn number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e21 => format!("{float:.0}"),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// etcd's own example, without its comments.
    const SAMPLE: &str = include_str!("testdata/etcd.conf.yml.sample");

    #[test]
    fn etcds_own_example_starts() {
        let said = of_text(SAMPLE);
        assert_eq!(said.mistakes, Vec::<String>::new());
        let warned = said.warnings.iter().filter_map(|warning| warning.split(' ').next()).collect::<Vec<_>>();
        let expected = [
            "discovery-fallback",
            "proxy",
            "proxy-failure-wait",
            "proxy-refresh-interval",
            "proxy-dial-timeout",
            "proxy-write-timeout",
            "proxy-read-timeout",
        ];
        assert_eq!(warned, expected);
        let config = Config::from_settings(&said.settings, &mut Vec::new()).expect("no mistake");
        assert_eq!(config.log.level, "debug");
    }

    #[test]
    fn what_is_gone_is_passed_over_as_long_as_nothing_is_asked_for() {
        for (text, warnings) in [
            ("discovery-config: {}", 0),
            ("discovery-config: {endpoints: [], auth: {username: ''}}", 0),
            ("discovery-fallback: exit", 1),
            ("local-address: 10.0.0.1", 1),
            ("local-address: ''", 0),
            ("proxy: off", 1),
            ("proxy: 'off'", 1),
            ("proxy:", 0),
            ("enable-v2: true", 1),
            ("initial-cluster-state: ''", 0),
            ("listen-metrics-urls: ''", 0),
            ("self-signed-cert-validity: 0", 0),
            ("log-rotation-config-json: '{\"maxsize\": 5}'", 0),
        ] {
            let said = of_text(text);
            assert_eq!((&said.mistakes, said.warnings.len()), (&Vec::new(), warnings), "{text}");
            assert!(Config::from_settings(&said.settings, &mut Vec::new()).is_ok(), "{text}");
        }
    }

    #[test]
    fn numbers_are_taken_as_etcd_takes_them_and_durations_are_nanoseconds() {
        for (text, name, expected) in [
            ("backend-batch-interval: 100000000", "backend-batch-interval", "100000000ns"),
            ("backend-batch-interval: 1e8", "backend-batch-interval", "100000000ns"),
            ("backend-batch-interval: 100ms", "backend-batch-interval", "100ms"),
            ("grpc-keepalive-interval: -1", "grpc-keepalive-interval", "-1ns"),
            ("quota-backend-bytes: 8e9", "quota-backend-bytes", "8000000000"),
            ("quota-backend-bytes: 0x10", "quota-backend-bytes", "16"),
            ("snapshot-count: 1_000", "snapshot-count", "1_000"),
            ("Quota-Backend-BYTES: 5", "quota-backend-bytes", "5"),
            ("Client-Transport-Security: {Auto-TLS: true}", "auto-tls", "true"),
        ] {
            let said = of_text(text);
            assert_eq!(said.mistakes, Vec::<String>::new(), "{text}");
            assert_eq!(said.settings, [(name, expected.to_owned())].into(), "{text}");
            assert!(Config::from_settings(&said.settings, &mut Vec::new()).is_ok(), "{text}");
        }
        for flag in FLAGS.iter().filter(|flag| flag.kind == Kind::Duration) {
            assert_eq!(of_text(&format!("{}: 5", flag.name)).settings[flag.name], "5ns");
        }
    }

    #[test]
    fn etcds_keys_are_known_in_and_outside_of_sections() {
        let said = of_text(
            "name: a\nquota-backend-bytes: 5\nwal-dir:\npre-vote: false\nclient-transport-security:\n  cert-file: c.pem\n  key-file: k.pem\n  client-cert-auth: true\n  trusted-ca-file:\n  auto-tls: false\npeer-transport-security:\n  cert-file: p.pem\n  allowed-cn: [a, b]\n  skip-client-san-verification: true\nsocket-options: {reuse-port: true}\ndiscovery-config:\nexperimental-compaction-batch-limit: 7\nexperimental-initial-corrupt-check: true\ncipher-suites: [\n  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,\n  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384\n]\n",
        );
        assert_eq!(said.mistakes, Vec::<String>::new());
        let expected = [
            ("auto-tls", "false"),
            ("cert-file", "c.pem"),
            ("cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
            ("client-cert-auth", "true"),
            ("compaction-batch-limit", "7"),
            ("feature-gates", "InitialCorruptCheck=true"),
            ("key-file", "k.pem"),
            ("name", "a"),
            ("peer-cert-allowed-cn", "a,b"),
            ("peer-cert-file", "p.pem"),
            ("peer-skip-client-san-verification", "true"),
            ("pre-vote", "false"),
            ("quota-backend-bytes", "5"),
            ("socket-reuse-port", "true"),
        ];
        assert_eq!(said.settings, expected.map(|(name, text)| (name, text.to_owned())).into());
        assert_eq!(said.warnings.len(), 2, "{:?}", said.warnings);
    }

    #[test]
    fn every_mistake_in_a_file_is_told() {
        for (text, expected) in [
            ("- a\n", &["must be a mapping of flag names to values"][..]),
            ("nope: 1\nnothing: 2\nname: a\n", &["unknown key \"nope\"", "unknown key \"nothing\""]),
            ("name: {a: b}\n", &["name must be a single value or a list of values"]),
            (
                "client-transport-security: {ca: x, cert-file: {}}\npeer-transport-security: 3\n",
                &[
                    "unknown key \"ca\" in client-transport-security",
                    "client-transport-security: cert-file must be a single value or a list of values",
                    "peer-transport-security must be a mapping",
                ],
            ),
            (
                "discovery-config: {token: x}\nproxy: on\n",
                &[
                    "discovery-config cannot be honoured: the discovery service is not there yet; use initial-cluster or discovery-srv",
                    "proxy cannot be honoured: there is no v2 proxy; `henge proxy` is one of its own",
                ],
            ),
        ] {
            assert_eq!(of_text(text).mistakes, expected, "{text}");
        }
        assert_eq!(of_text("a: [\n").mistakes.len(), 1);
    }
}
