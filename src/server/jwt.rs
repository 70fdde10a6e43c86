//! JSON Web Tokens: signed by a member, and good at each that has the key, without an entry in the log.

mod signatures;

use crate::types::Error;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation, decode, encode, signature,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

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
    algorithm: Algorithm,
    check: Option<JwtCheck>,
    /// `None`: it only checks.
    signs: Option<EncodingKey>,
    checks: DecodingKey,
    validation: Validation,
    ttl: Duration,
}

/// etcd's claims.
#[derive(Deserialize, Serialize)]
struct Claims {
    username: String,
    /// Go's libraries write numbers with a point when they feel like it.
    revision: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<f64>,
}

impl Jwt {
    /// Reads the keys.
    ///
    /// # Errors
    /// A text for whoever wrote the flag.
    pub fn new(options: &JwtOptions) -> Result<Jwt, String> {
        signatures::install();
        let method = &options.sign_method;
        let algorithm: Algorithm = match method.as_str() {
            "" => return Err("sign-method is missing".to_owned()),
            "ES512" => return Err("sign-method ES512 is not supported; use ES256 or ES384".to_owned()),
            "none" => return Err("sign-method none lets everybody in".to_owned()),
            other => other.parse().map_err(|_| format!("unknown sign-method {other:?}"))?,
        };
        let (signs, checks) = keys(algorithm, options)?;
        if let Some(signs) = &signs {
            // What does not fit together shows now, and not at the first login.
            let (probe, family) = (b"probe".as_slice(), algorithm.family());
            let signed = jsonwebtoken::crypto::sign(probe, signs, algorithm);
            let signed = signed.map_err(|error| format!("priv-key does not fit sign-method {method}: {error}"))?;
            if !jsonwebtoken::crypto::verify(&signed, probe, &checks, algorithm).unwrap_or(false) {
                let hint = if family == AlgorithmFamily::Hmac { "" } else { ": pub-key belongs to another priv-key" };
                return Err(format!("a token of priv-key does not pass{hint}"));
            }
        }
        // Expiry is compared with the time that callers bring, by types that nothing slips through.
        let mut validation = Validation::new(algorithm);
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        validation.required_spec_claims.clear();
        Ok(Jwt { algorithm, check: options.to_check(algorithm), signs, checks, validation, ttl: options.ttl })
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
        let signs = self.signs.as_ref();
        let signs =
            signs.ok_or_else(|| Error::Invalid("auth: token signing attempted with verify-only key".to_owned()))?;
        let exp = Some(now.saturating_add(self.ttl).as_secs() as f64);
        let claims = Claims { username: user.to_owned(), revision: revision as f64, exp, nbf: None };
        encode(&Header::new(self.algorithm), &claims, signs)
            .map_err(|error| Error::Invalid(format!("auth: failed to sign a token: {error}")))
    }

    /// Whose token this is, and at which auth revision that was proven; `None` if it is not good.
    pub fn find(&self, token: &str, now: Duration) -> Option<(Arc<str>, u64)> {
        let claims = decode::<Claims>(token, &self.checks, &self.validation).ok()?.claims;
        let now_s = now.as_secs_f64();
        let is_now = claims.exp.is_none_or(|exp| now_s < exp) && claims.nbf.is_none_or(|nbf| nbf <= now_s);
        // Above that a float is no longer exact, and no revision comes so far.
        let is_revision = (1.0..=9e15).contains(&claims.revision);
        (is_now && is_revision).then(|| (claims.username.into(), claims.revision as u64))
    }
}

impl JwtOptions {
    /// What may leave this process.
    fn to_check(&self, algorithm: Algorithm) -> Option<JwtCheck> {
        let key = self.public_key.as_ref().filter(|_| algorithm.family() != AlgorithmFamily::Hmac)?;
        // Whoever has put a private key into the file of the public one meant it no less to be private.
        let is_private = String::from_utf8_lossy(key).contains("PRIVATE");
        (!is_private).then(|| JwtCheck { sign_method: self.sign_method.clone(), public_key: key.clone() })
    }
}

/// What signs, if there is a private key, and what checks.
fn keys(algorithm: Algorithm, options: &JwtOptions) -> Result<(Option<EncodingKey>, DecodingKey), String> {
    let bad = |which: &str, error: &dyn std::fmt::Display| format!("{which} cannot be used: {error}");
    let private = options.private_key.as_deref();
    let family = algorithm.family();
    if family == AlgorithmFamily::Hmac {
        let secret = private.ok_or("priv-key is missing: it is the secret")?;
        let signs = EncodingKey::from_secret(secret).map_err(|error| bad("priv-key", &error))?;
        let checks = DecodingKey::from_secret(secret).map_err(|error| bad("priv-key", &error))?;
        return Ok((Some(signs), checks));
    }
    let signs = private.map(|pem| match family {
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(pem),
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(pem),
        _ => EncodingKey::from_ed_pem(pem),
    });
    let is_sec1 = private.is_some_and(|pem| pem.windows(14).any(|text| text == b"EC PRIVATE KEY"));
    let hint = if is_sec1 { "; convert it with openssl pkcs8 -topk8 -nocrypt" } else { "" };
    let signs = signs.transpose().map_err(|error| bad("priv-key", &error) + hint)?;
    let checks = match (&options.public_key, &signs) {
        (Some(pem), _) => match family {
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
            _ => DecodingKey::from_ed_pem(pem),
        }
        .map_err(|error| bad("pub-key", &error))?,
        (None, Some(signs)) => signatures::public_of(algorithm, signs).map_err(|error| bad("priv-key", &error))?,
        (None, None) => return Err("neither pub-key nor priv-key is given".to_owned()),
    };
    Ok((signs, checks))
}

/// An error of a key or a signature, which says no more than that.
fn no_good() -> signature::Error {
    signature::Error::new()
}

#[cfg(test)]
mod tests;
