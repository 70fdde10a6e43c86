//! What a proxy shows of itself: to whoever stands before it, to people who ask, and on `/metrics`.

use super::{Caller, Copies, Copy, ProxyWatch, Renewals, Resolver, Upstream, feed::to_wire, trust::Word};
use crate::runtime;
use crate::{
    pb::henge::ring::{self as wire, AuthState, Duty, Identity, Listed, Proxy, Source, State, WhoseResponse},
    ring::{Host, Ledger, Roster, Site, Target},
    types::{Error, Revision},
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tonic::{Extensions, Status, metadata::MetadataMap};

/// A copy that lacks what upstream has had for no longer than this does not lag: it is on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// Copies that are told of at most.
const COPIES_MAX: usize = 64;

/// Who a proxy is.
#[derive(Clone, Debug)]
pub struct Own {
    /// Its name for people; a host's, usually.
    pub name: String,
    /// URLs at which clients reach it.
    pub urls: Vec<String>,
    /// Whether it lists itself to clients that ask for the members, in place of the core.
    pub is_listed: bool,
    /// Where it makes itself known as etcd's proxies do.
    pub resolver: Option<Resolver>,
    /// Whether its host volunteers for the core.
    pub standby: Option<Standby>,
}

/// What a proxy tells of its host, which volunteers for the core. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Standby {
    /// Of the member that it would be.
    pub peer_url: String,
    facts: Arc<StandbyFacts>,
}

#[derive(Debug, Default)]
struct StandbyFacts {
    duty: AtomicI32,
    starts: AtomicU64,
}

impl Standby {
    /// One that stands by at `peer_url`.
    pub fn new(peer_url: String) -> Standby {
        let standby = Standby { peer_url, facts: Arc::default() };
        standby.set_duty(Duty::StandsBy);
        standby
    }

    /// How it stands to the core from now on.
    pub fn set_duty(&self, duty: Duty) {
        self.facts.duty.store(duty.into(), Relaxed);
    }

    /// How it stands to the core.
    pub fn duty(&self) -> Duty {
        Duty::try_from(self.facts.duty.load(Relaxed)).unwrap_or(Duty::None)
    }

    /// Its member was started.
    pub fn count_start(&self) {
        self.facts.starts.fetch_add(1, Relaxed);
    }

