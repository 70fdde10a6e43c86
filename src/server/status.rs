//! Error → gRPC status. The only file of the services that chooses codes.
//!
//! What is refused because it was too much says when to come back, in gRPC's own words for it: `grpc-retry-pushback-ms`, which the libraries
//! of several languages follow if they are set up to retry. A negative number says that the same again would be refused again.

use crate::{runtime, types::Error};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

/// Metadata key of a refusal: when to try again.
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// When to come back to a member that has too much to do. Not all at once, or it would be the same again.
const COME_BACK_MS: std::ops::Range<f64> = 50.0..250.0;

/// etcd's code for a refusal. Exhaustive on purpose: a new variant does not compile until somebody has chosen its code.
pub fn code(error: &Error) -> Code {
    match error {
        Error::EmptyKey
        | Error::KeyNotFound
        | Error::ValueProvided
        | Error::LeaseProvided
        | Error::TooManyOps
        | Error::DuplicateKey
        | Error::InvalidClientAPIVersion
        | Error::InvalidSortOption
        | Error::MemberBadURLs
        | Error::RequestTooLarge
        | Error::UserEmpty
        | Error::RoleEmpty
        | Error::AuthFailed
        | Error::PermissionNotGiven
        | Error::InvalidAuthMgmt
        | Error::AuthOldRevision
        | Error::WrongDowngradeVersionFormat
        | Error::InvalidDowngradeTargetVersion
        | Error::WatchRangeEmpty
        | Error::WatchIdInUse
        | Error::Invalid(_) => Code::InvalidArgument,

        Error::Compacted | Error::FutureRev | Error::LeaseTTLTooLarge => Code::OutOfRange,

        Error::NoSpace
        | Error::RequestTooManyRequests
        | Error::TooOften { .. }
        | Error::AnswerTooLarge
        | Error::NoRoom => Code::ResourceExhausted,

        Error::LeaseNotFound | Error::MemberNotFound => Code::NotFound,

        Error::LeaseExist
        | Error::MemberExist
        | Error::PeerURLExist
        | Error::MemberNotEnoughStarted
        | Error::MemberNotLearner
        | Error::LearnerNotReady
        | Error::TooManyLearners
        | Error::ClusterIDMismatch
        | Error::RootUserNotExist
        | Error::RootRoleNotExist
        | Error::UserAlreadyExist
        | Error::UserNotFound
        | Error::RoleAlreadyExist
        | Error::RoleNotFound
        | Error::RoleNotGranted
        | Error::PermissionNotGranted
        | Error::AuthNotEnabled
        | Error::NotLeader
        | Error::NotCapable
        | Error::NotSupportedForLearner
        | Error::BadLeaderTransferee
        | Error::ClusterVersionUnavailable
        | Error::DowngradeInProcess
        | Error::NoInflightDowngrade => Code::FailedPrecondition,

        Error::PermissionDenied => Code::PermissionDenied,
        Error::InvalidAuthToken => Code::Unauthenticated,

        Error::NoLeader
        | Error::LeaderChanged
        | Error::Stopped
        | Error::Timeout
        | Error::TimeoutDueToLeaderFail
        | Error::TimeoutDueToConnectionLost
        | Error::TimeoutWaitAppliedIndex
        | Error::Unhealthy
        | Error::Faulted(_) => Code::Unavailable,

        // etcd's services of locks and elections have no codes of their own.
        Error::SessionExpired | Error::ElectionNotLeader | Error::ElectionNoLeader | Error::MissingLeaderKey => {
            Code::Unknown
        }

        Error::Corrupt => Code::DataLoss,
        Error::WatchCanceled | Error::Canceled => Code::Cancelled,
        Error::DeadlineExceeded => Code::DeadlineExceeded,
        Error::Unsupported(_) => Code::Unimplemented,
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let (code, text) = (code(&error), error.text());
        match pushback_ms(&error) {
            Some(pushback_ms) => {
                let mut metadata = MetadataMap::new();
                metadata.insert(PUSHBACK, MetadataValue::from(pushback_ms));
                Status::with_metadata(code, text, metadata)
            }
            None => Status::new(code, text),
        }
    }
}

