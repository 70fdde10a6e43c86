//! Tokens that only upstream can tell whose they are, once it has: for a while, and not too many.
//!
//! They are not copied from the core. It would have to tell each token to every proxy, though each is used at one; and who asks for one has it
//! already, so nothing is told here to whom it does not belong. What is kept is a digest.

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// So long a token is good here without asking again: also one that has ended upstream, if its user is still the same. Asking renews a simple
/// token, whose time counts from when it was last used.
pub(super) const REMEMBERED: Duration = Duration::from_secs(30);
/// Most that are remembered at once; beyond, all are asked about again.
const TOKENS_MAX: usize = 65_536;

/// See the module.
#[derive(Default)]
pub(super) struct Tokens {
    known: Mutex<HashMap<[u8; 32], Remembered>>,
}

struct Remembered {
    user: Arc<str>,
    /// The auth revision at which that was proven.
    revision: u64,
    until: Instant,
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl Tokens {
    /// Whose it is, and at which auth revision that was proven.
    pub(super) fn find(&self, token: &str, now: Instant) -> Option<(Arc<str>, u64)> {
        let known = self.known.lock();
        let found = known.get(&digest(token)).filter(|found| now < found.until)?;
        Some((Arc::clone(&found.user), found.revision))
    }

    /// Upstream has said whose it is.
    pub(super) fn remember(&self, token: &str, user: Arc<str>, revision: u64, now: Instant) {
        let mut known = self.known.lock();
        if known.len() >= TOKENS_MAX {
            known.retain(|_, found| now < found.until);
            if known.len() >= TOKENS_MAX {
                known.clear();
            }
        }
        known.insert(digest(token), Remembered { user, revision, until: now + REMEMBERED });
    }

    /// All have to be asked about again.
    pub(super) fn forget(&self) {
        *self.known.lock() = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_for_a_while_and_their_number_is_bounded() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        tokens.remember("a.1", "alice".into(), 7, now);
        assert_eq!(tokens.find("a.1", now), Some(("alice".into(), 7)));
        assert_eq!(tokens.find("a.2", now), None);
        assert_eq!(tokens.find("a.1", now + REMEMBERED), None);
        for n in 0..TOKENS_MAX * 2 + 1 {
            tokens.remember(&format!("b.{n}"), "bob".into(), 1, now);
            assert!(tokens.known.lock().len() <= TOKENS_MAX);
        }
        assert!(tokens.find(&format!("b.{}", TOKENS_MAX * 2), now).is_some());
        tokens.forget();
        assert_eq!(tokens.known.lock().len(), 0);
    }
}
