//! Why a call did not succeed, and whether it may have taken effect all the same.

use crate::tls::DialError;
use std::error::Error as _;
use tonic::{Code, Status};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A member (or the connection to it) answered with this code and text. etcd's texts stand as they are.
    Status {
        /// The gRPC code.
        code: Code,
        /// The text.
        text: String,
    },
    /// No connection could be made: the request never left.
    Unreachable(String),
    /// A connection was made, but TLS failed, and the request never left: what failed, and with whom. Also a file that cannot be used.
    Tls(String),
    /// The caller's time limit passed. A write may have been applied.
    Deadline,
    /// The watch started below the compacted revision; what it missed is gone. Read again, then watch from there.
    Compacted {
        /// The revision below which nothing can be watched.
        compact_revision: i64,
    },
    /// The member ended the watch for another reason.
    WatchCanceled(String),
    /// The stream ended before its last message.
    Truncated(&'static str),
    /// The lease is gone, or may be, or the key that held a place in a queue is.
    SessionExpired,
    /// Not an address.
    InvalidEndpoint(String),
    /// This client cannot do that yet.
    Unsupported(&'static str),
}

impl Error {
    /// The gRPC code, where a member gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Status { code, .. } => Some(*code),
            Error::Compacted { .. } => Some(Code::OutOfRange),
            _ => None,
        }
    }

    /// The text with the gRPC code before it, where a member gave one, as Go's library writes it.
    pub fn with_code(&self) -> String {
        match self {
            // The one that has another name there.
            Error::Status { code: Code::Cancelled, text } => format!("rpc error: code = Canceled desc = {text}"),
            Error::Status { code, text } => format!("rpc error: code = {code:?} desc = {text}"),
            other => other.to_string(),
        }
    }

    /// Whether this is the refusal `other` of the server, by its text.
    pub fn is(&self, other: &crate::types::Error) -> bool {
        matches!(self, Error::Status { text, .. } if text == other.text())
    }

    /// Whether a write that ended so may have been applied. `false` is a promise, `true` is not.
    pub fn may_have_been_applied(&self) -> bool {
        match self {
            // Refusals by rule change nothing; timeouts and lost connections say nothing.
            Error::Status { code, text } => {
                !super::retry::refused_before_proposal(text)
                    && matches!(code, Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
                    || *code == Code::DeadlineExceeded
            }
            Error::Deadline => true,
            _ => false,
        }
    }
}

impl std::error::Error for Error {}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // etcd's own texts stand alone, others come with their code, as etcd's tools print them.
            Error::Status { text, .. } if text.starts_with("etcdserver: ") => f.write_str(text),
            Error::Status { .. } => f.write_str(&self.with_code()),
            Error::Unreachable(cause) => write!(f, "no connection: {cause}"),
            Error::Tls(text) => f.write_str(text),
            Error::Deadline => f.write_str("context deadline exceeded"),
            Error::Compacted { .. } => f.write_str(crate::types::Error::Compacted.text()),
            Error::WatchCanceled(reason) if reason.is_empty() => f.write_str("watch canceled by the server"),
            Error::WatchCanceled(reason) => f.write_str(reason),
            Error::Truncated(what) => write!(f, "the {what} stream ended early"),
            Error::SessionExpired => f.write_str("session is expired"),
            Error::InvalidEndpoint(text) => f.write_str(text),
            Error::Unsupported(text) => f.write_str(text),
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        if let Some(text) = failed_handshake(&status) {
            return Error::Tls(text);
        }
        // A connect error in the chain of causes is the one proof that nothing was sent.
        let mut cause = status.source();
        while let Some(error) = cause {
            if error.is::<tonic::ConnectError>() {
                let mut root = error;
                while let Some(deeper) = root.source() {
                    root = deeper;
                }
                return Error::Unreachable(root.to_string());
            }
            cause = error.source();
        }
        Error::Status { code: status.code(), text: status.message().to_string() }
    }
}

impl Error {
    /// Why there is no connection.
    pub(crate) fn from_connecting(error: &tonic::transport::Error) -> Error {
        let mut root: &dyn std::error::Error = error;
        while let Some(deeper) = root.source() {
            root = deeper;
        }
        match failed_handshake(error) {
            Some(text) => Error::Tls(text),
            None => Error::Unreachable(root.to_string()),
        }
    }
}

/// What TLS has to say, below what libraries made of it.
fn failed_handshake(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(DialError::Tls(text)) = error.downcast_ref() {
            return Some(text.clone());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_rule_was_not_applied_and_a_lost_connection_may_have_been() {
        let status = |code, text: &str| Error::from(Status::new(code, text));
        assert!(!status(Code::InvalidArgument, "etcdserver: key is not provided").may_have_been_applied());
        assert!(!status(Code::Unavailable, "etcdserver: no leader").may_have_been_applied());
        assert!(status(Code::Unavailable, "etcdserver: request timed out").may_have_been_applied());
        assert!(status(Code::Unknown, "transport error").may_have_been_applied());
        assert!(Error::Deadline.may_have_been_applied());
        assert!(!Error::Unreachable("refused".into()).may_have_been_applied());
    }

    #[test]
    fn texts_print_as_etcds_tools_print_them() {
        let known = Error::from(Status::new(Code::NotFound, "etcdserver: requested lease not found"));
        assert_eq!(known.to_string(), "etcdserver: requested lease not found");
        assert!(known.is(&crate::types::Error::LeaseNotFound));
        let other = Error::from(Status::new(Code::Unimplemented, "unknown method X"));
        assert_eq!(other.to_string(), "rpc error: code = Unimplemented desc = unknown method X");
        assert_eq!(known.with_code(), "rpc error: code = NotFound desc = etcdserver: requested lease not found");
        assert_eq!(Error::from(Status::cancelled("x")).to_string(), "rpc error: code = Canceled desc = x");
    }
}
