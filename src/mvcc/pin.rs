//! Revisions in use; the sweep stops below.

use super::Shared;
use crate::types::Revision;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

/// How many pins there are at each revision.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<BTreeMap<i64, usize>>);

impl Pins {
    /// Adds a pin. The caller holds the state's lock, and has checked that `revision` is not compacted: that is how a sweep,
    /// which chooses its bound under the same lock, cannot miss it.
    pub(super) fn add(shared: &Arc<Shared>, revision: i64) -> Pin {
        *shared.pins.0.lock().entry(revision).or_default() += 1;
        Pin { shared: shared.clone(), revision }
    }

    /// The lowest revision in use.
    pub(super) fn lowest(&self) -> Option<i64> {
        self.0.lock().keys().next().copied()
    }
}

/// Keeps what readers see at a revision, and all later versions, from being swept. Dropping it lets go.
///
/// A pin does not hold up compaction itself: reads below the mark are refused at once, whoever has pinned what.
pub struct Pin {
    pub(super) shared: Arc<Shared>,
    pub(super) revision: i64,
}

impl Pin {
    /// The pinned revision.
    pub fn revision(&self) -> Revision {
        Revision(self.revision)
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pin({})", self.revision)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.shared.pins.0.lock();
        let count = pins.get_mut(&self.revision).expect("a pin is counted until it is dropped");
        *count -= 1;
        if *count == 0 {
            pins.remove(&self.revision);
        }
    }
}
