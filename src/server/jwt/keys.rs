//! Keys in PEM files: which kind of key one is, so that one that does not fit its method is refused in plain words, and the form that
//! signatures need it in.

use p521::{
    elliptic_curve::ALGORITHM_OID as EC,
    pkcs8::{
        AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfoRef, SubjectPublicKeyInfoRef,
        der::{Decode, Encode, asn1::OctetStringRef},
    },
};
use ring::signature::RsaKeyPair;
use sec1::EcPrivateKey;
use std::fmt;
use x509_parser::{
    pem::Pem,
    prelude::{FromDer, X509Certificate},
    public_key::RSAPublicKey,
};

/// What a method takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// What `ring` takes to check signatures; shorter ones are too weak, and longer ones take too long.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

impl KeyKind {
    /// That of a method such as `RS256`; `None` if it takes no key pair.
    pub(super) fn of_method(method: &str) -> Option<KeyKind> {
        match method {
            "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512" => Some(KeyKind::Rsa),
            "ES256" => Some(KeyKind::P256),
            "ES384" => Some(KeyKind::P384),
            "ES512" => Some(KeyKind::P521),
            "EdDSA" => Some(KeyKind::Ed25519),
            _ => None,
        }
    }

    fn of(algorithm: AlgorithmIdentifierRef<'_>) -> Result<KeyKind, String> {
        match algorithm.oid {
            RSA => Ok(KeyKind::Rsa),
            ED25519 => Ok(KeyKind::Ed25519),
            EC => KeyKind::of_curve(algorithm.parameters_oid().map_err(|_| "its curve has no name".to_owned())?),
            other => Err(format!("keys of its kind ({other}) are not supported")),
        }
    }

    fn of_curve(curve: ObjectIdentifier) -> Result<KeyKind, String> {
        match curve {
            P256 => Ok(KeyKind::P256),
            P384 => Ok(KeyKind::P384),
            P521 => Ok(KeyKind::P521),
            other => Err(format!("keys on its curve ({other}) are not supported")),
        }
    }

    fn curve(self) -> Option<ObjectIdentifier> {
        match self {
            KeyKind::P256 => Some(P256),
            KeyKind::P384 => Some(P384),
            KeyKind::P521 => Some(P521),
            KeyKind::Rsa | KeyKind::Ed25519 => None,
        }
    }

    fn must_be(self, wanted: KeyKind) -> Result<(), String> {
        match self == wanted {
            true => Ok(()),
            false => Err(format!("it is {self}, and the sign-method takes {wanted}")),
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyKind::Rsa => "an RSA key",
            KeyKind::P256 => "an EC key on P-256",
            KeyKind::P384 => "an EC key on P-384",
            KeyKind::P521 => "an EC key on P-521",
            KeyKind::Ed25519 => "an Ed25519 key",
        })
    }
}

/// The first private key in `pem`: PKCS#1 if it is one of RSA, else PKCS#8.
///
/// # Errors
/// What is wrong with it, if it is no key of kind `wanted`.
pub(super) fn private(pem: &[u8], wanted: KeyKind) -> Result<Vec<u8>, String> {
    for section in Pem::iter_from_buffer(pem) {
        let Pem { label, contents } = section.map_err(|error| no_pem(pem, &error))?;
        return match label.as_str() {
            "PRIVATE KEY" => of_pkcs8(contents, wanted),
            "EC PRIVATE KEY" => of_sec1(&contents, wanted),
            "RSA PRIVATE KEY" => of_pkcs1(contents, wanted),
            "ENCRYPTED PRIVATE KEY" => Err(ENCRYPTED.to_owned()),
            "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE" => {
                Err("it holds no private key, but a public one".to_owned())
            }
            // `openssl ecparam` writes the curve before the key.
            _ => continue,
        };
    }
    Err(NOTHING.to_owned())
}

/// The first public key in `pem`, or that of the first certificate: PKCS#1 if it is one of RSA, else the point.
///
/// # Errors
/// What is wrong with it, if it is no key of kind `wanted`.
pub(super) fn public(pem: &[u8], wanted: KeyKind) -> Result<Vec<u8>, String> {
    for section in Pem::iter_from_buffer(pem) {
        let Pem { label, contents } = section.map_err(|error| no_pem(pem, &error))?;
        return match label.as_str() {
            "PUBLIC KEY" => of_spki(&contents, wanted),
            "RSA PUBLIC KEY" => {
                KeyKind::Rsa.must_be(wanted)?;
                check_rsa(&contents)?;
                Ok(contents)
            }
            "CERTIFICATE" => {
                let (_, certificate) =
                    X509Certificate::from_der(&contents).map_err(|error| format!("it is no certificate: {error}"))?;
                of_spki(certificate.public_key().raw, wanted)
            }
            "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => {
                Err("it holds a private key; openssl pkey -pubout makes the public one of it".to_owned())
            }
            _ => continue,
        };
    }
    Err(NOTHING.to_owned())
}

