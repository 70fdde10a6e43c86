//! What is known of a run when it is over, for people (`report.html`) and programs (`report.json`).

mod html;
mod plot;
mod stats;

use crate::{
    check::Judgement,
    timeline::{Call, Episode},
};
use serde::Serialize;
use std::{fmt, fs, io, path::Path};

pub use stats::{Stats, set_gaps};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict", content = "because")]
pub enum Verdict {
    /// All checks hold.
    Holds,
    /// One does not.
    Violation,
    /// A checker could not decide.
    Undecided,
    /// It cannot be run here, and why.
    Skipped(String),
    /// The run itself failed, and why.
    Failed(String),
}

impl Verdict {
    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Violation => "VIOLATION",
            Verdict::Undecided => "undecided",
            Verdict::Skipped(_) => "skipped",
            Verdict::Failed(_) => "FAILED",
        }
    }

    /// The program's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Verdict::Holds | Verdict::Skipped(_) => 0,
            Verdict::Violation | Verdict::Undecided => 1,
            Verdict::Failed(_) => 2,
        }
    }
}

/// One run.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// What clients did.
    pub workload: String,
    /// What went wrong.
    pub nemesis: String,
    /// Ruled chance.
    pub seed: u64,
    /// Members.
    pub nodes: usize,
    /// The proxies before them, in words.
    pub ring: String,
    /// How long faults went on, in seconds.
    pub time_s: u64,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the checkers say.
    pub judgement: Judgement,
    /// How long it took, after the last fault, until every member and every proxy answered.
    pub recovered_ms: Option<u64>,
    /// Numbers about calls.
    pub stats: Stats,
    /// The faults.
    pub episodes: Vec<Episode>,
    /// All calls; drawn, not listed.
    #[serde(skip)]
    pub calls: Vec<Call>,
}

impl Outcome {
    /// The run's name within a report, and of its folder.
    pub fn name(&self) -> String {
        format!("{}-{}", self.workload, self.nemesis)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { ok, failed, unknown, longest_gap_ms, .. } = self.stats;
        write!(f, "{:<9} {:<22} {:<9}", self.workload, self.nemesis, self.verdict.word())?;
        match &self.verdict {
            Verdict::Skipped(why) | Verdict::Failed(why) => write!(f, " {why}")?,
            _ => {
                write!(f, " {ok:>6} ok {failed:>6} failed {unknown:>5} unknown, longest gap {longest_gap_ms:>5} ms")?;
                if let Some(recovered) = self.recovered_ms {
                    write!(f, ", all answer after {recovered} ms")?;
                }
            }
        }
        for finding in self.judgement.anomalies.iter().chain(&self.judgement.undecided) {
            write!(f, "\n  {}: {}", finding.kind, finding.what.replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

/// Writes `report.html` and `report.json` about `outcomes` into `folder`. Called after each run, so that a run that is cut short
/// leaves a report too.
///
/// # Errors
/// If a file cannot be written.
pub fn write(folder: &Path, title: &str, outcomes: &[Outcome]) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'a> {
        title: &'a str,
        runs: &'a [Outcome],
    }
    let json = serde_json::to_string_pretty(&Report { title, runs: outcomes })?;
    fs::write(folder.join("report.json"), json)?;
    fs::write(folder.join("report.html"), html::page(title, outcomes))
}
