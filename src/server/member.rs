//! [`Backend`] over a member: the edge of the core.

mod changes;

use super::{
    AuthSettings, Backend, Downgrade, Header, Healing, HealingNews, Keeper, LeaseLeft, Listed, Means, Pinned, Rules,
    Status, Ticket, Trace, downgrade, gauges::MemberCounts, heal, read_txn, reconfig, upkeep,
};
use crate::{
    auth::Author,
    engine::Checkpoint,
    machine::{AlarmAction, AlarmKind, Applied, Command, Op, Txn, TxnReply},
    membership::{Change, Member},
    mvcc::{HashKv, RangeQuery, RangeResult, Reader},
    replica::{Handle, Stages},
    ring::Roster,
    types::{Error, Fault, KeyRange, LeaseId, MemberId, Revision},
    watch::Hub,
};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{Semaphore, watch};

/// Ranges of more keys than this are read off the runtime's threads, so that they hold up nobody else.
const KEYS_INLINE_MAX: usize = 2_000;

/// A member, as the services see it.
#[derive(Clone)]
pub struct MemberBackend {
    handle: Handle,
    keeper: Keeper,
    quota_bytes: i64,
    rules: Rules,
    stopping: Arc<watch::Sender<bool>>,
    counts: Arc<MemberCounts>,
    /// Threads for long walks: few, so that lists cannot take the machine from everything else. And for walks over the whole store, behind
    /// which lists would wait too long.
    walkers: Arc<Semaphore>,
    surveyors: Arc<Semaphore>,
}

impl Means for Handle {
    fn token(&self, token: &str) -> Option<(Arc<str>, u64)> {
        Handle::token(self, token)
    }

    fn now(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    fn chance(&self) -> u64 {
        Handle::chance(self)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.auth_changed()
    }
}

impl MemberBackend {
    /// Serves `handle`. `stopping` is set by whoever stops the process; `quota_bytes` is 0 if there is no bound.
    pub fn new(
        handle: Handle,
        quota_bytes: i64,
        rules: Rules,
        auth: AuthSettings,
        stopping: Arc<watch::Sender<bool>>,
    ) -> MemberBackend {
        let keeper = Keeper::new(handle.view().clone(), handle.clone(), auth);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let walkers = Arc::new(Semaphore::new(processors.div_ceil(2)));
        let surveyors = Arc::new(Semaphore::new(1));
        MemberBackend { handle, keeper, quota_bytes, rules, stopping, counts: Arc::default(), walkers, surveyors }
    }

    /// Starts what a member does without being asked; it ends when the member stops. `auto_promote`: see the flag.
    pub fn upkeep(&self, auto_promote: bool) {
        tokio::spawn(upkeep::relieve(self.handle.clone(), self.stopping()));
        if auto_promote {
            tokio::spawn(upkeep::promote(self.clone(), self.stopping()));
        }
    }

    /// Begins to heal the core while this member leads, with hosts of `roster` that volunteer; ends when the member stops.
    pub fn heal(&self, healing: Healing, roster: Roster, news: HealingNews) {
        tokio::spawn(heal::heal(self.clone(), roster, healing, news, self.stopping()));
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn counts(&self) -> &MemberCounts {
        &self.counts
    }

    async fn confirm(&self, serializable: bool) -> Result<(), Error> {
        match serializable {
            // What differs from the others' state is nobody's state.
            true if self.handle.is_quarantined() => Err(Error::Corrupt),
            true => Ok(()),
            false => self.read_index().await,
        }
    }

    async fn read_index(&self) -> Result<(), Error> {
        let result = self.handle.read_index().await;
        self.counts.confirmed(&result);
        result
    }

    /// Reads a range where that holds nobody up.
    async fn read<T: Send + 'static>(
        &self,
        query: RangeQuery,
        serializable: bool,
        mut ticket: Ticket,
        trace: &Trace<'_>,
        read: impl Fn(&Reader, &RangeQuery, &mut Ticket) -> Result<Result<T, Error>, Fault> + Send + 'static,
    ) -> Result<(T, Ticket), Error> {
        let is_short = !ticket.is_for_much() && self.is_small(&query);
        if ticket.is_for_little() && !is_short {
            return Err(Error::NoRoom);
        }
        self.confirm(serializable).await?;
        trace.may_read();
        let read = match is_short {
            true => self.sound(read(self.handle.reader(), &query, &mut ticket))?.map(|answer| (answer, ticket)),
            false => {
                let walk = move |handle: &Handle| {
                    let answer = read(handle.reader(), &query, &mut ticket)?;
                    Ok(answer.map(|answer| (answer, ticket)))
                };
                self.blocking(&self.walkers, walk).await
            }
        };
        self.counts.ranges(&read);
        read
    }

