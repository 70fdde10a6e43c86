//! Who may have what done: against a model that fits on a page, and each way around permissions that others have shipped.

use super::*;
use crate::auth::{Author, Kind, Permission, Request};
use proptest::prelude::*;

const NOT_ALLOWED: Result<Reply, Error> = Err(Error::PermissionDenied);

impl Bench {
    fn run_as(&mut self, author: &Author, command: Command) -> Result<Reply, Error> {
        let mut outcome = self.outcome_as(author, command);
        outcome.replies.pop().expect("one reply to one command").result
    }

    fn outcome_as(&mut self, author: &Author, command: Command) -> Outcome {
        self.entry(EntryKind::Normal, codec::encode(RequestId(7), author, &command))
    }

    fn auth(&mut self, request: Request) {
        let text = format!("{request:?}");
        self.run_as(&Author::Member, Command::Auth(request)).expect(&text);
    }

    /// Root, and alice with a role of her own, which may do that; enabled.
    fn with_alice(permissions: &[Permission]) -> (Bench, Author) {
        let mut bench = Bench::new();
        for name in ["root", "alice"] {
            bench.auth(Request::UserAdd { name: name.into(), hash: "hash".into(), no_password: None });
            bench.auth(Request::RoleAdd { name: name.into() });
            bench.auth(Request::UserGrantRole { user: name.into(), role: name.into() });
        }
        for permission in permissions {
            let permission = Some(permission.clone());
            bench.auth(Request::RoleGrantPermission { role: "alice".into(), permission });
        }
        bench.auth(Request::Enable);
        let revision = bench.machine.view().auth_revision();
        (bench, Author::user("alice", revision))
    }
}

fn may(kind: Kind, key: &'static str, range_end: &'static str) -> Permission {
    Permission { kind, key: key.into(), range_end: range_end.into() }
}

fn span(start: &'static str, end: &'static str) -> KeyRange {
    KeyRange::from_wire(start.into(), end.into())
}

fn get(range: KeyRange) -> Op {
    Op::Range(RangeQuery::new(range))
}

fn only(op: Op) -> Txn {
    Txn { success: vec![op], ..Txn::default() }
}

#[test]
fn ghsa_rfx7_8w68_q57q_a_nested_transaction_is_no_way_around_permissions() {
    let (mut bench, alice) = Bench::with_alice(&[may(Kind::ReadWrite, "a", "")]);
    bench.run_as(&Author::Member, Command::Put(put("secret", "1", 0))).expect("a member");
    let inner = [
        get(span("secret", "")),
        Op::Put(put("secret", "2", 0)),
        Op::DeleteRange(DeleteRange { range: span("secret", ""), prev_kv: false }),
    ];
    for op in inner {
        let nested = only(Op::Txn(only(Op::Txn(only(op.clone())))));
        assert_eq!(bench.run_as(&alice, Command::Txn(nested)), NOT_ALLOWED, "{op:?}");
        // Also in a branch that will not run, and behind a compare.
        let other = Txn { failure: vec![Op::Txn(only(op))], ..Txn::default() };
        assert_eq!(bench.run_as(&alice, Command::Txn(other)), NOT_ALLOWED);
    }
    let compare =
        Compare { range: span("secret", ""), target: CompareTarget::Value("1".into()), result: CompareResult::Equal };
    let asks = Txn { compares: vec![compare], ..Txn::default() };
    assert_eq!(bench.run_as(&alice, Command::Txn(asks.clone())), NOT_ALLOWED);
    assert_eq!(bench.run_as(&alice, Command::Txn(only(Op::Txn(asks)))), NOT_ALLOWED, "an answer tells the value");
    assert!(bench.run_as(&alice, Command::Txn(only(Op::Txn(only(get(span("a", ""))))))).is_ok());
    assert_eq!(bench.get("secret").expect("still there").value, "1");
}

