//! The Auth service: users, roles, permissions, and who somebody is.

use super::{Backend, Edge, Header};
use crate::{
    auth::{self, Author, Permission, Request},
    machine::{Command, Reply},
    pb::{
        authpb,
        etcdserverpb::{self as pb, auth_server::Auth},
    },
    types::Error,
};
use bytes::Bytes;
use prost::Message;
use tonic::{Extensions, Request as Call, Response, Status, metadata::MetadataMap};

/// The Auth service.
pub struct AuthService<B> {
    edge: Edge<B>,
}

/// Logins that find the auth state changed each time they have compared a password.
const ATTEMPTS_MAX: usize = 16;

impl<B: Backend> AuthService<B> {
    /// The service on this edge.
    pub fn new(edge: Edge<B>) -> AuthService<B> {
        AuthService { edge }
    }

    async fn enter(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Author, Error> {
        self.edge.enter(metadata, extensions, false).await
    }

    async fn ask(&self, caller: &Author, bytes: usize, request: Request) -> Result<(auth::Reply, Header), Status> {
        let (reply, header) = self.edge.propose("Auth", bytes, caller, Command::Auth(request)).await?;
        let Reply::Auth(reply) = reply else { unreachable!("a request about users is answered as one: {reply:?}") };
        Ok((reply, header))
    }

    /// The hash of a new password, for somebody who may set one: else anybody could keep the member busy.
    async fn hash(&self, caller: &Author, password: String) -> Result<Bytes, Error> {
        self.edge.permit(false, |view| view.authorize_admin(caller)).await?;
        self.edge.backend.keeper().hash(password).await
    }

    /// A token for whoever knows the password. Through the log, so that every member knows the token; unless it is signed.
    async fn login(&self, name: &str, password: &str, bytes: usize) -> Result<(String, Header), Status> {
        let (backend, keeper) = (&self.edge.backend, self.edge.backend.keeper());
        backend.level().await?;
        for _ in 0..ATTEMPTS_MAX {
            let author = keeper.check_password(name, password.to_owned()).await.inspect_err(|error| {
                if *error == Error::AuthFailed {
                    tracing::warn!(user = name, "invalid authentication was requested");
                }
            })?;
            if let Some(token) = keeper.sign(&author) {
                return Ok((token?, backend.header()));
            }
            let request = Request::Authenticate { user: name.to_owned(), prefix: keeper.prefix() };
            match self.edge.propose("Authenticate", bytes, &author, Command::Auth(request)).await {
                Ok((Reply::Auth(auth::Reply::Token(token)), header)) => return Ok((token, header)),
                Ok((reply, _)) => unreachable!("a login is answered with a token: {reply:?}"),
                // The password has been changed meanwhile: compared with the new one it may be wrong.
                Err(Error::AuthOldRevision) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::AuthOldRevision.into())
    }
}

fn names(reply: auth::Reply) -> Vec<String> {
    match reply {
        auth::Reply::Names(names) => names,
        other => unreachable!("names were asked for: {other:?}"),
    }
}

fn permission_from_wire(permission: authpb::Permission) -> Result<Permission, Error> {
    let authpb::Permission { perm_type, key, range_end } = permission;
    let kind = auth::Kind::from_number(perm_type)
        .ok_or_else(|| Error::Invalid(format!("etcdserver: unknown type {perm_type} of a permission")))?;
    Ok(Permission { kind, key, range_end })
}

fn permission_to_wire(permission: Permission) -> authpb::Permission {
    let Permission { kind, key, range_end } = permission;
    authpb::Permission { perm_type: kind as i32, key, range_end }
}

/// The service, whose calls that change something, and are answered with a header alone, are rows.
macro_rules! service {
    (changes { $($method:ident: $request:ident => $response:ident, |$one:ident| $make:expr;)* } others { $($own:tt)* }) => {
        #[tonic::async_trait]
        impl<B: Backend> Auth for AuthService<B> {
            $(async fn $method(&self, call: Call<pb::$request>) -> Result<Response<pb::$response>, Status> {
                let (metadata, extensions, $one) = call.into_parts();
                let caller = self.enter(&metadata, &extensions).await?;
                let bytes = $one.encoded_len();
                let (_, header) = self.ask(&caller, bytes, $make).await?;
                Ok(Response::new(pb::$response { header: header.to_wire() }))
            })*
            $($own)*
        }
    };
}

service! {
    changes {
        auth_enable: AuthEnableRequest => AuthEnableResponse, |_one| Request::Enable;
        auth_disable: AuthDisableRequest => AuthDisableResponse, |_one| Request::Disable;
        user_delete: AuthUserDeleteRequest => AuthUserDeleteResponse, |one| Request::UserDelete { name: one.name };
        user_grant_role: AuthUserGrantRoleRequest => AuthUserGrantRoleResponse,
            |one| Request::UserGrantRole { user: one.user, role: one.role };
        user_revoke_role: AuthUserRevokeRoleRequest => AuthUserRevokeRoleResponse,
            |one| Request::UserRevokeRole { user: one.name, role: one.role };
        role_add: AuthRoleAddRequest => AuthRoleAddResponse, |one| Request::RoleAdd { name: one.name };
        role_delete: AuthRoleDeleteRequest => AuthRoleDeleteResponse, |one| Request::RoleDelete { name: one.role };
        role_grant_permission: AuthRoleGrantPermissionRequest => AuthRoleGrantPermissionResponse,
            |one| Request::RoleGrantPermission {
                role: one.name,
                permission: one.perm.map(permission_from_wire).transpose()?,
            };
        role_revoke_permission: AuthRoleRevokePermissionRequest => AuthRoleRevokePermissionResponse,
            |one| Request::RoleRevokePermission { role: one.role, key: one.key, range_end: one.range_end };
    }
    others {
        async fn auth_status(
            &self,
            call: Call<pb::AuthStatusRequest>,
        ) -> Result<Response<pb::AuthStatusResponse>, Status> {
            let caller = self.enter(call.metadata(), call.extensions()).await?;
            let (reply, header) = self.ask(&caller, 0, Request::Status).await?;
            let auth::Reply::Status { enabled, revision } = reply else {
                unreachable!("the status was asked for: {reply:?}")
            };
            Ok(Response::new(pb::AuthStatusResponse { header: header.to_wire(), enabled, auth_revision: revision }))
        }

        async fn authenticate(
            &self,
            call: Call<pb::AuthenticateRequest>,
        ) -> Result<Response<pb::AuthenticateResponse>, Status> {
            let (metadata, extensions, request) = call.into_parts();
            // Whatever token comes with it may have ended: that is why they ask.
            self.edge.open(&metadata, &extensions, false)?;
            let (token, header) = self.login(&request.name, &request.password, request.encoded_len()).await?;
            Ok(Response::new(pb::AuthenticateResponse { header: header.to_wire(), token }))
        }

        async fn user_add(
            &self,
            call: Call<pb::AuthUserAddRequest>,
        ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
            let (metadata, extensions, request) = call.into_parts();
            let caller = self.enter(&metadata, &extensions).await?;
            let bytes = request.encoded_len();
            let pb::AuthUserAddRequest { name, password, options, .. } = request;
            let no_password = options.map(|options| options.no_password);
            let hash = match no_password {
                Some(true) => Bytes::new(),
                _ => self.hash(&caller, password).await?,
            };
            let (_, header) = self.ask(&caller, bytes, Request::UserAdd { name, hash, no_password }).await?;
            Ok(Response::new(pb::AuthUserAddResponse { header: header.to_wire() }))
        }

        async fn user_change_password(
            &self,
            call: Call<pb::AuthUserChangePasswordRequest>,
        ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
            let (metadata, extensions, request) = call.into_parts();
            let caller = self.enter(&metadata, &extensions).await?;
            let bytes = request.encoded_len();
            let pb::AuthUserChangePasswordRequest { name, password, .. } = request;
            // As in etcd: without a password nobody can log in.
            let hash = match password.is_empty() {
                true => Bytes::new(),
                false => self.hash(&caller, password).await?,
            };
            let (_, header) = self.ask(&caller, bytes, Request::UserChangePassword { name, hash }).await?;
            Ok(Response::new(pb::AuthUserChangePasswordResponse { header: header.to_wire() }))
        }

        async fn user_get(
            &self,
            call: Call<pb::AuthUserGetRequest>,
        ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
            let (metadata, extensions, request) = call.into_parts();
            let caller = self.enter(&metadata, &extensions).await?;
            let bytes = request.encoded_len();
            let (reply, header) = self.ask(&caller, bytes, Request::UserGet { name: request.name }).await?;
            Ok(Response::new(pb::AuthUserGetResponse { header: header.to_wire(), roles: names(reply) }))
        }

        async fn user_list(
            &self,
            call: Call<pb::AuthUserListRequest>,
        ) -> Result<Response<pb::AuthUserListResponse>, Status> {
            let caller = self.enter(call.metadata(), call.extensions()).await?;
            let (reply, header) = self.ask(&caller, 0, Request::UserList).await?;
            Ok(Response::new(pb::AuthUserListResponse { header: header.to_wire(), users: names(reply) }))
        }

        async fn role_get(
            &self,
            call: Call<pb::AuthRoleGetRequest>,
        ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
            let (metadata, extensions, request) = call.into_parts();
            let caller = self.enter(&metadata, &extensions).await?;
            let bytes = request.encoded_len();
            let (reply, header) = self.ask(&caller, bytes, Request::RoleGet { name: request.role }).await?;
            let auth::Reply::Permissions(permissions) = reply else {
                unreachable!("permissions were asked for: {reply:?}")
            };
            let perm = permissions.into_iter().map(permission_to_wire).collect();
            Ok(Response::new(pb::AuthRoleGetResponse { header: header.to_wire(), perm }))
        }

        async fn role_list(
            &self,
            call: Call<pb::AuthRoleListRequest>,
        ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
            let caller = self.enter(call.metadata(), call.extensions()).await?;
            let (reply, header) = self.ask(&caller, 0, Request::RoleList).await?;
            Ok(Response::new(pb::AuthRoleListResponse { header: header.to_wire(), roles: names(reply) }))
        }
    }
}
