use super::*;

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
        ("ES384", key!("p384.pem")),
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
        ("ES256", key!("p256.pub.pem"), key!("p256.pem")),
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
        (options("ES512", None, key!("p256.pem")), "not supported"),
        (options("RS256", None, None), "neither"),
        (options("RS256", key!("p256.pub.pem"), None), "pub-key"),
        (options("RS256", None, key!("p256.pem")), "priv-key"),
        (options("ES384", None, key!("p256.pem")), "priv-key"),
        (options("ES256", None, key!("p256-sec1.pem")), "openssl pkcs8"),
        (options("ES256", key!("p256.pub.pem"), key!("p384.pem")), "priv-key"),
        (options("HS256", None, None), "the secret"),
        (options("RS256", key!("ed.pub.pem"), key!("rsa.pem")), "pub-key"),
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
