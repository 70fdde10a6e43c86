//! What a certificate must say beyond being vouched for.

use std::sync::Arc;
#[cfg(feature = "server")]
use std::{net::IpAddr, path::Path};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
#[cfg(feature = "server")]
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Names of which a certificate must have one; none of a kind: any.
#[derive(Debug)]
pub(super) struct Names {
    common: Vec<String>,
    hosts: Vec<ServerName<'static>>,
}

impl Names {
    pub(super) fn new(common: &[String], hosts: &[String]) -> Result<Names, String> {
        let host = |host: &String| {
            ServerName::try_from(host.clone()).map_err(|_| format!("{host:?} is neither a host name nor an address"))
        };
        Ok(Names { common: common.to_vec(), hosts: hosts.iter().map(host).collect::<Result<_, _>>()? })
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let refused = || Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        if !self.common.is_empty() {
            let (_, parsed) = X509Certificate::from_der(certificate)
                .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
            let mut names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
            if !names.any(|name| self.common.iter().any(|allowed| allowed == name)) {
                return Err(refused());
            }
        }
        if !self.hosts.is_empty() {
            let parsed = ParsedCertificate::try_from(certificate)?;
            if !self.hosts.iter().any(|host| verify_server_name(&parsed, host).is_ok()) {
                return Err(refused());
            }
        }
        Ok(())
    }
}

/// The common name in a certificate, if it has one that can be read.
#[cfg(feature = "server")]
pub(super) fn name_in(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok())?;
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

/// A verifier that asks for names as well.
#[derive(Debug)]
pub(super) struct Named<V: ?Sized> {
    pub(super) names: Names,
    pub(super) verifier: Arc<V>,
}

impl ClientCertVerifier for Named<dyn ClientCertVerifier> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(certificate, intermediates, now)?;
        self.names.check(certificate)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Named<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verifier.verify_server_cert(certificate, intermediates, server_name, ocsp_response, now)?;
        self.names.check(certificate)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Takes any server that has the key to its certificate: what `peer-auto-tls` and `insecure-skip-tls-verify` ask for. It keeps listeners out, not impostors.
#[derive(Debug)]
pub(super) struct AnyServer(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The first common name in a certificate (PEM); `None` if it has none.
///
/// # Errors
/// A text that names the file.
#[cfg(feature = "server")]
pub fn common_name(file: &Path) -> Result<Option<String>, String> {
    let certificates = super::files::certificates(file)?;
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let first = certificates.first().ok_or_else(|| fail(&"there is no certificate in it"))?;
    X509Certificate::from_der(first).map_err(|error| fail(&error))?;
    Ok(name_in(first))
}

/// Addresses and names of a certificate.
#[cfg(feature = "server")]
struct Alternatives {
    addresses: Vec<IpAddr>,
    names: Vec<String>,
}

#[cfg(feature = "server")]
fn alternatives(certificate: &CertificateDer<'_>) -> Result<Alternatives, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let extension = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let (mut addresses, mut names) = (Vec::new(), Vec::new());
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)));
            }
            _ => {}
        }
    }
    Ok(Alternatives { addresses, names })
}

/// Whether a certificate is made out to the one who shows it: to its address, or to a name that leads there. One without addresses
/// and names is good for everybody, as in etcd; so is a name with a star for every host of the domain, if the address leads back.
///
/// # Errors
/// etcd's text, with what the certificate says.
#[cfg(feature = "server")]
pub async fn check_address(certificate: &CertificateDer<'_>, remote: IpAddr) -> Result<(), String> {
    let Alternatives { addresses, names } = alternatives(certificate)?;
    let remote = remote.to_canonical();
    if (addresses.is_empty() && names.is_empty()) || addresses.contains(&remote) {
        return Ok(());
    }
    let (domains, hosts): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.starts_with("*."));
    for host in hosts {
        // A name that leads nowhere is as good as one that leads elsewhere.
        let found = tokio::net::lookup_host((host.as_str(), 0)).await;
        if found.is_ok_and(|mut found| found.any(|address| address.ip().to_canonical() == remote)) {
            return Ok(());
        }
    }
    if !domains.is_empty() {
        let back = tokio::task::spawn_blocking(move || dns_lookup::lookup_addr(&remote)).await;
        if let Ok(Ok(name)) = back
            && domains.iter().any(|domain| name.trim_end_matches('.').ends_with(&domain[1..]))
        {
            return Ok(());
        }
    }
    Err(format!("tls: {remote} does not match any of addresses {addresses:?} and DNSNames {names:?}"))
}
