use super::*;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use std::{fs, path::Path, process::Command};

const NOW: Duration = Duration::from_secs(1_800_000_000);

macro_rules! key {
    ($name:literal) => {
        Some(include_bytes!(concat!("testdata/", $name)).to_vec())
    };
}

fn options(method: &str, public: Option<Vec<u8>>, private: Option<Vec<u8>>) -> JwtOptions {
    let ttl = Duration::from_secs(300);
    JwtOptions { sign_method: method.to_owned(), public_key: public, private_key: private, ttl }
}

fn refusal(options: &JwtOptions) -> String {
    Jwt::new(options).err().expect("a refusal")
}

#[test]
fn each_family_signs_what_it_checks() {
    let rsa = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].map(|method| (method, key!("rsa.pem")));
    let others = [
        ("RS256", key!("rsa-pkcs1.pem")),
        ("ES256", key!("p256.pem")),
        ("ES256", key!("p256-sec1.pem")),
        ("ES384", key!("p384.pem")),
        ("ES384", key!("p384-sec1.pem")),
        ("ES512", key!("p521.pem")),
        ("ES512", key!("p521-sec1.pem")),
        ("ES512", key!("p521-half.pem")),
        ("EdDSA", key!("ed.pem")),
        ("HS256", Some(b"a secret".to_vec())),
    ];
    for (method, private) in rsa.into_iter().chain(others) {
        let jwt = Jwt::new(&options(method, None, private)).expect(method);
        let token = jwt.sign("alice", 7, NOW).expect(method);
        assert_eq!(jwt.find(&token, NOW), Some(("alice".into(), 7)), "{method}");
        assert_eq!(jwt.find(&token, NOW + Duration::from_secs(301)), None, "{method}: it has ended");
        let (body, _) = token.rsplit_once('.').expect("three parts");
        assert_eq!(jwt.find(&format!("{body}.AAAA"), NOW), None, "{method}: another signature");
        assert_eq!(jwt.find("", NOW), None);
    }
}

#[test]
fn a_public_key_checks_and_does_not_sign() {
    for (method, public, private) in [
        ("RS256", key!("rsa.pub.pem"), key!("rsa.pem")),
        ("RS256", key!("rsa-pkcs1.pub.pem"), key!("rsa.pem")),
        ("PS512", key!("rsa.crt.pem"), key!("rsa-pkcs1.pem")),
        ("ES256", key!("p256.pub.pem"), key!("p256.pem")),
        ("ES384", key!("p384.pub.pem"), key!("p384-sec1.pem")),
        ("ES512", key!("p521.pub.pem"), key!("p521-sec1.pem")),
        ("ES512", key!("p521.crt.pem"), key!("p521.pem")),
        ("EdDSA", key!("ed.pub.pem"), key!("ed.pem")),
    ] {
        let signs = Jwt::new(&options(method, public.clone(), private)).expect("they belong together");
        let checks = Jwt::new(&options(method, public, None)).expect("enough to check");
        let token = signs.sign("alice", 7, NOW).expect("a private key");
        assert_eq!(checks.find(&token, NOW), Some(("alice".into(), 7)));
        assert!(matches!(checks.sign("alice", 7, NOW), Err(Error::Invalid(text)) if text.contains("verify-only")));
    }
}

#[test]
fn a_token_of_another_algorithm_is_none() {
    let hmac = Jwt::new(&options("HS256", None, key!("rsa.pub.pem"))).expect("any secret will do");
    let forged = hmac.sign("root", 1, NOW).expect("signed with what everybody knows");
    let rsa = Jwt::new(&options("RS256", key!("rsa.pub.pem"), None)).expect("a public key");
    assert_eq!(rsa.find(&forged, NOW), None);
    let unsigned = "eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6MX0.";
    assert_eq!(rsa.find(unsigned, NOW), None);
}

#[test]
fn numbers_in_a_token_are_whole() {
    for (method, private) in [("HS256", Some(b"s".to_vec())), ("ES512", key!("p521.pem"))] {
        let token = Jwt::new(&options(method, None, private)).expect(method).sign("alice", 3, NOW).expect(method);
        let claims = BASE64.decode(token.split('.').nth(1).expect("three parts")).expect("base64");
        let expected = r#"{"username":"alice","revision":3,"exp":1800000300}"#;
        assert_eq!(String::from_utf8_lossy(&claims), expected, "{method}");
    }
}

