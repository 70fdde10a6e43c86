//! One machine: a member in its lives, what it stands on, and its stages.

use super::{
    clock::{MachineClock, Time},
    executor::{Chores, Executor},
    medium::{LogDisk, SimHome},
    network::{Links, Way},
    plan::{MS, Plan},
};
use crate::{
    engine::{Batch, Home as _, Table},
    io::{Disk as _, Rng as _, sim_disk::SimDisk},
    machine,
    pb::mvccpb::KeyValue,
    replica::{Ground, Handle, Parts, Settings, StartAs, assemble},
    sim::Chance,
    types::{Entry, Fault, Index, MemberId},
    wal::{self, Wal},
    watch,
};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// What a member does when it has work for it, each beside the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The loop.
    Run,
    /// The log.
    Persist,
    /// The state machine.
    Apply,
    /// The sweep of what was compacted.
    Sweep,
    /// Jobs that wait for other parts.
    Jobs,
    /// Jobs that block.
    Block,
}

/// All of them.
pub const STAGES: [Stage; 6] = [Stage::Run, Stage::Persist, Stage::Apply, Stage::Sweep, Stage::Jobs, Stage::Block];

/// What has become of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs, or will again.
    Serves,
    /// Its member has learned that it was removed.
    Left,
    /// Its log or store was damaged, and it said so.
    Damaged(String),
}

/// A member that runs.
pub struct Up {
    /// What clients and peers have.
    pub handle: Handle,
    /// Its stages.
    pub parts: Parts<LogDisk>,
    /// Its way out.
    pub way: Arc<Way>,
    /// What it has asked for.
    pub chores: Arc<Chores>,
    /// Jobs under way.
    pub jobs: Executor<()>,
    /// Which stages are about to run.
    pub due: [bool; STAGES.len()],
}

/// A machine.
pub struct Host {
    /// Of its member.
    pub id: MemberId,
    /// Told to each life.
    pub settings: Settings,
    /// Of the log.
    pub disk: LogDisk,
    /// Of the store.
    pub home: Arc<SimHome>,
    /// Its time.
    pub clock: Arc<MachineClock>,
    /// What the clock showed at first, and jumps that the lease checker is not told of.
    pub hidden_us: u64,
    /// Counts starts and ends of processes.
    pub life: u64,
    /// The present life.
    pub up: Option<Up>,
    /// Stands still until then.
    pub paused_until_us: u64,
    /// The disk hangs until then, in what it has not finished.
    pub hangs_until_us: u64,
    /// Most that a sync takes beyond the ordinary.
    pub slow_us: u64,
    /// The power will go in the middle of something.
    pub is_doomed: bool,
    /// Somebody has changed what it keeps: it may stop because of that.
    pub is_tainted: bool,
    /// Its store is not what it was: nobody relies on what it says.
    pub is_suspect: bool,
    /// What has become of it.
    pub fate: Fate,
    /// Which of its ticks counts: one that was set by a clock that has been turned since does not.
    pub ticks: u64,
    /// What was on its disk and in its home some time ago, for a world that lies.
    pub kept: Option<(SimDisk, Arc<SimHome>)>,
}

/// Where the log is.
pub const WAL_DIR: &str = "/m/wal";

impl Host {
    /// A new machine, which has not started. `others` are the founders; of one that joins nobody asks.
    pub fn new(number: usize, plan: &Plan, start_as: StartAs, time: &Time, seed: u64) -> Host {
        let disk = SimDisk::new(seed);
        // The folder that the log's own is made in is durable before: that is its maker's business.
        disk.create_dir(Path::new("/m")).and_then(|()| disk.sync_dir(Path::new("/"))).expect("a new disk works");
        let founder = |number: usize| (format!("m{number}"), vec![url(number)]);
        let settings = Settings {
            wal_dir: WAL_DIR.into(),
            name: format!("m{number}"),
            peer_urls: vec![url(number)],
            client_urls: vec![format!("http://10.0.0.{number}:2379")],
            cluster_token: "sim".into(),
            initial_cluster: (1..=plan.founders).map(founder).collect(),
            start_as,
            force_new_cluster: false,
            heartbeat: Duration::from_micros(plan.heartbeat),
            election_ticks: plan.election_ticks,
            pre_vote: plan.pre_vote,
            snapshot_count: plan.snapshot_count,
            catchup_entries: plan.catchup_entries,
            auth_token_ttl: Duration::from_secs(300),
            request_bytes_max: 100_000,
            quota_bytes: 0,
            // So little that rows come and go.
            value_cache_bytes: 4 << 10,
            flush_interval: Duration::from_micros(plan.flush_interval),
            sweep_step: (10, Duration::from_micros(5 * MS)),
            auto_compaction: None,
            watch: watch::Options {
                stream_bytes_max: plan.stream_bytes_max,
                near_revisions: 3,
                history_bytes_max: 200,
                ..watch::Options::default()
            },
            warn_apply_after: Duration::from_secs(60),
            unsafe_no_fsync: false,
            wal_keep_all: false,
            sabotage: plan.sabotage(),
        };
        let id = match &settings.start_as {
            StartAs::New => crate::membership::member_id(&settings.peer_urls, &settings.cluster_token),
            StartAs::Joined { member_id, .. } => *member_id,
        };
        let begins_us = [0, 1, 3_600_000_000][number % 3];
        Host {
            id,
            settings,
            disk: LogDisk { disk, lies: plan.lie == Some(super::plan::Lie::SyncsNothing) },
            home: Arc::default(),
            clock: Arc::new(MachineClock::new(time.clone(), begins_us)),
            hidden_us: begins_us,
            life: 0,
            up: None,
            paused_until_us: 0,
            hangs_until_us: 0,
            slow_us: 0,
            is_doomed: false,
            is_tainted: false,
            is_suspect: false,
            fate: Fate::Serves,
            ticks: 0,
            kept: None,
        }
    }

