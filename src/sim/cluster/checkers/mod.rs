//! What must hold, whatever happens.
//!
//! Everything that is committed goes, in order, into an oracle: a state machine of its own that nobody crashes. So there is one total order
//! that every answer names its place in, by index or by revision, and each promise becomes a comparison:
//!
//! | promise | how it is seen |
//! | --- | --- |
//! | one log | what anybody applies is what the oracle applied there; each proposal once |
//! | one state | the state hash of every member after every entry is the oracle's |
//! | linearizable | an answer is the oracle's at the place that it names, and places follow time: see `order` |
//! | durable | an acknowledged write is in the oracle, which is what is committed; and that is never taken back |
//! | watchers | have each event of the oracle once, in order, and progress says nothing too early: see `watch` |
//! | leases | see `lease` |

mod lease;
mod oracle;
mod order;
mod watch;
mod wire;

pub use lease::Leases;
pub use order::Floor;
pub use watch::Cursor;

use crate::{
    raft::{Role, Status},
    types::{Entry, Index, MemberId, Term},
};
use oracle::Oracle;
use std::{collections::BTreeMap, fmt};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// How.
    pub text: String,
}

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// At most one leader a term.
    ElectionSafety,
    /// Nobody commits or applies another entry at a position that someone has committed.
    OneLog,
    /// No proposal takes effect twice.
    Once,
    /// After the same entry all hold the same.
    OneState,
    /// Answers are right at the place that they name, and places follow time.
    Linearizable,
    /// What one client sees of one member does not go back.
    Monotone,
    /// Answers are no older than they say, or than was asked for; and a client that brings what it saw is not shown less.
    Fresh,
    /// Watchers miss nothing, see nothing twice, and nothing out of order.
    Watch,
    /// Leases live as long as was promised, and no answer says otherwise.
    Lease,
    /// No member stops, or distrusts itself, without a reason.
    Sound,
    /// Once the faults stop, all members agree on everything.
    Converged,
    /// And all works again, in bounded time.
    Liveness,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}

/// A broken promise.
///
/// # Errors
/// Always: it is one.
pub fn broken<T>(rule: Rule, text: String) -> Result<T, Violation> {
    Err(Violation { rule, text })
}

/// All that is looked after.
#[derive(Default)]
pub struct Checkers {
    leaders: BTreeMap<Term, MemberId>,
    pub(super) oracle: Oracle,
    /// Clients' leases.
    pub leases: Leases,
    /// What clients were told.
    pub(super) floor: Floor,
}

impl Checkers {
    /// A member's state after a turn.
    ///
    /// # Errors
    /// Two leaders in one term.
    pub fn leads(&mut self, status: Status) -> Result<(), Violation> {
        if status.role != Role::Leader {
            return Ok(());
        }
        let first = *self.leaders.entry(status.term).or_insert(status.id);
        if first != status.id {
            return broken(Rule::ElectionSafety, format!("{first} and {} lead term {}", status.id, status.term));
        }
        Ok(())
    }

    /// These follow in the log, as somebody knows for the first time. `clocks` are the machines'.
    ///
    /// # Errors
    /// What they do breaks a promise.
    pub fn commits(&mut self, entries: Vec<Entry>, clocks: &[u64]) -> Result<(), Violation> {
        for entry in entries {
            let index = entry.index;
            let revoked = self.oracle.apply(entry)?;
            for id in revoked {
                self.leases.revoked(id, index, clocks)?;
            }
        }
        Ok(())
    }

    /// A member applies these.
    ///
    /// # Errors
    /// Another entry stands there.
    pub fn applies(&self, id: MemberId, entries: &[Entry]) -> Result<(), Violation> {
        let other = entries.iter().find(|entry| self.oracle.entry(entry.index) != Some(*entry));
        match other {
            Some(entry) => broken(
                Rule::OneLog,
                format!("{id} applies {entry:?}, but committed is {:?}", self.oracle.entry(entry.index)),
            ),
            None => Ok(()),
        }
    }

    /// A member's state hash.
    ///
    /// # Errors
    /// It is not the oracle's after the same entry.
    pub fn holds(&self, id: MemberId, (index, hash): (Index, u64)) -> Result<(), Violation> {
        match self.oracle.hash_at(index) {
            Some(right) if right == hash => Ok(()),
            right => broken(Rule::OneState, format!("{id} has hash {hash:x} after {index}, not {right:x?}")),
        }
    }

    /// The last entry that anybody has known to be committed.
    pub fn last(&self) -> Index {
        self.oracle.last()
    }

    /// The state hash after an entry.
    pub fn hash_at(&self, index: Index) -> Option<u64> {
        self.oracle.hash_at(index)
    }

    /// Whether a member has left for good.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.oracle.view().is_removed(id)
    }
}
