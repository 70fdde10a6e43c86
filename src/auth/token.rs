//! Simple tokens: `<random>.<index>`, the index being that of the entry that issued it. Each member that applies the entry knows the token
//! from then on, for as long as it is used now and then. They are not part of the state: a member that restarts has forgotten them.

use crate::types::Index;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Letters of the random part.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// How many of them.
const PREFIX_LEN: usize = 16;
/// Most tokens that are known at once; beyond, those that would end first go. Each costs a comparison of passwords to make.
const TOKENS_MAX: usize = 1 << 20;
/// So many are never worth a walk.
const TOKENS_FEW: usize = 1_024;

/// The random part of a token. `chance` has 64 random bits at each call.
pub fn prefix(mut chance: impl FnMut() -> u64) -> String {
    let letter = |_| char::from(LETTERS[(chance() % LETTERS.len() as u64) as usize]);
    (0..PREFIX_LEN).map(letter).collect()
}

/// The token that the entry at `index` issues.
pub(super) fn token(prefix: &str, index: Index) -> String {
    format!("{prefix}.{}", index.0)
}

/// The entry that issued a token; `None` if it is none.
pub fn index_of(token: &str) -> Option<Index> {
    let (prefix, index) = token.split_once('.')?;
    Some(Index(index.parse().ok()?)).filter(|_| !prefix.is_empty())
}

/// The simple tokens that a member knows.
pub struct SimpleTokens {
    ttl: Duration,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    tokens: HashMap<String, Token>,
    /// How many there were after the last walk.
    walked_at: usize,
}

struct Token {
    user: Arc<str>,
    revision: u64,
    ends: Duration,
}

impl SimpleTokens {
    /// None yet; each lives `ttl` after it was last used.
    pub fn new(ttl: Duration) -> SimpleTokens {
        SimpleTokens { ttl, known: Mutex::default() }
    }

    /// Whoever shows `token` is `user`, as was proven at the auth revision `revision`.
    pub fn issued(&self, token: &str, user: &str, revision: u64, now: Duration) {
        let mut known = self.known.lock();
        let token_of = Token { user: user.into(), revision, ends: now + self.ttl };
        known.tokens.insert(token.to_owned(), token_of);
        if known.tokens.len() > TOKENS_FEW.max(known.walked_at * 2) || known.tokens.len() > TOKENS_MAX {
            known.walk(now);
        }
    }

    /// Whose token this is, and at which auth revision that was proven. It lives longer by that.
    pub fn find(&self, token: &str, now: Duration) -> Option<(Arc<str>, u64)> {
        let mut known = self.known.lock();
        let found = known.tokens.get_mut(token)?;
        if found.ends <= now {
            known.tokens.remove(token);
            return None;
        }
        found.ends = now + self.ttl;
        Some((Arc::clone(&found.user), found.revision))
    }

    /// Ends all of them.
    pub fn end_all(&self) {
        *self.known.lock() = Known::default();
    }
}

impl Known {
    /// Forgets what has ended, and if that is not enough the half that ends first.
    fn walk(&mut self, now: Duration) {
        self.tokens.retain(|_, token| token.ends > now);
        if self.tokens.len() > TOKENS_MAX {
            let mut ends: Vec<Duration> = self.tokens.values().map(|token| token.ends).collect();
            let middle = ends.len() / 2;
            let middle = *ends.select_nth_unstable(middle).1;
            self.tokens.retain(|_, token| token.ends > middle);
        }
        self.walked_at = self.tokens.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let second = Duration::from_secs;
        let tokens = SimpleTokens::new(second(10));
        tokens.issued("a.5", "u", 3, second(0));
        for now in [9, 18, 27] {
            assert_eq!(tokens.find("a.5", second(now)), Some(("u".into(), 3)));
        }
        assert_eq!(tokens.find("a.5", second(37)), None);
        assert_eq!(tokens.find("a.5", second(28)), None, "what has ended stays so");
    }

    #[test]
    fn what_has_ended_is_forgotten_by_and_by() {
        let tokens = SimpleTokens::new(Duration::from_secs(1));
        for n in 0..100_000_u64 {
            tokens.issued(&format!("a.{n}"), "u", 1, Duration::from_millis(n));
        }
        let held = tokens.known.lock().tokens.len();
        assert!(held < 5_000, "{held} tokens of which 1,000 live");
    }

    #[test]
    fn a_token_has_etcds_form() {
        let mut n = 0;
        let prefix = prefix(|| {
            n += 1;
            n
        });
        assert_eq!(prefix, "bcdefghijklmnopq");
        let token = token(&prefix, Index(17));
        assert_eq!(token, "bcdefghijklmnopq.17");
        assert_eq!(index_of(&token), Some(Index(17)));
        for bad in ["", "abc", "abc.", ".5", "abc.x", "abc.5.6", "a.b.c"] {
            assert_eq!(index_of(bad), None, "{bad:?}");
        }
    }
}