    /// Whether an answer is there soon enough to be read where the call is.
    fn is_small(&self, query: &RangeQuery) -> bool {
        let reader = self.handle.reader();
        let is_counted = query.revision.0 <= 0;
        let keys = || match is_counted {
            true => reader.keys_in(&query.range),
            // Of the past the index does not know how many there were without a walk.
            false => reader.keys_total(),
        };
        matches!(query.range, KeyRange::One(_))
            || (query.count_only && is_counted)
            || (1..=KEYS_INLINE_MAX as i64).contains(&query.limit) && is_counted && query.walks_to_its_limit()
            || keys() <= KEYS_INLINE_MAX
    }

    fn is_small_txn(&self, txn: &Txn) -> bool {
        let one = |op: &Op| match op {
            Op::Range(query) => self.is_small(query),
            Op::Txn(nested) => self.is_small_txn(nested),
            Op::Put(_) | Op::DeleteRange(_) => true,
        };
        let compared = |range: &KeyRange| self.is_small(&RangeQuery::new(range.clone()));
        txn.compares.iter().all(|compare| compared(&compare.range)) && txn.success.iter().chain(&txn.failure).all(one)
    }

    /// Takes note of what came of a proposal.
    fn outcome(&self, result: Result<(Applied, Stages), Error>, trace: &Trace<'_>) -> Result<Applied, Error> {
        self.counts.proposed(&result);
        let (applied, stages) = result?;
        trace.wrote(stages);
        Ok(applied)
    }

    /// Runs a walk that may be long on a thread where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        threads: &Arc<Semaphore>,
        walk: impl FnOnce(&Handle) -> Result<Result<T, Error>, Fault> + Send + 'static,
    ) -> Result<T, Error> {
        let thread = Arc::clone(threads).acquire_owned().await.map_err(|_| Error::Stopped)?;
        let handle = self.handle.clone();
        let walking = tokio::task::spawn_blocking(move || {
            let walked = walk(&handle);
            // The caller may have left meanwhile: that ends no walk, and so it makes no room either.
            drop(thread);
            walked
        });
        let walked = walking.await;
        self.sound(walked.map_err(|_| Error::Stopped)?)?
    }

    /// A fault stops the member; the caller is told that it stopped.
    fn sound<T>(&self, result: Result<T, Fault>) -> Result<T, Error> {
        result.map_err(|fault| self.report(fault))
    }

    /// Refuses what would fill a full store, and raises the alarm that refuses it everywhere.
    fn check_quota(&self, command: &Command) -> Result<(), Error> {
        let Some(bytes) = command.growth_bytes() else { return Ok(()) };
        if !self.handle.view().quota_exceeded(bytes) {
            return Ok(());
        }
        let member = self.handle.member_id();
        if !self.alarms().contains(&(member, AlarmKind::NoSpace)) {
            tracing::warn!(quota_bytes = self.quota_bytes, "the space quota is used up: raising the NOSPACE alarm");
            let handle = self.handle.clone();
            tokio::spawn(async move {
                let alarm = Command::Alarm { action: AlarmAction::Activate, member, kind: Some(AlarmKind::NoSpace) };
                if let Err(error) = handle.propose(alarm).await {
                    tracing::warn!(%error, "failed to raise the NOSPACE alarm; the next refused write tries again");
                }
            });
        }
        Err(Error::NoSpace)
    }
}