    /// Begins a life.
    ///
    /// # Errors
    /// What the member stops with.
    pub fn start(&mut self, plan: &Plan, links: &Arc<Mutex<Links>>, time: &Time, chance: Chance) -> Result<(), Fault> {
        self.life += 1;
        let way = Arc::new(Way::new(Arc::clone(links), time.clone()));
        *way.own.lock() = self.id;
        let chores = Arc::<Chores>::default();
        let ground = Ground {
            disk: self.disk.clone(),
            segment_bytes: plan.segment_bytes,
            clock: self.clock.clone(),
            chance: Box::new(chance),
            tasks: chores.clone(),
            home: self.home.clone(),
            transport: way.clone(),
        };
        let (handle, parts) = assemble(self.settings.clone(), ground)?;
        assert_eq!(handle.member_id(), self.id, "a member keeps its id");
        self.up = Some(Up { handle, parts, way, chores, jobs: Executor::default(), due: [false; STAGES.len()] });
        Ok(())
    }

    /// Ends a life: everything in memory is gone. With the power goes also what was not synced.
    pub fn end(&mut self, power: bool) {
        self.up = None;
        self.life += 1;
        self.home = Arc::new(self.home.crash());
        // Where the power is about to go, only its return ends that.
        if power || self.is_doomed {
            self.disk.disk.crash();
        }
        self.is_doomed = false;
    }

    /// Whether the state of another member lies ready to take the place of the present one when the member starts.
    ///
    /// # Errors
    /// A broken store.
    pub fn will_install(&self) -> Result<bool, Fault> {
        let Some(sealed) = self.home.sealed()? else { return Ok(false) };
        Ok(machine::applied_in(&*sealed)? > machine::applied_in(&*self.home.open()?)?)
    }

    /// The entries that a founder has begun its log with.
    pub fn founding(&self) -> Vec<Entry> {
        let options = wal::Options::of(1 << 16, true);
        let opened = Wal::open(self.disk.disk.fork(0), Path::new(WAL_DIR), Index(0), options);
        opened.expect("a log that was just made").1.entries
    }

    /// What the lease checker knows of the clock.
    pub fn known_us(&self) -> u64 {
        self.clock.local_us() - self.hidden_us
    }

    /// Changes a row of the store behind everybody's back, while nobody runs: the latest version of some key has another version number,
    /// so that the next entry that touches the key comes out otherwise. False if there is no such row.
    pub fn tamper(&mut self, chance: &mut Chance) -> Result<bool, Fault> {
        let engine = self.home.open()?;
        // Keys that are there now, each with its last row.
        let mut live = BTreeMap::<Bytes, (Bytes, KeyValue)>::new();
        let all = (Bound::Unbounded, Bound::Unbounded);
        engine.scan(Table::Versions, all, &mut |row, value| {
            let kv = KeyValue::decode(value).unwrap_or_default();
            match row.len() {
                // A tombstone's row is one longer.
                18 => drop(live.remove(&kv.key)),
                _ => drop(live.insert(kv.key.clone(), (Bytes::copy_from_slice(row), kv))),
            }
            ControlFlow::Continue(())
        })?;
        if live.is_empty() {
            return Ok(false);
        }
        let drawn = chance.below(live.len() as u64) as usize;
        let (row, mut kv) = live.into_values().nth(drawn).expect("below the length");
        kv.version += 1_000;
        let mut batch = Batch::default();
        batch.put(Table::Versions, row, kv.encode_to_vec());
        engine.write(batch)?;
        engine.flush()?;
        Ok(true)
    }
}

/// Where other members reach it.
pub fn url(number: usize) -> String {
    format!("http://10.0.0.{number}:2380")
}
