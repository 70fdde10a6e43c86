//! The replicated state machine: what every committed entry does, decided in one place.
//!
//! **Promises.** The state after an entry, the answer to it and its events are functions of the log up to it: no clock, no
//! setting of this member, no progress of its sweep, no size of a batch enters. An entry's rows, its index and the state hash are
//! one atomic write, so an entry is applied exactly once however often the log is replayed. An entry that is refused, or can't be
//! read, changes nothing.
//! **May not know** raft, the log's files, who waits for an answer, or the time.
//!
//! ```text
//!   entries → apply: decode → authorize → alarms → execute (kv txn lease alarm auth member) → rows + index + hash → engine → publish
//!               ↓ Outcome                                                                                    ↑
//!             replies → callers · events → watchers · effects → the member             Reader, View ─────────┘
//! ```

pub mod codec;
pub mod command;

mod alarm;
mod auth;
mod authorize;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod hash;
mod kv;
mod lease;
mod member;
mod quota;
mod snapshot;
mod standing;
mod txn;
mod view;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use authorize::{authorize_admin, authorize_read};
pub use command::{
    AlarmAction, AlarmKind, Applied, Command, Compare, CompareResult, CompareTarget, DeleteRange, Effect, Op, OpReply,
    Outcome, Put, Reply, RequestId, Txn, TxnReply,
};
pub use quota::QUOTA_BYTES_DEFAULT;
pub use snapshot::{applied_in, meta_of};
pub use standing::Standing;
pub use view::{LeaseInfo, View};

use crate::{
    auth::Author,
    engine::{Batch, Engine, Table},
    membership::Changes,
    mvcc,
    types::{ConfState, Entry, EntryKind, Error, Fault, Index, Key, LeaseId, Stop, Term},
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

/// Row of [`Table::Meta`]: how far this store is. See [`Mark`].
const APPLIED: &[u8] = b"applied";

/// What of a member's flags the machine knows. Nothing of it may decide what an entry does.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Size of the store at which this member asks for the NOSPACE alarm: 0 is [`QUOTA_BYTES_DEFAULT`], negative is never.
    pub quota_bytes: i64,
    /// Memory for rows beside their keys: see [`mvcc::Store::hold_rows`].
    pub value_cache_bytes: usize,
}

/// The state machine of one member.
pub struct Machine {
    engine: Arc<dyn Engine>,
    store: mvcc::Store,
    shared: Arc<view::Shared>,
    mark: Mark,
    /// Entries after the last write changed no rows: `mark` is ahead of its row.
    mark_unwritten: bool,
}

/// How far the log was applied, and what that made of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    index: Index,
    term: Term,
    hash: u64,
    live_bytes: u64,
}

/// What an entry asks for.
enum Work {
    /// A leader opens its term.
    Nothing,
    Command(Author, Command),
    Members(Result<Changes, String>),
    /// Bytes that are no command of ours.
    Unreadable(String),
}

impl Machine {
    /// Takes up the state that `engine` holds. Entries after [`Machine::applied`] must follow, also those that were applied
    /// before a crash but not flushed.
    ///
    /// # Errors
    /// A broken store, or one whose rows contradict each other.
    pub fn open(engine: Arc<dyn Engine>, settings: Settings) -> Result<Machine, Fault> {
        let mark = mark_in(&*engine)?;
        let mut store = mvcc::Store::open(engine.clone())?;
        store.hold_rows(settings.value_cache_bytes);
        let state = state_in(&*engine, store.take_leased())?;
        let quota = quota::Quota::new(settings.quota_bytes);
        quota.measure(engine.size()?, engine.pending());
        let shared = view::Shared {
            engine: RwLock::new(engine.clone()),
            state: RwLock::new(state),
            mark: Mutex::new(mark),
            quota,
            auth_enabled: AtomicBool::default(),
            auth_stamp: AtomicU64::default(),
        };
        shared.note_auth(&shared.state.read());
        Ok(Machine { engine, store, shared: Arc::new(shared), mark, mark_unwritten: false })
    }

