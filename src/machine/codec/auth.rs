//! Commands about users and roles on the wire.

use crate::{
    auth::{Kind, Permission, Request},
    pb::{authpb, etcdserverpb as wire},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;

/// Puts `request` into its field.
pub(super) fn to_wire(request: &Request, into: &mut wire::InternalRaftRequest) {
    match request {
        Request::Enable => into.auth_enable = Some(wire::AuthEnableRequest {}),
        Request::Disable => into.auth_disable = Some(wire::AuthDisableRequest {}),
        Request::Status => into.auth_status = Some(wire::AuthStatusRequest {}),
        Request::Authenticate { user, prefix } => {
            into.authenticate = Some(wire::InternalAuthenticateRequest {
                name: user.clone(),
                password: String::new(),
                simple_token: prefix.clone(),
            });
        }
        Request::UserAdd { name, hash, no_password } => {
            into.auth_user_add = Some(wire::AuthUserAddRequest {
                name: name.clone(),
                password: String::new(),
                options: no_password.map(|no_password| authpb::UserAddOptions { no_password }),
                hashed_password: BASE64_STANDARD.encode(hash),
            });
        }
        Request::UserDelete { name } => {
            into.auth_user_delete = Some(wire::AuthUserDeleteRequest { name: name.clone() });
        }
        Request::UserGet { name } => into.auth_user_get = Some(wire::AuthUserGetRequest { name: name.clone() }),
        Request::UserList => into.auth_user_list = Some(wire::AuthUserListRequest {}),
        Request::UserChangePassword { name, hash } => {
            into.auth_user_change_password = Some(wire::AuthUserChangePasswordRequest {
                name: name.clone(),
                password: String::new(),
                hashed_password: BASE64_STANDARD.encode(hash),
            });
        }
        Request::UserGrantRole { user, role } => {
            into.auth_user_grant_role = Some(wire::AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() });
        }
        Request::UserRevokeRole { user, role } => {
            into.auth_user_revoke_role =
                Some(wire::AuthUserRevokeRoleRequest { name: user.clone(), role: role.clone() });
        }
        Request::RoleAdd { name } => into.auth_role_add = Some(wire::AuthRoleAddRequest { name: name.clone() }),
        Request::RoleDelete { name } => {
            into.auth_role_delete = Some(wire::AuthRoleDeleteRequest { role: name.clone() });
        }
        Request::RoleGet { name } => into.auth_role_get = Some(wire::AuthRoleGetRequest { role: name.clone() }),
        Request::RoleList => into.auth_role_list = Some(wire::AuthRoleListRequest {}),
        Request::RoleGrantPermission { role, permission } => {
            let one = |permission: &Permission| authpb::Permission {
                perm_type: permission.kind as i32,
                key: permission.key.clone(),
                range_end: permission.range_end.clone(),
            };
            into.auth_role_grant_permission =
                Some(wire::AuthRoleGrantPermissionRequest { name: role.clone(), perm: permission.as_ref().map(one) });
        }
        Request::RoleRevokePermission { role, key, range_end } => {
            into.auth_role_revoke_permission = Some(wire::AuthRoleRevokePermissionRequest {
                role: role.clone(),
                key: key.clone(),
                range_end: range_end.clone(),
            });
        }
    }
}

/// The request about users and roles that `from` holds, if it holds one.
///
/// # Errors
/// A text, if it holds one that can't be done: a password that is not hashed would be another hash on every member.
pub(super) fn from_wire(from: &mut wire::InternalRaftRequest) -> Result<Option<Request>, String> {
    let request = if from.auth_enable.take().is_some() {
        Request::Enable
    } else if from.auth_disable.take().is_some() {
        Request::Disable
    } else if from.auth_status.take().is_some() {
        Request::Status
    } else if let Some(one) = from.authenticate.take() {
        Request::Authenticate { user: one.name, prefix: one.simple_token }
    } else if let Some(one) = from.auth_user_add.take() {
        let no_password = one.options.map(|options| options.no_password);
        let hash = hash("auth_user_add", &one.password, &one.hashed_password)?;
        Request::UserAdd { name: one.name, hash, no_password }
    } else if let Some(one) = from.auth_user_delete.take() {
        Request::UserDelete { name: one.name }
    } else if let Some(one) = from.auth_user_get.take() {
        Request::UserGet { name: one.name }
    } else if from.auth_user_list.take().is_some() {
        Request::UserList
    } else if let Some(one) = from.auth_user_change_password.take() {
        let hash = hash("auth_user_change_password", &one.password, &one.hashed_password)?;
        Request::UserChangePassword { name: one.name, hash }
    } else if let Some(one) = from.auth_user_grant_role.take() {
        Request::UserGrantRole { user: one.user, role: one.role }
    } else if let Some(one) = from.auth_user_revoke_role.take() {
        Request::UserRevokeRole { user: one.name, role: one.role }
    } else if let Some(one) = from.auth_role_add.take() {
        Request::RoleAdd { name: one.name }
    } else if let Some(one) = from.auth_role_delete.take() {
        Request::RoleDelete { name: one.role }
    } else if let Some(one) = from.auth_role_get.take() {
        Request::RoleGet { name: one.role }
    } else if from.auth_role_list.take().is_some() {
        Request::RoleList
    } else if let Some(one) = from.auth_role_grant_permission.take() {
        let permission = one.perm.map(permission).transpose()?;
        Request::RoleGrantPermission { role: one.name, permission }
    } else if let Some(one) = from.auth_role_revoke_permission.take() {
        Request::RoleRevokePermission { role: one.role, key: one.key, range_end: one.range_end }
    } else {
        return Ok(None);
    };
    Ok(Some(request))
}

fn hash(command: &str, password: &str, hashed: &str) -> Result<Bytes, String> {
    if !password.is_empty() && hashed.is_empty() {
        return Err(format!("the log entry's {command} holds a password that is not hashed"));
    }
    let hash = BASE64_STANDARD.decode(hashed);
    hash.map(Bytes::from).map_err(|_| format!("the log entry's {command} holds a hash that is not base64"))
}

fn permission(permission: authpb::Permission) -> Result<Permission, String> {
    let authpb::Permission { perm_type, key, range_end } = permission;
    let kind = Kind::from_number(perm_type).ok_or_else(|| format!("unknown type {perm_type} of a permission"))?;
    Ok(Permission { kind, key, range_end })
}
