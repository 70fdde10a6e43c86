//! The way out to one peer: two connections, dialled by this member and kept up.

use super::{
    Me, PROTOCOL_VERSION,
    convert::to_wire,
    dial::{Dialer, KeepAlive},
    queue::{Bounds, Queue, is_urgent, portions},
    service::says_removed,
    snapshot::{self, Throttle},
    tally::PeerTally,
};
use crate::{
    pb::henge::peer::{Ack, Batch, ClusterRequest, Hello, Lane, peer_client::PeerClient},
    replica::{Outgoing, PeerMessage},
    types::MemberId,
};
use parking_lot::Mutex;
use prost::Message as _;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle, time::Instant};
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming, transport::Channel};

/// Small messages come thick and fast when many reads wait.
const URGENT: Bounds = Bounds { messages_max: 8_192, bytes_max: 4 << 20 };
/// Raft keeps less than this on the way to one follower; the rest is for proposals.
const BULK: Bounds = Bounds { messages_max: 8_192, bytes_max: 32 << 20 };

/// The wait before a peer is dialled again: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A connection that held for so long was a good one: its loss is dialled against at once.
const GOOD_AFTER: Duration = Duration::from_secs(1);

/// Counts of one peer since it was met. For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of messages that were handed to a connection.
    pub bytes_sent: u64,
    /// Messages that were handed to a connection.
    pub messages_sent: u64,
    /// Messages that had no room, or waited for a connection that did not come about.
    pub messages_dropped: u64,
    /// Connections that did not come about, or were lost.
    pub failures: u64,
}

/// What is known of a link, written by its task.
#[derive(Default)]
struct Facts {
    /// Since when both lanes stand.
    connected: Mutex<Option<Instant>>,
    bytes_sent: AtomicU64,
    messages_sent: AtomicU64,
    failures: AtomicU64,
}

/// The way out to one peer. Ends when it is dropped.
pub(super) struct Link {
    lanes: Lanes,
    urls: watch::Sender<Vec<String>>,
    facts: Arc<Facts>,
    tally: Arc<PeerTally>,
    messages: JoinHandle<()>,
    snapshot: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Lanes {
    urgent: Arc<Queue>,
    bulk: Arc<Queue>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.messages.abort();
        if let Some(snapshot) = &self.snapshot {
            snapshot.abort();
        }
    }
}

impl Link {
    /// Begins to dial `to` as soon as this member knows who it is itself.
    pub(super) fn new(
        runtime: &Handle,
        to: MemberId,
        urls: Vec<String>,
        me: watch::Receiver<Option<Me>>,
        dialer: Dialer,
        election_timeout: Duration,
        tally: Arc<PeerTally>,
    ) -> Link {
        let lanes = Lanes { urgent: Arc::new(Queue::new(URGENT)), bulk: Arc::new(Queue::new(BULK)) };
        let (urls, urls_seen) = watch::channel(urls);
        let facts = Arc::new(Facts::default());
        let task = Task {
            to,
            me,
            urls: urls_seen,
            lanes: lanes.clone(),
            facts: Arc::clone(&facts),
            tally: Arc::clone(&tally),
            dialer,
            election_timeout,
            told: None,
        };
        Link { lanes, urls, facts, tally, messages: runtime.spawn(task.run()), snapshot: None }
    }

    /// Queues what there is room for.
    pub(super) fn send(&self, messages: impl Iterator<Item = PeerMessage>) {
        let (urgent, bulk): (Vec<_>, Vec<_>) = messages.flat_map(portions).partition(is_urgent);
        for (queue, messages) in [(&self.lanes.urgent, urgent), (&self.lanes.bulk, bulk)] {
            if !messages.is_empty() {
                queue.push(messages.into_iter());
            }
        }
    }

    /// Where the peer is found from now on.
    pub(super) fn set_urls(&self, urls: &[String]) {
        self.urls.send_if_modified(|known| {
            let changed = *known != urls;
            if changed {
                urls.clone_into(known);
            }
            changed
        });
    }