#[test]
fn ghsa_x35m_3gp4_4fh5_prev_kv_and_leases_of_puts_in_transactions_are_looked_at() {
    let (mut bench, alice) = Bench::with_alice(&[may(Kind::Write, "a", "")]);
    for id in [1, 2] {
        bench.run_as(&Author::Member, Command::LeaseGrant { id: LeaseId(id), ttl_s: 60 }).expect("a member");
    }
    bench.run_as(&Author::Member, Command::Put(put("other", "1", 1))).expect("a member");
    let reads = Put { prev_kv: true, ..put("a", "1", 0) };
    let ties = put("a", "1", 1);
    for denied in [reads, ties] {
        assert_eq!(bench.run_as(&alice, Command::Put(denied.clone())), NOT_ALLOWED);
        assert_eq!(bench.run_as(&alice, Command::Txn(only(Op::Put(denied.clone())))), NOT_ALLOWED);
        assert_eq!(bench.run_as(&alice, Command::Txn(only(Op::Txn(only(Op::Put(denied)))))), NOT_ALLOWED);
    }
    let deletes = DeleteRange { range: span("a", ""), prev_kv: true };
    assert_eq!(bench.run_as(&alice, Command::DeleteRange(deletes.clone())), NOT_ALLOWED);
    assert_eq!(bench.run_as(&alice, Command::Txn(only(Op::DeleteRange(deletes)))), NOT_ALLOWED);
    assert!(bench.run_as(&alice, Command::Put(put("a", "1", 2))).is_ok(), "nothing hangs on that lease");
}

#[test]
fn a_lease_is_no_way_to_delete_what_one_may_not_write() {
    let (mut bench, alice) = Bench::with_alice(&[may(Kind::ReadWrite, "a", "b")]);
    for id in [1, 2] {
        bench.run_as(&alice, Command::LeaseGrant { id: LeaseId(id), ttl_s: 60 }).expect("whoever is somebody may");
    }
    bench.run_as(&alice, Command::Put(put("a1", "1", 1))).expect("her own");
    bench.run_as(&Author::Member, Command::Put(put("b", "1", 2))).expect("a member");
    assert_eq!(bench.run_as(&alice, Command::LeaseRevoke { id: LeaseId(2) }), NOT_ALLOWED);
    assert_eq!(bench.run_as(&alice, Command::LeaseRevoke { id: LeaseId(1) }), Ok(Reply::LeaseRevoke));
    assert_eq!(bench.run_as(&Author::Member, Command::LeaseRevoke { id: LeaseId(2) }), Ok(Reply::LeaseRevoke));
    assert!(bench.get("b").is_none(), "a lease that has run out asks nobody");
}

#[test]
fn leases_are_listed_for_those_who_may_read_all_that_hangs_on_them() {
    let (mut bench, alice) = Bench::with_alice(&[may(Kind::Read, "a", "")]);
    for (id, key) in [(1, "a"), (2, "b")] {
        bench.run_as(&Author::Member, Command::LeaseGrant { id: LeaseId(id), ttl_s: 60 }).expect("a member");
        bench.run_as(&Author::Member, Command::Put(put(key, "1", id))).expect("a member");
    }
    let view = bench.machine.view();
    assert_eq!(view.authorize_leases(&alice), Err(Error::PermissionDenied));
    assert_eq!(view.authorize_leases(&Author::Nobody), Err(Error::UserEmpty));
    bench.run_as(&Author::Member, Command::LeaseRevoke { id: LeaseId(2) }).expect("a member");
    assert_eq!(view.authorize_leases(&alice), Ok(()));
}

#[test]
fn ghsa_xg4h_6gfc_h4m8_one_key_is_no_permission_for_all_that_follow() {
    let (bench, alice) = Bench::with_alice(&[may(Kind::Read, "a", "")]);
    let view = bench.machine.view();
    assert_eq!(view.authorize_read(&alice, &span("a", "")), Ok(()));
    for range in [span("a", "\0"), span("a", "b"), span("\0", "\0")] {
        assert_eq!(view.authorize_read(&alice, &range), Err(Error::PermissionDenied), "{range:?}");
    }
}

