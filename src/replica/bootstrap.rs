//! From a folder to a running member: new, joined, or restarted.

use super::{
    announce::Announcement,
    apply::{Apply, Committed},
    compactor::{AutoCompaction, AutoCompactor, Sweep},
    desk::Desk,
    expiry::Expiry,
    flush::Flush,
    founding,
    handle::{Facts, Handle, Limits, Shared},
    hashes::{Disputes, Window},
    letters,
    narrow::Narrow,
    pace::Pace,
    persist::{Persist, Save, ToDisk},
    proposals::Proposals,
    reads::Reads,
    retention::Retention,
    roster::Roster,
    run::{Inbox, Run},
    tasks::{OnRuntime, Tasks},
    transport::Transport,
};
use crate::{
    auth::SimpleTokens,
    engine::{Engine, Home},
    io::{
        Clock, Disk, Rng,
        real::{RealClock, RealDisk},
    },
    machine::{self, Machine},
    membership::{Identity, Member},
    raft::{self, Node, Output, Restored},
    types::{ClusterId, Entry, Fault, HardState, Index, MemberId, Sabotage, SnapshotMeta},
    wal::{self, Wal},
    watch,
};
use flume::Receiver;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
    thread::Builder,
    time::Duration,
};

/// Most messages that wait for the loop.
const INBOX_MAX: usize = 65_536;
/// Most batches that wait for apply.
const COMMITTED_MAX: usize = 4;

/// What a member is told by whoever starts it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a simple token lives after it was last used.
    pub auth_token_ttl: Duration,
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
    /// Who founds the cluster, by name with peer URLs; this member included. Not looked at by a member that has a log.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// What a member without a log does.
    pub start_as: StartAs,
    /// Make a cluster of this member alone, from what it holds.
    pub force_new_cluster: bool,
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
    /// Memory for rows beside their keys: see [`crate::mvcc::Store::hold_rows`].
    pub value_cache_bytes: usize,
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
    /// A rule to break, in builds that are there to be caught.
    pub sabotage: Option<Sabotage>,
}

/// What a member without a log does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StartAs {
    /// It founds a cluster, with the other members of `initial_cluster`.
    #[default]
    New,
    /// It was added to a cluster, and gets everything from there.
    Joined {
        /// The id that the cluster has given it.
        member_id: MemberId,
        /// The cluster's.
        cluster_id: ClusterId,
        /// Who belongs to it, to reach them before the log tells.
        members: Vec<Member>,
    },
}

/// What a member stands on: everything that it does to the world, and all that it learns from it but messages.
pub(crate) struct Ground<D> {
    /// Of the log.
    pub(crate) disk: D,
    /// How long a file of the log gets, about.
    pub(crate) segment_bytes: u64,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chance: Box<dyn Rng>,
    pub(crate) tasks: Arc<dyn Tasks>,
    pub(crate) home: Arc<dyn Home>,
    pub(crate) transport: Arc<dyn Transport>,
}

/// A member taken apart: what threads run, or a simulator step by step.
pub(crate) struct Parts<D: Disk> {
    pub(crate) run: Run,
    pub(crate) persist: Persist<D>,
    pub(crate) saves: Receiver<Save>,
    pub(crate) apply: Apply,
    pub(crate) committed: Receiver<Committed>,
    pub(crate) flush: Flush<D>,
    pub(crate) sweep: Sweep,
    pub(crate) sweeps: Receiver<()>,
}

/// Starts a member on its home and its log; returns once it runs and everything that was known to be committed is applied again.
/// Must be called within a tokio runtime. `wake` says that the engine wants to be flushed before the interval is over.
///
/// # Errors
/// Any [`Fault`] of log, store or state, with file and offset where there is one.
pub fn start(
    settings: Settings,
    home: Arc<dyn Home>,
    transport: Arc<dyn Transport>,
    wake: Receiver<()>,
) -> Result<Handle, Fault> {
    let disk = if settings.unsafe_no_fsync { RealDisk::without_sync() } else { RealDisk::default() };
    let ground = Ground {
        disk,
        segment_bytes: wal::Options::default().segment_bytes,
        clock: Arc::new(RealClock::default()),
        chance: Box::new(SystemChance),
        tasks: Arc::new(OnRuntime(tokio::runtime::Handle::current())),
        home,
        transport,
    };
    let (handle, parts) = assemble(settings, ground)?;
    *handle.shared.threads.lock() = spawn_all(parts, wake)?;
    Ok(handle)
}

