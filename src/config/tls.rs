//! What the flags say about TLS: between members, and for clients.

use super::{reader::Reader, value::Url};
use crate::tls::{Identity, Protocol, Suite, TlsVersion, suite};
use std::path::PathBuf;

/// Certificates of one side, and whom it trusts. For clients each field is the flag of the same name, for members the one with `peer-`
/// before it, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TlsFlags {
    kind: &'static Kind,
    /// `cert-file` and `key-file`.
    pub identity: Option<Identity>,
    /// `peer-client-cert-file` and `peer-client-key-file`. For clients it has no meaning.
    pub client_identity: Option<Identity>,
    pub client_cert_auth: bool,
    pub trusted_ca_file: Option<PathBuf>,
    /// `client-crl-file`
    pub crl_file: Option<PathBuf>,
    /// `client-cert-allowed-cn`
    pub cert_allowed_cn: Vec<String>,
    /// `client-cert-allowed-hostname`
    pub cert_allowed_hostname: Vec<String>,
    /// `ring-proxy-cn`: only of clients.
    pub ring_proxy_cn: Vec<String>,
    pub auto_tls: bool,
    /// Only between members: whoever is a client may come from anywhere.
    pub skip_client_san_verification: bool,
    /// `self-signed-cert-validity` of both.
    pub validity_years: u32,
    /// `tls-min-version`, `tls-max-version` and `cipher-suites` of both.
    pub protocol: Protocol,
}

/// The names of one side's flags.
#[derive(Debug, PartialEq, Eq)]
struct Kind {
    is_for_members: bool,
    cert: &'static str,
    key: &'static str,
    client_cert_auth: &'static str,
    trusted_ca: &'static str,
    crl: &'static str,
    allowed_cn: &'static str,
    allowed_hostname: &'static str,
    auto_tls: &'static str,
}

const MEMBERS: Kind = Kind {
    is_for_members: true,
    cert: "peer-cert-file",
    key: "peer-key-file",
    client_cert_auth: "peer-client-cert-auth",
    trusted_ca: "peer-trusted-ca-file",
    crl: "peer-crl-file",
    allowed_cn: "peer-cert-allowed-cn",
    allowed_hostname: "peer-cert-allowed-hostname",
    auto_tls: "peer-auto-tls",
};
const CLIENTS: Kind = Kind {
    is_for_members: false,
    cert: "cert-file",
    key: "key-file",
    client_cert_auth: "client-cert-auth",
    trusted_ca: "trusted-ca-file",
    crl: "client-crl-file",
    allowed_cn: "client-cert-allowed-cn",
    allowed_hostname: "client-cert-allowed-hostname",
    auto_tls: "auto-tls",
};

impl TlsFlags {
    pub(super) fn of_peers(read: &mut Reader<'_>) -> TlsFlags {
        TlsFlags {
            client_identity: pair(read, "peer-client-cert-file", "peer-client-key-file", "Client"),
            skip_client_san_verification: read.bool("peer-skip-client-san-verification"),
            ..TlsFlags::read(read, &MEMBERS)
        }
    }

    pub(super) fn of_clients(read: &mut Reader<'_>) -> TlsFlags {
        if read.knows("client-cert-file") {
            pair(read, "client-cert-file", "client-key-file", "Client");
        }
        TlsFlags { ring_proxy_cn: read.list("ring-proxy-cn"), ..TlsFlags::read(read, &CLIENTS) }
    }

    fn read(read: &mut Reader<'_>, kind: &'static Kind) -> TlsFlags {
        TlsFlags {
            kind,
            identity: pair(read, kind.cert, kind.key, ""),
            client_identity: None,
            client_cert_auth: read.bool(kind.client_cert_auth),
            trusted_ca_file: read.path(kind.trusted_ca),
            crl_file: read.path(kind.crl),
            cert_allowed_cn: read.list(kind.allowed_cn),
            cert_allowed_hostname: read.list(kind.allowed_hostname),
            ring_proxy_cn: Vec::new(),
            auto_tls: read.bool(kind.auto_tls),
            skip_client_san_verification: false,
            validity_years: read.int("self-signed-cert-validity", 0, 100) as u32,
            protocol: Protocol {
                versions: (version(read, "tls-min-version"), version(read, "tls-max-version")),
                cipher_suites: cipher_suites(read),
            },
        }
    }