#[test]
fn claims_of_the_wrong_type_are_no_claims() {
    let key = EncodingKey::from_secret(b"s").expect("a secret");
    let jwt = Jwt::new(&options("HS256", None, Some(b"s".to_vec()))).expect("a secret");
    let found = |claims: &str| {
        let claims: serde_json::Value = serde_json::from_str(claims).expect("JSON");
        jwt.find(&encode(&Header::new(Algorithm::HS256), &claims, &key).expect("signed"), NOW)
    };
    assert!(found(r#"{"username":"u","revision":3}"#).is_some(), "without an end, as in etcd");
    assert!(found(r#"{"username":"u","revision":3.0,"exp":1900000000,"aud":"x"}"#).is_some());
    for bad in [
        r#"{"username":"u","revision":3,"exp":"1900000000"}"#,
        r#"{"username":"u","revision":3,"exp":1700000000}"#,
        r#"{"username":"u","revision":3,"nbf":1900000000}"#,
        r#"{"username":"u","revision":3,"nbf":"0"}"#,
        r#"{"username":"u","revision":0}"#,
        r#"{"username":"u","revision":1e300}"#,
        r#"{"username":"u"}"#,
        r#"{"revision":3}"#,
    ] {
        assert_eq!(found(bad), None, "{bad}");
    }
}

#[test]
fn options_that_do_not_fit_are_told_at_the_start() {
    for (options, text) in [
        (options("", None, key!("rsa.pem")), "sign-method is missing"),
        (options("none", None, key!("rsa.pem")), "lets everybody in"),
        (options("XS256", None, key!("rsa.pem")), "unknown sign-method"),
        (options("RS256", None, None), "neither"),
        (options("ES512", None, None), "neither"),
        (options("HS256", None, None), "the secret"),
        (
            options("RS256", key!("p256.pub.pem"), None),
            "pub-key does not fit sign-method RS256: it is an EC key on P-256",
        ),
        (options("RS256", None, key!("p256.pem")), "it is an EC key on P-256, and the sign-method takes an RSA key"),
        (options("RS256", None, key!("p256-sec1.pem")), "it is an EC key, and the sign-method takes an RSA key"),
        (
            options("RS256", key!("ed.pub.pem"), key!("rsa.pem")),
            "pub-key does not fit sign-method RS256: it is an Ed25519 key",
        ),
        (options("ES384", None, key!("p256.pem")), "priv-key does not fit sign-method ES384: it is an EC key on P-256"),
        (options("ES384", key!("p256.pub.pem"), None), "takes an EC key on P-384"),
        (options("ES256", None, key!("p384-sec1.pem")), "it is an EC key on P-384"),
        (
            options("ES512", None, key!("p256.pem")),
            "it is an EC key on P-256, and the sign-method takes an EC key on P-521",
        ),
        (options("ES512", None, key!("rsa-pkcs1.pem")), "it is an RSA key"),
        (options("ES256", key!("p256.pub.pem"), key!("p384.pem")), "priv-key does not fit"),
        (options("ES256", None, key!("p256-half.pem")), "lacks the public half, which openssl ec adds"),
        (options("ES256", key!("p256-compressed.pub.pem"), None), "compressed"),
        (options("ES256", None, key!("p256-encrypted.pem")), "it is encrypted"),
        (options("ES256", None, key!("p256-sec1-encrypted.pem")), "it is encrypted"),
        (options("ES256", None, key!("p256.pub.pem")), "it holds no private key"),
        (options("ES256", key!("p256.pem"), None), "it holds a private key"),
        (options("ES256", None, key!("secp256k1.pem")), "keys on its curve (1.3.132.0.10) are not supported"),
        (options("EdDSA", None, key!("ed448.pem")), "keys of its kind (1.3.101.113) are not supported"),
        (options("RS256", key!("rsa-1024.pub.pem"), None), "2048 to 8192 bits, and not 1024"),
        (options("RS256", None, key!("rsa-1024.pem")), "2048 to 4096 bits"),
        (options("RS256", Some(b"ssh-rsa AAAA".to_vec()), None), "no key in PEM form"),
        (options("RS256", None, Some(b"-----BEGIN PRIVATE KEY-----\nAAAA\n".to_vec())), "it is no PEM"),
    ] {
        let said = refusal(&options);
        assert!(said.contains(text), "{said:?} should say {text:?}");
    }
}

#[test]
fn what_checks_may_leave_and_what_signs_may_not() {
    let both = Jwt::new(&options("RS256", key!("rsa.pub.pem"), key!("rsa.pem"))).expect("they belong together");
    let check = both.check().expect("a public key").clone();
    assert_eq!(Some(check.public_key.clone()), key!("rsa.pub.pem"));
    let token = both.sign("alice", 7, NOW).expect("a private key");
    let elsewhere = Jwt::of_check(check).expect("enough to check");
    assert_eq!(elsewhere.find(&token, NOW), Some(("alice".into(), 7)));
    assert!(elsewhere.sign("alice", 7, NOW).is_err());
    for (method, public, private) in [
        ("HS256", None, Some(b"a secret".to_vec())),
        ("HS256", Some(b"a secret".to_vec()), Some(b"a secret".to_vec())),
        ("RS256", None, key!("rsa.pem")),
    ] {
        let jwt = Jwt::new(&options(method, public, private)).expect(method);
        assert_eq!(jwt.check(), None, "{method}");
    }
}

/// One method a line, with a token.
const TOKENS: &str = include_str!("testdata/tokens.txt");

#[test]
fn tokens_that_others_have_signed_pass_and_no_other_method_takes_them() {
    let key = |method: &str| match method {
        "ES256" => key!("p256.pub.pem"),
        "ES384" => key!("p384.pub.pem"),
        "ES512" => key!("p521.pub.pem"),
        "EdDSA" => key!("ed.pub.pem"),
        _ => key!("rsa.pub.pem"),
    };
    let tokens = TOKENS.lines().map(|line| line.split_once(' ').expect("two words")).collect::<Vec<_>>();
    assert_eq!(tokens.len(), 10);
    for (method, _) in &tokens {
        let jwt = Jwt::new(&options(method, key(method), None)).expect(method);
        for (other, token) in &tokens {
            let expected = (other == method).then(|| ("alice".into(), 7));
            assert_eq!(jwt.find(token, NOW), expected, "{other} shown to {method}");
        }
    }
}

/// Whether `openssl` takes `token` for one that is signed with a key of `testdata`.
fn openssl_takes(token: &str, method: &str, public: &str) -> bool {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let signature = BASE64.decode(signature).expect("base64");
    let signature = if method.starts_with("ES") { der_of(&signature) } else { signature };
    fs::write(path("message"), message).expect("written");
    fs::write(path("signature"), signature).expect("written");
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/jwt/testdata").join(public);
    let digest = format!("-sha{}", &method[2..]);
    let mut openssl = Command::new("openssl");
    if method == "EdDSA" {
        openssl.args(["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey"]).arg(key);
        openssl.args(["-in", &path("message"), "-sigfile", &path("signature")]);
    } else {
        openssl.args(["dgst", &digest, "-verify"]).arg(key).args(["-signature", &path("signature")]);
        if method.starts_with("PS") {
            // The salt is as long as the digest.
            openssl.args(["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]);
        }
        openssl.arg(path("message"));
    }
    openssl.output().expect("openssl runs").status.success()
}

/// A signature of two numbers, as openssl has it.
fn der_of(signature: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(0)..];
        let sign: &[u8] = if bytes[0] & 0x80 == 0 { &[] } else { &[0] };
        [&[2, (sign.len() + bytes.len()) as u8], sign, bytes].concat()
    };
    let (r, s) = signature.split_at(signature.len() / 2);
    let body = [number(r), number(s)].concat();
    match body.len() {
        short @ ..=127 => [vec![0x30, short as u8], body].concat(),
        long => [vec![0x30, 0x81, long as u8], body].concat(),
    }
}

#[test]
fn openssl_takes_what_is_signed_here() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("there is no openssl here, so nobody else has looked at the signatures");
        return;
    }
    let rsa =
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].map(|method| (method, key!("rsa.pem"), "rsa.pub.pem"));
    let others = [
        ("ES256", key!("p256-sec1.pem"), "p256.pub.pem"),
        ("ES384", key!("p384-sec1.pem"), "p384.pub.pem"),
        ("ES512", key!("p521-sec1.pem"), "p521.pub.pem"),
        ("EdDSA", key!("ed.pem"), "ed.pub.pem"),
    ];
    for (method, private, public) in rsa.into_iter().chain(others) {
        let jwt = Jwt::new(&options(method, None, private)).expect(method);
        let token = jwt.sign("alice", 7, NOW).expect(method);
        assert!(openssl_takes(&token, method, public), "{method}");
        let other = jwt.sign("bob", 7, NOW).expect(method);
        let (forged, _) = other.rsplit_once('.').expect("three parts");
        let (_, signature) = token.rsplit_once('.').expect("three parts");
        assert!(!openssl_takes(&format!("{forged}.{signature}"), method, public), "{method}: signed for somebody else");
    }
}

#[test]
fn a_token_is_checked_once_and_remembered_until_its_end() {
    let jwt = Jwt::new(&options("ES512", None, key!("p521.pem"))).expect("a key");
    let token = jwt.sign("alice", 7, NOW).expect("a private key");
    assert_eq!(jwt.find("a.b.c", NOW), None);
    assert_eq!(jwt.remembered.len(), 0, "what is not good is not remembered");
    for _ in 0..3 {
        assert_eq!(jwt.find(&token, NOW), Some(("alice".into(), 7)));
        assert_eq!(jwt.remembered.len(), 1);
    }
    let end = NOW + Duration::from_secs(300);
    assert!(jwt.find(&token, end - Duration::from_secs(1)).is_some());
    assert_eq!(jwt.find(&token, end), None, "what is remembered ends no later");
    assert_eq!(jwt.remembered.len(), 0);
    assert_eq!(jwt.find(&token, end), None);
}
