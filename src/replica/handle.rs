//! All that the edge holds of a member: propose, read, watch, keep alive, status, stop.

mod leases;

use super::{
    company::Company,
    desk::LeaseCall,
    expiry::Expiry,
    hashes::Window,
    proposals::Proposals,
    reads::{Reads, Waiting},
    run::Inbox,
    snapshots::Arrival,
    standbys::Standbys,
    tally::{Stages, Tally},
    tasks::Tasks,
    transport::{PeerMessage, Transport},
};
use crate::{
    auth::{Author, SimpleTokens},
    engine::{self, Checkpoint, Home},
    io::{Clock, Rng},
    machine::{Applied, Command, RequestId, View, codec},
    membership::{Change, Changes},
    mvcc::Reader,
    types::{ClusterId, EntryKind, Error, Fault, Index, MemberId, Revision, Term},
    watch::Hub,
};
use bytes::Bytes;
use flume::{Sender, TrySendError};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::{oneshot, watch};

/// Most entries that may be committed and not yet applied before proposals are refused (etcd's bound).
const APPLY_LAG_MAX: u64 = 5_000;
/// The same for commands that must get through: lease grants and revokes, alarms, compaction.
const APPLY_LAG_MAX_PRIORITY: u64 = 10_000;

/// A running member. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// What the member's threads and its callers share. Every field is either a bounded queue or a fact with its own lock.
pub(crate) struct Shared {
    pub(super) inbox: Sender<Inbox>,
    pub(super) proposals: Proposals,
    pub(super) reads: Reads,
    /// Reads, and calls about leases, that wait for those before them.
    pub(super) readers: Mutex<Company<Waiting>>,
    pub(super) lessees: Mutex<Company<LeaseCall>>,
    pub(super) expiry: Expiry,
    pub(super) facts: Facts,
    /// What the disk has completed and the loop not yet heard of. A later completion stands for all before it.
    pub(super) persisted: Mutex<Option<(Index, Term)>>,
    pub(super) reader: Reader,
    pub(super) view: View,
    pub(super) hub: Hub,
    pub(super) member_id: MemberId,
    pub(super) cluster_id: ClusterId,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) chance: Mutex<Box<dyn Rng>>,
    pub(super) tasks: Arc<dyn Tasks>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) home: Arc<dyn Home>,
    pub(super) arrival: Mutex<Arrival>,
    pub(super) hashes: Mutex<Window>,
    pub(super) standbys: Mutex<Standbys>,
    pub(super) leader: watch::Sender<Option<MemberId>>,
    pub(super) fault: watch::Sender<Option<String>>,
    /// Set once this member has applied its own removal.
    pub(super) removed: watch::Sender<bool>,
    pub(super) swept: watch::Sender<Revision>,
    /// Tokens that were issued through the log.
    pub(super) tokens: SimpleTokens,
    /// [`View::auth_stamp`], and a wake-up when it changes.
    pub(super) auth_changed: watch::Sender<u64>,
    pub(super) sweeper: Sender<()>,
    /// The flush thread is not to sit out its interval.
    pub(super) flusher: Sender<()>,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Bounds that the settings draw.
pub(super) struct Limits {
    /// Longest wait for the outcome of a proposal or a read.
    pub(super) request_timeout: Duration,
    /// Least time to live of a lease: the leader must have time to change.
    pub(super) ttl_s_min: i64,
    /// Largest command, in bytes.
    pub(super) request_bytes_max: usize,
}

