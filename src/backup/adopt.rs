//! The directory of a stopped etcd member as our own: its database, and what its log has after it.

use super::{
    Error, HashCheck, Progress, SnapshotFile,
    import::{Head, Imported, Plan, import},
    place::Place,
    replay::{is_about_users, replay},
    request,
};
use crate::{
    engine::Kind,
    io::real::RealDisk,
    membership::{Identity, Member},
    types::{ClusterId, Entry, EntryKind, Fault, HardState, Index, MemberId, Revision, Term},
    wal::{Recovered, Wal},
};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// What is adopted, and where it goes.
#[derive(Clone, Debug)]
pub struct Adopt {
    /// etcd's data directory.
    pub from: PathBuf,
    /// Folder of etcd's log; `None`: in its data directory.
    pub from_wal: Option<PathBuf>,
    /// Name or id of the member that goes on from here; `None`: the one whose directory it is, which must then be the only one.
    ///
    /// Members of one cluster must all go on from one and the same directory, or their state hashes would not be comparable.
    pub member: Option<String>,
    /// Where the member will keep its data; must be empty, or not exist.
    pub data_dir: PathBuf,
    /// Folder of its log; `None`: in the data directory.
    pub wal_dir: Option<PathBuf>,
    /// The store that the member is to have.
    pub engine: Kind,
    /// Who waits.
    pub progress: Progress,
}

/// A data directory that was made.
#[derive(Clone, Copy, Debug)]
pub struct Adopted {
    /// Who goes on from here, with the id that it had.
    pub member: MemberId,
    /// Its cluster, as before.
    pub cluster: ClusterId,
    /// What was in the database.
    pub imported: Imported,
    /// Entries of the log that came after it and were applied.
    pub applied: usize,
    /// Entries of the log that are not known to be committed: the member has them, and the cluster decides. Where users count there are
    /// none: what may be done has to be decided before.
    pub open: usize,
    /// The revision at which the member goes on.
    pub revision: Revision,
}

/// Makes a data directory from that of an etcd member, which keeps its id and its cluster. etcd's own files are not changed.
///
/// # Errors
/// etcd still runs, its files are damaged, or its log has entries that can't be read here; and whatever disk and store say. Then there
/// is no data directory under the name that was asked for.
pub fn adopt(asked: &Adopt) -> Result<Adopted, Error> {
    let path = asked.from.join("member/snap/db");
    let wal_dir = asked.from_wal.clone().unwrap_or_else(|| asked.from.join("member/wal"));
    let _lock = lock(&path)?;
    let file = SnapshotFile::open(&path, HashCheck::Skip)?;
    let database = file.database()?;
    let head = Head::read(&database)?;
    let log = Wal::read(&RealDisk::default(), &wal_dir, head.index)?;
    let tail = Tail::read(&wal_dir, &head, log)?;
    let place = Place::prepare(&asked.data_dir, asked.wal_dir.as_deref())?;
    let plan = Plan {
        index: head.index,
        term: tail.term,
        members: head.members.clone(),
        removed: head.removed.clone(),
        conf_state: head.voters(),
        bump: 0,
    };
    let engine = place.store(asked.engine)?;
    let imported = import(&database, &head, plan, &engine, &asked.progress)?;
    let (committed, open) = tail.entries.split_at(tail.committed);
    let machine = replay(&engine, committed)?;
    let applied = machine.applied();
    let member = successor(&asked.from, asked.member.as_deref(), tail.identity.member, &machine.view().members())?;
    let identity = Identity { member, ..tail.identity };
    let hard_state = HardState { commit: tail.hard_state.commit.max(applied.0), ..tail.hard_state };
    place.log(&identity.encode(), applied, &machine.conf_state(), &hard_state, open)?;
    let revision = machine.reader().current();
    drop((machine, engine));
    place.finish()?;
    let cluster = identity.cluster;
    Ok(Adopted { member, cluster, imported, applied: committed.len(), open: open.len(), revision })
}

/// etcd holds its database locked for as long as it runs.
fn lock(path: &Path) -> Result<File, Error> {
    let file = File::open(path).map_err(|error| {
        Error::unusable(path, format!("{error}: --data-dir must name the data directory of an etcd member"))
    })?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Error::unusable(path, "etcd is still running on this directory; stop it first"))
        }
        Err(error) => Err(Fault::io("lock", path, error.into()).into()),
    }
}

/// The member that is asked for, or the only one.
fn successor(from: &Path, asked: Option<&str>, own: MemberId, members: &[Member]) -> Result<MemberId, Error> {
    let names =
        || members.iter().map(|member| format!("{} ({})", member.name, member.id)).collect::<Vec<_>>().join(", ");
    match asked {
        Some(asked) => {
            let found = members.iter().find(|member| member.name == asked || member.id.to_string() == asked);
            found
                .map(|member| member.id)
                .ok_or_else(|| Error::unusable(from, format!("there is no member {asked:?}; there are {}", names())))
        }
        None if members.len() > 1 => Err(Error::unusable(
            from,
            format!(
                "it belongs to a cluster of {}: import one and the same directory for each of them, that of the member with the highest \
                 raft index, and say with --member for whom",
                names()
            ),
        )),
        None => Ok(own),
    }
}

/// What a log has after a database, in our own words.
struct Tail {
    identity: Identity,
    hard_state: HardState,
    /// Of the last entry that is in the database.
    term: Term,
    entries: Vec<Entry>,
    /// How many of them are taken to be committed: those of which it is known, or all where users count. Everybody goes on from this
    /// log, and what etcd would have made of an entry is known only here, with all that came before it.
    committed: usize,
}

impl Tail {
    fn read(dir: &Path, head: &Head, log: Recovered) -> Result<Tail, Error> {
        let wrong = |what: String| Error::unusable(dir, what);
        let identity = Identity::decode(&log.metadata);
        let identity = identity.ok_or_else(|| wrong("the log does not say whose it is".to_owned()))?;
        if log.start > head.index {
            let what = format!(
                "the log goes on from index {}, but the database ends at {}: etcd was to take over a snapshot when it stopped; \
                 start it once more, let it, and stop it",
                log.start, head.index
            );
            return Err(wrong(what));
        }
        let term = match (head.index, log.start_term.or(head.term)) {
            (Index(0), _) => Term(0),
            (_, Some(term)) => term,
            _ => return Err(wrong(format!("the log does not tell the term of entry {}", head.index))),
        };
        let known = log.entries.iter().filter(|entry| entry.index <= log.hard_state.commit).count();
        let entries = log.entries.into_iter().map(|entry| readable(dir, entry)).collect::<Result<Vec<_>, _>>()?;
        let users_count = head.auth_enabled || entries.iter().any(is_about_users);
        let committed = if users_count { entries.len() } else { known };
        Ok(Tail { identity, hard_state: log.hard_state, term, entries, committed })
    }
}

/// An entry that the machine understands, or why there is none: an entry that is passed over in silence would be a lost write.
fn readable(dir: &Path, entry: Entry) -> Result<Entry, Error> {
    if entry.kind != EntryKind::Normal {
        return Ok(entry);
    }
    let data = request::translate(entry.data.clone()).map_err(|what| {
        let what = format!(
            "entry {} can't be taken over: {what}; start etcd once more and stop it cleanly, which leaves it in the database",
            entry.index
        );
        Error::unusable(dir, what)
    })?;
    Ok(Entry { data, ..entry })
}