/// When it makes sense to try again, if it is about that.
fn pushback_ms(error: &Error) -> Option<i64> {
    match error {
        Error::RequestTooManyRequests | Error::NoRoom => Some(runtime::chance(COME_BACK_MS) as i64),
        Error::TooOften { wait_ms } => Some(i64::try_from(*wait_ms).unwrap_or(i64::MAX)),
        Error::AnswerTooLarge => Some(-1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients of all languages compare these texts.
    #[test]
    fn every_refusal_has_etcds_code_and_text() {
        let table = [
            (Error::EmptyKey, Code::InvalidArgument, "etcdserver: key is not provided"),
            (Error::KeyNotFound, Code::InvalidArgument, "etcdserver: key not found"),
            (Error::ValueProvided, Code::InvalidArgument, "etcdserver: value is provided"),
            (Error::LeaseProvided, Code::InvalidArgument, "etcdserver: lease is provided"),
            (Error::TooManyOps, Code::InvalidArgument, "etcdserver: too many operations in txn request"),
            (Error::DuplicateKey, Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
            (Error::InvalidClientAPIVersion, Code::InvalidArgument, "etcdserver: invalid client api version"),
            (Error::InvalidSortOption, Code::InvalidArgument, "etcdserver: invalid sort option"),
            (Error::Compacted, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            (Error::FutureRev, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
            (Error::NoSpace, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            (Error::LeaseNotFound, Code::NotFound, "etcdserver: requested lease not found"),
            (Error::LeaseExist, Code::FailedPrecondition, "etcdserver: lease already exists"),
            (Error::LeaseTTLTooLarge, Code::OutOfRange, "etcdserver: too large lease TTL"),
            (Error::WatchCanceled, Code::Cancelled, "etcdserver: watch canceled"),
            (Error::MemberExist, Code::FailedPrecondition, "etcdserver: member ID already exist"),
            (Error::PeerURLExist, Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
            (
                Error::MemberNotEnoughStarted,
                Code::FailedPrecondition,
                "etcdserver: re-configuration failed due to not enough started members",
            ),
            (Error::MemberBadURLs, Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
            (Error::MemberNotFound, Code::NotFound, "etcdserver: member not found"),
            (Error::MemberNotLearner, Code::FailedPrecondition, "etcdserver: can only promote a learner member"),
            (
                Error::LearnerNotReady,
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member which is in sync with leader",
            ),
            (Error::TooManyLearners, Code::FailedPrecondition, "etcdserver: too many learner members in cluster"),
            (Error::ClusterIDMismatch, Code::FailedPrecondition, "etcdserver: cluster ID mismatch"),
            (Error::RequestTooLarge, Code::InvalidArgument, "etcdserver: request is too large"),
            (Error::RequestTooManyRequests, Code::ResourceExhausted, "etcdserver: too many requests"),
            (Error::RootUserNotExist, Code::FailedPrecondition, "etcdserver: root user does not exist"),
            (Error::RootRoleNotExist, Code::FailedPrecondition, "etcdserver: root user does not have root role"),
            (Error::UserAlreadyExist, Code::FailedPrecondition, "etcdserver: user name already exists"),
            (Error::UserEmpty, Code::InvalidArgument, "etcdserver: user name is empty"),
            (Error::UserNotFound, Code::FailedPrecondition, "etcdserver: user name not found"),
            (Error::RoleAlreadyExist, Code::FailedPrecondition, "etcdserver: role name already exists"),
            (Error::RoleNotFound, Code::FailedPrecondition, "etcdserver: role name not found"),
            (Error::RoleEmpty, Code::InvalidArgument, "etcdserver: role name is empty"),
            (
                Error::AuthFailed,
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
            ),
            (Error::PermissionNotGiven, Code::InvalidArgument, "etcdserver: permission not given"),
            (Error::PermissionDenied, Code::PermissionDenied, "etcdserver: permission denied"),
            (Error::RoleNotGranted, Code::FailedPrecondition, "etcdserver: role is not granted to the user"),
            (
                Error::PermissionNotGranted,
                Code::FailedPrecondition,
                "etcdserver: permission is not granted to the role",
            ),
            (Error::AuthNotEnabled, Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
            (Error::InvalidAuthToken, Code::Unauthenticated, "etcdserver: invalid auth token"),
            (Error::InvalidAuthMgmt, Code::InvalidArgument, "etcdserver: invalid auth management"),
            (Error::AuthOldRevision, Code::InvalidArgument, "etcdserver: revision of auth store is old"),
            (Error::NoLeader, Code::Unavailable, "etcdserver: no leader"),
            (Error::NotLeader, Code::FailedPrecondition, "etcdserver: not leader"),
            (Error::LeaderChanged, Code::Unavailable, "etcdserver: leader changed"),
            (Error::NotCapable, Code::FailedPrecondition, "etcdserver: not capable"),
            (Error::Stopped, Code::Unavailable, "etcdserver: server stopped"),
            (Error::Timeout, Code::Unavailable, "etcdserver: request timed out"),
            (
                Error::TimeoutDueToLeaderFail,
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (
                Error::TimeoutDueToConnectionLost,
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to connection lost",
            ),
            (
                Error::TimeoutWaitAppliedIndex,
                Code::Unavailable,
                "etcdserver: request timed out, waiting for the applied index took too long",
            ),
            (Error::Unhealthy, Code::Unavailable, "etcdserver: unhealthy cluster"),
            (Error::Corrupt, Code::DataLoss, "etcdserver: corrupt cluster"),
            (Error::NotSupportedForLearner, Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
            (Error::BadLeaderTransferee, Code::FailedPrecondition, "etcdserver: bad leader transferee"),
            (
                Error::WrongDowngradeVersionFormat,
                Code::InvalidArgument,
                "etcdserver: wrong downgrade target version format",
            ),
            (
                Error::InvalidDowngradeTargetVersion,
                Code::InvalidArgument,
                "etcdserver: invalid downgrade target version",
            ),
            (
                Error::ClusterVersionUnavailable,
                Code::FailedPrecondition,
                "etcdserver: cluster version not found during downgrade",
            ),
            (
                Error::DowngradeInProcess,
                Code::FailedPrecondition,
                "etcdserver: cluster has a downgrade job in progress",
            ),
            (Error::NoInflightDowngrade, Code::FailedPrecondition, "etcdserver: no inflight downgrade job"),
            (Error::Canceled, Code::Cancelled, "etcdserver: request canceled"),
            (Error::DeadlineExceeded, Code::DeadlineExceeded, "etcdserver: context deadline exceeded"),
            (Error::Unsupported("not yet"), Code::Unimplemented, "not yet"),
        ];
        for (error, code, text) in table {
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }

    #[test]
    fn what_was_too_much_says_when_to_come_back() {
        let told = |error: Error| {
            let status = Status::from(error);
            assert_eq!(status.code(), Code::ResourceExhausted);
            status.metadata().get("grpc-retry-pushback-ms").map(|text| text.to_str().unwrap().parse::<i64>().unwrap())
        };
        assert!((50..250).contains(&told(Error::RequestTooManyRequests).unwrap()));
        assert!((50..250).contains(&told(Error::NoRoom).unwrap()));
        assert_eq!(told(Error::TooOften { wait_ms: 7 }), Some(7));
        assert_eq!(told(Error::AnswerTooLarge), Some(-1), "the same would be refused again");
        assert_eq!(told(Error::NoSpace), None, "nobody knows when there will be space");
    }
}
