//! Locks: one holder at a time, for as long as a session.
//!
//! **What a lock is not.** A lease may run out while its owner is paused, and believes to hold the lock when it wakes. So a lock alone makes
//! collisions rare, not impossible. What must never happen twice is guarded by [`Lock::guard`] in the transaction that does it, or
//! by [`Lock::fence`] in a store that refuses what carries a lower number than it has seen.

use super::{Compare, Error, KeeperState, Session, session::Place};
use crate::pb::etcdserverpb::ResponseHeader;
use bytes::Bytes;

/// A lock that is held: until it is given back, the session ends, or somebody deletes its key. Dropping it gives it back in the
/// background; its session's second one of the same name is the same lock, and gives nothing back by being dropped.
#[derive(Debug)]
pub struct Lock {
    place: Place,
}

impl Session {
    /// Waits for the lock `name`, for as long as that takes. To drop this is to stop waiting.
    ///
    /// Connections that break and leaders that change cost time, not the place in the queue.
    ///
    /// # Errors
    /// [`Error::SessionExpired`]; what the cluster refuses.
    pub async fn lock(&self, name: impl AsRef<[u8]>) -> Result<Lock, Error> {
        let mut place = Place::take(self, name.as_ref(), Bytes::new()).await?;
        place.turn().await?;
        Ok(Lock { place })
    }

    /// Takes the lock `name` if nobody has it; `None` if somebody has.
    ///
    /// # Errors
    /// As [`Session::lock`].
    pub async fn try_lock(&self, name: impl AsRef<[u8]>) -> Result<Option<Lock>, Error> {
        let place = Place::take(self, name.as_ref(), Bytes::new()).await?;
        if place.is_first() {
            return Ok(Some(Lock { place }));
        }
        place.leave().await?;
        Ok(None)
    }
}

impl Lock {
    /// The key that it is held by.
    pub fn key(&self) -> &Bytes {
        &self.place.key
    }

    /// The fencing token: the key's create revision. Whoever holds the lock later has a higher one.
    pub fn fence(&self) -> i64 {
        self.place.created
    }

    /// Holds as long as the lock is this one's: for the transactions that only its holder may do.
    pub fn guard(&self) -> Compare {
        self.place.guard()
    }

    /// Of the answer by which it was had.
    pub fn header(&self) -> &ResponseHeader {
        &self.place.header
    }

    /// Waits until the session is lost, and the lock with it. That somebody deleted its key is not noticed here, but by [`Lock::guard`].
    pub async fn lost(&self) -> KeeperState {
        self.place.session().lost().await
    }

    /// Gives the lock back: `false` if it was lost before.
    ///
    /// # Errors
    /// As [`super::Client::txn`].
    pub async fn unlock(self) -> Result<bool, Error> {
        self.place.leave().await
    }
}
