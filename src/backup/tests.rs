//! The room as a whole: what goes out comes back, and what can't be taken over is told.

use super::*;
use crate::{
    alarm::AlarmKind,
    auth::{Author, Request},
    bolt::Writer,
    engine::{self, Engine, Kind, Memory, Options, Table},
    io::real::RealDisk,
    machine::{self, AlarmAction, Command, Machine, Put, RequestId, codec},
    membership::{Change, Identity, Member},
    mvcc::{HashKv, KeyValue, RangeQuery, write_row},
    types::{
        ClusterId, ConfState, Entry, EntryKind, Error as Refusal, HardState, Index, KeyRange, LeaseId, MemberId,
        Revision, Term,
    },
    wal::{self, Mark, Wal},
};
use bytes::Bytes;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, io::Cursor, ops::ControlFlow, path::Path, sync::Arc};
use tempfile::TempDir;

/// A machine that is fed by hand.
struct World {
    engine: Arc<Memory>,
    machine: Machine,
}

const ME: MemberId = MemberId(0x11);
const TERM: Term = Term(3);

fn open(engine: Arc<dyn Engine>) -> Machine {
    Machine::open(engine, machine::Settings { quota_bytes: -1, ..machine::Settings::default() }).expect("a sound store")
}

fn put(key: &str, value: &str, lease: i64) -> Command {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    Command::Put(Put { key, value, lease: LeaseId(lease), ..Put::default() })
}

fn delete(key: &'static str) -> Command {
    let range = KeyRange::One(Bytes::from_static(key.as_bytes()));
    Command::DeleteRange(machine::DeleteRange { range, prev_kv: false })
}

fn entry(index: u64, command: &Command) -> Entry {
    let data = codec::encode(RequestId(index), &Author::Member, command);
    Entry { term: TERM, index: Index(index), kind: EntryKind::Normal, data }
}

impl World {
    fn new() -> World {
        let engine = Arc::new(Memory::default());
        let mut world = World { machine: open(engine.clone()), engine };
        let me =
            Member { id: ME, name: "me".to_owned(), peer_urls: vec!["http://me:1".to_owned()], ..Member::default() };
        let (kind, data) = codec::encode_conf_change(RequestId(0), &Change::Add(me));
        world.machine.apply(vec![Entry { term: TERM, index: Index(1), kind, data }]).expect("memory");
        world
    }

    fn apply(&mut self, command: &Command) {
        let index = self.machine.applied().0.next();
        let outcome = self.machine.apply(vec![entry(index.0, command)]).expect("memory");
        outcome.replies[0].result.as_ref().expect("a command that is not refused");
    }

    /// With something of everything.
    fn filled() -> World {
        let mut world = World::new();
        for (id, ttl_s) in [(7, 60), (0x7fff_0000_0000_0001, 9_000)] {
            world.apply(&Command::LeaseGrant { id: LeaseId(id), ttl_s });
        }
        for number in 0..300 {
            world.apply(&put(&format!("key{number:03}"), &"v".repeat(number), if number % 50 == 0 { 7 } else { 0 }));
        }
        for key in ["key001", "key050", "key299"] {
            world.apply(&delete(key));
        }
        world.apply(&put("big", &"b".repeat(100_000), 0));
        world.apply(&Command::Compact { revision: Revision(100), physical: false });
        world.apply(&Command::LeaseCheckpoint(vec![(LeaseId(7), 30)]));
        world.apply(&Command::Alarm { action: AlarmAction::Activate, member: ME, kind: Some(AlarmKind::Corrupt) });
        for request in [
            Request::UserAdd { name: "root".into(), hash: "hash".into(), no_password: None },
            Request::UserGrantRole { user: "root".into(), role: "root".into() },
            Request::RoleAdd { name: "readers".into() },
            Request::Enable,
        ] {
            world.apply(&Command::Auth(request));
        }
        world
    }

    fn hash(&self) -> HashKv {
        hash(&self.machine)
    }

