//! Settings by their rows in a table: each text as what it is meant to be, and all that is wrong with them.

use super::{
    check::{CLUSTER_STATES, gate_mistakes, log_level},
    flags::{Flag, Kind, Standing},
    value::{Url, boolean, duration, duration_ns, int, urls},
};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Reads settings by their rows in a table, and collects what is wrong with them.
pub(super) struct Reader<'a> {
    flags: &'a [Flag],
    settings: &'a BTreeMap<&'static str, String>,
    pub(super) mistakes: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(flags: &'a [Flag], settings: &'a BTreeMap<&'static str, String>) -> Reader<'a> {
        Reader { flags, settings, mistakes: Vec::new() }
    }

    /// What holds if nobody says otherwise.
    fn default(&self, name: &str) -> &'static str {
        self.flags.iter().find(|flag| flag.name == name).expect("every setting has a row in the table").default
    }

    /// Flags that cannot do what they say.
    pub(super) fn standings(&mut self, warnings: &mut Vec<String>) {
        for flag in self.flags {
            let Some(text) = self.settings.get(flag.name).filter(|text| *text != flag.default) else { continue };
            match flag.standing {
                Standing::Works => {}
                Standing::Meaningless(why) => {
                    warnings.push(format!("--{}={text} has no effect: {why}", flag.name));
                    if let Err(what) = fits(flag, text) {
                        self.wrong(format!("invalid value for --{}: {what}", flag.name));
                    }
                }
                Standing::Later(why) if !same(flag.kind, text, flag.default) => {
                    self.wrong(format!("--{}={text} cannot be honoured: {why}", flag.name));
                }
                Standing::Later(_) => {}
            }
        }
    }

    /// Whether the program has that flag.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag.name == name)
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.settings.contains_key(name)
    }

    /// Once: some settings are read for several things.
    pub(super) fn wrong(&mut self, mistake: String) {
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    pub(super) fn text(&mut self, name: &str) -> String {
        match self.settings.get(name) {
            Some(text) => text.clone(),
            None => self.default(name).to_owned(),
        }
    }

    /// Reads with `parse`; a mistake is noted and the default stands in, so that the next mistake is found too.
    pub(super) fn value<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        parse(&self.text(name)).unwrap_or_else(|what| {
            self.wrong(format!("invalid value for --{name}: {what}"));
            parse(self.default(name)).expect("defaults are valid")
        })
    }

    pub(super) fn int(&mut self, name: &str, least: i64, most: i64) -> i64 {
        self.value(name, |text| match int(text)? {
            number if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("{text:?} is not a whole number of {least} to {most}")),
        })
    }

    /// As [`Reader::int`], where nothing, and what is less, stands for the default as in etcd.
    pub(super) fn int_or_default(&mut self, name: &str, least: i64, most: i64) -> i64 {
        match self.int(name, least, most) {
            number @ 1.. => number,
            _ => int(self.default(name)).expect("defaults are valid"),
        }
    }

    pub(super) fn bool(&mut self, name: &str) -> bool {
        self.value(name, boolean)
    }

    /// A file or folder; `None` if nobody names one.
    pub(super) fn path(&mut self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// Texts, separated by commas.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        self.text(name).split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    pub(super) fn duration(&mut self, name: &str) -> Duration {
        self.value(name, duration)
    }

    pub(super) fn urls(&mut self, name: &str) -> Vec<Url> {
        self.value(name, urls)
    }

    pub(super) fn one_of(&mut self, name: &str, choices: &[&str]) -> String {
        self.value(name, |text| chosen(text, choices))
    }
}

fn chosen(text: &str, choices: &[&str]) -> Result<String, String> {
    if choices.contains(&text) {
        return Ok(text.to_owned());
    }
    let choices = choices.iter().filter(|choice| !choice.is_empty()).copied().collect::<Vec<_>>();
    Err(format!("{text:?} is none of {}", choices.join(", ")))
}

/// Flags that may be less than nothing in etcd. A minus before the number of another one cannot be read there.
const SIGNED: [&str; 5] = [
    "backend-batch-limit",
    "compaction-batch-limit",
    "distributed-tracing-sampling-rate",
    "max-learners",
    "quota-backend-bytes",
];

/// Whether `text` can be read as what the flag takes. What it may be beyond that is looked at by whoever makes something of it.
pub(super) fn fits(flag: &Flag, text: &str) -> Result<(), String> {
    match flag.kind {
        Kind::Int => match int(text)? {
            ..=-1 if !SIGNED.contains(&flag.name) => Err(format!("{text:?} is below 0")),
            _ => Ok(()),
        },
        Kind::Bool => boolean(text).map(drop),
        Kind::Duration => duration_ns(text).map(drop),
        Kind::Urls => urls(text).map(drop),
        Kind::Text => match flag.name {
            "feature-gates" => gate_mistakes(text).into_iter().next().map_or(Ok(()), Err),
            "initial-cluster-state" => chosen(text, CLUSTER_STATES).map(drop),
            "log-level" => log_level(text).map(drop),
            _ => Ok(()),
        },
    }
}

/// Whether two texts mean the same value.
pub(super) fn same(kind: Kind, a: &str, b: &str) -> bool {
    match kind {
        Kind::Bool => boolean(a).is_ok() && boolean(a) == boolean(b),
        Kind::Duration => duration(a).is_ok() && duration(a) == duration(b),
        Kind::Int => int(a).is_ok() && int(a) == int(b),
        Kind::Text | Kind::Urls => a == b,
    }
}
