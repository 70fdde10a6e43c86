//! A member of which only the wire is real.

use crate::{
    engine::{self, Checkpoint, Table},
    membership::Member,
    peer::{Arriving, Inbound, Listener, Network, Serving, Settings, Tls, serve},
    replica::{Letter, PeerMessage, Row, Transport},
    types::{ClusterId, Error, Fault, Index, MemberId, SnapshotMeta},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    future::Future,
    ops::{Bound, ControlFlow},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};

pub(super) const CLUSTER: ClusterId = ClusterId(0xc1);
/// Longer than anything here should take, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what must come about.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Asks until it is so; for facts that have no wake-up of their own.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// What came in.
pub(super) struct Double {
    pub(super) id: MemberId,
    pub(super) cluster: ClusterId,
    delivered: mpsc::UnboundedSender<(MemberId, PeerMessage)>,
    pub(super) expelled: watch::Sender<Option<MemberId>>,
    pub(super) shelf: Arc<Shelf>,
    known: Vec<Member>,
}

/// Where snapshots arrive.
#[derive(Default)]
pub(super) struct Shelf {
    pub(super) rows: Mutex<Vec<Row>>,
    pub(super) meta: Mutex<Option<SnapshotMeta>>,
    /// How often a snapshot was offered.
    pub(super) offers: Mutex<usize>,
    pub(super) is_complete: watch::Sender<bool>,
    /// Writes fail once so many rows are here.
    pub(super) breaks_at: Mutex<Option<usize>>,
}

impl Inbound for Double {
    fn cluster_id(&self) -> ClusterId {
        self.cluster
    }

    fn member_id(&self) -> MemberId {
        self.id
    }

    fn members(&self) -> Vec<Member> {
        self.known.clone()
    }

    fn is_downgrading(&self) -> bool {
        false
    }

    fn deliver(&self, from: MemberId, messages: Vec<PeerMessage>) {
        for message in messages {
            let _ = self.delivered.send((from, message)); // the test may be over
        }
    }

    fn receive_snapshot(&self, _: MemberId, meta: SnapshotMeta) -> Result<Box<dyn Arriving>, Error> {
        *self.shelf.offers.lock() += 1;
        if self.shelf.meta.lock().replace(meta.clone()).is_some_and(|before| before != meta) {
            self.shelf.rows.lock().clear();
        }
        Ok(Box::new(Arrival(Arc::clone(&self.shelf))))
    }

    fn expelled(&self, by: MemberId) {
        self.expelled.send_replace(Some(by));
    }
}

struct Arrival(Arc<Shelf>);

impl Arriving for Arrival {
    fn position(&self) -> Option<(Table, Bytes)> {
        self.0.rows.lock().last().map(|(table, key, _)| (*table, key.clone()))
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<(), Fault> {
        let mut kept = self.0.rows.lock();
        if self.0.breaks_at.lock().is_some_and(|at| kept.len() >= at) {
            *self.0.breaks_at.lock() = None;
            return Err(Fault::Engine { engine: "double", doing: "write", cause: "told to".to_owned() });
        }
        kept.extend(rows);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), Fault> {
        self.0.is_complete.send_replace(true);
        Ok(())
    }
}

/// Rows in memory, as a store would have them.
pub(super) struct Frozen(pub(super) BTreeMap<(Table, Bytes), Bytes>);

impl Checkpoint for Frozen {
    fn scan(
        &self,
        table: Table,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> engine::Result<()> {
        let bound = |bound: Bound<&[u8]>| bound.map(|key| (table, Bytes::copy_from_slice(key)));
        for ((found, key), value) in self.0.range((bound(from), bound(to))) {
            if *found > table {
                break;
            }
            if *found == table && visit(key, value.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// A member on the wire.
pub(super) struct Node {
    pub(super) id: MemberId,
    pub(super) url: String,
    pub(super) network: Network,
    pub(super) double: Arc<Double>,
    pub(super) inbox: mpsc::UnboundedReceiver<(MemberId, PeerMessage)>,
    serving: Option<Serving>,
}

/// How a node differs from most.
pub(super) struct Odd {
    pub(super) cluster: ClusterId,
    pub(super) tls: Tls,
    pub(super) known: Vec<Member>,
}

impl Default for Odd {
    fn default() -> Odd {
        Odd { cluster: CLUSTER, tls: Tls::default(), known: Vec::new() }
    }
}

impl Node {
    pub(super) async fn start(id: u64, url: &str) -> Node {
        Node::start_odd(id, url, Odd::default()).await
    }

    /// Serves at `url` (port 0: any), and knows nobody yet.
    pub(super) async fn start_odd(id: u64, url: &str, odd: Odd) -> Node {
        let listener = Listener::bind(url, false).await.expect("a free port");
        let url = listener.url().expect("an address");
        let network = Network::new(Settings {
            election_timeout: Duration::from_millis(500),
            snapshot_bytes_per_s: 0,
            tls: odd.tls.clone(),
            peer_urls: vec![url.clone()],
            version: "{}".to_owned(),
        });
        let (delivered, inbox) = mpsc::unbounded_channel();
        let double = Double {
            id: MemberId(id),
            cluster: odd.cluster,
            delivered,
            expelled: watch::Sender::new(None),
            shelf: Arc::default(),
            known: odd.known,
        };
        let double = Arc::new(double);
        network.begin(Arc::clone(&double) as Arc<dyn Inbound>);
        let serving = serve(vec![listener], &network, &odd.tls, 1 << 20);
        Node { id: MemberId(id), url, network, double, inbox, serving: Some(serving) }
    }

    pub(super) fn as_member(&self) -> Member {
        Member { id: self.id, peer_urls: vec![self.url.clone()], ..Member::default() }
    }

    /// Tells it who belongs to the cluster.
    pub(super) fn meet(&self, others: &[Member]) {
        let members = others.iter().cloned().chain([self.as_member()]).collect();
        self.network.set_members(members, Vec::new());
    }

    pub(super) fn send(&self, to: MemberId, messages: impl IntoIterator<Item = PeerMessage>) {
        self.network.send(messages.into_iter().map(|message| Letter { to, message }).collect());
    }

    pub(super) async fn received(&mut self) -> (MemberId, PeerMessage) {
        soon("a message", self.inbox.recv()).await.expect("the double lives")
    }

    pub(super) async fn connected_to(&self, to: MemberId) {
        until("a connection", || self.network.connected_for(to).is_some()).await;
    }

    /// Gone, and its port free again.
    pub(super) async fn stop(mut self) {
        self.network.stop();
        if let Some(serving) = self.serving.take() {
            soon("the end of serving", serving.stop(PATIENCE)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.network.stop();
    }
}

/// A small message with a number.
pub(super) fn hash(number: u64) -> PeerMessage {
    PeerMessage::Hash { index: Index(number), hash: number }
}
