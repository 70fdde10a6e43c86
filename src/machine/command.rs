//! Every replicated command, and what each is answered with.
//!
//! Commands are what the edge made of a request after its checks; the log holds them in the form that `codec` gives them. What
//! a command means is decided when it is applied, and depends on nothing but the log before it.

pub use crate::alarm::AlarmKind;
use crate::{
    auth,
    mvcc::{Event, KeyValue, RangeQuery, RangeResult},
    types::{ConfChange, ConfState, Error, Index, Key, KeyRange, LeaseId, MemberId, Revision},
};
use bytes::Bytes;

/// Tells one proposal from all others; the proposer finds its waiting caller by it. 0 is "nobody waits".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A change of the replicated state (or, inside a transaction, a read of it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets one key.
    Put(Put),
    /// Deletes keys.
    DeleteRange(DeleteRange),
    /// Several operations at one revision, chosen by compares.
    Txn(Txn),
    /// Reads. Outside a transaction nobody proposes this; old logs may hold it.
    Range(RangeQuery),
    /// Forgets what was superseded at or before a revision.
    Compact {
        /// The oldest revision that stays readable.
        revision: Revision,
        /// Whether the caller waits for the space to be swept. Means nothing to the replicated state.
        physical: bool,
    },
    /// Makes a lease. The proposer has chosen `id`, and raised `ttl_s` to the minimum.
    LeaseGrant {
        /// Never 0.
        id: LeaseId,
        /// Time to live in seconds.
        ttl_s: i64,
    },
    /// Ends a lease and deletes its keys.
    LeaseRevoke {
        /// Which.
        id: LeaseId,
    },
    /// How many seconds some leases have left, for whoever leads next. 0 is "all of the granted ones".
    LeaseCheckpoint(Vec<(LeaseId, i64)>),
    /// Reads or changes the active alarms.
    Alarm {
        /// What to do.
        action: AlarmAction,
        /// Whose alarm. Not looked at for [`AlarmAction::Get`].
        member: MemberId,
        /// Which kind; `None` is every kind for a `Get`, and nothing at all for the others.
        kind: Option<AlarmKind>,
    },
    /// Sets the version that all members of the cluster speak, for example "3.7.0".
    ClusterVersionSet {
        /// Three numbers with dots.
        version: String,
    },
    /// A member tells its name and where clients find it.
    MemberAttributes {
        /// Who.
        member: MemberId,
        /// Its name, for humans.
        name: String,
        /// Where it serves clients.
        client_urls: Vec<String>,
    },
    /// Starts or ends a downgrade.
    DowngradeInfo {
        /// Whether one is under way.
        enabled: bool,
        /// To which version.
        version: String,
    },
    /// Users, roles, and whether they count.
    Auth(auth::Request),
}

/// Sets `key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Never empty.
    pub key: Key,
    /// Empty if `ignore_value`.
    pub value: Bytes,
    /// To attach the key to; [`LeaseId::NONE`] detaches.
    pub lease: LeaseId,
    /// Answer with what was there before.
    pub prev_kv: bool,
    /// Keep the value; the key must exist.
    pub ignore_value: bool,
    /// Keep the lease; the key must exist.
    pub ignore_lease: bool,
}

/// Deletes all keys of `range`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRange {
    /// Which keys.
    pub range: KeyRange,
    /// Answer with what was there before.
    pub prev_kv: bool,
}

/// If all of `compares` hold then `success`, else `failure`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold, on the state before the outermost transaction.
    pub compares: Vec<Compare>,
    /// What to do if they do, in this order.
    pub success: Vec<Op>,
    /// What to do if not.
    pub failure: Vec<Op>,
}

impl Txn {
    /// Whether no path through this transaction writes: then it is a read, and needs no place in the log.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Op::Range(_) => true,
            Op::Put(_) | Op::DeleteRange(_) => false,
            Op::Txn(txn) => txn.is_read_only(),
        })
    }

    /// Whether some path through this transaction puts a key.
    pub fn may_put(&self) -> bool {
        self.success.iter().chain(&self.failure).any(|op| match op {
            Op::Put(_) => true,
            Op::Range(_) | Op::DeleteRange(_) => false,
            Op::Txn(txn) => txn.may_put(),
        })
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sees what earlier steps wrote.
    Range(RangeQuery),
    /// As [`Command::Put`].
    Put(Put),
    /// As [`Command::DeleteRange`].
    DeleteRange(DeleteRange),
    /// A transaction in this one; its compares see the state before the outermost.
    Txn(Txn),
}

/// A condition on every key of `range`; a range without keys counts as one missing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// One key, or all keys that exist in a longer range.
    pub range: KeyRange,
    /// Which property, and what it is compared with.
    pub target: CompareTarget,
    /// How the property must relate to the operand.
    pub result: CompareResult,
}

impl Compare {
    /// Whether it holds for what was `found` in its range. Nothing found is one missing key: zeros, but no value, not even one that
    /// differs from the operand.
    pub fn holds(&self, found: &[KeyValue]) -> bool {
        if found.is_empty() {
            return !matches!(self.target, CompareTarget::Value(_)) && self.holds_for(&KeyValue::default());
        }
        found.iter().all(|kv| self.holds_for(kv))
    }

