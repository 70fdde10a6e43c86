//! What is asked of the auth state through the log, and what it answers.

use super::Permission;
use bytes::Bytes;

/// A change of the auth state, or a linearizable look at it.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// Has permissions enforced from here on.
    Enable,
    /// Lets everybody do everything from here on.
    Disable,
    /// Whether it is enabled.
    Status,
    /// Gives a user whose password was right a token. The author says when it was compared.
    Authenticate {
        /// Who.
        user: String,
        /// The part of the token that nobody can guess; empty if this member makes another kind of token.
        prefix: String,
    },
    /// Makes a user.
    UserAdd {
        /// By this name.
        name: String,
        /// Hash of the password.
        hash: Bytes,
        /// There is none: a certificate says who it is. `None` in requests of old clients.
        no_password: Option<bool>,
    },
    /// Ends a user.
    UserDelete {
        /// Who.
        name: String,
    },
    /// Roles of a user.
    UserGet {
        /// Who.
        name: String,
    },
    /// All users.
    UserList,
    /// Gives a user another password.
    UserChangePassword {
        /// Who.
        name: String,
        /// Hash of the password.
        hash: Bytes,
    },
    /// Gives a user a role.
    UserGrantRole {
        /// Who.
        user: String,
        /// Which.
        role: String,
    },
    /// Takes a role from a user.
    UserRevokeRole {
        /// Who.
        user: String,
        /// Which.
        role: String,
    },
    /// Makes a role.
    RoleAdd {
        /// By this name.
        name: String,
    },
    /// Ends a role, and takes it from all who have it.
    RoleDelete {
        /// Which.
        name: String,
    },
    /// Permissions of a role.
    RoleGet {
        /// Which.
        name: String,
    },
    /// All roles.
    RoleList,
    /// Gives a role a permission, or the same range another kind.
    RoleGrantPermission {
        /// Which.
        role: String,
        /// What. `None` is refused.
        permission: Option<Permission>,
    },
    /// Takes a permission from a role; it is named as it was given.
    RoleRevokePermission {
        /// Which.
        role: String,
        /// As [`Permission::key`].
        key: Bytes,
        /// As [`Permission::range_end`].
        range_end: Bytes,
    },
}

impl Request {
    /// Whether it changes something; else it is a look, or a login.
    pub fn is_change(&self) -> bool {
        match self {
            Request::Status
            | Request::Authenticate { .. }
            | Request::UserGet { .. }
            | Request::UserList
            | Request::RoleGet { .. }
            | Request::RoleList => false,
            Request::Enable
            | Request::Disable
            | Request::UserAdd { .. }
            | Request::UserDelete { .. }
            | Request::UserChangePassword { .. }
            | Request::UserGrantRole { .. }
            | Request::UserRevokeRole { .. }
            | Request::RoleAdd { .. }
            | Request::RoleDelete { .. }
            | Request::RoleGrantPermission { .. }
            | Request::RoleRevokePermission { .. } => true,
        }
    }

    /// As etcd names the field of the log's command.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Enable => "auth_enable",
            Request::Disable => "auth_disable",
            Request::Status => "auth_status",
            Request::Authenticate { .. } => "authenticate",
            Request::UserAdd { .. } => "auth_user_add",
            Request::UserDelete { .. } => "auth_user_delete",
            Request::UserGet { .. } => "auth_user_get",
            Request::UserList => "auth_user_list",
            Request::UserChangePassword { .. } => "auth_user_change_password",
            Request::UserGrantRole { .. } => "auth_user_grant_role",
            Request::UserRevokeRole { .. } => "auth_user_revoke_role",
            Request::RoleAdd { .. } => "auth_role_add",
            Request::RoleDelete { .. } => "auth_role_delete",
            Request::RoleGet { .. } => "auth_role_get",
            Request::RoleList => "auth_role_list",
            Request::RoleGrantPermission { .. } => "auth_role_grant_permission",
            Request::RoleRevokePermission { .. } => "auth_role_revoke_permission",
        }
    }
}

/// Hashes and tokens belong into no log that people read.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The good answer to a [`Request`].
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a change.
    Done,
    /// To [`Request::Status`].
    Status {
        /// Whether permissions are enforced.
        enabled: bool,
        /// Counts the changes.
        revision: u64,
    },
    /// To [`Request::Authenticate`]: whoever shows this is that user. Empty without a prefix.
    Token(String),
    /// Users, or roles: in the order of their names.
    Names(Vec<String>),
    /// To [`Request::RoleGet`]: in the order of their keys.
    Permissions(Vec<Permission>),
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reply::Done => f.write_str("Done"),
            Reply::Status { enabled, revision } => write!(f, "Status {{ enabled: {enabled}, revision: {revision} }}"),
            Reply::Token(_) => f.write_str("Token(…)"),
            Reply::Names(names) => f.debug_tuple("Names").field(names).finish(),
            Reply::Permissions(permissions) => f.debug_tuple("Permissions").field(permissions).finish(),
        }
    }
}
