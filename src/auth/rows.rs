//! Rows of [`Table::Auth`](crate::engine::Table::Auth): etcd's own, each under its key with a letter before it that names the bucket.
//!
//! `a` settings (`authEnabled`: one byte, `authRevision`: 8 bytes, big endian), `r` roles and `u` users (`authpb.Role`, `authpb.User`).
//! `s` is henge's own: since which revision a user's record holds, 8 bytes, big endian.

use super::{Kind, Permission};
use bytes::Bytes;
use prost::Message;

pub(super) const AUTH_ENABLED: &[u8] = b"aauthEnabled";
/// The row that counts changes.
pub const AUTH_REVISION: &[u8] = b"aauthRevision";
pub(super) const USER: u8 = b'u';
pub(super) const ROLE: u8 = b'r';
pub(super) const SINCE: u8 = b's';

/// `authpb.User`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct UserRow {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) password: Bytes,
    #[prost(string, repeated, tag = "3")]
    pub(super) roles: Vec<String>,
    /// Not there in users of etcd before 3.4.
    #[prost(message, optional, tag = "4")]
    pub(super) options: Option<UserOptions>,
}

/// `authpb.UserAddOptions`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct UserOptions {
    #[prost(bool, tag = "1")]
    pub(super) no_password: bool,
}

/// `authpb.Role`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RoleRow {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(message, repeated, tag = "2")]
    permissions: Vec<PermissionRow>,
}

/// `authpb.Permission`.
#[derive(Clone, PartialEq, Message)]
struct PermissionRow {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    range_end: Bytes,
}

/// The key of a row.
pub(super) fn key(bucket: u8, name: &str) -> Bytes {
    [&[bucket], name.as_bytes()].concat().into()
}

/// Says that what proves user `name` holds since `revision`: whoever proved it before has to do so again.
pub fn since_row(name: &[u8], revision: u64) -> (Bytes, Bytes) {
    ([&[SINCE], name].concat().into(), Bytes::copy_from_slice(&revision.to_be_bytes()))
}

pub(super) fn role_row(name: &str, permissions: &[Permission]) -> Bytes {
    let one = |permission: &Permission| PermissionRow {
        kind: permission.kind as i32,
        key: permission.key.clone(),
        range_end: permission.range_end.clone(),
    };
    let permissions = permissions.iter().map(one).collect();
    RoleRow { name: Bytes::copy_from_slice(name.as_bytes()), permissions }.encode_to_vec().into()
}

/// `None` if the row is no role.
pub(super) fn parse_role(row: Bytes) -> Option<Vec<Permission>> {
    let one = |row: PermissionRow| {
        Some(Permission { kind: Kind::from_number(row.kind)?, key: row.key, range_end: row.range_end })
    };
    RoleRow::decode(row).ok()?.permissions.into_iter().map(one).collect()
}

pub(super) fn parse_number(row: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(row.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_bytes_that_etcd_has_written() {
        // Of etcd 3.6: `user add u --no-password`, with role r; `role grant-permission r readwrite a b`.
        let user = UserRow {
            name: "u".into(),
            password: Bytes::new(),
            roles: vec!["r".into()],
            options: Some(UserOptions { no_password: true }),
        };
        assert_eq!(user.encode_to_vec(), b"\x0a\x01u\x1a\x01r\x22\x02\x08\x01");
        let permission = Permission { kind: Kind::ReadWrite, key: "a".into(), range_end: "b".into() };
        let row = role_row("r", std::slice::from_ref(&permission));
        assert_eq!(row.as_ref(), b"\x0a\x01r\x12\x08\x08\x02\x12\x01a\x1a\x01b");
        assert_eq!(parse_role(row), Some(vec![permission]));
    }
}