/// Numbers that change all the time, each written by one thread.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) term: AtomicU64,
    pub(super) committed: AtomicU64,
    pub(super) first_index: AtomicU64,
    pub(super) applied: AtomicU64,
    /// When the present leader was first seen, in microseconds of the clock; 0 before the first.
    pub(super) led_since_us: AtomicU64,
    /// Since when the log's disk has been at work on the same batch, in microseconds of the clock; 0 if it rests.
    pub(super) disk_busy_since_us: AtomicU64,
    /// This member receives the log without a vote.
    pub(super) learner: AtomicBool,
    /// This member's state differs from the others', and is about to be replaced. Nobody may see it.
    pub(super) quarantined: AtomicBool,
    /// There is no other member, neither voter nor learner; this one leads, and has applied an entry of its own term. Then nothing is
    /// acknowledged that is not applied here, so a read of the applied state is linearizable as it is.
    pub(super) alone: AtomicBool,
    /// Last entry that is applied, with all that follows from it told to those concerned.
    pub(super) settled: Mutex<(Index, Term)>,
    /// The loop could go on at once if it heard of what the disk has completed. Else it hears of it in its next turn.
    pub(super) awaits_disk: AtomicBool,
    /// The loop has ended; apply may still be at work.
    pub(super) ended: AtomicBool,
    /// Apply had no room for something, which the loop will hand over once it is told that there is some.
    pub(super) held_back: AtomicBool,
    pub(super) tally: Tally,
    wal_syncs: AtomicU64,
    wal_sync_us: AtomicU64,
}

impl Facts {
    /// Whether the applied state can be read as it is: see `alone`.
    pub(super) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire) && !self.ended.load(Ordering::Acquire)
    }

    pub(super) fn wal_sync(&self, took: Duration) {
        self.wal_syncs.fetch_add(1, Ordering::Relaxed);
        self.wal_sync_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What a member knows of itself; needs no quorum.
#[derive(Clone, Debug)]
pub struct Status {
    /// Who leads, as far as this member knows.
    pub leader: Option<MemberId>,
    /// Raft term.
    pub term: Term,
    /// Highest index known to be committed.
    pub committed: Index,
    /// Highest applied index.
    pub applied: Index,
    /// First entry of the log that is still in memory.
    pub first_index: Index,
    /// Space that the store takes.
    pub size: engine::Size,
    /// How many syncs the log has had, and how long they took in all.
    pub wal_syncs: (u64, Duration),
    /// Proposals that wait for their outcome.
    pub proposals_pending: usize,
}

impl Shared {
    /// Stops the member: whoever waits is told, and so is whoever runs the process. The first fault is the one that counts.
    pub(super) fn fail(&self, fault: &Fault) {
        let first = self.fault.send_if_modified(|told| {
            let first = told.is_none();
            if first {
                *told = Some(fault.to_string());
            }
            first
        });
        if first {
            tracing::error!(error = %fault, "this member stops because of a fault");
        }
        self.proposals.fail_all(&Error::Stopped);
        self.reads.fail_all(&Error::Stopped);
    }

    /// To be asked once something waits. What waits by then the end of the loop fails; what comes after nobody would find.
    fn runs(&self) -> Result<(), Error> {
        match self.fault.borrow().is_some() || self.facts.ended.load(Ordering::Acquire) {
            true => Err(Error::Stopped),
            false => Ok(()),
        }
    }

    /// Has a call wait for those before it.
    fn join<T>(&self, company: &Mutex<Company<T>>, call: T) -> Result<(), Error> {
        let is_to_tell = company.lock().join(call)?;
        if is_to_tell {
            // One that has no room is awake, and finds it.
            let _ = self.inbox.try_send(Inbox::Look);
        }
        self.runs()
    }

    /// When a call that begins now must have its answer.
    pub(super) fn deadline(&self) -> Duration {
        self.clock.now() + self.limits.request_timeout
    }

    /// The next 64 bits of this member's chance.
    pub(crate) fn chance(&self) -> u64 {
        self.chance.lock().next_u64()
    }

    /// The state of this member is wrong, and its disk is to know that.
    pub(super) fn quarantine(&self) {
        self.facts.quarantined.store(true, Ordering::Release);
        // Full: it is called already.
        let _ = self.flusher.try_send(());
    }

    /// There may be something to sweep.
    pub(super) fn sweep(&self) {
        // Full: it has been told already.
        let _ = self.sweeper.try_send(());
    }

    fn send(&self, message: Inbox) -> Result<(), Error> {
        match self.inbox.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Error::RequestTooManyRequests),
            Err(TrySendError::Disconnected(_)) => Err(Error::Stopped),
        }
    }
}

