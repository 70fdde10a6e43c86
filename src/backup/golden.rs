//! Files that etcd wrote itself, against what it answered about them.
//!
//! `testdata/etcd-VERSION` is of a single member (3.5.35, 3.7.3), run with `--bcrypt-cost 4`. `snapshot.db` is what `etcdctl snapshot
//! save` made of it. Then it was run with `--backend-batch-interval 600s`, so that its log got ahead of its database: root and alice
//! wrote, alice also tried what she may not, 3.5 got another role (3.7 writes its database at once then); and it was killed. `killed`
//! is what it left: database and log, cut behind what is in use. `expected.json` is what the same etcd said, when the snapshot was made,
//! and when it had been started again on what it had left.

use super::*;
use crate::{
    alarm::AlarmKind,
    auth::{self, Author, Permission, Request},
    engine::{self, Batch, Engine, Kind, Options},
    machine::{self, Machine},
    types::{Index, Revision},
};
use serde_json::{Map, Value, json};
use std::{path::Path, sync::Arc};
use tempfile::TempDir;

/// The files of one version of etcd.
struct Files {
    dir: PathBuf,
    expected: Value,
}

impl Files {
    fn of(version: &str) -> Files {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/backup/testdata/etcd-{version}"));
        let expected = std::fs::read(dir.join("expected.json")).expect("the file");
        Files { dir, expected: serde_json::from_slice(&expected).expect("JSON") }
    }
}

/// A store that was made, as a member would open it.
struct Store {
    engine: Arc<dyn Engine>,
    machine: Machine,
}

impl Store {
    fn open(data_dir: &Path) -> Store {
        let engine = engine::open(Kind::Redb, &data_dir.join("member/store"), Options::default()).expect("a store");
        let machine =
            Machine::open(engine.clone(), machine::Settings { quota_bytes: -1, ..machine::Settings::default() })
                .expect("a sound store");
        Store { engine, machine }
    }

    /// What etcd was asked, in the same words; of the history what `expected` tells.
    fn told(&self, expected: &Value) -> Value {
        let (view, reader) = (self.machine.view(), self.machine.reader());
        let hash = |at| reader.hash_kv(Revision(at)).expect("a store").expect("a revision that is kept");
        let revisions = expected["history"].as_array().expect("a list").iter().map(|at| at[0].as_i64().expect("one"));
        let leases = view.leases().into_iter().map(|id| {
            let lease = view.lease(id).expect("a lease");
            let keys = lease.keys.iter().map(|key| String::from_utf8_lossy(key)).collect::<Vec<_>>();
            (id.0.to_string(), json!({ "ttl": lease.ttl_s, "keys": keys }))
        });
        let alarms = view.alarms(None).into_iter().map(|(member, kind)| match kind {
            AlarmKind::NoSpace => json!([member.0, "NOSPACE"]),
            AlarmKind::Corrupt => json!([member.0, "CORRUPT"]),
        });
        json!({
            "revision": reader.current().0,
            "compacted": reader.compacted().0,
            "hash": hash(0).hash,
            "keys": reader.keys_total(),
            "history": revisions.map(|at| json!([at, hash(at).hash])).collect::<Vec<_>>(),
            "leases": leases.collect::<Map<_, _>>(),
            "alarms": alarms.collect::<Vec<_>>(),
            "auth": {
                "enabled": view.auth_enabled(),
                "revision": view.auth_revision(),
                "users": self.names(Request::UserList, |name| self.ask(Request::UserGet { name })),
                "roles": self.names(Request::RoleList, |name| self.ask(Request::RoleGet { name })),
            },
        })
    }

    /// By name, but for the role root, about which versions of etcd say different things.
    fn names(&self, list: Request, one: impl Fn(String) -> auth::Reply) -> Value {
        let auth::Reply::Names(mut names) = self.ask(list.clone()) else { panic!("no list") };
        names.retain(|name| list != Request::RoleList || name != auth::ROOT);
        let entry = |name: String| match one(name.clone()) {
            auth::Reply::Names(roles) => (name, json!(roles)),
            auth::Reply::Permissions(permissions) => (name, permissions.iter().map(permission).collect()),
            other => panic!("{other:?}"),
        };
        Value::Object(names.into_iter().map(entry).collect())
    }

