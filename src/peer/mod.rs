//! Member to member: messages and snapshots over gRPC.
//!
//! **Promises.** A member speaks to a peer only over connections that it has dialled itself; what comes back over them are
//! acknowledgements of the transport and nothing else, so that a cut in one direction is a cut in one direction. Nothing here waits for
//! a slow peer: queues are bounded and drop. What arrives, arrives undamaged and in the order of its lane. Strangers (of another
//! cluster, for another member, removed members) are refused with a reason.
//! **May not know** what a message means, who leads, or what is in a snapshot.
//!
//! ```text
//!  replica ──send──▶ Network ─▶ Link (one a peer) ─┬─ urgent lane ══▶ ╗ the peer's
//!                                                  ├─ bulk lane   ══▶ ╠ PeerService ──▶ Inbound (its replica)
//!                                                  └─ snapshot    ══▶ ╝
//!  replica ◀──deliver── PeerService ◀══ what peers have dialled ══▶ plain (HTTP, for whoever looks after members)
//! ```
//!
//! A *lane* is a connection with one stream of batches. There are two to a peer, so that heartbeats and votes never stand behind
//! megabytes of entries; they come and go together. Within a lane messages keep their order.

mod client;
mod convert;
mod dial;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod inbound;
mod join;
mod listen;
mod plain;
mod queue;
mod refusals;
mod service;
mod snapshot;
mod streams;
mod tally;
mod tls;

pub use client::Counts;
pub use inbound::{Arriving, Inbound};
pub use join::{Cluster, ask_cluster};
pub use listen::{Listener, Serving, serve};
pub use tls::{Tls, TlsSettings};

use crate::{
    membership::Member,
    places::Places,
    replica::{Letter, Outgoing, PeerMessage, Transport},
    types::{ClusterId, MemberId},
};
use client::Link;
use dial::Dialer;
use parking_lot::Mutex;
use refusals::Refusals;
use service::Standing;
use snapshot::Throttle;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use streams::Streams;
use tally::Tallies;
use tokio::{runtime::Handle, sync::watch};

/// The version of the protocol that this build speaks. A message that a receiver of an older version does not know is lost on it.
const PROTOCOL_VERSION: u32 = 1;

/// How a member talks to its peers.
#[derive(Clone)]
pub struct Settings {
    /// A peer that cannot be heard for about twice as long is as good as gone.
    pub election_timeout: Duration,
    /// Bytes that all snapshots together may send in a second; 0 for no limit.
    pub snapshot_bytes_per_s: u64,
    /// Certificates, and whom to trust.
    pub tls: Tls,
    /// Where this member is found, as long as its own table of members does not say otherwise.
    pub peer_urls: Vec<String>,
    /// What `/version` says on the peer URLs, as JSON.
    pub version: String,
}

/// The way to all other members. Cheap to clone.
///
/// It exists before this member knows who it is; until [`Network::begin`] says so, what is sent waits, and nobody is let in.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

/// This member, once it knows who it is.
#[derive(Clone)]
struct Me {
    cluster_id: ClusterId,
    member_id: MemberId,
    inbound: Arc<dyn Inbound>,
    advertised: Arc<[String]>,
}

impl Me {
    /// Where this member is found.
    fn peer_urls(&self) -> Vec<String> {
        let own = self.inbound.members().into_iter().find(|member| member.id == self.member_id);
        own.map_or_else(|| self.advertised.to_vec(), |own| own.peer_urls)
    }
}

struct Inner {
    runtime: Handle,
    election_timeout: Duration,
    dialer: Dialer,
    advertised: Arc<[String]>,
    throttle: Arc<Throttle>,
    me: watch::Sender<Option<Me>>,
    peers: Mutex<Peers>,
    streams: Arc<Streams>,
    refusals: Refusals,
    tallies: Tallies,
    /// Taken by the snapshot that is arriving.
    arriving: Arc<tokio::sync::Mutex<()>>,
    version: String,
    stopping: watch::Sender<bool>,
    /// Of those who dial this member.
    places: Places,
}

#[derive(Default)]
struct Peers {
    /// To all members, and to those who say that they are members and were not removed: a member that has yet to learn who joined since
    /// must be able to answer a leader whom it does not know.
    links: BTreeMap<MemberId, Link>,
    members: BTreeSet<MemberId>,
    removed: BTreeSet<MemberId>,
}

/// Links to peers that are no members, as far as is known here.
const NEWCOMERS_MAX: usize = 16;

/// A connection comes about within this time, or another URL is tried.
const DIAL_PATIENCE_MIN: Duration = Duration::from_secs(1);
const DIAL_PATIENCE_MAX: Duration = Duration::from_secs(5);

