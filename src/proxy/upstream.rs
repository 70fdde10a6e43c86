//! What stands behind the proxy: its addresses, and which of them to ask.

use super::{Source, link::Link};
use crate::{
    client::{ConnectOptions, Endpoints, Error, TlsOptions},
    tls::ClientTls,
    types::Term,
};
use http::uri::Authority;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tonic::transport::Channel;

/// The upstream. One of its addresses is asked until it fails, then the next. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    endpoints: Endpoints,
    options: ConnectOptions,
    /// For those that are `https`.
    tls: ClientTls,
    /// The addresses that a person named.
    given: Vec<String>,
    /// The member that leads, and in which term, as far as anybody has asked lately.
    lead: Mutex<Option<(Term, Channel)>>,
    /// What passes through undecoded has connections of its own, one an address.
    links: Mutex<BTreeMap<String, Link>>,
    /// See [`Source::is_guarded`].
    is_guarded: AtomicBool,
}

impl Upstream {
    /// Takes `addresses` (`host:port`, `http://host:port` or `https://host:port`); connections are made when first used.
    ///
    /// # Errors
    /// As [`Endpoints::new`].
    pub fn new(addresses: &[String], options: ConnectOptions) -> Result<Upstream, Error> {
        // One spelling, so that an address that is listed is known for the one that was given.
        let given = addresses.iter().map(|address| spelled(address)).collect::<Vec<_>>();
        let endpoints = Endpoints::new(&given, &options)?;
        for address in &given {
            authority(address).map_err(|error| Error::InvalidEndpoint(format!("bad endpoint {address:?}: {error}")))?;
        }
        let tls = options.tls.as_ref().map_or_else(|| Ok(ClientTls::default()), TlsOptions::side)?;
        Ok(Upstream {
            shared: Arc::new(Shared {
                endpoints,
                options,
                tls,
                given,
                lead: Mutex::default(),
                links: Mutex::default(),
                is_guarded: AtomicBool::new(false),
            }),
        })
    }

    /// The turn to ask at now, and the channel to its address: for calls that the proxy makes by itself.
    pub fn pick(&self) -> (usize, Channel) {
        self.shared.endpoints.pick()
    }

    /// Says that the address of `turn` failed; as [`Endpoints::leave`].
    pub fn leave(&self, turn: usize) {
        self.shared.endpoints.leave(turn);
    }

    /// How many addresses there are; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.shared.endpoints.len()
    }

    /// The address that is asked at `turn`.
    pub fn address(&self, turn: usize) -> String {
        self.shared.endpoints.address(turn)
    }

    /// All addresses.
    pub fn addresses(&self) -> Vec<String> {
        self.shared.endpoints.addresses()
    }

    /// Whether all that a person named is reached with TLS: then nothing is said to anybody without.
    pub(super) fn is_secure(&self) -> bool {
        self.shared.given.iter().all(|address| address.starts_with("https://"))
    }

    /// The addresses that a person named.
    pub(super) fn given(&self) -> &[String] {
        &self.shared.given
    }

    pub(super) fn options(&self) -> &ConnectOptions {
        &self.shared.options
    }

    /// The turn to ask at now, and the connection for what passes through.
    pub(super) fn link(&self) -> (usize, Link) {
        let turn = self.shared.endpoints.pick().0;
        let address = self.address(turn);
        let mut links = self.shared.links.lock();
        let link = links.entry(address).or_insert_with_key(|address| {
            let tls = address.starts_with("https://").then(|| self.shared.tls.clone());
            Link::new(authority(address).expect("every address was looked at when it came"), tls)
        });
        (turn, link.clone())
    }

    /// Takes other addresses from now on, and `preferred` among them first. Calls that are under way go on.
    ///
    /// # Errors
    /// As [`Endpoints::replace`]; then nothing changes.
    pub(super) fn replace(&self, addresses: &[String], preferred: &str) -> Result<(), Error> {
        if let Some(bad) = addresses.iter().find(|address| authority(address).is_err()) {
            return Err(Error::InvalidEndpoint(format!("bad endpoint {bad:?}")));
        }
        self.shared.endpoints.replace(addresses, &self.shared.options)?;
        self.shared.endpoints.prefer(preferred);
        self.shared.links.lock().retain(|address, _| addresses.contains(address));
        Ok(())
    }

    /// The member at `address` leads, or led, `term`.
    pub(super) fn set_lead(&self, term: Term, address: &str) {
        let channel = self.shared.endpoints.channel(address);
        *self.shared.lead.lock() = channel.map(|channel| (term, channel));
    }

    /// For tasks that must not outlive the proxy.
    pub(super) fn downgrade(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }

    pub(super) fn upgrade(shared: &Weak<Shared>) -> Option<Upstream> {
        shared.upgrade().map(|shared| Upstream { shared })
    }
}

impl Source for Upstream {
    fn pick(&self) -> (usize, Channel) {
        Upstream::pick(self)
    }

    fn leave(&self, turn: usize) {
        Upstream::leave(self, turn);
    }

    fn ways(&self) -> usize {
        self.len()
    }

    fn lead(&self) -> Option<Channel> {
        self.shared.lead.lock().as_ref().map(|(_, channel)| channel.clone())
    }

    fn heard(&self, term: Term) {
        self.shared.lead.lock().take_if(|(led, _)| *led != term);
    }

    fn lost_lead(&self) {
        self.shared.lead.lock().take();
    }

    fn is_guarded(&self) -> bool {
        self.shared.is_guarded.load(Relaxed)
    }

    fn set_guarded(&self, is_guarded: bool) {
        self.shared.is_guarded.store(is_guarded, Relaxed);
    }
}

/// An address in its one spelling, `http://host:port` or `https://host:port`. What is no address stays what it is, and is refused.
pub(super) fn spelled(address: &str) -> String {
    let address = address.trim();
    match address.split_once("://") {
        Some(_) => address.trim_end_matches('/').to_owned(),
        None if address.is_empty() => String::new(),
        None => format!("http://{address}"),
    }
}

fn authority(address: &str) -> Result<Authority, String> {
    let authority = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://")).ok_or("not http")?;
    let authority = authority.parse::<Authority>().map_err(|error| error.to_string())?;
    match authority.port_u16() {
        Some(_) => Ok(authority),
        None => Err("no port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(addresses: &[&str]) -> Result<Upstream, Error> {
        let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        Upstream::new(&addresses, ConnectOptions::default())
    }

    #[tokio::test]
    async fn an_address_has_one_spelling_and_a_port() {
        let known = upstream(&["127.0.0.1:1", " http://a:2/", "https://a:3"]).unwrap();
        assert_eq!(known.addresses(), ["http://127.0.0.1:1", "http://a:2", "https://a:3"]);
        assert!(!known.is_secure() && upstream(&["https://a:1"]).unwrap().is_secure());
        for bad in [&["ftp://a:1"][..], &["a"], &["unix:///x"], &[""], &[]] {
            assert!(upstream(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn addresses_that_go_take_their_connections_with_them() {
        let upstream = upstream(&["a:1", "b:1"]).unwrap();
        for _ in 0..2 {
            upstream.leave(upstream.link().0);
        }
        assert_eq!(upstream.shared.links.lock().len(), 2);
        upstream.replace(&["http://b:1".into(), "http://c:1".into()], "http://c:1").unwrap();
        assert_eq!(upstream.shared.links.lock().len(), 1);
        assert_eq!(upstream.link().1.authority(), "c:1");
    }
}
