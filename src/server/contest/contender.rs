//! One contender, from taking its place to holding or leaving it.

use super::{
    super::{Backend, Header, Ticket, admission::Class, edge::StreamEnd, trace::Trace},
    Contests, SESSION_TTL_S, Wish, Won, created_at, first_created,
    follow::Follow,
    guarded, key_of, prefix_of,
};
use crate::{
    auth::Author,
    machine::{Command, DeleteRange, Op, OpReply, Put, Reply, Txn, View},
    mvcc::{KeyValue, RangeQuery, SortOrder, SortTarget},
    types::{Error, Key, KeyRange, LeaseId, Revision},
};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// See the module.
pub(super) struct Contender<B> {
    pub(super) contests: Contests<B>,
    pub(super) caller: Author,
    pub(super) wish: Wish,
}

/// A key among those of the other contenders.
struct Place {
    key: Key,
    /// Create revision of the key. One that is deleted and put again is another place, at the end of the queue.
    created: Revision,
    lease: LeaseId,
    /// The key was not there before.
    is_new: bool,
    /// Nobody was ahead of it from the beginning.
    is_first: bool,
    /// It was there, with another value than is wanted.
    is_to_change: bool,
    /// Of when it was taken.
    header: Header,
}

impl<B: Backend> Contender<B> {
    /// Contends, answers, and leaves if nobody takes the answer.
    pub(super) async fn run(self, mut answer: oneshot::Sender<Result<Won, Error>>, mut end: StreamEnd) {
        let place = match self.take_place().await {
            Ok(place) => place,
            Err(error) => {
                let _ = answer.send(Err(error)); // the client may have left
                return;
            }
        };
        let outcome = tokio::select! {
            biased;
            () = answer.closed() => Err(Error::Canceled),
            error = end.reached() => Err(error),
            won = self.hold(&place) => won,
        };
        let error = match outcome {
            Ok(header) => {
                let won = Won { key: place.key.clone(), created: place.created, lease: place.lease, header };
                match answer.send(Ok(won)) {
                    Ok(()) => return,
                    Err(_) => Error::Canceled,
                }
            }
            Err(error) => {
                let _ = answer.send(Err(error.clone()));
                error
            }
        };
        // What was held already when the call came is not the call's to give up. A place that is lost is left.
        if error != self.wish.lost && (place.is_new || !place.is_first) {
            self.leave(&place).await;
        }
    }

    /// Puts the key, unless it is there already: whoever asks again with the same lease has the same place.
    async fn take_place(&self) -> Result<Place, Error> {
        let lease = match self.wish.lease {
            LeaseId::NONE => self.make_lease().await?,
            given => given,
        };
        let taken = self.take_place_with(lease).await;
        if taken.is_err() && lease != self.wish.lease {
            // Nobody knows of it.
            self.withdraw(Command::LeaseRevoke { id: lease }).await;
        }
        taken
    }

    async fn take_place_with(&self, lease: LeaseId) -> Result<Place, Error> {
        let key = key_of(&self.wish.name, lease);
        let own = || Op::Range(RangeQuery::new(KeyRange::One(key.clone())));
        let first = || Op::Range(RangeQuery { keys_only: true, ..first_created(prefix_of(&self.wish.name)) });
        let txn = Txn {
            compares: vec![created_at(&key, Revision(0))],
            success: vec![Op::Put(self.put(&key, lease)), first()],
            failure: vec![own(), first()],
        };
        let (reply, header) = self.propose(Command::Txn(txn)).await?;
        let Reply::Txn(reply) = reply else { unreachable!("a transaction is answered as a transaction: {reply:?}") };
        let mut found = reply.responses.into_iter().map(sole);
        let (own, first) = (found.next().flatten(), found.next().flatten());
        let created = own.as_ref().map_or(header.revision, |own| own.create_revision);
        let is_first = first.is_none_or(|first| first.create_revision == created);
        let is_to_change = own.is_some_and(|own| self.wish.value.as_ref().is_some_and(|value| *value != own.value));
        Ok(Place { key, created, lease, is_new: reply.succeeded, is_first, is_to_change, header })
    }

    fn put(&self, key: &Key, lease: LeaseId) -> Put {
        let value = self.wish.value.clone().unwrap_or_default();
        Put { key: key.clone(), value, lease, ..Put::default() }
    }

    /// Returns once the place is the first, and has the value that is wanted: the header of then.
    async fn hold(&self, place: &Place) -> Result<Header, Error> {
        if place.is_to_change {
            self.change_value(place).await?;
        }
        self.turn(place).await
    }

