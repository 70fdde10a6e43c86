//! Users, roles and permissions; and who this client is.
//!
//! A client that was given a user logs in when it first calls, shows the token with each call, and logs in again when a member
//! says that the token is no good any more. Calls that meet with that are repeated: they were refused before they had any effect.

use super::{Client, Error, Repeat, Shared};
use crate::{
    pb::{
        authpb::{Permission, UserAddOptions},
        etcdserverpb::{
            AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
            AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest,
            AuthRoleGetResponse, AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse, AuthRoleListRequest,
            AuthRoleListResponse, AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest,
            AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
            AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest,
            AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest,
            AuthUserListResponse, AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest,
            auth_client::AuthClient,
        },
    },
    types,
};
use bytes::Bytes;
use std::time::Duration;
use tonic::{
    Request, Response,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

/// Logins in a row that one call may cost: permissions that change all the time must not keep it for ever.
pub(super) const LOGINS_MAX: usize = 3;

/// What a client shows to prove who it is.
#[derive(Debug, Default)]
pub(super) struct Login {
    /// One logs in, and all others wait for it.
    proof: tokio::sync::Mutex<Proof>,
}

#[derive(Debug, Default)]
struct Proof {
    token: Option<MetadataValue<Ascii>>,
    /// Whether there is nothing to ask for: it has been asked, or auth is not enabled.
    is_settled: bool,
    /// Counts the logins, so that those who saw the same token refused log in once.
    age: u64,
}

/// A token and which login it is from.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    token: Option<MetadataValue<Ascii>>,
    age: u64,
}

impl Shared {
    /// What to show now; logs in if need be.
    pub(super) async fn proof(&self, channel: &Channel) -> Result<Shown, Error> {
        if self.options.user.is_none() && self.options.token.is_none() {
            return Ok(Shown::default());
        }
        let mut proof = self.login.proof.lock().await;
        if !proof.is_settled {
            proof.token = match (&self.options.token, &self.options.user) {
                (Some(token), _) => Some(metadata(token)?),
                (None, Some((user, password))) => log_in(channel.clone(), user, password).await?,
                (None, None) => None,
            };
            proof.is_settled = true;
            proof.age += 1;
        }
        Ok(Shown { token: proof.token.clone(), age: proof.age })
    }

    /// Whether a call that showed this, and met with that, is worth another try: then the next one logs in again.
    pub(super) async fn is_outdated(&self, shown: &Shown, error: &Error) -> bool {
        use types::Error::{AuthOldRevision, InvalidAuthToken, UserEmpty};
        let is_refusal = [InvalidAuthToken, AuthOldRevision, UserEmpty].iter().any(|known| match error {
            Error::WatchCanceled(reason) => reason.ends_with(known.text()),
            error => error.is(known),
        });
        if !is_refusal || self.options.user.is_none() || self.options.token.is_some() {
            return false;
        }
        let mut proof = self.login.proof.lock().await;
        if proof.age == shown.age {
            proof.is_settled = false;
        }
        true
    }
}

fn metadata(token: &str) -> Result<MetadataValue<Ascii>, Error> {
    token.parse().map_err(|_| Error::Unsupported("the token has characters that no token has"))
}

/// A token; `None` if nobody is asked who they are.
async fn log_in(channel: Channel, user: &str, password: &str) -> Result<Option<MetadataValue<Ascii>>, Error> {
    let request = AuthenticateRequest { name: user.to_owned(), password: password.to_owned() };
    match AuthClient::new(channel).authenticate(request).await {
        Ok(reply) => Ok(Some(metadata(&reply.into_inner().token)?)),
        Err(status) => match Error::from(status) {
            error if error.is(&types::Error::AuthNotEnabled) => Ok(None),
            error => Err(error),
        },
    }
}

impl Shown {
    /// Shows it.
    pub(super) fn put<T>(&self, request: &mut Request<T>) {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
    }
}

