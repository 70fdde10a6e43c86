//! What `docs/packaging` says against what there is: flags, variables, paths and programs.
#![cfg(all(feature = "ctl", feature = "server"))]

use henge::config::{self, Config, Invocation};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn packaging(file: &str) -> String {
    fs::read_to_string(root().join("docs/packaging").join(file)).expect("a file")
}

/// The values of a key of a unit, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// Assignments in the comments of a unit: what its environment file may hold.
fn examples(unit: &str) -> Vec<(String, String)> {
    let comments = unit.lines().filter_map(|line| line.strip_prefix("#   ")?.split_once('='));
    comments.map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

fn parse(words: &str, variables: Vec<(String, String)>) -> Invocation {
    let words = words.split_whitespace().skip(1).map(str::to_owned);
    config::parse(words, variables).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

#[test]
fn the_unit_of_a_member_starts_one_with_the_variables_that_it_shows() {
    let unit = packaging("henge.service");
    let mut variables = examples(&unit);
    assert!(variables.len() >= 6, "{variables:?}");
    let own = values(&unit, "Environment")
        .iter()
        .map(|pair| pair.split_once('=').expect("an assignment"))
        .collect::<Vec<_>>();
    assert_eq!(own, [("ETCD_DATA_DIR", "/var/lib/henge")]);
    variables.extend(own.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
    let [command] = values(&unit, "ExecStart")[..] else { panic!("one command") };
    let Invocation::Run { settings, mut warnings } = parse(command, variables) else {
        panic!("{command} is no member")
    };
    let config = Config::from_settings(&settings, &mut warnings).expect("no mistake");
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/henge"));
    assert_eq!(config.initial_cluster.len(), 3);
    // Which systemd makes, and which is the one place where it may write.
    assert_eq!(values(&unit, "StateDirectory"), ["henge"]);
    assert_eq!(values(&unit, "Type"), ["notify"]);
}

#[test]
fn the_unit_of_a_proxy_starts_one_with_the_flags_that_it_shows() {
    let unit = packaging("henge-proxy.service");
    let examples = examples(&unit);
    let [(name, flags)] = &examples[..] else { panic!("{examples:?}") };
    let [command] = values(&unit, "ExecStart")[..] else { panic!("one command") };
    assert!(command.contains(&format!("${name}")), "{command}");
    let Invocation::Proxy { config, warnings } = parse(&command.replace(&format!("${name}"), flags), Vec::new()) else {
        panic!("{command} is no proxy")
    };
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.endpoints.len(), 2);
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/henge-proxy"));
    assert_eq!(values(&unit, "StateDirectory"), ["henge-proxy"]);
}

#[test]
fn the_dockerfile_copies_what_there_is_and_all_that_a_build_reads() {
    let file = packaging("Dockerfile").replace("\\\n", " ");
    let copied = file.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|rest| !rest.starts_with("--from"));
    let copied = copied.flat_map(|rest| {
        let mut paths = rest.split_whitespace().collect::<Vec<_>>();
        paths.pop();
        paths
    });
    let copied = copied.collect::<Vec<_>>();
    for path in &copied {
        assert!(root().join(path).exists(), "{path}");
    }
    // The members of the workspace, which cargo reads before it builds anything.
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).expect("members");
    let members = members.split('"').filter(|part| !part.contains(['[', ',', ']']));
    for needed in ["Cargo.toml", "Cargo.lock", "build.rs", "src", "proto"]
        .into_iter()
        .chain(members.filter(|member| *member != "."))
    {
        assert!(copied.iter().any(|path| needed == *path || needed.starts_with(&format!("{path}/"))), "{needed}");
    }
    for bin in ["henge", "hengectl"] {
        assert!(file.contains(&format!("target/release/{bin}")) && root().join(format!("src/bin/{bin}.rs")).exists());
    }
    // The last image has no shell: what it starts must be the program itself, and its variables ones that it knows.
    assert!(file.contains("ENTRYPOINT [\"/usr/bin/henge\"]"));
    let variables = file.lines().filter_map(|line| line.strip_prefix("ENV ")?.split_once('='));
    let variables = variables.map(|(name, text)| (name.to_owned(), text.to_owned())).collect::<Vec<_>>();
    let example = "henge --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://localhost:2379";
    assert!(
        file.contains("--listen-client-urls http://0.0.0.0:2379")
            && file.contains("--advertise-client-urls http://localhost:2379")
    );
    let Invocation::Run { settings, warnings } = parse(example, variables) else { panic!("no member") };
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(settings["data-dir"], "/var/lib/henge");
    let base = file.lines().find_map(|line| line.strip_prefix("FROM rust:")).expect("a compiler");
    assert!(manifest.contains(&format!("rust-version = \"{}\"", base.split('-').next().unwrap_or_default())), "{base}");
}