impl Backend for MemberBackend {
    fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    async fn level(&self) -> Result<(), Error> {
        self.read_index().await
    }

    fn header(&self) -> Header {
        Header {
            cluster_id: self.handle.cluster_id(),
            member_id: self.handle.member_id(),
            revision: self.handle.reader().current(),
            term: self.handle.term(),
        }
    }

    async fn range(
        &self,
        query: RangeQuery,
        serializable: bool,
        ticket: Ticket,
        trace: &Trace<'_>,
    ) -> Result<(RangeResult, Ticket), Error> {
        let read = |reader: &Reader, query: &RangeQuery, ticket: &mut Ticket| reader.range_within(query, ticket);
        self.read(query, serializable, ticket, trace, read).await
    }

    async fn list(
        &self,
        query: RangeQuery,
        serializable: bool,
        ticket: Ticket,
        trace: &Trace<'_>,
    ) -> Result<(Listed, Ticket), Error> {
        self.read(query, serializable, ticket, trace, Listed::read).await
    }

    async fn pin(&self, _range: &KeyRange, revision: Revision, serializable: bool) -> Result<Pinned, Error> {
        self.confirm(serializable).await?;
        let reader = self.handle.reader().clone();
        let pin = reader.pin(revision)?;
        Ok(Pinned { reader, pin })
    }

    async fn txn_read(
        &self,
        txn: &Txn,
        serializable: bool,
        mut ticket: Ticket,
        trace: &Trace<'_>,
    ) -> Result<(TxnReply, Revision, Ticket), Error> {
        let is_short = !ticket.is_for_much() && self.is_small_txn(txn);
        if ticket.is_for_little() && !is_short {
            return Err(Error::NoRoom);
        }
        self.confirm(serializable).await?;
        trace.may_read();
        let read = match is_short {
            true => {
                let read = self.sound(read_txn(self.handle.reader(), txn, &mut ticket))?;
                read.map(|(reply, revision)| (reply, revision, ticket))
            }
            false => {
                let txn = txn.clone();
                let walk = move |handle: &Handle| {
                    let read = read_txn(handle.reader(), &txn, &mut ticket)?;
                    Ok(read.map(|(reply, revision)| (reply, revision, ticket)))
                };
                self.blocking(&self.walkers, walk).await
            }
        };
        self.counts.ranges(&read);
        read
    }

    async fn propose(&self, author: &Author, command: Command, trace: &Trace<'_>) -> Result<Applied, Error> {
        self.check_quota(&command)?;
        self.outcome(self.handle.propose_timed(author, command).await, trace)
    }

    async fn compacted(&self, revision: Revision) -> Result<(), Error> {
        self.handle.wait_swept(revision).await
    }

    async fn lease_grant(&self, author: &Author, id: LeaseId, ttl_s: i64, trace: &Trace<'_>) -> Result<Applied, Error> {
        self.check_quota(&Command::LeaseGrant { id, ttl_s })?;
        self.outcome(self.handle.lease_grant_timed(author, id, ttl_s).await, trace)
    }

    async fn lease_keep_alive(&self, ids: Vec<LeaseId>) -> Result<Vec<Option<i64>>, Error> {
        self.handle.lease_keep_alive(ids).await
    }

    async fn lease_left(&self, id: LeaseId, keys: bool) -> Result<Option<LeaseLeft>, Error> {
        let Some(remaining_s) = self.handle.lease_remaining_s(id).await? else { return Ok(None) };
        let Some(lease) = self.handle.view().lease(id) else { return Ok(None) };
        let keys = if keys { lease.keys } else { Vec::new() };
        Ok(Some(LeaseLeft { granted_s: lease.ttl_s, remaining_s, keys }))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        self.handle.read_index().await?;
        Ok(self.handle.view().leases())
    }

