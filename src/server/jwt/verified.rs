//! Tokens whose signature has been checked: clients show the same one with each call, and a signature costs more than a read.

use super::Verified;
use parking_lot::RwLock;
use ring::digest::{SHA256, digest};
use std::collections::HashMap;

/// Most tokens that are remembered, in both generations. Each takes some 200 bytes.
const TOKENS_MAX: usize = 1 << 16;

/// By the hash of each token, so that none lies about in memory. What is remembered is what the token says, its end included: whoever asks
/// compares that with the time. It belongs to one key, and goes with it.
#[derive(Default)]
pub(super) struct Remembered {
    generations: RwLock<Generations>,
}

/// Those that were shown since the last turn, and those that were not. When the young ones are half of all that there may be the old ones are
/// forgotten: nobody walks over them, and what is in use stays.
#[derive(Default)]
struct Generations {
    young: HashMap<Hash, Verified>,
    old: HashMap<Hash, Verified>,
}

pub(super) type Hash = [u8; 32];

/// What a token is remembered by.
pub(super) fn hash(token: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

impl Remembered {
    /// What the token said.
    pub(super) fn find(&self, hash: &Hash) -> Option<Verified> {
        let generations = self.generations.read();
        if let Some(verified) = generations.young.get(hash) {
            return Some(verified.clone());
        }
        let verified = generations.old.get(hash)?.clone();
        drop(generations);
        self.remember(*hash, verified.clone());
        Some(verified)
    }

    /// The token has the right signature, and says this.
    pub(super) fn remember(&self, hash: Hash, verified: Verified) {
        let mut generations = self.generations.write();
        if generations.young.len() >= TOKENS_MAX / 2 {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.old.remove(&hash);
        generations.young.insert(hash, verified);
    }

    /// It has ended, and is not asked for again.
    pub(super) fn forget(&self, hash: &Hash) {
        let mut generations = self.generations.write();
        generations.young.remove(hash);
        generations.old.remove(hash);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.generations.read();
        generations.young.len() + generations.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u64) -> Hash {
        hash(&n.to_string())
    }

    fn of(user: &str) -> Verified {
        Verified { user: user.into(), revision: 1, exp: None, nbf: None }
    }

    #[test]
    fn what_is_shown_stays_and_what_is_not_goes() {
        let remembered = Remembered::default();
        remembered.remember(number(0), of("busy"));
        remembered.remember(number(1), of("quiet"));
        for n in 2..200_000 {
            remembered.remember(number(n), of("passing"));
            if n % 1_000 == 0 {
                assert_eq!(remembered.find(&number(0)), Some(of("busy")), "after {n}");
            }
            assert!(remembered.len() <= TOKENS_MAX);
        }
        assert_eq!(remembered.find(&number(1)), None);
        remembered.forget(&number(0));
        assert_eq!(remembered.find(&number(0)), None);
    }
}