#[test]
fn ghsa_q8m4_xhhv_38mg_what_touches_the_cluster_needs_root_and_the_rest_somebody() {
    let (mut bench, alice) = Bench::with_alice(&[may(Kind::ReadWrite, "\0", "\0")]);
    let alarm = |action| Command::Alarm { action, member: MemberId(1), kind: Some(AlarmKind::NoSpace) };
    let for_root = [
        Command::Compact { revision: Revision(1), physical: false },
        alarm(AlarmAction::Activate),
        alarm(AlarmAction::Deactivate),
        Command::Auth(Request::Disable),
        Command::Auth(Request::UserList),
        Command::Auth(Request::RoleList),
        Command::Auth(Request::UserGet { name: "root".into() }),
        Command::Auth(Request::RoleGet { name: "root".into() }),
        Command::Auth(Request::UserGrantRole { user: "alice".into(), role: "root".into() }),
        Command::Auth(Request::UserChangePassword { name: "root".into(), hash: "x".into() }),
    ];
    for command in for_root {
        assert_eq!(bench.run_as(&alice, command.clone()), NOT_ALLOWED, "{command:?}");
        assert_eq!(bench.run_as(&Author::Nobody, command), Err(Error::UserEmpty));
    }
    for command in [alarm(AlarmAction::Get), Command::LeaseGrant { id: LeaseId(1), ttl_s: 60 }] {
        assert_eq!(bench.run_as(&Author::Nobody, command.clone()), Err(Error::UserEmpty));
        assert!(bench.run_as(&alice, command).is_ok());
    }
    for author in [&alice, &Author::Nobody] {
        assert!(
            bench.run_as(author, Command::Auth(Request::Status)).is_ok(),
            "whether there is authentication is no secret"
        );
    }
    for own in [Request::UserGet { name: "alice".into() }, Request::RoleGet { name: "alice".into() }] {
        assert!(bench.run_as(&alice, Command::Auth(own)).is_ok());
    }
    let stranger = Author::user("nobody-knows", 9);
    assert_eq!(bench.run_as(&stranger, Command::Put(put("a", "1", 0))), NOT_ALLOWED);
    assert_eq!(bench.run_as(&stranger, Command::Auth(Request::UserList)), Err(Error::UserNotFound));
}

#[test]
fn etcd_22386_an_alarm_does_not_put_permissions_out_of_force() {
    let (mut bench, alice) = Bench::with_alice(&[may(Kind::ReadWrite, "a", "b")]);
    let activate =
        Command::Alarm { action: AlarmAction::Activate, member: MemberId(1), kind: Some(AlarmKind::NoSpace) };
    bench.run_as(&Author::Member, activate).expect("a member");
    let delete = DeleteRange { range: span("secret", ""), prev_kv: false };
    assert_eq!(bench.run_as(&alice, Command::DeleteRange(delete)), NOT_ALLOWED);
    assert_eq!(bench.run_as(&alice, Command::Auth(Request::Disable)), NOT_ALLOWED);
    assert_eq!(bench.run_as(&alice, Command::Put(put("secret", "1", 0))), NOT_ALLOWED);
    assert_eq!(bench.run_as(&alice, Command::Put(put("a", "1", 0))), Err(Error::NoSpace));
}

#[test]
fn a_permission_that_was_taken_away_earlier_in_the_log_is_gone() {
    let (mut bench, alice) = Bench::with_alice(&[may(Kind::ReadWrite, "a", "")]);
    let write = Command::Put(put("a", "1", 0));
    assert_eq!(bench.machine.view().authorize(&alice, &write), Ok(()), "as it is when the member takes it in");
    bench.auth(Request::UserRevokeRole { user: "alice".into(), role: "alice".into() });
    assert_eq!(bench.run_as(&alice, write.clone()), NOT_ALLOWED);
    assert!(bench.get("a").is_none());
    // And an unrelated change is no reason to refuse, though the revision is another one.
    bench.auth(Request::UserGrantRole { user: "alice".into(), role: "alice".into() });
    bench.auth(Request::RoleAdd { name: "unrelated".into() });
    assert!(bench.run_as(&alice, write.clone()).is_ok());
    bench.auth(Request::UserChangePassword { name: "alice".into(), hash: "new".into() });
    assert_eq!(bench.run_as(&alice, write), Err(Error::AuthOldRevision));
}

#[test]
fn a_token_is_issued_through_the_log_and_ends_with_auth() {
    let (mut bench, alice) = Bench::with_alice(&[]);
    let login = Command::Auth(Request::Authenticate { user: "alice".into(), prefix: "random".into() });
    let outcome = bench.outcome_as(&alice, login);
    let index = bench.machine.applied().0;
    let token = format!("random.{}", index.0);
    let revision = bench.machine.view().auth_revision();
    let issued = Effect::TokenIssued { token: token.clone(), user: "alice".into(), revision };
    assert_eq!(outcome.effects, [issued]);
    assert_eq!(outcome.replies[0].result, Ok(Reply::Auth(crate::auth::Reply::Token(token))));
    let stamp = bench.machine.view().auth_stamp();
    let outcome = bench.outcome_as(&Author::Member, Command::Auth(Request::Disable));
    assert_eq!(outcome.effects, [Effect::AuthDisabled, Effect::AuthChanged]);
    assert_ne!(bench.machine.view().auth_stamp(), stamp);
    assert!(!bench.machine.view().auth_enabled());
}