    /// Whether there is, or will be, something to show.
    pub(super) fn has_identity(&self) -> bool {
        self.identity.is_some() || self.auto_tls
    }

    /// Whether whoever comes has to show a certificate.
    fn asks_for_certificates(&self) -> bool {
        self.client_cert_auth || self.trusted_ca_file.is_some()
    }

    /// What is wrong with serving `listen` with it.
    pub(super) fn mistakes(&self, listen: &[Url]) -> Vec<String> {
        let mut mistakes = Vec::new();
        let (cns, hosts) = (&self.cert_allowed_cn, &self.cert_allowed_hostname);
        if !cns.is_empty() && !hosts.is_empty() {
            mistakes.push(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={cns:?}, hostnames={hosts:?})"
            ));
        }
        if !self.ring_proxy_cn.is_empty() && !self.asks_for_certificates() {
            let (auth, ca) = (self.kind.client_cert_auth, self.kind.trusted_ca);
            mistakes.push(format!("--ring-proxy-cn needs --{auth} or --{ca}: a name counts only if it was checked"));
        }
        if self.auto_tls && self.identity.is_none() && self.validity_years == 0 {
            mistakes.push("selfSignedCertValidity is invalid,it should be greater than 0".to_owned());
        }
        for url in listen.iter().filter(|url| url.is_secure() && !self.has_identity()) {
            mistakes.push(match self.kind.is_for_members {
                true => format!("cannot listen on TLS for {}: KeyFile and CertFile are not presented", url.address),
                false => {
                    format!(
                        "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
                    )
                }
            });
        }
        mistakes
    }

    /// What has no effect.
    pub(super) fn warnings(&self, listen: &[Url]) -> Vec<String> {
        let (kind, mut warnings) = (self.kind, Vec::new());
        if self.auto_tls && self.identity.is_some() {
            warnings.push(format!("--{} has no effect: a certificate is given", kind.auto_tls));
        }
        for url in listen.iter().filter(|url| !url.is_secure()) {
            if self.identity.is_some() {
                warnings.push(format!(
                    "{url}: scheme is HTTP while key and cert files are present; ignoring key and cert files"
                ));
            }
            if self.client_cert_auth && !kind.is_for_members {
                warnings.push(format!(
                    "{url}: scheme is HTTP while --client-cert-auth is enabled; ignoring client cert auth for this URL"
                ));
            }
        }
        if !kind.is_for_members {
            let weak = self.protocol.cipher_suites.iter().filter(|name| suite(name) == Some(Suite::Weak));
            warnings.extend(weak.map(|name| format!("--cipher-suites: {name} is too weak to be spoken")));
        }
        // Nobody is asked for a certificate, so nothing is looked at.
        if !self.asks_for_certificates() {
            let names = [
                (kind.crl, self.crl_file.is_some()),
                (kind.allowed_cn, !self.cert_allowed_cn.is_empty()),
                (kind.allowed_hostname, !self.cert_allowed_hostname.is_empty()),
            ];
            for (name, _) in names.iter().filter(|(_, is_set)| *is_set) {
                let (auth, ca) = (kind.client_cert_auth, kind.trusted_ca);
                warnings.push(format!("--{name} does not keep anybody out without --{auth} or --{ca}"));
            }
        }
        warnings
    }
}

