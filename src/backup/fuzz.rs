//! Any bytes as a database of etcd's, with what its log has after it: it is taken over or refused, and a member that took it over goes on.

use super::{
    Error, HashCheck, Progress, SnapshotFile, bucket, export,
    import::{Head, Imported, Plan, import},
    replay::replay,
    request::translate,
    status,
};
use crate::{
    alarm::AlarmKind,
    auth::Author,
    bolt::{self, Writer},
    engine::{Engine, Memory},
    lease::Terms,
    machine::{self, Command, Machine, Put, RequestId, codec},
    membership::Member,
    mvcc::{KeyValue, RangeQuery, write_row},
    types::{ConfState, Entry, EntryKind, LeaseId, MemberId, Revision, Term},
};
use arbitrary::Unstructured;
use bytes::Bytes;
use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Cursor, Write as _},
    os::fd::AsRawFd as _,
    path::PathBuf,
    sync::Arc,
};

/// The first byte says what the others are.
const ROWS: u8 = 0;
const FILE: u8 = 1;
/// Rows of a database, and entries of a log, in one input at most.
const ROWS_MAX: usize = 64;
const ENTRIES_MAX: usize = 16;

type Buckets = BTreeMap<&'static [u8], BTreeMap<Vec<u8>, Vec<u8>>>;

const BUCKETS: [&[u8]; 10] = [
    bucket::ALARM,
    bucket::AUTH,
    bucket::AUTH_ROLES,
    bucket::AUTH_USERS,
    bucket::CLUSTER,
    bucket::KEY,
    bucket::LEASE,
    bucket::MEMBERS,
    bucket::MEMBERS_REMOVED,
    bucket::META,
];

/// A file without a folder.
struct Snapshot {
    path: PathBuf,
    _file: File,
}

impl Snapshot {
    fn of(bytes: &[u8]) -> Snapshot {
        let file = memfd_create("snapshot", MemfdFlags::CLOEXEC).expect("room for a file in memory");
        let mut file = File::from(file);
        file.write_all(bytes).expect("room for a file in memory");
        Snapshot { path: format!("/proc/self/fd/{}", file.as_raw_fd()).into(), _file: file }
    }
}

/// Takes over what `data` is.
pub(crate) fn target(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let (file, bump, log) = match *how {
        ROWS => match rows(&mut Unstructured::new(rest)) {
            Ok((buckets, bump, log)) => (written(&buckets), bump, log),
            Err(_) => return,
        },
        FILE => (bolt::fuzz::resealed(rest.to_vec()), 0, Vec::new()),
        _ => (rest.to_vec(), 0, Vec::new()),
    };
    let snapshot = Snapshot::of(&file);
    // Who only looks does not look as closely, but must not fall over either.
    let _ = status(&snapshot.path);
    let Ok((engine, imported)) = taken_over(&snapshot, bump) else { return };
    let mut machine = Machine::open(engine.clone(), machine::Settings::default()).expect("what was taken over opens");
    let reader = machine.reader();
    assert_eq!(reader.current(), imported.revision);
    let all = reader.range(&RangeQuery::default()).expect("memory").expect("the current revision");
    assert_eq!((all.kvs.len(), all.count), (imported.keys, imported.keys as i64), "index and rows agree");
    assert_eq!(machine.view().leases().len(), imported.leases);
    goes_out_and_comes_back(&engine, &machine, imported);
    let applied = machine.applied();
    let put = Command::Put(Put { key: "next".into(), value: "one".into(), ..Put::default() });
    let data = codec::encode(RequestId(1), &Author::Member, &put);
    machine
        .apply(vec![Entry { index: applied.0.next(), term: applied.1, kind: EntryKind::Normal, data }])
        .expect("memory");
    replays(&engine, &machine, log);
}

fn taken_over(snapshot: &Snapshot, bump: i64) -> Result<(Arc<dyn Engine>, Imported), Error> {
    let file = SnapshotFile::open(&snapshot.path, HashCheck::IfThere)?;
    let database = file.database()?;
    let head = Head::read(&database)?;
    let plan = Plan {
        index: head.index,
        term: head.term.unwrap_or(Term(1)),
        members: head.members.clone(),
        removed: head.removed.clone(),
        conf_state: head.voters(),
        bump,
    };
    let engine: Arc<dyn Engine> = Arc::new(Memory::default());
    let imported = import(&database, &head, plan, &engine, &Progress::default())?;
    Ok((engine, imported))
}

/// What was taken over is a backup again, of the same keys.
fn goes_out_and_comes_back(engine: &Arc<dyn Engine>, machine: &Machine, imported: Imported) {
    let mut out = Cursor::new(Vec::new());
    let checkpoint = engine.checkpoint().expect("memory");
    match export(&*checkpoint, &mut out, &PathBuf::from("out")) {
        Ok(_) => {}
        // A name of a user or a role that is longer than bbolt takes with our letter before it is still one there.
        Err(Error::Bolt { source: bolt::Error::Refused { .. }, .. }) => return,
        Err(other) => panic!("{other}"),
    }
    let (again, counted) = taken_over(&Snapshot::of(&out.into_inner()), 0).expect("a backup of our own");
    assert_eq!((counted.revision, counted.keys, counted.leases), (imported.revision, imported.keys, imported.leases));
    let again = Machine::open(again, machine::Settings::default()).expect("it opens");
    let hash =
        |machine: &Machine| machine.reader().hash_kv(Revision(0)).expect("memory").expect("the current revision");
    assert_eq!(hash(&again), hash(machine));
}

