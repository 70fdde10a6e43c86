//! What must hold of a history, whatever went wrong meanwhile. Pure: histories in, findings out.

pub mod append;
pub mod history;
pub mod lease;
pub mod linear;
pub mod lock;
pub mod order;
pub mod session;
pub mod set;
pub mod watch;

use serde::{Deserialize, Serialize};

/// One thing that a checker found, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A short name, the same for all findings of the kind.
    pub kind: String,
    /// What exactly, with the calls it is about.
    pub what: String,
    /// When it shows, in nanoseconds since the start, if it has a time.
    pub at_ns: Option<u64>,
}

impl Finding {
    /// A finding without a time.
    pub fn new(kind: &str, what: impl Into<String>) -> Finding {
        Finding { kind: kind.into(), what: what.into(), at_ns: None }
    }

    /// The same, with a time.
    pub fn at(self, at_ns: u64) -> Finding {
        Finding { at_ns: Some(at_ns), ..self }
    }
}

/// What a checker says of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// What must not be.
    pub anomalies: Vec<Finding>,
    /// What the checker could not decide.
    pub undecided: Vec<Finding>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// Findings of one kind that are written out; the rest is counted.
const SHOWN_MAX: usize = 10;

impl Judgement {
    /// Adds findings of one kind, the first few of them in full.
    pub fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        let mut findings = findings.into_iter();
        self.anomalies.extend(findings.by_ref().take(SHOWN_MAX));
        let more = findings.count();
        if let Some(last) = self.anomalies.last_mut().filter(|_| more > 0) {
            last.what.push_str(&format!(" (and {more} more of this kind)"));
        }
    }

    /// Adds a note.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

/// Nanoseconds as milliseconds, for people.
pub fn ms(ns: u64) -> String {
    format!("{:.1} ms", ns as f64 / 1e6)
}
