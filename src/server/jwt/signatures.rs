//! The cryptography of tokens by `ring`, which TLS stands on already; the crate that knows the form of tokens leaves it open.

use super::no_good;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{Error as SignatureError, Signer, Verifier},
};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(Side { algorithm: *algorithm, key: key.clone() })),
    verifier_factory: |algorithm, key| Ok(Box::new(Side { algorithm: *algorithm, key: key.clone() })),
    key_utils: KeyUtils::new_unimplemented(),
};

/// To be called before the first token. Again is no harm.
pub(super) fn install() {
    // An error says that it is there already.
    let _ = PROVIDER.install_default();
}

/// What checks the signatures of a private key.
pub(super) fn public_of(algorithm: Algorithm, key: &EncodingKey) -> Result<DecodingKey, Error> {
    let bytes = key.as_bytes();
    match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => {
            let pair = ec(algorithm, bytes).map_err(|_| ErrorKind::InvalidEcdsaKey)?;
            Ok(DecodingKey::from_ec_der(pair.public_key().as_ref()))
        }
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map_err(|_| ErrorKind::InvalidEddsaKey)?;
            Ok(DecodingKey::from_ed_der(pair.public_key().as_ref()))
        }
        _ => {
            let pair = RsaKeyPair::from_der(bytes).map_err(|error| ErrorKind::InvalidRsaKey(error.to_string()))?;
            Ok(DecodingKey::from_rsa_der(pair.public().as_ref()))
        }
    }
}

/// A key and what is done with it.
struct Side<K> {
    algorithm: Algorithm,
    key: K,
}

impl JwtSigner for Side<EncodingKey> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl JwtVerifier for Side<DecodingKey> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Signer<Vec<u8>> for Side<EncodingKey> {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let (key, chance) = (self.key.as_bytes(), SystemRandom::new());
        match Means::of(self.algorithm).ok_or_else(no_good)? {
            Means::Hmac(algorithm) => Ok(hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()),
            Means::Rsa(padding, _) => {
                let pair = RsaKeyPair::from_der(key).map_err(|_| no_good())?;
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &chance, message, &mut signed).map_err(|_| no_good())?;
                Ok(signed)
            }
            Means::Ec(..) => {
                let pair = ec(self.algorithm, key)?;
                Ok(pair.sign(&chance, message).map_err(|_| no_good())?.as_ref().to_vec())
            }
            Means::Ed => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).map_err(|_| no_good())?;
                Ok(pair.sign(message).as_ref().to_vec())
            }
        }
    }
}

impl Verifier<Vec<u8>> for Side<DecodingKey> {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), SignatureError> {
        let key = self.key.try_get_as_bytes().map_err(|_| no_good())?;
        let algorithm: &'static dyn VerificationAlgorithm = match Means::of(self.algorithm).ok_or_else(no_good)? {
            Means::Hmac(algorithm) => {
                return hmac::verify(&hmac::Key::new(algorithm, key), message, signed).map_err(|_| no_good());
            }
            Means::Rsa(_, algorithm) | Means::Ec(_, algorithm) => algorithm,
            Means::Ed => &signature::ED25519,
        };
        UnparsedPublicKey::new(algorithm, key).verify(message, signed).map_err(|_| no_good())
    }
}

fn ec(algorithm: Algorithm, pkcs8: &[u8]) -> Result<EcdsaKeyPair, SignatureError> {
    let Some(Means::Ec(signs, _)) = Means::of(algorithm) else { return Err(no_good()) };
    EcdsaKeyPair::from_pkcs8(signs, pkcs8, &SystemRandom::new()).map_err(|_| no_good())
}

/// How an algorithm is called here.
enum Means {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn RsaEncoding, &'static dyn VerificationAlgorithm),
    Ec(&'static EcdsaSigningAlgorithm, &'static dyn VerificationAlgorithm),
    Ed,
}

impl Means {
    fn of(algorithm: Algorithm) -> Option<Means> {
        use signature as s;
        Some(match algorithm {
            Algorithm::HS256 => Means::Hmac(hmac::HMAC_SHA256),
            Algorithm::HS384 => Means::Hmac(hmac::HMAC_SHA384),
            Algorithm::HS512 => Means::Hmac(hmac::HMAC_SHA512),
            Algorithm::RS256 => Means::Rsa(&s::RSA_PKCS1_SHA256, &s::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => Means::Rsa(&s::RSA_PKCS1_SHA384, &s::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => Means::Rsa(&s::RSA_PKCS1_SHA512, &s::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => Means::Rsa(&s::RSA_PSS_SHA256, &s::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => Means::Rsa(&s::RSA_PSS_SHA384, &s::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => Means::Rsa(&s::RSA_PSS_SHA512, &s::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => Means::Ec(&s::ECDSA_P256_SHA256_FIXED_SIGNING, &s::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => Means::Ec(&s::ECDSA_P384_SHA384_FIXED_SIGNING, &s::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => Means::Ed,
            // The list may grow.
            _ => return None,
        })
    }
}
