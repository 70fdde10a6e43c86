//! What all services share: the way in, the way to the log, and when a stream must end.

use super::{
    Backend, Header, HealingNews,
    admission::{Admission, Bounds, Class, Ticket},
    calls::Calls,
    check::Limits,
    gauges::{EdgeCounts, EdgeSource},
    identity::{Identity, RingProxies},
    keeper::Found,
    rates::{RateSettings, Rates},
    spans::Spans,
    trace::{SlowCalls, Trace},
};
use crate::{
    auth::Author,
    machine::{Command, Reply, View},
    metrics::{Process, Registry},
    ring::Roster,
    types::{Error, Key, KeyRange, MemberId},
};
use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tonic::{Extensions, metadata::MetadataMap};

/// What a member tells clients about its version: etcd's, whose API it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Of the program, as `3.7.1`.
    pub server: String,
    /// That all members speak, as `3.7.0`.
    pub cluster: String,
    /// Of the stored form, as `3.7.0`.
    pub storage: String,
}

impl Version {
    /// All three from that of the program: cluster and storage have no patch level.
    pub fn claiming(server: &str) -> Version {
        let minor = server.rsplit_once('.').map_or(server, |(minor, _)| minor);
        Version { server: server.to_owned(), cluster: format!("{minor}.0"), storage: format!("{minor}.0") }
    }

    /// What `/version` says.
    pub fn json(&self) -> String {
        let Version { server, cluster, storage } = self;
        format!(r#"{{"etcdserver":"{server}","etcdcluster":"{cluster}","storage":"{storage}"}}"#)
    }
}

/// How the edge behaves; the same for every backend.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Largest requests.
    pub limits: Limits,
    /// What `Status` and `/version` say.
    pub version: Version,
    /// `warning-unary-request-duration`: slower calls are logged.
    pub slow_call: Duration,
    /// `--metrics extensive`: the time of each call is measured, too.
    pub times_calls: bool,
    /// `enable-distributed-tracing`: what makes spans of calls.
    pub spans: Option<Spans>,
    /// How long a stream with `hasleader` lives on without a leader: etcd's three election timeouts.
    pub leaderless_max: Duration,
    /// `watch-progress-notify-interval`: at least 100 ms.
    pub watch_progress_interval: Duration,
    /// What may be under way at once.
    pub bounds: Bounds,
    /// How often users, and keys, may be asked for.
    pub rates: RateSettings,
    /// Where a snapshot is made before it is sent: a folder with room for another store.
    pub spool_dir: PathBuf,
    /// `ring-proxy-cn`
    pub ring_proxies: RingProxies,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            limits: Limits::default(),
            version: Version::claiming("3.7.1"),
            slow_call: Duration::from_millis(300),
            times_calls: false,
            spans: None,
            leaderless_max: Duration::from_secs(3),
            watch_progress_interval: Duration::from_secs(600),
            bounds: Bounds::within(4 << 30),
            rates: RateSettings::default(),
            spool_dir: std::env::temp_dir(),
            ring_proxies: RingProxies::default(),
        }
    }
}

/// What each service holds. Cheap to clone; all clones share the admission bounds.
#[derive(Clone)]
pub struct Edge<B> {
    /// What stands behind.
    pub backend: B,
    /// How to behave.
    pub settings: Arc<Settings>,
    /// The proxies behind this member.
    pub roster: Roster,
    /// What this member does for the core to be whole.
    pub healing: HealingNews,
    /// What `/metrics` says.
    pub metrics: Registry,
    /// What was asked of `/health` and of watches.
    pub counts: Arc<EdgeCounts>,
    pub(super) calls: Calls,
    pub(super) admission: Admission,
    /// `None`: nobody's requests are counted by the second.
    rates: Option<Arc<Rates>>,
    /// Threads that read history for watchers.
    pub(super) history_readers: Arc<Semaphore>,
    slow_calls: Arc<SlowCalls>,
}

