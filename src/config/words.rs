//! The words of a command line, as Go's flag package takes them: `--f=v`, `--f v`, `-f v`, bare booleans; the last one wins.
//!
//! They are not clap's rules, who writes help, scripts and pages from the same tables: in Go whatever follows a flag that takes a value is its
//! value, `-100` as well, and one dash is as good as two. And here all mistakes are told at once, not the first.

use super::{flags::Flag, reader::fits, said::Said};

/// What somebody asks for.
pub(super) enum Asked {
    Help,
    Version,
    /// To run with these settings, which may have mistakes.
    Run(Said),
}

/// Reads `words` by a table, on top of what was said already.
pub(super) fn read(words: impl IntoIterator<Item = String>, flags: &[Flag], mut said: Said) -> Asked {
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|body| !body.is_empty())
        else {
            match word.as_str() {
                "version" => return Asked::Version,
                "help" => return Asked::Help,
                _ => said.mistakes.push(format!("{word:?} is no flag")),
            }
            continue;
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        match said.meant(flags, name, |name| format!("--{name}")) {
            Some(meant) => match value.or_else(|| if meant.is_bool() { Some("true".to_owned()) } else { words.next() })
            {
                Some(value) => said.set(meant, value),
                None => said.misspelled(format!("--{name} needs a value")),
            },
            None if name == "help" || name == "h" => return Asked::Help,
            None if name == "version" => return Asked::Version,
            None => {
                said.misspelled(format!("unknown flag --{name}{}", like(name, flags)));
                // Most likely its value, and no mistake of its own.
                if value.is_none() {
                    words.next_if(|next| !next.starts_with('-'));
                }
            }
        }
    }
    Asked::Run(said)
}

/// Whether some of `words` cannot be read, where others may be read and will not do: a flag that nobody knows, or a value that is not
/// of its kind.
pub(super) fn are_misspelled(words: impl IntoIterator<Item = String>, flags: &[Flag]) -> bool {
    let Asked::Run(Said { settings, is_misspelled, .. }) = read(words, flags, Said::default()) else { return false };
    let fits = |flag: &Flag| settings.get(flag.name).is_none_or(|text| fits(flag, text).is_ok());
    is_misspelled || !flags.iter().all(fits)
}

/// Names a flag that may have been meant: one that has all parts of the name, in another order or among others.
fn like(name: &str, flags: &[Flag]) -> String {
    let parts = |name: &str| name.split('-').map(|part| part.trim_end_matches('s').to_owned()).collect::<Vec<_>>();
    let wanted = parts(name);
    let has_all = |flag: &&Flag| wanted.iter().all(|part| parts(flag.name).contains(part));
    let shortest = flags.iter().filter(has_all).min_by_key(|flag| flag.name.len());
    shortest.map_or_else(String::new, |flag| format!("; there is --{}", flag.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FLAGS;

    fn said(words: &[&str]) -> Said {
        match read(words.iter().map(|word| (*word).to_owned()), FLAGS, Said::default()) {
            Asked::Run(said) => said,
            Asked::Help | Asked::Version => panic!("{words:?} ask for something to read"),
        }
    }

    #[test]
    fn words_are_taken_as_go_takes_them() {
        for (words, name, text) in [
            (&["--name=a"][..], "name", "a"),
            (&["--name", "a"], "name", "a"),
            (&["-name", "a"], "name", "a"),
            (&["-name=a"], "name", "a"),
            (&["--name", "a", "--name=b"], "name", "b"),
            (&["--name="], "name", ""),
            (&["--name", ""], "name", ""),
            (&["--name", "version"], "name", "version"),
            (&["--initial-cluster", "a=http://a:1,b=http://b:1"], "initial-cluster", "a=http://a:1,b=http://b:1"),
            (&["--initial-cluster=a=http://a:1"], "initial-cluster", "a=http://a:1"),
            (&["--quota-backend-bytes", "-100"], "quota-backend-bytes", "-100"),
            (&["--name", "--pre-vote"], "name", "--pre-vote"),
            (&["--pre-vote"], "pre-vote", "true"),
            (&["--pre-vote=false"], "pre-vote", "false"),
            (&["--experimental-compaction-batch-limit=7"], "compaction-batch-limit", "7"),
            (&["--experimental-enable-distributed-tracing"], "enable-distributed-tracing", "true"),
            (&["--experimental-initial-corrupt-check"], "feature-gates", "InitialCorruptCheck=true"),
            (
                &["--experimental-enable-lease-checkpoint", "--experimental-compact-hash-check-enabled=false"],
                "feature-gates",
                "LeaseCheckpoint=true,CompactHashCheck=false",
            ),
        ] {
            let said = said(words);
            assert_eq!(said.mistakes, Vec::<String>::new(), "{words:?}");
            assert_eq!(said.settings, [(name, text.to_owned())].into(), "{words:?}");
            let is_former = words[0].contains("experimental");
            assert_eq!(said.warnings.len(), if is_former { words.len() } else { 0 }, "{words:?}: {:?}", said.warnings);
        }
    }

    #[test]
    fn every_mistake_is_told_and_what_is_right_counts_all_the_same() {
        let said = said(&[
            "--nmae",
            "a",
            "--name=b",
            "start",
            "--nope=1",
            "--pre-vote",
            "false",
            "--urls-client-listen=x",
            "--data-dir",
        ]);
        let expected = [
            "unknown flag --nmae",
            "\"start\" is no flag",
            "unknown flag --nope",
            "\"false\" is no flag",
            "unknown flag --urls-client-listen; there is --listen-client-urls",
            "--data-dir needs a value",
        ];
        assert_eq!(said.mistakes, expected);
        assert_eq!(said.settings.len(), 2);
    }

    #[test]
    fn help_and_version_are_asked_for_in_each_spelling() {
        for (words, is_help) in
            [("--help", true), ("-help", true), ("-h", true), ("help", true), ("--version", false), ("version", false)]
        {
            let words = ["--name=a", words].map(str::to_owned);
            let asked = read(words.clone(), FLAGS, Said::default());
            assert_eq!(matches!(asked, Asked::Help), is_help, "{words:?}");
            assert_eq!(matches!(asked, Asked::Version), !is_help, "{words:?}");
        }
    }
}