const NOTHING: &str = "there is no key in PEM form in it";
const ENCRYPTED: &str = "it is encrypted, and there is nobody to ask for the passphrase; openssl pkey takes that off";

fn no_pem(pem: &[u8], error: &dyn fmt::Display) -> String {
    match pem.windows(9).any(|text| text == b"ENCRYPTED") {
        true => ENCRYPTED.to_owned(),
        false => format!("it is no PEM: {error}"),
    }
}

fn of_pkcs1(der: Vec<u8>, wanted: KeyKind) -> Result<Vec<u8>, String> {
    KeyKind::Rsa.must_be(wanted)?;
    // Of 4096 bits at most, and of two primes.
    RsaKeyPair::from_der(&der).map_err(|error| format!("an RSA key that can sign has 2048 to 4096 bits: {error}"))?;
    Ok(der)
}

fn of_pkcs8(der: Vec<u8>, wanted: KeyKind) -> Result<Vec<u8>, String> {
    let key = PrivateKeyInfoRef::try_from(der.as_slice()).map_err(|error| format!("it is no PKCS#8: {error}"))?;
    KeyKind::of(key.algorithm)?.must_be(wanted)?;
    match wanted {
        KeyKind::Rsa => of_pkcs1(key.private_key.as_bytes().to_vec(), wanted),
        KeyKind::P256 | KeyKind::P384 => {
            has_public(&sec1(key.private_key.as_bytes())?)?;
            Ok(der)
        }
        KeyKind::P521 | KeyKind::Ed25519 => Ok(der),
    }
}

/// What openssl and Go write for EC keys if they are not told otherwise, in the form that has the curve outside.
fn of_sec1(der: &[u8], wanted: KeyKind) -> Result<Vec<u8>, String> {
    let key = sec1(der)?;
    let Some(wanted_curve) = wanted.curve() else {
        return Err(format!("it is an EC key, and the sign-method takes {wanted}"));
    };
    // Where the key does not say its curve, whatever it is used for finds out whether it is on this one.
    let curve = key.parameters.and_then(|parameters| parameters.named_curve()).unwrap_or(wanted_curve);
    KeyKind::of_curve(curve)?.must_be(wanted)?;
    if wanted != KeyKind::P521 {
        has_public(&key)?;
    }
    let wrapped = OctetStringRef::new(der).and_then(|der| {
        let algorithm = AlgorithmIdentifierRef { oid: EC, parameters: Some((&curve).into()) };
        PrivateKeyInfoRef::new(algorithm, der).to_der()
    });
    wrapped.map_err(|error| format!("it cannot be written as PKCS#8: {error}"))
}

fn sec1(der: &[u8]) -> Result<EcPrivateKey<'_>, String> {
    EcPrivateKey::from_der(der).map_err(|error| format!("it is no EC key: {error}"))
}

/// `ring` compares the two, and works out neither.
fn has_public(key: &EcPrivateKey<'_>) -> Result<(), String> {
    match key.public_key {
        Some(_) => Ok(()),
        None => Err("it lacks the public half, which openssl ec adds".to_owned()),
    }
}

fn of_spki(der: &[u8], wanted: KeyKind) -> Result<Vec<u8>, String> {
    let key = SubjectPublicKeyInfoRef::from_der(der).map_err(|error| format!("it is no public key: {error}"))?;
    KeyKind::of(key.algorithm)?.must_be(wanted)?;
    let bytes = key.subject_public_key.as_bytes().ok_or("it is no public key: there are bits left over")?;
    match (wanted.curve(), bytes) {
        (None, _) if wanted == KeyKind::Rsa => check_rsa(bytes)?,
        (None, _) | (Some(_), [4, ..]) => {}
        (Some(_), _) => {
            return Err("its point is compressed; openssl ec -conv_form uncompressed writes it out".to_owned());
        }
    }
    Ok(bytes.to_vec())
}

fn check_rsa(der: &[u8]) -> Result<(), String> {
    let (_, key) = RSAPublicKey::from_der(der).map_err(|error| format!("it is no RSA key: {error}"))?;
    let bits = key.key_size();
    match RSA_BITS.contains(&bits) {
        true => Ok(()),
        false => Err(format!("an RSA key has {} to {} bits, and not {bits}", RSA_BITS.start(), RSA_BITS.end())),
    }
}