    async fn change_value(&self, place: &Place) -> Result<(), Error> {
        let put = Op::Put(self.put(&place.key, place.lease));
        match self.propose(guarded(&place.key, place.created, put)).await?.0 {
            Reply::Txn(reply) if reply.succeeded => Ok(()),
            _ => Err(self.wish.lost.clone()),
        }
    }

    /// For a contender that came without a lease. As with etcd it is named in the key alone, and ends after a minute unless the client renews it.
    async fn make_lease(&self) -> Result<LeaseId, Error> {
        let edge = &self.contests.edge;
        edge.permit(false, |view| view.authorize_any(&self.caller)).await?;
        let _ticket = edge.admit(Class::Upkeep, self.wish.bytes)?;
        let trace = Trace::of_none();
        match edge.backend.lease_grant(&self.caller, LeaseId::NONE, SESSION_TTL_S, &trace).await?.result? {
            Reply::LeaseGrant { id, .. } => Ok(id),
            other => unreachable!("a grant is answered as a grant: {other:?}"),
        }
    }

    /// Returns once the place is the first: the header of then.
    async fn turn(&self, place: &Place) -> Result<Header, Error> {
        if place.is_first {
            return Ok(place.header);
        }
        let Contests { edge, readers, .. } = &self.contests;
        let mut auth_changed = edge.backend.keeper().changed();
        // What is ahead of it was ahead when the key was put, and that is applied here: so who is ahead is asked of this member alone.
        while let (Some(ahead), revision) = self.ahead(place, true).await? {
            let mut deletes = Follow::new(&edge.backend, readers);
            deletes.add(KeyRange::One(ahead.key), revision.next(), true)?;
            deletes.add(KeyRange::One(place.key.clone()), revision.next(), true)?;
            tokio::select! {
                biased;
                // It looks again, and finds out whether it still may.
                changed = changed(&mut auth_changed) => changed?,
                heard = deletes.next() => drop(heard?),
            }
        }
        // But the lease may have ended meanwhile, unheard of here.
        let (_, revision) = self.ahead(place, false).await?;
        Ok(edge.backend.header().at(revision))
    }

    /// The last of those ahead, and the revision at which it was. The place itself must be there.
    async fn ahead(&self, place: &Place, serializable: bool) -> Result<(Option<KeyValue>, Revision), Error> {
        let edge = &self.contests.edge;
        let last = RangeQuery {
            limit: 1,
            keys_only: true,
            max_create: place.created.0 - 1,
            order: SortOrder::Descend,
            target: SortTarget::Create,
            ..RangeQuery::new(KeyRange::prefix(prefix_of(&self.wish.name)))
        };
        let compares = vec![created_at(&place.key, place.created)];
        let txn = Txn { compares, success: vec![Op::Range(last)], failure: Vec::new() };
        let allowed = |view: &View| view.authorize_txn(&self.caller, &txn);
        let trace = Trace::of_none();
        let read = || edge.backend.txn_read(&txn, serializable, Ticket::aside(), &trace);
        let (reply, revision, _ticket) = edge.read(serializable, allowed, read).await?;
        if !reply.succeeded {
            return Err(self.wish.lost.clone());
        }
        Ok((reply.responses.into_iter().find_map(sole), revision))
    }

    /// Gives the place up: with the lease, if that was made for it.
    async fn leave(&self, place: &Place) {
        let delete = DeleteRange { range: KeyRange::One(place.key.clone()), prev_kv: false };
        self.withdraw(match self.wish.lease {
            LeaseId::NONE => Command::LeaseRevoke { id: place.lease },
            _ => guarded(&place.key, place.created, Op::DeleteRange(delete)),
        })
        .await;
    }

    /// Has something undone, as the caller, if that is possible soon. Else the lease ends it.
    async fn withdraw(&self, command: Command) {
        for pause in WITHDRAW_PAUSES {
            match self.propose(command.clone()).await {
                Ok(_) | Err(Error::LeaseNotFound) => return,
                Err(error) => tracing::debug!(call = self.wish.call, %error, "a place in a queue is not given up yet"),
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn propose(&self, command: Command) -> Result<(Reply, Header), Error> {
        self.contests.edge.propose(self.wish.call, self.wish.bytes, &self.caller, command).await
    }
}

/// After each attempt. One that finds no leader takes seconds by itself.
const WITHDRAW_PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(2), Duration::from_secs(5)];

/// The one key that a read of one found, if it did.
fn sole(reply: OpReply) -> Option<KeyValue> {
    match reply {
        OpReply::Range(result) => result.kvs.into_iter().next(),
        _ => None,
    }
}

/// Users or roles have changed.
pub(super) async fn changed(auth: &mut watch::Receiver<u64>) -> Result<(), Error> {
    // An error means that the member ends.
    auth.changed().await.map_err(|_| Error::Stopped)
}
