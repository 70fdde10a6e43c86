//! Who is talking to this member: at most one stream of each kind for each sender, and few senders that are no members yet.

use crate::types::MemberId;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::oneshot;

/// Streams from senders that are not known as members: newcomers that joined by a change which is not applied here yet.
const NEWCOMERS_MAX: usize = 16;

/// The kinds of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Urgent,
    Bulk,
    Snapshot,
}

/// The streams that are open.
#[derive(Default)]
pub(super) struct Streams {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    streams: HashMap<(MemberId, Kind), Stream>,
    count: u64,
}

struct Stream {
    number: u64,
    is_newcomer: bool,
    /// Held for what it does when it goes: the stream ends.
    _end: oneshot::Sender<()>,
}

/// A stream's place among those that are open; given back when it is dropped.
pub(super) struct Place {
    streams: Arc<Streams>,
    key: (MemberId, Kind),
    number: u64,
    end: oneshot::Receiver<()>,
}

impl Streams {
    /// A place for a new stream. An older one of the same sender and kind ends: its connection is as good as dead if the sender has
    /// dialled again. `None` if there are too many newcomers.
    pub(super) fn enter(self: &Arc<Streams>, from: MemberId, kind: Kind, is_newcomer: bool) -> Option<Place> {
        let (send_end, end) = oneshot::channel();
        let mut open = self.open.lock();
        let others = open.streams.iter().filter(|(key, stream)| stream.is_newcomer && **key != (from, kind)).count();
        if is_newcomer && others >= NEWCOMERS_MAX {
            return None;
        }
        open.count += 1;
        let number = open.count;
        open.streams.insert((from, kind), Stream { number, is_newcomer, _end: send_end });
        Some(Place { streams: Arc::clone(self), key: (from, kind), number, end })
    }

    /// Ends all streams of a sender that `is_unwanted`.
    pub(super) fn end(&self, is_unwanted: impl Fn(MemberId) -> bool) {
        self.open.lock().streams.retain(|(from, _), _| !is_unwanted(*from));
    }
}

impl Place {
    /// Waits until the stream has to end.
    pub(super) async fn ended(&mut self) {
        // Never sent to: it is dropped when the time has come.
        let _ = (&mut self.end).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock();
        if open.streams.get(&self.key).is_some_and(|stream| stream.number == self.number) {
            open.streams.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_stream_ends_the_older_one_of_its_kind_alone() {
        let streams = Arc::new(Streams::default());
        let mut old = streams.enter(MemberId(1), Kind::Urgent, false).unwrap();
        let mut bulk = streams.enter(MemberId(1), Kind::Bulk, false).unwrap();
        let mut new = streams.enter(MemberId(1), Kind::Urgent, false).unwrap();
        old.ended().await;
        drop(old);
        for place in [&mut bulk, &mut new] {
            assert!(place.end.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        }
        streams.end(|from| from == MemberId(1));
        bulk.ended().await;
        new.ended().await;
    }

    #[test]
    fn newcomers_are_few_and_members_always_have_room() {
        let streams = Arc::new(Streams::default());
        let newcomer = |id| streams.enter(MemberId(id), Kind::Bulk, true);
        let mut places = (0..NEWCOMERS_MAX as u64).map(|id| newcomer(id).unwrap()).collect::<Vec<_>>();
        assert!(newcomer(1000).is_none());
        assert!(newcomer(1).is_some(), "takes its own older place");
        assert!(streams.enter(MemberId(1000), Kind::Bulk, false).is_some());
        places.pop();
        assert!(newcomer(1000).is_some());
    }
}
