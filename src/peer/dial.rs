//! Connections to peers.

use super::tls::Tls;
use crate::tls::{Http, dial};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Makes connections; one for each that asks, never shared.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) tls: Tls,
    /// How long a connection may take to come about.
    pub(super) patience: Duration,
}

/// How long a connection may be silent before it is asked whether it lives, and how long the answer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeepAlive {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

impl Dialer {
    /// A connection of its own to `url`.
    ///
    /// # Errors
    /// A text: the URL makes no sense, nobody answers there in time, or TLS fails.
    pub(super) async fn dial(&self, url: &str, keep_alive: KeepAlive) -> Result<Channel, String> {
        let target = Target::parse(url)?;
        let tls = target.is_tls.then(|| self.tls.client().clone());
        // The connector below does TLS; the library above it must not try to.
        let endpoint = Endpoint::from_shared(format!("http://{}", target.address))
            .map_err(|error| format!("{url:?} is no URL of a peer: {error}"))?
            .http2_keep_alive_interval(keep_alive.interval)
            .keep_alive_timeout(keep_alive.timeout)
            .keep_alive_while_idle(true);
        let address = target.address;
        let connector = tower::service_fn(move |_| {
            let (tls, address) = (tls.clone(), address.clone());
            async move { dial(&address, tls.as_ref(), Http::Two).await.map(TokioIo::new) }
        });
        match tokio::time::timeout(self.patience, endpoint.connect_with_connector(connector)).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(root_cause(&error)),
            Err(_) => Err(format!("no connection within {:?}", self.patience)),
        }
    }
}

/// The text at the bottom of an error: those above it say nothing but "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Where a peer URL leads.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    is_tls: bool,
    /// `host:port`.
    address: String,
}

impl Target {
    fn parse(url: &str) -> Result<Target, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url:?} is no URL"))?;
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            other => return Err(format!("members are reached by http or https, not {other:?}")),
        };
        Ok(Target { is_tls, address: rest.trim_end_matches('/').to_owned() })
    }
}
