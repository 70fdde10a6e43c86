//! Linearizability, given that every answer names its place in one total order.
//!
//! Without such an order one has to search for one (as `jepsen/` does for real processes, whose log nobody sees). With it three things are
//! left: the answer is right at its place; nobody who asks after somebody else was answered gets an earlier place; and a place that is
//! named is committed. They hold for all keys at once, transactions included.

use super::{Checkers, Rule, Violation, broken};
use crate::{
    machine::Applied,
    mvcc::{RangeQuery, RangeResult},
    types::{Error, Index, Revision},
};

/// How far answers have come: whoever asks from now on must see at least this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// The last place of an acknowledged write.
    pub index: Index,
    /// The newest revision that any linearizable answer has told.
    pub revision: Revision,
}

impl Checkers {
    /// A proposal that was made when `floor` was known is answered.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn wrote(&mut self, floor: Floor, applied: &Applied) -> Result<(), Violation> {
        if self.oracle.reply(applied.index) != Some(applied) {
            let right = self.oracle.reply(applied.index);
            return broken(Rule::Linearizable, format!("a write is answered {applied:?}, not {right:?}"));
        }
        if applied.index <= floor.index || applied.revision < floor.revision {
            return broken(Rule::Linearizable, format!("a write after {floor:?} is at {applied:?}"));
        }
        self.floor.index = self.floor.index.max(applied.index);
        self.floor.revision = self.floor.revision.max(applied.revision);
        Ok(())
    }

    /// A read that was made when `floor` was known is answered.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn read(
        &mut self,
        floor: Floor,
        query: &RangeQuery,
        result: &Result<RangeResult, Error>,
    ) -> Result<(), Violation> {
        let Ok(found) = result else { return self.refused(floor, query, result) };
        if found.revision < floor.revision {
            let text = format!("a read after {floor:?} is at {}: {query:?}", found.revision);
            return broken(Rule::Linearizable, text);
        }
        self.is_right(query, found)?;
        self.floor.revision = self.floor.revision.max(found.revision);
        Ok(())
    }

    /// A read that any member may answer from what it has is answered; `seen` is what the client saw of that life of the member.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn read_locally(
        &self,
        seen: &mut Revision,
        query: &RangeQuery,
        result: &Result<RangeResult, Error>,
    ) -> Result<(), Violation> {
        let Ok(found) = result else { return Ok(()) };
        if found.revision < *seen {
            return broken(Rule::Monotone, format!("after {seen} a client sees {}", found.revision));
        }
        *seen = found.revision;
        self.is_right(query, found)
    }

    /// Only a revision that is asked for can be refused.
    fn refused(&self, floor: Floor, query: &RangeQuery, result: &Result<RangeResult, Error>) -> Result<(), Violation> {
        let is_right = match result {
            Err(Error::Compacted) => query.revision.0 > 0 && query.revision < self.oracle.compacted(),
            Err(Error::FutureRev) => query.revision > floor.revision,
            _ => false,
        };
        match is_right {
            true => Ok(()),
            false => broken(Rule::Linearizable, format!("after {floor:?} {query:?} is refused: {result:?}")),
        }
    }

    fn is_right(&self, query: &RangeQuery, found: &RangeResult) -> Result<(), Violation> {
        if found.revision > self.oracle.revision() {
            return broken(Rule::Linearizable, format!("a read is at {}, which nobody committed", found.revision));
        }
        let at = if query.revision.0 > 0 { query.revision } else { found.revision };
        let mut right = self.oracle.range(query, at);
        let count = right.len() as i64;
        if query.limit > 0 {
            right.truncate(query.limit as usize);
        }
        if (&right, count) != (&found.kvs, found.count) {
            return broken(Rule::Linearizable, format!("{query:?} at {at} finds {found:?}, not {right:?}"));
        }
        Ok(())
    }
}
