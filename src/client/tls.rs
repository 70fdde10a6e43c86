//! How a client speaks TLS.

use super::Error;
use crate::tls::{ClientSettings, ClientTls, Identity, Protocol};
use std::path::PathBuf;

/// Whom to trust, and what to show. Files are PEM, and read again when they have changed.
///
/// ```no_run
/// # async fn example() -> Result<(), henge::client::Error> {
/// use henge::client::{Client, ConnectOptions, TlsOptions};
///
/// let tls = TlsOptions { trusted_ca_file: Some("ca.pem".into()), ..TlsOptions::default() };
/// let options = ConnectOptions { tls: Some(tls), ..ConnectOptions::default() };
/// let client = Client::connect(["https://db.example.com:2379"], options).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Certificate chain and private key to show to servers that ask for one.
    pub identity: Option<Identity>,
    /// The authorities to trust, instead of those that the system trusts.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whom a server's certificate must be made out to, instead of the host in its address.
    pub server_name: Option<String>,
    /// Any certificate will do. For tests: whoever can reach the connection can read and change what is said on it.
    pub insecure_skip_verify: bool,
    /// Versions and cipher suites.
    pub protocol: Protocol,
}

impl TlsOptions {
    /// What to dial with.
    ///
    /// # Errors
    /// [`Error::Tls`] with the name of a file that cannot be used.
    pub(crate) fn side(&self) -> Result<ClientTls, Error> {
        let settings = ClientSettings {
            identity: self.identity.clone(),
            trusted_ca_file: self.trusted_ca_file.clone(),
            server_name: self.server_name.clone(),
            skip_verify: self.insecure_skip_verify,
            protocol: self.protocol.clone(),
            ..ClientSettings::default()
        };
        ClientTls::new(settings).map_err(Error::Tls)
    }
}
