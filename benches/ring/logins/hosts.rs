//! Hosts with a token each: they log in when they are told to, and read a key of their own with what they got.

use crate::{processes::channel, stats::Latencies};
use hdrhistogram::Histogram;
use henge::pb::etcdserverpb::{AuthenticateRequest, RangeRequest, auth_client::AuthClient, kv_client::KvClient};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

/// Who all hosts are. Each has a token of its own all the same.
pub const USER: (&str, &str) = ("host", "the fleet's");
/// Longest wait for the answer to one read.
const READ_MAX: Duration = Duration::from_secs(10);
/// Rests of a host whose login was not taken: they double, so that those who wait do not cost more than those who log in.
const REST_MIN: Duration = Duration::from_millis(200);
const REST_MAX: Duration = Duration::from_secs(10);

/// The key of a host.
pub fn key(host: usize) -> String {
    format!("{}{host:05}", super::PREFIX)
}

/// How many hosts, and how they behave.
#[derive(Clone, Debug)]
pub struct Size {
    pub hosts: usize,
    pub connections_per_server: usize,
    /// Between two reads of one host.
    pub every: Duration,
    /// Logins that are asked for at the same time.
    pub at_once: usize,
}

/// What hosts are to do.
#[derive(Clone, Copy, Debug, Default)]
struct Order {
    /// How often each is to have logged in.
    logins: usize,
    /// Read, once that is so.
    reads: bool,
}

/// What the hosts have met with since somebody last asked.
pub struct Met {
    pub reads: u64,
    pub failed: u64,
    pub logins: u64,
    pub turned_away: u64,
    /// Hosts whose token was not taken any more.
    pub outdated: u64,
    /// From asking to an answer, with all that failed in between.
    pub latencies: Histogram<u64>,
    /// The same, of those reads alone that failed at first.
    pub outages: Histogram<u64>,
    /// The same, of logins.
    pub login_latencies: Histogram<u64>,
}

/// What the hosts see.
pub struct Sight {
    reads: AtomicU64,
    failed: AtomicU64,
    /// Tokens that were got, ordered or not.
    logins: AtomicU64,
    /// Logins that were refused because too many waited already.
    turned_away: AtomicU64,
    outdated: AtomicU64,
    latencies: Latencies,
    outages: Latencies,
    login_latencies: Latencies,
    /// Hosts that have done all logins that were ordered.
    pub ready: AtomicUsize,
    /// Hosts whose read has failed and not succeeded since.
    pub away: AtomicUsize,
    /// The last refusal, for people.
    pub refusal: Mutex<String>,
    places: Semaphore,
}

impl Sight {
    fn new(at_once: usize) -> Sight {
        Sight {
            reads: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            logins: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            outdated: AtomicU64::new(0),
            latencies: Latencies::default(),
            outages: Latencies::default(),
            login_latencies: Latencies::default(),
            ready: AtomicUsize::new(0),
            away: AtomicUsize::new(0),
            refusal: Mutex::default(),
            places: Semaphore::new(at_once),
        }
    }

    /// Tokens since somebody last took what there was.
    pub fn logins(&self) -> u64 {
        self.logins.load(Relaxed)
    }

    /// What there was; begins anew.
    pub fn take(&self) -> Met {
        Met {
            reads: self.reads.swap(0, Relaxed),
            failed: self.failed.swap(0, Relaxed),
            logins: self.logins.swap(0, Relaxed),
            turned_away: self.turned_away.swap(0, Relaxed),
            outdated: self.outdated.swap(0, Relaxed),
            latencies: self.latencies.take(),
            outages: self.outages.take(),
            login_latencies: self.login_latencies.take(),
        }
    }
}

/// All hosts. They end with it.
pub struct Fleet {
    pub sight: Arc<Sight>,
    orders: watch::Sender<Order>,
    _tasks: JoinSet<()>,
}

impl Fleet {
    /// Hosts that do nothing yet, spread evenly over `servers`.
    pub fn start(size: &Size, servers: &[String]) -> Result<Fleet, String> {
        let sight = Arc::new(Sight::new(size.at_once));
        let (orders, order) = watch::channel(Order::default());
        let urls = servers.iter().cycle().take(servers.len() * size.connections_per_server);
        let channels = urls.map(|url| channel(url)).collect::<Result<Vec<_>, _>>()?;
        let mut tasks = JoinSet::new();
        for number in 0..size.hosts {
            let channel = channels[number % channels.len()].clone();
            let host = Host { number, channel, token: None, sight: Arc::clone(&sight) };
            tasks.spawn(host.live(size.every, order.clone()));
        }
        Ok(Fleet { sight, orders, _tasks: tasks })
    }

