//! The words of a command line as etcdctl's flag library takes them, in a form that leaves our own no choice: every flag is one word, with
//! its value behind `=`.
//!
//! There a flag that takes a value takes the next word, whatever it looks like; a switch may be told `=false`; and `--endpoints` that comes
//! again adds to what there was.

use crate::go::{self, quote};
use clap::{Arg, ArgAction, Command};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

/// Comes as often as it likes, each time with more.
const LIST: &str = "endpoints";

/// The words in that form, for `command` and those below it. Words that make no sense are left for whoever parses the rest.
///
/// # Errors
/// What is wrong with a flag, in the words of that library.
pub fn normal(command: &Command, words: impl Iterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let mut walk = Walk { path: vec![command], normal: Vec::new() };
    let mut words = words;
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        match bytes {
            b"--" => {
                walk.normal.push(word);
                break;
            }
            [b'-', b'-', ..] => walk.long(&word, &mut words)?,
            [b'-', _, ..] => walk.short(&word, &mut words)?,
            _ if walk.enter(&word) => walk.normal.push(word),
            // No such command: what its flags may be nobody knows.
            _ => {
                walk.normal.push(word);
                break;
            }
        }
    }
    walk.normal.extend(words);
    Ok(walk.normal)
}

/// The command of that name, or the only one whose name begins so.
pub fn named<'a>(command: &'a Command, word: &str) -> Option<&'a Command> {
    if let Some(found) = command.find_subcommand(word) {
        return Some(found);
    }
    let is_meant = |below: &&Command| {
        let mut names = below.get_all_aliases().chain([below.get_name()]);
        names.any(|name| name.starts_with(word))
    };
    let mut meant = command.get_subcommands().filter(is_meant);
    meant.next().filter(|_| meant.next().is_none() && !word.is_empty())
}

struct Walk<'a> {
    /// From the program to the command that the words have named so far.
    path: Vec<&'a Command>,
    normal: Vec<OsString>,
}

impl<'a> Walk<'a> {
    /// Takes a word that is no flag; `false` if it should have named a command and does not.
    fn enter(&mut self, word: &OsStr) -> bool {
        let at = self.path[self.path.len() - 1];
        if !at.has_subcommands() {
            return true;
        }
        let found = word.to_str().and_then(|word| named(at, word));
        self.path.extend(found);
        found.is_some()
    }

    /// The flag of this command, or of one above it that passes it on.
    fn flag(&self, is_it: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
        let (at, above) = self.path.split_last()?;
        let own = at.get_arguments().find(|arg| is_it(arg));
        own.or_else(|| {
            above.iter().rev().flat_map(|of| of.get_arguments()).find(|arg| arg.is_global_set() && is_it(arg))
        })
    }

    fn long(&mut self, word: &OsStr, words: &mut impl Iterator<Item = OsString>) -> Result<(), String> {
        let body = &word.as_bytes()[2..];
        if matches!(body[0], b'-' | b'=') {
            return Err(format!("bad flag syntax: {}", word.to_string_lossy()));
        }
        let mut parts = body.splitn(2, |byte| *byte == b'=');
        let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let value = parts.next().map(|value| OsString::from_vec(value.to_vec()));
        match self.flag(|arg| arg.get_long() == Some(&name)) {
            Some(flag) => {
                let value = match value {
                    None if is_switch(flag) => None,
                    None => Some(words.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?),
                    given => given,
                };
                self.set(flag, value)
            }
            None if name == "help" => {
                self.normal.push(word.to_owned());
                Ok(())
            }
            None => Err(format!("unknown flag: --{name}")),
        }
    }

    /// Letters may stand together; the first that takes a value has what follows for it.
    fn short(&mut self, word: &OsStr, words: &mut impl Iterator<Item = OsString>) -> Result<(), String> {
        let mut letters = &word.as_bytes()[1..];
        while let [letter, rest @ ..] = letters {
            let shown = String::from_utf8_lossy(letters);
            let Some(flag) = self.flag(|arg| arg.get_short() == Some(char::from(*letter))) else {
                if *letter == b'h' {
                    self.normal.push("-h".into());
                    return Ok(());
                }
                return Err(format!("unknown shorthand flag: {:?} in -{shown}", char::from(*letter)));
            };
            let owned = |value: &[u8]| Some(OsString::from_vec(value.to_vec()));
            let (value, more): (_, &[u8]) = match rest {
                [b'=', value @ ..] if !value.is_empty() => (owned(value), &[]),
                _ if is_switch(flag) => (None, rest),
                [] => {
                    let missing = || format!("flag needs an argument: {:?} in -{shown}", char::from(*letter));
                    (Some(words.next().ok_or_else(missing)?), &[])
                }
                value => (owned(value), &[]),
            };
            self.set(flag, value)?;
            letters = more;
        }
        Ok(())
    }