    pub(super) fn connected_for(&self) -> Option<Duration> {
        self.facts.connected.lock().map(|since| since.elapsed())
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            bytes_sent: self.facts.bytes_sent.load(Ordering::Relaxed),
            messages_sent: self.facts.messages_sent.load(Ordering::Relaxed),
            messages_dropped: self.lanes.urgent.dropped() + self.lanes.bulk.dropped(),
            failures: self.facts.failures.load(Ordering::Relaxed),
        }
    }

    pub(super) fn is_sending_snapshot(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Sends `snapshot` over a connection of its own, unless another one is on its way.
    pub(super) fn send_snapshot(
        &mut self,
        runtime: &Handle,
        to: MemberId,
        me: watch::Receiver<Option<Me>>,
        dialer: Dialer,
        throttle: Arc<Throttle>,
        snapshot: Outgoing,
    ) {
        if !self.is_sending_snapshot() {
            let (urls, tally) = (self.urls.subscribe(), Arc::clone(&self.tally));
            self.snapshot = Some(runtime.spawn(snapshot::send(to, me, urls, dialer, throttle, snapshot, tally)));
        }
    }
}

/// The greeting of a stream from `me` to `to`.
pub(super) fn hello(me: &Me, to: MemberId, lane: Lane) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        cluster_id: me.cluster_id.0,
        from: me.member_id.0,
        to: to.0,
        lane: lane.into(),
        peer_urls: me.peer_urls(),
    }
}

/// Waits until this member knows who it is; `None` if it never will.
pub(super) async fn introduced(me: &mut watch::Receiver<Option<Me>>) -> Option<Me> {
    me.wait_for(Option::is_some).await.ok().and_then(|me| me.clone())
}

/// Waits that grow with each failure in a row, each of them random so that members don't dial in step.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure; how long to wait after it.
    pub(super) fn next(&mut self) -> Duration {
        let longest = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(rand::random_range(0.5..1.0))
    }
}

/// Keeps the connections to one peer.
struct Task {
    to: MemberId,
    me: watch::Receiver<Option<Me>>,
    urls: watch::Receiver<Vec<String>>,
    lanes: Lanes,
    facts: Arc<Facts>,
    tally: Arc<PeerTally>,
    dialer: Dialer,
    election_timeout: Duration,
    /// The last complaint that was logged: one that only repeats itself is not.
    told: Option<String>,
}

/// How an attempt to stay connected ended.
enum End {
    /// No connection came about.
    Unreachable(String),
    /// The peer does not talk to us.
    Refused(Status),
    /// It stood, and was lost.
    Lost(String),
    /// The peer is found elsewhere now.
    Moved,
}