    /// A snapshot file, as a client has it.
    fn snapshot(&self, dir: &TempDir) -> PathBuf {
        let path = dir.path().join("snapshot.db");
        let checkpoint = self.engine.checkpoint().expect("memory");
        let mut bytes = Cursor::new(Vec::new());
        export(&*checkpoint, &mut bytes, &path).expect("memory");
        let mut bytes = bytes.into_inner();
        bytes.extend_from_slice(&Sha256::digest(&bytes));
        fs::write(&path, bytes).expect("room");
        path
    }
}

fn hash(machine: &Machine) -> HashKv {
    machine.reader().hash_kv(Revision(0)).expect("a sound store").expect("the current revision")
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn asked(snapshot: &Path, dir: &TempDir) -> Restore {
    Restore {
        snapshot: snapshot.to_owned(),
        hash: HashCheck::Demand,
        name: "a".to_owned(),
        peer_urls: vec!["http://a:1".to_owned()],
        initial_cluster: vec![
            ("a".to_owned(), vec!["http://a:1".to_owned()]),
            ("b".to_owned(), vec!["http://b:1".to_owned()]),
        ],
        cluster_token: "token".to_owned(),
        data_dir: dir.path().join("data"),
        wal_dir: None,
        bump_revision: 0,
        engine: Kind::Redb,
        progress: Progress::default(),
    }
}

/// The store of a data directory.
fn store(data_dir: &Path) -> Arc<dyn Engine> {
    engine::open(Kind::Redb, &data_dir.join("member/store"), Options::default()).expect("a store")
}

fn auth_rows(engine: &dyn Engine) -> BTreeMap<Bytes, Bytes> {
    let mut rows = BTreeMap::new();
    let mut keep = |key: &[u8], value: Bytes| {
        rows.insert(Bytes::copy_from_slice(key), value);
        ControlFlow::Continue(())
    };
    engine.scan(Table::Auth, (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), &mut keep).expect("a store");
    rows
}

#[test]
fn a_store_comes_back_from_its_snapshot_under_new_members() {
    let (world, dir) = (World::filled(), dir());
    let file = world.snapshot(&dir);
    let found = status(&file).expect("a sound file");
    assert_eq!((found.revision, found.total_keys, &found.version[..]), (305, 298, STORAGE_VERSION));

    let restored = restore(&asked(&file, &dir)).expect("restored");
    let Imported { revision, keys, leases, keys_without_lease, auth_enabled } = restored.imported;
    assert_eq!((revision, keys, leases, keys_without_lease, auth_enabled), (Revision(305), 298, 2, 0, true));
    let engine = store(&dir.path().join("data"));
    // But for what only henge keeps: here every user has to log in again.
    let (restored_rows, before) = (auth_rows(&*engine), auth_rows(&*world.engine));
    assert!(before.keys().eq(restored_rows.keys()) && before.contains_key(&b"uroot"[..]));
    for (key, row) in before.iter().filter(|(key, _)| key[0] != b's') {
        assert_eq!(restored_rows.get(key), Some(row), "{}", key.escape_ascii());
    }
    let machine = open(engine);
    assert_eq!(hash(&machine), world.hash());
    let (view, before) = (machine.view(), world.machine.view());
    assert_eq!((view.leases(), view.lease(LeaseId(7))), (before.leases(), before.lease(LeaseId(7))));
    assert_eq!((view.alarms(None), view.live_bytes()), (before.alarms(None), before.live_bytes()));
    assert_eq!(view.members(), restored.members);
    assert!(view.member(ME).is_none() && view.cluster_version().is_none());
    assert_eq!(machine.applied(), (Index(2), Term(1)));
    assert_eq!(machine.conf_state().voters, restored.members.iter().map(|member| member.id).collect::<Vec<_>>());

    let wal_dir = dir.path().join("data/member/wal");
    let log = Wal::read(&RealDisk::default(), &wal_dir, Index(2)).expect("a log");
    let identity = Identity { member: restored.member, cluster: restored.cluster };
    assert_eq!(Identity::decode(&log.metadata), Some(identity));
    assert_eq!((log.hard_state.commit, log.start, log.start_term), (Index(2), Index(2), Some(Term(1))));
    assert_eq!((log.mark.index, log.conf_state, log.entries), (Index(2), machine.conf_state(), Vec::new()));
}

#[test]
fn members_restored_from_one_file_have_one_state_hash_and_one_cluster() {
    let (world, dir) = (World::filled(), dir());
    let file = world.snapshot(&dir);
    let one = asked(&file, &dir);
    let other = Restore {
        name: "b".to_owned(),
        peer_urls: vec!["http://b:1".to_owned()],
        data_dir: dir.path().join("other"),
        ..one.clone()
    };
    let (first, second) = (restore(&one).expect("restored"), restore(&other).expect("restored"));
    assert!(first.cluster == second.cluster && first.member != second.member);
    let state = |data_dir: &Path| open(store(data_dir)).view().state_hash();
    assert_eq!(state(&one.data_dir), state(&other.data_dir));
}

#[test]
fn a_bump_raises_the_revision_and_forgets_all_before() {
    let (world, dir) = (World::filled(), dir());
    let asked = Restore { bump_revision: 1_000_000_000, ..asked(&world.snapshot(&dir), &dir) };
    assert_eq!(restore(&asked).expect("restored").imported.revision, Revision(1_000_000_305));
    let machine = open(store(&asked.data_dir));
    let reader = machine.reader();
    assert_eq!((reader.current(), reader.compacted()), (Revision(1_000_000_305), Revision(1_000_000_305)));
    let at = |revision| reader.range(&RangeQuery { revision: Revision(revision), ..RangeQuery::default() });
    assert_eq!(at(305).expect("a store"), Err(Refusal::Compacted));
    let now = at(0).expect("a store").expect("the current revision");
    let then = world.machine.reader().range(&RangeQuery::default()).expect("memory").expect("the current revision");
    assert_eq!(now.kvs, then.kvs);
    let too_far = Restore { bump_revision: i64::MAX, data_dir: dir.path().join("other"), ..asked };
    assert!(restore(&too_far).expect_err("beyond all numbers").to_string().contains("can't be raised"));
}

#[test]
fn what_contradicts_itself_is_refused_before_anything_is_made() {
    let (world, dir) = (World::filled(), dir());
    let good = asked(&world.snapshot(&dir), &dir);
    let mut twice = good.initial_cluster.clone();
    twice[1].1 = vec!["http://a:1".to_owned()];
    let refusals = [
        (Restore { name: "c".to_owned(), ..good.clone() }, "couldn't find local name \"c\""),
        (
            Restore { peer_urls: vec!["http://x:1".to_owned()], ..good.clone() },
            "--initial-advertise-peer-urls=http://x:1",
        ),
        (Restore { initial_cluster: twice, ..good.clone() }, "http://a:1 comes twice"),
        (Restore { snapshot: dir.path().join("missing"), ..good.clone() }, "No such file"),
    ];
    for (asked, expected) in refusals {
        let text = restore(&asked).expect_err(expected).to_string();
        assert!(text.contains(expected), "{text}");
        assert!(!asked.data_dir.exists());
    }
    fs::create_dir(&good.data_dir).expect("a folder");
    fs::write(good.data_dir.join("precious"), "data").expect("a file");
    let text = restore(&good).expect_err("somebody's data").to_string();
    assert!(text.contains("not empty") && text.contains("precious"), "{text}");
}

#[test]
fn an_interrupted_attempt_is_no_obstacle_and_no_data_directory() {
    let (world, dir) = (World::filled(), dir());
    let asked = asked(&world.snapshot(&dir), &dir);
    let draft = asked.data_dir.join("member.draft/store");
    fs::create_dir_all(&draft).expect("a folder");
    fs::write(draft.join("half"), "written").expect("a file");
    restore(&asked).expect("restored");
    assert_eq!(hash(&open(store(&asked.data_dir))), world.hash());
    assert!(!asked.data_dir.join("member.draft").exists());
}

#[test]
fn the_log_may_have_a_folder_of_its_own() {
    let (world, dir) = (World::filled(), dir());
    let asked = Restore { wal_dir: Some(dir.path().join("logs/a")), ..asked(&world.snapshot(&dir), &dir) };
    restore(&asked).expect("restored");
    assert!(Wal::exists(&RealDisk::default(), &dir.path().join("logs/a")).expect("a folder"));
    assert!(!asked.data_dir.join("member/wal").exists());
    let again = Restore { data_dir: dir.path().join("other"), ..asked };
    assert!(restore(&again).expect_err("a log").to_string().contains("exists already"));
}

#[test]
fn the_hash_is_demanded_unless_it_is_skipped() {
    let (world, dir) = (World::filled(), dir());
    let file = world.snapshot(&dir);
    let bytes = fs::read(&file).expect("a file");
    let mut asked = asked(&file, &dir);
    fs::write(&file, &bytes[..bytes.len() - 32]).expect("room");
    let text = restore(&asked).expect_err("no hash").to_string();
    assert!(text.contains("snapshot missing hash but --skip-hash-check=false"), "{text}");
    let mut damaged = bytes.clone();
    damaged[40_000] ^= 1;
    fs::write(&file, &damaged).expect("room");
    let text = restore(&asked).expect_err("another hash").to_string();
    assert!(text.contains("expected sha256") && text.contains("snapshot.db"), "{text}");
    assert!(status(&file).expect_err("another hash").to_string().contains("expected sha256"));
    fs::write(&file, &bytes[..bytes.len() - 32]).expect("room");
    asked.hash = HashCheck::Skip;
    restore(&asked).expect("restored");
}

type Row = (Vec<u8>, Vec<u8>);

/// A file of etcd's, made by hand: buckets with rows.
fn etcd_file(path: &Path, buckets: &[(&[u8], Vec<Row>)]) {
    let file = fs::File::create(path).expect("room");
    let mut writer = Writer::new(std::io::BufWriter::new(file)).expect("room");
    for (name, rows) in buckets {
        writer.bucket(name).expect("in order");
        rows.iter().for_each(|(key, value)| writer.put(key, value).expect("in order"));
    }
    writer.finish().expect("room");
}

fn version(main: i64, key: &'static str, lease: i64) -> Row {
    let kv = KeyValue {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(b"value"),
        create_revision: Revision(main),
        mod_revision: Revision(main),
        version: 1,
        lease: LeaseId(lease),
    };
    (rows::revision(main).to_vec(), write_row(&kv).to_vec())
}

fn restore_plain(path: &Path, dir: &TempDir) -> Result<(Restored, Machine), Error> {
    let asked = Restore { hash: HashCheck::Skip, ..asked(path, dir) };
    let restored = restore(&asked)?;
    Ok((restored, open(store(&asked.data_dir))))
}

#[test]
fn a_key_whose_lease_is_gone_lives_on_without_it() {
    let dir = dir();
    let path = dir.path().join("db");
    let keys = vec![version(2, "first", 5), version(3, "other", 0), version(4, "second", 6)];
    let (lease_key, lease) = rows::lease(crate::lease::Terms { id: LeaseId(6), ttl_s: 10, remaining_s: 0 });
    etcd_file(&path, &[(b"key", keys), (b"lease", vec![(lease_key.to_vec(), lease)]), (b"meta", Vec::new())]);
    let (restored, machine) = restore_plain(&path, &dir).expect("restored");
    assert_eq!((restored.imported.keys, restored.imported.keys_without_lease), (3, 1));
    let found = machine.reader().range(&RangeQuery::default()).expect("a store").expect("the current revision");
    let leases = found.kvs.iter().map(|kv| kv.lease.0).collect::<Vec<_>>();
    assert_eq!(leases, [0, 0, 6]);
    assert_eq!(machine.view().lease(LeaseId(6)).expect("a lease").keys, ["second"]);
}

#[test]
fn the_revision_of_an_earlier_bump_is_kept() {
    let dir = dir();
    let path = dir.path().join("db");
    // As etcdutl leaves it: a row without a version.
    let keys = vec![version(2, "key", 0), (rows::revision(1_000).to_vec(), Vec::new())];
    etcd_file(&path, &[(b"key", keys), (b"meta", Vec::new())]);
    let found = status(&path).expect("a sound file");
    assert_eq!((found.revision, found.total_keys), (1_000, 2), "etcdutl counts it as a key");
    let (restored, machine) = restore_plain(&path, &dir).expect("restored");
    assert_eq!((restored.imported.revision, restored.imported.keys), (Revision(1_000), 1));
    assert_eq!(machine.reader().compacted(), Revision(1_000));
}

#[test]
fn rows_that_are_not_what_they_should_be_are_named() {
    let dir = dir();
    let path = dir.path().join("db");
    let (_, other) = version(3, "key", 0);
    let files = [
        (vec![(&b"key"[..], vec![(rows::revision(2).to_vec(), other)])], "bucket key is no version of a key"),
        (vec![(b"key", vec![(b"short".to_vec(), b"x".to_vec())])], "row short of bucket key"),
        (vec![(b"key", vec![]), (b"lease", vec![(b"x".to_vec(), b"y".to_vec())])], "row x of bucket lease is no lease"),
        (vec![(b"key", vec![]), (b"members", vec![(b"1".to_vec(), b"{}".to_vec())])], "bucket members is no member"),
        (vec![(b"alarm", vec![(b"\xff".to_vec(), vec![])]), (b"key", vec![])], "bucket alarm is no alarm"),
    ];
    for (mut buckets, expected) in files {
        buckets.push((b"meta", Vec::new()));
        etcd_file(&path, &buckets);
        let text = restore_plain(&path, &dir).map(|(restored, _)| restored).expect_err(expected).to_string();
        assert!(text.contains(expected), "{text}");
        let left =
            fs::read_dir(dir.path().join("data")).expect("a folder").map(|file| file.expect("a file").file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["LOCK"], "nothing half made stays");
    }
    etcd_file(&path, &[(b"something else", Vec::new())]);
    assert!(restore_plain(&path, &dir).map(drop).expect_err("no keys").to_string().contains("not etcd's"));
}

/// A stopped etcd member: a database that stands at `index`, and a log.
struct Etcd {
    dir: TempDir,
}

impl Etcd {
    /// Two keys at index 5; then `entries`, of which `committed` are known to be committed.
    fn new(entries: &[Entry], committed: u64, auth_enabled: bool) -> Etcd {
        let dir = dir();
        fs::create_dir_all(dir.path().join("member/snap")).expect("a folder");
        let member = Member { id: ME, peer_urls: vec!["http://me:1".to_owned()], ..Member::default() };
        let meta = vec![(b"consistent_index".to_vec(), 5_u64.to_be_bytes().to_vec())];
        let buckets = [
            (&b"auth"[..], vec![(b"authEnabled".to_vec(), vec![u8::from(auth_enabled)])]),
            (b"key", vec![version(2, "a", 0), version(3, "b", 0)]),
            (b"members", vec![rows::member(&member)]),
            (b"members_removed", vec![(b"99".to_vec(), b"removed".to_vec())]),
            (b"meta", meta),
        ];
        etcd_file(&dir.path().join("member/snap/db"), &buckets);
        let metadata = Identity { member: ME, cluster: ClusterId(0x22) }.encode();
        let wal_dir = dir.path().join("member/wal");
        let options = wal::Options { segment_bytes: 64 << 10, ..wal::Options::default() };
        let mut log = Wal::create(RealDisk::default(), &wal_dir, &metadata, options).expect("a log");
        let voters = ConfState { voters: vec![ME], ..ConfState::default() };
        log.save_mark(&Mark { index: Index(4), term: TERM }, &voters).expect("room");
        let state = HardState { term: TERM, vote: Some(ME), commit: Index(committed) };
        let fifth = Entry { term: TERM, index: Index(5), kind: EntryKind::Normal, data: Bytes::new() };
        log.append(Some(&state), &[&[fifth], entries].concat()).expect("room");
        log.sync().expect("room");
        Etcd { dir }
    }

    fn adopt(&self, to: &TempDir) -> Result<Adopted, Error> {
        self.adopt_as(None, to)
    }

    fn adopt_as(&self, member: Option<&str>, to: &TempDir) -> Result<Adopted, Error> {
        adopt(&Adopt {
            from: self.dir.path().to_owned(),
            from_wal: None,
            member: member.map(str::to_owned),
            data_dir: to.path().join("data"),
            wal_dir: None,
            engine: Kind::Redb,
            progress: Progress::default(),
        })
    }

    fn contents(&self) -> Vec<Vec<u8>> {
        let wal = fs::read_dir(self.dir.path().join("member/wal")).expect("a folder");
        let paths = wal.map(|file| file.expect("a file").path()).chain([self.dir.path().join("member/snap/db")]);
        paths.map(|path| fs::read(path).expect("a file")).collect()
    }
}

#[test]
fn a_stopped_etcd_member_goes_on_with_the_log_after_its_database() {
    let name = Command::MemberAttributes { member: ME, name: "me".to_owned(), client_urls: Vec::new() };
    let entries = [entry(6, &put("c", "x", 0)), entry(7, &delete("a")), entry(8, &name), entry(9, &put("d", "x", 0))];
    let (etcd, to) = (Etcd::new(&entries, 8, false), dir());
    let before = etcd.contents();
    let adopted = etcd.adopt(&to).expect("adopted");
    assert_eq!(etcd.contents(), before, "etcd's files are not changed");
    assert_eq!((adopted.member, adopted.cluster), (ME, ClusterId(0x22)));
    assert_eq!((adopted.applied, adopted.open, adopted.revision), (3, 1, Revision(5)));

    let machine = open(store(&to.path().join("data")));
    assert_eq!(machine.applied(), (Index(8), TERM));
    let found = machine.reader().range(&RangeQuery::default()).expect("a store").expect("the current revision");
    assert_eq!(found.kvs.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [b"b", b"c"]);
    let view = machine.view();
    assert_eq!(view.member(ME).expect("a member").name, "me");
    assert!(view.is_removed(MemberId(0x99)));
    assert_eq!(machine.conf_state().voters, [ME], "nobody said it: all members vote");

    let log = Wal::read(&RealDisk::default(), &to.path().join("data/member/wal"), Index(8)).expect("a log");
    assert_eq!((log.start, log.start_term), (Index(8), Some(TERM)));
    assert_eq!(log.hard_state, HardState { term: TERM, vote: Some(ME), commit: Index(8) });
    assert_eq!(log.entries, entries[3..]);
}

#[test]
fn members_of_one_cluster_go_on_from_one_directory() {
    let other = Member {
        id: MemberId(0x33),
        name: "other".to_owned(),
        peer_urls: vec!["http://other:1".to_owned()],
        ..Member::default()
    };
    let (kind, data) = codec::encode_conf_change(RequestId(6), &Change::Add(other));
    let joined = Entry { term: TERM, index: Index(6), kind, data };
    let etcd = Etcd::new(&[joined, entry(7, &put("c", "x", 0))], 7, false);
    let text = etcd.adopt(&dir()).expect_err("which?").to_string();
    assert!(text.contains("(11), other (33)") && text.contains("--member"), "{text}");
    let text = etcd.adopt_as(Some("third"), &dir()).expect_err("who?").to_string();
    assert!(text.contains("there is no member \"third\""), "{text}");

    let states = [("11", MemberId(0x11)), ("other", MemberId(0x33))].map(|(name, id)| {
        let to = dir();
        assert_eq!(etcd.adopt_as(Some(name), &to).expect("adopted").member, id);
        let log = Wal::read(&RealDisk::default(), &to.path().join("data/member/wal"), Index(7)).expect("a log");
        assert_eq!(Identity::decode(&log.metadata), Some(Identity { member: id, cluster: ClusterId(0x22) }));
        open(store(&to.path().join("data"))).view().state_hash()
    });
    assert_eq!(states[0], states[1]);
}

#[test]
fn etcd_that_still_runs_is_left_alone() {
    let (etcd, to) = (Etcd::new(&[], 5, false), dir());
    let path = etcd.dir.path().join("member/snap/db");
    let running = fs::File::open(&path).expect("a file");
    rustix::fs::flock(&running, rustix::fs::FlockOperation::LockExclusive).expect("free");
    let text = etcd.adopt(&to).expect_err("locked").to_string();
    assert!(text.contains("etcd is still running") && text.contains("snap/db"), "{text}");
    drop(running);
    etcd.adopt(&to).expect("adopted");
}

#[test]
fn entries_that_would_be_lost_in_silence_stop_the_import() {
    // etcd 3.4 adds the user "u" with the password "p".
    let data = Bytes::from_static(b"\xe2\x44\x06\x0a\x01u\x12\x01p");
    let (etcd, to) = (Etcd::new(&[Entry { data, ..entry(6, &put("c", "x", 0)) }], 6, false), dir());
    let text = etcd.adopt(&to).expect_err("a command of another version").to_string();
    assert!(text.contains("entry 6 can't be taken over") && text.contains("auth_user_add"), "{text}");
    assert!(!to.path().join("data/member").exists());
}

#[test]
fn where_users_count_all_of_the_log_is_decided_before() {
    let data = codec::encode(RequestId(7), &Author::Nobody, &put("d", "x", 0));
    let refused = Entry { data, ..entry(7, &put("d", "x", 0)) };
    let etcd = Etcd::new(&[entry(6, &put("c", "x", 0)), refused], 6, true);
    let adopted = etcd.adopt(&dir()).expect("adopted");
    assert_eq!((adopted.applied, adopted.open, adopted.revision), (2, 0, Revision(4)));
    assert!(adopted.imported.auth_enabled);
    let enable = Etcd::new(&[entry(6, &Command::Auth(Request::Enable)), entry(7, &put("c", "x", 0))], 5, false);
    let adopted = enable.adopt(&dir()).expect("adopted");
    assert_eq!(
        (adopted.applied, adopted.open, adopted.revision),
        (2, 0, Revision(4)),
        "without root it is not enabled"
    );
}

#[test]
fn a_folder_that_is_no_etcd_member_is_named() {
    let (empty, to) = (dir(), dir());
    let etcd = Etcd { dir: empty };
    let text = etcd.adopt(&to).expect_err("nothing").to_string();
    assert!(text.contains("snap/db") && text.contains("--data-dir must name"), "{text}");
    let etcd = Etcd::new(&[], 5, false);
    fs::remove_dir_all(etcd.dir.path().join("member/wal")).expect("a folder");
    let text = etcd.adopt(&to).expect_err("no log").to_string();
    assert!(text.contains("member/wal"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A damaged file without its hash gives an error or other rows, never a panic.
    #[test]
    fn no_damage_makes_a_restore_panic(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..30)) {
        let mut world = World::new();
        for number in 0..40 {
            world.apply(&put(&format!("key{number}"), "value", 0));
        }
        let dir = dir();
        let file = world.snapshot(&dir);
        let mut bytes = fs::read(&file).expect("a file");
        bytes.truncate(bytes.len() - 32);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fs::write(&file, &bytes).expect("room");
        let _ = status(&file);
        let _ = restore(&Restore { hash: HashCheck::Skip, ..asked(&file, &dir) });
    }
}