impl Network {
    /// A network without members. Must be called within a tokio runtime, on which its tasks will live.
    pub fn new(settings: Settings) -> Network {
        let patience = settings.election_timeout.clamp(DIAL_PATIENCE_MIN, DIAL_PATIENCE_MAX);
        let inner = Inner {
            runtime: Handle::current(),
            election_timeout: settings.election_timeout,
            dialer: Dialer { tls: settings.tls, patience },
            advertised: settings.peer_urls.into(),
            throttle: Arc::new(Throttle::new(settings.snapshot_bytes_per_s)),
            me: watch::Sender::new(None),
            peers: Mutex::default(),
            streams: Arc::default(),
            refusals: Refusals::default(),
            tallies: Tallies::default(),
            arriving: Arc::default(),
            version: settings.version,
            stopping: watch::Sender::new(false),
            places: Places::new(listen::PLACES),
        };
        Network { inner: Arc::new(inner) }
    }

    /// Says who this member is, and who takes what comes in. Now peers are dialled and let in.
    pub fn begin(&self, inbound: Arc<dyn Inbound>) {
        let advertised = Arc::clone(&self.inner.advertised);
        let me = Me { cluster_id: inbound.cluster_id(), member_id: inbound.member_id(), inbound, advertised };
        // A member is not its own peer.
        let own = self.inner.peers.lock().links.remove(&me.member_id);
        drop(own);
        self.inner.me.send_replace(Some(me));
    }

    /// Speaks to nobody any more, and ends the streams of those who speak to this member.
    pub fn stop(&self) {
        self.inner.stopping.send_replace(true);
        self.inner.me.send_replace(None);
        let links = std::mem::take(&mut self.inner.peers.lock().links);
        drop(links);
    }

    /// What was sent to each peer.
    pub fn counts(&self) -> Vec<(MemberId, Counts)> {
        self.inner.peers.lock().links.iter().map(|(id, link)| (*id, link.counts())).collect()
    }
}

impl Transport for Network {
    fn send(&self, letters: Vec<Letter>) {
        let mut bags: BTreeMap<MemberId, Vec<PeerMessage>> = BTreeMap::new();
        for letter in letters {
            bags.entry(letter.to).or_default().push(letter.message);
        }
        let peers = self.inner.peers.lock();
        for (to, messages) in bags {
            if let Some(link) = peers.links.get(&to) {
                link.send(messages.into_iter());
            }
        }
    }

    fn set_members(&self, members: Vec<Member>, removed: Vec<MemberId>) {
        let own = self.inner.me.borrow().as_ref().map(|me| me.member_id);
        let mut peers = self.inner.peers.lock();
        if *self.inner.stopping.borrow() {
            return;
        }
        peers.members = members.iter().map(|member| member.id).collect();
        peers.removed = removed.into_iter().filter(|id| !peers.members.contains(id)).collect();
        for member in members.iter().filter(|member| Some(member.id) != own) {
            self.inner.link(&mut peers, member.id, &member.peer_urls);
        }
        let Peers { links, removed, .. } = &mut *peers;
        // Their tasks end here.
        links.retain(|id, _| !removed.contains(id));
        self.inner.streams.end(|from| removed.contains(&from));
    }

    fn send_snapshot(&self, to: MemberId, snapshot: Outgoing) {
        let inner = &*self.inner;
        let mut peers = inner.peers.lock();
        if let Some(link) = peers.links.get_mut(&to) {
            let (me, dialer) = (inner.me.subscribe(), inner.dialer.clone());
            link.send_snapshot(&inner.runtime, to, me, dialer, Arc::clone(&inner.throttle), snapshot);
        }
    }

    fn is_sending_snapshot(&self, to: MemberId) -> bool {
        self.inner.peers.lock().links.get(&to).is_some_and(Link::is_sending_snapshot)
    }

    fn connected_for(&self, to: MemberId) -> Option<Duration> {
        self.inner.peers.lock().links.get(&to)?.connected_for()
    }
}

impl Inner {
    fn link(&self, peers: &mut Peers, to: MemberId, urls: &[String]) {
        match peers.links.get(&to) {
            Some(link) => link.set_urls(urls),
            None => {
                let me = self.me.subscribe();
                let tally = self.tallies.of(to);
                let dialer = self.dialer.clone();
                let link = Link::new(&self.runtime, to, urls.to_vec(), me, dialer, self.election_timeout, tally);
                peers.links.insert(to, link);
            }
        }
    }

    /// Makes a way back to a sender that is no member yet, as far as is known here.
    fn acquaint(&self, id: MemberId, urls: &[String]) {
        let mut peers = self.peers.lock();
        let is_known = peers.members.contains(&id) || peers.removed.contains(&id);
        let newcomers = peers.links.keys().filter(|other| **other != id && !peers.members.contains(other)).count();
        if !is_known && !urls.is_empty() && newcomers < NEWCOMERS_MAX && !*self.stopping.borrow() {
            self.link(&mut peers, id, urls);
        }
    }

    fn standing(&self, id: MemberId) -> Standing {
        let peers = self.peers.lock();
        match (peers.members.contains(&id), peers.removed.contains(&id)) {
            (true, _) => Standing::Member,
            (false, true) => Standing::Removed,
            (false, false) => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
