//! docs/compatibility.md says of everything that etcd offers what henge makes of it, and which test shows that. Here the page is held to the
//! programs and to the tests: nothing that they have may be missing in it, and nothing that it names may be missing in them.

use henge::{
    config::{FLAGS, Standing},
    pb,
};
use prost_reflect::DescriptorPool;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

const PAGE: &str = include_str!("../docs/compatibility.md");
const HEAD: &str = "| what | here | shown by |";

struct Row {
    line: usize,
    what: String,
    here: String,
    shown_by: String,
}

/// The rows of all tables with the three columns.
fn rows() -> Vec<Row> {
    let (mut rows, mut inside) = (Vec::new(), false);
    for (number, line) in PAGE.lines().enumerate() {
        inside = line == HEAD || inside && line.starts_with('|');
        if !inside || line == HEAD || line.starts_with("| --- ") {
            continue;
        }
        let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let [what, here, shown_by] =
            cells.try_into().unwrap_or_else(|cells| panic!("line {}: three cells, not {cells:?}", number + 1));
        rows.push(Row { line: number + 1, what, here, shown_by });
    }
    rows
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows by what they begin with, if that is a name.
fn named() -> BTreeMap<String, Row> {
    let name = |what: &str| what.strip_prefix('`')?.split('`').next().map(str::to_owned);
    let of = |row: Row| name(&row.what).map(|name| (name, row));
    rows().into_iter().filter_map(of).collect()
}

fn no_more_than(wrong: &[String]) {
    assert!(wrong.is_empty(), "docs/compatibility.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_row_says_what_is_so_and_what_shows_it_or_why_not() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for row in rows() {
        let is_reasoned = ["differs: ", "accepted: ", "refused: "].iter().any(|word| row.here.starts_with(word));
        let needs_test = !row.here.starts_with("accepted: ") && !row.here.starts_with("refused: ");
        if !is_reasoned && !["as etcd", "own"].contains(&row.here.as_str()) {
            wrong.push(format!("line {}: no verdict: {}", row.line, row.here));
        }
        if needs_test && quoted(&row.shown_by).next().is_none() {
            wrong.push(format!("line {}: nothing shows it: {}", row.line, row.what));
        }
        if !seen.insert(row.what.clone()) {
            wrong.push(format!("line {}: a second time: {}", row.line, row.what));
        }
    }
    assert!(seen.len() > 250, "only {} rows: has the form of the page changed?", seen.len());
    no_more_than(&wrong);
}

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let all = quoted(PAGE).filter(|name| name.starts_with("tests/") || name.starts_with("src/"));
    for name in all.collect::<BTreeSet<_>>() {
        let (path, test) = name.split_once("::").map_or((name, None), |(path, test)| (path, Some(test)));
        let Ok(text) = std::fs::read_to_string(root.join(path)) else {
            wrong.push(format!("no such file: {path}"));
            continue;
        };
        let is_there = match test {
            Some(test) => is_test(&text, test),
            // What other languages bring along is named as a whole.
            None => path.starts_with("tests/"),
        };
        if !is_there {
            wrong.push(format!("no such test: {name}"));
        }
    }
    no_more_than(&wrong);
}

/// Whether there is a function of that name, below an attribute that makes it a test.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<_> = text.lines().collect();
    let found = lines.iter().position(|line| line.contains(&format!("fn {name}(")));
    found.is_some_and(|at| {
        lines[at.saturating_sub(3)..at].iter().any(|line| line.trim_start().starts_with("#[") && line.contains("test"))
    })
}

#[test]
fn every_call_of_the_api_has_a_row() {
    let pool = DescriptorPool::decode(pb::DESCRIPTORS).expect("descriptors");
    let named = named();
    let services: Vec<_> = pool.services().collect();
    let calls = services.iter().flat_map(|service| {
        service.methods().map(|call| format!("{}/{}", service.name(), call.name())).collect::<Vec<_>>()
    });
    let calls: Vec<_> = calls.collect();
    assert!(calls.len() > 45, "only {} calls", calls.len());
    let missing = calls.iter().filter(|call| !named.contains_key(*call)).map(|call| format!("no row: `{call}`"));
    no_more_than(&missing.collect::<Vec<_>>());
}

/// The calls of a script's steps, and whether henge's answer differs from etcd's.
fn steps(script: &str) -> Vec<(&str, bool)> {
    let mut opened = BTreeMap::new();
    let mut steps: Vec<(&str, bool)> = Vec::new();
    for line in script.lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["call", call, ..] | ["await", _, call, ..] => steps.push((call, false)),
            ["open", name, call] => {
                opened.insert(name, call);
                steps.push((call, false));
            }
            ["send" | "recv" | "all" | "quiet" | "half-close" | "close", name, ..] => steps.push((opened[name], false)),
            ["!", ..] => steps.last_mut().expect("a step before its answer").1 = true,
            _ => {}
        }
    }
    steps
}