impl Reader<'_> {
    /// What is wrong with the protocol that all sides share.
    pub(super) fn protocol_mistakes(&mut self, protocol: &Protocol) {
        let (min, max) = protocol.versions;
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            self.wrong("min version (TLS1.3) is greater than max version (TLS1.2)".to_owned());
        }
        let suites = protocol.cipher_suites.iter().map(|name| (name, suite(name))).collect::<Vec<_>>();
        if min == Some(TlsVersion::Tls13) && !suites.is_empty() {
            self.wrong("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned());
        }
        for (name, _) in suites.iter().filter(|(_, suite)| suite.is_none()) {
            self.wrong(format!("unexpected TLS cipher suite {name:?}"));
        }
        if !suites.is_empty() && suites.iter().all(|(_, suite)| *suite == Some(Suite::Weak)) {
            self.wrong(
                "none of --cipher-suites is spoken: they have no forward secrecy or no authenticated encryption"
                    .to_owned(),
            );
        }
    }
}

pub(super) fn pair(read: &mut Reader<'_>, cert: &str, key: &str, whose: &str) -> Option<Identity> {
    match (read.path(cert), read.path(key)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (cert, key) => {
            let shown = |path: Option<PathBuf>| path.unwrap_or_default().display().to_string();
            let (key, cert) = (shown(key), shown(cert));
            read.wrong(format!("{whose}KeyFile and {whose}CertFile must both be present[key: {key}, cert: {cert}]"));
            None
        }
    }
}

/// etcd's proxy has a spelling of its own.
fn cipher_suites(read: &mut Reader<'_>) -> Vec<String> {
    let mut names = read.list("cipher-suites");
    if read.knows("listen-cipher-suites") {
        names.extend(read.list("listen-cipher-suites"));
    }
    names.iter().map(|name| name.trim().to_owned()).collect()
}

