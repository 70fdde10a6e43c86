//! Where the cluster can be reached: one lazy channel an address, and which to ask first.

use super::{ConnectOptions, Error};
use crate::{
    runtime,
    tls::{ClientTls, Http, dial},
};
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};
use tonic::transport::{Channel, Endpoint, Uri};

/// The addresses of a cluster. All calls go to one of them until it fails; then the next is asked.
#[derive(Debug)]
pub struct Endpoints {
    all: RwLock<Arc<[Place]>>,
    /// Only ever grows; what is left of it after division by the number of addresses is the one to ask. So a failure that is reported
    /// late, of an address that was left long ago, is told from one of the address that is asked now.
    turn: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Place {
    address: String,
    channel: Channel,
}

fn place(address: &str, options: &ConnectOptions) -> Result<Place, Error> {
    let address = address.trim();
    Ok(Place { address: address.to_owned(), channel: endpoint(address, options)?.connect_lazy() })
}

impl Endpoints {
    /// Parses the addresses; connections are made when first used, and again after each loss.
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`], and [`Error::Tls`] for files that cannot be used.
    pub fn new<I, S>(addresses: I, options: &ConnectOptions) -> Result<Endpoints, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let all = addresses.into_iter().map(|address| place(address.as_ref(), options));
        let all = all.collect::<Result<Arc<[Place]>, _>>()?;
        if all.is_empty() {
            return Err(Error::InvalidEndpoint("no endpoint given".into()));
        }
        // Many clients that start at once with one list should not all sit on its first member.
        let first = runtime::below(all.len());
        Ok(Endpoints { all: RwLock::new(all), turn: AtomicUsize::new(first) })
    }

    /// Takes other addresses from now on. Connections to those that stay are kept, and so are calls that are under way.
    ///
    /// # Errors
    /// As [`Endpoints::new`]; then the addresses stay as they are.
    pub fn replace(&self, addresses: &[String], options: &ConnectOptions) -> Result<(), Error> {
        let old = self.now();
        let known = |address: &String| old.iter().find(|place| place.address == *address).cloned();
        let all = addresses.iter().map(|address| known(address).map_or_else(|| place(address, options), Ok));
        let all = all.collect::<Result<Arc<[Place]>, _>>()?;
        if all.is_empty() {
            return Err(Error::InvalidEndpoint("no endpoint given".into()));
        }
        *self.all.write() = all;
        Ok(())
    }

    fn now(&self) -> Arc<[Place]> {
        Arc::clone(&self.all.read())
    }

    /// How many there are; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.all.read().len()
    }

    /// All addresses, as they were given.
    pub fn addresses(&self) -> Vec<String> {
        self.now().iter().map(|place| place.address.clone()).collect()
    }

    /// The address that is asked at `turn`.
    pub fn address(&self, turn: usize) -> String {
        let all = self.now();
        all[turn % all.len()].address.clone()
    }

    /// The turn to ask at now, and the channel to its address.
    pub fn pick(&self) -> (usize, Channel) {
        let (all, turn) = (self.now(), self.turn.load(Relaxed));
        (turn, all[turn % all.len()].channel.clone())
    }

    /// The channel to `address`, if it is one of these.
    pub fn channel(&self, address: &str) -> Option<Channel> {
        self.now().iter().find(|place| place.address == address).map(|place| place.channel.clone())
    }

    /// Calls go to `address` from now on, if it is one of these.
    pub fn prefer(&self, address: &str) {
        let (all, turn) = (self.now(), self.turn.load(Relaxed));
        if let Some(steps) = (0..all.len()).find(|steps| all[turn.wrapping_add(*steps) % all.len()].address == address)
        {
            // Lost against a failure that was reported meanwhile: then that one knows better.
            let _ = self.turn.compare_exchange(turn, turn.wrapping_add(steps), Relaxed, Relaxed);
        }
    }

    /// Says that the address of `turn` failed. Later calls go to the one after it, unless another call has already moved on.
    pub fn leave(&self, turn: usize) {
        let _ = self.turn.compare_exchange(turn, turn.wrapping_add(1), Relaxed, Relaxed);
    }
}

/// The way to one address.
#[derive(Clone, Debug)]
pub struct Way {
    endpoint: Endpoint,
    /// `host:port`, and how, if TLS is spoken there.
    tls: Option<(String, ClientTls)>,
}

impl Way {
    /// A channel that connects when it is first used, and again after each loss.
    pub fn connect_lazy(&self) -> Channel {
        match &self.tls {
            Some((address, tls)) => {
                let (address, tls) = (address.clone(), tls.clone());
                self.endpoint
                    .connect_with_connector_lazy(tower::service_fn(move |_| over_tls(address.clone(), tls.clone())))
            }
            None => runtime::channel(&self.endpoint),
        }
    }

    /// A channel that is connected.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Tls`]
    pub async fn connect(&self) -> Result<Channel, Error> {
        let connected = match &self.tls {
            Some((address, tls)) => {
                let (address, tls) = (address.clone(), tls.clone());
                let connector = tower::service_fn(move |_| over_tls(address.clone(), tls.clone()));
                self.endpoint.connect_with_connector(connector).await
            }
            None => runtime::reach(&self.endpoint).await,
        };
        connected.map_err(|error| Error::from_connecting(&error))
    }
}

async fn over_tls(address: String, tls: ClientTls) -> Result<TokioIo<crate::tls::Connection>, crate::tls::DialError> {
    dial(&address, Some(&tls), Http::Two).await.map(TokioIo::new)
}

