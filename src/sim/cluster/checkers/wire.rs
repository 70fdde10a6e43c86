//! Answers that came over a connection: they name their place by a revision alone.

use super::{Checkers, Floor, Rule, Violation, broken};
use crate::{
    mvcc::{Event, EventKind, RangeQuery},
    types::{Key, KeyRange, Revision},
};
use bytes::Bytes;

impl Checkers {
    /// A put that was made when `floor` was known is answered. No value is written twice.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn wire_put(&mut self, floor: Floor, key: &Key, value: &Bytes, at: Revision) -> Result<(), Violation> {
        let is_it = |event: &Event| event.kind == EventKind::Put && event.kv.key == *key && event.kv.value == *value;
        let written = self.oracle.events_at(at);
        if at <= floor.revision || !written.iter().any(is_it) {
            let text = format!("a put of {key:?} after {floor:?} is said to be at {at}, where there is {written:?}");
            return broken(Rule::Linearizable, text);
        }
        self.floor.revision = self.floor.revision.max(at);
        Ok(())
    }

    /// A delete of `count` keys of a range is answered.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn wire_deleted(&mut self, floor: Floor, range: &KeyRange, count: i64, at: Revision) -> Result<(), Violation> {
        let events = self.oracle.events_at(at);
        let is_it = |event: &Event| event.kind == EventKind::Delete && range.contains(&event.kv.key);
        let is_right = match count {
            0 => at >= floor.revision && self.oracle.range(&RangeQuery::new(range.clone()), at).is_empty(),
            _ => at > floor.revision && events.len() as i64 == count && events.iter().all(is_it),
        };
        if !is_right {
            let text =
                format!("a delete of {count} in {range:?} after {floor:?} is at {at}, where there is {events:?}");
            return broken(Rule::Linearizable, text);
        }
        self.floor.revision = self.floor.revision.max(at);
        Ok(())
    }
}
