//! Sessions: a lease that is kept alive, and places in queues that end with it.
//!
//! A place is a key `<name>/<lease in hex>`; the one that was created first is first. [`super::lock`] and [`super::election`] are made of
//! that, in the spelling of etcd's own libraries and of its Lock and Election services, so that all of them exclude each other.

use super::{
    Client, Compare, DeleteOptions, Error, GetOptions, Keeper, KeeperState, Op, PutOptions, Txn, WatchOptions, Watcher,
};
use crate::pb::{
    etcdserverpb::{
        RangeResponse, ResponseHeader, ResponseOp, TxnResponse,
        range_request::{SortOrder, SortTarget},
        response_op::Response,
    },
    mvccpb::KeyValue,
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};
use tonic::Code;

/// A lease that is kept alive for as long as this or anything that was taken with it is there.
///
/// ```no_run
/// # async fn example(client: henge::client::Client) -> Result<(), henge::client::Error> {
/// use henge::client::{Op, Txn};
/// let session = client.session(10).await?;
/// let lock = session.lock("reports").await?;
/// tokio::select! {
///     why = lock.lost() => eprintln!("stop working: {why:?}"),
///     // Whatever the clocks say: if the lock is another's by now, nothing is written.
///     done = client.txn(Txn::new().when([lock.guard()]).then([Op::put("report", "done")])) => {
///         assert!(done?.succeeded);
///     }
/// }
/// lock.unlock().await?;
/// session.end().await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    pub(super) client: Client,
    keeper: Keeper,
    /// Tells those who wait with it that it was ended: the keeper would hear of it when it next renews.
    ended: Arc<watch::Sender<bool>>,
}

impl Client {
    /// Begins a session with a lease of its own: should this process vanish, what it holds is free after `ttl_s` seconds.
    ///
    /// # Errors
    /// As [`Client::lease_grant`].
    pub async fn session(&self, ttl_s: i64) -> Result<Session, Error> {
        let lease = self.lease_grant(ttl_s, 0).await?.id;
        self.session_of(lease).await
    }

    /// Begins a session with a lease that there is already.
    ///
    /// # Errors
    /// As [`Client::lease_keeper`].
    pub async fn session_of(&self, lease: i64) -> Result<Session, Error> {
        let keeper = self.lease_keeper(lease).await?;
        Ok(Session { client: self.clone(), keeper, ended: Arc::new(watch::Sender::new(false)) })
    }
}

impl Session {
    /// The lease.
    pub fn lease(&self) -> i64 {
        self.keeper.id()
    }

    /// Waits until the session is over, or may be: then nothing that it took can be relied on.
    pub async fn lost(&self) -> KeeperState {
        let (mut keeper, mut ended) = (self.keeper.clone(), self.ended.subscribe());
        tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => KeeperState::Gone,
            how = keeper.lost() => how,
        }
    }

    /// Ends the session, and with its lease all that was taken with it.
    ///
    /// # Errors
    /// As [`Client::lease_revoke`]; a lease that is gone already is none.
    pub async fn end(self) -> Result<(), Error> {
        let revoked = self.client.lease_revoke(self.lease()).await;
        self.ended.send_replace(true);
        match revoked {
            Err(error) if !error.is(&crate::types::Error::LeaseNotFound) => Err(error),
            _ => Ok(()),
        }
    }
}

/// A session's key among those of others. Dropped it is given up, in the background, if whoever dropped it had taken it.
#[derive(Debug)]
pub(super) struct Place {
    session: Session,
    prefix: Bytes,
    pub(super) key: Bytes,
    /// Create revision of the key: what fences.
    pub(super) created: i64,
    /// Nobody was ahead from the beginning.
    is_first: bool,
    /// Its end is this one's to bring about.
    is_own: bool,
    /// The key's value, if it was there before.
    found: Option<Bytes>,
    /// Of the last answer.
    pub(super) header: ResponseHeader,
}