impl Handle {
    /// Replicates a command of this member's own account and waits until it is applied here: nobody's permissions are asked for.
    ///
    /// # Errors
    /// As [`Handle::propose_for`].
    pub async fn propose(&self, command: Command) -> Result<Applied, Error> {
        self.propose_for(&Author::Member, command).await
    }

    /// Replicates `command` for `author` and waits until it is applied here.
    ///
    /// # Errors
    /// Only where the outcome is unknown or the command was never proposed: [`Error::Timeout`], [`Error::Stopped`],
    /// [`Error::NoLeader`], [`Error::RequestTooManyRequests`], [`Error::RequestTooLarge`], [`Error::NoSpace`] (quota). What the state
    /// machine refused is in [`Applied::result`].
    pub async fn propose_for(&self, author: &Author, command: Command) -> Result<Applied, Error> {
        self.propose_timed(author, command).await.map(|(applied, _)| applied)
    }

    /// The same, and where the time went.
    ///
    /// # Errors
    /// As [`Handle::propose_for`].
    pub async fn propose_timed(&self, author: &Author, command: Command) -> Result<(Applied, Stages), Error> {
        self.admit(&command)?;
        let id = self.request_id();
        self.submit(id, EntryKind::Normal, codec::encode(id, author, &command)).await
    }

    /// Replicates a change of membership and waits until it is applied here. The reply lists all members after it.
    ///
    /// # Errors
    /// As [`Handle::propose`].
    pub async fn change_members(&self, change: Change) -> Result<Applied, Error> {
        let id = self.request_id();
        let (kind, data) = codec::encode_conf_change(id, &change);
        self.submit(id, kind, data).await.map(|(applied, _)| applied)
    }

    /// A learner gets a vote, and at the same moment a voter leaves: one change, through a joint membership, so that there is never one voter
    /// more, or one less. Otherwise as [`Handle::change_members`].
    ///
    /// # Errors
    /// As [`Handle::propose`].
    pub async fn swap_members(&self, learner: MemberId, leaving: MemberId) -> Result<Applied, Error> {
        let id = self.request_id();
        let changes = vec![Change::Promote(learner), Change::Remove(leaving)];
        let (kind, data) = codec::encode_conf_changes(id, &Changes::Joint { changes, auto_leave: true });
        self.submit(id, kind, data).await.map(|(applied, _)| applied)
    }

    /// Unique among the proposals of all members and all restarts for as long as an entry may be waited for.
    fn request_id(&self) -> RequestId {
        RequestId(self.shared.chance())
    }

