//! What a durable store must be able to do to stand behind the overlay.

use super::{Checkpoint, Result, Size, Table};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};

/// Rows to commit together: at most one per key, in ascending order of (table, key). `None` deletes.
pub type Rows<'a> = &'a mut dyn Iterator<Item = (Table, &'a [u8], Option<&'a [u8]>)>;

/// The committed rows of one moment.
pub enum Pin {
    /// They stay as they are, whatever is committed later.
    Free(Box<dyn Checkpoint>),
    /// They stay as they are until the next commit: the caller holds that back until it has dropped this.
    UntilCommit(Box<dyn Checkpoint>),
}

/// An ordered map per [`Table`] on disk, with its own atomic, durable commits. Commits come from one thread at a time; reads come
/// from any, also during a commit.
///
/// Values pass through a checksum inside each implementation: what `get` and `scan` return has been checked.
pub trait Store: Send + Sync + 'static {
    /// Makes `rows` durable as one transaction: after a crash, all of them are there or none.
    ///
    /// # Errors
    /// A [`Fault`](crate::types::Fault) leaves open what is on disk: the caller must not commit again.
    fn commit(&self, rows: Rows<'_>) -> Result<()>;

    /// The committed value of one row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;

    /// Calls `visit(key, value)` for committed rows in ascending order of keys, as one consistent view, until it breaks or the range ends.
    fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()>;

    /// What is committed now. Not called during a commit.
    fn pin(&self) -> Result<Pin>;

    /// Space taken. Cheap enough to be asked once a second.
    fn size(&self) -> Result<Size>;
}
