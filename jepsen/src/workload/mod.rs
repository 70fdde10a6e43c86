//! What clients do while things go wrong, and what they note: one file a workload.
//!
//! Clients outlive faults: a call that fails is noted and followed by the next. Most are bound to one member or proxy each,
//! because a client that fails over never asks the stale one.

mod append;
mod lease;
mod lock;
mod register;
mod session;
mod set;
mod watch;

use crate::{
    check::Judgement,
    cluster,
    random::Random,
    timeline::{Call, Clock, End, Log},
};
use henge::client::{Client, Error};
use std::{
    fmt::Debug,
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// An answer that no server may give, whatever happens to it.
#[derive(Debug)]
pub struct Nonsense(pub String);

/// The tasks of a run's clients.
pub type Tasks = JoinSet<Result<(), Nonsense>>;

/// What a workload works with, and all clients of a run share.
#[derive(Debug)]
pub struct Load {
    /// The run's clock.
    pub clock: Clock,
    /// All calls, for the timeline.
    pub calls: Log<Call>,
    /// Where clients find the cluster: its members, or the proxies before it.
    pub addresses: Vec<String>,
    /// Where the proxies are.
    pub proxies: Vec<String>,
    /// Clients at the same time.
    pub clients: usize,
    /// Keys in use at the same time.
    pub keys: usize,
    /// Longest time for one call.
    pub timeout: Duration,
    /// Rules what clients do.
    pub random: Random,
    /// Reads may be stale: to see the checkers find it.
    pub stale_reads: bool,
    /// Tells clients to end.
    pub stop: AtomicBool,
}

/// A call that is over.
#[derive(Debug)]
pub struct Timed<T> {
    /// When it was made, in nanoseconds since the start.
    pub called_ns: u64,
    /// When it was over.
    pub returned_ns: u64,
    /// How it ended for the history.
    pub end: End,
    /// What came of it.
    pub result: Result<T, Error>,
}

impl Load {
    /// Whether clients should end.
    pub fn is_over(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// The client of task `number`: bound to one address as long as there are some without a client, then failing over.
    ///
    /// # Errors
    /// [`Nonsense`] if an address cannot be one.
    pub async fn client(&self, number: usize) -> Result<Client, Nonsense> {
        match self.addresses.get(number) {
            Some(address) => cluster::connect([address], self.timeout).await,
            None => cluster::connect(&self.addresses, self.timeout).await,
        }
        .map_err(|cause| Nonsense(cause.to_string()))
    }

    /// A client that fails over.
    ///
    /// # Errors
    /// As [`Load::client`].
    pub async fn any_client(&self) -> Result<Client, Nonsense> {
        self.client(usize::MAX).await
    }

    /// Makes a call and notes it. `writes` says whether it may have changed something although it failed.
    pub async fn call<T>(
        &self,
        client: usize,
        what: &'static str,
        writes: bool,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Timed<T> {
        let called_ns = self.clock.now_ns();
        let result = work.await;
        let returned_ns = self.clock.now_ns();
        let end = match &result {
            Ok(_) => End::Ok,
            Err(error) if writes && error.may_have_been_applied() => End::Unknown,
            Err(_) => End::Failed,
        };
        self.calls.add(Call { client, what, called_ns, returned_ns, end });
        Timed { called_ns, returned_ns, end, result }
    }

    /// Repeats `work` until it succeeds: for what is done after all faults have ended.
    ///
    /// # Errors
    /// [`Nonsense`] with the last error after 30 seconds.
    pub async fn insist<T, F>(&self, what: &str, work: impl Fn() -> F) -> Result<T, Nonsense>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let start = std::time::Instant::now();
        loop {
            match work().await {
                Ok(answer) => return Ok(answer),
                Err(cause) if start.elapsed() > Duration::from_secs(30) => {
                    return Err(Nonsense(format!("{what}: no answer 30 s after all faults ended: {cause}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// Waits up to `below_us` microseconds by chance.
pub async fn pause(random: &mut Random, below_us: u64) {
    tokio::time::sleep(Duration::from_micros(random.below(below_us))).await;
}

/// Which of many keys to change, by chance: mostly one of a few, so that changes meet, and sometimes one that hardly anybody else
/// changes. A change of such a key that got lost is not made up for, or found out, by the next one.
pub fn uneven(random: &mut Random, keys: usize) -> u64 {
    let among = if random.below(4) == 0 { keys * RARE } else { keys * 2 };
    random.below(among as u64)
}

/// How many keys [`uneven`] knows for each that is in use.
pub const RARE: usize = 32;

/// A future that a trait can return.
pub type Boxed<'a> = Pin<Box<dyn Future<Output = Result<(), Nonsense>> + Send + 'a>>;

/// A kind of load with its checks.
pub trait Workload: Send + Sync + Debug {
    /// Starts the clients. They run until [`Load::is_over`].
    fn start(self: Arc<Self>, load: &Arc<Load>, tasks: &mut Tasks);

    /// What is to be read once all faults have ended and all clients are done.
    fn finish<'a>(&'a self, load: &'a Load) -> Boxed<'a>;

    /// Checks what was noted, and writes it to files in `folder`.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn judge(&self, folder: &Path) -> std::io::Result<Judgement>;
}

/// Makes a workload for a run.
type Make = fn() -> Arc<dyn Workload>;

/// The workloads: a name, how to make it, what it checks.
pub const WORKLOADS: &[(&str, Make, &str)] = &[
    ("register", register::make, "reads, writes and swaps of registers are linearizable, revisions follow time"),
    ("set", set::make, "what was added is never lost, and once seen never missed"),
    ("append", append::make, "transactions over lists are strictly serializable"),
    ("watch", watch::make, "watchers see every event once, in order, without gaps; progress is never early"),
    ("lock", lock::make, "a fencing token keeps holders of an expired lock from writing"),
    ("lease", lease::make, "a lease that is kept alive stays, one that is not goes"),
    (
        SESSION,
        session::make,
        "a session never goes back from proxy to proxy; answers are as new as they were asked to be and say",
    ),
];

/// The one that is about what proxies alone promise.
const SESSION: &str = "session";

/// Whether the workload called `name` means nothing without proxies.
pub fn needs_proxies(name: &str) -> bool {
    name == SESSION
}

/// The workload called `name`.
pub fn find(name: &str) -> Option<Make> {
    WORKLOADS.iter().find(|(known, _, _)| *known == name).map(|(_, make, _)| *make)
}
