//! The side that dials.

use super::{
    Connection, Identity, Protocol,
    files::{self, Watched},
    roots,
    verify::{AnyServer, Named, Names},
    wrong_roots,
};
use std::{fmt, future::poll_fn, io, path::PathBuf, pin::Pin, sync::Arc, task::Poll, time::Duration};
use tokio::{io::AsyncBufRead, net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        AlertDescription, CertificateError, ClientConfig, Error, ProtocolVersion,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        pki_types::ServerName,
    },
};

/// How long a server of TLS 1.3 may take to show that it lets this side in. Few show nothing before they are asked something.
const LET_IN_MAX: Duration = Duration::from_millis(500);

/// Whom to trust, and what to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// What to show to those who ask for it.
    pub identity: Option<Identity>,
    /// The roots to trust (PEM) instead of the system's.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whom the other side's certificate must be made out to, instead of the host that is dialled.
    pub server_name: Option<String>,
    /// Any certificate will do: this keeps listeners out, not impostors.
    pub skip_verify: bool,
    /// Any of these common names must be in the certificate of the other side.
    pub allowed_cn: Vec<String>,
    /// The certificate of the other side must be good for any of these host names as well.
    pub allowed_hostname: Vec<String>,
    /// What may be spoken.
    pub protocol: Protocol,
}

/// The dialling side of TLS. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls(Arc<Side>);

struct Side {
    settings: ClientSettings,
    config: Watched<ClientConfig>,
}

impl Default for ClientTls {
    /// Trusts whom the system trusts, and shows nothing.
    fn default() -> ClientTls {
        ClientTls(Arc::new(Side { settings: ClientSettings::default(), config: Watched::new(Vec::new()) }))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientTls").field(&self.0.settings).finish()
    }
}

/// What is spoken over the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1
    One,
    /// HTTP/2, which gRPC needs.
    Two,
}

