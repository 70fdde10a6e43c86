//! What must hold everywhere in the house: who may import whom, purity of the pure rooms, a header on each room.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Rooms from bottom to top, and what each may import.
const ROOMS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("pb", &["types"]),
    ("io", &["types"]),
    ("metrics", &[]),
    ("dns", &[]),
    ("runtime", &[]),
    ("places", &[]),
    ("go", &[]),
    ("tls", &["runtime"]),
    ("config", &["types", "go", "tls"]),
    ("bolt", &["types"]),
    ("raft", &["types"]),
    ("wal", &["types", "io", "pb"]),
    ("engine", &["types", "io"]),
    ("mvcc", &["types", "engine"]),
    ("lease", &["types", "engine"]),
    ("membership", &["types", "engine"]),
    ("alarm", &["types", "engine"]),
    ("auth", &["types", "engine"]),
    ("machine", &["types", "engine", "mvcc", "lease", "membership", "alarm", "auth", "pb"]),
    ("watch", &["types", "mvcc", "pb"]),
    (
        "backup",
        &["types", "io", "bolt", "wal", "engine", "mvcc", "lease", "membership", "alarm", "auth", "machine", "pb"],
    ),
    (
        "replica",
        &["types", "io", "metrics", "raft", "wal", "engine", "mvcc", "lease", "membership", "auth", "machine", "watch"],
    ),
    ("peer", &["types", "io", "metrics", "engine", "membership", "machine", "raft", "replica", "pb", "places", "tls"]),
    ("ring", &["types", "pb", "runtime"]),
    (
        "server",
        &[
            "types",
            "engine",
            "mvcc",
            "membership",
            "auth",
            "machine",
            "watch",
            "backup",
            "replica",
            "ring",
            "pb",
            "config",
            "metrics",
            "places",
            "runtime",
            "tls",
        ],
    ),
    ("gateway", &["types", "machine", "metrics", "mvcc", "server", "pb"]),
    ("client", &["types", "pb", "runtime", "tls"]),
    (
        "proxy",
        &[
            "types", "metrics", "engine", "mvcc", "auth", "machine", "watch", "ring", "server", "gateway", "client",
            "pb", "runtime", "tls",
        ],
    ),
    (
        "process",
        &[
            "types",
            "io",
            "engine",
            "membership",
            "watch",
            "replica",
            "peer",
            "server",
            "gateway",
            "client",
            "proxy",
            "config",
            "dns",
            "metrics",
            "places",
            "ring",
            "pb",
            "tls",
        ],
    ),
    ("ctl", &["types", "pb", "client", "backup", "engine", "config", "dns", "go", "tls"]),
    ("fuzz", &["bolt", "wal", "machine", "backup", "peer", "ring", "server", "gateway", "proxy", "config", "ctl"]),
    (
        "sim",
        &[
            "types",
            "pb",
            "runtime",
            "io",
            "raft",
            "wal",
            "engine",
            "mvcc",
            "lease",
            "membership",
            "auth",
            "machine",
            "watch",
            "replica",
            "server",
            "client",
            "proxy",
        ],
    ),
];

/// Rooms whose time, chance, disk and network are inputs.
const PURE: &[&str] = &["types", "bolt", "raft", "mvcc", "lease", "membership", "alarm", "auth", "machine", "go"];

/// What a pure room may not touch.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread::spawn",
    "Instant::now",
    "SystemTime",
    "tokio::",
    "rand::",
    "std::env",
    "HashMap::new()",
];

/// In a pure room only this file may look at wire types, and in `watch` likewise.
const ONLY_FILE_WITH_PB: &[(&str, &[&str])] = &[("machine", &["codec"]), ("watch", &["encode"])];

