//! ES512: tokens signed on P-521, which neither `ring` nor the crate that knows the form of tokens has. The form is RFC 7515's: header,
//! claims and signature, each in base64 without padding, with points between them.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use p521::{
    SecretKey,
    ecdsa::{
        Signature, SigningKey, VerifyingKey,
        signature::{Signer, Verifier},
    },
    pkcs8::DecodePrivateKey,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(super) const NAME: &str = "ES512";

/// A key pair, or half of it.
pub(super) struct Es512 {
    signs: Option<SigningKey>,
    checks: VerifyingKey,
}

#[derive(Deserialize, Serialize)]
struct Header {
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    alg: String,
    /// What has to be understood to understand the token: none of it is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    crit: Option<Vec<String>>,
}

impl Es512 {
    /// Of a private key in PKCS#8 and a public one as a point; one of the two is enough to check.
    ///
    /// # Errors
    /// Which key is no good.
    pub(super) fn new(private: Option<&[u8]>, public: Option<&[u8]>) -> Result<Es512, String> {
        let signs = private.map(|der| SecretKey::from_pkcs8_der(der).map(SigningKey::from)).transpose();
        let signs = signs.map_err(|error| format!("priv-key cannot be used: {error}"))?;
        let checks = match (public, &signs) {
            (Some(point), _) => {
                VerifyingKey::from_sec1_bytes(point).map_err(|error| format!("pub-key cannot be used: {error}"))?
            }
            (None, Some(signs)) => *signs.verifying_key(),
            (None, None) => return Err("neither pub-key nor priv-key is given".to_owned()),
        };
        Ok(Es512 { signs, checks })
    }

    pub(super) fn can_sign(&self) -> bool {
        self.signs.is_some()
    }

    /// A token; `None` without a key to sign with, or if `claims` are no JSON.
    pub(super) fn sign(&self, claims: &impl Serialize) -> Option<String> {
        let header = Header { typ: Some("JWT".to_owned()), alg: NAME.to_owned(), crit: None };
        let (header, claims) = (serde_json::to_vec(&header).ok()?, serde_json::to_vec(claims).ok()?);
        let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let signature: Signature = self.signs.as_ref()?.try_sign(message.as_bytes()).ok()?;
        Some(format!("{message}.{}", BASE64.encode(signature.to_bytes())))
    }

    /// What a token says, if it is signed with this key.
    pub(super) fn open<C: DeserializeOwned>(&self, token: &str) -> Option<C> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let header: Header = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
        if header.alg != NAME || header.crit.is_some() {
            return None;
        }
        let signature = Signature::from_slice(&BASE64.decode(signature).ok()?).ok()?;
        self.checks.verify(message.as_bytes(), &signature).ok()?;
        serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()
    }
}
