//! TLS between members, as etcd's flags mean it: certificates, whom to trust, and what a certificate must say.
//!
//! Files are read again when they have changed, so that certificates are renewed without a restart.

mod files;
mod self_signed;
mod verify;

pub use self_signed::self_signed;

use files::Watched;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        crypto::CryptoProvider,
        pki_types::CertificateRevocationListDer,
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
        version::{TLS12, TLS13},
    },
    server::TlsStream,
};
use verify::{AnyServer, Named, Names};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What the flags say. Nothing set: https peers are dialled with the system's roots, and none can be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificate chain and key (PEM) to show to whoever dials this member, and also to those it dials.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// To show to those it dials instead.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// Who dials must show a certificate.
    pub client_cert_auth: bool,
    /// The roots to trust (PEM) instead of the system's. If set, who dials must show a certificate.
    pub trusted_ca_file: Option<PathBuf>,
    /// Revoked certificates of those who dial (PEM).
    pub crl_file: Option<PathBuf>,
    /// Any of these common names must be in the certificate of the other side.
    pub allowed_cn: Vec<String>,
    /// The certificate of the other side must be good for any of these host names.
    pub allowed_hostname: Vec<String>,
    /// Don't check that the one who dials has one of the addresses and names in its certificate.
    pub skip_client_san_verification: bool,
    /// `identity` was made by [`self_signed`]: those that are dialled have certificates that nobody vouches for either.
    pub is_self_signed: bool,
    /// Lowest and highest version; none: no bound.
    pub versions: (Option<TlsVersion>, Option<TlsVersion>),
}

/// Both sides of TLS. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Sides>);

struct Sides {
    settings: TlsSettings,
    client: Watched<ClientConfig>,
    server: Watched<ServerConfig>,
}

impl Tls {
    /// Reads all files once, so that mistakes show early.
    ///
    /// # Errors
    /// A text that names the file, or the settings that contradict each other.
    pub fn new(settings: TlsSettings) -> Result<Tls, String> {
        let TlsSettings { identity, client_identity, trusted_ca_file, crl_file, .. } = &settings;
        let pairs = [identity, client_identity].into_iter().flatten().flat_map(|(cert, key)| [cert, key]);
        let files = pairs.chain(trusted_ca_file).chain(crl_file).cloned().collect::<Vec<_>>();
        let sides = Sides { settings, client: Watched::new(files.clone()), server: Watched::new(files) };
        if sides.settings.identity.is_some() {
            sides.server()?;
            sides.client()?;
        }
        Ok(Tls(Arc::new(sides)))
    }

    /// What to dial with.
    pub(super) fn connector(&self) -> Result<TlsConnector, String> {
        Ok(TlsConnector::from(self.0.client()?))
    }

    /// The handshake with one who has dialled, and whether it may be who it says.
    pub(super) async fn accept(&self, stream: TcpStream, remote: SocketAddr) -> Result<TlsStream<TcpStream>, String> {
        let acceptor = TlsAcceptor::from(self.0.server()?);
        let stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
        if !self.0.settings.skip_client_san_verification
            && let Some([certificate, ..]) = stream.get_ref().1.peer_certificates()
        {
            verify::check_address(certificate, remote.ip()).await?;
        }
        Ok(stream)
    }
}

impl Default for Tls {
    /// Without certificates of its own.
    fn default() -> Tls {
        let (client, server) = (Watched::new(Vec::new()), Watched::new(Vec::new()));
        Tls(Arc::new(Sides { settings: TlsSettings::default(), client, server }))
    }
}

impl Sides {
    fn client(&self) -> Result<Arc<ClientConfig>, String> {
        self.client.get(|| self.settings.client_config())
    }

    fn server(&self) -> Result<Arc<ServerConfig>, String> {
        self.server.get(|| self.settings.server_config())
    }
}

/// Written for C compilers that are nothing more, as `aws-lc-rs` is not.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(tokio_rustls::rustls::crypto::ring::default_provider())
}

/// gRPC is HTTP/2 and nothing else.
const ALPN: &[u8] = b"h2";

impl TlsSettings {
    fn client_config(&self) -> Result<ClientConfig, String> {
        let verifier: Arc<dyn ServerCertVerifier> = if self.is_self_signed {
            Arc::new(AnyServer(provider()))
        } else {
            let verifier = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider()).build();
            let verifier = verifier.map_err(|error| self.wrong_ca(&error))?;
            Arc::new(Named { verifier: verifier as Arc<dyn ServerCertVerifier>, names: self.names()? })
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&self.versions())
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match self.client_identity.as_ref().or(self.identity.as_ref()) {
            Some((cert, key)) => builder
                .with_client_auth_cert(files::certificates(cert)?, files::key(key)?)
                .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    fn server_config(&self) -> Result<ServerConfig, String> {
        let Some((cert, key)) = &self.identity else {
            return Err("KeyFile and CertFile are not presented".to_owned());
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&self.versions())
            .map_err(|error| error.to_string())?;
        let builder = if self.client_cert_auth || self.trusted_ca_file.is_some() {
            let mut verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider());
            if let Some(file) = &self.crl_file {
                let crls: Vec<CertificateRevocationListDer<'static>> = files::revocations(file)?;
                // Authorities without a list have revoked nothing, and only members' own certificates are on lists, as in etcd.
                verifier = verifier.with_crls(crls).allow_unknown_revocation_status();
                verifier = verifier.only_check_end_entity_revocation();
            }
            let verifier = verifier.build().map_err(|error| self.wrong_ca(&error))?;
            builder.with_client_cert_verifier(
                Arc::new(Named { verifier, names: self.names()? }) as Arc<dyn ClientCertVerifier>
            )
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder
            .with_single_cert(files::certificates(cert)?, files::key(key)?)
            .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, String> {
        let mut roots = RootCertStore::empty();
        match &self.trusted_ca_file {
            Some(file) => {
                for certificate in files::certificates(file)? {
                    roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
                }
            }
            None => {
                // Those that can't be read are not trusted; without any there is an error soon enough.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        Ok(Arc::new(roots))
    }

    fn names(&self) -> Result<Names, String> {
        Names::new(&self.allowed_cn, &self.allowed_hostname)
    }

    fn wrong_ca(&self, error: &dyn std::fmt::Display) -> String {
        match &self.trusted_ca_file {
            Some(file) => format!("{}: {error}", file.display()),
            None => format!("the system's trusted certificates: {error}"),
        }
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let (min, max) = (self.versions.0.unwrap_or(TlsVersion::Tls12), self.versions.1.unwrap_or(TlsVersion::Tls13));
        let all = [(TlsVersion::Tls12, &TLS12), (TlsVersion::Tls13, &TLS13)];
        all.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, supported)| supported).collect()
    }
}
