//! Members in one process that reach each other by calls: any link can be cut, in one direction.

use super::{settings, stop};
use crate::{
    engine::{Home, MemoryHome},
    membership::Member,
    replica::{Handle, Letter, Outgoing, Settings, StartAs, Transport, start},
    types::MemberId,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Rows that travel at a time: little, so that a snapshot takes several steps.
const ROWS_BYTES: usize = 2_000;

#[derive(Default)]
pub(super) struct Network {
    members: Mutex<BTreeMap<MemberId, Handle>>,
    /// Links that lose everything, from and to.
    cut: Mutex<BTreeSet<(MemberId, MemberId)>>,
    /// Snapshots that break off after their first rows.
    pub(super) breaks_snapshots: AtomicBool,
}

/// One member's way out.
struct Way {
    network: Arc<Network>,
    from: Mutex<Option<MemberId>>,
    sending: Arc<Mutex<BTreeSet<MemberId>>>,
}

impl Network {
    fn reach(&self, from: MemberId, to: MemberId) -> Option<Handle> {
        let is_cut = self.cut.lock().contains(&(from, to));
        self.members.lock().get(&to).filter(|_| !is_cut).cloned()
    }

    /// Cuts a member off, in both directions, or lets it back.
    pub(super) fn isolate(&self, id: MemberId, is_cut: bool) {
        let others = self.members.lock().keys().copied().filter(|other| *other != id).collect::<Vec<_>>();
        for other in others {
            for link in [(id, other), (other, id)] {
                match is_cut {
                    true => self.cut.lock().insert(link),
                    false => self.cut.lock().remove(&link),
                };
            }
        }
    }

    pub(super) fn start(self: &Arc<Network>, settings: Settings, home: Arc<dyn Home>) -> Handle {
        let way = Arc::new(Way { network: self.clone(), from: Mutex::default(), sending: Arc::default() });
        let handle = start(settings, home, way.clone(), flume::bounded(1).1).expect("the member starts");
        *way.from.lock() = Some(handle.member_id());
        self.members.lock().insert(handle.member_id(), handle.clone());
        handle
    }

    pub(super) async fn stop(&self, id: MemberId) {
        let handle = self.members.lock().remove(&id).expect("a running member");
        stop(handle).await;
    }
}

impl Transport for Way {
    fn send(&self, letters: Vec<Letter>) {
        let Some(from) = *self.from.lock() else { return };
        for Letter { to, message } in letters {
            if let Some(handle) = self.network.reach(from, to) {
                handle.deliver(from, vec![message]);
            }
        }
    }

    fn set_members(&self, _members: Vec<Member>, _removed: Vec<MemberId>) {}

    fn send_snapshot(&self, to: MemberId, snapshot: Outgoing) {
        let Some(from) = *self.from.lock() else { return };
        let (network, sending) = (self.network.clone(), self.sending.clone());
        if !sending.lock().insert(to) {
            return;
        }
        std::thread::spawn(move || {
            let sent = || {
                let mut incoming = network.reach(from, to)?.receive_snapshot(from, snapshot.meta.clone()).ok()?;
                let mut last = incoming.position();
                loop {
                    let after = last.as_ref().map(|(table, key)| (*table, &key[..]));
                    let rows = snapshot.rows(after, ROWS_BYTES).expect("a sound store");
                    let Some((table, key, _)) = rows.last() else { break };
                    last = Some((*table, key.clone()));
                    network.reach(from, to)?;
                    incoming.write(rows).expect("a sound store");
                    if network.breaks_snapshots.swap(false, Ordering::Relaxed) {
                        return None;
                    }
                }
                incoming.finish().ok()
            };
            let _ = sent();
            sending.lock().remove(&to);
        });
    }

    fn is_sending_snapshot(&self, to: MemberId) -> bool {
        self.sending.lock().contains(&to)
    }

    fn connected_for(&self, to: MemberId) -> Option<Duration> {
        let from = (*self.from.lock())?;
        self.network.reach(from, to).map(|_| Duration::from_secs(60))
    }
}

/// A cluster of founders, each with a log in a folder of its own and a store in memory.
pub(super) struct Cluster {
    pub(super) network: Arc<Network>,
    pub(super) members: Vec<Node>,
    dir: tempfile::TempDir,
}

pub(super) struct Node {
    pub(super) handle: Handle,
    pub(super) home: Arc<MemoryHome>,
    pub(super) settings: Settings,
}

fn url(number: usize) -> String {
    format!("http://10.0.0.{number}:2380")
}

impl Cluster {
    pub(super) fn start(count: usize) -> Cluster {
        let dir = tempfile::tempdir().expect("a folder");
        let network = Arc::<Network>::default();
        let initial = (1..=count).map(|number| (format!("m{number}"), vec![url(number)])).collect::<Vec<_>>();
        let node = |number: usize| {
            let settings = Settings { initial_cluster: initial.clone(), ..named(dir.path(), number) };
            let home = Arc::new(MemoryHome::default());
            Node { handle: network.start(settings.clone(), home.clone()), home, settings }
        };
        let members = (1..=count).map(node).collect();
        Cluster { network, members, dir }
    }

    /// Starts a member that was added to the cluster under `id`.
    pub(super) fn join(&mut self, number: usize, id: MemberId) {
        let told = self.members[0].handle.view().members();
        let start_as =
            StartAs::Joined { member_id: id, cluster_id: self.members[0].handle.cluster_id(), members: told };
        let settings = Settings { start_as, ..named(self.dir.path(), number) };
        let home = Arc::new(MemoryHome::default());
        self.members.push(Node { handle: self.network.start(settings.clone(), home.clone()), home, settings });
    }

    /// As after a power cut: what was flushed, and the log.
    pub(super) async fn restart(&mut self, at: usize) {
        let home = Arc::new(self.members[at].home.crash());
        self.network.stop(self.members[at].handle.member_id()).await;
        let settings = self.members[at].settings.clone();
        let handle = self.network.start(settings.clone(), home.clone());
        self.members[at] = Node { handle, home, settings };
    }

    /// Where the leader is, once all that are not `besides` agree on one.
    pub(super) async fn leader_besides(&self, besides: Option<usize>) -> usize {
        let agreed = || {
            let others = self.members.iter().enumerate().filter(|(at, _)| Some(*at) != besides);
            let leaders = others.map(|(_, node)| *node.handle.leader().borrow()).collect::<BTreeSet<_>>();
            let leader = leaders.first().copied().flatten().filter(|_| leaders.len() == 1)?;
            self.members.iter().position(|node| node.handle.member_id() == leader).filter(|at| Some(*at) != besides)
        };
        super::eventually(agreed).await
    }

    pub(super) async fn leader(&self) -> usize {
        self.leader_besides(None).await
    }

    pub(super) fn at(&self, at: usize) -> &Handle {
        &self.members[at].handle
    }

    pub(super) async fn end(self) {
        for node in self.members {
            stop(node.handle).await;
        }
    }
}

fn named(dir: &Path, number: usize) -> Settings {
    Settings {
        name: format!("m{number}"),
        peer_urls: vec![url(number)],
        initial_cluster: Vec::new(),
        flush_interval: Duration::from_millis(50),
        ..settings(&dir.join(number.to_string()))
    }
}
