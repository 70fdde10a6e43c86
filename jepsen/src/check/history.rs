//! What clients did and saw, on one clock.
//!
//! A history holds only what may have had an effect or was seen: a call that certainly did nothing is not in it, and neither
//! is a read without an answer.

use std::{collections::BTreeMap, fmt};

/// The content of a register; `None` before the first write. Every write of a history has a value of its own.
pub type Value = Option<u64>;

/// What a call did, as its answer tells; of a call without an answer, what it would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Saw this.
    Read(Value),
    /// Set it.
    Write(u64),
    /// Found `from` and set `to`.
    Swap {
        /// What was expected.
        from: Value,
        /// What was set.
        to: u64,
    },
    /// Expected `from`, found `saw` instead, and set nothing.
    Refused {
        /// What was expected.
        from: Value,
        /// What was there.
        saw: Value,
    },
}

impl Action {
    /// What this leaves in the register.
    pub fn writes(self) -> Option<u64> {
        match self {
            Action::Write(value) | Action::Swap { to: value, .. } => Some(value),
            Action::Read(_) | Action::Refused { .. } => None,
        }
    }

    /// What this tells about the register before it.
    pub fn sees(self) -> Option<Value> {
        match self {
            Action::Read(saw) | Action::Refused { saw, .. } => Some(saw),
            Action::Swap { from, .. } => Some(from),
            Action::Write(_) => None,
        }
    }
}

/// One call of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which register.
    pub key: usize,
    /// Who called.
    pub client: usize,
    /// When, in nanoseconds since the start.
    pub called_ns: u64,
    /// When the answer came. `None`: no answer, so it may take effect at any later time, or never.
    pub returned_ns: Option<u64>,
    /// What it did.
    pub action: Action,
    /// The revision that the answer named.
    pub revision: Option<i64>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns as f64 / 1e6;
        write!(f, "{:>12.3} ", ms(self.called_ns))?;
        match self.returned_ns {
            Some(at) => write!(f, "{:>12.3}", ms(at))?,
            None => write!(f, "{:>12}", "?")?,
        }
        write!(f, "  client {:<3} key {:<3} ", self.client, self.key)?;
        let show = |value: Value| value.map_or("nothing".to_string(), |value| value.to_string());
        match self.action {
            Action::Read(saw) => write!(f, "read {}", show(saw))?,
            Action::Write(value) => write!(f, "write {value}")?,
            Action::Swap { from, to } => write!(f, "swap {} for {to}", show(from))?,
            Action::Refused { from, saw } => write!(f, "no swap: expected {}, saw {}", show(from), show(saw))?,
        }
        self.revision.map_or(Ok(()), |revision| write!(f, " @{revision}"))
    }
}

/// Splits a history by register.
pub fn by_key(history: &[Operation]) -> BTreeMap<usize, Vec<Operation>> {
    let mut keys: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(operation.key).or_default().push(*operation);
    }
    keys
}
