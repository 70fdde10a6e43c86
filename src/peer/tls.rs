//! TLS between members, as etcd's flags mean it: one set of settings for both sides.

use crate::tls::{ClientSettings, ClientTls, Identity, Protocol, ServerSettings, ServerTls, Turn, check_address};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::server::TlsStream;

/// How long it may take to find out where the names in a certificate lead.
const LOOK_UP_MAX: Duration = Duration::from_secs(5);

/// What the flags say. Nothing set: https peers are dialled with the system's roots, and none can be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// What to show to whoever dials this member, and also to those it dials.
    pub identity: Option<Identity>,
    /// To show to those it dials instead.
    pub client_identity: Option<Identity>,
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
    /// `identity` was made by [`crate::tls::self_signed`]: those that are dialled have certificates that nobody vouches for either.
    pub is_self_signed: bool,
    /// What may be spoken.
    pub protocol: Protocol,
}

/// Both sides of TLS. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tls {
    client: ClientTls,
    server: Option<ServerTls>,
    skip_client_san_verification: bool,
}

impl Tls {
    /// Reads all files once, so that mistakes show early.
    ///
    /// # Errors
    /// A text that names the file, or the settings that contradict each other.
    pub fn new(settings: TlsSettings) -> Result<Tls, String> {
        let skip_client_san_verification = settings.skip_client_san_verification;
        let Some(identity) = settings.identity.clone() else {
            return Ok(Tls { client: ClientTls::new(settings.client())?, server: None, skip_client_san_verification });
        };
        let server = ServerTls::new(ServerSettings {
            identity,
            client_cert_auth: settings.client_cert_auth,
            trusted_ca_file: settings.trusted_ca_file.clone(),
            crl_file: settings.crl_file.clone(),
            allowed_cn: settings.allowed_cn.clone(),
            allowed_hostname: settings.allowed_hostname.clone(),
            protocol: settings.protocol.clone(),
            // Members speak gRPC, which is HTTP/2; whoever looks after them need not.
            alpn: &["h2", "http/1.1"],
        })?;
        Ok(Tls { client: ClientTls::new(settings.client())?, server: Some(server), skip_client_san_verification })
    }

    /// What to dial with.
    pub(super) fn client(&self) -> &ClientTls {
        &self.client
    }

    /// Waits until another handshake may begin.
    ///
    /// # Errors
    /// There is no certificate to show.
    pub(super) async fn enter(&self) -> Result<Turn, String> {
        Ok(self.server()?.enter().await)
    }

    /// The handshake with one who has dialled, and whether it may be who it says.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        turn: Turn,
    ) -> Result<TlsStream<TcpStream>, String> {
        let stream = self.server()?.accept(stream, turn).await?;
        if !self.skip_client_san_verification
            && let Some([certificate, ..]) = stream.get_ref().1.peer_certificates()
        {
            let checked = timeout(LOOK_UP_MAX, check_address(certificate, remote.ip())).await;
            checked.unwrap_or_else(|_| {
                Err(format!("no name server says whether its certificate is made out to {remote}"))
            })?;
        }
        Ok(stream)
    }

    fn server(&self) -> Result<&ServerTls, String> {
        self.server.as_ref().ok_or_else(|| "KeyFile and CertFile are not presented".to_owned())
    }
}

impl TlsSettings {
    fn client(&self) -> ClientSettings {
        ClientSettings {
            identity: self.client_identity.clone().or_else(|| self.identity.clone()),
            trusted_ca_file: self.trusted_ca_file.clone(),
            server_name: None,
            skip_verify: self.is_self_signed,
            allowed_cn: self.allowed_cn.clone(),
            allowed_hostname: self.allowed_hostname.clone(),
            protocol: self.protocol.clone(),
        }
    }
}
