//! Every refusal that a client can see.

/// Why a request was refused. Part of the replicated result: the same on every member.
///
/// Nothing here names gRPC; `server/status.rs` gives each variant etcd's code and text, which clients match on to the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Key is not provided.
    EmptyKey,
    /// Key not found.
    KeyNotFound,
    /// Value is provided.
    ValueProvided,
    /// Lease is provided.
    LeaseProvided,
    /// Too many operations in txn request.
    TooManyOps,
    /// Duplicate key given in txn request.
    DuplicateKey,
    /// Invalid client api version.
    InvalidClientAPIVersion,
    /// Invalid sort option.
    InvalidSortOption,
    /// Required revision has been compacted.
    Compacted,
    /// Required revision is a future revision.
    FutureRev,
    /// Database space exceeded.
    NoSpace,
    /// Requested lease not found.
    LeaseNotFound,
    /// Lease already exists.
    LeaseExist,
    /// Too large lease TTL.
    LeaseTTLTooLarge,
    /// Watch canceled.
    WatchCanceled,
    /// Member ID already exist.
    MemberExist,
    /// Peer URLs already exists.
    PeerURLExist,
    /// Re-configuration failed due to not enough started members.
    MemberNotEnoughStarted,
    /// Given member URLs are invalid.
    MemberBadURLs,
    /// Member not found.
    MemberNotFound,
    /// Can only promote a learner member.
    MemberNotLearner,
    /// Can only promote a learner member which is in sync with leader.
    LearnerNotReady,
    /// Too many learner members in cluster.
    TooManyLearners,
    /// Cluster ID mismatch.
    ClusterIDMismatch,
    /// Request is too large.
    RequestTooLarge,
    /// Too many requests.
    RequestTooManyRequests,
    /// More requests in a second than this user, or these keys, may have.
    TooOften {
        /// Until there may be another one.
        wait_ms: u64,
    },
    /// The answer would be larger than one may be.
    AnswerTooLarge,
    /// There is no room for the answer now.
    NoRoom,
    /// Root user does not exist.
    RootUserNotExist,
    /// Root user does not have root role.
    RootRoleNotExist,
    /// User name already exists.
    UserAlreadyExist,
    /// User name is empty.
    UserEmpty,
    /// User name not found.
    UserNotFound,
    /// Role name already exists.
    RoleAlreadyExist,
    /// Role name not found.
    RoleNotFound,
    /// Role name is empty.
    RoleEmpty,
    /// Authentication failed, invalid user ID or password.
    AuthFailed,
    /// Permission not given.
    PermissionNotGiven,
    /// Permission denied.
    PermissionDenied,
    /// Role is not granted to the user.
    RoleNotGranted,
    /// Permission is not granted to the role.
    PermissionNotGranted,
    /// Authentication is not enabled.
    AuthNotEnabled,
    /// Invalid auth token.
    InvalidAuthToken,
    /// Invalid auth management.
    InvalidAuthMgmt,
    /// Revision of auth store is old.
    AuthOldRevision,
    /// No leader.
    NoLeader,
    /// Not leader.
    NotLeader,
    /// Leader changed.
    LeaderChanged,
    /// Not capable.
    NotCapable,
    /// Server stopped.
    Stopped,
    /// Request timed out.
    Timeout,
    /// Request timed out, possibly due to previous leader failure.
    TimeoutDueToLeaderFail,
    /// Request timed out, possibly due to connection lost.
    TimeoutDueToConnectionLost,
    /// Request timed out, waiting for the applied index took too long.
    TimeoutWaitAppliedIndex,
    /// Unhealthy cluster.
    Unhealthy,
    /// Corrupt cluster.
    Corrupt,
    /// Rpc not supported for learner.
    NotSupportedForLearner,
    /// Bad leader transferee.
    BadLeaderTransferee,
    /// Wrong downgrade target version format.
    WrongDowngradeVersionFormat,
    /// Invalid downgrade target version.
    InvalidDowngradeTargetVersion,
    /// Cluster version not found during downgrade.
    ClusterVersionUnavailable,
    /// Cluster has a downgrade job in progress.
    DowngradeInProcess,
    /// No inflight downgrade job.
    NoInflightDowngrade,
    /// Request canceled.
    Canceled,
    /// Context deadline exceeded.
    DeadlineExceeded,
    /// The watch range is empty (`range_end` at or before `key`).
    WatchRangeEmpty,
    /// The watch id is taken on this stream.
    WatchIdInUse,
    /// The lease of a waiting lock, or its key, is gone.
    SessionExpired,
    /// The key is not that of the election's leader, or not any more.
    ElectionNotLeader,
    /// Nobody leads the election.
    ElectionNoLeader,
    /// A leader is to be named, and is not.
    MissingLeaderKey,
    /// The member cannot do this yet, or not at all; the text says what.
    Unsupported(&'static str),
    /// The request is malformed in a way that etcd has no name for; the text says what.
    Invalid(String),
    /// This member is stopping because of a fault; the text is the fault.
    Faulted(String),
}

