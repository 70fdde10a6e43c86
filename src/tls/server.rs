//! The side that is dialled.

use super::{
    Identity, Protocol,
    files::{self, Watched},
    gate::{Gate, Turn},
    roots,
    verify::{self, Named, Names},
    wrong_roots,
};
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
    server::TlsStream,
};

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The first byte of whoever speaks TLS; no HTTP begins with it.
const HANDSHAKE_RECORD: u8 = 0x16;

/// What a listener shows, and whom it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// What it shows.
    pub identity: Identity,
    /// Who dials must show a certificate.
    pub client_cert_auth: bool,
    /// The roots of that certificate (PEM) instead of the system's. If set, who dials must show one.
    pub trusted_ca_file: Option<PathBuf>,
    /// Revoked certificates of those who dial (PEM or DER).
    pub crl_file: Option<PathBuf>,
    /// Any of these common names must be in the certificate.
    pub allowed_cn: Vec<String>,
    /// The certificate must be good for any of these host names.
    pub allowed_hostname: Vec<String>,
    /// What may be spoken.
    pub protocol: Protocol,
    /// What may be spoken above it, best first: `h2`, `http/1.1`.
    pub alpn: &'static [&'static str],
}

/// The listening side of TLS; all clones count as one when handshakes under way are bounded.
#[derive(Clone)]
pub struct ServerTls(Arc<Side>);

struct Side {
    settings: ServerSettings,
    config: Watched<ServerConfig>,
    gate: Gate,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(&self.0.settings).finish()
    }
}

/// A connection whose first words have been heard.
pub enum Spoken {
    /// It spoke TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// It did not.
    Plain(TcpStream),
}

/// Who has dialled, by the common name in the certificate that was shown and found good.
pub fn name_shown<S>(stream: &TlsStream<S>) -> Option<String> {
    let certificates = stream.get_ref().1.peer_certificates()?;
    verify::name_in(certificates.first()?)
}

impl ServerTls {
    /// Reads all files once, so that mistakes show early.
    ///
    /// # Errors
    /// A text that names the file, or the settings that contradict each other.
    pub fn new(settings: ServerSettings) -> Result<ServerTls, String> {
        let (cert, key) = &settings.identity;
        let files = [cert, key].into_iter().chain(&settings.trusted_ca_file).chain(&settings.crl_file).cloned();
        let side = Side { config: Watched::new(files.collect()), settings, gate: Gate::default() };
        side.config()?;
        Ok(ServerTls(Arc::new(side)))
    }

    /// Waits until another handshake may begin: not at all unless very many are under way.
    pub async fn enter(&self) -> Turn {
        self.0.gate.enter().await
    }

    /// The handshake with one who has dialled.
    ///
    /// # Errors
    /// A text: it says nothing in time, or nonsense, or shows a certificate that is not good enough.
    pub async fn accept<S>(&self, stream: S, mut turn: Turn) -> Result<TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.0.config()?);
        let handshake = async { acceptor.accept(stream).await.map_err(|error| error.to_string()) };
        within_its_turn(&mut turn, handshake).await
    }

    /// As [`ServerTls::accept`], on a port where plain HTTP is spoken as well.
    ///
    /// # Errors
    /// The same.
    pub async fn accept_either(&self, stream: TcpStream, mut turn: Turn) -> Result<Spoken, String> {
        let mut first = [0];
        let peek = async { stream.peek(&mut first).await.map_err(|error| error.to_string()) };
        within_its_turn(&mut turn, peek).await?;
        match first {
            [HANDSHAKE_RECORD] => Ok(Spoken::Tls(Box::new(self.accept(stream, turn).await?))),
            _ => Ok(Spoken::Plain(stream)),
        }
    }
}

async fn within_its_turn<T>(turn: &mut Turn, step: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::select! {
        done = timeout(HANDSHAKE_MAX, step) => {
            done.unwrap_or_else(|_| Err(format!("no TLS handshake within {} s", HANDSHAKE_MAX.as_secs())))
        }
        () = turn.taken_away() => Err("too many TLS handshakes are under way, and this one was the slowest".to_owned()),
    }
}

impl Side {
    fn config(&self) -> Result<Arc<ServerConfig>, String> {
        self.config.get(|| self.settings.config())
    }
}

impl ServerSettings {
    fn config(&self) -> Result<ServerConfig, String> {
        let builder = ServerConfig::builder_with_provider(self.protocol.provider())
            .with_protocol_versions(&self.protocol.versions())
            .map_err(|error| error.to_string())?;
        let builder = match self.client_cert_auth || self.trusted_ca_file.is_some() {
            true => builder.with_client_cert_verifier(self.verifier()?),
            false => builder.with_no_client_auth(),
        };
        let (cert, key) = &self.identity;
        let mut config = builder
            .with_single_cert(files::certificates(cert)?, files::key(key)?)
            .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))?;
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(config)
    }

    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let ca = self.trusted_ca_file.as_ref();
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots(ca)?, self.protocol.provider());
        if let Some(file) = &self.crl_file {
            // Authorities without a list have revoked nothing, and only certificates of those who dial are on lists, as in etcd.
            verifier = verifier.with_crls(files::revocations(file)?).allow_unknown_revocation_status();
            verifier = verifier.only_check_end_entity_revocation();
        }
        let verifier = verifier.build().map_err(|error| wrong_roots(ca, &error))?;
        let names = Names::new(&self.allowed_cn, &self.allowed_hostname)?;
        Ok(Arc::new(Named { verifier, names }))
    }
}