/// Entries of etcd's are told in our words or refused, and those that are told are applied.
fn replays(engine: &Arc<dyn Engine>, machine: &Machine, log: Vec<(EntryKind, Bytes)>) {
    let (last, term) = machine.applied();
    let mut entries = Vec::new();
    for (kind, data) in log {
        let data = match kind {
            EntryKind::Normal => match translate(data) {
                Ok(data) => data,
                Err(_) => continue,
            },
            _ => data,
        };
        let index = entries.last().map_or(last, |entry: &Entry| entry.index).next();
        entries.push(Entry { index, term, kind, data });
    }
    let replayed = replay(engine, &entries).expect("memory");
    assert_eq!(replayed.applied().0.0, last.0 + entries.len() as u64);
}

fn written(buckets: &Buckets) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut writer = Writer::new(&mut out).expect("memory");
    for (name, rows) in buckets {
        writer.bucket(name).expect("in order");
        for (key, value) in rows {
            writer.put(key, value).expect("keys are short, and in order");
        }
    }
    writer.finish().expect("memory");
    out.into_inner()
}

type Parts = (Buckets, i64, Vec<(EntryKind, Bytes)>);

/// Rows that look like etcd's, more or less.
fn rows(u: &mut Unstructured<'_>) -> arbitrary::Result<Parts> {
    let mut buckets: Buckets = BUCKETS.iter().map(|name| (*name, BTreeMap::new())).collect();
    for _ in 0..u.int_in_range(0..=ROWS_MAX)? {
        let name = if u.arbitrary()? { bucket::KEY } else { *u.choose(&BUCKETS)? };
        let (key, value) = row(name, u)?;
        if !key.is_empty() {
            buckets.entry(name).or_default().insert(key, value);
        }
    }
    let bump: i64 = if u.ratio(1, 8)? { u.arbitrary()? } else { 0 };
    let mut log = Vec::new();
    for _ in 0..u.int_in_range(0..=ENTRIES_MAX)? {
        let kind =
            *u.choose(&[EntryKind::Normal, EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2])?;
        log.push((kind, Bytes::from(bytes(u)?)));
    }
    Ok((buckets, bump.max(0), log))
}

fn bytes(u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let len = u.int_in_range(0..=60)?;
    Ok(u.bytes(len)?.to_vec())
}

/// Small ones most often, and now and then any.
fn number(u: &mut Unstructured<'_>) -> arbitrary::Result<i64> {
    if u.ratio(1, 60)? { u.arbitrary() } else { u.int_in_range(1..=20) }
}

/// Most are rows as etcd writes them: one that is not ends the import.
fn row(bucket: &[u8], u: &mut Unstructured<'_>) -> arbitrary::Result<(Vec<u8>, Vec<u8>)> {
    if u.ratio(1, 100)? {
        return Ok((bytes(u)?, bytes(u)?));
    }
    let member = MemberId(u.int_in_range(0..=9)?);
    Ok(match bucket {
        bucket::KEY => version(u)?,
        bucket::LEASE => {
            let terms = Terms { id: LeaseId(number(u)?), ttl_s: number(u)?, remaining_s: number(u)? };
            let (key, value) = super::rows::lease(terms);
            (key.to_vec(), value)
        }
        bucket::META => {
            let names: [&[u8]; 5] =
                [b"consistent_index", b"term", b"scheduledCompactRev", b"finishedCompactRev", b"confState"];
            let name = *u.choose(&names)?;
            let value = match name {
                b"confState" => super::rows::conf_state(&ConfState { voters: vec![member], ..ConfState::default() }),
                b"consistent_index" | b"term" => number(u)?.to_be_bytes().to_vec(),
                _ => super::rows::revision(number(u)?).to_vec(),
            };
            (name.to_vec(), value)
        }
        bucket::AUTH => match u.arbitrary()? {
            true => (b"authEnabled".to_vec(), vec![u.arbitrary()?]),
            false => (b"authRevision".to_vec(), number(u)?.to_be_bytes().to_vec()),
        },
        // A name, and what says no more than that name.
        bucket::AUTH_ROLES | bucket::AUTH_USERS => {
            let name = *u.choose(&[b"a", b"b"])?;
            (name.to_vec(), [b"\x0a\x01", &name[..]].concat())
        }
        bucket::ALARM => {
            (super::rows::alarm(member, *u.choose(&[AlarmKind::NoSpace, AlarmKind::Corrupt])?), Vec::new())
        }
        bucket::MEMBERS => super::rows::member(&Member { id: member, is_learner: u.arbitrary()?, ..Member::default() }),
        bucket::MEMBERS_REMOVED => (super::rows::member_key(member), b"removed".to_vec()),
        _ => (b"clusterVersion".to_vec(), bytes(u)?),
    })
}