impl Client {
    /// Logs in now, within `limit`, if there is a user to log in: who must know at once whether that can be done need not wait for the first
    /// call.
    ///
    /// # Errors
    /// What the member refuses with, [`Error::Deadline`] if none answers.
    pub async fn log_in(&self, limit: Option<Duration>) -> Result<(), Error> {
        // Whatever is sent, proof comes before it; so nothing need be.
        let nothing = async |_, _: Request<()>| Ok(Response::new(()));
        self.call_within(limit, Repeat::Freely, (), nothing).await
    }
}

/// Calls with one message each.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*): $method:ident, $repeat:ident, $request:expr => $response:ty;)*) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// What the member refuses with, or [`Error::Deadline`].
        pub async fn $name(&self, $($arg: $type),*) -> Result<$response, Error> {
            let send = async |channel, request| AuthClient::new(channel).$method(request).await;
            self.call(Repeat::$repeat, $request, send).await
        })*
    };
}

impl Client {
    calls! {
        /// Has permissions enforced. There must be a user root with the role root.
        auth_enable(): auth_enable, Freely, AuthEnableRequest {} => AuthEnableResponse;
        /// Lets everybody do everything.
        auth_disable(): auth_disable, IfNotApplied, AuthDisableRequest {} => AuthDisableResponse;
        /// Whether permissions are enforced.
        auth_status(): auth_status, Freely, AuthStatusRequest {} => AuthStatusResponse;
        /// Makes a user with a password.
        user_add(name: &str, password: &str): user_add, IfNotApplied, AuthUserAddRequest {
            name: name.to_owned(), password: password.to_owned(), ..Default::default()
        } => AuthUserAddResponse;
        /// Makes a user without a password: the common name of a certificate says who it is.
        user_add_without_password(name: &str): user_add, IfNotApplied, AuthUserAddRequest {
            name: name.to_owned(), options: Some(UserAddOptions { no_password: true }), ..Default::default()
        } => AuthUserAddResponse;
        /// Ends a user.
        user_delete(name: &str): user_delete, IfNotApplied, AuthUserDeleteRequest { name: name.to_owned() }
            => AuthUserDeleteResponse;
        /// Roles of a user.
        user_get(name: &str): user_get, Freely, AuthUserGetRequest { name: name.to_owned() } => AuthUserGetResponse;
        /// All users.
        user_list(): user_list, Freely, AuthUserListRequest {} => AuthUserListResponse;
        /// Gives a user another password.
        user_change_password(name: &str, password: &str): user_change_password, IfNotApplied,
            AuthUserChangePasswordRequest {
                name: name.to_owned(), password: password.to_owned(), ..Default::default()
            } => AuthUserChangePasswordResponse;
        /// Gives a user a role.
        user_grant_role(user: &str, role: &str): user_grant_role, Freely,
            AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() } => AuthUserGrantRoleResponse;
        /// Takes a role from a user.
        user_revoke_role(user: &str, role: &str): user_revoke_role, IfNotApplied,
            AuthUserRevokeRoleRequest { name: user.to_owned(), role: role.to_owned() } => AuthUserRevokeRoleResponse;
        /// Makes a role.
        role_add(name: &str): role_add, IfNotApplied, AuthRoleAddRequest { name: name.to_owned() }
            => AuthRoleAddResponse;
        /// Ends a role.
        role_delete(name: &str): role_delete, IfNotApplied, AuthRoleDeleteRequest { role: name.to_owned() }
            => AuthRoleDeleteResponse;
        /// Permissions of a role.
        role_get(name: &str): role_get, Freely, AuthRoleGetRequest { role: name.to_owned() } => AuthRoleGetResponse;
        /// All roles.
        role_list(): role_list, Freely, AuthRoleListRequest {} => AuthRoleListResponse;
        /// Gives a role a permission.
        role_grant_permission(role: &str, permission: Permission): role_grant_permission, Freely,
            AuthRoleGrantPermissionRequest { name: role.to_owned(), perm: Some(permission) }
            => AuthRoleGrantPermissionResponse;
        /// Takes a permission from a role; the range is named as it was given.
        role_revoke_permission(role: &str, key: Bytes, range_end: Bytes): role_revoke_permission, IfNotApplied,
            AuthRoleRevokePermissionRequest { role: role.to_owned(), key, range_end }
            => AuthRoleRevokePermissionResponse;
    }
}
