//! Alarms: conditions of members that restrict what the whole cluster accepts, until an operator clears them.
//!
//! **Promises.** The set is a function of the log alone. A change and its row go into the same batch. Raising an alarm that is
//! raised, and clearing one that is not, change nothing.
//! **May not know** what raises an alarm, or what it forbids.

use crate::{
    engine::{Batch, Engine, Table as Rows},
    types::{Fault, MemberId},
};
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    ops::{Bound, ControlFlow},
};

/// What is wrong with a member. The number is on disk, and in etcd's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AlarmKind {
    /// Its store is over the quota.
    NoSpace = 1,
    /// Its state is not what it should be.
    Corrupt = 2,
}

impl AlarmKind {
    /// The kind with this number.
    pub fn from_number(number: i32) -> Option<AlarmKind> {
        [AlarmKind::NoSpace, AlarmKind::Corrupt].into_iter().find(|kind| *kind as i32 == number)
    }
}

/// The active alarms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    active: BTreeSet<(AlarmKind, MemberId)>,
}

impl Table {
    /// Reads what the engine holds.
    ///
    /// # Errors
    /// A broken store, or a row that is none of ours.
    pub fn load(engine: &dyn Engine) -> Result<Table, Fault> {
        let mut table = Table::default();
        let mut wrong = None;
        engine.scan(Rows::Alarms, (Bound::Unbounded, Bound::Unbounded), &mut |key, _| match parse(key) {
            Some(alarm) => {
                table.active.insert(alarm);
                ControlFlow::Continue(())
            }
            None => {
                wrong = Some(format!("row {key:02x?} of the alarms is no alarm"));
                ControlFlow::Break(())
            }
        })?;
        match wrong {
            None => Ok(table),
            Some(what) => Err(Fault::Damaged { path: "store".into(), offset: None, what }),
        }
    }

    /// Raises an alarm; whether it was not raised before.
    pub fn activate(&mut self, member: MemberId, kind: AlarmKind, batch: &mut Batch) -> bool {
        let new = self.active.insert((kind, member));
        if new {
            // The row's presence says it all, but a value of one byte leaves room for a later format.
            batch.put(Rows::Alarms, row(member, kind), Bytes::from_static(&[1]));
        }
        new
    }

    /// Clears an alarm; whether it was raised before.
    pub fn deactivate(&mut self, member: MemberId, kind: AlarmKind, batch: &mut Batch) -> bool {
        let old = self.active.remove(&(kind, member));
        if old {
            batch.delete(Rows::Alarms, row(member, kind));
        }
        old
    }

    /// Whether some member has this alarm.
    pub fn any(&self, kind: AlarmKind) -> bool {
        self.active.iter().any(|(active, _)| *active == kind)
    }

    /// The active alarms of one kind, or of all, in a fixed order.
    pub fn list(&self, kind: Option<AlarmKind>) -> Vec<(MemberId, AlarmKind)> {
        let wanted = |active: &AlarmKind| kind.is_none_or(|kind| kind == *active);
        self.active.iter().filter(|(active, _)| wanted(active)).map(|(active, member)| (*member, *active)).collect()
    }
}

fn row(member: MemberId, kind: AlarmKind) -> Bytes {
    let mut row = [0; 9];
    row[..8].copy_from_slice(&member.0.to_be_bytes());
    row[8] = kind as u8;
    Bytes::copy_from_slice(&row)
}

fn parse(row: &[u8]) -> Option<(AlarmKind, MemberId)> {
    let (member, kind) = row.split_first_chunk::<8>()?;
    let [kind] = kind else { return None };
    Some((AlarmKind::from_number((*kind).into())?, MemberId(u64::from_be_bytes(*member))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_twice_writes_one_row_and_clearing_twice_deletes_one() {
        let (mut table, mut batch) = (Table::default(), Batch::default());
        assert!(table.activate(MemberId(7), AlarmKind::NoSpace, &mut batch));
        assert!(!table.activate(MemberId(7), AlarmKind::NoSpace, &mut batch));
        assert!(table.any(AlarmKind::NoSpace) && !table.any(AlarmKind::Corrupt));
        assert!(table.deactivate(MemberId(7), AlarmKind::NoSpace, &mut batch));
        assert!(!table.deactivate(MemberId(7), AlarmKind::NoSpace, &mut batch));
        assert_eq!(batch.ops.len(), 2);
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let row = row(MemberId(0x0102), AlarmKind::Corrupt);
        assert_eq!(parse(&row), Some((AlarmKind::Corrupt, MemberId(0x0102))));
        assert_eq!(parse(&row[1..]), None);
    }
}
