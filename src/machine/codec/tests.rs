//! Golden bytes, written out by hand from the field numbers, and properties.

use super::*;
use crate::{
    membership::{Change, Changes, Member},
    types::EntryKind,
};
use proptest::prelude::*;

/// Bytes from hex digits, blanks and quoted text: `hex("22 0a 'foo'")`.
fn hex(text: &str) -> Bytes {
    let parts = text.split('\'').enumerate().flat_map(|(n, part)| match n % 2 {
        1 => part.as_bytes().to_vec(),
        _ => part.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect(),
    });
    parts.collect()
}

fn golden(id: u64, command: &Command, bytes: &str) {
    let bytes = hex(bytes);
    assert_eq!(encode(RequestId(id), &Author::Nobody, command), bytes, "{command:?}");
    assert_eq!(decode(bytes), Ok((RequestId(id), Author::Nobody, command.clone())));
}

fn put(key: &'static str, value: &'static str) -> Put {
    Put { key: key.into(), value: value.into(), ..Put::default() }
}

// a2 06 is the tag of field 100, the header; 08 is the tag of its field 1, the id.

#[test]
fn golden_put() {
    golden(5, &Command::Put(put("foo", "bar")), "22 0a 0a 03 'foo' 12 03 'bar' a2 06 02 08 05");
    let all = Put { lease: LeaseId(300), prev_kv: true, ignore_value: true, ignore_lease: true, ..put("k", "") };
    golden(1, &Command::Put(all), "22 0c 0a 01 'k' 18 ac 02 20 01 28 01 30 01 a2 06 02 08 01");
}

#[test]
fn golden_delete_range() {
    let command = |range| Command::DeleteRange(DeleteRange { range, prev_kv: true });
    golden(1, &command(KeyRange::One("a".into())), "2a 05 0a 01 'a' 18 01 a2 06 02 08 01");
    let span = KeyRange::Span { start: "a".into(), end: "b".into() };
    golden(1, &command(span), "2a 08 0a 01 'a' 12 01 'b' 18 01 a2 06 02 08 01");
    golden(1, &command(KeyRange::From("a".into())), "2a 08 0a 01 'a' 12 01 00 18 01 a2 06 02 08 01");
    golden(1, &command(KeyRange::From(Bytes::new())), "2a 08 0a 01 00 12 01 00 18 01 a2 06 02 08 01");
}

#[test]
fn golden_txn() {
    let txn = Txn {
        compares: vec![Compare {
            range: KeyRange::One("a".into()),
            target: CompareTarget::Mod(7),
            result: CompareResult::Greater,
        }],
        success: vec![Op::Put(put("a", "1"))],
        failure: vec![Op::Range(RangeQuery::new(KeyRange::One("a".into())))],
    };
    // Compare 08 result, 10 target, 1a key, 30 mod_revision; RequestOp 0a range, 12 put.
    let bytes = "32 1c 0a 09 08 01 10 02 1a 01 'a' 30 07 12 08 12 06 0a 01 'a' 12 01 '1' 1a 05 0a 03 0a 01 'a' \
                 a2 06 02 08 01";
    golden(1, &Command::Txn(txn), bytes);
}

#[test]
fn golden_leases_compaction_and_alarms() {
    golden(1, &Command::LeaseGrant { id: LeaseId(9), ttl_s: 60 }, "42 04 08 3c 10 09 a2 06 02 08 01");
    golden(1, &Command::LeaseRevoke { id: LeaseId(9) }, "4a 02 08 09 a2 06 02 08 01");
    golden(1, &Command::LeaseCheckpoint(vec![(LeaseId(9), 5)]), "5a 06 0a 04 08 09 10 05 a2 06 02 08 01");
    golden(1, &Command::Compact { revision: Revision(8), physical: true }, "3a 04 08 08 10 01 a2 06 02 08 01");
    let alarm = |action, kind| Command::Alarm { action, member: MemberId(3), kind };
    golden(1, &alarm(AlarmAction::Activate, Some(AlarmKind::NoSpace)), "52 06 08 01 10 03 18 01 a2 06 02 08 01");
    golden(1, &alarm(AlarmAction::Get, None), "52 02 10 03 a2 06 02 08 01");
}

#[test]
fn golden_what_members_tell_of_themselves() {
    // Fields 1300 and 1301: tags a2 51 and aa 51.
    let version = Command::ClusterVersionSet { version: "3.7.0".into() };
    golden(1, &version, "a2 06 02 08 01 a2 51 07 0a 05 '3.7.0'");
    let attributes =
        Command::MemberAttributes { member: MemberId(2), name: "m1".into(), client_urls: vec!["http://c".into()] };
    golden(1, &attributes, "a2 06 02 08 01 aa 51 12 08 02 12 0e 0a 02 'm1' 12 08 'http://c'");
    let downgrade = Command::DowngradeInfo { enabled: true, version: "3.6.0".into() };
    golden(1, &downgrade, "a2 06 02 08 01 b2 51 09 08 01 12 05 '3.6.0'");
}

