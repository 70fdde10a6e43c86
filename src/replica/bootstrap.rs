//! From a folder to a running member: new, or restarted.

use super::{
    apply::Apply,
    compactor::{self, AutoCompaction},
    expiry::Expiry,
    flush::Flush,
    handle::{Facts, Handle, Limits, Shared},
    persist::Persist,
    proposals::Proposals,
    reads::Reads,
    run::{Inbox, Run},
};
use crate::{
    engine::Engine,
    io::real::RealDisk,
    machine::{self, Command, Machine, RequestId, codec},
    membership::{Change, Member},
    raft::{self, Node, Restored},
    types::{ClusterId, Entry, Fault, HardState, Index, MemberId, SnapshotMeta, Term},
    wal::{self, Wal},
    watch,
};
use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use std::{path::PathBuf, sync::Arc, thread::Builder, time::Duration};

/// Most messages that wait for the loop.
const INBOX_MAX: usize = 65_536;
/// Most batches that wait for the disk. The bytes in them are bounded by raft.
const SAVES_MAX: usize = 4_096;
/// Most batches that wait for apply.
const COMMITTED_MAX: usize = 4;

/// What a member is told by whoever starts it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the log.
    pub wal_dir: PathBuf,
    /// Name of this member.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Keeps clusters apart that are bootstrapped alike.
    pub cluster_token: String,
    /// Length of a tick.
    pub heartbeat: Duration,
    /// Ticks without a leader before an election.
    pub election_ticks: u32,
    /// See [`raft::Config::pre_vote`].
    pub pre_vote: bool,
    /// Entries between two marks in the log.
    pub snapshot_count: u64,
    /// Entries that stay in memory for slow followers.
    pub catchup_entries: u64,
    /// Largest command, in bytes.
    pub request_bytes_max: usize,
    /// Space quota in bytes; negative means none.
    pub quota_bytes: i64,
    /// Longest time between two flushes of the store.
    pub flush_interval: Duration,
    /// Rows that one step of the sweep may touch, and the rest after it.
    pub sweep_step: (usize, Duration),
    /// How history is forgotten by itself, if at all.
    pub auto_compaction: Option<AutoCompaction>,
    /// How watchers are served.
    pub watch: watch::Options,
    /// Applies slower than this are logged.
    pub warn_apply_after: Duration,
    /// Acknowledge without waiting for the disk.
    pub unsafe_no_fsync: bool,
    /// Keep every segment of the log.
    pub wal_keep_all: bool,
}

/// What the metadata record of the log says: whose log it is (etcd's `Metadata` message).
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Metadata {
    #[prost(uint64, tag = "1")]
    node_id: u64,
    #[prost(uint64, tag = "2")]
    cluster_id: u64,
}

/// Starts a member on `engine` and its log; returns once it runs and everything that was known to be committed is applied again.
/// Must be called within a tokio runtime. `wake` says that the engine wants to be flushed before the interval is over.
///
/// # Errors
/// Any [`Fault`] of log, store or state, with file and offset where there is one.
pub fn start(settings: Settings, engine: Arc<dyn Engine>, wake: Receiver<()>) -> Result<Handle, Fault> {
    let disk = if settings.unsafe_no_fsync { RealDisk::without_sync() } else { RealDisk::default() };
    let options = wal::Options { keep_all: settings.wal_keep_all, ..wal::Options::default() };
    let mut machine = Machine::open(Arc::clone(&engine), machine::Settings { quota_bytes: settings.quota_bytes })?;
    let (applied, term) = machine.applied();
    let (mut wal, mut recovered) = match Wal::exists(&disk, &settings.wal_dir)? {
        true => Wal::open(disk, &settings.wal_dir, applied, options)?,
        false if applied == Index(0) => create(disk, &settings, options)?,
        false => {
            return Err(Fault::Unusable {
                path: settings.wal_dir,
                what: "the store holds data, but its log is missing; put the log back, or start with an empty data directory"
                    .to_owned(),
            });
        }
    };
    if wal.last() == Index(0) && applied == Index(0) {
        // New, or a crash came before the first entry.
        found(&settings, &mut wal, &mut recovered)?;
    }
    if wal.last() < applied {
        // Only a log that was not synced can end before the store.
        tracing::warn!(log = wal.last().0, store = applied.0, "the log ends before the store; it goes on from there");
        wal.save_mark(&wal::Mark { index: applied, term }, &machine.conf_state())?;
    }
    if let Some(cut) = &recovered.cut {
        tracing::warn!(file = %cut.file.display(), offset = cut.offset, bytes = cut.bytes, "cut a torn write off the end of the log: it was never acknowledged");
    }
    let metadata: Metadata = prost::Message::decode(recovered.metadata.clone()).map_err(|error| Fault::Damaged {
        path: settings.wal_dir.clone(),
        offset: None,
        what: format!("the log does not say whose it is: {error}"),
    })?;
    check_contiguous(&settings, machine.applied().0, &recovered.entries)?;
    replay(&mut machine, &recovered.entries, recovered.hard_state.commit)?;
    run(settings, engine, wake, machine, wal, recovered, metadata)
}

