//! Whether whoever holds a watch stream may still see what its watchers see.
//!
//! Each watcher is looked at when it is made, and all of a stream's again after each change of users and roles: before the next reply is made
//! of what happened after that change. One that may no longer is cancelled, with etcd's words for a lack of permission, and
//! what was queued for it is not sent. Watchers of a time when nobody was asked end when auth is enabled.

use super::{Backend, Edge, Identity, code};
use crate::{
    auth::Author,
    machine::View,
    types::{Error, KeyRange},
    watch::{Control, Delivery},
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// The watchers of one stream, and for whom they are.
pub(super) struct Guard {
    view: View,
    known: Mutex<Known>,
    /// [`View::auth_stamp`] when all of them were last looked at.
    stamp: AtomicU64,
    /// Some were cancelled, and their last reply has not been made.
    has_ended: AtomicBool,
}

struct Known {
    author: Result<Author, Error>,
    /// What those may see that were made while auth was enabled.
    ranges: HashMap<i64, KeyRange>,
    ended: HashSet<i64>,
}

impl Guard {
    pub(super) fn new(view: View) -> Guard {
        let author = Ok(Author::Nobody);
        let known = Known { author, ranges: HashMap::new(), ended: HashSet::new() };
        let stamp = AtomicU64::new(view.auth_stamp());
        Guard { view, known: Mutex::new(known), stamp, has_ended: AtomicBool::new(false) }
    }

    /// Finds out for whom the stream is. A stream is somebody's from its beginning, or from when auth is enabled, to its end: a token
    /// that ends meanwhile has said what it had to say.
    pub(super) async fn meet<B: Backend>(&self, edge: &Edge<B>, identity: &Identity) {
        let is_known = matches!(self.known.lock().author, Ok(Author::User { .. }));
        if !is_known {
            let author = edge.identify(identity).await;
            self.known.lock().author = author;
        }
    }

    /// Makes a watcher by `create`, if that is permitted, or has `control` say why not.
    pub(super) fn create(&self, control: &Control, range: &KeyRange, create: impl FnOnce() -> Option<i64>) {
        let mut known = self.known.lock();
        if !self.view.auth_enabled() {
            create();
            return;
        }
        let allowed = known.author.clone().and_then(|author| self.view.authorize_read(&author, range));
        match allowed {
            Ok(()) => {
                if let Some(id) = create() {
                    known.ranges.insert(id, range.clone());
                }
            }
            Err(error) => control.refuse(&as_rpc_error(&error)),
        }
    }

    /// The client has ended a watcher.
    pub(super) fn canceled(&self, id: i64) {
        if self.view.auth_enabled() {
            self.known.lock().ranges.remove(&id);
        }
    }

    /// Looks at all watchers again, if anything has changed since.
    pub(super) fn look(&self, control: &Control) {
        if self.view.auth_stamp() == self.stamp.load(Ordering::Acquire) {
            return;
        }
        let mut known = self.known.lock();
        // Read before the look: what changes meanwhile has the next one look again.
        let stamp = self.view.auth_stamp();
        let Known { author, ranges, ended } = &mut *known;
        let ids = control.ids();
        ranges.retain(|id, _| ids.contains(id));
        if self.view.auth_enabled() {
            for id in ids {
                let allowed = author.clone().and_then(|author| match ranges.get(&id) {
                    Some(range) => self.view.authorize_read(&author, range),
                    None => Err(Error::PermissionDenied),
                });
                if let Err(error) = allowed
                    && control.cancel_for(id, &as_rpc_error(&error))
                {
                    ranges.remove(&id);
                    ended.insert(id);
                }
            }
        }
        self.has_ended.store(!ended.is_empty(), Ordering::Release);
        self.stamp.store(stamp, Ordering::Release);
    }

    /// Whether a reply may go out. Asked for each, so it takes no lock as long as nothing changes.
    pub(super) fn lets(&self, control: &Control, delivery: &Delivery) -> bool {
        self.look(control);
        if !self.has_ended.load(Ordering::Acquire) {
            return true;
        }
        let mut known = self.known.lock();
        match delivery {
            Delivery::Events { id, .. } => !known.ended.contains(id),
            // Behind it the id may be another watcher's.
            Delivery::Canceled { id, .. } => {
                known.ended.remove(id);
                self.has_ended.store(!known.ended.is_empty(), Ordering::Release);
                true
            }
            _ => true,
        }
    }
}

/// How etcd words a lack of permission on this stream: as Go prints an error of a call.
fn as_rpc_error(error: &Error) -> String {
    let told = match error {
        Error::InvalidAuthToken | Error::AuthOldRevision | Error::UserEmpty => error,
        _ => &Error::PermissionDenied,
    };
    format!("rpc error: code = {:?} desc = {}", code(told), told.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_permission_is_worded_as_etcd_does() {
        let text = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert_eq!(as_rpc_error(&Error::PermissionDenied), text);
        assert_eq!(as_rpc_error(&Error::UserNotFound), text);
        let text = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
        assert_eq!(as_rpc_error(&Error::UserEmpty), text);
    }
}