impl<B: Backend> Edge<B> {
    /// An edge in front of `backend`.
    pub fn new(backend: B, settings: Settings) -> Edge<B> {
        let admission = Admission::new(settings.bounds);
        let rates = Rates::of(&settings.rates).map(Arc::new);
        let roster = Roster::new(backend.header().member_id.0, 0);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let history_readers = Arc::new(Semaphore::new(processors.div_ceil(2)));
        let calls = Calls::new(settings.times_calls, settings.spans.clone(), admission);
        let slow_calls = Arc::new(SlowCalls::new(settings.slow_call));
        let metrics = Registry::default();
        let counts = Arc::new(EdgeCounts::default());
        metrics.add(Process);
        metrics.add(calls.clone());
        metrics.add(EdgeSource {
            counts: Arc::clone(&counts),
            admission,
            rates: rates.clone(),
            version: settings.version.clone(),
        });
        let (settings, healing) = (Arc::new(settings), HealingNews::default());
        Edge {
            backend,
            settings,
            roster,
            healing,
            metrics,
            counts,
            calls,
            admission,
            rates,
            history_readers,
            slow_calls,
        }
    }

    /// What every call passes first: who asks. `on_learner`: a learner answers this call too.
    ///
    /// # Errors
    /// As [`Edge::open`] and [`Edge::identify`].
    pub async fn enter(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
        on_learner: bool,
    ) -> Result<Author, Error> {
        let identity = self.open(metadata, extensions, on_learner)?;
        self.identify(&identity).await
    }

    /// What every call passes first, but for the question who asks.
    ///
    /// # Errors
    /// [`Error::NotSupportedForLearner`], then [`Error::NoLeader`] for a caller that insists on one.
    pub fn open(&self, metadata: &MetadataMap, extensions: &Extensions, on_learner: bool) -> Result<Identity, Error> {
        if !on_learner && self.backend.is_learner() {
            return Err(Error::NotSupportedForLearner);
        }
        if insists_on_leader(metadata) && self.backend.leader().borrow().is_none() {
            return Err(Error::NoLeader);
        }
        Ok(Identity::of(metadata, extensions, &self.settings.ring_proxies))
    }

    /// Who that is.
    ///
    /// # Errors
    /// [`Error::InvalidAuthToken`]
    pub async fn identify(&self, identity: &Identity) -> Result<Author, Error> {
        let keeper = self.backend.keeper();
        let index = match keeper.find(identity)? {
            Found::Author(author) => return Ok(author),
            Found::After(index) => index,
        };
        // Another member issued it a moment ago. If it did, it is known here after this.
        tracing::trace!(index = index.0, "waiting for the entry that issued a token");
        self.backend.level().await?;
        match keeper.find(identity)? {
            Found::Author(author) => Ok(author),
            Found::After(_) => Err(Error::InvalidAuthToken),
        }
    }

    /// The state that says who may do what.
    pub fn view(&self) -> &View {
        self.backend.keeper().view()
    }

    /// Whether `allowed` permits it. A refusal counts only once this member knows what anybody may have been told: a permission that
    /// another member said was granted may still be on its way. If `serializable`, what is known here counts.
    ///
    /// # Errors
    /// What `allowed` says; or nobody knows what is true now.
    pub async fn permit(&self, serializable: bool, allowed: impl Fn(&View) -> Result<(), Error>) -> Result<(), Error> {
        let said = allowed(self.view());
        if said.is_ok() || serializable {
            return said;
        }
        self.backend.level().await?;
        allowed(self.view())
    }

    /// Reads what `allowed` permits. If permissions change meanwhile it begins again: what is answered was permitted when it was read.
    ///
    /// # Errors
    /// As [`Edge::permit`], or `read`.
    pub async fn read<T, F>(
        &self,
        serializable: bool,
        allowed: impl Fn(&View) -> Result<(), Error>,
        read: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let view = self.view();
        loop {
            let stamp = view.auth_stamp();
            self.permit(serializable, &allowed).await?;
            let result = read().await;
            if view.auth_stamp() == stamp {
                return result;
            }
        }
    }

    /// Room for a request of `bytes` that goes into the log.
    ///
    /// # Errors
    /// [`Error::RequestTooLarge`], [`Error::RequestTooManyRequests`]
    pub fn admit(&self, class: Class, bytes: usize) -> Result<Ticket, Error> {
        self.settings.limits.check_bytes(bytes)?;
        self.admission.write(class, bytes)
    }

    /// Where all that is under way counts.
    pub fn admission(&self) -> Admission {
        self.admission
    }

    /// Counts a request for `ranges` against the rates of whoever asks and of the keys. Without rates nobody looks at what is asked for.
    ///
    /// # Errors
    /// [`Error::TooOften`]
    pub fn pace(&self, author: &Author, ranges: impl FnOnce() -> Vec<KeyRange>) -> Result<(), Error> {
        match &self.rates {
            Some(rates) => rates.take(author, &ranges()),
            None => Ok(()),
        }
    }