    async fn members(&self, serializable: bool) -> Result<Vec<Member>, Error> {
        self.confirm(serializable).await?;
        Ok(self.handle.view().members())
    }

    async fn member_add(&self, peer_urls: Vec<String>, is_learner: bool) -> Result<(Member, Vec<Member>), Error> {
        self.judge_anew(|rules, now| rules.may_add(now, &self.newcomer(&peer_urls, is_learner))).await?;
        let member = self.newcomer(&peer_urls, is_learner);
        let members = self.change(Change::Add(member.clone())).await?;
        Ok((member, members))
    }

    async fn member_remove(&self, id: MemberId) -> Result<Vec<Member>, Error> {
        self.judge_anew(|rules, now| rules.may_remove(now, id)).await?;
        self.change(Change::Remove(id)).await
    }

    async fn member_update(&self, id: MemberId, peer_urls: Vec<String>) -> Result<Vec<Member>, Error> {
        self.change(Change::UpdatePeers(id, peer_urls)).await
    }

    async fn member_promote(&self, id: MemberId) -> Result<Vec<Member>, Error> {
        let promoted = self.promote(id).await;
        self.counts.promoted(&promoted);
        promoted
    }

    async fn move_leader(&self, to: MemberId) -> Result<(), Error> {
        if *self.handle.leader().borrow() != Some(self.handle.member_id()) {
            return Err(Error::NotLeader);
        }
        reconfig::may_lead(&self.handle.view().members(), to)?;
        match to == self.handle.member_id() {
            true => Ok(()),
            false => self.handle.move_leader(to).await,
        }
    }

    async fn downgrade(&self, what: Downgrade) -> Result<String, Error> {
        self.handle.read_index().await?;
        let view = self.handle.view();
        let version = view.cluster_version();
        if let Some(command) = downgrade::command(what, version.as_deref(), view.downgrade().as_deref())? {
            self.handle.propose(command).await?.result?;
        }
        Ok(downgrade::spoken(version))
    }

    fn alarms(&self) -> Vec<(MemberId, AlarmKind)> {
        self.handle.view().alarms(None)
    }

    async fn hash_kv(&self, revision: Revision) -> Result<HashKv, Error> {
        let began = Instant::now();
        let hash = self.blocking(&self.surveyors, move |handle| handle.reader().hash_kv(revision)).await;
        self.counts.hash_at_revision.observe(began.elapsed());
        hash
    }

    async fn hash_all(&self) -> Result<u32, Error> {
        let began = Instant::now();
        let hash = self.blocking(&self.surveyors, |handle| handle.reader().hash_all().map(Ok)).await;
        self.counts.hash.observe(began.elapsed());
        hash
    }

    async fn checkpoint(&self) -> Result<Box<dyn Checkpoint>, Error> {
        self.blocking(&self.surveyors, |handle| handle.checkpoint().map(Ok)).await
    }

    async fn defragment(&self) -> Result<(), Error> {
        // Both stores reuse free space all the time: there is nothing to stop the world for.
        Ok(())
    }

    fn status(&self) -> Status {
        let status = self.handle.status();
        Status {
            leader: status.leader,
            term: status.term,
            committed: status.committed,
            applied: status.applied,
            is_learner: self.is_learner(),
            size: status.size,
            quota_bytes: self.quota_bytes,
            downgrade_to: self.handle.view().downgrade(),
        }
    }

    fn is_learner(&self) -> bool {
        self.handle.is_learner()
    }

    fn hub(&self) -> &Hub {
        self.handle.hub()
    }

    fn leader(&self) -> watch::Receiver<Option<MemberId>> {
        self.handle.leader()
    }

    fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    fn fault(&self) -> Option<String> {
        self.handle.fault().borrow().clone()
    }

    fn report(&self, fault: Fault) -> Error {
        self.handle.fail(&fault);
        Error::Faulted(fault.to_string())
    }
}