fn files(room: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let single = root.join(format!("{room}.rs"));
    let mut found = if single.exists() { vec![single] } else { Vec::new() };
    let mut folders = vec![root.join(room)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// The part of a file that is not its unit tests, without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file is readable");
    let is_test = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "script" || stem == "conformance")
        || path.components().any(|part| part.as_os_str() == "tests");
    if is_test {
        return String::new();
    }
    let body = text.split("#[cfg(test)]").next().unwrap_or_default();
    body.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The rooms that `code` names after `crate::`, braces included.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(top_level_names(list)),
            None => found.push(first_word(rest)),
        }
    }
    found.sort();
    found.dedup();
    found
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first words of the items of a `use` list, whose opening brace has been read.
fn top_level_names(list: &str) -> Vec<String> {
    let (mut depth, mut item, mut names) = (0, String::new(), Vec::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(first_word(&std::mem::take(&mut item))),
            _ => {}
        }
        if depth == 0 && c != ',' {
            item.push(c);
        }
    }
    names.push(first_word(&item));
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn a_room_imports_only_what_its_row_names() {
    let mut wrong = Vec::new();
    for (room, allowed) in ROOMS {
        for file in files(room) {
            for import in imports(&code(&file)) {
                let is_room = ROOMS.iter().any(|(name, _)| *name == import);
                if is_room && import != *room && !allowed.contains(&import.as_str()) {
                    wrong.push(format!("{} imports {import}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_room_has_a_row() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let room = name.trim_end_matches(".rs");
        let known = ["lib", "bin"].contains(&room) || ROOMS.iter().any(|(known, _)| *known == room);
        assert!(known, "src/{name} has no row in tests/tidy.rs");
    }
}

#[test]
fn pure_rooms_take_time_chance_disk_and_network_as_inputs() {
    let mut wrong = Vec::new();
    for room in PURE {
        for file in files(room) {
            let code = code(&file);
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                wrong.push(format!("{} uses {word}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Without a stated order tokio draws the branch that it looks at first by lot, and a seed of the simulation gives another run each time.
#[test]
fn rooms_that_are_simulated_choose_between_events_in_a_stated_order() {
    let mut wrong = Vec::new();
    for room in ["watch", "server", "client", "ring", "proxy"] {
        for file in files(room) {
            let code = code(&file);
            let drawn =
                code.split("select! {").skip(1).filter(|body| !body.trim_start().starts_with("biased;")).count();
            if drawn > 0 {
                wrong.push(format!("{}: {drawn}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn wire_types_stay_in_the_files_that_convert_them() {
    let mut wrong = Vec::new();
    for (room, allowed) in ONLY_FILE_WITH_PB {
        for file in files(room) {
            let converts = allowed.iter().any(|name| file.to_string_lossy().contains(&format!("/{name}")));
            if !converts && imports(&code(&file)).iter().any(|import| import == "pb") {
                wrong.push(file.display().to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_edge_names_grpc_codes() {
    for (room, _) in ROOMS.iter().filter(|(room, _)| {
        !["pb", "runtime", "peer", "ring", "server", "client", "proxy", "ctl", "gateway"].contains(room)
    }) {
        // The simulated hosts of the ring are clients of its edge.
        for file in files(room).into_iter().filter(|file| !file.to_string_lossy().contains("/sim/cluster/ring/")) {
            assert!(!code(&file).contains("tonic::"), "{} knows gRPC", file.display());
        }
    }
}

#[test]
fn every_room_opens_with_what_it_is_for() {
    for (room, _) in ROOMS {
        let Some(first) = files(room).into_iter().find(|file| {
            file.file_name().is_some_and(|name| name == "mod.rs")
                && file.parent().is_some_and(|dir| dir.ends_with(room))
        }) else {
            continue;
        };
        let text = fs::read_to_string(&first).unwrap();
        assert!(text.starts_with("//! "), "{} has no header", first.display());
        for word in ["**Promises.**", "**May not know**"] {
            let header = text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
            assert!(header.contains(word), "the header of {} lacks {word}", first.display());
        }
    }
}

#[test]
fn the_architecture_names_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("a text");
    let is_name = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'.');
    // What stands between backticks and looks like a path, without the function after it.
    let named = text.split('`').skip(1).step_by(2).filter_map(|word| word.split("::").next());
    let paths = named.filter(|word| word.contains('/') && word.split('/').all(is_name) && !word.starts_with("tests/"));
    let paths = paths.map(|word| word.trim_end_matches(".rs").to_owned()).collect::<Vec<_>>();
    assert!(paths.len() > 30, "only {} files are named", paths.len());
    for path in paths {
        let exists = ["", ".rs"].iter().any(|end| root.join(format!("src/{path}{end}")).exists());
        assert!(exists || root.join(&path).exists(), "ARCHITECTURE.md names {path}, which does not exist");
    }
}
