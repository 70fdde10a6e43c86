//! What the machine should do, in the plainest words: a map of the whole key space for each revision.

use super::command::*;
use crate::{
    mvcc::{KeyValue, RangeQuery, RangeResult},
    types::{Error, Key, LeaseId, MemberId, Revision},
};
use std::collections::{BTreeMap, BTreeSet};

type Keys = BTreeMap<Key, KeyValue>;

pub(super) struct Model {
    pub(super) revision: i64,
    compacted: i64,
    states: BTreeMap<i64, Keys>,
    pub(super) leases: BTreeMap<LeaseId, i64>,
    alarms: BTreeSet<(AlarmKind, MemberId)>,
}

/// A request half done.
struct Draft {
    keys: Keys,
    written: bool,
}

impl Model {
    pub(super) fn new() -> Model {
        Model {
            revision: 1,
            compacted: -1,
            states: BTreeMap::from([(1, Keys::new())]),
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
        }
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.states[&self.revision]
    }

    pub(super) fn apply(&mut self, command: &Command) -> Result<Reply, Error> {
        let has = |kind| self.alarms.iter().any(|(active, _)| *active == kind);
        let is_alarm = matches!(command, Command::Alarm { .. } | Command::LeaseCheckpoint(_));
        if has(AlarmKind::Corrupt) && !is_alarm {
            return Err(Error::Corrupt);
        }
        let puts = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => format!("{txn:?}").contains("Put("),
            _ => false,
        };
        if has(AlarmKind::NoSpace) && puts {
            return Err(Error::NoSpace);
        }
        let mut draft = Draft { keys: self.keys().clone(), written: false };
        let reply = match command {
            Command::Put(put) => Reply::Put { prev: self.put(&mut draft, put)? },
            Command::DeleteRange(delete) => {
                let (deleted, prevs) = self.delete(&mut draft, delete);
                Reply::DeleteRange { deleted, prevs }
            }
            Command::Range(query) => Reply::Range(self.range(&draft, query)?),
            Command::Txn(txn) => Reply::Txn(self.txn(&mut draft, txn)?),
            Command::Compact { revision, .. } => {
                if revision.0 <= self.compacted {
                    return Err(Error::Compacted);
                }
                if revision.0 > self.revision {
                    return Err(Error::FutureRev);
                }
                self.compacted = revision.0;
                Reply::Compact
            }
            Command::LeaseGrant { id, ttl_s } => {
                if *ttl_s > 9_000_000_000 {
                    return Err(Error::LeaseTTLTooLarge);
                }
                if self.leases.contains_key(id) {
                    return Err(Error::LeaseExist);
                }
                self.leases.insert(*id, *ttl_s);
                Reply::LeaseGrant { id: *id, ttl_s: *ttl_s }
            }
            Command::LeaseRevoke { id } => {
                self.leases.remove(id).ok_or(Error::LeaseNotFound)?;
                let before = draft.keys.len();
                draft.keys.retain(|_, kv| kv.lease != *id);
                draft.written = draft.keys.len() != before;
                Reply::LeaseRevoke
            }
            Command::Alarm { action: AlarmAction::Activate, member, kind: Some(kind) } => {
                self.alarms.insert((*kind, *member));
                Reply::Alarms(vec![(*member, *kind)])
            }
            Command::Alarm { action: AlarmAction::Deactivate, member, kind: Some(kind) } => {
                let was = self.alarms.remove(&(*kind, *member));
                Reply::Alarms(was.then_some((*member, *kind)).into_iter().collect())
            }
            Command::LeaseCheckpoint(_) => Reply::Done,
            other => unreachable!("not generated: {other:?}"),
        };
        if draft.written {
            self.revision += 1;
            self.states.insert(self.revision, draft.keys);
        }
        Ok(reply)
    }

    fn put(&self, draft: &mut Draft, put: &Put) -> Result<Option<KeyValue>, Error> {
        if put.lease.0 != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Error::LeaseNotFound);
        }
        let old = draft.keys.get(&put.key).cloned();
        if (put.ignore_value || put.ignore_lease) && old.is_none() {
            return Err(Error::KeyNotFound);
        }
        let main = Revision(self.revision + 1);
        let kept = old.clone().unwrap_or_default();
        let new = KeyValue {
            key: put.key.clone(),
            value: if put.ignore_value { kept.value } else { put.value.clone() },
            lease: if put.ignore_lease { kept.lease } else { put.lease },
            version: kept.version + 1,
            create_revision: old.as_ref().map_or(main, |old| old.create_revision),
            mod_revision: main,
        };
        draft.keys.insert(put.key.clone(), new);
        draft.written = true;
        Ok(old.filter(|_| put.prev_kv))
    }

    fn delete(&self, draft: &mut Draft, delete: &DeleteRange) -> (i64, Vec<KeyValue>) {
        let (gone, kept): (Keys, Keys) =
            std::mem::take(&mut draft.keys).into_iter().partition(|(key, _)| delete.range.contains(key));
        draft.keys = kept;
        draft.written |= !gone.is_empty();
        (gone.len() as i64, gone.into_values().filter(|_| delete.prev_kv).collect())
    }

    fn range(&self, draft: &Draft, query: &RangeQuery) -> Result<RangeResult, Error> {
        let at = query.revision.0;
        if at > self.revision {
            return Err(Error::FutureRev);
        }
        if at > 0 && at < self.compacted {
            return Err(Error::Compacted);
        }
        let keys = if at > 0 { &self.states[&at] } else { &draft.keys };
        let mut kvs: Vec<KeyValue> = keys.values().filter(|kv| query.range.contains(&kv.key)).cloned().collect();
        let count = kvs.len() as i64;
        let more = query.limit > 0 && count > query.limit;
        if more {
            kvs.truncate(query.limit as usize);
        }
        Ok(RangeResult { kvs, count, more, revision: Revision(self.revision + i64::from(draft.written)) })
    }

    fn txn(&self, draft: &mut Draft, txn: &Txn) -> Result<TxnReply, Error> {
        // Always the state before the whole request, never the draft.
        let succeeded = txn.compares.iter().all(|compare| holds(self.keys(), compare));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let responses = branch.iter().map(|op| {
            Ok(match op {
                Op::Range(query) => OpReply::Range(self.range(draft, query)?),
                Op::Put(put) => OpReply::Put { prev: self.put(draft, put)? },
                Op::DeleteRange(delete) => {
                    let (deleted, prevs) = self.delete(draft, delete);
                    OpReply::DeleteRange {
                        deleted,
                        prevs,
                        revision: Revision(self.revision + i64::from(draft.written)),
                    }
                }
                Op::Txn(nested) => OpReply::Txn(self.txn(draft, nested)?),
            })
        });
        Ok(TxnReply { succeeded, responses: responses.collect::<Result<_, Error>>()? })
    }
}

fn holds(keys: &Keys, compare: &Compare) -> bool {
    let missing = KeyValue::default();
    let mut found: Vec<&KeyValue> = keys.values().filter(|kv| compare.range.contains(&kv.key)).collect();
    if found.is_empty() {
        if matches!(compare.target, CompareTarget::Value(_)) {
            return false;
        }
        found.push(&missing);
    }
    found.into_iter().all(|kv| {
        let ordering = match &compare.target {
            CompareTarget::Version(n) => kv.version.cmp(n),
            CompareTarget::Create(n) => kv.create_revision.0.cmp(n),
            CompareTarget::Mod(n) => kv.mod_revision.0.cmp(n),
            CompareTarget::Value(value) => kv.value.cmp(value),
            CompareTarget::Lease(n) => kv.lease.0.cmp(n),
        };
        match compare.result {
            CompareResult::Equal => ordering.is_eq(),
            CompareResult::Greater => ordering.is_gt(),
            CompareResult::Less => ordering.is_lt(),
            CompareResult::NotEqual => ordering.is_ne(),
        }
    })
}