#[test]
fn rows_say_where_the_recorded_answers_differ() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/surface");
    let scripts = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
    let scripts = scripts.filter(|path| path.extension().is_some_and(|extension| extension == "txt"));
    let scripts: Vec<_> = scripts.map(|path| std::fs::read_to_string(path).expect("a script")).collect();
    let steps: Vec<_> = scripts.iter().flat_map(|script| steps(script)).collect();
    assert!(steps.len() > 500, "only {} steps: has the form of the scripts changed?", steps.len());
    let named = named();
    let differing: BTreeSet<_> = steps.iter().filter(|(_, differs)| *differs).map(|(call, _)| *call).collect();
    let unsaid = differing.iter().filter(|call| !named[**call].here.starts_with("differs: "));
    let mut wrong: Vec<_> =
        unsaid.map(|call| format!("line {}: {call} was answered otherwise", named[*call].line)).collect();
    let played: BTreeSet<_> = steps.iter().map(|(call, _)| *call).collect();
    let claimed = named.iter().filter(|(name, row)| name.contains('/') && row.shown_by.contains("tests/surface.rs"));
    let idle = claimed
        .filter(|(name, _)| name.chars().next().is_some_and(char::is_uppercase) && !played.contains(name.as_str()));
    wrong.extend(idle.map(|(name, row)| format!("line {}: no script calls {name}", row.line)));
    no_more_than(&wrong);
}

/// What a program prints for `--help`, behind more words.
fn help(program: &str, words: &[&str]) -> String {
    let printed = Command::new(program).args(words).arg("--help").output().expect("the program runs");
    String::from_utf8(printed.stdout).expect("a text")
}

/// The flags that a help lists.
fn flags(help: &str) -> Vec<&str> {
    let word = |line: &'_ str| line.trim_start().starts_with("--");
    let lines = help.lines().filter(|line| word(line));
    lines.filter_map(|line| line.trim_start().split([' ', '[', '=']).next()).collect()
}

#[test]
fn every_flag_of_a_member_has_a_row_that_says_what_the_program_does() {
    let named = named();
    let help = help(env!("CARGO_BIN_EXE_henge"), &[]);
    let listed: BTreeSet<_> = flags(&help).into_iter().collect();
    let mut wrong = Vec::new();
    for flag in FLAGS {
        let name = format!("--{}", flag.name);
        if !listed.contains(name.as_str()) {
            wrong.push(format!("the help does not list {name}"));
        }
        let expected = match flag.standing {
            Standing::Works => None,
            Standing::Meaningless(reason) => Some(format!("accepted: {reason}")),
            Standing::Later(reason) => Some(format!("refused: {reason}")),
        };
        match (named.get(&name), expected) {
            (None, None) => wrong.push(format!("no row: | `{name}` | as etcd | `…` |")),
            (None, Some(expected)) => wrong.push(format!("no row: | `{name}` | {expected} | |")),
            (Some(row), Some(expected)) if row.here != expected => {
                wrong.push(format!("line {}: the program says: {expected}", row.line));
            }
            (Some(row), None) if row.here.starts_with("accepted") || row.here.starts_with("refused") => {
                wrong.push(format!("line {}: the program says that {name} works", row.line));
            }
            (Some(_), _) => {}
        }
    }
    let known: BTreeSet<_> = FLAGS.iter().map(|flag| format!("--{}", flag.name)).collect();
    let others = listed.iter().filter(|name| **name != "--version" && !known.contains(**name));
    wrong.extend(others.map(|name| format!("in the help alone: {name}")));
    let gone = named.keys().filter(|name| name.starts_with("--") && *name != "--version" && !known.contains(*name));
    wrong.extend(gone.map(|name| format!("no flag any more: {name}")));
    no_more_than(&wrong);
}

/// The commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_row() {
    let program = env!("CARGO_BIN_EXE_hengectl");
    let named = named();
    let mut wrong = Vec::new();
    let mut found = 0;
    for command in commands(&help(program, &[])) {
        let below = commands(&help(program, &[&command]));
        // A group does nothing by itself, but for the one that lists.
        let mut all: Vec<_> = below.iter().map(|name| format!("{command} {name}")).collect();
        if below.is_empty() || command == "ring" {
            all.push(command);
        }
        found += all.len();
        wrong.extend(all.iter().map(|name| format!("hengectl {name}")).filter(|name| !named.contains_key(name)));
    }
    assert!(found > 60, "only {found} commands");
    no_more_than(&wrong);
}
