//! Watchers: each event once, in order, without a gap, over all members that a watcher comes to.

use super::{Checkers, Rule, Violation, broken};
use crate::{
    mvcc::{Event, EventKind},
    pb::mvccpb,
    types::{KeyRange, Revision},
};

/// How far a watcher has come.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// What it watches.
    pub range: KeyRange,
    /// Leaves deletes out.
    pub no_delete: bool,
    /// The first revision that it has not seen; `None` before it was told where it begins.
    pub next: Option<Revision>,
}

impl Cursor {
    fn wants(&self, event: &Event) -> bool {
        self.range.contains(&event.kv.key) && !(self.no_delete && event.kind == EventKind::Delete)
    }
}

impl Checkers {
    /// The watcher is given events, those of one reply. Several replies may share a revision only if `fragment` says that more follow.
    ///
    /// # Errors
    /// They are not those that come next.
    pub fn watched(&self, cursor: &mut Cursor, events: &[mvccpb::Event]) -> Result<(), Violation> {
        let Some(mut next) = cursor.next else {
            return broken(Rule::Watch, "events come before the watcher is made".into());
        };
        let mut at = 0;
        while at < events.len() {
            let Some((revision, wanted)) = self.oracle.next_event(next, |event| cursor.wants(event)) else {
                return broken(Rule::Watch, format!("from {next} on there is nothing, but {:?} comes", &events[at..]));
            };
            let given = &events[at..events.len().min(at + wanted.len())];
            if given.len() != wanted.len() || given.iter().zip(&wanted).any(|(given, wanted)| !is_same(given, wanted)) {
                return broken(Rule::Watch, format!("after {next} at {revision} comes {given:?}, not {wanted:?}"));
            }
            at += wanted.len();
            next = revision.next();
        }
        cursor.next = Some(next);
        Ok(())
    }

    /// The watcher is told that no event at or below `revision` will follow.
    ///
    /// # Errors
    /// One is still owed.
    pub fn progressed(&self, cursor: &mut Cursor, revision: Revision) -> Result<(), Violation> {
        let Some(next) = cursor.next else { return Ok(()) };
        match self.oracle.next_event(next, |event| cursor.wants(event)) {
            Some((owed, _)) if owed <= revision => {
                broken(Rule::Watch, format!("progress at {revision}, but {owed} was not given"))
            }
            _ => {
                cursor.next = Some(next.max(revision.next()));
                Ok(())
            }
        }
    }

    /// The watcher is told that what it needs is compacted up to `oldest`.
    ///
    /// # Errors
    /// It is not.
    pub fn lost(&self, cursor: &mut Cursor, oldest: Revision) -> Result<(), Violation> {
        let next = cursor.next.unwrap_or_default();
        if next >= oldest || oldest > self.oracle.compacted() {
            let compacted = self.oracle.compacted();
            return broken(Rule::Watch, format!("at {next} a watcher is told {oldest} of {compacted}"));
        }
        cursor.next = Some(oldest);
        Ok(())
    }

    /// Whether a watcher has all there is.
    pub fn has_all(&self, cursor: &Cursor) -> bool {
        cursor.next.is_some_and(|next| self.oracle.next_event(next, |event| cursor.wants(event)).is_none())
    }
}

fn is_same(given: &mvccpb::Event, wanted: &Event) -> bool {
    let kind = match wanted.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    let Some(kv) = &given.kv else { return false };
    let Event { kv: right, .. } = wanted;
    given.r#type == i32::from(kind)
        && (&kv.key, &kv.value, kv.mod_revision) == (&right.key, &right.value, right.mod_revision.0)
        && (kv.version, kv.create_revision, kv.lease) == (right.version, right.create_revision.0, right.lease.0)
}
