//! Where the cluster can be reached: one lazy channel an address, and which to ask first.

use super::{ConnectOptions, Error};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tonic::transport::{Channel, Endpoint};

/// The addresses of a cluster. All calls go to one of them until it fails; then the next is asked.
#[derive(Debug)]
pub struct Endpoints {
    all: Vec<(String, Channel)>,
    current: AtomicUsize,
}

impl Endpoints {
    /// Parses the addresses; connections are made when first used, and again after each loss.
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`], and [`Error::Unsupported`] for `https`.
    pub fn new<I, S>(addresses: I, options: &ConnectOptions) -> Result<Endpoints, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut all = Vec::new();
        for address in addresses {
            let address = address.as_ref().trim();
            all.push((address.to_string(), endpoint(address, options)?.connect_lazy()));
        }
        if all.is_empty() {
            return Err(Error::InvalidEndpoint("no endpoint given".into()));
        }
        // Many clients that start at once with one list should not all sit on its first member.
        let first = rand::random_range(0..all.len());
        Ok(Endpoints { all, current: AtomicUsize::new(first) })
    }

    /// How many there are; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The address at `at`, as it was given.
    pub fn address(&self, at: usize) -> &str {
        &self.all[at % self.all.len()].0
    }

    /// The endpoint to ask now, and its channel.
    pub fn pick(&self) -> (usize, Channel) {
        let at = self.current.load(Relaxed) % self.all.len();
        (at, self.all[at].1.clone())
    }

    /// Says that `at` failed. Later calls go to the one after it, unless another call has already moved on.
    pub fn leave(&self, at: usize) {
        let next = (at + 1) % self.all.len();
        let _ = self.current.compare_exchange(at, next, Relaxed, Relaxed);
    }
}

/// The transport settings for one address: `host:port`, `http://host:port`.
///
/// # Errors
/// As [`Endpoints::new`].
pub fn endpoint(address: &str, options: &ConnectOptions) -> Result<Endpoint, Error> {
    let url = match address.split_once("://") {
        Some(("http", rest)) if !rest.is_empty() => address.trim_end_matches('/').to_string(),
        Some(("https", _)) => return Err(Error::Unsupported("TLS (https endpoints) is not supported yet")),
        Some(_) => return Err(Error::InvalidEndpoint(format!("unsupported endpoint {address:?}"))),
        None if address.is_empty() => return Err(Error::InvalidEndpoint("empty endpoint".into())),
        None => format!("http://{address}"),
    };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|cause| Error::InvalidEndpoint(format!("bad endpoint {address:?}: {cause}")))?
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        // Watch answers may be large; the windows grow with the path.
        .http2_adaptive_window(true);
    Ok(match options.keepalive_time {
        // No pings on idle connections: etcd's servers take frequent ones for an attack and hang up.
        Some(every) => endpoint.http2_keep_alive_interval(every).keep_alive_timeout(options.keepalive_timeout),
        None => endpoint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_come_with_or_without_a_scheme_and_tls_is_refused_by_name() {
        let options = ConnectOptions::default();
        assert!(Endpoints::new(["127.0.0.1:2379", "http://[::1]:2379/"], &options).is_ok());
        assert!(matches!(Endpoints::new(["https://a:1"], &options), Err(Error::Unsupported(_))));
        for bad in ["", "http://", "unix://x", "a b:1"] {
            assert!(matches!(Endpoints::new([bad], &options), Err(Error::InvalidEndpoint(_))), "{bad:?}");
        }
        assert!(Endpoints::new([""; 0], &options).is_err());
    }

    #[tokio::test]
    async fn two_failures_of_one_endpoint_move_on_once() {
        let endpoints = Endpoints::new(["a:1", "b:1", "c:1"], &ConnectOptions::default()).expect("good addresses");
        let (at, _) = endpoints.pick();
        endpoints.leave(at);
        endpoints.leave(at);
        assert_eq!(endpoints.pick().0, (at + 1) % 3);
    }
}
