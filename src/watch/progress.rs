//! When a stream may say how far it is: never ahead of its events.

use super::Delivery;
use crate::types::Revision;
use std::collections::HashMap;

/// What a stream owes in progress replies.
///
/// A progress reply of revision r promises that no event at or below r follows on the stream. So it waits until every watcher of
/// the stream is level with the hub, until the hub has reached what the client may have seen already, and, if it speaks for all
/// watchers, until those that begin in the future have begun: a client resumes them after r.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Requests that are not answered yet. Each is answered by a reply of its own.
    requests: u32,
    /// What the store was at when the last of them came: the answer is not below.
    asked_at: i64,
    /// Watchers that want to hear in each interval without events: whether this one has been without so far.
    notify: HashMap<i64, bool>,
    /// An interval is over, and the watchers in `notify` have not been told.
    ticked: bool,
    /// Watchers whose first revision was in the future when they were created: the revision before it.
    future: HashMap<i64, i64>,
}

/// What to do about progress now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) replies: Vec<Delivery>,
    /// The level of the hub at which there is something to do again.
    pub(super) wait_for: Option<i64>,
}

impl Progress {
    /// A watcher was created; `future` is the revision before its first, if that is ahead of the store.
    pub(super) fn created(&mut self, id: i64, notify: bool, future: Option<i64>) {
        if notify {
            self.notify.insert(id, true);
        }
        if let Some(before) = future {
            self.future.insert(id, before);
        }
    }

    /// A watcher is no more.
    pub(super) fn gone(&mut self, id: i64) {
        self.notify.remove(&id);
        self.future.remove(&id);
    }

    /// Whether it matters which watchers have events.
    pub(super) fn listens(&self) -> bool {
        !self.notify.is_empty()
    }

    /// A watcher has an event.
    pub(super) fn had_event(&mut self, id: i64) {
        if let Some(quiet) = self.notify.get_mut(&id) {
            *quiet = false;
        }
    }

    /// The client asks, while the store is at `current`.
    pub(super) fn request(&mut self, current: i64) {
        // A client that asks and never reads must not make us owe it without end.
        self.requests = (self.requests + 1).min(REQUESTS_MAX);
        self.asked_at = self.asked_at.max(current);
    }

    /// An interval is over. Returns whether anybody cares.
    pub(super) fn tick(&mut self) -> bool {
        self.ticked = !self.notify.is_empty();
        self.ticked
    }

    /// Whether something is owed.
    pub(super) fn is_owed(&self) -> bool {
        self.requests > 0 || self.ticked
    }

    /// What may be said of a stream all of whose watchers have been told everything up to `level`. `floor` is the highest
    /// revision that a reply of this stream had in its header.
    pub(super) fn due(&mut self, level: i64, floor: i64) -> Due {
        let mut due = Due::default();
        if !self.is_owed() {
            return due;
        }
        self.future.retain(|_, before| *before > level);
        let revision = Revision(level);
        if self.ticked {
            if level >= floor {
                self.ticked = false;
                for (id, quiet) in &mut self.notify {
                    if std::mem::replace(quiet, true) && !self.future.contains_key(id) {
                        due.replies.push(Delivery::Progress { id: Some(*id), revision });
                    }
                }
            } else {
                due.wait_for = Some(floor);
            }
        }
        if self.requests > 0 {
            let begun = self.future.values().copied().max().unwrap_or(0);
            let wanted = self.asked_at.max(floor).max(begun);
            if level >= wanted {
                let requests = std::mem::take(&mut self.requests);
                due.replies.extend((0..requests).map(|_| Delivery::Progress { id: None, revision }));
            } else {
                due.wait_for = Some(due.wait_for.map_or(wanted, |other| other.min(wanted)));
            }
        }
        due
    }
}

const REQUESTS_MAX: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(revision: i64) -> Delivery {
        Delivery::Progress { id: None, revision: Revision(revision) }
    }

    #[test]
    fn each_request_has_its_reply_once_the_hub_is_where_the_store_was() {
        let mut progress = Progress::default();
        progress.request(7);
        progress.request(8);
        assert_eq!(progress.due(7, 5), Due { replies: vec![], wait_for: Some(8) });
        assert_eq!(progress.due(9, 5), Due { replies: vec![all(9), all(9)], wait_for: None });
        assert_eq!(progress.due(10, 5), Due::default());
    }

    #[test]
    fn a_reply_is_not_below_what_a_header_has_said() {
        let mut progress = Progress::default();
        progress.request(3);
        assert_eq!(progress.due(3, 4).wait_for, Some(4));
        progress.created(1, true, None);
        assert!(progress.tick());
        assert_eq!(progress.due(3, 4), Due { replies: vec![], wait_for: Some(4) });
        let told = Delivery::Progress { id: Some(1), revision: Revision(4) };
        assert_eq!(progress.due(4, 4).replies, [told, all(4)]);
    }

    #[test]
    fn a_watcher_of_the_future_holds_back_what_speaks_for_it() {
        let mut progress = Progress::default();
        progress.created(1, true, Some(20));
        progress.created(2, true, None);
        progress.request(5);
        assert!(progress.tick());
        let told = Delivery::Progress { id: Some(2), revision: Revision(5) };
        assert_eq!(progress.due(5, 5), Due { replies: vec![told], wait_for: Some(20) });
        progress.gone(1);
        assert_eq!(progress.due(6, 5).replies, [all(6)]);
    }

    #[test]
    fn a_watcher_is_told_after_an_interval_without_events() {
        let mut progress = Progress::default();
        progress.created(1, true, None);
        progress.had_event(1);
        assert!(progress.tick());
        assert_eq!(progress.due(5, 5), Due::default());
        assert!(progress.tick());
        assert_eq!(progress.due(5, 5).replies, [Delivery::Progress { id: Some(1), revision: Revision(5) }]);
        assert_eq!(progress.due(5, 5), Due::default(), "once an interval");
    }
}
