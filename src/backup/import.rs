//! A database of etcd's as rows of a fresh store.

use super::{AUTH_BUCKETS, Error, Progress, bucket, file::Database, rows};
use crate::{
    alarm, auth,
    engine::{Batch, Engine, Table},
    lease::{TTL_MAX_S, Terms},
    machine::Standing,
    membership::{self, Member},
    mvcc::{self, EventKind, KeyValue, Marks, RangeQuery, read_row, write_row},
    types::{ConfState, Fault, Index, Key, KeyRange, LeaseId, MemberId, Revision, Term},
};
use bytes::Bytes;
use std::{
    collections::{BTreeSet, HashSet},
    ops::{Bound, ControlFlow},
    sync::Arc,
};

/// Bytes that are written and flushed together.
const BATCH_BYTES: usize = 8 << 20;
/// What a row costs beside its bytes, about.
const ROW_BYTES: usize = 100;
/// No history counts so far, be it revisions, versions, or entries of a log. A member that began there would run out of numbers.
const NUMBER_MAX: i64 = i64::MAX / 2;

/// What a database says beside keys and leases.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    /// The last entry of the log that is in the database; 0 if there was none.
    pub(super) index: Index,
    /// Its term; `None` in files of etcd before 3.5.
    pub(super) term: Option<Term>,
    pub(super) members: Vec<Member>,
    pub(super) removed: BTreeSet<MemberId>,
    /// `None` in files of etcd before 3.5.
    pub(super) conf_state: Option<ConfState>,
    pub(super) marks: Marks,
    pub(super) auth_enabled: bool,
}

/// Who is to own the rows, and where they stand in which log.
pub(super) struct Plan {
    pub(super) index: Index,
    pub(super) term: Term,
    pub(super) members: Vec<Member>,
    pub(super) removed: BTreeSet<MemberId>,
    pub(super) conf_state: ConfState,
    /// Added to the latest revision, and everything up to there compacted, so that watchers learn that time went back; 0: not at all.
    pub(super) bump: i64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The revision at which the store goes on.
    pub revision: Revision,
    /// Keys that are there.
    pub keys: usize,
    /// Leases that are there.
    pub leases: usize,
    /// Keys whose lease was gone: they stay, without one.
    pub keys_without_lease: usize,
    /// Whether the database says that users and permissions are enforced.
    pub auth_enabled: bool,
}

impl Head {
    pub(super) fn read(database: &Database<'_>) -> Result<Head, Error> {
        database.check_is_etcds()?;
        let mut head = Head::default();
        database.scan(bucket::META, &mut |key, value| {
            let wrong = |what| database.wrong_row(bucket::META, key, what);
            let number = || match value.try_into().map(u64::from_be_bytes) {
                Ok(number) if number <= NUMBER_MAX.unsigned_abs() => Ok(number),
                Ok(_) => Err(wrong("is a number that no log comes to")),
                Err(_) => Err(wrong("is no number")),
            };
            let revision = || {
                let main = rows::parse_revision(value).ok_or_else(|| wrong("is no revision"))?;
                Ok::<_, Error>(Some(Revision(main)))
            };
            match key {
                b"consistent_index" => head.index = Index(number()?),
                b"term" => head.term = Some(Term(number()?)).filter(|term| term.0 > 0),
                b"scheduledCompactRev" => head.marks.compacted = head.marks.compacted.max(revision()?),
                b"finishedCompactRev" => {
                    head.marks.swept = revision()?;
                    head.marks.compacted = head.marks.compacted.max(head.marks.swept);
                }
                b"confState" => {
                    let state = rows::parse_conf_state(value).ok_or_else(|| wrong("does not say who votes"))?;
                    head.conf_state = Some(state);
                }
                _ => {}
            }
            Ok(())
        })?;
        database.scan(bucket::MEMBERS, &mut |key, value| {
            let member = rows::parse_member(key, value);
            head.members.push(member.ok_or_else(|| database.wrong_row(bucket::MEMBERS, key, "is no member"))?);
            Ok(())
        })?;
        database.scan(bucket::MEMBERS_REMOVED, &mut |key, _| {
            let id = rows::parse_member_key(key);
            head.removed.insert(id.ok_or_else(|| database.wrong_row(bucket::MEMBERS_REMOVED, key, "is no member"))?);
            Ok(())
        })?;
        database.scan(bucket::AUTH, &mut |key, value| {
            head.auth_enabled |= key == b"authEnabled" && value == [1];
            Ok(())
        })?;
        Ok(head)
    }

