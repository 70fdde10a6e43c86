//! The ring in the simulated world: proxies before the core and before each other, and their clients, as they are.
//!
//! **Promises.** Edges, proxies and clients are what runs in production, down to their HTTP/2 connections; simulated are the connections'
//! bytes ([`net`]), the clock, chance, and who runs next ([`processes`]). What a client is told, wherever it asks, is looked at by the same
//! checkers as in the core. At the end all is healed, and everything must work through each proxy.
//!
//! ```text
//!   clients ══▶ proxies of the second tier ══▶ proxies of the first ══▶ edges of members ─► Handle
//!      ╚═══════════════════╩════════════════════════════╩═══▶   ══ connections of the simulated network
//! ```

mod calls;
mod clients;
mod nemesis;
mod net;
mod plan;
mod processes;
mod tests;
mod watchers;

use super::{
    checkers::Violation,
    plan::MS,
    world::{Event, World},
};
use crate::{
    client::ConnectOptions,
    io::Rng,
    proxy::{self, Rules as FeedRules, Upstream},
    runtime,
    server::{self, AuthSettings, ConnectionSettings, Edge, MemberBackend, Rules},
    sim::Chance,
    types::{KeyRange, Revision},
};
use calls::{Outcome, WireCall};
use clients::RingClient;
use net::{Net, Place};
use parking_lot::Mutex;
pub use plan::RingPlan;
use processes::{Pid, Processes};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use watchers::RingWatcher;

/// How often the ring is looked at, at least.
pub const PULSE: u64 = 2 * MS;

/// Everything before the core.
pub struct Ring {
    plan: RingPlan,
    processes: Processes,
    net: Arc<Net>,
    edges: BTreeMap<usize, Pid>,
    proxies: Vec<ProxyHost>,
    clients: Vec<RingClient>,
    watchers: Vec<RingWatcher>,
    calls: BTreeMap<u64, WireCall>,
    last_call: u64,
    /// Outcomes that nobody has looked at.
    outcomes: Arc<Mutex<Vec<(u64, Outcome)>>>,
    /// What linearizable answers had told, and when.
    told: VecDeque<(u64, Revision)>,
    /// Which places have shown since the end of all faults that writes, reads and renewals work there.
    proven: BTreeSet<(Place, &'static str)>,
}

/// A machine with a proxy.
struct ProxyHost {
    upstream: Vec<String>,
    ranges: Vec<KeyRange>,
    /// While it runs.
    pid: Option<Pid>,
    paused_until_us: u64,
    /// Which of its behind it.
    behind: Vec<Place>,
}

impl Ring {
    /// A ring of a core with so many founders.
    pub fn new(plan: RingPlan, founders: usize, keys: u64, chance: &mut Chance) -> Ring {
        let net = Net::new(Chance::new(chance.next_u64()), plan.delay_max_ms);
        let mut processes = Processes::new(Arc::clone(&net), Chance::new(chance.next_u64()));
        let mut proxies = Vec::new();
        for at in 0..plan.first_tier + plan.second_tier {
            let all = match at < plan.first_tier {
                true => (0..founders).map(Place::Member).collect::<Vec<_>>(),
                false => (0..plan.first_tier).map(Place::Proxy).collect(),
            };
            // Not always all, but some.
            let mut behind = all.iter().copied().filter(|_| chance.hits(2, 3)).collect::<Vec<_>>();
            if behind.is_empty() {
                behind = all;
            }
            let upstream = behind.iter().map(|place| format!("http://{}", place.authority())).collect();
            let ranges = plan.ranges(keys, chance);
            proxies.push(ProxyHost { upstream, ranges, pid: None, paused_until_us: 0, behind });
        }
        let clients = (0..plan.clients + plan.watchers).map(|at| {
            let place = Place::Client(at);
            RingClient::new(processes.start(place, std::future::pending()))
        });
        let clients = clients.collect::<Vec<_>>();
        let watchers = (0..plan.watchers).map(|_| RingWatcher::draw(chance, keys)).collect();
        Ring {
            plan,
            processes,
            net,
            edges: BTreeMap::new(),
            proxies,
            clients,
            watchers,
            calls: BTreeMap::new(),
            last_call: 0,
            outcomes: Arc::default(),
            told: VecDeque::from([(0, Revision(0))]),
            proven: BTreeSet::new(),
        }
    }

    /// Where one can ask, whether somebody is there or not.
    fn places(&self) -> Vec<Place> {
        let members = self.edges.keys().map(|at| Place::Member(*at));
        members.chain((0..self.proxies.len()).map(Place::Proxy)).collect()
    }