impl Place {
    /// Takes a place: the session's under that name, if it has one already.
    pub(super) async fn take(session: &Session, name: &[u8], value: Bytes) -> Result<Place, Error> {
        let (answer, answered) = oneshot::channel();
        let (session, prefix) = (session.clone(), prefix_of(name));
        // In a task of its own: whoever stops waiting now must not leave a key behind that is just being put.
        tokio::spawn(async move {
            let taken = put(session, prefix, value).await;
            let _ = answer.send(taken); // and dropped, if nobody wants it any more
        });
        answered.await.unwrap_or(Err(Error::SessionExpired))
    }

    /// Waits until this place is the first.
    pub(super) async fn turn(&mut self) -> Result<(), Error> {
        if self.is_first {
            return Ok(());
        }
        while let Some(ahead) = self.ahead().await? {
            let options = WatchOptions { start_revision: self.header.revision + 1, no_put: true, ..Default::default() };
            let mut watcher = self.session.client.watch(ahead.key, options);
            tokio::select! {
                biased;
                gone = something(&mut watcher) => drop(gone?),
                _ = self.session.lost() => return Err(Error::SessionExpired),
            }
        }
        self.is_first = true;
        self.is_own = true;
        Ok(())
    }

    /// Whether nobody is ahead, as of when the place was taken or [`Place::turn`] returned.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Whether the place was there already, and says something else.
    pub(super) fn said_otherwise(&self, value: &Bytes) -> bool {
        self.found.as_ref().is_some_and(|found| found != value)
    }

    /// The last of those ahead. The place itself must be there.
    async fn ahead(&mut self) -> Result<Option<KeyValue>, Error> {
        let last = GetOptions {
            limit: 1,
            keys_only: true,
            max_create_revision: self.created - 1,
            sort_order: SortOrder::Descend as i32,
            sort_target: SortTarget::Create as i32,
            ..GetOptions::prefix(&self.prefix)
        };
        let txn = Txn::new().when([self.guard()]).then([Op::get_with(self.prefix.clone(), last)]);
        let (answer, _) = self.session.insist(&txn).await?;
        if !answer.succeeded {
            return Err(Error::SessionExpired);
        }
        self.header = answer.header.unwrap_or_default();
        Ok(answer.responses.into_iter().find_map(sole))
    }

    /// Holds as long as the key is this place's.
    pub(super) fn guard(&self) -> Compare {
        Compare::create_revision(self.key.clone()).equal(self.created)
    }

    /// Sets the value: whether the place is still there.
    pub(super) async fn set(&mut self, value: Bytes) -> Result<bool, Error> {
        let put =
            Op::put_with(self.key.clone(), value, PutOptions { lease: self.session.lease(), ..Default::default() });
        let answer = self.session.client.txn(Txn::new().when([self.guard()]).then([put])).await?;
        self.header = answer.header.unwrap_or_default();
        Ok(answer.succeeded)
    }

    /// Gives the place up: whether it was still there.
    pub(super) async fn leave(mut self) -> Result<bool, Error> {
        let deleted = delete(&self.session.client, self.guard(), self.key.clone()).await;
        // If that is not known the background tries once more.
        self.is_own = deleted.is_err();
        deleted
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Without a runtime the lease ends it.
        if self.is_own
            && let Ok(runtime) = Handle::try_current()
        {
            let (client, guard, key) = (self.session.client.clone(), self.guard(), self.key.clone());
            runtime.spawn(async move {
                if let Err(error) = delete(&client, guard, key).await {
                    tracing::debug!(%error, "a place in a queue is left to its lease");
                }
            });
        }
    }
}

async fn delete(client: &Client, guard: Compare, key: Bytes) -> Result<bool, Error> {
    let delete = Op::delete_with(key, DeleteOptions::default());
    Ok(client.txn(Txn::new().when([guard]).then([delete])).await?.succeeded)
}

