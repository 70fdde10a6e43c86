//! What was said, by whatever means: texts of flags, what is wrong with them, and what is only odd.

use super::{
    flags::{Flag, Kind},
    value::boolean,
};
use std::collections::BTreeMap;

/// Flag name to text; flags that nobody set are absent.
pub(super) type Settings = BTreeMap<&'static str, String>;

/// Collects: nothing that is wrong keeps the next mistake from being found.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) settings: Settings,
    /// One sentence each.
    pub(super) mistakes: Vec<String>,
    /// Things that are odd but no reason to stop.
    pub(super) warnings: Vec<String>,
    /// Whether some of it could not be read at all.
    pub(super) is_misspelled: bool,
}

/// What a name stands for.
#[derive(Clone, Copy)]
pub(super) enum Meant<'f> {
    Flag(&'f Flag),
    /// A feature gate, which was a flag once.
    Gate(&'static str),
}

/// What etcd 3.5 spelled so is `experimental-name` without that, but for what has become a feature gate.
const EXPERIMENTAL: &str = "experimental-";
const GATES: &[(&str, &str)] = &[
    ("compact-hash-check-enabled", "CompactHashCheck"),
    ("enable-lease-checkpoint", "LeaseCheckpoint"),
    ("enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    ("initial-corrupt-check", "InitialCorruptCheck"),
    ("stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    ("txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
];
const GATES_FLAG: &str = "feature-gates";

impl Meant<'_> {
    /// Whether the bare name is enough.
    pub(super) fn is_bool(self) -> bool {
        match self {
            Meant::Flag(flag) => flag.kind == Kind::Bool,
            Meant::Gate(_) => true,
        }
    }
}

impl Said {
    /// What `name` stands for in `flags`; `None` if nothing. `spelled` says how the name is written there, for the warning about a former one.
    pub(super) fn meant<'f>(
        &mut self,
        flags: &'f [Flag],
        name: &str,
        spelled: impl Fn(&str) -> String,
    ) -> Option<Meant<'f>> {
        let find = |name: &str| flags.iter().find(|flag| flag.name == name);
        if let Some(flag) = find(name) {
            return Some(Meant::Flag(flag));
        }
        let former = name.strip_prefix(EXPERIMENTAL)?;
        let mut is_now = |now: String| self.warnings.push(format!("{} is deprecated: use {now}", spelled(name)));
        if let Some(flag) = find(former) {
            is_now(spelled(former));
            return Some(Meant::Flag(flag));
        }
        let (_, gate) = GATES.iter().find(|(name, _)| *name == former && find(GATES_FLAG).is_some())?;
        is_now(format!("{} with {gate}=true", spelled(GATES_FLAG)));
        Some(Meant::Gate(gate))
    }

    /// What was meant is `text`. Of what is said twice the last counts.
    pub(super) fn set(&mut self, meant: Meant<'_>, text: String) {
        match meant {
            Meant::Flag(flag) => drop(self.settings.insert(flag.name, text)),
            Meant::Gate(gate) => match boolean(&text) {
                Ok(on) => {
                    let gates = self.settings.entry(GATES_FLAG).or_default();
                    let border = if gates.is_empty() { "" } else { "," };
                    gates.push_str(&format!("{border}{gate}={on}"));
                }
                Err(what) => self.misspelled(format!("invalid value for the feature gate {gate}: {what}")),
            },
        }
    }

    /// Notes what cannot be read.
    pub(super) fn misspelled(&mut self, mistake: String) {
        self.is_misspelled = true;
        self.mistakes.push(mistake);
    }

    /// All mistakes, with those that the settings have.
    pub(super) fn or_mistakes(mut self, check: impl FnOnce(&Settings) -> Vec<String>) -> Result<Said, Vec<String>> {
        if self.mistakes.is_empty() {
            return Ok(self);
        }
        self.mistakes.extend(check(&self.settings));
        Err(self.mistakes)
    }
}
