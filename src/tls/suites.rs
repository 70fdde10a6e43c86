//! Names of cipher suites, as Go spells them: flags and files of etcd use them.

use tokio_rustls::rustls::CipherSuite;

/// What a name means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// One of TLS 1.2 that is spoken.
    Spoken(CipherSuite),
    /// One of TLS 1.3: always allowed.
    Always,
    /// Go has it, and it is not spoken here, being too weak: it has no forward secrecy, or no authenticated encryption.
    Weak,
}

/// The suite of that name; `None` if Go has none.
pub fn suite(name: &str) -> Option<Suite> {
    // Before Go 1.14 these two had no hash in their names.
    let name = match name {
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        other => other,
    };
    let row = SPOKEN.iter().find(|(spoken, _)| *spoken == name).map(|(_, suite)| Suite::Spoken(*suite));
    row.or_else(|| ALWAYS.contains(&name).then_some(Suite::Always))
        .or_else(|| WEAK.contains(&name).then_some(Suite::Weak))
}

const SPOKEN: &[(&str, CipherSuite)] = &[
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];
const ALWAYS: &[&str] = &["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
const WEAK: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_gos() {
        let spoken = CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256;
        assert_eq!(suite("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"), Some(Suite::Spoken(spoken)));
        assert_eq!(suite("TLS_AES_128_GCM_SHA256"), Some(Suite::Always));
        assert_eq!(suite("TLS_RSA_WITH_AES_128_CBC_SHA"), Some(Suite::Weak));
        assert_eq!(suite("TLS13_AES_128_GCM_SHA256"), None);
    }

    #[test]
    fn what_is_spoken_is_what_the_library_speaks() {
        let provider = super::super::Protocol::default().provider();
        let mut old = provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).map(|suite| suite.suite());
        assert!(old.all(|suite| SPOKEN.iter().any(|(_, spoken)| *spoken == suite)));
        assert_eq!(provider.cipher_suites.len(), SPOKEN.len() + ALWAYS.len());
    }
}