    /// Replicates a command that takes `bytes` in the log: its reply, and the header of it.
    ///
    /// # Errors
    /// What `author` may not is refused here already; the rest is what a proposal may end with.
    pub async fn propose(
        &self,
        call: &'static str,
        bytes: usize,
        author: &Author,
        command: Command,
    ) -> Result<(Reply, Header), Error> {
        self.permit(false, |view| view.authorize(author, &command)).await?;
        let _ticket = self.admit(class_of(&command), bytes)?;
        let trace = self.trace(call);
        let key = key_of(&command);
        let result = self.backend.propose(author, command, &trace).await;
        trace.done(&key, &result);
        let applied = result?;
        Ok((applied.result?, self.backend.header().at(applied.revision)))
    }

    /// Starts the stopwatch of a call.
    pub fn trace(&self, call: &'static str) -> Trace<'_> {
        Trace::start(call, &self.slow_calls)
    }

    /// Tells a stream that began with `metadata` when to end.
    pub fn stream_end(&self, metadata: &MetadataMap) -> StreamEnd {
        StreamEnd {
            stopping: self.backend.stopping(),
            leader: insists_on_leader(metadata).then(|| Leadership {
                leader: self.backend.leader(),
                leaderless_max: self.settings.leaderless_max,
                leaderless_since: None,
            }),
        }
    }
}

/// The two reasons for a stream to end that lie with the member.
pub struct StreamEnd {
    stopping: watch::Receiver<bool>,
    leader: Option<Leadership>,
}

/// For a client that insists on a leader: who leads, and since when nobody does.
struct Leadership {
    leader: watch::Receiver<Option<MemberId>>,
    leaderless_max: Duration,
    leaderless_since: Option<Instant>,
}

impl StreamEnd {
    /// Waits until the stream has to end: [`Error::Stopped`], or [`Error::NoLeader`] for a client that insists on one.
    /// May be dropped and called again, as often as a stream has something else to do.
    pub async fn reached(&mut self) -> Error {
        let leaderless = async {
            match &mut self.leader {
                Some(leadership) => leadership.lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // An error means that the sender is gone, and the backend with it.
            _ = self.stopping.wait_for(|stopping| *stopping) => Error::Stopped,
            () = leaderless => Error::NoLeader,
        }
    }
}

impl Leadership {
    /// Returns when there has been no leader for too long. An election is no reason to cut everybody off: they would all come
    /// back at once, to be told the same.
    async fn lost(&mut self) {
        loop {
            if self.leader.borrow_and_update().is_some() {
                self.leaderless_since = None;
                if self.leader.changed().await.is_err() {
                    return;
                }
                continue;
            }
            // Kept over calls, or a busy stream would begin to wait anew with each message.
            let since = *self.leaderless_since.get_or_insert_with(Instant::now);
            match tokio::time::timeout_at(since + self.leaderless_max, self.leader.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

fn insists_on_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value.as_bytes() == b"true")
}

/// Keys and values come and go; what keeps the cluster and its clients together goes before them.
fn class_of(command: &Command) -> Class {
    match command {
        Command::Put(_) | Command::DeleteRange(_) | Command::Txn(_) | Command::Range(_) | Command::Compact { .. } => {
            Class::Write
        }
        _ => Class::Upkeep,
    }
}

/// What the slow log says a command was about.
fn key_of(command: &Command) -> Key {
    match command {
        Command::Put(put) => put.key.clone(),
        Command::DeleteRange(delete) => delete.range.start().clone(),
        Command::Range(query) => query.range.start().clone(),
        _ => Key::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_stream_is_cut_too() {
        let leads = watch::Sender::new(Some(MemberId(1)));
        let stops = watch::Sender::new(false);
        let leaderless_max = Duration::from_millis(100);
        let leadership = Leadership { leader: leads.subscribe(), leaderless_max, leaderless_since: None };
        let mut end = StreamEnd { stopping: stops.subscribe(), leader: Some(leadership) };
        let mut quiet = async |time: Duration| tokio::time::timeout(time, end.reached()).await.is_err();

        assert!(quiet(leaderless_max * 2).await, "with a leader it lives");
        leads.send_replace(None);
        let began = Instant::now();
        // Each step is far shorter than the limit: whoever begins to wait anew with each would never be cut.
        while quiet(leaderless_max / 10).await {
            assert!(began.elapsed() < leaderless_max * 100, "still not cut");
        }
        assert!(began.elapsed() >= leaderless_max);
    }
}