impl std::error::Error for Error {}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl Error {
    /// etcd's text for this refusal, to the letter.
    pub fn text(&self) -> &str {
        match self {
            Error::EmptyKey => "etcdserver: key is not provided",
            Error::KeyNotFound => "etcdserver: key not found",
            Error::ValueProvided => "etcdserver: value is provided",
            Error::LeaseProvided => "etcdserver: lease is provided",
            Error::TooManyOps => "etcdserver: too many operations in txn request",
            Error::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Error::InvalidClientAPIVersion => "etcdserver: invalid client api version",
            Error::InvalidSortOption => "etcdserver: invalid sort option",
            Error::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Error::FutureRev => "etcdserver: mvcc: required revision is a future revision",
            Error::NoSpace => "etcdserver: mvcc: database space exceeded",
            Error::LeaseNotFound => "etcdserver: requested lease not found",
            Error::LeaseExist => "etcdserver: lease already exists",
            Error::LeaseTTLTooLarge => "etcdserver: too large lease TTL",
            Error::WatchCanceled => "etcdserver: watch canceled",
            Error::MemberExist => "etcdserver: member ID already exist",
            Error::PeerURLExist => "etcdserver: Peer URLs already exists",
            Error::MemberNotEnoughStarted => "etcdserver: re-configuration failed due to not enough started members",
            Error::MemberBadURLs => "etcdserver: given member URLs are invalid",
            Error::MemberNotFound => "etcdserver: member not found",
            Error::MemberNotLearner => "etcdserver: can only promote a learner member",
            Error::LearnerNotReady => "etcdserver: can only promote a learner member which is in sync with leader",
            Error::TooManyLearners => "etcdserver: too many learner members in cluster",
            Error::ClusterIDMismatch => "etcdserver: cluster ID mismatch",
            Error::RequestTooLarge => "etcdserver: request is too large",
            Error::RequestTooManyRequests | Error::TooOften { .. } | Error::NoRoom => "etcdserver: too many requests",
            Error::AnswerTooLarge => {
                "henge: the answer is larger than max-range-bytes; read it in pieces, by limit or RangeStream"
            }
            Error::RootUserNotExist => "etcdserver: root user does not exist",
            Error::RootRoleNotExist => "etcdserver: root user does not have root role",
            Error::UserAlreadyExist => "etcdserver: user name already exists",
            Error::UserEmpty => "etcdserver: user name is empty",
            Error::UserNotFound => "etcdserver: user name not found",
            Error::RoleAlreadyExist => "etcdserver: role name already exists",
            Error::RoleNotFound => "etcdserver: role name not found",
            Error::RoleEmpty => "etcdserver: role name is empty",
            Error::AuthFailed => "etcdserver: authentication failed, invalid user ID or password",
            Error::PermissionNotGiven => "etcdserver: permission not given",
            Error::PermissionDenied => "etcdserver: permission denied",
            Error::RoleNotGranted => "etcdserver: role is not granted to the user",
            Error::PermissionNotGranted => "etcdserver: permission is not granted to the role",
            Error::AuthNotEnabled => "etcdserver: authentication is not enabled",
            Error::InvalidAuthToken => "etcdserver: invalid auth token",
            Error::InvalidAuthMgmt => "etcdserver: invalid auth management",
            Error::AuthOldRevision => "etcdserver: revision of auth store is old",
            Error::NoLeader => "etcdserver: no leader",
            Error::NotLeader => "etcdserver: not leader",
            Error::LeaderChanged => "etcdserver: leader changed",
            Error::NotCapable => "etcdserver: not capable",
            Error::Stopped => "etcdserver: server stopped",
            Error::Timeout => "etcdserver: request timed out",
            Error::TimeoutDueToLeaderFail => "etcdserver: request timed out, possibly due to previous leader failure",
            Error::TimeoutDueToConnectionLost => "etcdserver: request timed out, possibly due to connection lost",
            Error::TimeoutWaitAppliedIndex => {
                "etcdserver: request timed out, waiting for the applied index took too long"
            }
            Error::Unhealthy => "etcdserver: unhealthy cluster",
            Error::Corrupt => "etcdserver: corrupt cluster",
            Error::NotSupportedForLearner => "etcdserver: rpc not supported for learner",
            Error::BadLeaderTransferee => "etcdserver: bad leader transferee",
            Error::WrongDowngradeVersionFormat => "etcdserver: wrong downgrade target version format",
            Error::InvalidDowngradeTargetVersion => "etcdserver: invalid downgrade target version",
            Error::ClusterVersionUnavailable => "etcdserver: cluster version not found during downgrade",
            Error::DowngradeInProcess => "etcdserver: cluster has a downgrade job in progress",
            Error::NoInflightDowngrade => "etcdserver: no inflight downgrade job",
            Error::Canceled => "etcdserver: request canceled",
            Error::DeadlineExceeded => "etcdserver: context deadline exceeded",
            Error::WatchRangeEmpty => "mvcc: watcher range is empty",
            Error::WatchIdInUse => "mvcc: duplicate watch ID provided on the WatchStream",
            Error::SessionExpired => "mutex: session is expired",
            Error::ElectionNotLeader => "election: not leader",
            Error::ElectionNoLeader => "election: no leader",
            Error::MissingLeaderKey => "\"leader\" field must be provided",
            Error::Unsupported(text) => text,
            Error::Invalid(text) | Error::Faulted(text) => text,
        }
    }
}