    /// Goes on from the state that `engine` holds: that of another member, after a later entry of the same log. Readers and views
    /// see all of it from now on; those that are under way end on what they began with.
    ///
    /// # Errors
    /// A broken store; this member can't go on then.
    pub fn replace(&mut self, engine: Arc<dyn Engine>) -> Result<(), Fault> {
        let mark = mark_in(&*engine)?;
        let auth = crate::auth::Table::load(&*engine)?;
        {
            // Before its keys: what is seen of them was permitted by it.
            let mut own = self.shared.state.write();
            own.auth = auth;
            self.shared.note_auth(&own);
        }
        self.store.replace(engine.clone())?;
        let state = state_in(&*engine, self.store.take_leased())?;
        self.shared.quota.measure(engine.size()?, engine.pending());
        *self.shared.state.write() = state;
        *self.shared.engine.write() = engine.clone();
        *self.shared.mark.lock() = mark;
        (self.engine, self.mark, self.mark_unwritten) = (engine, mark, false);
        Ok(())
    }

    /// From now on events of puts have what they replaced only while somebody wants it: see [`mvcc::Store::prevs_on_demand`].
    pub fn prevs_on_demand(&mut self) -> Arc<AtomicUsize> {
        self.store.prevs_on_demand()
    }

    /// Applies committed entries, in the order of the log. Those that were applied before are passed over.
    ///
    /// When it returns, readers and views see all of it; it is durable once the engine is flushed.
    ///
    /// # Errors
    /// This member can't go on: its store failed. What was applied before the failure is consistent, and not published.
    ///
    /// # Panics
    /// If an entry is missing before the first that is new: the log must not have holes.
    pub fn apply(&mut self, entries: Vec<Entry>) -> Result<Outcome, Fault> {
        let mut outcome = Outcome::default();
        for entry in entries {
            if entry.index > self.mark.index {
                assert_eq!(entry.index, self.mark.index.next(), "the log has a hole before index {}", entry.index);
                self.apply_one(entry, &mut outcome)?;
            }
        }
        if self.mark_unwritten {
            self.write(Batch::default())?;
        }
        self.store.publish();
        *self.shared.mark.lock() = self.mark;
        Ok(outcome)
    }

    fn apply_one(&mut self, entry: Entry, outcome: &mut Outcome) -> Result<(), Fault> {
        let Entry { index, term, .. } = entry;
        let (request, work) = decode(entry);
        let mut batch = Batch::default();
        let result = match work {
            Work::Nothing => None,
            Work::Unreadable(text) => Some(Err(Error::Invalid(text))),
            Work::Members(changes) => Some(self.change_members(index, changes, &mut batch, outcome)),
            Work::Command(author, command) => {
                // The quota has no say here: it is this member's own. See `quota`.
                Some(match self.refusal(&author, &command) {
                    Some(error) => Err(error),
                    None => Stop::apart(self.execute(index, &author, command, &mut batch, outcome))?,
                })
            }
        };
        assert!(batch.is_empty() || matches!(result, Some(Ok(_))), "a refused entry changes nothing");
        let hash = hash::advance(self.mark.hash, index, term, &batch);
        self.mark = Mark { index, term, hash, ..self.mark };
        outcome.hashes.push((index, hash));
        self.mark_unwritten = true;
        // The next entry's reads need this one's rows. Entries without rows can wait for the next that has some.
        if !batch.is_empty() {
            self.write(batch)?;
        }
        if let Some(result) = result {
            outcome.replies.push(Applied { index, request, result, revision: self.store.current() });
        }
        Ok(())
    }

    /// Why nothing is done, if so: who asks may not have it, or an alarm forbids it.
    fn refusal(&self, author: &Author, command: &Command) -> Option<Error> {
        let state = &*self.shared.state.read();
        let allowed = authorize::authorize(&state.auth, &state.leases, author, command);
        allowed.err().or_else(|| alarm::refusal(&state.alarms, command))
    }

    fn execute(
        &mut self,
        index: Index,
        author: &Author,
        command: Command,
        batch: &mut Batch,
        outcome: &mut Outcome,
    ) -> Result<Reply, Stop> {
        match command {
            Command::Put(put) => self.put(put, batch, outcome),
            Command::DeleteRange(delete) => self.delete_range(&delete, batch, outcome),
            Command::Txn(txn) => self.txn(txn, batch, outcome),
            Command::Range(query) => self.range(&query),
            Command::Compact { revision, physical: _ } => self.compact(revision, batch, outcome),
            Command::LeaseGrant { id, ttl_s } => self.lease_grant(id, ttl_s, batch, outcome),
            Command::LeaseRevoke { id } => self.lease_revoke(id, batch, outcome),
            Command::LeaseCheckpoint(leases) => Ok(self.lease_checkpoint(leases, batch, outcome)),
            Command::Alarm { action, member, kind } => Ok(self.alarm(action, member, kind, batch, outcome)),
            Command::ClusterVersionSet { version } => self.cluster_version_set(version, batch),
            Command::MemberAttributes { member, name, client_urls } => {
                self.member_attributes(member, &name, &client_urls, batch)
            }
            Command::DowngradeInfo { enabled, version } => self.downgrade_info(enabled, version, batch),
            Command::Auth(request) => Ok(self.auth(author, request, index, batch, outcome)?),
        }
    }

