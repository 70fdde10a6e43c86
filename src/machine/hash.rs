//! The rolling state hash: one number that tells whether two members that applied the same entries hold the same state.
//!
//! The hash after entry *i* is made of the hash after *i − 1*, the entry's place in the log, and the rows that it wrote. So it
//! covers everything since the first entry, costs a pass over bytes that were just written, and does not depend on how entries
//! were batched, flushed or swept. It guards against bugs and bad memory, not against an attacker who writes rows.

use crate::{
    engine::Batch,
    types::{Index, Term},
};

/// Odd numbers without a pattern (digits of π).
const MULTIPLIER: u64 = 0x243f_6a88_85a3_08d3;
const SALT: u64 = 0x1319_8a2e_0370_7345;

/// The hash after one more entry.
pub(super) fn advance(hash: u64, index: Index, term: Term, rows: &Batch) -> u64 {
    let mut hash = mix(mix(hash, index.0), term.0);
    for (table, key, value) in &rows.ops {
        // The lengths, and what tells a deletion from an empty value, keep neighbouring fields from being taken for each other.
        let shape = (*table as u64) << 1 | u64::from(value.is_some());
        hash = bytes(mix(hash, shape), key);
        hash = bytes(hash, value.as_deref().unwrap_or_default());
    }
    hash
}

fn bytes(hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(mix(hash, bytes.len() as u64), |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, u64::from_le_bytes(last))
}

/// Every bit of the result depends on every bit of both: a wide product, folded.
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from((hash ^ word).wrapping_add(SALT)) * u128::from(MULTIPLIER);
    (product as u64) ^ (product >> 64) as u64 ^ hash.rotate_left(23)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Table;

    fn hash(rows: &[(&'static str, Option<&'static str>)]) -> u64 {
        let mut batch = Batch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.put(Table::Versions, *key, *value),
                None => batch.delete(Table::Versions, *key),
            }
        }
        advance(7, Index(1), Term(1), &batch)
    }

    #[test]
    fn any_difference_makes_another_hash() {
        let states = [
            hash(&[]),
            hash(&[("a", Some(""))]),
            hash(&[("a", None)]),
            hash(&[("", Some("a"))]),
            hash(&[("ab", Some("c"))]),
            hash(&[("a", Some("bc"))]),
            hash(&[("a", Some("b")), ("c", Some("d"))]),
            hash(&[("c", Some("d")), ("a", Some("b"))]),
            hash(&[("a", Some("12345678"))]),
            hash(&[("a", Some("12345678\0"))]),
            advance(7, Index(2), Term(1), &Batch::default()),
            advance(7, Index(1), Term(2), &Batch::default()),
        ];
        let distinct: std::collections::HashSet<u64> = states.into_iter().collect();
        assert_eq!(distinct.len(), states.len());
    }
}
