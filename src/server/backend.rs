//! The seam between the edge and what stands behind it: a member, or a proxy of the ring.

use super::{admission::Ticket, downgrade::Downgrade, keeper::Keeper, trace::Trace};
use crate::{
    auth::Author,
    engine::{self, Checkpoint},
    machine::{AlarmKind, Applied, Command, Txn, TxnReply},
    membership::Member,
    mvcc::{HashKv, Pin, RangeQuery, RangeResult, RangeRows, Reader},
    types::{ClusterId, Error, Fault, Index, Key, KeyRange, LeaseId, MemberId, Revision, Term},
    watch::Hub,
};
use std::future::Future;
use tokio::sync::watch;

/// What stands in the header of every reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Cluster that answers.
    pub cluster_id: ClusterId,
    /// Member that answers.
    pub member_id: MemberId,
    /// Of the store at the time of the reply; for a write, the write's own.
    pub revision: Revision,
    /// Raft term that the member is in.
    pub term: Term,
}

/// Facts about the answering member. Gathering them needs no quorum.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Who leads, as far as this member knows.
    pub leader: Option<MemberId>,
    /// Raft term that the member is in.
    pub term: Term,
    /// Highest index known to be committed.
    pub committed: Index,
    /// Highest index applied; `applied <= committed`.
    pub applied: Index,
    /// Whether the member receives the log without a vote. A learner answers serializable reads only.
    pub is_learner: bool,
    /// Space that the store takes.
    pub size: engine::Size,
    /// Space that the store may take; 0 if there is no bound.
    pub quota_bytes: i64,
    /// The version that a running downgrade goes to, as `"3.6.0"`; `None` if there is none.
    pub downgrade_to: Option<String>,
}

/// What is left of a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseLeft {
    /// Time to live that was granted, in seconds.
    pub granted_s: i64,
    /// Seconds left.
    pub remaining_s: i64,
    /// Keys attached, if they were asked for.
    pub keys: Vec<Key>,
}

/// A range at one revision that compaction will not take away while this lives.
pub struct Pinned {
    /// Answers for the keys of the range that was pinned.
    pub reader: Reader,
    /// The revision that all steps read at; holds the sweep of compaction back.
    pub pin: Pin,
}

/// What a range is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Keys that were looked at one by one.
    Keys(RangeResult),
    /// Rows as they are stored.
    Rows(RangeRows),
}

impl Listed {
    /// Reads a range in the way that costs least.
    ///
    /// # Errors
    /// As [`Reader::range_within`].
    pub fn read(reader: &Reader, query: &RangeQuery, ticket: &mut Ticket) -> Result<Result<Listed, Error>, Fault> {
        Ok(match reader.rows_within(query, ticket)? {
            Ok(Some(rows)) => Ok(Listed::Rows(rows)),
            Ok(None) => reader.range_within(query, ticket)?.map(Listed::Keys),
            Err(error) => Err(error),
        })
    }

    /// The current revision at the time of the read.
    pub fn revision(&self) -> Revision {
        match self {
            Listed::Keys(result) => result.revision,
            Listed::Rows(rows) => rows.revision,
        }
    }
}