    /// Who votes: as the database says, or as the list of members implies.
    pub(super) fn voters(&self) -> ConfState {
        self.conf_state.clone().unwrap_or_else(|| {
            let ids = |learners: bool| {
                let members = self.members.iter().filter(|member| member.is_learner == learners);
                members.map(|member| member.id).collect::<Vec<_>>()
            };
            ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() }
        })
    }
}

/// Fills `engine`, which must be empty, and flushes it.
///
/// # Errors
/// Rows that are not what they should be, and whatever file and store say.
pub(super) fn import(
    database: &Database<'_>,
    head: &Head,
    plan: Plan,
    engine: &Arc<dyn Engine>,
    progress: &Progress,
) -> Result<Imported, Error> {
    let standing = Standing { index: plan.index, term: plan.term, ..Standing::default() };
    let mut import = Import { database, engine, progress, standing, batch: Batch::default(), bytes: 0, written: 0 };
    let leases = import.leases()?;
    let last = import.versions()?;
    import.auth()?;
    import.alarms()?;
    import.marks(head.marks, last, plan.bump)?;
    membership::Table::adopt(plan.members, plan.removed, plan.conf_state, &mut import.batch);
    import.flush()?;
    // What a member builds in memory when it starts: whoever can't build it should hear of it now.
    auth::Table::load(&**engine)?;
    let mut store = mvcc::Store::open(Arc::clone(engine))?;
    let keys_without_lease = import.let_go(&mut store, &leases)?;
    let reader = store.reader();
    import.standing.measure(&reader)?;
    import.standing.save(&mut import.batch);
    import.write()?;
    Ok(Imported {
        revision: reader.current(),
        keys: reader.keys_total(),
        leases: leases.len(),
        keys_without_lease,
        auth_enabled: head.auth_enabled,
    })
}

/// The last revisions of the rows of keys.
#[derive(Clone, Copy, Default)]
struct Last {
    row: Revision,
    /// Of the row without a version that etcd's restore leaves to say how far it has bumped. A mark says it here.
    bump: Option<Revision>,
}

struct Import<'a> {
    database: &'a Database<'a>,
    engine: &'a Arc<dyn Engine>,
    progress: &'a Progress,
    standing: Standing,
    batch: Batch,
    /// In `batch`, about.
    bytes: usize,
    /// Before that.
    written: u64,
}

