//! Any token: whoever shows one is nobody, or who it says.

use super::{Identity, Jwt, JwtOptions, RingProxies};
use crate::auth::{self, SimpleTokens};
use arbitrary::Unstructured;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};
use tonic::{
    Extensions,
    metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap},
};

/// The first byte says what the others are.
const SHOWN: u8 = b's';
const SIGNED: u8 = b'j';
const OPTIONS: u8 = b'o';
const METADATA: u8 = b'm';
const SIMPLE: u8 = b't';

const NOW: Duration = Duration::from_secs(1_800_000_000);
const SECRET: &[u8] = b"a secret";
/// Between the parts of an input. No text has it.
const BORDER: u8 = 0xff;

/// Members with a key of each kind.
static MEMBERS: LazyLock<Vec<Jwt>> = LazyLock::new(|| {
    let keys: [(&str, &[u8]); 7] = [
        ("HS256", SECRET),
        ("RS256", include_bytes!("jwt/testdata/rsa.pem")),
        ("PS384", include_bytes!("jwt/testdata/rsa.pem")),
        ("ES256", include_bytes!("jwt/testdata/p256.pem")),
        ("ES384", include_bytes!("jwt/testdata/p384.pem")),
        ("ES512", include_bytes!("jwt/testdata/p521.pem")),
        ("EdDSA", include_bytes!("jwt/testdata/ed.pem")),
    ];
    let all = keys.map(|(method, key)| Jwt::new(&options(method, None, Some(key.to_vec()))).expect("a key of ours"));
    all.into_iter().collect()
});

fn options(method: &str, public_key: Option<Vec<u8>>, private_key: Option<Vec<u8>>) -> JwtOptions {
    JwtOptions { sign_method: method.to_owned(), public_key, private_key, ttl: Duration::MAX }
}

/// Shows what `data` is.
pub(crate) fn target(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match *how {
        SHOWN => {
            let found = MEMBERS.iter().filter_map(|member| member.find(&text, NOW)).count();
            assert!(found <= 1, "a token that members of other keys have signed too");
            auth::index_of(&text);
        }
        SIGNED => signed(rest),
        OPTIONS => {
            let mut parts = rest.split(|byte| *byte == BORDER).map(<[u8]>::to_vec);
            let method = String::from_utf8_lossy(&parts.next().unwrap_or_default()).into_owned();
            if let Ok(member) = Jwt::new(&options(&method, parts.next().filter(|key| !key.is_empty()), parts.next())) {
                signs_what_it_checks(&member);
            }
        }
        METADATA => metadata(&text),
        _ => drop(simple(&mut Unstructured::new(rest))),
    }
}

fn signs_what_it_checks(member: &Jwt) {
    if let Ok(token) = member.sign("alice", 7, NOW) {
        assert_eq!(member.find(&token, NOW), Some(("alice".into(), 7)));
    }
}

/// Header and claims of anybody's, with a signature that is right.
fn signed(parts: &[u8]) {
    let mut parts = parts.splitn(2, |byte| *byte == BORDER);
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    // They bring what signs.
    LazyLock::force(&MEMBERS);
    let message = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = EncodingKey::from_secret(SECRET).expect("a secret");
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a secret signs anything");
    let token = format!("{message}.{signature}");
    let found: Vec<_> = MEMBERS.iter().map(|member| member.find(&token, NOW)).collect();
    assert!(found[1..].iter().all(Option::is_none), "another key takes the token for its own");
    let Some((user, revision)) = &found[0] else { return };
    // What nobody asks for may be no text, and is passed over by whoever does not look at it.
    let whole = |part| serde_json::from_slice::<serde_json::Value>(part).ok();
    let (Some(header), Some(claims)) = (whole(header), whole(claims)) else { return };
    assert_eq!(header["alg"], "HS256", "the algorithm is the member's to choose");
    assert_eq!(claims["username"], **user);
    assert!(*revision > 0 && claims["revision"].as_f64().is_some_and(|told| told as u64 == *revision));
    assert!(claims["exp"].is_null() || claims["exp"].as_f64().is_some_and(|end| end > NOW.as_secs_f64()));
}

/// A name and a value in each line.
fn metadata(text: &str) {
    let mut metadata = MetadataMap::new();
    for line in text.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if let (Ok(name), Ok(value)) =
            (AsciiMetadataKey::from_bytes(name.as_bytes()), AsciiMetadataValue::try_from(value))
        {
            metadata.append(name, value);
        }
    }
    let identity = Identity::of(&metadata, &Extensions::new(), &RingProxies::default());
    let shown: Vec<_> = ["token", "authorization"].iter().flat_map(|name| metadata.get_all(*name)).collect();
    assert!(
        identity.token.is_none_or(|token| shown.iter().any(|value| value.to_str().is_ok_and(|value| value == token)))
    );
}

