//! Simulated hosts: each watches the fleet's configuration and keeps a lease alive, over streams and connections that it shares with
//! others.

use crate::{processes::channel, stats::Latencies};
use henge::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, WatchCreateRequest, WatchRequest, WatchResponse,
    lease_client::LeaseClient, watch_client::WatchClient, watch_request::RequestUnion,
};
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming, transport::Channel};

/// What all hosts watch. Its value is the number of the event.
pub const CONFIG: &[u8] = b"/fleet/config";
/// Events that one fleet can be sent.
const EVENTS_MAX: usize = 1_000;
/// Leases that are asked for at the same time.
const GRANTS_AT_ONCE: usize = 64;

/// How many hosts, and how they share.
#[derive(Clone, Debug)]
pub struct Size {
    pub hosts: usize,
    pub hosts_per_stream: usize,
    pub connections_per_server: usize,
    pub ttl_s: u64,
}

/// What the hosts have seen.
pub struct Sight {
    began: Instant,
    /// When each event was sent, in µs after `began`.
    sent: Vec<AtomicU64>,
    /// How many hosts have seen each.
    seen: Vec<AtomicUsize>,
    pub latencies: Latencies,
    /// Hosts with a watch that stands.
    pub watching: AtomicUsize,
    /// Hosts with a lease.
    pub leased: AtomicUsize,
    pub renewed: AtomicU64,
    /// Leases that were gone when they were to be renewed.
    pub lapsed: AtomicU64,
    /// Streams that ended.
    pub breaks: AtomicU64,
    /// Events that a host missed, saw twice or saw out of order.
    pub wrong: AtomicU64,
    grants: Semaphore,
}

impl Sight {
    /// Says that event `number` is sent now.
    pub fn sending(&self, number: usize) {
        self.sent[number].store(self.began.elapsed().as_micros() as u64, Relaxed);
    }

    /// How many hosts have seen event `number`.
    pub fn seen(&self, number: usize) -> usize {
        self.seen[number].load(Relaxed)
    }

    fn saw(&self, host: usize, number: usize) {
        let Some(sent) = self.sent.get(number) else { return };
        let sent = Duration::from_micros(sent.load(Relaxed));
        self.latencies.record(host, self.began.elapsed().saturating_sub(sent));
        self.seen[number].fetch_add(1, Relaxed);
    }
}

/// All hosts. They end with it.
pub struct Fleet {
    pub sight: Arc<Sight>,
    _tasks: JoinSet<()>,
}

impl Fleet {
    /// Hosts that begin to attach at once, spread evenly over `servers`.
    pub fn start(size: &Size, servers: &[String]) -> Result<Fleet, String> {
        let sight = Arc::new(Sight {
            began: Instant::now(),
            sent: (0..EVENTS_MAX).map(|_| AtomicU64::new(0)).collect(),
            seen: (0..EVENTS_MAX).map(|_| AtomicUsize::new(0)).collect(),
            latencies: Latencies::default(),
            watching: AtomicUsize::new(0),
            leased: AtomicUsize::new(0),
            renewed: AtomicU64::new(0),
            lapsed: AtomicU64::new(0),
            breaks: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            grants: Semaphore::new(GRANTS_AT_ONCE),
        });
        let urls = servers.iter().cycle().take(servers.len() * size.connections_per_server);
        let channels = urls.map(|url| channel(url)).collect::<Result<Vec<_>, _>>()?;
        let mut tasks = JoinSet::new();
        for (at, first) in (0..size.hosts).step_by(size.hosts_per_stream).enumerate() {
            let hosts = first..(first + size.hosts_per_stream).min(size.hosts);
            let channel = channels[at % channels.len()].clone();
            tasks.spawn(watch(Arc::clone(&sight), hosts.clone(), channel.clone()));
            tasks.spawn(keep_leases(Arc::clone(&sight), hosts.len(), channel, size.ttl_s));
        }
        Ok(Fleet { sight, _tasks: tasks })
    }
}

/// A rest before the next try, so that not all try at once.
async fn rest() {
    sleep(Duration::from_millis(rand::random_range(20..500))).await;
}

/// What one host knows of the configuration.
#[derive(Clone, Default)]
struct Host {
    /// Where its watch goes on; 0 from now.
    next_revision: i64,
    /// The last event.
    number: usize,
    stands: bool,
}

/// Watches for some hosts over one stream, again and again.
async fn watch(sight: Arc<Sight>, range: Range<usize>, channel: Channel) {
    let mut hosts = vec![Host::default(); range.len()];
    loop {
        let _ended = watch_once(&sight, range.start, &mut hosts, channel.clone()).await;
        let stood = hosts.iter_mut().map(|host| usize::from(std::mem::take(&mut host.stands))).sum();
        sight.watching.fetch_sub(stood, Relaxed);
        sight.breaks.fetch_add(1, Relaxed);
        rest().await;
    }
}