impl Import<'_> {
    fn put(&mut self, table: Table, key: Bytes, value: Bytes) -> Result<(), Error> {
        self.bytes += key.len() + value.len() + ROW_BYTES;
        self.batch.put(table, key, value);
        if self.bytes < BATCH_BYTES { Ok(()) } else { self.flush() }
    }

    /// Writes what has come together, counted into the state hash.
    fn flush(&mut self) -> Result<(), Error> {
        self.standing.absorb(&self.batch);
        self.write()
    }

    fn write(&mut self) -> Result<(), Error> {
        self.written += std::mem::take(&mut self.bytes) as u64;
        self.engine.write(std::mem::take(&mut self.batch))?;
        self.engine.flush()?;
        // A database has pages that are free, too: how much is to come is not known better.
        self.progress.tell(self.written, self.database.bytes().max(self.written));
        Ok(())
    }

    fn leases(&mut self) -> Result<HashSet<LeaseId>, Error> {
        let database = self.database;
        let mut ids = HashSet::new();
        database.scan(bucket::LEASE, &mut |key, value| {
            let lease = rows::parse_lease(key, value);
            let terms: Terms = lease.ok_or_else(|| database.wrong_row(bucket::LEASE, key, "is no lease"))?;
            if terms.ttl_s.max(terms.remaining_s) > TTL_MAX_S {
                return Err(database.wrong_row(bucket::LEASE, key, "is a lease that is longer than any can be"));
            }
            ids.insert(terms.id);
            let (key, row) = terms.to_row();
            self.put(Table::Leases, key, row)
        })?;
        Ok(ids)
    }

    fn versions(&mut self) -> Result<Last, Error> {
        let database = self.database;
        let mut last = Last::default();
        database.scan(bucket::KEY, &mut |key, value| {
            let wrong = |what| database.wrong_row(bucket::KEY, key, what);
            if value.is_empty() {
                last.bump = Some(rows::parse_revision(key).map(Revision).ok_or_else(|| wrong("is no revision"))?);
                return Ok(());
            }
            let (key, row) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            let (revision, kind, kv) = read_row(&key, &row).ok_or_else(|| wrong("is no version of a key"))?;
            if kv.key.is_empty() {
                return Err(wrong("is a version without a key"));
            }
            let counts = [kv.version, kv.create_revision.0].iter().all(|count| (1..=NUMBER_MAX).contains(count));
            if kind == EventKind::Put && (!counts || kv.create_revision > revision) {
                return Err(wrong("is a version that no history can have"));
            }
            last.row = revision;
            self.put(Table::Versions, key, row)
        })?;
        // One that later rows have overtaken says nothing any more.
        last.bump = last.bump.filter(|bump| *bump > last.row);
        Ok(last)
    }

    fn auth(&mut self) -> Result<(), Error> {
        for (bucket, letter) in AUTH_BUCKETS {
            self.database.scan(bucket, &mut |key, value| {
                let key = [&[letter], key].concat();
                self.put(Table::Auth, key.into(), Bytes::copy_from_slice(value))
            })?;
        }
        // Tokens that etcd has signed before are at an end: it does not say what has become of their users since.
        let mut revision = 1;
        self.database.scan(bucket::AUTH, &mut |key, value| {
            if key == b"authRevision" {
                revision = u64::from_be_bytes(value.try_into().unwrap_or_default());
            }
            match revision > NUMBER_MAX.unsigned_abs() {
                true => Err(self.database.wrong_row(bucket::AUTH, key, "is a number that no history comes to")),
                false => Ok(()),
            }
        })?;
        self.database.scan(bucket::AUTH_USERS, &mut |name, _| {
            let (key, since) = auth::since_row(name, revision);
            self.put(Table::Auth, key, since)
        })?;
        Ok(())
    }

    fn alarms(&mut self) -> Result<(), Error> {
        let database = self.database;
        let mut alarms = alarm::Table::default();
        database.scan(bucket::ALARM, &mut |key, _| {
            let alarm = rows::parse_alarm(key);
            let alarm = alarm.ok_or_else(|| database.wrong_row(bucket::ALARM, key, "is no alarm"))?;
            if let Some((member, kind)) = alarm {
                alarms.activate(member, kind, &mut self.batch);
            }
            Ok(())
        })
    }

    /// The marks of compaction. The revision never goes back: not below a row, a mark, or an earlier bump.
    fn marks(&mut self, marks: Marks, last: Last, bump: i64) -> Result<(), Error> {
        let compacted = marks.compacted.max(last.bump);
        let latest = last.row.max(compacted.unwrap_or_default()).max(Revision(1));
        let bumped =
            latest.0.checked_add(bump).filter(|bumped| *bumped <= NUMBER_MAX).map(Revision).ok_or_else(|| {
                Error::unusable(self.database.path(), format!("its revision {latest} can't be raised by {bump}"))
            })?;
        let compacted = if bump > 0 { Some(bumped) } else { compacted };
        Marks { compacted, ..marks }.save(&mut self.batch);
        Ok(())
    }

    /// Takes keys off leases that do not exist: etcd lets them live on as well, and forgets to say so.
    fn let_go(&mut self, store: &mut mvcc::Store, leases: &HashSet<LeaseId>) -> Result<usize, Error> {
        let orphans = store.take_leased().into_iter().filter(|(_, lease)| !leases.contains(lease));
        let orphans = orphans.map(|(key, _)| key).collect::<Vec<_>>();
        let reader = store.reader();
        for key in &orphans {
            let found = reader.range(&RangeQuery::new(KeyRange::One(key.clone())))?;
            let Some(kv) = found.ok().and_then(|found| found.kvs.into_iter().next()) else { continue };
            let row_key = self.row_of(key, kv.mod_revision)?;
            self.put(Table::Versions, row_key, write_row(&KeyValue { lease: LeaseId::NONE, ..kv }))?;
        }
        self.flush()?;
        Ok(orphans.len())
    }

    /// The row of the version of `key` that was written at `revision`.
    fn row_of(&self, key: &Key, revision: Revision) -> Result<Bytes, Fault> {
        let mut row_key = None;
        let (from, to) = (revision.0.to_be_bytes(), revision.next().0.to_be_bytes());
        self.engine.scan(Table::Versions, (Bound::Included(&from), Bound::Excluded(&to)), &mut |name, row| {
            if read_row(name, &row).is_some_and(|(_, kind, kv)| kind == EventKind::Put && kv.key == *key) {
                row_key = Some(Bytes::copy_from_slice(name));
            }
            ControlFlow::Continue(())
        })?;
        row_key.ok_or_else(|| Fault::Damaged {
            path: "store".into(),
            offset: None,
            what: format!("the version of key {key:?} at revision {revision} is in the index, but has no row"),
        })
    }
}