    /// Data and applied index are one write: there is no state in which one is newer.
    fn write(&mut self, mut batch: Batch) -> Result<(), Fault> {
        batch.put(Table::Meta, Bytes::from_static(APPLIED), self.mark.encode());
        self.shared.quota.count(&batch);
        self.mark_unwritten = false;
        self.engine.write(batch)
    }

    /// The last applied entry.
    pub fn applied(&self) -> (Index, Term) {
        (self.mark.index, self.mark.term)
    }

    /// Who votes and who learns after the last applied entry.
    pub fn conf_state(&self) -> ConfState {
        self.shared.state.read().members.conf_state().clone()
    }

    /// For readers of keys.
    pub fn reader(&self) -> mvcc::Reader {
        self.store.reader()
    }

    /// For readers of everything else.
    pub fn view(&self) -> View {
        View { shared: self.shared.clone() }
    }
}

fn decode(entry: Entry) -> (RequestId, Work) {
    match entry.kind {
        EntryKind::Normal if entry.data.is_empty() => (RequestId::default(), Work::Nothing),
        EntryKind::Normal => match codec::decode(entry.data) {
            Ok((request, author, command)) => (request, Work::Command(author, command)),
            Err(text) => (RequestId::default(), Work::Unreadable(text)),
        },
        kind @ (EntryKind::ConfChange | EntryKind::ConfChangeV2) => {
            let (request, changes) = codec::decode_conf_change(kind, entry.data);
            (request, Work::Members(changes))
        }
    }
}

fn mark_in(engine: &dyn Engine) -> Result<Mark, Fault> {
    match engine.get(Table::Meta, APPLIED)? {
        Some(row) => Mark::decode(&row).ok_or_else(|| damaged("the row of the applied index is malformed")),
        None => Ok(Mark::default()),
    }
}

/// What is held in memory, `leased` being the keys that belong to leases.
fn state_in(engine: &dyn Engine, leased: Vec<(Key, LeaseId)>) -> Result<view::State, Fault> {
    let mut state = view::State {
        leases: crate::lease::Table::load(engine)?,
        members: crate::membership::Table::load(engine)?,
        alarms: crate::alarm::Table::load(engine)?,
        auth: crate::auth::Table::load(engine)?,
        cluster_version: text(engine, member::CLUSTER_VERSION)?,
        downgrade: text(engine, member::DOWNGRADE)?,
    };
    for (key, lease) in leased {
        if state.leases.get(lease).is_none() {
            return Err(damaged(&format!("key {key:?} belongs to lease {lease}, which does not exist")));
        }
        state.leases.attach(lease, key);
    }
    Ok(state)
}

fn text(engine: &dyn Engine, row: &[u8]) -> Result<Option<String>, Fault> {
    let text = engine.get(Table::Meta, row)?.map(|row| String::from_utf8(row.to_vec()));
    text.transpose().map_err(|_| damaged(&format!("the row {} is no text", row.escape_ascii())))
}

fn damaged(what: &str) -> Fault {
    Fault::Damaged { path: "store".into(), offset: None, what: what.into() }
}

impl Mark {
    const FORMAT: u8 = 1;

    /// The format, then the fields, 8 bytes each, little endian.
    fn encode(self) -> Bytes {
        let mut row = [Mark::FORMAT; 33];
        for (at, field) in [self.index.0, self.term.0, self.hash, self.live_bytes].into_iter().enumerate() {
            row[1 + 8 * at..][..8].copy_from_slice(&field.to_le_bytes());
        }
        Bytes::copy_from_slice(&row)
    }

    fn decode(row: &[u8]) -> Option<Mark> {
        let [Mark::FORMAT, fields @ ..] = row else { return None };
        let (fields, []) = fields.as_chunks::<8>() else { return None };
        let [index, term, hash, live_bytes] = *fields else { return None };
        let [index, term, hash, live_bytes] = [index, term, hash, live_bytes].map(u64::from_le_bytes);
        Some(Mark { index: Index(index), term: Term(term), hash, live_bytes })
    }
}
