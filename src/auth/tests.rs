//! etcd's rules about users and roles, one by one.

use super::*;
use crate::{
    engine::{Batch, Engine, Memory, Table as Rows},
    types::{Error, Index, KeyRange},
};
use bytes::Bytes;

/// A table and the rows that it has written.
#[derive(Default)]
struct World {
    table: Table,
    engine: Memory,
}

impl World {
    fn ask(&mut self, request: Request) -> Result<Reply, Error> {
        self.ask_as(&Author::Member, request)
    }

    fn ask_as(&mut self, author: &Author, request: Request) -> Result<Reply, Error> {
        let mut batch = Batch::default();
        let reply = self.table.apply(author, request, Index(7), &mut batch);
        assert!(reply.is_ok() || batch.is_empty(), "what is refused writes nothing");
        self.engine.write(batch).expect("memory");
        assert_eq!(Table::load(&self.engine).expect("memory"), self.table, "the rows say the same");
        reply
    }

    fn done(&mut self, request: Request) {
        let text = format!("{request:?}");
        assert_eq!(self.ask(request), Ok(Reply::Done), "{text}");
    }

    fn refused(&mut self, request: Request, error: Error) {
        let (text, before) = (format!("{request:?}"), self.table.clone());
        assert_eq!(self.ask(request), Err(error), "{text}");
        assert_eq!(self.table, before);
    }

    /// With root, and enabled.
    fn enabled() -> World {
        let mut world = World::default();
        world.done(user("root"));
        world.done(role("root"));
        world.done(grant("root", "root"));
        world.done(Request::Enable);
        world
    }
}

fn user(name: &str) -> Request {
    Request::UserAdd { name: name.into(), hash: "hash".into(), no_password: Some(false) }
}

fn role(name: &str) -> Request {
    Request::RoleAdd { name: name.into() }
}

fn grant(user: &str, role: &str) -> Request {
    Request::UserGrantRole { user: user.into(), role: role.into() }
}

fn permit(role: &str, kind: Kind, key: &'static str, range_end: &'static str) -> Request {
    let permission = Permission { kind, key: key.into(), range_end: range_end.into() };
    Request::RoleGrantPermission { role: role.into(), permission: Some(permission) }
}

fn name(name: &str) -> String {
    name.to_owned()
}

#[test]
fn root_must_be_there_before_anything_is_enforced() {
    let mut world = World::default();
    world.refused(Request::Enable, Error::RootUserNotExist);
    world.done(user("root"));
    world.refused(Request::Enable, Error::RootRoleNotExist);
    world.done(grant("root", "root"));
    world.done(Request::Enable);
    let before = world.table.revision();
    world.done(Request::Enable);
    assert_eq!(world.table.revision(), before, "enabling counts as no change, as in etcd");
    world.done(Request::Disable);
    world.done(Request::Disable);
    assert_eq!(world.table.revision(), before + 1);
}

#[test]
fn what_enabled_auth_stands_on_cannot_be_taken_away() {
    let mut world = World::enabled();
    world.refused(Request::UserDelete { name: name("root") }, Error::InvalidAuthMgmt);
    world.refused(Request::RoleDelete { name: name("root") }, Error::InvalidAuthMgmt);
    world.refused(Request::UserRevokeRole { user: name("root"), role: name("root") }, Error::InvalidAuthMgmt);
    world.done(Request::Disable);
    world.done(Request::RoleDelete { name: name("root") });
    world.done(Request::UserDelete { name: name("root") });
}

#[test]
fn each_refusal_is_etcds() {
    let mut world = World::default();
    world.refused(user(""), Error::UserEmpty);
    world.refused(role(""), Error::RoleEmpty);
    world.done(user("u"));
    world.done(role("r"));
    world.refused(user("u"), Error::UserAlreadyExist);
    world.refused(role("r"), Error::RoleAlreadyExist);
    world.refused(Request::UserGet { name: name("x") }, Error::UserNotFound);
    world.refused(Request::UserDelete { name: name("x") }, Error::UserNotFound);
    world.refused(Request::UserChangePassword { name: name("x"), hash: Bytes::new() }, Error::UserNotFound);
    world.refused(grant("x", "r"), Error::UserNotFound);
    world.refused(grant("u", "x"), Error::RoleNotFound);
    world.refused(Request::UserRevokeRole { user: name("u"), role: name("r") }, Error::RoleNotGranted);
    world.refused(Request::RoleGet { name: name("x") }, Error::RoleNotFound);
    world.refused(Request::RoleDelete { name: name("x") }, Error::RoleNotFound);
    world.refused(permit("x", Kind::Read, "a", ""), Error::RoleNotFound);
    world.refused(permit("r", Kind::Read, "b", "a"), Error::InvalidAuthMgmt);
    world.refused(Request::RoleGrantPermission { role: name("r"), permission: None }, Error::PermissionNotGiven);
    let revoke = Request::RoleRevokePermission { role: name("r"), key: "a".into(), range_end: Bytes::new() };
    world.refused(revoke, Error::PermissionNotGranted);
    world.refused(Request::Authenticate { user: name("u"), prefix: name("p") }, Error::AuthNotEnabled);
    // To grant twice is no error, and no change.
    world.done(grant("u", "r"));
    let before = world.table.revision();
    world.done(grant("u", "r"));
    assert_eq!(world.table.revision(), before);
}

#[test]
fn a_role_shows_its_permissions_in_the_order_of_keys_and_takes_a_new_kind() {
    let mut world = World::default();
    world.done(role("r"));
    world.done(permit("r", Kind::Read, "b", ""));
    world.done(permit("r", Kind::Read, "a", "c"));
    world.done(permit("r", Kind::ReadWrite, "b", ""));
    let Ok(Reply::Permissions(permissions)) = world.ask(Request::RoleGet { name: name("r") }) else { panic!() };
    let shown: Vec<_> = permissions.iter().map(|one| (one.key.as_ref(), one.kind)).collect();
    assert_eq!(shown, [(&b"a"[..], Kind::Read), (b"b", Kind::ReadWrite)]);
}