/// What the services ask of a member or a proxy. Cheap to clone: every call and every stream has its own.
///
/// An `Err` of `propose` or `lease_grant` says that the outcome is not known here (or the command was never proposed); a refusal
/// that the state machine decided is in [`Applied::result`]. Timeouts are the backend's business: each future ends in bounded time.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Who callers are, and what they may do.
    fn keeper(&self) -> &Keeper;

    /// Returns once this member has applied all that any client may have been told about.
    fn level(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// The header of a reply that is sent now.
    fn header(&self) -> Header;

    /// Reads a range; linearizable unless `serializable`. The answer is charged to `ticket`, and comes with it: what is too long for a ticket
    /// that is for little ends with [`Error::NoRoom`]. Tells `trace` where the time goes.
    fn range(
        &self,
        query: RangeQuery,
        serializable: bool,
        ticket: Ticket,
        trace: &Trace<'_>,
    ) -> impl Future<Output = Result<(RangeResult, Ticket), Error>> + Send;

    /// The same, for whoever sends the answer as it is.
    fn list(
        &self,
        query: RangeQuery,
        serializable: bool,
        ticket: Ticket,
        trace: &Trace<'_>,
    ) -> impl Future<Output = Result<(Listed, Ticket), Error>> + Send;

    /// Pins `range` at `revision` (0 or less: the current one) for a read in many steps; linearizable unless `serializable`.
    fn pin(
        &self,
        range: &KeyRange,
        revision: Revision,
        serializable: bool,
    ) -> impl Future<Output = Result<Pinned, Error>> + Send;

    /// Runs a transaction that writes on none of its paths; linearizable unless `serializable`.
    /// The revision is the store's when it ran. The answer is charged to `ticket`, and comes with it. Tells `trace` where the time goes.
    fn txn_read(
        &self,
        txn: &Txn,
        serializable: bool,
        ticket: Ticket,
        trace: &Trace<'_>,
    ) -> impl Future<Output = Result<(TxnReply, Revision, Ticket), Error>> + Send;

    /// Replicates a command for `author`, whose permissions are looked at when it is applied, and waits until it is applied here.
    /// Tells `trace` where the time goes.
    fn propose(
        &self,
        author: &Author,
        command: Command,
        trace: &Trace<'_>,
    ) -> impl Future<Output = Result<Applied, Error>> + Send;

    /// Returns once everything below `revision`, which has been compacted, is swept from disk.
    fn compacted(&self, revision: Revision) -> impl Future<Output = Result<(), Error>> + Send;

    /// Makes a lease. Id 0: the backend chooses; a `ttl_s` below the least that an election allows is raised to it.
    fn lease_grant(
        &self,
        author: &Author,
        id: LeaseId,
        ttl_s: i64,
        trace: &Trace<'_>,
    ) -> impl Future<Output = Result<Applied, Error>> + Send;

    /// Renews leases. The time to live of each in seconds, or `None` if there is no such lease.
    fn lease_keep_alive(&self, ids: Vec<LeaseId>) -> impl Future<Output = Result<Vec<Option<i64>>, Error>> + Send;

    /// What is left of a lease, with its keys if `keys`; `None` if there is no such lease.
    fn lease_left(&self, id: LeaseId, keys: bool) -> impl Future<Output = Result<Option<LeaseLeft>, Error>> + Send;

    /// All leases, in the order of their ids.
    fn leases(&self) -> impl Future<Output = Result<Vec<LeaseId>, Error>> + Send;

    /// All members, in the order of their ids; linearizable unless `serializable`.
    fn members(&self, serializable: bool) -> impl Future<Output = Result<Vec<Member>, Error>> + Send;

    /// Adds a member whose `peer_urls` are in order: it, and all members after that.
    ///
    /// # Errors
    /// Those of [`Rules::may_add`](super::reconfig::Rules::may_add), and what replicating may end with.
    fn member_add(
        &self,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> impl Future<Output = Result<(Member, Vec<Member>), Error>> + Send;

    /// Removes a member for good: all members after that.
    ///
    /// # Errors
    /// Those of [`Rules::may_remove`](super::reconfig::Rules::may_remove), and what replicating may end with.
    fn member_remove(&self, id: MemberId) -> impl Future<Output = Result<Vec<Member>, Error>> + Send;

    /// Gives a member other peer URLs: all members after that.
    ///
    /// # Errors
    /// [`Error::MemberNotFound`], [`Error::PeerURLExist`], and what replicating may end with.
    fn member_update(
        &self,
        id: MemberId,
        peer_urls: Vec<String>,
    ) -> impl Future<Output = Result<Vec<Member>, Error>> + Send;

    /// Gives a learner a vote: all members after that.
    ///
    /// # Errors
    /// [`Error::LearnerNotReady`], those of [`Rules::may_promote`](super::reconfig::Rules::may_promote), and what replicating may end with.
    fn member_promote(&self, id: MemberId) -> impl Future<Output = Result<Vec<Member>, Error>> + Send;

    /// Hands the lead to `to`; returns when it leads.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::BadLeaderTransferee`], [`Error::Timeout`]
    fn move_leader(&self, to: MemberId) -> impl Future<Output = Result<(), Error>> + Send;

    /// Does something about a downgrade. The version that the cluster speaks now, as `"3.7"`.
    ///
    /// # Errors
    /// Those of the checks of the wanted version, and what replicating may end with.
    fn downgrade(&self, what: Downgrade) -> impl Future<Output = Result<String, Error>> + Send;

    /// Alarms that are active as far as this member knows. The linearizable list is a command.
    fn alarms(&self) -> Vec<(MemberId, AlarmKind)>;

    /// CRC32C over the stored versions up to `revision` (0 or less: the current one).
    fn hash_kv(&self, revision: Revision) -> impl Future<Output = Result<HashKv, Error>> + Send;

    /// CRC32C over all that is stored; differs between members by what each has swept.
    fn hash_all(&self) -> impl Future<Output = Result<u32, Error>> + Send;

    /// Everything that is stored, as it is now, for a snapshot.
    fn checkpoint(&self) -> impl Future<Output = Result<Box<dyn Checkpoint>, Error>> + Send;

    /// Gives unused space back, beside the traffic.
    fn defragment(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Facts about the answering member.
    fn status(&self) -> Status;

    /// Whether this member is without a vote. Asked by every call, so it must be cheap.
    fn is_learner(&self) -> bool;

    /// Where watchers attach.
    fn hub(&self) -> &Hub;

    /// Who leads, and a wake-up when that changes.
    fn leader(&self) -> watch::Receiver<Option<MemberId>>;

    /// Becomes `true` once, when the member begins to stop: streams end then.
    fn stopping(&self) -> watch::Receiver<bool>;

    /// Why the member cannot serve any more, if so.
    fn fault(&self) -> Option<String>;

    /// A step of a pinned read met a fault: the member has to stop. The error to answer with.
    fn report(&self, fault: Fault) -> Error;
}