fn version(read: &mut Reader<'_>, name: &str) -> Option<TlsVersion> {
    read.value(name, |text| match text {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(TlsVersion::Tls12)),
        "TLS1.3" => Ok(Some(TlsVersion::Tls13)),
        _ => Err(format!("unexpected TLS version {text:?} (must be one of: TLS1.2, TLS1.3)")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn check(pairs: &[(&'static str, &str)]) -> Result<(Config, Vec<String>), Vec<String>> {
        let settings = pairs.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        let mut warnings = Vec::new();
        Config::from_settings(&settings, &mut warnings).map(|config| (config, warnings))
    }

    const HTTPS: (&str, &str) = ("listen-peer-urls", "https://127.0.0.1:2380");
    const PAIR: [(&str, &str); 2] = [("peer-cert-file", "c.pem"), ("peer-key-file", "k.pem")];

    #[test]
    fn https_between_members_needs_certificates_of_some_kind() {
        let missing = "cannot listen on TLS for 127.0.0.1:2380: KeyFile and CertFile are not presented";
        assert_eq!(check(&[HTTPS]).unwrap_err(), [missing]);
        assert!(check(&[HTTPS, ("peer-auto-tls", "true")]).unwrap().0.peer_tls.auto_tls);
        let (config, warnings) = check(&[HTTPS, PAIR[0], PAIR[1]]).unwrap();
        assert_eq!(config.peer_tls.identity, Some(("c.pem".into(), "k.pem".into())));
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(check(&PAIR).unwrap().1.len(), 1, "plain HTTP makes no use of them");
    }

    #[test]
    fn no_years_are_too_few_for_a_certificate_that_is_made() {
        let none = ("self-signed-cert-validity", "0");
        assert!(check(&[none]).is_ok());
        let said = check(&[HTTPS, none, ("peer-auto-tls", "true")]).unwrap_err();
        assert_eq!(said, ["selfSignedCertValidity is invalid,it should be greater than 0"]);
        let settings = [HTTPS, none, ("peer-auto-tls", "true"), PAIR[0], PAIR[1]];
        assert!(check(&settings).is_ok(), "none is made");
    }

    #[test]
    fn https_for_clients_needs_certificates_of_some_kind() {
        let advertised = ("advertise-client-urls", "https://127.0.0.1:2379");
        let both = ("listen-client-urls", "http://127.0.0.1:1,https://127.0.0.1:2379");
        let missing = "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:2379 with HTTPS scheme";
        assert_eq!(check(&[both, advertised]).unwrap_err(), [missing]);
        let metrics = ("listen-metrics-urls", "https://127.0.0.1:3");
        assert_eq!(check(&[metrics]).unwrap_err().len(), 1);
        assert!(check(&[both, advertised, metrics, ("auto-tls", "true")]).unwrap().0.client_tls.auto_tls);
        let pair = [("cert-file", "c.pem"), ("key-file", "k.pem")];
        let (_, warnings) = check(&[both, advertised, pair[0], pair[1], ("client-cert-auth", "true")]).unwrap();
        let expected = [
            "http://127.0.0.1:1: scheme is HTTP while key and cert files are present; ignoring key and cert files",
            "http://127.0.0.1:1: scheme is HTTP while --client-cert-auth is enabled; ignoring client cert auth for this URL",
        ];
        assert_eq!(warnings, expected);
    }

    #[test]
    fn what_keeps_nobody_out_is_said() {
        let names = [("client-crl-file", "crl.pem"), ("client-cert-allowed-hostname", "a")];
        let warnings = check(&names).unwrap().1;
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("--client-crl-file does not keep anybody out"), "{warnings:?}");
        assert!(check(&[names[0], names[1], ("trusted-ca-file", "ca.pem")]).unwrap().1.is_empty());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let half = "KeyFile and CertFile must both be present[key: , cert: c.pem]";
        assert_eq!(check(&[PAIR[0]]).unwrap_err(), [half]);
        assert_eq!(check(&[("cert-file", "c.pem")]).unwrap_err(), [half]);
        let half = "ClientKeyFile and ClientCertFile must both be present[key: k.pem, cert: ]";
        assert_eq!(check(&[("client-key-file", "k.pem")]).unwrap_err(), [half]);
        let names = [("peer-cert-allowed-cn", "a,b"), ("peer-cert-allowed-hostname", "c")];
        let both = r#"AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a", "b"], hostnames=["c"])"#;
        assert_eq!(check(&names).unwrap_err(), [both]);
        let versions = [("tls-min-version", "TLS1.3"), ("tls-max-version", "TLS1.2")];
        assert_eq!(check(&versions).unwrap_err(), ["min version (TLS1.3) is greater than max version (TLS1.2)"]);
        assert_eq!(check(&[("tls-min-version", "SSL3")]).unwrap_err().len(), 1);
        let url = "http://127.0.0.1:2379";
        let twice = [("listen-client-urls", url), ("advertise-client-urls", url), ("listen-client-http-urls", url)];
        let both =
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://127.0.0.1:2379";
        assert_eq!(check(&twice).unwrap_err(), [both]);
    }

    #[test]
    fn cipher_suites_are_gos_and_one_of_them_must_be_spoken() {
        let suites =
            |text| check(&[("cipher-suites", text)]).map(|(config, _)| config.client_tls.protocol.cipher_suites);
        let good = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_CBC_SHA";
        let warnings = check(&[("cipher-suites", good)]).unwrap().1;
        assert_eq!(warnings, ["--cipher-suites: TLS_RSA_WITH_AES_128_CBC_SHA is too weak to be spoken"]);
        assert_eq!(suites(good).unwrap().len(), 2);
        assert_eq!(suites("TLS_NONSENSE").unwrap_err(), [r#"unexpected TLS cipher suite "TLS_NONSENSE""#]);
        assert_eq!(suites("TLS_RSA_WITH_AES_128_CBC_SHA").unwrap_err().len(), 1);
        let only_new = check(&[("cipher-suites", good), ("tls-min-version", "TLS1.3")]).unwrap_err();
        assert_eq!(only_new, ["cipher suites cannot be configured when only TLS1.3 is enabled"]);
    }
}