    /// Has every host log in once more; nobody reads before [`Fleet::read`].
    pub fn log_in(&self) {
        self.sight.ready.store(0, Relaxed);
        self.orders.send_modify(|order| *order = Order { logins: order.logins + 1, reads: false });
    }

    /// From now on all hosts that log in may do so at the same time.
    pub fn lift_bound(&self) {
        self.sight.places.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Has all hosts read, again and again.
    pub fn read(&self) {
        self.orders.send_modify(|order| order.reads = true);
    }
}

struct Host {
    number: usize,
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    sight: Arc<Sight>,
}

impl Host {
    async fn live(mut self, every: Duration, mut orders: watch::Receiver<Order>) {
        let (mut logins, mut next) = (0, Instant::now());
        loop {
            let order = *orders.borrow_and_update();
            if logins < order.logins {
                self.log_in().await;
                logins += 1;
                self.sight.ready.fetch_add(usize::from(logins == order.logins), Relaxed);
            } else if order.reads {
                tokio::select! {
                    _ = orders.changed() => {}
                    () = sleep_until(next) => {
                        self.visit().await;
                        next = (next + every).max(Instant::now());
                    }
                }
            } else if orders.changed().await.is_err() {
                return;
            } else {
                // Not all hosts read in the same moment.
                next = Instant::now() + every.mul_f64(rand::random_range(0.0..1.0));
            }
        }
    }

    /// Asks for a token until there is one.
    async fn log_in(&mut self) {
        let sight = Arc::clone(&self.sight);
        let _place = sight.places.acquire().await;
        let (began, mut rest) = (Instant::now(), REST_MIN);
        loop {
            match self.authenticate().await {
                Ok(token) => {
                    self.token = Some(token);
                    sight.logins.fetch_add(1, Relaxed);
                    return sight.login_latencies.record(self.number, began.elapsed());
                }
                Err(status) => self.failed(format!("a login: {status}"), status.code() == Code::ResourceExhausted),
            }
            sleep(rest.mul_f64(rand::random_range(0.5..1.0))).await;
            rest = (rest * 2).min(REST_MAX);
        }
    }

    async fn authenticate(&self) -> Result<MetadataValue<Ascii>, Status> {
        let request = AuthenticateRequest { name: USER.0.to_owned(), password: USER.1.to_owned() };
        let answer = AuthClient::new(self.channel.clone()).authenticate(request).await?;
        answer.into_inner().token.parse().map_err(|_| Status::internal("a token with characters that no token has"))
    }

    /// Reads until there is an answer; logs in if that is what is asked for.
    async fn visit(&mut self) {
        let (began, mut is_away) = (Instant::now(), false);
        while let Err(status) = self.read().await {
            if !std::mem::replace(&mut is_away, true) {
                self.sight.away.fetch_add(1, Relaxed);
            }
            if needs_login(&status) {
                self.sight.outdated.fetch_add(1, Relaxed);
                self.log_in().await;
            } else {
                self.failed(format!("a read: {status}"), false);
                sleep(REST_MIN.mul_f64(rand::random_range(0.1..1.0))).await;
            }
        }
        self.sight.reads.fetch_add(1, Relaxed);
        self.sight.latencies.record(self.number, began.elapsed());
        if is_away {
            self.sight.away.fetch_sub(1, Relaxed);
            self.sight.outages.record(self.number, began.elapsed());
        }
    }

    async fn read(&self) -> Result<(), Status> {
        let mut request = Request::new(RangeRequest { key: key(self.number).into(), ..RangeRequest::default() });
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        let mut kv = KvClient::new(self.channel.clone());
        let answer = timeout(READ_MAX, kv.range(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer in {READ_MAX:?}"))))?;
        match answer.get_ref().kvs.len() {
            1 => Ok(()),
            _ => Err(Status::data_loss(format!("{} is not there", key(self.number)))),
        }
    }

    fn failed(&self, why: String, turned_away: bool) {
        let count = if turned_away { &self.sight.turned_away } else { &self.sight.failed };
        count.fetch_add(1, Relaxed);
        *self.sight.refusal.lock() = why;
    }
}

/// Whether the server does not know the token, or not any more.
fn needs_login(status: &Status) -> bool {
    use henge::types::Error::{AuthOldRevision, InvalidAuthToken};
    [InvalidAuthToken, AuthOldRevision].iter().any(|error| status.message() == error.text())
}