impl Task {
    async fn run(mut self) {
        let Some(me) = introduced(&mut self.me).await else { return };
        let (mut backoff, mut turn, mut removals) = (Backoff::default(), 0, 0);
        loop {
            let urls = self.urls.borrow_and_update().clone();
            let Some(url) = urls.get(turn % urls.len().max(1)) else {
                // A member that nobody can reach; until it says otherwise.
                if self.urls.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let end = self.converse(&me, url).await;
            let stood = self.facts.connected.lock().take();
            if stood.is_some_and(|since| since.elapsed() >= GOOD_AFTER) {
                backoff.reset();
            }
            removals = if matches!(&end, End::Refused(status) if says_removed(status)) { removals + 1 } else { 0 };
            // Once more, so that a member that leads its own removal has the time to see it done.
            if removals == 2 {
                tracing::warn!(remote_peer_id = %self.to, "this member has been removed from the cluster, says a peer");
                return me.inbound.expelled(self.to);
            }
            match end {
                End::Moved => turn = 0,
                _ => self.failed(&end, url, &mut turn),
            }
            let moved = tokio::time::timeout(backoff.next(), self.urls.changed()).await;
            if matches!(moved, Ok(Err(_))) {
                return;
            }
        }
    }

    fn failed(&mut self, end: &End, url: &str, turn: &mut usize) {
        self.facts.failures.fetch_add(1, Ordering::Relaxed);
        let why = match end {
            End::Lost(why) => {
                self.tally.lost.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(remote_peer_id = %self.to, url, error = %why, "peer became inactive");
                return;
            }
            End::Refused(status) => status.message(),
            End::Unreachable(why) => why,
            End::Moved => return,
        };
        *turn += 1;
        // What waited for this connection is older than an election by the time the next one stands.
        self.lanes.urgent.clear();
        self.lanes.bulk.clear();
        if self.told.as_deref() != Some(why) {
            tracing::warn!(remote_peer_id = %self.to, url, error = %why, "failed to connect to a peer; trying on");
            self.told = Some(why.to_owned());
        }
    }

    /// Both lanes to one URL, until one of them ends.
    async fn converse(&mut self, me: &Me, url: &str) -> End {
        let opened = tokio::try_join!(self.open(me, url, Lane::Urgent), self.open(me, url, Lane::Bulk));
        let ((channel, mut urgent), (_, mut bulk)) = match opened {
            Ok(lanes) => lanes,
            Err(end) => return end,
        };
        let probing = probe(channel, Arc::clone(&self.tally));
        tokio::pin!(probing);
        *self.facts.connected.lock() = Some(Instant::now());
        self.told = None;
        tracing::info!(remote_peer_id = %self.to, url, "peer became active");
        loop {
            tokio::select! {
                end = ended(&mut urgent) => return end,
                end = ended(&mut bulk) => return end,
                never = &mut probing => match never {},
                changed = self.urls.changed() => {
                    let known = changed.is_ok() && self.urls.borrow_and_update().iter().any(|one| one == url);
                    if !known {
                        return End::Moved;
                    }
                }
            }
        }
    }

    async fn open(&self, me: &Me, url: &str, lane: Lane) -> Result<(Channel, Streaming<Ack>), End> {
        let channel = self.dialer.dial(url, self.keep_alive(lane)).await.map_err(End::Unreachable)?;
        let queue = if lane == Lane::Urgent { &self.lanes.urgent } else { &self.lanes.bulk };
        let greeting = Batch { hello: Some(hello(me, self.to, lane)), messages: Vec::new() };
        let batches = tokio_stream::once(greeting).chain(counted(queue.reader(), Arc::clone(&self.facts)));
        let mut client = PeerClient::new(channel.clone());
        // The answer begins once the greeting was read and accepted.
        match tokio::time::timeout(self.dialer.patience, client.messages(batches)).await {
            Ok(Ok(answer)) => {
                queue.open();
                Ok((channel, answer.into_inner()))
            }
            Ok(Err(status)) => Err(End::Refused(status)),
            Err(_) => Err(End::Unreachable(format!("no answer to the greeting within {:?}", self.dialer.patience))),
        }
    }

    /// A link that is dead in one direction must be noticed before an election has failed more than once. Between followers there is
    /// nothing but these questions, and each wakes both ends: most of what an idle core does. A full bulk lane over a slow link may
    /// hold up the answer for much longer than that without being dead.
    fn keep_alive(&self, lane: Lane) -> KeepAlive {
        match lane {
            Lane::Urgent => {
                let interval = self.election_timeout.max(Duration::from_millis(100));
                KeepAlive { interval, timeout: self.election_timeout }
            }
            // Nearly always it shares its fate with the other one, which asks.
            Lane::Bulk => KeepAlive {
                interval: (self.election_timeout * 2).max(BULK_INTERVAL_MIN),
                timeout: self.election_timeout.max(BULK_PATIENCE),
            },
        }
    }
}

/// How often a bulk lane is asked at most.
const BULK_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How long a full bulk lane may take to answer whether it lives.
const BULK_PATIENCE: Duration = Duration::from_secs(10);

/// How often the time there and back again is measured, about as in etcd.
const PROBE_INTERVAL: Duration = Duration::from_secs(4);

/// Measures it for as long as the connection stands. Whether it stands is for others to find out.
async fn probe(channel: Channel, tally: Arc<PeerTally>) -> Infallible {
    let mut client = PeerClient::new(channel);
    loop {
        let began = Instant::now();
        if client.cluster(ClusterRequest {}).await.is_ok() {
            tally.round_trip.observe(began.elapsed());
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

/// Waits for the end of a lane.
async fn ended(acks: &mut Streaming<Ack>) -> End {
    loop {
        match acks.message().await {
            // Nothing to know but that it stands.
            Ok(Some(_)) => {}
            Ok(None) => return End::Lost("the peer ended the stream".to_owned()),
            Err(status) if says_removed(&status) => return End::Refused(status),
            Err(status) => return End::Lost(status.message().to_owned()),
        }
    }
}

fn counted(messages: impl Stream<Item = Vec<PeerMessage>>, facts: Arc<Facts>) -> impl Stream<Item = Batch> {
    messages.map(move |messages| {
        facts.messages_sent.fetch_add(messages.len() as u64, Ordering::Relaxed);
        let batch = Batch { hello: None, messages: messages.into_iter().map(to_wire).collect() };
        facts.bytes_sent.fetch_add(batch.encoded_len() as u64, Ordering::Relaxed);
        batch
    })
}
