//! Error → gRPC status. The only file of the services that chooses codes.

use crate::types::Error;
use tonic::{Code, Status};

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

        Error::NoSpace | Error::RequestTooManyRequests => Code::ResourceExhausted,

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
        Status::new(code(&error), error.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_of_refusals_has_etcds_code_and_text() {
        let table = [
            (Error::EmptyKey, Code::InvalidArgument, "etcdserver: key is not provided"),
            (Error::Compacted, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            (Error::FutureRev, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
            (Error::NoSpace, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            (Error::LeaseNotFound, Code::NotFound, "etcdserver: requested lease not found"),
            (Error::LeaseExist, Code::FailedPrecondition, "etcdserver: lease already exists"),
            (Error::RequestTooLarge, Code::InvalidArgument, "etcdserver: request is too large"),
            (Error::RequestTooManyRequests, Code::ResourceExhausted, "etcdserver: too many requests"),
            (Error::PermissionDenied, Code::PermissionDenied, "etcdserver: permission denied"),
            (Error::InvalidAuthToken, Code::Unauthenticated, "etcdserver: invalid auth token"),
            (Error::NoLeader, Code::Unavailable, "etcdserver: no leader"),
            (Error::NotLeader, Code::FailedPrecondition, "etcdserver: not leader"),
            (Error::Timeout, Code::Unavailable, "etcdserver: request timed out"),
            (Error::Corrupt, Code::DataLoss, "etcdserver: corrupt cluster"),
            (Error::Canceled, Code::Cancelled, "etcdserver: request canceled"),
            (Error::DeadlineExceeded, Code::DeadlineExceeded, "etcdserver: context deadline exceeded"),
            (Error::Unsupported("not yet"), Code::Unimplemented, "not yet"),
        ];
        for (error, code, text) in table {
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }
}
