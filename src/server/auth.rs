//! The Auth service. In this version auth can't be enabled, and everything answers as etcd does while it is off.

use super::{Backend, Edge, refuse::refuse};
use crate::{
    pb::etcdserverpb::{self as pb, auth_server::Auth},
    types::Error,
};
use tonic::{Request, Response, Status};

/// The Auth service.
pub struct AuthService<B> {
    edge: Edge<B>,
}

impl<B: Backend> AuthService<B> {
    /// The service on this edge.
    pub fn new(edge: Edge<B>) -> AuthService<B> {
        AuthService { edge }
    }
}

refuse! {
    impl [B: Backend] Auth [] for AuthService<B> {
        auth_enable: pb::AuthEnableRequest => pb::AuthEnableResponse, "AuthEnable";
        auth_disable: pb::AuthDisableRequest => pb::AuthDisableResponse, "AuthDisable";
        user_add: pb::AuthUserAddRequest => pb::AuthUserAddResponse, "UserAdd";
        user_get: pb::AuthUserGetRequest => pb::AuthUserGetResponse, "UserGet";
        user_list: pb::AuthUserListRequest => pb::AuthUserListResponse, "UserList";
        user_delete: pb::AuthUserDeleteRequest => pb::AuthUserDeleteResponse, "UserDelete";
        user_change_password: pb::AuthUserChangePasswordRequest => pb::AuthUserChangePasswordResponse, "UserChangePassword";
        user_grant_role: pb::AuthUserGrantRoleRequest => pb::AuthUserGrantRoleResponse, "UserGrantRole";
        user_revoke_role: pb::AuthUserRevokeRoleRequest => pb::AuthUserRevokeRoleResponse, "UserRevokeRole";
        role_add: pb::AuthRoleAddRequest => pb::AuthRoleAddResponse, "RoleAdd";
        role_get: pb::AuthRoleGetRequest => pb::AuthRoleGetResponse, "RoleGet";
        role_list: pb::AuthRoleListRequest => pb::AuthRoleListResponse, "RoleList";
        role_delete: pb::AuthRoleDeleteRequest => pb::AuthRoleDeleteResponse, "RoleDelete";
        role_grant_permission: pb::AuthRoleGrantPermissionRequest => pb::AuthRoleGrantPermissionResponse, "RoleGrantPermission";
        role_revoke_permission: pb::AuthRoleRevokePermissionRequest => pb::AuthRoleRevokePermissionResponse, "RoleRevokePermission";
    } but {
        async fn auth_status(
            &self,
            request: Request<pb::AuthStatusRequest>,
        ) -> Result<Response<pb::AuthStatusResponse>, Status> {
            self.edge.enter(request.metadata(), false)?;
            let header = self.edge.backend.header().to_wire();
            // A fresh store of users is at revision 1, and nothing can change it yet.
            Ok(Response::new(pb::AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
        }

        async fn authenticate(
            &self,
            request: Request<pb::AuthenticateRequest>,
        ) -> Result<Response<pb::AuthenticateResponse>, Status> {
            self.edge.enter(request.metadata(), false)?;
            Err(Error::AuthNotEnabled.into())
        }
    }
}