/// Whether there is a log already. Then [`Settings::initial_cluster`] and [`Settings::start_as`] are history.
///
/// # Errors
/// From the disk.
pub fn has_log(wal_dir: &Path) -> Result<bool, Fault> {
    Wal::exists(&RealDisk::default(), wal_dir)
}

/// The system's.
struct SystemChance;

impl Rng for SystemChance {
    fn next_u64(&mut self) -> u64 {
        rand::random()
    }
}

/// A member as it was when it stopped, ready to run.
pub(crate) fn assemble<D: Disk>(settings: Settings, ground: Ground<D>) -> Result<(Handle, Parts<D>), Fault> {
    let (mut machine, installed) = open_machine(&settings, &*ground.home)?;
    let (mut wal, mut recovered) = open_log(&settings, &ground, &machine, installed)?;
    let (applied, _) = machine.applied();
    if wal.last() == Index(0) && applied == Index(0) && settings.start_as == StartAs::New {
        // New, or a crash came before the first entry.
        founding::found(&settings, &mut wal, &mut recovered)?;
    }
    if let Some(cut) = &recovered.cut {
        tracing::warn!(file = %cut.file.display(), offset = cut.offset, bytes = cut.bytes, "cut a torn write off the end of the log: it was never acknowledged");
    }
    let identity = Identity::decode(&recovered.metadata).ok_or_else(|| Fault::Damaged {
        path: settings.wal_dir.clone(),
        offset: None,
        what: "the log does not say whose it is".to_owned(),
    })?;
    check_contiguous(&settings, applied, &recovered.entries)?;
    founding::replay(&mut machine, &recovered.entries, recovered.hard_state.commit)?;
    if settings.force_new_cluster {
        founding::stand_alone(identity.member, &mut machine, &mut wal, &mut recovered)?;
        if ground.home.is_distrusted()? {
            tracing::warn!(
                "the state of this member was contradicted by a majority of the cluster that it leaves; it is kept as it is"
            );
            ground.home.trust()?;
        }
    }
    build(settings, ground, machine, wal, recovered, identity)
}

/// The state machine on the present store; or on a sealed one that is newer, and was to take its place when the process ended. Whether
/// it is such a one is told.
fn open_machine(settings: &Settings, home: &dyn Home) -> Result<(Machine, bool), Fault> {
    let mut engine: Arc<dyn Engine> = home.open()?;
    let mut installed = false;
    if let Some(sealed) = home.sealed()? {
        let (next, present) = (machine::applied_in(&*sealed)?, machine::applied_in(&*engine)?);
        drop(sealed);
        if next > present {
            tracing::warn!(
                index = next.0.0,
                was = present.0.0,
                "a snapshot that had arrived takes the place of the store"
            );
            drop(engine);
            engine = home.install()?;
            installed = true;
        } else {
            home.discard()?;
        }
    }
    let Settings { quota_bytes, value_cache_bytes, .. } = *settings;
    let machine = Machine::open(engine, machine::Settings { quota_bytes, value_cache_bytes })?;
    Ok((machine, installed))
}