/// A log without entries, and what opening it would find.
pub(super) fn create(
    disk: RealDisk,
    settings: &Settings,
    options: wal::Options,
) -> Result<(Wal<RealDisk>, wal::Recovered), Fault> {
    let (member_id, cluster_id) = ids(&settings.peer_urls, &settings.cluster_token);
    let metadata = Metadata { node_id: member_id.0, cluster_id: cluster_id.0 };
    let metadata = prost::Message::encode_to_vec(&metadata);
    let wal = Wal::create(disk, &settings.wal_dir, &metadata, options)?;
    Ok((wal, wal::Recovered { metadata: metadata.into(), ..wal::Recovered::default() }))
}

/// The first entry: this member alone, as etcd's bootstrap writes it.
fn found(settings: &Settings, wal: &mut Wal<RealDisk>, recovered: &mut wal::Recovered) -> Result<(), Fault> {
    let founder = Member {
        id: ids(&settings.peer_urls, &settings.cluster_token).0,
        name: settings.name.clone(),
        peer_urls: settings.peer_urls.clone(),
        ..Member::default()
    };
    let (kind, data) = codec::encode_conf_change(RequestId(0), &Change::Add(founder));
    let entry = Entry { term: Term(1), index: Index(1), kind, data };
    recovered.hard_state = HardState { term: Term(1), vote: None, commit: Index(1) };
    recovered.entries = vec![entry];
    wal.append(Some(&recovered.hard_state), &recovered.entries)?;
    wal.sync()
}

/// etcd's way to name members and clusters: hashes of the URLs and the token, so that the same flags give the same ids.
fn ids(peer_urls: &[String], token: &str) -> (MemberId, ClusterId) {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let first_eight = |bytes: &[u8]| {
        let hash = Sha1::digest(bytes);
        u64::from_be_bytes(hash[..8].try_into().expect("a SHA-1 has 20 bytes"))
    };
    let member = first_eight((urls.concat() + token).as_bytes());
    (MemberId(member), ClusterId(first_eight(&member.to_be_bytes())))
}

/// The store may lag behind the log, but there must be no hole between them.
fn check_contiguous(settings: &Settings, applied: Index, entries: &[Entry]) -> Result<(), Fault> {
    match entries.first() {
        Some(first) if first.index != applied.next() => Err(Fault::Damaged {
            path: settings.wal_dir.clone(),
            offset: None,
            what: format!(
                "the store ends at index {applied} but the log begins at {}: entries between them are missing",
                first.index
            ),
        }),
        _ => Ok(()),
    }
}

/// Applies again what was known to be committed: nobody waits for the replies.
fn replay(machine: &mut Machine, entries: &[Entry], commit: Index) -> Result<(), Fault> {
    let known = entries.iter().take_while(|entry| entry.index <= commit).cloned().collect::<Vec<_>>();
    for batch in known.chunks(1_024) {
        machine.apply(batch.to_vec())?;
    }
    Ok(())
}