#[test]
fn an_older_log_has_the_id_beside_the_command() {
    let (id, _, command) = decode(hex("08 2a 22 0a 0a 03 'foo' 12 03 'bar'")).expect("a put");
    assert_eq!((id, command), (RequestId(42), Command::Put(put("foo", "bar"))));
    // With a user's name and the auth revision in the header.
    let (id, author, _) = decode(hex("4a 02 08 09 a2 06 0a 08 07 12 04 'root' 18 03")).expect("a revocation");
    assert_eq!((id, author), (RequestId(7), Author::user("root", 3)));
}

#[test]
fn golden_users_and_roles() {
    use crate::auth::{Kind, Permission, Request};
    let auth = Command::Auth;
    // Field 1000, auth_enable: tag c2 3e; and so on from there.
    golden(1, &auth(Request::Enable), "a2 06 02 08 01 c2 3e 00");
    let login = Request::Authenticate { user: "u".into(), prefix: "p".into() };
    golden(1, &auth(login), "a2 06 02 08 01 a2 3f 06 0a 01 'u' 1a 01 'p'");
    let add = Request::UserAdd { name: "u".into(), hash: "h".into(), no_password: Some(true) };
    golden(1, &auth(add), "a2 06 02 08 01 e2 44 0d 0a 01 'u' 1a 02 08 01 22 04 'aA=='");
    let permission = Some(Permission { kind: Kind::ReadWrite, key: "a".into(), range_end: "b".into() });
    let grant = Request::RoleGrantPermission { role: "r".into(), permission };
    golden(1, &auth(grant), "a2 06 02 08 01 9a 4b 0d 0a 01 'r' 12 08 08 02 12 01 'a' 1a 01 'b'");
    // A password that is not hashed would be another hash on every member.
    let plain = decode(hex("e2 44 06 0a 01 'u' 12 01 'p'")).expect_err("of a version before 3.5");
    assert!(plain.contains("auth_user_add") && plain.contains("not hashed"), "{plain}");
}

#[test]
fn what_is_not_known_is_named_and_never_panics() {
    // Field 9900, downgrade_version_test: tag e2 ea 04.
    let error = decode(hex("a2 06 02 08 01 e2 ea 04 00")).expect_err("not supported");
    assert_eq!(error, "the log entry's command downgrade_version_test is not supported by this version");
    assert!(decode(hex("a2 06 02 08 01")).expect_err("no command").contains("no command"));
    assert!(decode(hex("22 ff")).expect_err("cut").contains("malformed"));
    // A sort order, a target and an empty operation of a future version.
    assert!(decode(hex("1a 05 0a 01 'a' 28 09")).expect_err("unknown").contains("sort order 9"));
    assert!(decode(hex("32 04 0a 02 10 09")).expect_err("unknown").contains("target 9"));
    assert!(decode(hex("32 02 12 00")).expect_err("unknown").contains("operation"));
}

#[test]
fn golden_conf_change_as_etcd_bootstraps() {
    let json = r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#;
    let member = Member {
        id: MemberId(0x8e9e05c52164694d),
        name: "default".into(),
        peer_urls: vec!["http://localhost:2380".into()],
        ..Member::default()
    };
    // 18 node_id, 22 context; kind 0 and id 0 are left out.
    let bytes = hex(&format!("18 cd d2 91 8b d2 b8 81 cf 8e 01 22 {:02x} '{json}'", json.len()));
    let change = Change::Add(member);
    assert_eq!(encode_conf_change(RequestId(0), &change), (EntryKind::ConfChange, bytes.clone()));
    assert_eq!(decode_conf_change(EntryKind::ConfChange, bytes), (RequestId(0), Ok(Changes::One(change))));
}

#[test]
fn conf_changes_are_read_as_they_were_written() {
    let learner = Member { id: MemberId(4), is_learner: true, peer_urls: vec!["a".into()], ..Member::default() };
    let changes = [
        Change::Add(learner),
        Change::Promote(MemberId(4)),
        Change::Remove(MemberId(5)),
        Change::UpdatePeers(MemberId(4), vec!["b".into(), "c".into()]),
    ];
    for change in changes {
        let (kind, bytes) = encode_conf_change(RequestId(9), &change);
        assert_eq!(decode_conf_change(kind, bytes), (RequestId(9), Ok(Changes::One(change))));
    }
}

#[test]
fn conf_changes_of_go_with_null_lists_and_v2_with_one_step_are_read() {
    let json = r#"{"id":4,"peerURLs":null,"isPromote":true}"#;
    let bytes = hex(&format!("18 04 22 {:02x} '{json}'", json.len()));
    let (_, change) = decode_conf_change(EntryKind::ConfChange, bytes);
    assert_eq!(change, Ok(Changes::One(Change::Promote(MemberId(4)))));
    let (_, change) = decode_conf_change(EntryKind::ConfChangeV2, hex("12 04 08 01 10 04"));
    assert_eq!(change, Ok(Changes::One(Change::Remove(MemberId(4)))));
    assert_eq!(decode_conf_change(EntryKind::ConfChangeV2, Bytes::new()).1, Ok(Changes::Leave));
    let (_, two) = decode_conf_change(EntryKind::ConfChangeV2, hex("12 04 08 01 10 04 12 04 08 01 10 05"));
    assert!(two.expect_err("nobody is described").contains("can't be read"));
    let (_, other) = decode_conf_change(EntryKind::ConfChange, hex("18 05 22 08 '{\"id\":4}'"));
    assert!(other.expect_err("another member").contains("describes"));
    let (_, nobody) = decode_conf_change(EntryKind::ConfChange, hex("18 05"));
    assert!(nobody.expect_err("no member").contains("does not describe"));
}