fn open_log<D: Disk>(
    settings: &Settings,
    ground: &Ground<D>,
    machine: &Machine,
    installed: bool,
) -> Result<(Wal<D>, wal::Recovered), Fault> {
    let options = wal::Options::of(ground.segment_bytes, settings.wal_keep_all);
    let disk = ground.disk.clone();
    let (applied, term) = machine.applied();
    if !Wal::exists(&disk, &settings.wal_dir)? {
        if applied != Index(0) {
            let what =
                "the store holds data, but its log is missing; put the log back, or start with an empty data directory";
            return Err(Fault::Unusable { path: settings.wal_dir.clone(), what: what.to_owned() });
        }
        return founding::create(disk, settings, options);
    }
    let (mut wal, recovered) = Wal::open(disk.clone(), &settings.wal_dir, applied, options)?;
    // Not so if the store is that of another member, and came to its place before the log was told; or if the log was not synced.
    let holds_applied = recovered.start > applied || recovered.start_term == Some(term);
    if !installed && (holds_applied || applied == Index(0)) {
        return Ok((wal, recovered));
    }
    // The log does not know that it begins anew, or holds entries that never came to be: the mark says which of them count.
    tracing::warn!(log = wal.last().0, store = applied.0, "the log goes on from the state of the store");
    wal.save_mark(&wal::Mark { index: applied, term }, &machine.conf_state())?;
    wal.sync()?;
    drop(wal);
    Wal::open(disk, &settings.wal_dir, applied, options)
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

fn build<D: Disk>(
    settings: Settings,
    ground: Ground<D>,
    mut machine: Machine,
    wal: Wal<D>,
    recovered: wal::Recovered,
    Identity { member: member_id, cluster: cluster_id }: Identity,
) -> Result<(Handle, Parts<D>), Fault> {
    let Ground { disk, clock, mut chance, tasks, home, transport, .. } = ground;
    let (applied, applied_term) = machine.applied();
    let election = settings.heartbeat * settings.election_ticks;
    let node = node(&settings, member_id, &machine, &recovered, chance.next_u64());
    let (inbox, inbox_out) = flume::bounded(INBOX_MAX);
    // Not bounded by a count: the loop must never wait for the disk. Raft bounds the bytes.
    let (save, saves) = flume::unbounded();
    let (apply, committed) = flume::bounded(COMMITTED_MAX);
    let (sweeper, sweeps) = flume::bounded(1);
    let (flusher, calls) = flume::bounded(1);
    let (release, released) = flume::unbounded();
    // Ids of reads and questions: no earlier run of this member may have used them.
    let (first_read, first_question) = (chance.next_u64() >> 1, chance.next_u64() >> 1);
    let (view, now) = (machine.view(), clock.now());
    let shared = Arc::new(Shared {
        inbox: inbox.clone(),
        persisted: Mutex::default(),
        proposals: Proposals::default(),
        reads: Reads::default(),
        readers: Mutex::default(),
        lessees: Mutex::default(),
        expiry: Expiry::new(clock.clone()),
        facts: Facts::default(),
        reader: machine.reader(),
        hub: watch::Hub::on_demand(machine.reader(), settings.watch.clone(), machine.prevs_on_demand()),
        member_id,
        cluster_id,
        limits: Limits {
            request_timeout: Duration::from_secs(5) + election * 2,
            ttl_s_min: ttl_s_min(election),
            request_bytes_max: settings.request_bytes_max,
        },
        clock,
        chance: Mutex::new(chance),
        tasks,
        transport: transport.clone(),
        home,
        arrival: Mutex::default(),
        hashes: Mutex::new(Window::starting_at(view.state_hash())),
        standbys: Mutex::default(),
        leader: tokio::sync::watch::Sender::new(None),
        fault: tokio::sync::watch::Sender::new(None),
        removed: tokio::sync::watch::Sender::new(view.is_removed(member_id)),
        swept: tokio::sync::watch::Sender::new(machine.reader().swept()),
        sweeper,
        flusher,
        tokens: SimpleTokens::new(settings.auth_token_ttl),
        auth_changed: tokio::sync::watch::Sender::new(view.auth_stamp()),
        threads: Mutex::default(),
        view,
    });
    let view = &shared.view;
    shared.facts.applied.store(applied.0, std::sync::atomic::Ordering::Release);
    let learns = view.member(member_id).is_some_and(|own| own.is_learner);
    if shared.home.is_distrusted()? {
        tracing::error!(
            "a majority has contradicted the state of this member before it stopped: it serves nobody until its state is replaced by the leader's"
        );
        shared.facts.quarantined.store(true, std::sync::atomic::Ordering::Release);
    }
    shared.facts.learner.store(learns, std::sync::atomic::Ordering::Release);
    shared.reads.applied(applied);
    let members = match (view.members(), settings.start_as) {
        (members, StartAs::Joined { members: told, .. }) if members.is_empty() => told,
        (members, _) => members,
    };
    transport.set_members(members.clone(), view.removed());
    tracing::info!(member = %member_id, cluster = %cluster_id, applied = applied.0, term = applied_term.0, revision = shared.reader.current().0, "restored the state of this member");

    if node.members().is_alone(member_id) {
        // First in the queue: nobody is turned away because there is no leader yet.
        inbox.try_send(Inbox::Campaign).expect("the queue is new");
    }
    shared.sweep();
    let conf_state = node.members().conf_state();
    let run = Run {
        retention: Retention::new(
            settings.snapshot_count,
            settings.catchup_entries,
            recovered.mark.index,
            applied,
            conf_state,
        ),
        node,
        shared: Arc::clone(&shared),
        inbox: inbox_out,
        disk: ToDisk::new(save, recovered.hard_state),
        apply,
        heartbeat: settings.heartbeat,
        election,
        next_tick: now + settings.heartbeat,
        narrow: Narrow::default(),
        pace: Pace::default(),
        forwarded: Vec::new(),
        handed: applied,
        restore: None,
        out: Output::default(),
        parked: VecDeque::new(),
        parked_reads: Vec::new(),
        next_read: first_read,
        desk: Desk::new(first_question),
        disputes: Disputes::default(),
        roster: Roster::new(members, view.removed()),
        compactor: settings.auto_compaction.map(|mode| AutoCompactor::new(mode, now)),
        transfer: None,
        announcement: Announcement { name: settings.name, client_urls: settings.client_urls, next: now },
        is_stalled: false,
        ticks: 0,
    };
    let apply = Apply {
        machine,
        shared: Arc::clone(&shared),
        inbox: inbox.clone(),
        warn_after: settings.warn_apply_after,
        told_term: applied_term,
        led: None,
        lease_extend: election,
    };
    let (rows_max, pause) = settings.sweep_step;
    let parts = Parts {
        run,
        persist: Persist::new(
            wal,
            recovered.hard_state,
            inbox.clone(),
            Arc::clone(&shared),
            release,
            settings.sabotage,
        ),
        saves,
        apply,
        committed,
        flush: Flush {
            shared: Arc::clone(&shared),
            inbox,
            interval: settings.flush_interval,
            is_noted: false.into(),
            calls,
            disk,
            released,
        },
        sweep: Sweep { shared: Arc::clone(&shared), rows_max, pause },
        sweeps,
    };
    Ok((Handle { shared }, parts))
}

/// Gives each part a thread of its own.
fn spawn_all(parts: Parts<RealDisk>, wake: Receiver<()>) -> Result<Vec<std::thread::JoinHandle<()>>, Fault> {
    let Parts { run, persist, saves, apply, committed, flush, sweep, sweeps } = parts;
    let (alive, stop) = flume::bounded(0);
    let sweeping = stop.clone();
    let apply = spawn("apply", move || apply.run(committed))?;
    Ok(vec![
        spawn("raft", move || run.run())?,
        spawn("wal", move || persist.run(saves))?,
        // The store is flushed for the last time when everything is applied.
        spawn("flush", move || flush.run(&stop, &wake))?,
        spawn("sweep", move || sweep.run(&sweeps, &sweeping))?,
        spawn("stop", move || {
            let panicked = apply.join().is_err();
            assert!(!panicked, "the apply thread panicked");
            drop(alive);
        })?,
    ])
}

fn node(settings: &Settings, member_id: MemberId, machine: &Machine, recovered: &wal::Recovered, seed: u64) -> Node {
    let (applied, applied_term) = machine.applied();
    let config = raft::Config {
        id: member_id,
        election_ticks: settings.election_ticks,
        heartbeat_ticks: 1,
        pre_vote: settings.pre_vote,
        check_quorum: true,
        inflight_messages_max: 512,
        inflight_bytes_max: 16 << 20,
        append_bytes_max: letters::APPEND_BYTES_MAX,
        uncommitted_bytes_max: 128 << 20,
        sabotage: settings.sabotage,
    };
    let restored = Restored {
        hard_state: HardState { commit: recovered.hard_state.commit.max(applied), ..recovered.hard_state },
        // What the store has applied stands for the log before it.
        snapshot: SnapshotMeta { index: applied, term: applied_term, conf_state: machine.conf_state() },
        conf_state: machine.conf_state(),
        applied,
        entries: recovered.entries.iter().filter(|entry| entry.index > applied).cloned().collect(),
    };
    Node::new(config, restored, seed)
}

/// etcd's least time to live: one and a half election timeouts, in whole seconds, rounded up.
fn ttl_s_min(election: Duration) -> i64 {
    i64::try_from((election * 3 / 2).as_millis().div_ceil(1_000)).unwrap_or(i64::MAX)
}

fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, Fault> {
    Builder::new().name(name.to_owned()).spawn(body).map_err(|error| Fault::io("start thread", name, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_time_to_live_is_two_seconds_by_default() {
        assert_eq!(ttl_s_min(Duration::from_secs(1)), 2);
        assert_eq!(ttl_s_min(Duration::from_secs(2)), 3);
    }
}