/// Puts the key, unless it is there. Doing so twice is as good as once, so it is repeated until an answer comes.
async fn put(session: Session, prefix: Bytes, value: Bytes) -> Result<Place, Error> {
    let key = key_of(&prefix, session.lease());
    let put = Op::put_with(key.clone(), value, PutOptions { lease: session.lease(), ..PutOptions::default() });
    let first = Op::get_with(prefix.clone(), GetOptions { keys_only: true, ..first_created(&prefix) });
    let absent = Compare::create_revision(key.clone()).equal(0);
    let txn = Txn::new().when([absent]).then([put, first.clone()]).otherwise([Op::get(key.clone()), first]);
    let (TxnResponse { header, succeeded, responses }, attempts) = session.insist(&txn).await?;
    let header = header.unwrap_or_default();
    let mut found = responses.into_iter().map(sole);
    let (own, first) = (found.next().flatten(), found.next().flatten());
    let created = own.as_ref().map_or(header.revision, |own| own.create_revision);
    let is_first = first.is_none_or(|first| first.create_revision == created);
    // One that was there already may be held by somebody else with the same session; unless it was put by an attempt that seemed to fail.
    let is_own = succeeded || attempts > 1 || !is_first;
    let found = own.map(|own| own.value);
    Ok(Place { session, prefix, key, created, is_first, is_own, found, header })
}

impl Session {
    /// Does what may be done twice, and does it again while the cluster gives no answer, for as long as the session lasts: the answer, and
    /// how often it asked.
    async fn insist(&self, txn: &Txn) -> Result<(TxnResponse, u64), Error> {
        let mut pauses = self.client.options().retry.pauses(1);
        let asking = async {
            for attempt in 1.. {
                match self.client.txn(txn.clone()).await {
                    Err(error) if passes(&error) => tokio::time::sleep(pauses.next()).await,
                    answer => return answer.map(|answer| (answer, attempt)),
                }
            }
            unreachable!("it asks until it is told")
        };
        tokio::select! {
            biased;
            answer = asking => answer,
            _ = self.lost() => Err(Error::SessionExpired),
        }
    }
}

/// Whether it is worth while to ask again later.
fn passes(error: &Error) -> bool {
    match error {
        Error::Unreachable(_) | Error::Deadline => true,
        Error::Status { code: Code::Unavailable, .. } => true,
        Error::Status { code: Code::Unknown | Code::Internal | Code::Cancelled, text } => super::retry::transport(text),
        // But not a store that is full.
        _ => error.is(&crate::types::Error::RequestTooManyRequests),
    }
}

/// Waits until a watcher has events; also until what it should have had is compacted, for then there were some.
pub(super) async fn something(watcher: &mut Watcher) -> Result<Option<crate::pb::etcdserverpb::WatchResponse>, Error> {
    loop {
        match watcher.next().await {
            Some(Ok(answer)) if answer.events.is_empty() => {}
            Some(Ok(answer)) => return Ok(Some(answer)),
            Some(Err(Error::Compacted { .. })) => return Ok(None),
            Some(Err(error)) => return Err(error),
            None => return Err(Error::Truncated("watch")),
        }
    }
}

/// What all keys under a name begin with.
pub(super) fn prefix_of(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// Spelled as Go prints a number in hex.
fn key_of(prefix: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    [prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
}

/// Reads the key that was created first of those that begin so.
pub(super) fn first_created(prefix: &[u8]) -> GetOptions {
    GetOptions {
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..GetOptions::prefix(prefix)
    }
}

/// The one key that a read of one found, if it did.
fn sole(op: ResponseOp) -> Option<KeyValue> {
    match op.response {
        Some(Response::ResponseRange(RangeResponse { kvs, .. })) => kvs.into_iter().next(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_spelled_as_etcds_libraries_do() {
        assert_eq!(key_of(&prefix_of(b"a"), 0x4d), "a/4d");
        assert_eq!(key_of(&prefix_of(b""), -1), "/-1");
    }
}