#[test]
fn several_changes_at_once_are_a_conf_change_v2_with_the_members_in_its_context() {
    let learner = Member { id: MemberId(4), is_learner: true, peer_urls: vec!["a".into()], ..Member::default() };
    let changes = vec![Change::Add(learner), Change::Remove(MemberId(5)), Change::Promote(MemberId(6))];
    let json = concat!(
        r#"{"requestID":9,"members":[{"id":4,"peerURLs":["a"],"isLearner":true},null,"#,
        r#"{"id":6,"peerURLs":null,"isPromote":true}]}"#
    );
    // 08 transition (implicit), 12 changes (1 type, 2 node_id), 1a context.
    let bytes = hex(&format!("08 01 12 04 08 03 10 04 12 04 08 01 10 05 12 02 10 06 1a {:02x} '{json}'", json.len()));
    let joint = Changes::Joint { changes, auto_leave: true };
    assert_eq!(encode_conf_changes(RequestId(9), &joint), (EntryKind::ConfChangeV2, bytes.clone()));
    assert_eq!(decode_conf_change(EntryKind::ConfChangeV2, bytes), (RequestId(9), Ok(joint)));

    let explicit = |changes| Changes::Joint { changes, auto_leave: false };
    for changes in [explicit(vec![]), explicit(vec![Change::Remove(MemberId(1))]), Changes::Leave] {
        let (kind, bytes) = encode_conf_changes(RequestId(8), &changes);
        assert_eq!(decode_conf_change(kind, bytes), (RequestId(8), Ok(changes)));
    }
    let one = Change::Promote(MemberId(4));
    let as_one = encode_conf_changes(RequestId(7), &Changes::One(one.clone()));
    assert_eq!(as_one, encode_conf_change(RequestId(7), &one), "etcd reads no other form");
    let odd = hex("08 01 12 04 08 01 10 05 1a 1c '{\"requestID\":9,\"members\":[]}'");
    assert!(decode_conf_change(EntryKind::ConfChangeV2, odd).1.expect_err("of nobody").contains("describes 0"));
}

/// A transaction some levels deep, with something of everything.
fn txns() -> impl Strategy<Value = Txn> {
    let key = || "[a-c]{1,2}".prop_map(Bytes::from);
    let range = move || {
        prop_oneof![
            key().prop_map(KeyRange::One),
            (key(), key()).prop_map(|(start, end)| KeyRange::Span { start, end }),
            key().prop_map(KeyRange::From),
        ]
    };
    let compare = (range(), any::<i64>(), 0..5usize).prop_map(|(range, n, target)| {
        let targets = [
            CompareTarget::Version(n),
            CompareTarget::Create(n),
            CompareTarget::Mod(n),
            CompareTarget::Value(n.to_string().into()),
            CompareTarget::Lease(n),
        ];
        Compare { range, target: targets[target].clone(), result: CompareResult::NotEqual }
    });
    let put = (key(), any::<i64>(), any::<bool>())
        .prop_map(|(key, lease, prev_kv)| Op::Put(Put { key, lease: LeaseId(lease), prev_kv, ..Put::default() }));
    let query = (range(), any::<i64>(), any::<bool>()).prop_map(|(range, n, keys_only)| {
        let (order, target) = (SortOrder::Descend, SortTarget::Value);
        Op::Range(RangeQuery { limit: n, min_mod: n, order, target, keys_only, ..RangeQuery::new(range) })
    });
    let delete = range().prop_map(|range| Op::DeleteRange(DeleteRange { range, prev_kv: false }));
    let leaf = prop_oneof![put, query, delete];
    let level =
        move |op: BoxedStrategy<Op>| {
            let ops = prop::collection::vec(op, 0..3);
            (prop::collection::vec(compare.clone(), 0..3), ops.clone(), ops)
                .prop_map(|(compares, success, failure)| Txn { compares, success, failure })
        };
    let inner = level.clone();
    level(leaf.prop_recursive(3, 20, 3, move |op| inner(op).prop_map(Op::Txn)).boxed())
}

proptest! {
    #[test]
    fn any_txn_is_read_as_it_was_written(txn in txns(), id in 1u64..) {
        let command = Command::Txn(txn);
        let author = Author::user("u", id.max(1));
        prop_assert_eq!(decode(encode(RequestId(id), &author, &command)), Ok((RequestId(id), author, command)));
    }

    #[test]
    fn no_bytes_at_all_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let bytes = Bytes::from(bytes);
        let _ = decode(bytes.clone());
        let _ = decode_conf_change(EntryKind::ConfChange, bytes.clone());
        let _ = decode_conf_change(EntryKind::ConfChangeV2, bytes);
    }
}
