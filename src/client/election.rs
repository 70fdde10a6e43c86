//! Elections: one leader at a time, for as long as a session; and who leads, for all who want to know.
//!
//! To have been elected guards nothing by itself, as [`super::lock`] says of locks: see [`Leadership::guard`].

use super::{
    Client, Compare, Error, KeeperState, Session, WatchOptions, Watcher,
    session::{Place, first_created, prefix_of, something},
};
use crate::pb::{
    etcdserverpb::{RangeResponse, ResponseHeader},
    mvccpb::{Event, KeyValue, event::EventType},
};
use bytes::Bytes;
use std::collections::VecDeque;

/// An election that was won: until it is resigned, or the session ends. Dropping it resigns in the background.
#[derive(Debug)]
pub struct Leadership {
    place: Place,
}

impl Session {
    /// Waits to lead `name`, for as long as that takes, with `value` for all to see. To drop this is to stand no more.
    ///
    /// # Errors
    /// As [`Session::lock`].
    pub async fn campaign(&self, name: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Leadership, Error> {
        let value = value.into();
        let mut place = Place::take(self, name.as_ref(), value.clone()).await?;
        if place.said_otherwise(&value) && !place.set(value).await? {
            return Err(Error::SessionExpired);
        }
        place.turn().await?;
        Ok(Leadership { place })
    }
}

impl Leadership {
    /// The key that it is held by; its value is what is proclaimed.
    pub fn key(&self) -> &Bytes {
        &self.place.key
    }

    /// The fencing token: the key's create revision. Whoever leads later has a higher one.
    pub fn fence(&self) -> i64 {
        self.place.created
    }

    /// Holds as long as this one leads: for the transactions that only the leader may do.
    pub fn guard(&self) -> Compare {
        self.place.guard()
    }

    /// Of the last answer.
    pub fn header(&self) -> &ResponseHeader {
        &self.place.header
    }

    /// Shows another value: `false` if this one leads no more.
    ///
    /// # Errors
    /// As [`Client::txn`].
    pub async fn proclaim(&mut self, value: impl Into<Bytes>) -> Result<bool, Error> {
        self.place.set(value.into()).await
    }

    /// Waits until the session is lost, and the lead with it.
    pub async fn lost(&self) -> KeeperState {
        self.place.session().lost().await
    }

    /// Leads no more: `false` if that was so already.
    ///
    /// # Errors
    /// As [`Client::txn`].
    pub async fn resign(self) -> Result<bool, Error> {
        self.place.leave().await
    }
}

impl Client {
    /// Who leads `name`: the leader's key and value, or nothing.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn leader(&self, name: impl AsRef<[u8]>) -> Result<RangeResponse, Error> {
        let prefix = prefix_of(name.as_ref());
        self.get(prefix.clone(), first_created(&prefix)).await
    }

    /// Tells of each leader of `name`, and of what each proclaims.
    pub fn observe(&self, name: impl AsRef<[u8]>) -> Observer {
        Observer {
            client: self.clone(),
            prefix: prefix_of(name.as_ref()),
            told: None,
            follows: None,
            next: VecDeque::new(),
        }
    }
}

/// See [`Client::observe`].
#[derive(Debug)]
pub struct Observer {
    client: Client,
    prefix: Bytes,
    /// Key and revision of what was told last.
    told: Option<(Bytes, i64)>,
    /// What happens to the leader's key; or to all keys of the election, while there is none.
    follows: Option<(Watcher, bool)>,
    next: VecDeque<(ResponseHeader, Event)>,
}

impl Observer {
    /// The next leader, or the next value of the present one. The first is the present one. Leaders who were not there for long may be left
    /// out; the last one never is.
    ///
    /// # Errors
    /// As [`Client::leader`], or as a [`Watcher`]; calling again begins with the present leader.
    pub async fn next(&mut self) -> Result<RangeResponse, Error> {
        loop {
            while let Some((header, event)) = self.next.pop_front() {
                let is_over = event.r#type == EventType::Delete as i32;
                if is_over || self.awaits_anybody() {
                    self.forget(); // whoever leads now is read
                } else {
                    return Ok(self.tell(header, event.kv.unwrap_or_default()));
                }
            }
            if let Some((watcher, _)) = &mut self.follows {
                match something(watcher).await {
                    Ok(Some(answer)) => {
                        let header = answer.header.unwrap_or_default();
                        self.next.extend(answer.events.into_iter().map(|event| (header, event)));
                    }
                    Ok(None) => self.forget(),
                    Err(error) => {
                        self.forget();
                        return Err(error);
                    }
                }
                continue;
            }
            if let Some(leader) = self.look().await? {
                return Ok(leader);
            }
        }
    }

    fn awaits_anybody(&self) -> bool {
        matches!(self.follows, Some((_, true)))
    }

    fn forget(&mut self) {
        self.follows = None;
        self.next.clear();
    }

    /// Reads who leads, and follows that from there on: the leader, if that is news.
    async fn look(&mut self) -> Result<Option<RangeResponse>, Error> {
        let answer = self.client.get(self.prefix.clone(), first_created(&self.prefix)).await?;
        let header = answer.header.unwrap_or_default();
        let start_revision = header.revision + 1;
        let Some(kv) = answer.kvs.into_iter().next() else {
            let options = WatchOptions { start_revision, no_delete: true, ..WatchOptions::prefix(&self.prefix) };
            self.follows = Some((self.client.watch(self.prefix.clone(), options), true));
            return Ok(None);
        };
        let options = WatchOptions { start_revision, ..WatchOptions::default() };
        self.follows = Some((self.client.watch(kv.key.clone(), options), false));
        let is_news = self.told.as_ref().is_none_or(|(key, revision)| (key, *revision) != (&kv.key, kv.mod_revision));
        Ok(is_news.then(|| self.tell(header, kv)))
    }

    fn tell(&mut self, header: ResponseHeader, kv: KeyValue) -> RangeResponse {
        self.told = Some((kv.key.clone(), kv.mod_revision));
        RangeResponse { header: Some(header), kvs: vec![kv], ..RangeResponse::default() }
    }
}
