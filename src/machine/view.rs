//! What everybody else may see of the machine while it applies.

use super::{AlarmKind, Command, Mark, Txn, authorize, quota::Quota};
use crate::{
    alarm,
    auth::{self, Author},
    engine::{Engine, Size},
    lease::{self, Lease, Terms},
    membership::{self, Member},
    types::{ConfState, Error, Fault, Index, Key, KeyRange, LeaseId, MemberId, Term},
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// The replicated state that is small enough to be held in memory.
#[derive(Default)]
pub(super) struct State {
    pub(super) leases: lease::Table,
    pub(super) members: membership::Table,
    pub(super) alarms: alarm::Table,
    pub(super) auth: auth::Table,
    pub(super) cluster_version: Option<String>,
    pub(super) downgrade: Option<String>,
}

/// What the machine shares with its views. Only the machine writes.
pub(super) struct Shared {
    pub(super) engine: RwLock<Arc<dyn Engine>>,
    pub(super) state: RwLock<State>,
    /// The last entry whose effects readers can see.
    pub(super) mark: Mutex<Mark>,
    pub(super) quota: Quota,
    /// As in the state; for those whom it does not concern to find out without a lock.
    pub(super) auth_enabled: AtomicBool,
    /// Another number after each change of the auth state.
    pub(super) auth_stamp: AtomicU64,
}

impl Shared {
    /// Says that the auth state is another one. For whoever holds the state's lock.
    pub(super) fn note_auth(&self, state: &State) {
        self.auth_enabled.store(state.auth.is_enabled(), Ordering::Release);
        self.auth_stamp.fetch_add(1, Ordering::AcqRel);
    }
}

/// A window on the machine: cheap to clone, for any number of threads. Each answer is consistent in itself.
#[derive(Clone)]
pub struct View {
    pub(super) shared: Arc<Shared>,
}

/// What the log says about one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Time to live in seconds, as granted.
    pub ttl_s: i64,
    /// What was left at the last checkpoint. Only the leader's clock knows better.
    pub remaining_s: i64,
    /// The attached keys, sorted.
    pub keys: Vec<Key>,
}

impl View {
    /// The last applied entry: whoever reads from here on sees what it did.
    pub fn applied(&self) -> (Index, Term) {
        let mark = *self.shared.mark.lock();
        (mark.index, mark.term)
    }

    /// The state hash, and the entry after which it holds.
    pub fn state_hash(&self) -> (Index, u64) {
        let mark = *self.shared.mark.lock();
        (mark.index, mark.hash)
    }

    /// Bytes of all keys and values that can be read now. The same on every member.
    pub fn live_bytes(&self) -> u64 {
        self.shared.mark.lock().live_bytes
    }

