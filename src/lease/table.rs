//! What the log says about leases: id, time to live, what is left of it, keys.

use crate::{
    engine::{Batch, Engine, Table as Rows},
    types::{Error, Fault, Key, LeaseId},
};
use bytes::Bytes;
use std::{
    collections::{BTreeSet, HashMap},
    ops::{Bound, ControlFlow},
};

/// The longest time to live in seconds (285 years, so that no sum of it with a clock overflows).
pub const TTL_MAX_S: i64 = 9_000_000_000;

/// The format of a row: this byte, then time to live and remaining seconds, 8 bytes each, little endian.
const FORMAT: u8 = 1;

/// One lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Time to live in seconds, as granted.
    pub ttl_s: i64,
    /// What was left of it at the last checkpoint; 0 is "all", since the grant or the last renewal.
    pub remaining_s: i64,
    /// Keys that end with the lease. Not in its row: the versions of the keys name their lease.
    pub keys: BTreeSet<Key>,
}

/// What a clock must know of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Which.
    pub id: LeaseId,
    /// Time to live in seconds, as granted.
    pub ttl_s: i64,
    /// As [`Lease::remaining_s`].
    pub remaining_s: i64,
}

impl Terms {
    /// Row key and row value in [`Rows::Leases`].
    pub fn to_row(self) -> (Bytes, Bytes) {
        let lease = Lease { ttl_s: self.ttl_s, remaining_s: self.remaining_s, ..Lease::default() };
        (key(self.id), encode(&lease))
    }

    /// Reads a row of [`Rows::Leases`]; `None` if it is none of ours.
    pub fn of_row(key: &[u8], row: &[u8]) -> Option<Terms> {
        let (id, lease) = decode(key, row)?;
        Some(Terms { id, ttl_s: lease.ttl_s, remaining_s: lease.remaining_s })
    }
}

/// All leases.
///
/// Which lease a key has is not kept here: the key's newest version says it, and whoever writes the key has that at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    leases: HashMap<LeaseId, Lease>,
}

impl Table {
    /// Reads the leases that the engine holds, without their keys: those follow with [`Table::attach`].
    ///
    /// # Errors
    /// A broken store, or a row that is none of ours.
    pub fn load(engine: &dyn Engine) -> Result<Table, Fault> {
        let mut table = Table::default();
        let mut wrong = None;
        engine.scan(
            Rows::Leases,
            (Bound::Unbounded, Bound::Unbounded),
            &mut |key, value| match decode(key, &value) {
                Some((id, lease)) => {
                    table.leases.insert(id, lease);
                    ControlFlow::Continue(())
                }
                None => {
                    wrong = Some(format!("row {key:02x?} of the leases is no lease"));
                    ControlFlow::Break(())
                }
            },
        )?;
        match wrong {
            None => Ok(table),
            Some(what) => Err(Fault::Damaged { path: "store".into(), offset: None, what }),
        }
    }

    /// Adds lease `id` with a time to live of `ttl_s` seconds.
    ///
    /// `ttl_s` is stored as proposed: the leader has already raised it to the least that an election allows. Doing so here
    /// would let one member's flags into the replicated state.
    ///
    /// # Errors
    /// [`Error::LeaseTTLTooLarge`] above [`TTL_MAX_S`], [`Error::LeaseExist`] if `id` is taken. An `id` of 0 is nobody's
    /// lease, and refused as not found.
    pub fn grant(&mut self, id: LeaseId, ttl_s: i64, batch: &mut Batch) -> Result<(), Error> {
        if id == LeaseId::NONE {
            return Err(Error::LeaseNotFound);
        }
        if ttl_s > TTL_MAX_S {
            return Err(Error::LeaseTTLTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Error::LeaseExist);
        }
        let lease = Lease { ttl_s, ..Lease::default() };
        batch.put(Rows::Leases, key(id), encode(&lease));
        self.leases.insert(id, lease);
        Ok(())
    }

    /// Removes lease `id`; the caller deletes its keys, which are returned in their order.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`].
    pub fn revoke(&mut self, id: LeaseId, batch: &mut Batch) -> Result<Vec<Key>, Error> {
        let lease = self.leases.remove(&id).ok_or(Error::LeaseNotFound)?;
        batch.delete(Rows::Leases, key(id));
        Ok(lease.keys.into_iter().collect())
    }

    /// Makes `key` end with lease `id`, which must exist. The caller detaches it from its former lease.
    pub fn attach(&mut self, id: LeaseId, key: Key) {
        let lease = self.leases.get_mut(&id);
        lease.expect("a key is attached only after its lease was looked up").keys.insert(key);
    }