    async fn submit(&self, id: RequestId, kind: EntryKind, data: Bytes) -> Result<(Applied, Stages), Error> {
        let shared = &*self.shared;
        self.trusted()?;
        if data.len() > shared.limits.request_bytes_max {
            return Err(Error::RequestTooLarge);
        }
        let now = shared.clock.now();
        let (answer, is_to_tell) = shared.proposals.wait(id, kind, data, now, now + shared.limits.request_timeout)?;
        if is_to_tell && let Err(error) = shared.send(Inbox::Look) {
            // One that has no room is awake, and finds it; but what comes is too much for it.
            shared.proposals.fail(id, error.clone());
            return Err(error);
        }
        if let Err(stopped) = shared.runs() {
            shared.proposals.fail(id, stopped);
        }
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// Whether this member's state may be seen.
    fn trusted(&self) -> Result<(), Error> {
        match self.shared.facts.quarantined.load(Ordering::Acquire) {
            true => Err(Error::Corrupt),
            false => Ok(()),
        }
    }

    /// Refuses what could only wait in vain.
    fn admit(&self, command: &Command) -> Result<(), Error> {
        let facts = &self.shared.facts;
        let lag = facts.committed.load(Ordering::Relaxed).saturating_sub(facts.applied.load(Ordering::Relaxed));
        let bound = if is_priority(command) { APPLY_LAG_MAX_PRIORITY } else { APPLY_LAG_MAX };
        if lag > bound {
            return Err(Error::RequestTooManyRequests);
        }
        Ok(())
    }

    /// Returns once this member has applied all that any client may have been told about.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::NoLeader`] or [`Error::Stopped`].
    pub async fn read_index(&self) -> Result<(), Error> {
        let shared = &*self.shared;
        self.trusted()?;
        if shared.facts.is_alone() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        shared.join(&shared.readers, Waiting { reply, deadline: shared.deadline() })?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// Returns once this member has applied up to `index`.
    ///
    /// # Errors
    /// [`Error::TimeoutWaitAppliedIndex`] or [`Error::Stopped`].
    pub(super) async fn applied_to(&self, index: Index) -> Result<(), Error> {
        let shared = &*self.shared;
        self.trusted()?;
        let (reply, answer) = oneshot::channel();
        shared.reads.follow(index, vec![Waiting { reply, deadline: shared.deadline() }]);
        shared.runs()?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// Whether a learner has nine tenths of the leader's log, so that it could vote; asks the leader.
    ///
    /// # Errors
    /// [`Error::Timeout`] if no leader answers, [`Error::Stopped`].
    pub async fn learner_is_ready(&self, member: MemberId) -> Result<bool, Error> {
        let (reply, answer) = oneshot::channel();
        self.shared.send(Inbox::IsReady { member, reply })?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// Hands the lead to another voter. Returns once that one leads.
    ///
    /// # Errors
    /// [`Error::NotLeader`] if this member does not lead, [`Error::BadLeaderTransferee`] if `to` does not vote, [`Error::Timeout`] or
    /// [`Error::LeaderChanged`] if it came to something else.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), Error> {
        self.transfer(Some(to)).await
    }

    /// Before a stop: hands the lead to the voter that has the most of the log, if this member leads and there is one. Returns within
    /// two election timeouts, whatever comes of it.
    pub async fn hand_over(&self) {
        if *self.shared.leader.borrow() != Some(self.shared.member_id) {
            return;
        }
        match self.transfer(None).await {
            Ok(()) => tracing::info!("handed over the lead"),
            Err(Error::BadLeaderTransferee) => {}
            Err(error) => tracing::warn!(%error, "could not hand over the lead; the others hold an election"),
        }
    }

    async fn transfer(&self, to: Option<MemberId>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.shared.send(Inbox::Transfer { to, reply })?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// Messages of another member, in their order. Never waits: what has no room is dropped, as a network may.
    pub fn deliver(&self, from: MemberId, messages: Vec<PeerMessage>) {
        let _ = self.shared.inbox.try_send(Inbox::Peer { from, messages });
    }

    /// Another member says that this one was removed from the cluster for good. Told so by those who would know, it stops.
    pub fn expelled(&self, by: MemberId) {
        tracing::warn!(by = %by, "another member says that this one was removed from the cluster");
        self.shared.removed.send_replace(true);
    }

    /// Becomes `true` when this member learns that it was removed from the cluster.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.shared.removed.subscribe()
    }

    /// For how long there has been an unbroken connection to a member; `None` if there is none.
    pub fn connected_for(&self, id: MemberId) -> Option<Duration> {
        match id == self.shared.member_id {
            true => Some(self.shared.clock.now()),
            false => self.shared.transport.connected_for(id),
        }
    }

    /// Whether this member receives the log without a vote.
    pub fn is_learner(&self) -> bool {
        self.shared.facts.learner.load(Ordering::Acquire)
    }

    /// Whether this member's state was found to differ from the others', and is not replaced yet.
    pub fn is_quarantined(&self) -> bool {
        self.shared.facts.quarantined.load(Ordering::Acquire)
    }

    /// Returns once everything below `revision`, which has been compacted, is swept from disk.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the member stops first.
    pub async fn wait_swept(&self, revision: Revision) -> Result<(), Error> {
        let mut swept = self.shared.swept.subscribe();
        let mut fault = self.shared.fault.subscribe();
        tokio::select! {
            biased;
            done = swept.wait_for(|swept| *swept >= revision) => done.map(|_| ()).map_err(|_| Error::Stopped),
            _ = fault.wait_for(Option::is_some) => Err(Error::Stopped),
        }
    }

    /// Everything that is stored, as it is now. Blocks on the disk: it flushes first.
    ///
    /// # Errors
    /// A broken store.
    pub fn checkpoint(&self) -> Result<Box<dyn Checkpoint>, Fault> {
        self.shared.view.engine().checkpoint()
    }

    /// Reads of stored versions, from any thread.
    pub fn reader(&self) -> &Reader {
        &self.shared.reader
    }

    /// Where watchers attach.
    pub fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    /// Leases, members, alarms: the replicated state beside keys.
    pub fn view(&self) -> &View {
        &self.shared.view
    }

    /// The next 64 bits of this member's chance.
    pub fn chance(&self) -> u64 {
        self.shared.chance()
    }

    /// Whose simple token this is, and at which auth revision that was proven. It lives longer by that.
    pub fn token(&self, token: &str) -> Option<(Arc<str>, u64)> {
        self.shared.tokens.find(token, self.shared.clock.now())
    }

    /// [`View::auth_stamp`], and a wake-up when it changes.
    pub fn auth_changed(&self) -> watch::Receiver<u64> {
        self.shared.auth_changed.subscribe()
    }

    /// This member.
    pub fn member_id(&self) -> MemberId {
        self.shared.member_id
    }

    /// Its cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.shared.cluster_id
    }

    /// Raft term, for the header of replies.
    pub fn term(&self) -> Term {
        Term(self.shared.facts.term.load(Ordering::Relaxed))
    }

    /// What this member knows of itself.
    pub fn status(&self) -> Status {
        let facts = &self.shared.facts;
        // Applied first: read the other way round, it could overtake.
        let applied = Index(facts.applied.load(Ordering::Acquire));
        Status {
            leader: *self.shared.leader.borrow(),
            term: self.term(),
            committed: Index(facts.committed.load(Ordering::Acquire)).max(applied),
            applied,
            first_index: Index(facts.first_index.load(Ordering::Relaxed)),
            size: self.shared.view.engine().size().unwrap_or_default(),
            wal_syncs: (
                facts.wal_syncs.load(Ordering::Relaxed),
                Duration::from_micros(facts.wal_sync_us.load(Ordering::Relaxed)),
            ),
            proposals_pending: self.shared.proposals.len(),
        }
    }

    /// Who leads, and a wake-up when that changes.
    pub fn leader(&self) -> watch::Receiver<Option<MemberId>> {
        self.shared.leader.subscribe()
    }

    /// Why the member stopped by itself, once it has.
    pub fn fault(&self) -> watch::Receiver<Option<String>> {
        self.shared.fault.subscribe()
    }

    /// Stops the member because of what somebody else found, such as a damaged row met by a read.
    pub fn fail(&self, fault: &Fault) {
        self.shared.fail(fault);
    }

    /// Stops the member in an orderly way: what is in flight is finished or failed, log and store are synced. Blocks.
    pub fn stop(&self) {
        // The loop is gone already if a fault was first.
        let _ = self.shared.inbox.send(Inbox::Stop);
        let threads = std::mem::take(&mut *self.shared.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the member had panicked");
            }
        }
        self.shared.proposals.fail_all(&Error::Stopped);
        self.shared.reads.fail_all(&Error::Stopped);
    }
}

/// Whether a command must get through where others are turned away: it frees something, or somebody's time runs out.
fn is_priority(command: &Command) -> bool {
    !matches!(command, Command::Put(_) | Command::DeleteRange(_) | Command::Txn(_) | Command::Range(_))
}