async fn watch_once(sight: &Sight, first: usize, hosts: &mut [Host], channel: Channel) -> Result<(), Status> {
    let creates: Vec<WatchRequest> = hosts.iter().enumerate().map(|(at, host)| create(at, host)).collect();
    let requests = tokio_stream::iter(creates).chain(tokio_stream::pending());
    let mut answers = WatchClient::new(channel).watch(requests).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        let at = usize::try_from(answer.watch_id - 1).unwrap_or(usize::MAX);
        let Some(host) = hosts.get_mut(at) else { return Err(Status::internal("an answer for nobody")) };
        if answer.canceled {
            return Err(Status::aborted(answer.cancel_reason));
        }
        take(sight, first + at, host, &answer);
    }
    Ok(())
}

fn create(at: usize, host: &Host) -> WatchRequest {
    let create = WatchCreateRequest {
        key: CONFIG.into(),
        start_revision: host.next_revision,
        watch_id: at as i64 + 1,
        ..WatchCreateRequest::default()
    };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

fn take(sight: &Sight, number: usize, host: &mut Host, answer: &WatchResponse) {
    if answer.created {
        host.stands = true;
        sight.watching.fetch_add(1, Relaxed);
        if host.next_revision == 0 {
            host.next_revision = answer.header.as_ref().map_or(0, |header| header.revision) + 1;
        }
    }
    for event in &answer.events {
        let Some(kv) = &event.kv else { continue };
        host.next_revision = kv.mod_revision + 1;
        let Some(event) = std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse::<usize>().ok()) else {
            continue;
        };
        if event != host.number + 1 && host.number != 0 {
            sight.wrong.fetch_add(1, Relaxed);
        }
        host.number = event;
        sight.saw(number, event);
    }
}

/// Grants a lease for each of `count` hosts and renews each three times in its time to live, over one stream, again and again.
async fn keep_leases(sight: Arc<Sight>, count: usize, channel: Channel, ttl_s: u64) {
    let mut leases = Vec::with_capacity(count);
    while leases.len() < count {
        leases.push(grant(&sight, &channel, ttl_s).await);
    }
    loop {
        let _ended = renew(&sight, &mut leases, &channel, ttl_s).await;
        sight.breaks.fetch_add(1, Relaxed);
        rest().await;
    }
}

async fn grant(sight: &Sight, channel: &Channel, ttl_s: u64) -> i64 {
    loop {
        let turn = sight.grants.acquire().await;
        let granted =
            LeaseClient::new(channel.clone()).lease_grant(LeaseGrantRequest { ttl: ttl_s as i64, id: 0 }).await;
        drop(turn);
        match granted {
            Ok(granted) => {
                sight.leased.fetch_add(1, Relaxed);
                return granted.into_inner().id;
            }
            Err(_) => rest().await,
        }
    }
}

async fn renew(sight: &Sight, leases: &mut [i64], channel: &Channel, ttl_s: u64) -> Result<(), Status> {
    let (requests, stream) = mpsc::channel(16);
    let every = Duration::from_secs(ttl_s) / 3 / leases.len() as u32;
    // Not all hosts were started in the same moment.
    sleep(every.mul_f64(rand::random_range(0.0..1.0))).await;
    let mut clock = tokio::time::interval(every);
    let mut client = LeaseClient::new(channel.clone());
    let open = client.lease_keep_alive(ReceiverStream::new(stream));
    tokio::pin!(open);
    let (mut answers, mut turn): (Option<Streaming<LeaseKeepAliveResponse>>, usize) = (None, 0);
    loop {
        tokio::select! {
            opened = &mut open, if answers.is_none() => answers = Some(opened?.into_inner()),
            answer = async { answers.as_mut().expect("asked for once it is open").message().await }, if answers.is_some() => {
                let answer = answer?.ok_or_else(|| Status::aborted("the stream ended"))?;
                if answer.ttl > 0 {
                    sight.renewed.fetch_add(1, Relaxed);
                } else if let Some(lease) = leases.iter_mut().find(|lease| **lease == answer.id) {
                    sight.lapsed.fetch_add(1, Relaxed);
                    sight.leased.fetch_sub(1, Relaxed);
                    *lease = grant(sight, channel, ttl_s).await;
                }
            }
            _ = clock.tick() => {
                let id = leases[turn % leases.len()];
                turn += 1;
                // Full: the server owes answers to many renewals already.
                let _ = requests.try_send(LeaseKeepAliveRequest { id });
            }
        }
    }
}
