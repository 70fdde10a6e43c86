//! TLS, for whoever listens and whoever dials: members among each other, clients, proxies, tools.
//!
//! **Promises.** Files are read again when they have changed, so certificates, keys, authorities and revocations are renewed without a
//! restart; files that make no sense are named in the log, and the ones before are used on. A handshake has a deadline, and those under
//! way are bounded: silence and garbage cost a little memory for a short time, and nobody else's connection. Who dials is told what is
//! wrong with which certificate. **May not know** what is said over a connection, or which flag a setting came from.
//!
//! ```text
//!   server: ServerTls ─┐            ┌─ files   PEM files, and what is made of them until they change
//!   client: ClientTls ─┴─ Protocol ─┼─ verify  what a certificate must say beyond being vouched for
//!   gate: handshakes under way      └─ suites  names of cipher suites, as Go spells them
//! ```

mod client;
mod files;
#[cfg(feature = "server")]
mod gate;
#[cfg(feature = "server")]
mod self_signed;
#[cfg(feature = "server")]
mod server;
mod suites;
mod verify;

pub use client::{ClientSettings, ClientTls, DialError, Http, dial};
#[cfg(feature = "server")]
pub use gate::Turn;
#[cfg(feature = "server")]
pub use self_signed::self_signed;
#[cfg(feature = "server")]
pub use server::{ServerSettings, ServerTls, Spoken, name_shown};
pub use suites::{Suite, suite};
#[cfg(feature = "server")]
pub use verify::{check_address, common_name};

use std::{path::PathBuf, pin::Pin, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::{
    RootCertStore, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    version::{TLS12, TLS13},
};

/// Certificate chain and private key, both PEM files.
pub type Identity = (PathBuf, PathBuf);

/// Both ways of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}
/// A connection, with or without TLS.
pub type Connection = Pin<Box<dyn Stream>>;

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What may be spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    /// Lowest and highest version; none: no bound.
    pub versions: (Option<TlsVersion>, Option<TlsVersion>),
    /// Cipher suites of TLS 1.2 to allow, as Go spells them; none: all. Those of TLS 1.3 are not to be chosen, as in Go.
    pub cipher_suites: Vec<String>,
}

impl Protocol {
    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let (min, max) = (self.versions.0.unwrap_or(TlsVersion::Tls12), self.versions.1.unwrap_or(TlsVersion::Tls13));
        let all = [(TlsVersion::Tls12, &TLS12), (TlsVersion::Tls13, &TLS13)];
        all.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, supported)| supported).collect()
    }

    /// Written for C compilers that are nothing more, as `aws-lc-rs` is not.
    fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = ring::default_provider();
        if !self.cipher_suites.is_empty() {
            let chosen = self.cipher_suites.iter().filter_map(|name| match suite(name) {
                Some(Suite::Spoken(suite)) => Some(suite),
                _ => None,
            });
            let chosen = chosen.collect::<Vec<_>>();
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || chosen.contains(&suite.suite()));
        }
        Arc::new(provider)
    }
}

/// The roots of trust: those in `file`, or the system's.
fn roots(file: Option<&PathBuf>) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    match file {
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

/// What is wrong with [`roots`].
fn wrong_roots(file: Option<&PathBuf>, error: &dyn std::fmt::Display) -> String {
    match file {
        Some(file) => format!("{}: {error}", file.display()),
        None => format!("the system's trusted certificates: {error}"),
    }
}

#[cfg(all(test, feature = "server"))]
pub(crate) mod tests;
