//! What all services share: the way in, the way to the log, and when a stream must end.

use super::{
    Backend, Header,
    admission::{Admission, Ticket},
    check::Limits,
    identity::Identity,
    trace::Trace,
};
use crate::{
    machine::{Command, Reply},
    types::{Error, Key, MemberId},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tonic::metadata::MetadataMap;

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
    /// How long a stream with `hasleader` lives on without a leader: etcd's three election timeouts.
    pub leaderless_max: Duration,
    /// Most proposals under way.
    pub proposals_max: usize,
    /// Most bytes of them.
    pub proposal_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            limits: Limits::default(),
            version: Version::claiming("3.7.1"),
            slow_call: Duration::from_millis(300),
            leaderless_max: Duration::from_secs(3),
            proposals_max: 20_000,
            proposal_bytes_max: 256 << 20,
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
    admission: Admission,
}

impl<B: Backend> Edge<B> {
    /// An edge in front of `backend`.
    pub fn new(backend: B, settings: Settings) -> Edge<B> {
        let admission = Admission::new(settings.proposals_max, settings.proposal_bytes_max);
        Edge { backend, settings: Arc::new(settings), admission }
    }

    /// What every call passes first. `on_learner`: a learner answers this call too.
    ///
    /// # Errors
    /// [`Error::NotSupportedForLearner`], then [`Error::NoLeader`] for a caller that insists on one.
    pub fn enter(&self, metadata: &MetadataMap, on_learner: bool) -> Result<Identity, Error> {
        if !on_learner && self.backend.is_learner() {
            return Err(Error::NotSupportedForLearner);
        }
        if insists_on_leader(metadata) && self.backend.leader().borrow().is_none() {
            return Err(Error::NoLeader);
        }
        Ok(Identity::of(metadata))
    }

    /// Room for a request of `bytes` that goes into the log.
    ///
    /// # Errors
    /// [`Error::RequestTooLarge`], [`Error::RequestTooManyRequests`]
    pub fn admit(&self, bytes: usize) -> Result<Ticket, Error> {
        self.settings.limits.check_bytes(bytes)?;
        self.admission.enter(bytes)
    }

    /// How many proposals, and how many bytes of them, are under way.
    pub fn under_way(&self) -> (usize, usize) {
        self.admission.under_way()
    }

    /// Replicates a command that takes `bytes` in the log: its reply, and the header of it.
    pub async fn propose(&self, call: &'static str, bytes: usize, command: Command) -> Result<(Reply, Header), Error> {
        let _ticket = self.admit(bytes)?;
        let trace = self.trace(call);
        let key = key_of(&command);
        let result = self.backend.propose(command).await;
        trace.done(&key, &result);
        let applied = result?;
        Ok((applied.result?, self.backend.header().at(applied.revision)))
    }

    /// Starts the stopwatch of a call.
    pub fn trace(&self, call: &'static str) -> Trace {
        Trace::start(call, self.settings.slow_call)
    }

    /// Tells a stream that began with `metadata` when to end.
    pub fn stream_end(&self, metadata: &MetadataMap) -> StreamEnd {
        StreamEnd {
            stopping: self.backend.stopping(),
            leader: insists_on_leader(metadata).then(|| self.backend.leader()),
            leaderless_max: self.settings.leaderless_max,
        }
    }
}

/// The two reasons for a stream to end that lie with the member.
pub struct StreamEnd {
    stopping: watch::Receiver<bool>,
    leader: Option<watch::Receiver<Option<MemberId>>>,
    leaderless_max: Duration,
}

impl StreamEnd {
    /// Waits until the stream has to end: [`Error::Stopped`], or [`Error::NoLeader`] for a client that insists on one.
    /// May be dropped and called again.
    pub async fn reached(&mut self) -> Error {
        let StreamEnd { stopping, leader, leaderless_max } = self;
        tokio::select! {
            // An error means that the sender is gone, and the backend with it.
            _ = stopping.wait_for(|stopping| *stopping) => Error::Stopped,
            () = leaderless(leader, *leaderless_max) => Error::NoLeader,
        }
    }
}

/// Returns when there has been no leader for `limit`; never for a client that doesn't care.
async fn leaderless(leader: &mut Option<watch::Receiver<Option<MemberId>>>, limit: Duration) {
    let Some(leader) = leader else { return std::future::pending().await };
    loop {
        if leader.wait_for(Option::is_none).await.is_err() {
            return;
        }
        // An election is no reason to cut everybody off: they would all come back at once, to be told the same.
        match tokio::time::timeout(limit, leader.wait_for(Option::is_some)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

fn insists_on_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value.as_bytes() == b"true")
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
