//! What the flags say about TLS between members.

use super::{check::Reader, value::Url};
use std::path::PathBuf;

/// Certificates of members, and whom they trust. Each field is the flag of the same name with `peer-` before it, unless it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PeerTls {
    /// `peer-cert-file` and `peer-key-file`.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// `peer-client-cert-file` and `peer-client-key-file`.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    pub client_cert_auth: bool,
    pub trusted_ca_file: Option<PathBuf>,
    pub crl_file: Option<PathBuf>,
    pub cert_allowed_cn: Vec<String>,
    pub cert_allowed_hostname: Vec<String>,
    pub auto_tls: bool,
    pub skip_client_san_verification: bool,
    /// `self-signed-cert-validity`
    pub validity_years: u32,
    /// `tls-min-version` and `tls-max-version`.
    pub versions: (Option<TlsVersion>, Option<TlsVersion>),
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl PeerTls {
    pub(super) fn read(read: &mut Reader<'_>) -> PeerTls {
        PeerTls {
            identity: pair(read, "peer-cert-file", "peer-key-file"),
            client_identity: pair(read, "peer-client-cert-file", "peer-client-key-file"),
            client_cert_auth: read.bool("peer-client-cert-auth"),
            trusted_ca_file: read.path("peer-trusted-ca-file"),
            crl_file: read.path("peer-crl-file"),
            cert_allowed_cn: read.list("peer-cert-allowed-cn"),
            cert_allowed_hostname: read.list("peer-cert-allowed-hostname"),
            auto_tls: read.bool("peer-auto-tls"),
            skip_client_san_verification: read.bool("peer-skip-client-san-verification"),
            validity_years: read.int("self-signed-cert-validity", 1, 100) as u32,
            versions: (version(read, "tls-min-version"), version(read, "tls-max-version")),
        }
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
        if let (Some(min), Some(max)) = self.versions
            && min > max
        {
            mistakes.push("min version (TLS1.3) is greater than max version (TLS1.2)".to_owned());
        }
        let with_tls = listen.iter().find(|url| url.scheme == "https");
        if let Some(url) = with_tls.filter(|_| self.identity.is_none() && !self.auto_tls) {
            mistakes.push(format!("cannot listen on TLS for {}: KeyFile and CertFile are not presented", url.address));
        }
        mistakes
    }

    /// What has no effect.
    pub(super) fn warnings(&self, listen: &[Url]) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.auto_tls && self.identity.is_some() {
            warnings.push("--peer-auto-tls has no effect: certificates for members are given".to_owned());
        }
        for url in listen.iter().filter(|url| url.scheme == "http" && self.identity.is_some()) {
            warnings.push(format!(
                "{url}: scheme is HTTP while key and cert files are present; ignoring key and cert files"
            ));
        }
        warnings
    }
}

fn pair(read: &mut Reader<'_>, cert: &str, key: &str) -> Option<(PathBuf, PathBuf)> {
    match (read.path(cert), read.path(key)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (cert, key) => {
            let shown = |path: Option<PathBuf>| path.unwrap_or_default().display().to_string();
            let (key, cert) = (shown(key), shown(cert));
            read.wrong(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"));
            None
        }
    }
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
    fn what_contradicts_itself_is_refused() {
        let half = "KeyFile and CertFile must both be present[key: , cert: c.pem]";
        assert_eq!(check(&[PAIR[0]]).unwrap_err(), [half]);
        let names = [("peer-cert-allowed-cn", "a,b"), ("peer-cert-allowed-hostname", "c")];
        let both = r#"AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a", "b"], hostnames=["c"])"#;
        assert_eq!(check(&names).unwrap_err(), [both]);
        let versions = [("tls-min-version", "TLS1.3"), ("tls-max-version", "TLS1.2")];
        assert_eq!(check(&versions).unwrap_err().len(), 1);
        assert_eq!(check(&[("tls-min-version", "SSL3")]).unwrap_err().len(), 1);
    }
}