#[test]
fn neither_passwords_nor_hashes_are_shown_to_people() {
    let request = Request::UserAdd { name: "alice".into(), hash: "a hash".into(), no_password: None };
    let shown = format!("{:?}", Command::Auth(request));
    assert!(!shown.contains("a hash") && shown.contains("auth_user_add"), "{shown}");
}

/// Keys, and ends of ranges, that lie close together.
fn place() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["\0", "a", "a\0", "aa", "ab", "b", "b\0", "c"])
}

fn range() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop_oneof![
        3 => place().prop_map(|key| (key, "")),
        3 => (place(), place()).prop_filter("an end behind the start", |(key, end)| key < end),
        1 => place().prop_map(|key| (key, "\0")),
    ]
}

fn permission() -> impl Strategy<Value = Permission> {
    let kind = prop::sample::select(vec![Kind::Read, Kind::Write, Kind::ReadWrite]);
    (kind, range()).prop_map(|(kind, (key, end))| may(kind, key, end))
}

fn one_put() -> impl Strategy<Value = Put> {
    (place(), any::<bool>(), 0..2_i64).prop_map(|(key, prev_kv, lease)| Put { prev_kv, ..put(key, "v", lease) })
}

fn one_op() -> impl Strategy<Value = Op> {
    let leaf = prop_oneof![
        range().prop_map(|(key, end)| get(span(key, end))),
        one_put().prop_map(Op::Put),
        (range(), any::<bool>())
            .prop_map(|((key, end), prev_kv)| Op::DeleteRange(DeleteRange { range: span(key, end), prev_kv })),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let compare = range().prop_map(|(key, end)| Compare {
            range: span(key, end),
            target: CompareTarget::Version(0),
            result: CompareResult::Equal,
        });
        let ops = || prop::collection::vec(inner.clone(), 0..2);
        (prop::collection::vec(compare, 0..2), ops(), ops())
            .prop_map(|(compares, success, failure)| Op::Txn(Txn { compares, success, failure }))
    })
}

/// What a request touches: reads and writes.
#[derive(Default)]
struct Touched {
    reads: Vec<KeyRange>,
    writes: Vec<KeyRange>,
}

