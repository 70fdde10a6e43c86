//! What the Ring service asks of a member: who may see which proxies there are, and what trusted proxies may know.

use super::{Backend, Edge, Identity, JwtCheck};
use crate::{
    auth::{Author, Facts, Kind, Permission, UserFacts},
    pb::henge::ring::{AuthPermission, AuthRole, AuthState, AuthUser, Listed, Source, TokenCheck, WhoseResponse},
    ring::{Host, Ledger},
    types::{Error, Revision},
};
use tokio::sync::watch;
use tonic::{Extensions, Status, metadata::MetadataMap};

impl<B: Backend> Host for Edge<B> {
    async fn admit(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<(), Status> {
        let caller = self.enter(metadata, extensions, true).await?;
        Ok(self.view().authorize_admin(&caller)?)
    }

    fn source(&self) -> Source {
        let header = self.backend.header();
        Source {
            cluster_id: header.cluster_id.0,
            id: header.member_id.0,
            is_proxy: false,
            revision: header.revision.0,
            healing: self.healing.now(),
            ..Source::default()
        }
    }

    fn own(&self) -> Option<Listed> {
        None
    }

    fn seek(&self, _goal: Revision) {}

    fn stopping(&self) -> watch::Receiver<bool> {
        self.backend.stopping()
    }
}

impl<B: Backend> Ledger for Edge<B> {
    fn trust(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<(), Status> {
        match self.settings.ring_proxies.hear(metadata, extensions) {
            true => Ok(()),
            false => Err(Error::PermissionDenied.into()),
        }
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.backend.keeper().changed()
    }

    fn stamp(&self) -> u64 {
        self.view().auth_stamp()
    }

    fn state(&self) -> Option<AuthState> {
        let facts = self.view().auth_facts();
        if !facts.enabled {
            return Some(AuthState { revision: facts.revision, ..AuthState::default() });
        }
        let (names_are_users, check) = self.backend.keeper().proofs();
        let check =
            check.map(|JwtCheck { sign_method, public_key }| TokenCheck { sign_method, public_key: public_key.into() });
        Some(AuthState { names_are_users, token_check: check, ..to_wire(facts) })
    }

    async fn prove(&self) -> bool {
        self.backend.level().await.is_ok()
    }

    async fn whose(&self, token: String) -> Result<WhoseResponse, Status> {
        let identity = Identity { token: Some(token), ..Identity::default() };
        match self.identify(&identity).await? {
            Author::User { name, revision } => Ok(WhoseResponse { user: name.to_string(), revision }),
            Author::Nobody | Author::Member | Author::Proxy => Err(Error::InvalidAuthToken.into()),
        }
    }
}

fn to_wire(facts: Facts) -> AuthState {
    let user = |UserFacts { name, roles, since }: UserFacts| AuthUser { name, roles, since };
    let permission =
        |Permission { kind, key, range_end }: Permission| AuthPermission { kind: kind as i32, key, range_end };
    let role = |(name, permissions): (String, Vec<Permission>)| AuthRole {
        name,
        permissions: permissions.into_iter().map(permission).collect(),
    };
    AuthState {
        enabled: facts.enabled,
        revision: facts.revision,
        users: facts.users.into_iter().map(user).collect(),
        roles: facts.roles.into_iter().map(role).collect(),
        ..AuthState::default()
    }
}

/// What a trusted proxy was told of users and permissions. `None` if it is of a kind that this program does not know: then it cannot decide by it.
pub fn auth_facts(state: &AuthState) -> Option<Facts> {
    let permission = |permission: &AuthPermission| {
        let AuthPermission { kind, key, range_end } = permission.clone();
        Some(Permission { kind: Kind::from_number(kind)?, key, range_end })
    };
    let role = |AuthRole { name, permissions }: &AuthRole| {
        Some((name.clone(), permissions.iter().map(permission).collect::<Option<Vec<_>>>()?))
    };
    let user = |AuthUser { name, roles, since }: &AuthUser| UserFacts {
        name: name.clone(),
        roles: roles.clone(),
        since: *since,
    };
    Some(Facts {
        enabled: state.enabled,
        revision: state.revision,
        users: state.users.iter().map(user).collect(),
        roles: state.roles.iter().map(role).collect::<Option<Vec<_>>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_travel_whole_and_a_kind_that_nobody_knows_is_none() {
        let permission = Permission { kind: Kind::ReadWrite, key: "a".into(), range_end: "b".into() };
        let facts = Facts {
            enabled: true,
            revision: 9,
            users: vec![UserFacts { name: "alice".into(), roles: vec!["reader".into()], since: 3 }],
            roles: vec![("reader".into(), vec![permission])],
        };
        let mut state = to_wire(facts.clone());
        assert_eq!(auth_facts(&state), Some(facts));
        state.roles[0].permissions[0].kind = 7;
        assert_eq!(auth_facts(&state), None);
    }
}