/// A version of a key, or a tombstone.
fn version(u: &mut Unstructured<'_>) -> arbitrary::Result<(Vec<u8>, Vec<u8>)> {
    let main = number(u)?;
    let mut key = super::rows::revision(main).to_vec();
    key[16] = u.int_in_range(0..=3)?;
    if u.ratio(1, 5)? {
        key.push(b't');
    }
    let is_sound = u.ratio(30, 31)?;
    let kv = KeyValue {
        key: Bytes::from_static(u.choose(&["a", "b", "c", "d"])?.as_bytes()),
        value: Bytes::from(bytes(u)?),
        create_revision: Revision(if is_sound { u.int_in_range(1..=main.max(1))? } else { number(u)? }),
        mod_revision: Revision(if is_sound { main } else { number(u)? }),
        version: number(u)?,
        lease: LeaseId(if u.arbitrary()? { number(u)? } else { 0 }),
    };
    Ok((key, write_row(&kv).to_vec()))
}

/// Files of etcd's.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let files = [
        &include_bytes!("testdata/etcd-3.5/snapshot.db")[..],
        include_bytes!("testdata/etcd-3.7/snapshot.db"),
        include_bytes!("testdata/etcd-3.7/killed/member/snap/db"),
    ];
    // Without the hash, which any change of a byte would make wrong.
    let whole_pages = |file: &[u8]| file.len() / bolt::PAGE_BYTES * bolt::PAGE_BYTES;
    let mut seeds: Vec<Vec<u8>> = files.iter().map(|file| [&[FILE], &file[..whole_pages(file)]].concat()).collect();
    // Random ones: what is in them follows from the code above.
    let random = |len: usize| {
        std::iter::successors(Some(len as u32), |last| Some(last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)))
    };
    let rows = [100, 200, 400, 800]
        .map(|len| std::iter::once(ROWS).chain(random(len).take(len).map(|n| (n >> 24) as u8)).collect());
    seeds.extend(rows);
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(key: &[u8], value: &[u8], bucket: &'static [u8]) -> String {
        let mut buckets: Buckets = BUCKETS.iter().map(|name| (*name, BTreeMap::new())).collect();
        buckets.entry(bucket).or_default().insert(key.to_vec(), value.to_vec());
        let taken = taken_over(&Snapshot::of(&written(&buckets)), 0);
        taken.map(|(_, imported)| imported).expect_err("no etcd has such a row").to_string()
    }

    #[test]
    fn the_seeds_are_taken_over() {
        let files: Vec<_> = seeds().into_iter().filter(|seed| seed[0] == FILE).collect();
        assert_eq!(files.len(), 3);
        for seed in files {
            let (_, imported) = taken_over(&Snapshot::of(&seed[1..]), 0).expect("a file of etcd's");
            assert!(imported.keys > 0);
        }
    }

    /// A member would have run out of revisions with its first write, or here already, where a key has a lease that is gone.
    #[test]
    fn a_history_that_has_come_to_the_end_of_all_numbers_is_refused() {
        let (last, one) = (super::super::rows::revision(i64::MAX), Revision(1));
        let lease = LeaseId(7);
        let kv = |revision, version| KeyValue {
            key: "a".into(),
            create_revision: one,
            mod_revision: Revision(revision),
            version,
            lease,
            ..Default::default()
        };
        let row = write_row(&kv(i64::MAX, 1));
        assert!(refusal(&last, &row, bucket::KEY).contains("can't be raised"));
        let row = write_row(&kv(1, i64::MAX));
        assert!(refusal(&super::super::rows::revision(1), &row, bucket::KEY).contains("no history can have"));
        for name in [&b"consistent_index"[..], b"term"] {
            assert!(refusal(name, &u64::MAX.to_be_bytes(), bucket::META).contains("no log comes to"));
        }
        let never = super::super::rows::revision(i64::MAX);
        assert!(refusal(b"scheduledCompactRev", &never, bucket::META).contains("can't be raised"));
        assert!(refusal(b"authRevision", &u64::MAX.to_be_bytes(), bucket::AUTH).contains("no history comes to"));
    }

    /// What ends a lease adds its time to a clock.
    #[test]
    fn a_lease_that_is_longer_than_any_can_be_is_refused() {
        let terms = Terms { id: LeaseId(1), ttl_s: i64::MAX, remaining_s: 0 };
        let (key, value) = super::super::rows::lease(terms);
        assert!(refusal(&key, &value, bucket::LEASE).contains("longer than any"));
    }

    /// The member would have found out when it starts, with its data directory made and the cluster waiting for it.
    #[test]
    fn users_that_a_member_could_not_read_are_refused() {
        assert!(refusal(b"alice", b"\xff\xff", bucket::AUTH_USERS).contains("malformed"));
    }
}