impl Touched {
    fn by(&mut self, op: &Op, leased: &[&'static str]) {
        match op {
            Op::Range(query) => self.reads.push(query.range.clone()),
            Op::Put(put) => {
                let key = KeyRange::One(put.key.clone());
                self.writes.push(key.clone());
                self.reads.extend(put.prev_kv.then_some(key));
                if put.lease == LeaseId(1) {
                    self.writes.extend(leased.iter().copied().map(|key| span(key, "")));
                }
            }
            Op::DeleteRange(delete) => {
                self.writes.push(delete.range.clone());
                self.reads.extend(delete.prev_kv.then(|| delete.range.clone()));
            }
            Op::Txn(txn) => {
                self.reads.extend(txn.compares.iter().map(|compare| compare.range.clone()));
                txn.success.iter().chain(&txn.failure).for_each(|op| self.by(op, leased));
            }
        }
    }
}

/// Whether each key that can be in `range` is in one of `permissions`: what is left out of some ranges begins where one of them ends, or
/// where the range begins, so it is enough to look at those.
fn covered(permissions: &[Permission], kind: Kind, range: &KeyRange) -> bool {
    let own: Vec<KeyRange> = permissions
        .iter()
        .filter(|own| own.kind == kind || own.kind == Kind::ReadWrite)
        .map(Permission::range)
        .collect();
    let ends = own.iter().filter_map(|own| match own {
        KeyRange::One(key) => Some(Bytes::from([key.as_ref(), b"\0"].concat())),
        KeyRange::Span { end, .. } => Some(end.clone()),
        KeyRange::From(_) => None,
    });
    // There is no empty key: what begins there begins at the lowest that there is.
    let start = if range.start().is_empty() { Bytes::from_static(b"\0") } else { range.start().clone() };
    let mut probes = ends.filter(|end| range.contains(end)).chain([start]);
    probes.all(|key| own.iter().any(|own| own.contains(&key)))
}

proptest! {
    #[test]
    fn a_request_is_let_through_if_each_key_that_it_may_touch_is_permitted(
        permissions in prop::collection::vec(permission(), 0..6),
        leased in prop::collection::vec(place(), 0..3),
        op in one_op(),
    ) {
        let (mut bench, alice) = Bench::with_alice(&permissions);
        // A permission for the same range replaces the kind of an earlier one.
        let mut left: Vec<Permission> = Vec::new();
        for permission in permissions {
            left.retain(|own| (&own.key, &own.range_end) != (&permission.key, &permission.range_end));
            left.push(permission);
        }
        bench.run_as(&Author::Member, Command::LeaseGrant { id: LeaseId(1), ttl_s: 60 }).expect("a member");
        for key in leased.iter().copied() {
            bench.run_as(&Author::Member, Command::Put(put(key, "v", 1))).expect("a member");
        }
        let command = match op.clone() {
            Op::Range(query) => Command::Range(query),
            Op::Put(put) => Command::Put(put),
            Op::DeleteRange(delete) => Command::DeleteRange(delete),
            Op::Txn(txn) => Command::Txn(txn),
        };
        let mut touched = Touched::default();
        touched.by(&op, &leased);
        let allowed = touched.reads.iter().all(|range| covered(&left, Kind::Read, range))
            && touched.writes.iter().all(|range| covered(&left, Kind::Write, range));
        let expected = if allowed { Ok(()) } else { Err(Error::PermissionDenied) };
        prop_assert_eq!(bench.machine.view().authorize(&alice, &command), expected);
        let is_denied = bench.run_as(&alice, command.clone()) == NOT_ALLOWED;
        prop_assert_eq!(is_denied, !allowed, "applied as it was admitted");
        prop_assert!(bench.machine.view().authorize(&Author::Nobody, &command) == Err(Error::UserEmpty));
        prop_assert!(bench.machine.view().authorize(&Author::Member, &command).is_ok());
    }

    #[test]
    fn etcd_14571_members_that_replay_or_restart_agree_on_users_and_roles(
        requests in prop::collection::vec(any_request(), 1..40),
        stop in 0..40_usize,
    ) {
        let mut bench = Bench::new();
        for (author, request) in requests {
            let author = if author { Author::Member } else { Author::user("root", 1) };
            // Refused or not: it is the same everywhere.
            let _ = bench.run_as(&author, Command::Auth(request));
        }
        let engine = Arc::new(Recording::default());
        let mut other = open(&engine);
        let (before, after) = bench.log.split_at(stop.min(bench.log.len()));
        other.apply(before.to_vec()).expect("memory");
        let mut other = open(&engine);
        other.apply(after.to_vec()).expect("memory");
        prop_assert_eq!(other.view().state_hash(), bench.machine.view().state_hash());
        let state = |machine: &Machine| machine.shared.state.read().auth.clone();
        prop_assert_eq!(state(&other), state(&bench.machine));
        prop_assert_eq!(other.view().auth_enabled(), bench.machine.view().auth_enabled());
    }
}

fn any_request() -> impl Strategy<Value = (bool, Request)> {
    let name = || prop::sample::select(vec!["root", "alice", "bob"]).prop_map(str::to_owned);
    let hash = || Just(Bytes::from_static(b"hash"));
    let request = prop_oneof![
        2 => Just(Request::Enable),
        1 => Just(Request::Disable),
        3 => (name(), hash(), any::<Option<bool>>())
            .prop_map(|(name, hash, no_password)| Request::UserAdd { name, hash, no_password }),
        1 => name().prop_map(|name| Request::UserDelete { name }),
        1 => (name(), hash()).prop_map(|(name, hash)| Request::UserChangePassword { name, hash }),
        3 => (name(), name()).prop_map(|(user, role)| Request::UserGrantRole { user, role }),
        1 => (name(), name()).prop_map(|(user, role)| Request::UserRevokeRole { user, role }),
        3 => name().prop_map(|name| Request::RoleAdd { name }),
        1 => name().prop_map(|name| Request::RoleDelete { name }),
        3 => (name(), permission())
            .prop_map(|(role, permission)| Request::RoleGrantPermission { role, permission: Some(permission) }),
        1 => (name(), permission()).prop_map(|(role, permission)| Request::RoleRevokePermission {
            role,
            key: permission.key,
            range_end: permission.range_end,
        }),
    ];
    (prop::bool::weighted(0.7), request)
}
