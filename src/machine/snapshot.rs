//! What the rows of a store say of the moment that they are of.

use super::{APPLIED, Mark, damaged, mark_in};
use crate::{
    engine::{Checkpoint, Engine, Table},
    membership,
    types::{Fault, Index, SnapshotMeta, Term},
};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};

/// The last entry that is applied in `engine`.
///
/// # Errors
/// A broken store.
pub fn applied_in(engine: &dyn Engine) -> Result<(Index, Term), Fault> {
    let mark = mark_in(engine)?;
    Ok((mark.index, mark.term))
}

/// Of which moment `rows` are: the last entry applied, and who votes after it.
///
/// # Errors
/// A broken store, or one to which nothing was ever applied.
pub fn meta_of(rows: &dyn Checkpoint) -> Result<SnapshotMeta, Fault> {
    let mark = row(rows, APPLIED)?.and_then(|row| Mark::decode(&row));
    let mark = mark.ok_or_else(|| damaged("the row of the applied index is missing or malformed"))?;
    let conf_state = row(rows, membership::CONF_STATE)?.and_then(|row| membership::decode_conf_state(&row));
    let conf_state = conf_state.ok_or_else(|| damaged("the row of who votes is missing or malformed"))?;
    Ok(SnapshotMeta { index: mark.index, term: mark.term, conf_state })
}

fn row(rows: &dyn Checkpoint, key: &[u8]) -> Result<Option<Bytes>, Fault> {
    let mut found = None;
    rows.scan(Table::Meta, (Bound::Included(key), Bound::Included(key)), &mut |_, value| {
        found = Some(value);
        ControlFlow::Break(())
    })?;
    Ok(found)
}