    fn ask(&self, request: Request) -> auth::Reply {
        let mut table = auth::Table::load(&*self.engine).expect("a store");
        table.apply(&Author::Member, request, Index(0), &mut Batch::default()).expect("who is there")
    }

    fn knows(&self, user: &str, password: &str) -> bool {
        auth::matches(password.as_bytes(), self.machine.view().password(user).0.as_deref(), auth::COST_MIN)
    }
}

fn permission(permission: &Permission) -> Value {
    let kind = match permission.kind {
        auth::Kind::Read => "READ",
        auth::Kind::Write => "WRITE",
        auth::Kind::ReadWrite => "READWRITE",
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    json!({ "type": kind, "key": text(&permission.key), "range_end": text(&permission.range_end) })
}

fn a_snapshot_is_restored_as_it_was(version: &str, storage_version: &str) {
    let (files, to) = (Files::of(version), tempfile::tempdir().expect("a folder"));
    let (snapshot, expected) = (files.dir.join("snapshot.db"), &files.expected["snapshot"]);
    let found = status(&snapshot).expect("a sound file");
    assert_eq!(
        (json!(found.revision), json!(found.total_keys)),
        (expected["revision"].clone(), expected["keys"].clone())
    );
    assert_eq!(found.version, storage_version);
    let peer_urls = vec!["http://a:1".to_owned()];
    let restored = restore(&Restore {
        snapshot,
        hash: HashCheck::Demand,
        name: "a".to_owned(),
        peer_urls: peer_urls.clone(),
        initial_cluster: vec![("a".to_owned(), peer_urls)],
        cluster_token: "token".to_owned(),
        data_dir: to.path().to_owned(),
        wal_dir: None,
        bump_revision: 0,
        engine: Kind::Redb,
        progress: Progress::default(),
    });
    restored.expect("restored");
    let store = Store::open(to.path());
    assert_eq!(&store.told(expected), expected);
    assert!(store.knows("root", "rootpw") && store.knows("alice", "alice2") && !store.knows("alice", "alicepw"));
}

fn adopted(files: &Files) -> (Adopted, TempDir) {
    let to = tempfile::tempdir().expect("a folder");
    let adopted = adopt(&Adopt {
        from: files.dir.join("killed"),
        from_wal: None,
        member: None,
        data_dir: to.path().to_owned(),
        wal_dir: None,
        engine: Kind::Redb,
        progress: Progress::default(),
    });
    (adopted.expect("adopted"), to)
}

fn a_killed_member_goes_on_where_etcd_would(version: &str) {
    let files = Files::of(version);
    let (adopted, to) = adopted(&files);
    assert!(adopted.applied > 10 && adopted.open == 0, "{adopted:?}");
    let mut expected = files.expected["killed"].clone();
    let ids = expected.as_object_mut().map(|expected| (expected.remove("member"), expected.remove("cluster")));
    assert_eq!(ids, Some((Some(json!(adopted.member.0)), Some(json!(adopted.cluster.0)))));
    let store = Store::open(to.path());
    assert_eq!(store.told(&expected), expected);
    assert!(store.knows("alice", "alice3") && !store.knows("alice", "alice2"));
}

#[test]
fn a_snapshot_of_etcd_3_5_is_restored_as_it_was() {
    a_snapshot_is_restored_as_it_was("3.5", "");
}

#[test]
fn a_snapshot_of_etcd_3_7_is_restored_as_it_was() {
    a_snapshot_is_restored_as_it_was("3.7", "3.7.0");
}

#[test]
fn a_killed_member_of_etcd_3_5_goes_on_where_etcd_would() {
    a_killed_member_goes_on_where_etcd_would("3.5");
}

#[test]
fn a_killed_member_of_etcd_3_7_goes_on_where_etcd_would() {
    a_killed_member_goes_on_where_etcd_would("3.7");
}
