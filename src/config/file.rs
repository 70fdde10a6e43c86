//! etcd's file: YAML, whose keys are the names of flags, and a few sections.

use super::{flags::FLAGS, said::Said};
use serde_yaml_ng::Value;
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
    let key = key.as_str().unwrap_or_default();
    if let Some((_, section)) = SECTIONS.iter().find(|(name, _)| *name == key) {
        return read_section(said, key, section, value);
    }
    if let Some((_, why)) = REFUSED.iter().find(|(name, _)| *name == key) {
        if !value.is_null() {
            said.mistakes.push(format!("{key} cannot be honoured: {why}"));
        }
        return;
    }
    match (said.meant(FLAGS, key, str::to_owned), scalar(value)) {
        (None, _) => said.mistakes.push(format!("unknown key {key:?}")),
        (Some(_), None) => said.mistakes.push(format!("{key} must be a single value or a list of values")),
        // A key without a value sets nothing.
        (Some(_), Some(_)) if value.is_null() => {}
        (Some(meant), Some(text)) => said.set(meant, text),
    }
}

/// Keys that are no flags, and why they are refused.
const REFUSED: &[(&str, &str)] = &[
    ("discovery-config", "the discovery service is not there yet; use initial-cluster or discovery-srv"),
    ("local-address", "the system chooses from which address members are dialled"),
];

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
        let key = key.as_str().unwrap_or_default();
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
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Sequence(list) => Some(list.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(",")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                "discovery-config: {token: x}\nlocal-address: 10.0.0.1\n",
                &[
                    "discovery-config cannot be honoured: the discovery service is not there yet; use initial-cluster or discovery-srv",
                    "local-address cannot be honoured: the system chooses from which address members are dialled",
                ],
            ),
        ] {
            assert_eq!(of_text(text).mistakes, expected, "{text}");
        }
        assert_eq!(of_text("a: [\n").mistakes.len(), 1);
    }
}
