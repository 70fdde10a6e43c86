//! What somebody else needs to say who may do what: the table without what proves that somebody is a user.

use super::{Table, User};
use crate::auth::Permission;

/// A table without passwords, as plain values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether permissions are enforced.
    pub enabled: bool,
    /// [`Table::revision`].
    pub revision: u64,
    /// All users.
    pub users: Vec<UserFacts>,
    /// All roles, by name.
    pub roles: Vec<(String, Vec<Permission>)>,
}

/// A user, without the password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserFacts {
    /// By this name.
    pub name: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// Whoever proved to be this user at an earlier revision has to do so again.
    pub since: u64,
}

impl Table {
    /// All that is needed to answer [`Table::permits`] and [`Table::is_current`] as this table does, and no hash of a password.
    pub fn facts(&self) -> Facts {
        let user = |(name, user): (&String, &User)| UserFacts {
            name: name.clone(),
            roles: user.roles.clone(),
            since: user.since,
        };
        Facts {
            enabled: self.enabled,
            revision: self.revision,
            users: self.users.iter().map(user).collect(),
            roles: self.roles.iter().map(|(name, permissions)| (name.clone(), permissions.clone())).collect(),
        }
    }

    /// A table of these facts. Nobody in it has a password, and it writes no rows.
    pub fn of_facts(facts: Facts) -> Table {
        let mut table = Table {
            enabled: facts.enabled,
            revision: facts.revision,
            roles: facts.roles.into_iter().collect(),
            ..Table::default()
        };
        for UserFacts { name, mut roles, since } in facts.users {
            roles.sort();
            table.users.insert(name.clone(), User { roles, no_password: Some(true), since, ..User::default() });
            table.unite(&name);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::{Author, Kind, Request},
        engine::Batch,
        types::{Index, KeyRange},
    };
    use bytes::Bytes;
    use proptest::prelude::*;

    const USERS: [&str; 3] = ["root", "alice", "bob"];
    const ROLES: [&str; 3] = ["root", "reader", "writer"];
    const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn name(of: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::sample::select(of).prop_map(str::to_owned)
    }

    fn key() -> impl Strategy<Value = Bytes> {
        prop::sample::select(&KEYS[..]).prop_map(|key| Bytes::from_static(key.as_bytes()))
    }

    fn end() -> impl Strategy<Value = Bytes> {
        prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(&[0])), key()]
    }

    fn request() -> impl Strategy<Value = Request> {
        let kind = prop::sample::select(&[Kind::Read, Kind::Write, Kind::ReadWrite][..]);
        prop_oneof![
            name(&USERS).prop_map(|name| Request::UserAdd { name, hash: "hash".into(), no_password: Some(false) }),
            name(&USERS).prop_map(|name| Request::UserChangePassword { name, hash: "other".into() }),
            name(&USERS).prop_map(|name| Request::UserDelete { name }),
            name(&ROLES).prop_map(|name| Request::RoleAdd { name }),
            name(&ROLES).prop_map(|name| Request::RoleDelete { name }),
            (name(&USERS), name(&ROLES)).prop_map(|(user, role)| Request::UserGrantRole { user, role }),
            (name(&USERS), name(&ROLES)).prop_map(|(user, role)| Request::UserRevokeRole { user, role }),
            (name(&ROLES), kind, key(), end()).prop_map(|(role, kind, key, range_end)| {
                Request::RoleGrantPermission { role, permission: Some(Permission { kind, key, range_end }) }
            }),
            Just(Request::Enable),
            Just(Request::Disable),
        ]
    }

    proptest! {
        #[test]
        fn a_table_of_facts_permits_what_the_table_does(
            requests in prop::collection::vec(request(), 0..60),
            asked in prop::collection::vec((name(&USERS), 0_u64..40, key(), end()), 20),
        ) {
            let mut table = Table::default();
            for request in requests {
                // Those that are refused change nothing.
                let _ = table.apply(&Author::Member, request, Index(1), &mut Batch::default());
            }
            let copy = Table::of_facts(table.facts());
            prop_assert_eq!((copy.is_enabled(), copy.revision()), (table.is_enabled(), table.revision()));
            for (name, revision, key, end) in asked {
                let range = KeyRange::from_wire(key, end);
                prop_assert_eq!(copy.is_current(&name, revision), table.is_current(&name, revision));
                for author in [Author::user(&name, revision), Author::Nobody, Author::Proxy] {
                    let told = |table: &Table| {
                        let permits = table.permits(&author)?;
                        Ok::<_, crate::types::Error>((permits.read(&range), permits.write(&range), permits.admin()))
                    };
                    prop_assert_eq!(told(&copy), told(&table), "{:?} {:?}", author, range);
                }
            }
        }
    }

    #[test]
    fn no_hash_of_a_password_is_among_the_facts() {
        let mut table = Table::default();
        let hash = Bytes::from_static(b"not to be told");
        let add = Request::UserAdd { name: "root".into(), hash, no_password: Some(false) };
        table.apply(&Author::Member, add, Index(1), &mut Batch::default()).expect("a user");
        assert!(!format!("{:?}", table.facts()).contains("not to be told"));
        assert_eq!(Table::of_facts(table.facts()).password("root"), None);
    }

    #[test]
    fn a_proxy_reads_everything_and_does_nothing() {
        let facts = Facts { enabled: true, revision: 1, ..Facts::default() };
        let table = Table::of_facts(facts);
        let everything = KeyRange::prefix(Bytes::new());
        let permits = table.permits(&Author::Proxy).expect("somebody");
        assert!(permits.read(&everything).is_ok());
        assert!(permits.write(&KeyRange::One("a".into())).is_err() && permits.admin().is_err());
        assert_eq!(Author::Proxy.to_header(), Author::Nobody.to_header(), "in the log it is nobody");
    }
}