    fn set(&mut self, flag: &Arg, value: Option<OsString>) -> Result<(), String> {
        let name = flag.get_long().unwrap_or_default();
        let bare = OsString::from(format!("--{name}"));
        match value {
            None => self.normal.push(bare),
            Some(value) if matches!(flag.get_action(), ArgAction::SetTrue) => {
                // The last one counts.
                self.normal.retain(|word| *word != bare);
                if truth(flag, &value)? {
                    self.normal.push(bare);
                }
            }
            Some(value) if is_switch(flag) => {
                let value = truth(flag, &value)?;
                self.normal.push(format!("--{name}={value}").into());
            }
            Some(value) => self.add(name, &value),
        }
        Ok(())
    }

    fn add(&mut self, name: &str, value: &OsStr) {
        let mut word = OsString::from(format!("--{name}="));
        let before = self.normal.iter().position(|old| name == LIST && old.as_bytes().starts_with(word.as_bytes()));
        if let Some(at) = before {
            word = self.normal.remove(at);
            if !word.as_bytes().ends_with(b"=") && !value.is_empty() {
                word.push(",");
            }
        }
        word.push(value);
        self.normal.push(word);
    }
}

/// Whether a flag stands for itself, without a value.
fn is_switch(flag: &Arg) -> bool {
    let takes_value = flag.get_action().takes_values();
    !takes_value || flag.get_num_args().is_some_and(|count| count.min_values() == 0)
}

fn truth(flag: &Arg, value: &OsStr) -> Result<bool, String> {
    let text = value.to_string_lossy();
    go::boolean(&text).map_err(|why| {
        let letter = flag.get_short().map_or_else(String::new, |letter| format!("-{letter}, "));
        let name = format!("{letter}--{}", flag.get_long().unwrap_or_default());
        format!("invalid argument {} for {name:?} flag: {why}", quote(value.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::name::Name, *};

    fn normal_of(words: &[&str]) -> Result<Vec<String>, String> {
        let words = ["etcdctl"].iter().chain(words).map(OsString::from).skip(1);
        let command = super::super::command(Name::Etcdctl);
        let normal = normal(&command, words)?;
        Ok(normal.into_iter().map(|word| word.into_string().expect("text")).collect())
    }

    #[track_caller]
    fn becomes(words: &str, expected: &str) {
        let normal = normal_of(&words.split(' ').collect::<Vec<_>>()).map(|words| words.join(" "));
        assert_eq!(normal, Ok(expected.to_owned()), "{words}");
    }

    #[test]
    fn a_flag_has_the_next_word_whatever_it_looks_like() {
        becomes("get a --limit -1 --rev=-2", "get a --limit=-1 --rev=-2");
        becomes("get a --sort-by --prefix", "get a --sort-by=--prefix");
        becomes(
            "-w json --user -x:y get a -wfields -w=table",
            "--write-out=json --user=-x:y get a --write-out=fields --write-out=table",
        );
        becomes("mem upd 1 --peer-urls -- -w json", "mem upd 1 --peer-urls=-- --write-out=json");
        becomes("lock a --ttl -5 -- b --ttl -5", "lock a --ttl=-5 -- b --ttl -5");
    }

    #[test]
    fn switches_may_be_told_no_and_the_last_word_counts() {
        becomes("get --prefix=T --keys-only=0 a", "get --prefix a");
        becomes("get --prefix --prefix=false a", "get a");
        becomes("txn -i=false", "txn");
        becomes("txn -i", "txn --interactive");
        becomes("get a --hex=1 --debug", "get a --hex=true --debug");
        becomes("user add a --interactive=F", "user add a --interactive=false");
        becomes("get -- --prefix=true", "get -- --prefix=true");
    }

    #[test]
    fn endpoints_add_up_wherever_they_stand() {
        becomes("--endpoints a get --endpoints=b,c k --endpoints d", "get k --endpoints=a,b,c,d");
        assert_eq!(
            normal_of(&["--endpoints", "", "get", "--endpoints", "b"]),
            Ok(vec!["get".into(), "--endpoints=b".into()])
        );
        assert_eq!(normal_of(&["--endpoints", "", "get"]), Ok(vec!["--endpoints=".into(), "get".into()]));
    }

    #[test]
    fn what_is_wrong_is_said_in_that_librarys_words() {
        let table = [
            ("get a --limit", "flag needs an argument: --limit"),
            ("get a -w", "flag needs an argument: 'w' in -w"),
            ("get a --bogus=1", "unknown flag: --bogus"),
            ("get a -z", "unknown shorthand flag: 'z' in -z"),
            ("compaction -5", "unknown shorthand flag: '5' in -5"),
            ("get a --=x", "bad flag syntax: --=x"),
            (
                "put a b --prev-kv=maybe",
                "invalid argument \"maybe\" for \"--prev-kv\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            (
                "get a --hex=",
                "invalid argument \"\" for \"--hex\" flag: strconv.ParseBool: parsing \"\": invalid syntax",
            ),
            (
                "txn -i=x",
                "invalid argument \"x\" for \"-i, --interactive\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ];
        for (words, expected) in table {
            assert_eq!(normal_of(&words.split(' ').collect::<Vec<_>>()), Err(expected.to_owned()), "{words}");
        }
    }

    #[test]
    fn words_that_name_no_command_are_left_alone() {
        becomes("nonsense --limit", "nonsense --limit");
        becomes("get --help -h", "get --help -h");
    }
}
