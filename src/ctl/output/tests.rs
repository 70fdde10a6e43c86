use super::*;
use crate::pb::{
    authpb::{Permission, permission::Type},
    etcdserverpb::{AlarmMember, Member, ResponseHeader, ResponseOp, response_op::Response},
    henge::ring::{Copy, Duty, Identity, Listed, Proxy, State},
    mvccpb::{Event, KeyValue},
};
use bytes::Bytes;
use std::{fmt::Write as _, path::Path};

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 15118495548433857066, member_id: 13668033151171901709, revision, raft_term: 2 })
}

fn kv(key: &'static str, value: &'static str, mod_revision: i64) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: 2,
        mod_revision,
        version: mod_revision - 1,
        lease: 0,
    }
}

/// One answer of each kind, with what makes formats differ: odd bytes, zeros, missing parts.
fn answers() -> Vec<(&'static str, Answer)> {
    let range = RangeResponse { header: header(3), kvs: vec![kv("fo\"o", "b\n<r>", 3)], more: true, count: 4 };
    let inner = RangeResponse { header: Some(ResponseHeader { revision: 3, ..Default::default() }), ..range.clone() };
    let put = PutResponse { header: header(4), prev_kv: Some(kv("foo", "bar", 3)) };
    let delete = DeleteRangeResponse { header: header(5), deleted: 1, prev_kvs: vec![kv("foo", "bar", 4)] };
    let op = |response| ResponseOp { response: Some(response) };
    let responses = vec![op(Response::ResponseRange(inner)), op(Response::ResponsePut(PutResponse::default()))];
    let deleted = KeyValue { key: "foo".into(), mod_revision: 6, ..KeyValue::default() };
    let events = vec![
        Event { r#type: 0, kv: Some(kv("foo", "bar", 2)), prev_kv: None },
        Event { r#type: 1, kv: Some(deleted), prev_kv: Some(kv("foo", "bar", 2)) },
    ];
    let member = Member {
        id: 13668033151171901709,
        name: "n1".into(),
        peer_ur_ls: vec!["http://127.0.0.1:2380".into()],
        client_ur_ls: vec!["http://127.0.0.1:2379".into()],
        is_learner: false,
    };
    let unstarted = Member { id: 7, peer_ur_ls: vec!["http://10.0.0.2:2380".into()], ..Member::default() };
    let learner = Member { id: 9, is_learner: true, ..unstarted.clone() };
    let status = StatusResponse {
        header: header(9),
        version: "3.7.0".into(),
        db_size: 24576,
        leader: 13668033151171901709,
        raft_index: 24,
        raft_term: 2,
        raft_applied_index: 24,
        db_size_in_use: 16384,
        storage_version: "3.7.0".into(),
        db_size_quota: 2_147_483_648,
        ..StatusResponse::default()
    };
    let endpoint = "127.0.0.1:2379".to_string();
    let health = |took_us, error: Option<&str>| Health {
        endpoint: endpoint.clone(),
        took: Duration::from_micros(took_us),
        error: error.map(String::from),
    };
    let id = 4111120203077066786;
    let time_to_live = LeaseTimeToLiveResponse {
        header: header(3),
        id,
        ttl: 499,
        granted_ttl: 500,
        keys: vec!["lk".into(), "lk2".into()],
    };
    let expired = LeaseTimeToLiveResponse { header: header(3), id, ttl: -1, ..Default::default() };
    let hash = HashKvResponse { header: header(9), hash: 2990032579, compact_revision: -1, hash_revision: 9 };
    let alarm = AlarmMember { member_id: 13668033151171901709, alarm: 1 };
    vec![
        ("get", Answer::Get(range)),
        ("get nothing", Answer::Get(RangeResponse { header: header(3), ..Default::default() })),
        ("put", Answer::Put(put)),
        ("del", Answer::Delete(delete)),
        ("txn", Answer::Txn(TxnResponse { header: header(3), succeeded: true, responses })),
        ("watch", Answer::Watch(WatchResponse { header: header(6), events, ..Default::default() })),
        ("watch progress", Answer::Watch(WatchResponse { header: header(6), ..Default::default() })),
        ("grant", Answer::Grant(LeaseGrantResponse { header: header(3), id, ttl: 500, error: String::new() })),
        ("revoke", Answer::Revoke(id, LeaseRevokeResponse { header: header(3) })),
        ("timetolive", Answer::TimeToLive(time_to_live, true)),
        ("timetolive expired", Answer::TimeToLive(expired, false)),
        ("keep-alive", Answer::KeepAlive(LeaseKeepAliveResponse { header: header(3), id, ttl: 500 })),
        ("leases", Answer::Leases(LeaseLeasesResponse { header: header(3), leases: Vec::new() })),
        (
            "member add",
            Answer::MemberAdd(MemberAddResponse {
                header: header(0),
                member: Some(learner.clone()),
                members: vec![member.clone(), learner],
            }),
        ),
        (
            "member remove",
            Answer::MemberRemove(7, MemberRemoveResponse { header: header(0), members: vec![member.clone()] }),
        ),
        (
            "member update",
            Answer::MemberUpdate(7, MemberUpdateResponse { header: header(0), members: vec![unstarted.clone()] }),
        ),
        (
            "member promote",
            Answer::MemberPromote(7, MemberPromoteResponse { header: header(0), members: vec![unstarted.clone()] }),
        ),
        (
            "move-leader",
            Answer::MoveLeader { from: 13668033151171901709, to: 7, answer: MoveLeaderResponse::default() },
        ),
        ("downgrade", Answer::Downgrade("enable", DowngradeResponse { header: header(3), version: "3.7".into() })),
        ("members", Answer::Members(MemberListResponse { header: header(0), members: vec![member, unstarted] })),
        ("alarms", Answer::Alarms(AlarmResponse { header: header(3), alarms: vec![alarm] })),
        ("health", Answer::Health(vec![health(1_182, None), health(5_001_131, Some("context deadline exceeded"))])),
        ("status", Answer::Status(vec![(endpoint.clone(), status)])),
        ("hashkv", Answer::HashKv(vec![(endpoint.clone(), hash)])),
        (
            "snapshot status",
            Answer::Snapshot(SnapshotStatus {
                hash: 0xcf41_0ff9,
                revision: 9,
                total_keys: 3,
                total_bytes: 20_480,
                version: "3.7.0".to_owned(),
            }),
        ),
        (
            "hashkv of a file",
            Answer::SnapshotHash(SnapshotHash { hash: 2_990_032_579, hash_revision: 9, compact_revision: -1 }),
        ),
    ]
}

/// What is said of users and roles.
fn users() -> Vec<(&'static str, Answer)> {
    let permission = |kind: Type, key: &'static str, range_end: &'static str| Permission {
        perm_type: kind.into(),
        key: key.into(),
        range_end: range_end.into(),
    };
    let perm = vec![
        permission(Type::Read, "one", ""),
        permission(Type::Write, "a", "c"),
        permission(Type::Readwrite, "pre", "prf"),
        permission(Type::Read, "z", "\0"),
    ];
    let names = || vec!["a<b".to_owned(), "root".to_owned()];
    let role = AuthRoleGetResponse { header: header(3), perm };
    let nothing = AuthUserGetResponse { header: header(3), roles: Vec::new() };
    vec![
        ("user add", Answer::AuthChange("User u created".to_owned(), header(3))),
        ("user get", Answer::UserGet("u".to_owned(), AuthUserGetResponse { header: header(3), roles: names() })),
        ("user get without roles", Answer::UserGet("u".to_owned(), nothing)),
        ("user list", Answer::UserList(AuthUserListResponse { header: header(3), users: names() })),
        ("role get", Answer::RoleGet("r".to_owned(), role)),
        ("role list", Answer::RoleList(AuthRoleListResponse { header: header(3), roles: names() })),
        ("auth status", Answer::AuthStatus(AuthStatusResponse { header: header(3), enabled: true, auth_revision: 7 })),
    ]
}

/// A proxy with all that can be told of one, and one of which little is known.
fn ring() -> Vec<(&'static str, Answer)> {
    let copy = |key: &'static [u8], range_end: &'static [u8], lag| Copy {
        key: Bytes::from_static(key),
        range_end: Bytes::from_static(range_end),
        revision: 40,
        lag,
        age_ms: 1_640,
        bytes: 20_480,
        hits: 9,
        misses: 1,
    };
    let identity = Identity {
        name: "host <1>".into(),
        urls: vec!["http://10.0.0.1:23790".into(), "http://[::1]:23790".into()],
        version: "0.1.0".into(),
        tier: 2,
        upstream: "http://10.0.0.9:23790".into(),
        upstream_id: 7,
        standby_peer_url: "http://10.0.0.1:2380".into(),
    };
    let state = State {
        told_ms: 1_500,
        uptime_ms: 7_261_000,
        upstream_revision: 42,
        clients: 3,
        watches: 10_000,
        renewals: 77,
        hits: 18,
        misses: 6,
        fences: 5,
        bytes: 40_960,
        bytes_max: 536_870_912,
        copies: vec![
            copy(b"/config/", b"/config0", 2),
            copy(b"one", b"", 0),
            copy(b"\0", b"\0", 0),
            copy(b"b\xff", b"d", 0),
            copy(b"from", b"\0", 0),
        ],
        copies_left_out: 1,
        duty: Duty::Serves.into(),
    };
    let full = Proxy { id: 0x1234, identity: Some(identity), state: Some(state), is_lost: false };
    let lost = Proxy { id: 0x99, is_lost: true, ..Proxy::default() };
    let listed = |proxy, heard_ms| Listed { proxy: Some(proxy), heard_ms };
    let proxies = vec![listed(full, 250), listed(lost, 75_000)];
    vec![
        ("ring", Answer::Ring(RingList { proxies: proxies.clone(), by_copy: false })),
        ("ring --copies", Answer::Ring(RingList { proxies, by_copy: true })),
        ("ring wait", Answer::RingReached(RingReached { revision: 40, reached: 19, total: 20 })),
    ]
}

/// `UPDATE=1` rewrites the file; review reads the difference.
fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ctl/output/testdata").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, actual).expect("the golden file can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(actual, expected, "{name} differs; UPDATE=1 rewrites it");
}

fn all(format: Format, hex: bool) -> String {
    let printer = Printer { format, hex, values_only: false };
    let mut text = String::new();
    for (name, answer) in answers().into_iter().chain(users()) {
        let rendered = match printer.render(&answer) {
            Ok(bytes) if format == Format::Protobuf => {
                bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n"
            }
            Ok(bytes) => String::from_utf8(bytes).expect("these answers are text"),
            Err(failure) => format!("refused: {}\n", failure.text()),
        };
        let _ = write!(text, "# {name}\n{rendered}");
    }
    text
}

#[test]
fn every_format_prints_every_answer_as_etcdctl_does() {
    golden("simple", &all(Format::Simple, false));
    golden("simple_hex", &all(Format::Simple, true));
    golden("fields", &all(Format::Fields, false));
    golden("fields_hex", &all(Format::Fields, true));
    golden("json", &all(Format::Json, false));
    golden("json_hex", &all(Format::Json, true));
    golden("table", &all(Format::Table, false));
    golden("protobuf", &all(Format::Protobuf, false));
}

#[test]
fn proxies_are_rows_and_copies_are_rows_of_their_own() {
    let render = |at: usize, format| {
        let printer = Printer { format, hex: false, values_only: false };
        printer.render(&ring()[at].1).map(|bytes| String::from_utf8(bytes).expect("text"))
    };
    let full = "host <1>, http://10.0.0.1:23790 http://[::1]:23790, 2, http://10.0.0.9:23790, ok, 40, 2, 1.6s, 3, 10000, 77, 6, 41 kB, 75%, 2h1m, 200ms, 0.1.0, http://10.0.0.1:2380 serves";
    let lost = ", , 0, , lost, -, -, -, 0, 0, 0, 0, 0 B, -, 0s, 1m15s, , -";
    assert_eq!(render(0, Format::Simple).expect("rows"), format!("{full}\n{lost}\n"));
    let copies = render(1, Format::Simple).expect("rows");
    let keys = copies.lines().map(|line| line.split(", ").nth(3).unwrap_or_default()).collect::<Vec<_>>();
    assert_eq!(keys, ["/config/*", "one", "*", r#""b\xff"..d"#, "from.."]);
    assert_eq!(render(2, Format::Simple).expect("a line"), "revision 40 has reached 19 of 20 proxies\n");
    for at in 0..3 {
        let json = render(at, Format::Json).expect("json");
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
        assert!(render(at, Format::Protobuf).is_err());
    }
    assert!(render(0, Format::Table).expect("a table").contains("HIT RATE"));
    assert!(render(0, Format::Fields).expect("fields").contains("\"CopyRangeEnd\" : \"/config0\"\n"));
}

#[test]
fn json_is_json() {
    for line in all(Format::Json, true).lines().filter(|line| !line.starts_with('#')) {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}

#[test]
fn sizes_and_durations_are_written_as_go_writes_them() {
    let sizes = [(0, "0 B"), (9, "9 B"), (999, "999 B"), (1000, "1.0 kB"), (20480, "20 kB"), (2_147_483_648, "2.1 GB")];
    for (bytes, text) in sizes {
        assert_eq!(size(bytes), text);
    }
    let durations = [(875_372, "875.372µs"), (1_009_934, "1.009934ms"), (5_001_131_073, "5.001131073s")];
    for (nanos, text) in durations {
        assert_eq!(took(Duration::from_nanos(nanos)), text);
    }
    assert_eq!(took(Duration::from_secs(90)), "1m30s");
}