#[test]
fn a_deleted_role_is_taken_from_all_who_have_it() {
    let mut world = World::enabled();
    world.done(user("u"));
    world.done(role("r"));
    world.done(permit("r", Kind::Read, "a", ""));
    world.done(grant("u", "r"));
    let key = KeyRange::One("a".into());
    let author = Author::user("u", world.table.revision());
    assert_eq!(world.table.permits(&author).unwrap().read(&key), Ok(()));
    world.done(Request::RoleDelete { name: name("r") });
    assert_eq!(world.table.permits(&author).unwrap().read(&key), Err(Error::PermissionDenied));
    assert_eq!(world.ask(Request::UserGet { name: name("u") }), Ok(Reply::Names(vec![])));
    // One of the same name is another one.
    world.done(role("r"));
    world.done(permit("r", Kind::Read, "a", ""));
    assert_eq!(world.table.permits(&author).unwrap().read(&key), Err(Error::PermissionDenied));
}

#[test]
fn etcd_11954_a_change_that_has_nothing_to_do_with_a_user_ends_no_token() {
    let mut world = World::enabled();
    world.done(user("u"));
    let proven = Author::user("u", world.table.revision());
    world.done(user("other"));
    world.done(role("r"));
    world.done(grant("u", "r"));
    assert!(world.table.permits(&proven).is_ok());
    world.done(Request::UserChangePassword { name: name("u"), hash: "new".into() });
    assert_eq!(world.table.permits(&proven).err(), Some(Error::AuthOldRevision));
    let proven = Author::user("u", world.table.revision());
    world.done(Request::UserDelete { name: name("u") });
    assert_eq!(world.table.permits(&proven).unwrap().admin(), Err(Error::UserNotFound));
    // Whoever takes the name of a user that is gone is not that user.
    world.done(user("u"));
    assert_eq!(world.table.permits(&proven).err(), Some(Error::AuthOldRevision));
}

#[test]
fn a_login_counts_for_the_password_that_was_compared() {
    let mut world = World::enabled();
    world.done(user("u"));
    let login = Request::Authenticate { user: name("u"), prefix: name("prefix") };
    let proven = Author::user("u", world.table.revision());
    assert_eq!(world.ask_as(&proven, login.clone()), Ok(Reply::Token(name("prefix.7"))));
    assert_eq!(world.ask_as(&Author::Nobody, login.clone()), Err(Error::AuthOldRevision));
    assert_eq!(world.ask_as(&Author::user("root", 9), login.clone()), Err(Error::AuthOldRevision));
    world.done(Request::UserChangePassword { name: name("u"), hash: "new".into() });
    assert_eq!(world.ask_as(&proven, login), Err(Error::AuthOldRevision));
    world.done(Request::UserAdd { name: name("cert"), hash: Bytes::new(), no_password: Some(true) });
    let login = Request::Authenticate { user: name("cert"), prefix: name("p") };
    let cert = Author::user("cert", world.table.revision());
    assert_eq!(world.ask_as(&cert, login), Err(Error::AuthFailed), "there is no password to compare with");
    assert_eq!((world.table.password("cert"), world.table.password("u")), (None, Some("new".into())));
}

#[test]
fn while_it_is_off_everybody_may_do_everything() {
    let world = World::default();
    let permits = world.table.permits(&Author::Nobody).unwrap();
    assert!(permits.admin().is_ok() && permits.write(&KeyRange::From(Bytes::new())).is_ok());
    let world = World::enabled();
    assert_eq!(world.table.permits(&Author::Nobody).err(), Some(Error::UserEmpty));
    assert!(world.table.permits(&Author::Member).unwrap().admin().is_ok());
}

#[test]
fn rows_of_etcd_are_read() {
    let engine = Memory::default();
    let mut batch = Batch::default();
    // As etcd 3.6 keeps them; the second user is of a version that had no options.
    for (key, row) in [
        (&b"aauthEnabled"[..], &b"\x01"[..]),
        (b"aauthRevision", b"\0\0\0\0\0\0\0\x08"),
        (b"rreaders", b"\x0a\x07readers\x12\x06\x12\x01a\x1a\x01b"),
        (b"uroot", b"\x0a\x04root\x12\x04hash\x1a\x04root\x22\x00"),
        (b"uold", b"\x0a\x03old\x1a\x07readers"),
    ] {
        batch.put(Rows::Auth, Bytes::from_static(key), Bytes::from_static(row));
    }
    engine.write(batch).expect("memory");
    let table = Table::load(&engine).expect("etcd's rows");
    assert_eq!((table.is_enabled(), table.revision()), (true, 8));
    let old = Author::user("old", 1);
    let range = KeyRange::Span { start: "a".into(), end: "b".into() };
    assert!(table.permits(&old).unwrap().read(&range).is_ok() && table.permits(&old).unwrap().write(&range).is_err());
    assert!(table.permits(&Author::user("root", 1)).unwrap().admin().is_ok());
    let mut batch = Batch::default();
    batch.put(Rows::Auth, "uroot", "no message");
    engine.write(batch).expect("memory");
    assert!(Table::load(&engine).is_err());
}

#[test]
fn an_author_is_read_as_it_was_written() {
    for author in [Author::Nobody, Author::Member, Author::user("u", 1), Author::user("root", 7)] {
        let (name, revision) = author.to_header();
        assert_eq!(Author::from_header(name, revision), author);
    }
}
