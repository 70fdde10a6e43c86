//! What a store at rest says of itself, without a machine on top: for backups, and for states that come from elsewhere.

use super::{APPLIED, Mark, hash, mark_in, member, quota, text};
use crate::{
    engine::{Batch, Engine, Table},
    mvcc,
    types::{Fault, Index, KeyRange, Revision, Term},
};

/// Keys and bytes that are looked at in one step.
const STEP_KEYS: usize = 5_000;
const STEP_BYTES: usize = 8 << 20;

/// How far the log was applied to a store, and what the log says about the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The last applied entry; 0 in a store without any.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// See [`super::View::state_hash`].
    pub hash: u64,
    /// See [`super::View::live_bytes`].
    pub live_bytes: u64,
    /// The version that all members speak.
    pub cluster_version: Option<String>,
    /// The version that a downgrade under way leads to.
    pub downgrade: Option<String>,
}

impl Standing {
    /// Reads what `engine` holds.
    ///
    /// # Errors
    /// A broken store, or rows that are none of ours.
    pub fn load(engine: &dyn Engine) -> Result<Standing, Fault> {
        let mark = mark_in(engine)?;
        Ok(Standing {
            index: mark.index,
            term: mark.term,
            hash: mark.hash,
            live_bytes: mark.live_bytes,
            cluster_version: text(engine, member::CLUSTER_VERSION)?,
            downgrade: text(engine, member::DOWNGRADE)?,
        })
    }

    /// Counts rows that come from elsewhere into the state hash. Members that take up the same state must do so in the same batches.
    pub fn absorb(&mut self, batch: &Batch) {
        self.hash = hash::advance(self.hash, self.index, self.term, batch);
    }

    /// Counts the bytes of all keys and values that can be read.
    ///
    /// # Errors
    /// A broken store.
    pub fn measure(&mut self, reader: &mvcc::Reader) -> Result<(), Fault> {
        let pin = reader.pin(Revision(0)).expect("the current revision can always be read");
        let mut rest = Some(KeyRange::From(crate::types::Key::new()));
        self.live_bytes = 0;
        while let Some(range) = rest {
            let chunk = reader.chunk(&pin, &range, STEP_KEYS, STEP_BYTES)?;
            self.live_bytes += chunk.kvs.iter().map(|kv| quota::live_bytes(kv).unsigned_abs()).sum::<u64>();
            rest = chunk.rest;
        }
        Ok(())
    }

    /// The rows that say it.
    pub fn save(&self, batch: &mut Batch) {
        let Standing { index, term, hash, live_bytes, .. } = *self;
        batch.put(Table::Meta, APPLIED, Mark { index, term, hash, live_bytes }.encode());
        for (row, version) in [(member::CLUSTER_VERSION, &self.cluster_version), (member::DOWNGRADE, &self.downgrade)] {
            if let Some(version) = version {
                batch.put(Table::Meta, row, version.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Memory;

    #[test]
    fn a_standing_is_read_as_it_was_written() {
        let engine = Memory::default();
        assert_eq!(Standing::load(&engine).expect("memory"), Standing::default());
        let standing = Standing {
            index: Index(7),
            term: Term(2),
            hash: 3,
            live_bytes: 4,
            cluster_version: Some("3.7.0".to_owned()),
            downgrade: None,
        };
        let mut batch = Batch::default();
        standing.save(&mut batch);
        engine.write(batch).expect("memory");
        assert_eq!(Standing::load(&engine).expect("memory"), standing);
    }
}
