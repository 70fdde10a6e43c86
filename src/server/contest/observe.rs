//! Telling who leads, and what they proclaim, as long as somebody listens.

use super::{
    super::{Backend, Header, Ticket, convert, trace::Trace},
    Contests,
    contender::changed,
    first_created,
    follow::{Follow, Heard, is_delete},
};
use crate::{
    auth::Author,
    machine::View,
    pb::{mvccpb::KeyValue, v3electionpb::LeaderResponse},
    types::{Error, Key, KeyRange, Revision},
};
use tokio::sync::mpsc;
use tonic::Status;

/// Somebody who wants to hear of each leader of an election.
pub(in crate::server) struct Observer<B> {
    pub(in crate::server) contests: Contests<B>,
    pub(in crate::server) caller: Author,
    /// What the keys of the election begin with.
    pub(in crate::server) prefix: Key,
    pub(in crate::server) sender: mpsc::Sender<Result<LeaderResponse, Status>>,
}

impl<B: Backend> Observer<B> {
    /// Tells until that is over: why it is.
    ///
    /// Leaders who were not there for long may be left out, and so may be what they proclaimed, where it is compacted; the last one never is.
    pub(in crate::server) async fn run(&self) -> Error {
        match self.tell_all().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn tell_all(&self) -> Result<std::convert::Infallible, Error> {
        let mut told = None;
        // Of the first leader it must hear what any client may have heard; of later ones it hears in order.
        let mut serializable = false;
        loop {
            let found = self.contests.leader(&self.caller, &self.prefix, serializable).await?;
            serializable = true;
            let (kv, header) = match found {
                (Some(kv), header) => (kv, header),
                (None, header) => match self.first_put(header.revision).await? {
                    Some(kv) => (kv.clone(), header.at(Revision(kv.mod_revision))),
                    None => continue,
                },
            };
            let (key, start) = (kv.key.clone(), header.revision.next());
            // After a compaction it is read, and may be what has been told.
            if told != Some((kv.key.clone(), kv.mod_revision)) {
                told = Some((kv.key.clone(), kv.mod_revision));
                self.tell(kv, header).await?;
            }
            if let Some(revision) = self.follow(key.clone(), start).await? {
                told = Some((key, revision));
            }
        }
    }

    /// Tells what a leader proclaims, until it leads no more: the revision of the last that was told.
    async fn follow(&self, key: Key, start: Revision) -> Result<Option<i64>, Error> {
        let mut last = None;
        let mut events = self.follow_range(KeyRange::One(key), start)?;
        while let Heard::Events(events, revision) = self.heard(&mut events).await? {
            for event in events {
                if is_delete(&event) {
                    return Ok(last);
                }
                let kv = event.kv.unwrap_or_default();
                last = Some(kv.mod_revision);
                self.tell(kv, self.contests.edge.backend.header().at(revision)).await?;
            }
        }
        Ok(last)
    }

    /// Whoever takes an election that nobody leads; `None` if that has to be read.
    async fn first_put(&self, after: Revision) -> Result<Option<KeyValue>, Error> {
        let mut events = self.follow_range(KeyRange::prefix(self.prefix.clone()), after.next())?;
        while let Heard::Events(events, _) = self.heard(&mut events).await? {
            if let Some(put) = events.into_iter().find(|event| !is_delete(event)) {
                return Ok(put.kv);
            }
        }
        Ok(None)
    }

    fn follow_range(&self, range: KeyRange, start: Revision) -> Result<Follow<B>, Error> {
        let follow = Follow::new(&self.contests.edge.backend, &self.contests.readers);
        follow.add(range, start, false)?;
        Ok(follow)
    }

    /// What is heard next, as long as the caller may hear it.
    async fn heard(&self, events: &mut Follow<B>) -> Result<Heard, Error> {
        let mut auth_changed = self.contests.edge.backend.keeper().changed();
        loop {
            tokio::select! {
                biased;
                changed = changed(&mut auth_changed) => {
                    changed?;
                    self.allowed(self.contests.edge.view())?;
                }
                heard = events.next() => return heard,
            }
        }
    }

    async fn tell(&self, kv: KeyValue, header: Header) -> Result<(), Error> {
        // What happened after a permission was taken away is not told.
        self.allowed(self.contests.edge.view())?;
        let reply = LeaderResponse { header: header.to_wire(), kv: Some(kv) };
        self.sender.send(Ok(reply)).await.map_err(|_| Error::Canceled)
    }

    fn allowed(&self, view: &View) -> Result<(), Error> {
        view.authorize_read(&self.caller, &KeyRange::prefix(self.prefix.clone()))
    }
}

impl<B: Backend> Contests<B> {
    /// Who leads the election whose keys begin with `prefix`, and the header of then.
    ///
    /// # Errors
    /// What `caller` may not, or the read.
    pub(in crate::server) async fn leader(
        &self,
        caller: &Author,
        prefix: &Key,
        serializable: bool,
    ) -> Result<(Option<KeyValue>, Header), Error> {
        let query = first_created(prefix.clone());
        let allowed = |view: &View| view.authorize_read(caller, &query.range);
        let trace = Trace::of_none();
        let read = || self.edge.backend.range(query.clone(), serializable, Ticket::aside(), &trace);
        let (found, _ticket) = self.edge.read(serializable, allowed, read).await?;
        let header = self.edge.backend.header().at(found.revision);
        Ok((found.kvs.into_iter().next().map(convert::kv), header))
    }
}