    fn holds_for(&self, kv: &KeyValue) -> bool {
        let ordering = match &self.target {
            CompareTarget::Version(version) => kv.version.cmp(version),
            CompareTarget::Create(revision) => kv.create_revision.0.cmp(revision),
            CompareTarget::Mod(revision) => kv.mod_revision.0.cmp(revision),
            CompareTarget::Value(value) => kv.value.cmp(value),
            CompareTarget::Lease(lease) => kv.lease.0.cmp(lease),
        };
        match self.result {
            CompareResult::Equal => ordering.is_eq(),
            CompareResult::Greater => ordering.is_gt(),
            CompareResult::Less => ordering.is_lt(),
            CompareResult::NotEqual => ordering.is_ne(),
        }
    }
}

/// A property of a key, with the operand. A missing key has zeros, and no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// Puts since creation.
    Version(i64),
    /// Revision of the creation.
    Create(i64),
    /// Revision of the last put.
    Mod(i64),
    /// The value. On a missing key the compare fails, whatever is asked.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

/// How a property must relate to the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareResult {
    /// property = operand
    Equal,
    /// property > operand
    Greater,
    /// property < operand
    Less,
    /// property ≠ operand
    NotEqual,
}

/// What [`Command::Alarm`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmAction {
    /// List.
    Get,
    /// Raise.
    Activate,
    /// Clear.
    Deactivate,
}

/// The good answer to a [`Command`], or to a change of membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a put.
    Put {
        /// What was there before, if asked for.
        prev: Option<KeyValue>,
    },
    /// To a delete.
    DeleteRange {
        /// How many keys.
        deleted: i64,
        /// What they were, if asked for, in key order.
        prevs: Vec<KeyValue>,
    },
    /// To a transaction.
    Txn(TxnReply),
    /// To a read.
    Range(RangeResult),
    /// To a compaction: the mark is set; the sweep follows.
    Compact,
    /// To a grant.
    LeaseGrant {
        /// As proposed.
        id: LeaseId,
        /// As proposed.
        ttl_s: i64,
    },
    /// To a revocation.
    LeaseRevoke,
    /// To an alarm command: the alarms it was about.
    Alarms(Vec<(MemberId, AlarmKind)>),
    /// To a change of membership: all members after it.
    Members(Vec<crate::membership::Member>),
    /// To a command about users and roles.
    Auth(auth::Reply),
    /// To all that has no more to say.
    Done,
}

/// What a transaction answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnReply {
    /// Whether all compares held.
    pub succeeded: bool,
    /// One for each step of the branch that ran.
    pub responses: Vec<OpReply>,
}

/// What one step of a transaction answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpReply {
    /// To [`Op::Range`].
    Range(RangeResult),
    /// To [`Op::Put`].
    Put {
        /// What was there before, if asked for.
        prev: Option<KeyValue>,
    },
    /// To [`Op::DeleteRange`].
    DeleteRange {
        /// How many keys.
        deleted: i64,
        /// What they were, if asked for, in key order.
        prevs: Vec<KeyValue>,
        /// The newest revision after it: that of the transaction, once something in it has written.
        revision: Revision,
    },
    /// To [`Op::Txn`].
    Txn(TxnReply),
}

/// What became of one log entry that carried a command or a change of membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The entry's place in the log.
    pub index: Index,
    /// Who waits for it.
    pub request: RequestId,
    /// The same on every member.
    pub result: Result<Reply, Error>,
    /// The store's revision after it: what the response header says.
    pub revision: Revision,
}

/// Everything that follows from one call of `Machine::apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For whoever waits, in log order.
    pub replies: Vec<Applied>,
    /// For watchers, in order of revisions.
    pub events: Vec<(Revision, Vec<Event>)>,
    /// For the member itself, in log order.
    pub effects: Vec<Effect>,
    /// The state hash after each entry: to be compared with what other members have there.
    pub hashes: Vec<(Index, u64)>,
}

/// What the member that applied an entry may have to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A leader's clock starts to watch this lease.
    LeaseGranted {
        /// Which.
        id: LeaseId,
        /// Time to live in seconds.
        ttl_s: i64,
    },
    /// A leader's clock forgets this lease.
    LeaseRevoked {
        /// Which.
        id: LeaseId,
    },
    /// The log holds how long this lease has left.
    LeaseCheckpointed {
        /// Which.
        id: LeaseId,
        /// In seconds; 0 is "all of the granted ones".
        remaining_s: i64,
    },
    /// There may be something to sweep.
    Compacted {
        /// The oldest revision that is still readable.
        revision: Revision,
    },
    /// Raft must be told, before it is given anything that depends on it. Reported for each entry that changes membership,
    /// refused ones included: raft must also hear that nothing changes.
    ConfChanged {
        /// The entry.
        index: Index,
        /// What changes for raft.
        change: ConfChange,
        /// Who votes and who learns from here on.
        conf_state: ConfState,
    },
    /// The set of active alarms is another one.
    AlarmChanged,
    /// Whoever shows this token is that user.
    TokenIssued {
        /// As the client shows it.
        token: String,
        /// Who.
        user: String,
        /// The auth revision at which that was proven.
        revision: u64,
    },
    /// No token is good any more.
    AuthDisabled,
    /// Somebody may do other things than before.
    AuthChanged,
}