    /// Lets `key` live on without lease `id`. No error if it is not attached, or the lease is gone: a revocation takes the
    /// lease away first, and deletes its keys then.
    pub fn detach(&mut self, id: LeaseId, key: &Key) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// Records how many seconds a lease has left, 0 for all of the granted ones; whether there is such a lease. An unknown one
    /// is no error: it may have been revoked since the leader looked.
    pub fn checkpoint(&mut self, id: LeaseId, remaining_s: i64, batch: &mut Batch) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else { return false };
        lease.remaining_s = remaining_s.clamp(0, lease.ttl_s.max(0));
        batch.put(Rows::Leases, key(id), encode(lease));
        true
    }

    /// One lease.
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// All ids, sorted.
    pub fn ids(&self) -> Vec<LeaseId> {
        let mut ids: Vec<LeaseId> = self.leases.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// All leases for a [`super::Wheel`], in no order.
    pub fn terms(&self) -> impl Iterator<Item = Terms> {
        self.leases.iter().map(|(id, lease)| Terms { id: *id, ttl_s: lease.ttl_s, remaining_s: lease.remaining_s })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}

fn key(id: LeaseId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

fn encode(lease: &Lease) -> Bytes {
    let mut row = [FORMAT; 17];
    row[1..9].copy_from_slice(&lease.ttl_s.to_le_bytes());
    row[9..].copy_from_slice(&lease.remaining_s.to_le_bytes());
    Bytes::copy_from_slice(&row)
}

fn decode(key: &[u8], row: &[u8]) -> Option<(LeaseId, Lease)> {
    let id = LeaseId(i64::from_be_bytes(key.try_into().ok()?));
    let [FORMAT, numbers @ ..] = row else { return None };
    let (ttl, remaining) = numbers.split_first_chunk::<8>()?;
    let (ttl_s, remaining_s) = (i64::from_le_bytes(*ttl), i64::from_le_bytes(remaining.try_into().ok()?));
    Some((id, Lease { ttl_s, remaining_s, keys: BTreeSet::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let lease = Lease { ttl_s: 60, remaining_s: 7, keys: BTreeSet::new() };
        let row = encode(&lease);
        assert_eq!(decode(&key(LeaseId(-5)), &row), Some((LeaseId(-5), lease)));
        assert!((0..row.len()).all(|n| decode(&key(LeaseId(1)), &row[..n]).is_none()));
        let terms = Terms { id: LeaseId(3), ttl_s: 60, remaining_s: 7 };
        let (key, row) = terms.to_row();
        assert_eq!(Terms::of_row(&key, &row), Some(terms));
    }

    #[test]
    fn a_grant_is_refused_for_a_taken_id_and_for_more_than_the_longest_time() {
        let (mut table, mut batch) = (Table::default(), Batch::default());
        assert_eq!(table.grant(LeaseId(1), TTL_MAX_S, &mut batch), Ok(()));
        assert_eq!(table.grant(LeaseId(1), 5, &mut batch), Err(Error::LeaseExist));
        assert_eq!(table.grant(LeaseId(2), TTL_MAX_S + 1, &mut batch), Err(Error::LeaseTTLTooLarge));
        assert_eq!(batch.ops.len(), 1);
    }

    #[test]
    fn revoking_returns_the_keys_in_their_order() {
        let (mut table, mut batch) = (Table::default(), Batch::default());
        table.grant(LeaseId(1), 5, &mut batch).expect("a free id");
        for key in ["b", "c", "a"] {
            table.attach(LeaseId(1), Key::from(key));
        }
        table.detach(LeaseId(1), &Key::from("c"));
        assert_eq!(table.revoke(LeaseId(1), &mut batch), Ok(vec![Key::from("a"), Key::from("b")]));
        assert_eq!(table.revoke(LeaseId(1), &mut batch), Err(Error::LeaseNotFound));
    }

    #[test]
    fn a_checkpoint_never_gives_more_than_was_granted() {
        let (mut table, mut batch) = (Table::default(), Batch::default());
        table.grant(LeaseId(1), 5, &mut batch).expect("a free id");
        assert!(table.checkpoint(LeaseId(1), 9, &mut batch));
        assert_eq!(table.get(LeaseId(1)).map(|lease| lease.remaining_s), Some(5));
        assert!(!table.checkpoint(LeaseId(2), 9, &mut batch));
    }
}