/// Simple tokens that come, are shown and end, against a list of them.
fn simple(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let ttl = Duration::from_secs(u.int_in_range(1..=1 << 40)?);
    let (tokens, mut known) = (SimpleTokens::new(ttl), Vec::<(String, u64, Duration)>::new());
    let mut now = Duration::ZERO;
    for _ in 0..100 {
        if u.is_empty() {
            break;
        }
        now += Duration::from_secs(u.int_in_range(0..=1 << 42)?);
        let token = format!("{}.{}", u.choose(&["a", "b", "", "a.b"])?, u.int_in_range(0..=3_u64)?);
        match u.int_in_range(0..=9)? {
            0 => {
                tokens.end_all();
                known.clear();
            }
            1..=4 => {
                let revision = u.arbitrary()?;
                tokens.issued(&token, "alice", revision, now);
                known.retain(|(other, ..)| *other != token);
                known.push((token, revision, now + ttl));
            }
            _ => {
                let expected = known.iter_mut().find(|(other, _, ends)| *other == token && *ends > now);
                let expected = expected.map(|(_, revision, ends)| {
                    *ends = now + ttl;
                    (Arc::<str>::from("alice"), *revision)
                });
                assert_eq!(tokens.find(&token, now), expected, "{token}");
                known.retain(|(_, _, ends)| *ends > now);
            }
        }
    }
    Ok(())
}

/// Tokens as they are issued, claims of all shapes, keys of all kinds.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let border = [BORDER];
    let mut seeds: Vec<Vec<u8>> = MEMBERS
        .iter()
        .map(|member| [&[SHOWN], member.sign("alice", 7, NOW).expect("a key of ours").as_bytes()].concat())
        .collect();
    seeds.push(b"sabcdefghijklmnop.17".to_vec());
    for (header, claims) in [
        (r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"username":"alice","revision":3,"exp":1900000000}"#),
        (r#"{"typ":"JWT","alg":"HS256","kid":"1"}"#, r#"{"username":"root","revision":1e3,"nbf":1,"aud":["x"]}"#),
        (r#"{"alg":"none"}"#, r#"{"username":"root","revision":1}"#),
        (r#"{"alg":"RS256"}"#, r#"{"username":"root","revision":1}"#),
    ] {
        seeds.push([&[SIGNED], header.as_bytes(), &border, claims.as_bytes()].concat());
    }
    let keys: [(&str, &[u8], &[u8]); 7] = [
        ("HS512", b"", SECRET),
        ("RS512", include_bytes!("jwt/testdata/rsa.pub.pem"), include_bytes!("jwt/testdata/rsa-pkcs1.pem")),
        ("ES256", include_bytes!("jwt/testdata/p256.pub.pem"), include_bytes!("jwt/testdata/p256.pem")),
        ("EdDSA", include_bytes!("jwt/testdata/ed.pub.pem"), include_bytes!("jwt/testdata/ed.pem")),
        ("ES256", b"", include_bytes!("jwt/testdata/p256-sec1.pem")),
        ("ES384", b"", include_bytes!("jwt/testdata/p384-sec1.pem")),
        ("ES512", include_bytes!("jwt/testdata/p521.crt.pem"), include_bytes!("jwt/testdata/p521-sec1.pem")),
    ];
    let keys = keys
        .map(|(method, public, private)| [&[OPTIONS], method.as_bytes(), &border, public, &border, private].concat());
    seeds.extend(keys);
    seeds.push(b"mtoken: abc.5\nauthorization: Bearer x\ngrpcgateway-accept: y\n".to_vec());
    seeds.push([&[SIMPLE][..], &[7; 120]].concat());
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_good_tokens() {
        let good = |seed: &Vec<u8>| {
            seed[0] == SHOWN
                && MEMBERS.iter().any(|member| member.find(&String::from_utf8_lossy(&seed[1..]), NOW).is_some())
        };
        assert_eq!(seeds().iter().filter(|seed| good(seed)).count(), MEMBERS.len());
    }

    /// The first login would have ended the member.
    #[test]
    fn a_token_that_lives_forever_is_signed() {
        MEMBERS.iter().for_each(signs_what_it_checks);
    }
}