    /// What stands behind a message that is the same twice.
    pub fn digest(&self) -> u64 {
        let (made, digest) = self.net.digest();
        digest ^ made
    }
}

impl World {
    /// The first events of a ring.
    pub(super) fn begin_ring(&mut self) {
        let Some(ring) = &self.ring else { return };
        let (proxies, clients, watchers) = (ring.proxies.len(), ring.plan.clients, ring.watchers.len());
        self.after(PULSE, Event::Pulse);
        for at in 0..proxies {
            let delay = self.chance.between(0, 2_000 * MS);
            self.after(delay, Event::StartProxy { at });
        }
        for number in 0..clients {
            self.after(1_000 * MS + number as u64, Event::RingClient { number });
        }
        for number in 0..watchers {
            self.after(1_000 * MS + number as u64, Event::RingWatch { number });
        }
        self.after(3_000 * MS, Event::RingFault);
    }

    /// The ring goes on until `until_us`, and what it has to say is looked at.
    pub(super) fn turn_ring(&mut self, until_us: u64) -> Result<(), Violation> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        let now = self.time.now_us();
        for (at, pid) in &ring.edges {
            ring.processes.pause(*pid, self.hosts[*at].paused_until_us > now);
        }
        for proxy in &ring.proxies {
            if let Some(pid) = proxy.pid {
                ring.processes.pause(pid, proxy.paused_until_us > now);
            }
        }
        ring.processes.run_until(&self.time, until_us);
        if self.checkers.floor.revision > ring.told.back().map_or(Revision(0), |(_, revision)| *revision) {
            ring.told.push_back((self.time.now_us(), self.checkers.floor.revision));
        }
        for at in 0..self.hosts.len() {
            self.arm(at);
        }
        self.hear_ring()
    }

    /// Begins the edge of a member that has started.
    pub(super) fn open_edge(&mut self, at: usize) {
        let (Some(ring), Some(up)) = (&mut self.ring, &self.hosts[at].up) else { return };
        let (net, handle, place) = (Arc::clone(&ring.net), up.handle.clone(), Place::Member(at));
        let pid = ring.processes.start(place, async move {
            let stopping = Arc::new(watch::Sender::new(false));
            let backend = MemberBackend::new(handle, 0, Rules::default(), AuthSettings::default(), stopping);
            let settings = server::Settings { watch_progress_interval: Duration::from_secs(2), ..Default::default() };
            accept(&net, place, server::member_front(Edge::new(backend, settings))).await;
        });
        ring.edges.insert(at, pid);
    }

    /// The edge of a member ends with it.
    pub(super) fn close_edge(&mut self, at: usize, power: bool) {
        let Some(ring) = &mut self.ring else { return };
        if let Some(pid) = ring.edges.get(&at) {
            ring.processes.kill(*pid, power);
        }
    }

    /// Starts a proxy that is down.
    pub(super) fn start_proxy(&mut self, at: usize) {
        let Some(ring) = &mut self.ring else { return };
        let host = &mut ring.proxies[at];
        if host.pid.is_some() {
            return;
        }
        let place = Place::Proxy(at);
        let settings = proxy::Settings {
            ranges: host.ranges.clone(),
            rules: FeedRules {
                keep: proxy::Keep { revisions: ring.plan.keep_revisions, ..Default::default() },
                streams: ring.plan.streams,
                ..FeedRules::default()
            },
            pulse: Duration::from_micros(ring.plan.pulse),
            sabotage: ring.plan.sabotage,
            ..proxy::Settings::default()
        };
        let (net, upstream) = (Arc::clone(&ring.net), host.upstream.clone());
        let pid = ring.processes.start(place, async move {
            let upstream = Upstream::new(&upstream, ConnectOptions::default()).expect("good addresses");
            let urls = vec![format!("http://{}", place.authority())];
            let own = proxy::Own { name: place.to_string(), urls, is_listed: false, resolver: None, standby: None };
            let ring = proxy::Ring::new(upstream, own, settings).expect("a good URL");
            accept(&net, place, ring.front()).await;
        });
        host.pid = Some(pid);
        self.note(|| format!("{place} starts"));
    }
}

/// Serves whoever connects.
async fn accept(net: &Net, place: Place, front: impl server::Front) {
    let mut accepted = net.listen(place);
    while let Some(connection) = accepted.recv().await {
        let settings = ConnectionSettings { keepalive_interval: Duration::from_secs(20), ..Default::default() };
        let front = front.clone();
        runtime::spawn(async move { server::serve_connection(connection, front, &settings).await });
    }
}