    /// All leases, sorted by id.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.shared.state.read().leases.ids()
    }

    /// Whether there is such a lease.
    pub fn has_lease(&self, id: LeaseId) -> bool {
        self.shared.state.read().leases.get(id).is_some()
    }

    /// One lease, with its keys.
    pub fn lease(&self, id: LeaseId) -> Option<LeaseInfo> {
        let state = self.shared.state.read();
        let Lease { ttl_s, remaining_s, keys } = state.leases.get(id)?;
        let left_s = if *remaining_s > 0 { *remaining_s } else { *ttl_s };
        Some(LeaseInfo { ttl_s: *ttl_s, remaining_s: left_s, keys: keys.iter().cloned().collect() })
    }

    /// All leases for a new leader's clock.
    pub fn lease_terms(&self) -> Vec<Terms> {
        self.shared.state.read().leases.terms().collect()
    }

    /// All members, by id.
    pub fn members(&self) -> Vec<Member> {
        self.shared.state.read().members.list()
    }

    /// One member.
    pub fn member(&self, id: MemberId) -> Option<Member> {
        self.shared.state.read().members.get(id)
    }

    /// Whether this id was a member's that left for good.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.shared.state.read().members.is_removed(id)
    }

    /// Who votes and who learns.
    pub fn conf_state(&self) -> ConfState {
        self.shared.state.read().members.conf_state().clone()
    }

    /// The active alarms of one kind, or of all.
    pub fn alarms(&self, kind: Option<AlarmKind>) -> Vec<(MemberId, AlarmKind)> {
        self.shared.state.read().alarms.list(kind)
    }

    /// Whether some member has this alarm.
    pub fn has_alarm(&self, kind: AlarmKind) -> bool {
        self.shared.state.read().alarms.any(kind)
    }

    /// The version that all members speak, once the log has one.
    pub fn cluster_version(&self) -> Option<String> {
        self.shared.state.read().cluster_version.clone()
    }

    /// The version that a downgrade under way leads to.
    pub fn downgrade(&self) -> Option<String> {
        self.shared.state.read().downgrade.clone()
    }

    /// Whether a proposal that adds about `extra_bytes` would bring this member's store to its quota. Asks no disk; see
    /// [`View::measure`].
    pub fn quota_exceeded(&self, extra_bytes: u64) -> bool {
        let live_bytes = self.live_bytes();
        self.shared.quota.is_exceeded(live_bytes, extra_bytes)
    }

    /// This member's quota; `None` if it has none.
    pub fn quota_bytes(&self) -> Option<u64> {
        self.shared.quota.limit()
    }

    /// Measures the store. To be called after each flush: between two measurements
    /// [`View::quota_exceeded`] goes by what was written since.
    ///
    /// # Errors
    /// A broken store.
    pub fn measure(&self) -> Result<Size, Fault> {
        let engine = self.engine();
        let size = engine.size()?;
        self.shared.quota.measure(size, engine.pending());
        Ok(size)
    }

    /// The store under all this. A snapshot replaces it, so nobody keeps it for long.
    pub fn engine(&self) -> Arc<dyn Engine> {
        self.shared.engine.read().clone()
    }

    /// Whether permissions are enforced.
    pub fn auth_enabled(&self) -> bool {
        self.shared.auth_enabled.load(Ordering::Acquire)
    }

    /// Another number after each change of users, roles, or whether they count, and before anything that follows in the log can be
    /// seen. If it is the same after a read as before a check, the check holds for what was read.
    pub fn auth_stamp(&self) -> u64 {
        self.shared.auth_stamp.load(Ordering::Acquire)
    }

    /// Counts changes of users and roles.
    pub fn auth_revision(&self) -> u64 {
        self.shared.state.read().auth.revision()
    }

    /// Users, roles and permissions, without passwords: for somebody else who has to decide by them.
    pub fn auth_facts(&self) -> auth::Facts {
        self.shared.state.read().auth.facts()
    }

    /// Whether `author` may have `command` done, as this member's state is now. It is asked again when the command is applied.
    ///
    /// # Errors
    /// What the caller is to be told.
    pub fn authorize(&self, author: &Author, command: &Command) -> Result<(), Error> {
        if !self.auth_enabled() {
            return Ok(());
        }
        let state = &*self.shared.state.read();
        authorize::authorize(&state.auth, &state.leases, author, command)
    }

    /// The same of a transaction, as it is in a command.
    ///
    /// # Errors
    /// What the caller is to be told.
    pub fn authorize_txn(&self, author: &Author, txn: &Txn) -> Result<(), Error> {
        if !self.auth_enabled() {
            return Ok(());
        }
        let state = &*self.shared.state.read();
        authorize::authorize_txn(&state.auth, &state.leases, author, txn)
    }

    /// Whether `author` may read all of `range`.
    ///
    /// # Errors
    /// What the caller is to be told.
    pub fn authorize_read(&self, author: &Author, range: &KeyRange) -> Result<(), Error> {
        if !self.auth_enabled() {
            return Ok(());
        }
        authorize::authorize_read(&self.shared.state.read().auth, author, range)
    }

    /// Whether `author` may see all leases: as in etcd, who may read all keys that have one.
    ///
    /// # Errors
    /// What the caller is to be told.
    pub fn authorize_leases(&self, author: &Author) -> Result<(), Error> {
        if !self.auth_enabled() {
            return Ok(());
        }
        let state = &*self.shared.state.read();
        let permits = state.auth.permits(author)?;
        if matches!(permits, auth::Permits::All) {
            return Ok(());
        }
        let leases = state.leases.ids().into_iter().filter_map(|id| state.leases.get(id));
        let mut keys = leases.flat_map(|lease| &lease.keys).map(|key| KeyRange::One(key.clone()));
        keys.try_for_each(|key| permits.read(&key))
    }

    /// Whether `author` may do what only root may.
    ///
    /// # Errors
    /// What the caller is to be told.
    pub fn authorize_admin(&self, author: &Author) -> Result<(), Error> {
        if !self.auth_enabled() {
            return Ok(());
        }
        authorize::authorize_admin(&self.shared.state.read().auth, author)
    }

    /// Whether `author` is somebody.
    ///
    /// # Errors
    /// What the caller is to be told.
    pub fn authorize_any(&self, author: &Author) -> Result<(), Error> {
        if !self.auth_enabled() {
            return Ok(());
        }
        self.shared.state.read().auth.permits(author).map(drop)
    }

    /// Whether there is a user `name` that whoever proved it at the auth revision `revision` still is.
    pub fn is_current(&self, name: &str, revision: u64) -> bool {
        self.shared.state.read().auth.is_current(name, revision)
    }

    /// The hash of a user's password, if it has one, and the auth revision at which that is so.
    pub fn password(&self, name: &str) -> (Option<Bytes>, u64) {
        let state = self.shared.state.read();
        (state.auth.password(name), state.auth.revision())
    }

    /// Ids of members that left for good.
    pub fn removed(&self) -> Vec<MemberId> {
        self.shared.state.read().members.removed().collect()
    }
}
