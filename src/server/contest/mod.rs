//! Who is first of those who want the same: what locks and elections have in common.
//!
//! A contender puts a key `<name>/<lease in hex>` under a lease of its own. The key that was created first is that of the holder, the
//! others wait until all that were created before theirs are gone. That is, to the byte, what etcd's client libraries do by
//! themselves, so whoever locks by a call and whoever locks by a library exclude each other.
//!
//! **Promises.** Waiting is by watch, and of two keys alone: the one ahead and one's own. So a release wakes one waiter, and a key that is gone ends its
//! wait at once. Each step is permitted to the caller when it is taken. Whoever stops waiting, or goes away before the answer, leaves no
//! key behind, unless the member itself is gone: then the lease is what ends it. A wait is won only once a quorum has confirmed
//! that the key is there and the first.
//!
//! **Fencing.** To have been first is a fact of the past: a lease may run out while its owner believes to hold the lock. What guards is
//! the key's *create revision*: it grows from holder to holder, and no key is created twice at one. A change that must be the holder's alone goes into
//! a transaction that compares it (`create_revision(key) = revision`), or carries it to a store that refuses lower ones.
//!
//! ```text
//!   Lock, Campaign ── contend ─▶ a task: take a place ─▶ wait for the turn ─▶ answer ─┬─ told: done
//!                        │                                        ▲ two watchers      └─ nobody there: leave
//!                        └─ dropped with the call ────────────────┘
//! ```

mod contender;
mod follow;
mod observe;

use super::{Backend, Edge, Header, edge::StreamEnd};
use crate::{
    auth::Author,
    machine::{Command, Compare, CompareResult, CompareTarget, Op, Txn},
    mvcc::{RangeQuery, SortOrder, SortTarget},
    runtime,
    types::{Error, Key, KeyRange, LeaseId, Revision},
};
use bytes::Bytes;
use contender::Contender;
pub(super) use observe::Observer;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Calls that may wait at once, of both services together; one more is told to come back.
const WAITING_MAX: usize = 100_000;

/// Time to live of a lease that a call makes for itself because it came without one; etcd's. Nobody here renews it.
const SESSION_TTL_S: i64 = 60;

/// What the services of locks and elections hold. Cheap to clone; all clones share the bounds.
#[derive(Clone)]
pub(super) struct Contests<B> {
    pub(super) edge: Edge<B>,
    waiting: Arc<Semaphore>,
    /// Threads that read history for those who follow keys.
    readers: Arc<Semaphore>,
}

/// What a contender wants.
pub(super) struct Wish {
    /// Of the call, for the slow log.
    pub(super) call: &'static str,
    /// Bytes of the request.
    pub(super) bytes: usize,
    /// Of the lock, or of the election.
    pub(super) name: Bytes,
    /// To hold the place with; [`LeaseId::NONE`]: one is made, of 60 s.
    pub(super) lease: LeaseId,
    /// For the key. If there is one already it gets another value; `None` puts an empty one, and leaves what is there.
    pub(super) value: Option<Bytes>,
    /// What to say if the place is lost while waiting.
    pub(super) lost: Error,
}

/// Who is first, and by what.
pub(super) struct Won {
    pub(super) key: Key,
    /// The key's create revision: what fences.
    pub(super) created: Revision,
    /// What the key ends with.
    pub(super) lease: LeaseId,
    /// Of when it was seen to be first.
    pub(super) header: Header,
}

impl<B: Backend> Contests<B> {
    pub(super) fn new(edge: Edge<B>) -> Contests<B> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let readers = Arc::new(Semaphore::new(processors.div_ceil(2)));
        Contests { edge, waiting: Arc::new(Semaphore::new(WAITING_MAX)), readers }
    }

    /// The right to wait.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`]
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| Error::RequestTooManyRequests)
    }

    /// Takes a place and waits until it is the first, for as long as that takes. To drop this is to stop waiting.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`]; [`Error::LeaseNotFound`]; `wish.lost`; what `caller` may not, also if that changes while it
    /// waits; what ends a stream.
    pub(super) async fn contend(&self, caller: Author, end: StreamEnd, wish: Wish) -> Result<Won, Error> {
        let permit = self.admit()?;
        let (answer, answered) = oneshot::channel();
        let contender = Contender { contests: self.clone(), caller, wish };
        // In a task of its own: a call is dropped with its client, in the middle of whatever it does, and a proposal that is
        // under way then may still put the key.
        runtime::spawn(async move {
            contender.run(answer, end).await;
            drop(permit);
        });
        answered.await.unwrap_or(Err(Error::Stopped))
    }
}

/// What the keys of all contenders begin with.
pub(super) fn prefix_of(name: &[u8]) -> Key {
    [name, b"/"].concat().into()
}

/// The contender's key, spelled as Go prints a number in hex.
fn key_of(name: &[u8], lease: LeaseId) -> Key {
    let sign = if lease.0 < 0 { "-" } else { "" };
    let text = format!("/{sign}{:x}", lease.0.unsigned_abs());
    [name, text.as_bytes()].concat().into()
}

/// Whether `key` is still the one that was created then; 0: whether it is not there.
fn created_at(key: &Key, revision: Revision) -> Compare {
    Compare {
        range: KeyRange::One(key.clone()),
        target: CompareTarget::Create(revision.0),
        result: CompareResult::Equal,
    }
}

/// Does something if the key is still the one that was created at `revision`.
pub(super) fn guarded(key: &Key, revision: Revision, op: Op) -> Command {
    Command::Txn(Txn { compares: vec![created_at(key, revision)], success: vec![op], failure: Vec::new() })
}

/// Of all keys that begin so, the one that was created first.
pub(super) fn first_created(prefix: Key) -> RangeQuery {
    RangeQuery {
        limit: 1,
        order: SortOrder::Ascend,
        target: SortTarget::Create,
        ..RangeQuery::new(KeyRange::prefix(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contenders_key_is_spelled_as_etcds_clients_do() {
        for (lease, key) in
            [(0x4d, "a/4d"), (i64::MAX, "a/7fffffffffffffff"), (-1, "a/-1"), (i64::MIN, "a/-8000000000000000")]
        {
            assert_eq!(key_of(b"a", LeaseId(lease)), key);
        }
        assert_eq!((key_of(b"", LeaseId(1)), prefix_of(b"")), ("/1".into(), "/".into()));
    }
}