/// Why there is no connection. Nothing was sent over it.
#[derive(Debug)]
pub enum DialError {
    /// Nobody answers there.
    Tcp(io::Error),
    /// Somebody does, but TLS failed: with whom, and why.
    Tls(String),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Tcp(error) => error.fmt(f),
            DialError::Tls(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for DialError {}

/// A connection to `address` (`host:port`), with TLS if `tls` says how. It may take as long as it takes.
///
/// # Errors
/// As [`DialError`] tells them apart.
pub async fn dial(address: &str, tls: Option<&ClientTls>, http: Http) -> Result<Connection, DialError> {
    let stream = TcpStream::connect(address).await.map_err(DialError::Tcp)?;
    stream.set_nodelay(true).map_err(DialError::Tcp)?;
    let Some(tls) = tls else { return Ok(Box::pin(stream)) };
    let fail = |why: String| DialError::Tls(format!("TLS with {address}: {why}"));
    let name = tls.name(address).map_err(fail)?;
    let mut config = tls.0.config().map_err(fail)?;
    if http == Http::One {
        // A copy of what is mostly references.
        Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    let explain = |error: io::Error| fail(tls.explain(&error));
    let mut stream = TlsConnector::from(config).connect(name, stream).await.map_err(explain)?;
    let_in(&mut stream).await.map_err(explain)?;
    Ok(Box::pin(stream))
}

/// Waits until the server shows that it lets this side in. In TLS 1.3 who dials is done before the server has looked at its certificate;
/// if that is refused, whoever has begun to write sees a broken pipe, and nobody ever knows why.
async fn let_in(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    if stream.get_ref().1.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Ok(());
    }
    // Data, a ticket for the next time, or a refusal. Nothing is taken out.
    let shown = poll_fn(|context| {
        let shown = Pin::new(&mut *stream).poll_fill_buf(context).map_ok(|_| ());
        match shown.is_pending() && stream.get_ref().1.tls13_tickets_received() > 0 {
            true => Poll::Ready(Ok(())),
            false => shown,
        }
    });
    timeout(LET_IN_MAX, shown).await.unwrap_or(Ok(()))
}

impl ClientTls {
    /// Reads all files once, so that mistakes show early. The system's roots are read when they are first needed: there may be none, and
    /// nobody to dial.
    ///
    /// # Errors
    /// A text that names the file.
    pub fn new(settings: ClientSettings) -> Result<ClientTls, String> {
        let pair = settings.identity.iter().flat_map(|(cert, key)| [cert, key]);
        let files = pair.chain(&settings.trusted_ca_file).cloned().collect::<Vec<_>>();
        let names_files = !files.is_empty();
        let side = Side { settings, config: Watched::new(files) };
        if names_files {
            side.config()?;
        }
        Ok(ClientTls(Arc::new(side)))
    }

    /// Whom the certificate must be made out to.
    fn name(&self, address: &str) -> Result<ServerName<'static>, String> {
        let host = match &self.0.settings.server_name {
            Some(name) => name.as_str(),
            None => address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']),
        };
        ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is neither a host name nor an address"))
    }

    /// What an error means: what failed, against which files, and what to do.
    fn explain(&self, error: &io::Error) -> String {
        let settings = &self.0.settings;
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
        match cause {
            Some(Error::InvalidCertificate(error)) => self.explain_certificate(error),
            Some(Error::AlertReceived(alert)) => match (alert, &settings.identity) {
                (AlertDescription::CertificateRequired | AlertDescription::NoCertificate, _)
                | (AlertDescription::BadCertificate, None) => {
                    "it asks for a client certificate, and got none".to_owned()
                }
                (alert, Some((cert, _))) if is_about_the_certificate(*alert) => {
                    format!("it does not accept the client certificate {} ({alert:?})", cert.display())
                }
                (AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure, _) => {
                    format!("there is no version and cipher suite that both sides speak ({alert:?})")
                }
                (alert, _) => format!("it refuses the handshake ({alert:?})"),
            },
            Some(Error::InvalidMessage(_)) => "it does not speak TLS; is it meant to be http://?".to_owned(),
            Some(Error::PeerIncompatible(what)) => {
                format!("there is no version and cipher suite that both sides speak ({what:?})")
            }
            Some(other) => other.to_string(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                "it hung up in the middle of the handshake; does it speak TLS?".to_owned()
            }
            None => error.to_string(),
        }
    }

    fn explain_certificate(&self, error: &CertificateError) -> String {
        let trusted = match &self.0.settings.trusted_ca_file {
            Some(file) => format!("none of the authorities in {}", file.display()),
            None => "no authority that this system trusts; name the file of the right one".to_owned(),
        };
        match error {
            CertificateError::UnknownIssuer => format!("its certificate is signed by {trusted}"),
            CertificateError::BadSignature => {
                format!("its certificate has a wrong signature; it is signed by {trusted}")
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                let expected = expected.to_str();
                format!("its certificate is made out to {}, not to {expected}", presented.join(", "))
            }
            CertificateError::ApplicationVerificationFailure => {
                "its certificate has none of the allowed names".to_owned()
            }
            other => format!("its certificate is not good: {other}"),
        }
    }
}

fn is_about_the_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
    )
}

impl Side {
    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        self.config.get(|| self.settings.config())
    }
}

impl ClientSettings {
    fn config(&self) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(self.protocol.provider())
            .with_protocol_versions(&self.protocol.versions())
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier()?);
        let mut config = match &self.identity {
            Some((cert, key)) => builder
                .with_client_auth_cert(files::certificates(cert)?, files::key(key)?)
                .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let provider = self.protocol.provider();
        if self.skip_verify {
            return Ok(Arc::new(AnyServer(provider)));
        }
        let ca = self.trusted_ca_file.as_ref();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(ca)?, provider).build();
        let verifier = verifier.map_err(|error| wrong_roots(ca, &error))?;
        let names = Names::new(&self.allowed_cn, &self.allowed_hostname)?;
        Ok(Arc::new(Named { verifier: verifier as Arc<dyn ServerCertVerifier>, names }))
    }
}