    /// How often its member was started.
    pub(super) fn starts(&self) -> u64 {
        self.facts.starts.load(Relaxed)
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sight {
    shared: Arc<Shared>,
}

struct Shared {
    own: Own,
    began: Instant,
    roster: Roster,
    upstream: Upstream,
    copies: Copies,
    renewals: Renewals,
    watch: ProxyWatch<Copies>,
    stopping: watch::Receiver<bool>,
    /// Connections, a number for each set of listeners.
    connections: Mutex<Vec<Arc<AtomicUsize>>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Sight {
    /// Of a proxy with these parts.
    pub(super) fn new(
        own: Own,
        upstream: Upstream,
        copies: Copies,
        renewals: Renewals,
        watch: ProxyWatch<Copies>,
        stopping: watch::Receiver<bool>,
    ) -> Sight {
        // 0 would be no id.
        let roster = Roster::new(1 + runtime::below(usize::MAX - 1) as u64, 1);
        let (began, connections) = (Instant::now(), Mutex::default());
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared =
            Shared { own, began, roster, upstream, copies, renewals, watch, stopping, connections, hits, misses };
        Sight { shared: Arc::new(shared) }
    }

    pub(super) fn own(&self) -> &Own {
        &self.shared.own
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.shared.roster
    }

    /// Whether upstream trusts it with users; none if nobody said that it does.
    pub(super) fn is_trusted(&self) -> Option<bool> {
        self.shared.copies.trust().is_trusted()
    }

    /// These connections are clients too.
    pub(super) fn add_connections(&self, count: Arc<AtomicUsize>) {
        self.shared.connections.lock().push(count);
    }

    /// A read was answered here, or passed on.
    pub(super) fn count_read(&self, is_hit: bool) {
        let counter = if is_hit { &self.shared.hits } else { &self.shared.misses };
        counter.fetch_add(1, Relaxed);
    }

    fn copy(&self, copy: &Copy) -> wire::Copy {
        let fence = self.shared.copies.fence();
        let known = fence.known_at(fence.now().saturating_sub(ON_ITS_WAY));
        let (key, range_end) = to_wire(copy.range());
        let (revision, (hits, misses)) = (copy.revision(), copy.counts());
        wire::Copy {
            key,
            range_end,
            revision: revision.0,
            lag: (known.0 - revision.0).max(0),
            age_ms: millis(self.shared.copies.age(copy)),
            bytes: copy.bytes() as u64,
            hits,
            misses,
        }
    }
}

impl Site for Sight {
    fn target(&self) -> Target {
        let (turn, channel) = self.shared.upstream.pick();
        Target { turn, channel, address: self.shared.upstream.address(turn) }
    }

    fn leave(&self, turn: usize) {
        self.shared.upstream.leave(turn);
    }

    fn identity(&self) -> Identity {
        let Own { name, urls, standby, .. } = self.shared.own.clone();
        let pace = *self.shared.roster.pace().borrow();
        Identity {
            name,
            urls,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tier: pace.tier,
            upstream: self.target().address,
            upstream_id: 0,
            standby_peer_url: standby.map_or(String::new(), |standby| standby.peer_url),
        }
    }

    fn state(&self) -> State {
        let Shared { own, began, copies, renewals, watch, connections, hits, misses, .. } = &*self.shared;
        let fence = copies.fence();
        let mut all = copies.all();
        let left_out = all.len().saturating_sub(COPIES_MAX);
        all.truncate(COPIES_MAX);
        State {
            told_ms: 0,
            uptime_ms: millis(began.elapsed()),
            upstream_revision: fence.known_at(fence.now()).0,
            clients: connections.lock().iter().map(|count| count.load(Relaxed) as u64).sum(),
            watches: watch.watchers() as u64,
            renewals: renewals.answered(),
            hits: hits.load(Relaxed),
            misses: misses.load(Relaxed),
            fences: fence.calls(),
            bytes: copies.bytes() as u64,
            bytes_max: copies.bytes_max() as u64,
            copies: all.iter().map(|copy| self.copy(copy)).collect(),
            copies_left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
            duty: own.standby.as_ref().map_or(Duty::None, Standby::duty).into(),
        }
    }

    fn stopping(&self) -> watch::Receiver<bool> {
        self.shared.stopping.clone()
    }

    fn seek(&self, goal: Revision) {
        for copy in self.shared.copies.all().into_iter().filter(|copy| copy.revision() < goal) {
            let copies = self.shared.copies.clone();
            // All of them wait for one fence; one that does not come so far shows in what is told of it.
            runtime::spawn(async move { copies.be_level(&copy).await });
        }
    }
}

impl Host for Sight {
    async fn admit(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<(), Status> {
        let (copies, caller) = (&self.shared.copies, Caller::known_by(extensions, metadata));
        copies.trust().meet(&caller).await;
        match copies.trust().may_admin(&caller) {
            Word::Granted => Ok(()),
            Word::Open if !copies.fence().is_locked() => Ok(()),
            // If only upstream knows who may know this, it is not upstream's to tell.
            Word::Open | Word::Withheld => Err(Error::PermissionDenied.into()),
        }
    }

    fn source(&self) -> Source {
        let fence = self.shared.copies.fence();
        Source {
            cluster_id: 0,
            id: self.shared.roster.id(),
            is_proxy: true,
            revision: fence.known_at(fence.now()).0,
            ..Source::default()
        }
    }

    fn own(&self) -> Option<Listed> {
        let upstream_id = self.shared.roster.above();
        let identity = Some(Identity { upstream_id, ..Site::identity(self) });
        let proxy = Proxy { id: self.shared.roster.id(), identity, state: Some(Site::state(self)), is_lost: false };
        Some(Listed { proxy: Some(proxy), heard_ms: 0 })
    }

    fn seek(&self, goal: Revision) {
        Site::seek(self, goal);
    }

    fn stopping(&self) -> watch::Receiver<bool> {
        self.shared.stopping.clone()
    }
}

impl Ledger for Sight {
    fn trust(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<(), Status> {
        self.shared.copies.trust().admits(metadata, extensions)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.shared.copies.trust().changes()
    }

    fn stamp(&self) -> u64 {
        *self.shared.copies.trust().changes().borrow()
    }

    fn state(&self) -> Option<AuthState> {
        self.shared.copies.trust().state()
    }

    async fn prove(&self) -> bool {
        self.shared.copies.trust().is_still_so().await
    }

    async fn whose(&self, token: String) -> Result<WhoseResponse, Status> {
        self.shared.copies.trust().whose(token).await
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
