//! One method with its keys: what makes a token of claims, and claims of a token.

use super::{
    Claims, JwtOptions,
    es512::{self, Es512},
    keys::{self, KeyKind},
    signatures,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};

pub(super) enum Scheme {
    Common(Box<Common>),
    Es512(Box<Es512>),
}

/// What the crate knows.
pub(super) struct Common {
    algorithm: Algorithm,
    /// `None`: it only checks.
    signs: Option<EncodingKey>,
    checks: DecodingKey,
    validation: Validation,
}

impl Scheme {
    /// Reads the keys.
    ///
    /// # Errors
    /// A text for whoever wrote the flag.
    pub(super) fn new(options: &JwtOptions) -> Result<Scheme, String> {
        let JwtOptions { sign_method: method, public_key, private_key, .. } = options;
        let (private, public) = (private_key.as_deref(), public_key.as_deref());
        match (method.as_str(), KeyKind::of_method(method)) {
            ("", _) => Err("sign-method is missing".to_owned()),
            ("none", _) => Err("sign-method none lets everybody in".to_owned()),
            (_, Some(kind)) => Scheme::of_pair(method, kind, private, public),
            (_, None) => Scheme::of_secret(method, private),
        }
    }

    fn of_pair(method: &str, kind: KeyKind, private: Option<&[u8]>, public: Option<&[u8]>) -> Result<Scheme, String> {
        let bad = |which: &'static str| move |why: String| format!("{which} does not fit sign-method {method}: {why}");
        let private = private.map(|pem| keys::private(pem, kind)).transpose().map_err(bad("priv-key"))?;
        let public = public.map(|pem| keys::public(pem, kind)).transpose().map_err(bad("pub-key"))?;
        let (private, public) = (private.as_deref(), public.as_deref());
        if method == es512::NAME {
            return Ok(Scheme::Es512(Box::new(Es512::new(private, public)?)));
        }
        let algorithm = algorithm(method)?;
        let signs = private.map(|der| match kind {
            KeyKind::Rsa => EncodingKey::from_rsa_der(der),
            KeyKind::Ed25519 => EncodingKey::from_ed_der(der),
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => EncodingKey::from_ec_der(der),
        });
        let checks = match (public, &signs) {
            (Some(der), _) => match kind {
                KeyKind::Rsa => DecodingKey::from_rsa_der(der),
                KeyKind::Ed25519 => DecodingKey::from_ed_der(der),
                KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => DecodingKey::from_ec_der(der),
            },
            (None, Some(signs)) => {
                signatures::public_of(algorithm, signs).map_err(|error| bad("priv-key")(error.to_string()))?
            }
            (None, None) => return Err("neither pub-key nor priv-key is given".to_owned()),
        };
        Ok(Scheme::common(algorithm, signs, checks))
    }

    fn of_secret(method: &str, secret: Option<&[u8]>) -> Result<Scheme, String> {
        let algorithm = algorithm(method)?;
        let secret = secret.ok_or("priv-key is missing: it is the secret")?;
        let bad = |error| format!("priv-key cannot be used: {error}");
        let signs = EncodingKey::from_secret(secret).map_err(bad)?;
        Ok(Scheme::common(algorithm, Some(signs), DecodingKey::from_secret(secret).map_err(bad)?))
    }

    fn common(algorithm: Algorithm, signs: Option<EncodingKey>, checks: DecodingKey) -> Scheme {
        signatures::install();
        // Expiry is compared with the time that callers bring, by types that nothing slips through.
        let mut validation = Validation::new(algorithm);
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        validation.required_spec_claims.clear();
        Scheme::Common(Box::new(Common { algorithm, signs, checks, validation }))
    }

    /// Whether there is a key to sign with.
    pub(super) fn can_sign(&self) -> bool {
        match self {
            Scheme::Common(common) => common.signs.is_some(),
            Scheme::Es512(es512) => es512.can_sign(),
        }
    }

    /// A token; `None` if that fails, or there is no key for it.
    pub(super) fn sign(&self, claims: &Claims) -> Option<String> {
        match self {
            Scheme::Common(common) => encode(&Header::new(common.algorithm), claims, common.signs.as_ref()?).ok(),
            Scheme::Es512(es512) => es512.sign(claims),
        }
    }

    /// What a token says, if its signature is right. Of time nothing is known here.
    pub(super) fn open(&self, token: &str) -> Option<Claims> {
        match self {
            Scheme::Common(common) => Some(decode(token, &common.checks, &common.validation).ok()?.claims),
            Scheme::Es512(es512) => es512.open(token),
        }
    }
}

fn algorithm(method: &str) -> Result<Algorithm, String> {
    method.parse().map_err(|_| format!("unknown sign-method {method:?}"))
}
