//! JSON Web Tokens: signed by a member, and good at each that has the key, without an entry in the log.

mod es512;
mod keys;
mod scheme;
mod signatures;
mod verified;

use crate::types::Error;
use jsonwebtoken::signature;
use scheme::Scheme;
use serde::{Deserialize, Serialize, Serializer};
use std::{sync::Arc, time::Duration};
use verified::Remembered;

/// What `--auth-token jwt,…` says.
#[derive(Clone, Default)]
pub struct JwtOptions {
    /// As `RS256`.
    pub sign_method: String,
    /// PEM; may be left out if there is a private key.
    pub public_key: Option<Vec<u8>>,
    /// PEM, or for `HS…` the secret. Without it tokens are checked only.
    pub private_key: Option<Vec<u8>>,
    /// How long a token is good.
    pub ttl: Duration,
}

/// All that it takes to check tokens, and nothing that could sign one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtCheck {
    /// As `RS256`.
    pub sign_method: String,
    /// PEM.
    pub public_key: Vec<u8>,
}

/// Signs and checks tokens.
pub struct Jwt {
    scheme: Scheme,
    check: Option<JwtCheck>,
    ttl: Duration,
    /// Those that were checked already.
    remembered: Remembered,
}

/// etcd's claims.
#[derive(Deserialize, Serialize)]
struct Claims {
    username: String,
    /// Go's libraries write numbers with a point when they feel like it; here they are written without.
    #[serde(serialize_with = "whole")]
    revision: f64,
    #[serde(serialize_with = "whole_if_any", skip_serializing_if = "Option::is_none")]
    exp: Option<f64>,
    #[serde(serialize_with = "whole_if_any", skip_serializing_if = "Option::is_none")]
    nbf: Option<f64>,
}

/// Revisions and seconds are whole, and others read them as such.
fn whole<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(*number as i64)
}

fn whole_if_any<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    number.map(|number| number as i64).serialize(serializer)
}

/// What a token says whose signature is right.
#[derive(Clone, Debug, PartialEq)]
struct Verified {
    user: Arc<str>,
    revision: u64,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl Jwt {
    /// Reads the keys.
    ///
    /// # Errors
    /// A text for whoever wrote the flag.
    pub fn new(options: &JwtOptions) -> Result<Jwt, String> {
        let method = &options.sign_method;
        let scheme = Scheme::new(options)?;
        if scheme.can_sign() {
            // What does not fit together shows now, and not at the first login.
            let probe = Claims { username: "probe".to_owned(), revision: 1.0, exp: None, nbf: None };
            let token = scheme.sign(&probe).ok_or_else(|| format!("priv-key cannot sign with {method}"))?;
            if scheme.open(&token).is_none() {
                return Err("a token of priv-key does not pass: pub-key belongs to another priv-key".to_owned());
            }
        }
        Ok(Jwt { scheme, check: options.to_check(), ttl: options.ttl, remembered: Remembered::default() })
    }

    /// What somebody else needs to check tokens; `None` if that could sign as well, or there is no public key but the one in the private.
    pub fn check(&self) -> Option<&JwtCheck> {
        self.check.as_ref()
    }

    /// One that only checks.
    ///
    /// # Errors
    /// As [`Jwt::new`].
    pub fn of_check(check: JwtCheck) -> Result<Jwt, String> {
        let JwtCheck { sign_method, public_key } = check;
        Jwt::new(&JwtOptions { sign_method, public_key: Some(public_key), ..JwtOptions::default() })
    }

    /// A token for `user`, who was proven at the auth revision `revision`; `now` is since 1970.
    ///
    /// # Errors
    /// [`Error::Invalid`], in etcd's words, if there is no key to sign with.
    pub fn sign(&self, user: &str, revision: u64, now: Duration) -> Result<String, Error> {
        if !self.scheme.can_sign() {
            return Err(Error::Invalid("auth: token signing attempted with verify-only key".to_owned()));
        }
        let exp = Some(now.saturating_add(self.ttl).as_secs() as f64);
        let claims = Claims { username: user.to_owned(), revision: revision as f64, exp, nbf: None };
        self.scheme.sign(&claims).ok_or_else(|| Error::Invalid("auth: failed to sign a token".to_owned()))
    }

    /// Whose token this is, and at which auth revision that was proven; `None` if it is not good. Its signature is checked once, and
    /// remembered for as long as it is shown now and then, and its time is not over.
    pub fn find(&self, token: &str, now: Duration) -> Option<(Arc<str>, u64)> {
        let hash = verified::hash(token);
        if let Some(known) = self.remembered.find(&hash) {
            let is_good = known.is_good(now);
            if !is_good {
                self.remembered.forget(&hash);
            }
            return is_good.then_some((known.user, known.revision));
        }
        let verified = Verified::of(self.scheme.open(token)?)?;
        if !verified.is_good(now) {
            return None;
        }
        self.remembered.remember(hash, verified.clone());
        Some((verified.user, verified.revision))
    }
}

impl Verified {
    fn of(claims: Claims) -> Option<Verified> {
        let Claims { username, revision, exp, nbf } = claims;
        // Above that a float is no longer exact, and no revision comes so far.
        let is_revision = (1.0..=9e15).contains(&revision);
        is_revision.then(|| Verified { user: username.into(), revision: revision as u64, exp, nbf })
    }

    fn is_good(&self, now: Duration) -> bool {
        let now_s = now.as_secs_f64();
        self.exp.is_none_or(|exp| now_s < exp) && self.nbf.is_none_or(|nbf| nbf <= now_s)
    }
}

impl JwtOptions {
    /// What may leave this process.
    fn to_check(&self) -> Option<JwtCheck> {
        let key = self.public_key.as_ref().filter(|_| !self.sign_method.starts_with("HS"))?;
        // Whoever has put a private key beside the public one into its file meant it no less to be private.
        let is_private = String::from_utf8_lossy(key).contains("PRIVATE");
        (!is_private).then(|| JwtCheck { sign_method: self.sign_method.clone(), public_key: key.clone() })
    }
}

/// An error of a key or a signature, which says no more than that.
fn no_good() -> signature::Error {
    signature::Error::new()
}

#[cfg(test)]
mod tests;