fn run(
    settings: Settings,
    engine: Arc<dyn Engine>,
    wake: Receiver<()>,
    machine: Machine,
    wal: Wal<RealDisk>,
    recovered: wal::Recovered,
    metadata: Metadata,
) -> Result<Handle, Fault> {
    let (member_id, cluster_id) = (MemberId(metadata.node_id), ClusterId(metadata.cluster_id));
    let (applied, applied_term) = machine.applied();
    let election = settings.heartbeat * settings.election_ticks;
    let node = node(&settings, member_id, &machine, &recovered);
    let (inbox, inbox_out) = crossbeam_channel::bounded(INBOX_MAX);
    let (save, save_out) = crossbeam_channel::bounded(SAVES_MAX);
    let (apply, apply_out) = crossbeam_channel::bounded(COMMITTED_MAX);
    let (alive, stop) = crossbeam_channel::bounded(0);
    let shared = Arc::new(Shared {
        inbox: inbox.clone(),
        persisted: Mutex::default(),
        proposals: Proposals::default(),
        reads: Reads::default(),
        expiry: Expiry::new(),
        facts: Facts::default(),
        reader: machine.reader(),
        view: machine.view(),
        hub: watch::Hub::new(machine.reader(), settings.watch.clone()),
        engine: Arc::clone(&engine),
        member_id,
        cluster_id,
        limits: Limits {
            request_timeout: Duration::from_secs(5) + election * 2,
            ttl_s_min: ttl_s_min(election),
            request_bytes_max: settings.request_bytes_max,
        },
        leader: tokio::sync::watch::Sender::new(None),
        fault: tokio::sync::watch::Sender::new(None),
        swept: tokio::sync::watch::Sender::new(machine.reader().swept()),
        sweep: tokio::sync::Notify::new(),
        threads: Mutex::default(),
    });
    shared.facts.applied.store(applied.0, std::sync::atomic::Ordering::Release);
    shared.reads.applied(applied);
    tracing::info!(member = %member_id, cluster = %cluster_id, applied = applied.0, term = applied_term.0, revision = shared.reader.current().0, "restored the state of this member");

    if node.members().is_alone(member_id) {
        // First in the queue: nobody is turned away because there is no leader yet.
        inbox.try_send(Inbox::Campaign).expect("the queue is new");
    }
    let persist = Persist::new(wal, recovered.hard_state, inbox.clone(), Arc::clone(&shared));
    let applier = Apply {
        machine,
        shared: Arc::clone(&shared),
        inbox: inbox.clone(),
        warn_after: settings.warn_apply_after,
        led: None,
        lease_extend: election,
    };
    let looped = Run {
        unmarked_bytes: 0,
        memberships: [(applied, node.members().conf_state())].into(),
        node,
        shared: Arc::clone(&shared),
        inbox: inbox_out,
        save,
        apply,
        heartbeat: settings.heartbeat,
        snapshot_count: settings.snapshot_count,
        catchup_entries: settings.catchup_entries,
        handed: applied,
        marked: recovered.mark.index,
        next_read: rand::random::<u32>().into(),
    };
    let flusher = Flush { engine, shared: Arc::clone(&shared), inbox, interval: settings.flush_interval, wake };
    let apply_thread = spawn("apply", move || applier.run(apply_out))?;
    let threads = vec![
        spawn("raft", move || looped.run())?,
        spawn("wal", move || persist.run(save_out))?,
        // The store is flushed for the last time when everything is applied.
        spawn("flush", move || {
            flusher.run(&stop);
        })?,
        spawn("stop", move || {
            let panicked = apply_thread.join().is_err();
            assert!(!panicked, "the apply thread panicked");
            drop(alive);
        })?,
    ];
    *shared.threads.lock() = threads;
    let handle = Handle { shared: Arc::clone(&shared) };
    let (rows, pause) = settings.sweep_step;
    tokio::spawn(compactor::sweep(shared, rows, pause));
    if let Some(mode) = settings.auto_compaction {
        tokio::spawn(compactor::auto(handle.clone(), mode));
    }
    tokio::spawn(announce(handle.clone(), settings));
    Ok(handle)
}

fn node(settings: &Settings, member_id: MemberId, machine: &Machine, recovered: &wal::Recovered) -> Node {
    let (applied, applied_term) = machine.applied();
    let config = raft::Config {
        id: member_id,
        election_ticks: settings.election_ticks,
        heartbeat_ticks: 1,
        pre_vote: settings.pre_vote,
        check_quorum: true,
        inflight_messages_max: 512,
        inflight_bytes_max: 16 << 20,
        append_bytes_max: 1 << 20,
        uncommitted_bytes_max: 128 << 20,
    };
    let restored = Restored {
        hard_state: HardState { commit: recovered.hard_state.commit.max(applied), ..recovered.hard_state },
        // What the store has applied stands for the log before it.
        snapshot: SnapshotMeta { index: applied, term: applied_term, conf_state: machine.conf_state() },
        conf_state: machine.conf_state(),
        applied,
        entries: recovered.entries.iter().filter(|entry| entry.index > applied).cloned().collect(),
    };
    Node::new(config, restored, rand::random())
}

/// etcd's least time to live: one and a half election timeouts, in whole seconds, rounded up.
fn ttl_s_min(election: Duration) -> i64 {
    i64::try_from((election * 3 / 2).as_millis().div_ceil(1_000)).unwrap_or(i64::MAX)
}

fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, Fault> {
    Builder::new().name(name.to_owned()).spawn(body).map_err(|error| Fault::io("start thread", name, error))
}

/// Tells the cluster this member's name and client URLs, and, if nobody has, which version the cluster speaks.
async fn announce(handle: Handle, settings: Settings) {
    if handle.read_index().await.is_err() {
        return;
    }
    let (id, view) = (handle.member_id(), handle.view());
    let known = view.members().into_iter().find(|member| member.id == id);
    let current = known.is_some_and(|known| known.name == settings.name && known.client_urls == settings.client_urls);
    let attributes = (!current).then(|| Command::MemberAttributes {
        member: id,
        name: settings.name,
        client_urls: settings.client_urls,
    });
    let version = view.cluster_version().is_none().then(|| Command::ClusterVersionSet { version: "3.7.0".to_owned() });
    for command in attributes.into_iter().chain(version) {
        if let Err(error) = handle.propose(command).await {
            tracing::warn!(%error, "failed to publish this member's attributes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_etcd_gives_for_the_same_flags() {
        let (member, cluster) = ids(&["http://localhost:2380".to_owned()], "etcd-cluster");
        assert_eq!((member.to_string(), cluster.to_string()), ("8e9e05c52164694d".into(), "cdf818194e3a8c32".into()));
    }

    #[test]
    fn the_least_time_to_live_is_two_seconds_by_default() {
        assert_eq!(ttl_s_min(Duration::from_secs(1)), 2);
        assert_eq!(ttl_s_min(Duration::from_secs(2)), 3);
    }
}
