//! The state machine that nobody crashes: what is committed, and what became of it.

use super::{Rule, Violation, broken};
use crate::{
    engine::Memory,
    machine::{Applied, Effect, Machine, RequestId, Settings, View, codec},
    mvcc::{Event, EventKind, KeyValue, RangeQuery},
    types::{Entry, EntryKind, Index, Key, LeaseId, Revision},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// The machine, and all that it ever did: it does not forget what was compacted.
pub struct Oracle {
    machine: Machine,
    entries: Vec<Entry>,
    hashes: Vec<u64>,
    replies: BTreeMap<Index, Applied>,
    requests: HashMap<RequestId, Index>,
    events: BTreeMap<Revision, Vec<Event>>,
    /// Each key's versions; `None` where it was deleted.
    keys: BTreeMap<Key, Vec<(Revision, Option<KeyValue>)>>,
    /// Each compaction, by the entry that made it.
    compacted: BTreeMap<Index, Revision>,
    granted: BTreeMap<LeaseId, Index>,
    revoked: BTreeMap<LeaseId, Index>,
}

impl Default for Oracle {
    fn default() -> Oracle {
        let engine = Arc::new(Memory::default());
        Oracle {
            machine: Machine::open(engine, Settings::default()).expect("an empty store in memory is sound"),
            entries: Vec::new(),
            hashes: Vec::new(),
            replies: BTreeMap::new(),
            requests: HashMap::new(),
            events: BTreeMap::new(),
            keys: BTreeMap::new(),
            compacted: BTreeMap::new(),
            granted: BTreeMap::new(),
            revoked: BTreeMap::new(),
        }
    }
}

impl Oracle {
    /// The next entry; the leases that it ends because their time is over.
    ///
    /// # Errors
    /// A proposal that comes a second time.
    pub fn apply(&mut self, entry: Entry) -> Result<Vec<LeaseId>, Violation> {
        let index = entry.index;
        assert_eq!(index, self.last().next(), "the log is taken in order");
        if let Some(request) = request_of(&entry)
            && let Some(first) = self.requests.insert(request, index)
        {
            return broken(Rule::Once, format!("the proposal at {first} is at {index} again: {entry:?}"));
        }
        self.entries.push(entry.clone());
        let outcome = self.machine.apply(vec![entry]).expect("a store in memory is sound");
        self.hashes.extend(outcome.hashes.iter().map(|(_, hash)| *hash));
        self.replies.extend(outcome.replies.into_iter().map(|reply| (index, reply)));
        for (revision, events) in outcome.events {
            for event in &events {
                let version = (event.kind == EventKind::Put).then(|| event.kv.clone());
                self.keys.entry(event.kv.key.clone()).or_default().push((revision, version));
            }
            self.events.insert(revision, events);
        }
        let mut revoked = Vec::new();
        for effect in outcome.effects {
            match effect {
                Effect::Compacted { revision } => drop(self.compacted.insert(index, revision)),
                Effect::LeaseGranted { id, .. } => drop(self.granted.insert(id, index)),
                Effect::LeaseRevoked { id } => {
                    self.revoked.insert(id, index);
                    revoked.push(id);
                }
                _ => {}
            }
        }
        Ok(revoked)
    }

    /// The last entry.
    pub fn last(&self) -> Index {
        Index(self.entries.len() as u64)
    }

    /// The entry at a position.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.0.checked_sub(1)?).ok()?)
    }

    /// The state hash after an entry.
    pub fn hash_at(&self, index: Index) -> Option<u64> {
        match index.0 {
            0 => Some(0),
            at => self.hashes.get(at as usize - 1).copied(),
        }
    }

    /// What the proposal at a position is answered with.
    pub fn reply(&self, index: Index) -> Option<&Applied> {
        self.replies.get(&index)
    }

    /// What is left beside keys.
    pub fn view(&self) -> View {
        self.machine.view()
    }

    /// The revision after everything.
    pub fn revision(&self) -> Revision {
        self.machine.reader().current()
    }

    /// The newest revision that any compaction has named.
    pub fn compacted(&self) -> Revision {
        self.compacted.values().copied().max().unwrap_or(Revision(-1))
    }

    /// Etcd's hash of all keys.
    pub fn hash_kv(&self) -> Option<crate::mvcc::HashKv> {
        self.machine.reader().hash_kv(Revision(0)).ok()?.ok()
    }

    /// The keys of a range at a revision, in order, whether that is compacted or not.
    pub fn range(&self, query: &RangeQuery, at: Revision) -> Vec<KeyValue> {
        let keys = self.keys.range::<[u8], _>(query.range.bounds());
        let visible = |versions: &Vec<(Revision, Option<KeyValue>)>| {
            let before = versions.partition_point(|(revision, _)| *revision <= at);
            versions[..before].last().and_then(|(_, version)| version.clone())
        };
        keys.filter_map(|(_, versions)| visible(versions)).collect()
    }

    /// The first revision from `from` on with an event that is wanted.
    pub fn next_event(&self, from: Revision, is_wanted: impl Fn(&Event) -> bool) -> Option<(Revision, Vec<Event>)> {
        self.events.range(from..).find_map(|(revision, events)| {
            let wanted = events.iter().filter(|event| is_wanted(event)).cloned().collect::<Vec<_>>();
            (!wanted.is_empty()).then_some((*revision, wanted))
        })
    }

    /// What happened at a revision.
    pub fn events_at(&self, revision: Revision) -> &[Event] {
        self.events.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// Where a lease was granted and where it ended, as far as that has happened.
    pub fn lease(&self, id: LeaseId) -> (Option<Index>, Option<Index>) {
        (self.granted.get(&id).copied(), self.revoked.get(&id).copied())
    }
}

/// Who waits for an entry's outcome.
fn request_of(entry: &Entry) -> Option<RequestId> {
    let request = match entry.kind {
        EntryKind::Normal if entry.data.is_empty() => return None,
        EntryKind::Normal => codec::decode(entry.data.clone()).ok()?.0,
        kind => codec::decode_conf_change(kind, entry.data.clone()).0,
    };
    (request != RequestId::default()).then_some(request)
}