/// The way to an address, with all that was said about connections: `host:port`, `http://host:port`, `https://host:port`.
///
/// # Errors
/// What one stream may have under way: watch answers may be large.
const STREAM_WINDOW: u32 = 4 << 20;
/// What all streams together may have under way. The library below hangs up on a server whose small answers pile up, and takes half of this
/// for its measure: with a window that begins small and grows with the path, that was 145 answers to calls that were made at once.
const CONNECTION_WINDOW: u32 = 256 << 20;

/// As [`Endpoints::new`].
pub fn endpoint(address: &str, options: &ConnectOptions) -> Result<Way, Error> {
    let invalid = |why: String| Error::InvalidEndpoint(why);
    let given = address.split_once("://").map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
    let (scheme, rest) = match &given {
        Some((scheme, rest)) if matches!(scheme.as_str(), "http" | "https") && !rest.is_empty() => {
            (scheme.as_str(), rest.trim_end_matches('/'))
        }
        Some(_) => return Err(invalid(format!("unsupported endpoint {address:?}"))),
        None if address.is_empty() => return Err(invalid("empty endpoint".into())),
        None if options.tls.is_some() => ("https", address),
        None => ("http", address),
    };
    // A port by itself is one of this host, as it is to programs in Go.
    let here = rest.starts_with(':').then(|| format!("localhost{rest}"));
    let rest = here.as_deref().unwrap_or(rest);
    let parsed =
        |url: String| url.parse::<Uri>().map_err(|cause| invalid(format!("bad endpoint {address:?}: {cause}")));
    // TLS is done below: the library above it must not try to, but it may say so to the server.
    let origin = parsed(format!("{scheme}://{rest}"))?;
    let tls = match (scheme, &options.tls) {
        ("http", _) => None,
        (_, Some(tls)) => Some(tls.side()?),
        (_, None) => Some(ClientTls::default()),
    };
    let tls = tls.map(|tls| (if origin.port().is_some() { rest.to_owned() } else { format!("{rest}:443") }, tls));
    let endpoint = Endpoint::from(parsed(format!("http://{rest}"))?)
        .origin(origin)
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let endpoint = match options.keepalive_time {
        // No pings on idle connections: etcd's servers take frequent ones for an attack and hang up.
        Some(every) => endpoint.http2_keep_alive_interval(every).keep_alive_timeout(options.keepalive_timeout),
        None => endpoint,
    };
    Ok(Way { endpoint, tls })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::TlsOptions;

    #[tokio::test]
    async fn addresses_come_with_or_without_a_scheme() {
        let options = ConnectOptions::default();
        assert!(Endpoints::new(["127.0.0.1:2379", "http://[::1]:2379/"], &options).is_ok());
        let tls =
            |options: &ConnectOptions, address| endpoint(address, options).unwrap().tls.map(|(address, _)| address);
        assert_eq!(tls(&options, "https://a:1/"), Some("a:1".to_owned()));
        assert_eq!(tls(&options, "HTTPS://a:1"), Some("a:1".to_owned()));
        assert_eq!(tls(&options, "https://:1"), Some("localhost:1".to_owned()));
        assert_eq!(tls(&options, "a:1"), None);
        let secure = ConnectOptions { tls: Some(TlsOptions::default()), ..ConnectOptions::default() };
        assert_eq!(tls(&secure, "a:1"), Some("a:1".to_owned()));
        assert_eq!(tls(&secure, "http://a:1"), None);
        let missing = TlsOptions { trusted_ca_file: Some("no-such.pem".into()), ..TlsOptions::default() };
        let missing = ConnectOptions { tls: Some(missing), ..ConnectOptions::default() };
        assert!(matches!(Endpoints::new(["a:1"], &missing), Err(Error::Tls(why)) if why.contains("no-such.pem")));
        assert!(Endpoints::new(["http://a:1"], &missing).is_ok(), "nobody needs it");
        assert!(Endpoints::new([":2379", "Http://:2379"], &options).is_ok());
        for bad in ["", "http://", "unix://x", "a b:1"] {
            assert!(matches!(Endpoints::new([bad], &options), Err(Error::InvalidEndpoint(_))), "{bad:?}");
        }
        assert!(Endpoints::new([""; 0], &options).is_err());
    }

    #[tokio::test]
    async fn two_failures_of_one_endpoint_move_on_once() {
        let endpoints = Endpoints::new(["a:1", "b:1", "c:1"], &ConnectOptions::default()).expect("good addresses");
        let (turn, _) = endpoints.pick();
        endpoints.leave(turn);
        endpoints.leave(turn);
        assert_eq!(endpoints.pick().0, turn + 1);
    }

    #[tokio::test]
    async fn a_preferred_address_is_asked_until_it_fails() {
        let endpoints = Endpoints::new(["a:1", "b:1", "c:1"], &ConnectOptions::default()).expect("good addresses");
        for wanted in ["c:1", "a:1", "b:1", "b:1"] {
            endpoints.prefer(wanted);
            assert_eq!(endpoints.address(endpoints.pick().0), wanted);
        }
        endpoints.prefer("unknown:1");
        endpoints.leave(endpoints.pick().0);
        assert_eq!(endpoints.address(endpoints.pick().0), "c:1");
    }

    #[tokio::test]
    async fn other_addresses_are_taken_whole_or_not_at_all() {
        let options = ConnectOptions::default();
        let endpoints = Endpoints::new(["a:1", "b:1"], &options).expect("good addresses");
        let list = |addresses: &[&str]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        for wrong in [&[][..], &["c:1", "ftp://d:1"]] {
            assert!(endpoints.replace(&list(wrong), &options).is_err());
            assert_eq!(endpoints.addresses(), ["a:1", "b:1"]);
        }
        endpoints.replace(&list(&["b:1", "c:1", "d:1"]), &options).expect("good addresses");
        assert_eq!((endpoints.len(), endpoints.addresses()), (3, list(&["b:1", "c:1", "d:1"])));
    }
}
