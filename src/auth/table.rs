//! What the log says about users and roles.

mod facts;

pub use facts::{Facts, UserFacts};

use super::{
    Author, Kind, Permission, ROOT, Ranges, Reply, Request,
    rows::{self, UserOptions, UserRow},
};
use crate::{
    engine::{Batch, Engine, Table as Rows},
    types::{Error, Fault, Index, KeyRange},
};
use bytes::Bytes;
use prost::Message;
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};

/// All users and roles, and whether they count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    enabled: bool,
    /// Counts changes, from 1. Enabling is none, as in etcd.
    revision: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Vec<Permission>>,
}

impl Default for Table {
    fn default() -> Table {
        Table { enabled: false, revision: 1, users: BTreeMap::default(), roles: BTreeMap::default() }
    }
}

/// One user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct User {
    /// The hash; empty if there is none.
    password: Bytes,
    /// Sorted.
    roles: Vec<String>,
    no_password: Option<bool>,
    /// Whoever proved to be this user at an earlier revision has to do so again.
    since: u64,
    /// What all roles together let them do; follows from `roles`.
    reads: Ranges,
    writes: Ranges,
}

impl User {
    fn is_root(&self) -> bool {
        self.roles.iter().any(|role| role == ROOT)
    }
}

/// What somebody may do.
#[derive(Clone, Copy, Debug)]
pub enum Permits<'a> {
    /// Everything.
    All,
    /// Read everything, and nothing else.
    Reads,
    /// Read and write these keys.
    Keys {
        /// To read.
        reads: &'a Ranges,
        /// To write.
        writes: &'a Ranges,
    },
    /// There is no such user.
    Unknown,
}

impl Permits<'_> {
    /// # Errors
    /// [`Error::PermissionDenied`] unless all of `range` may be read.
    pub fn read(self, range: &KeyRange) -> Result<(), Error> {
        match self {
            Permits::All | Permits::Reads => Ok(()),
            Permits::Keys { reads, .. } if reads.cover(range) => Ok(()),
            Permits::Keys { .. } | Permits::Unknown => Err(Error::PermissionDenied),
        }
    }

    /// # Errors
    /// [`Error::PermissionDenied`] unless all of `range` may be written.
    pub fn write(self, range: &KeyRange) -> Result<(), Error> {
        match self {
            Permits::All => Ok(()),
            Permits::Keys { writes, .. } if writes.cover(range) => Ok(()),
            Permits::Reads | Permits::Keys { .. } | Permits::Unknown => Err(Error::PermissionDenied),
        }
    }

    /// What only root may.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`], or as in etcd [`Error::UserNotFound`].
    pub fn admin(self) -> Result<(), Error> {
        match self {
            Permits::All => Ok(()),
            Permits::Reads | Permits::Keys { .. } => Err(Error::PermissionDenied),
            Permits::Unknown => Err(Error::UserNotFound),
        }
    }
}

impl Table {
    /// Reads what the engine holds.
    ///
    /// # Errors
    /// A broken store, or a row that is none of ours.
    pub fn load(engine: &dyn Engine) -> Result<Table, Fault> {
        let mut table = Table::default();
        // These rows come before those of the users.
        let mut since = BTreeMap::new();
        let mut wrong = None;
        engine.scan(Rows::Auth, (Bound::Unbounded, Bound::Unbounded), &mut |key, row| match table
            .take(key, row, &mut since)
        {
            Some(()) => ControlFlow::Continue(()),
            None => {
                wrong = Some(format!("row {} of the users and roles is malformed", key.escape_ascii()));
                ControlFlow::Break(())
            }
        })?;
        if let Some(what) = wrong {
            return Err(Fault::Damaged { path: "store".into(), offset: None, what });
        }
        for name in table.users.keys().cloned().collect::<Vec<_>>() {
            table.unite(&name);
        }
        for (name, user) in &mut table.users {
            user.since = since.get(name).copied().unwrap_or(0);
        }
        Ok(table)
    }

    /// Takes one row.
    fn take(&mut self, key: &[u8], row: Bytes, since: &mut BTreeMap<String, u64>) -> Option<()> {
        let (bucket, name) = key.split_first()?;
        match (*bucket, key) {
            (_, rows::AUTH_ENABLED) => self.enabled = row.as_ref() == [1],
            (_, rows::AUTH_REVISION) => self.revision = rows::parse_number(&row)?.max(1),
            // Of a later version.
            (b'a', _) => {}
            (rows::USER, _) => {
                let UserRow { password, mut roles, options, .. } = UserRow::decode(row).ok()?;
                roles.sort();
                let no_password = options.map(|options| options.no_password);
                self.users.insert(text(name)?, User { password, roles, no_password, ..User::default() });
            }
            (rows::ROLE, _) => drop(self.roles.insert(text(name)?, rows::parse_role(row)?)),
            (rows::SINCE, _) => {
                since.insert(text(name)?, rows::parse_number(&row)?);
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether permissions are enforced.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Counts the changes.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What `author` may do.
    ///
    /// # Errors
    /// [`Error::UserEmpty`] for nobody, [`Error::AuthOldRevision`] for a user whose record is another one than that which was proven.
    pub fn permits(&self, author: &Author) -> Result<Permits<'_>, Error> {
        if !self.enabled {
            return Ok(Permits::All);
        }
        let (name, revision) = match author {
            Author::Nobody => return Err(Error::UserEmpty),
            Author::Member => return Ok(Permits::All),
            Author::Proxy => return Ok(Permits::Reads),
            Author::User { name, revision } => (&**name, *revision),
        };
        match self.users.get(name) {
            None => Ok(Permits::Unknown),
            Some(user) if revision < user.since => Err(Error::AuthOldRevision),
            Some(user) if user.is_root() => Ok(Permits::All),
            Some(User { reads, writes, .. }) => Ok(Permits::Keys { reads, writes }),
        }
    }

    /// Whether there is a user `name` that whoever proved it at `revision` still is.
    pub fn is_current(&self, name: &str, revision: u64) -> bool {
        self.users.get(name).is_some_and(|user| user.since <= revision)
    }

    /// The hash of a user's password; `None` if there is no such user, or it has none.
    pub fn password(&self, name: &str) -> Option<Bytes> {
        let user = self.users.get(name)?;
        Some(user.password.clone()).filter(|_| user.no_password != Some(true))
    }

    /// Whether a user has a role.
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        self.users.get(user).is_some_and(|user| user.roles.iter().any(|own| own == role))
    }

    /// Does what is asked, which the author has been found to be allowed; `index` is that of the entry.
    ///
    /// # Errors
    /// etcd's, for each of its reasons. Then nothing has changed.
    pub fn apply(
        &mut self,
        author: &Author,
        request: Request,
        index: Index,
        batch: &mut Batch,
    ) -> Result<Reply, Error> {
        match request {
            Request::Enable => self.enable(batch)?,
            Request::Disable => self.disable(batch),
            Request::Status => return Ok(Reply::Status { enabled: self.enabled, revision: self.revision }),
            Request::Authenticate { user, prefix } => return self.authenticate(author, &user, &prefix, index),
            Request::UserAdd { name, hash, no_password } => self.user_add(name, hash, no_password, batch)?,
            Request::UserDelete { name } => self.user_delete(&name, batch)?,
            Request::UserGet { name } => {
                let user = self.users.get(&name).ok_or(Error::UserNotFound)?;
                return Ok(Reply::Names(user.roles.clone()));
            }
            Request::UserList => return Ok(Reply::Names(self.users.keys().cloned().collect())),
            Request::UserChangePassword { name, hash } => self.user_change_password(&name, hash, batch)?,
            Request::UserGrantRole { user, role } => self.user_grant_role(&user, role, batch)?,
            Request::UserRevokeRole { user, role } => self.user_revoke_role(&user, &role, batch)?,
            Request::RoleAdd { name } => self.role_add(name, batch)?,
            Request::RoleDelete { name } => self.role_delete(&name, batch)?,
            Request::RoleGet { name } => return self.role_get(&name),
            Request::RoleList => return Ok(Reply::Names(self.roles.keys().cloned().collect())),
            Request::RoleGrantPermission { role, permission } => {
                self.role_grant(&role, permission.ok_or(Error::PermissionNotGiven)?, batch)?;
            }
            Request::RoleRevokePermission { role, key, range_end } => {
                self.role_revoke(&role, &key, &range_end, batch)?;
            }
        }
        Ok(Reply::Done)
    }

    fn enable(&mut self, batch: &mut Batch) -> Result<(), Error> {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT).ok_or(Error::RootUserNotExist)?;
        if !root.is_root() {
            return Err(Error::RootRoleNotExist);
        }
        self.enabled = true;
        batch.put(Rows::Auth, rows::AUTH_ENABLED, Bytes::from_static(&[1]));
        Ok(())
    }

    fn disable(&mut self, batch: &mut Batch) {
        if self.enabled {
            self.enabled = false;
            batch.put(Rows::Auth, rows::AUTH_ENABLED, Bytes::from_static(&[0]));
            self.count(batch);
        }
    }

    fn authenticate(&self, author: &Author, user: &str, prefix: &str, index: Index) -> Result<Reply, Error> {
        if !self.enabled {
            return Err(Error::AuthNotEnabled);
        }
        if self.password(user).is_none() {
            return Err(Error::AuthFailed);
        }
        // Compared with a password that is another one by now: to be compared again.
        match author {
            Author::User { name, revision } if **name == *user && self.is_current(user, *revision) => {}
            _ => return Err(Error::AuthOldRevision),
        }
        Ok(Reply::Token(if prefix.is_empty() { String::new() } else { super::token::token(prefix, index) }))
    }

    fn user_add(
        &mut self,
        name: String,
        hash: Bytes,
        no_password: Option<bool>,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::UserEmpty);
        }
        if self.users.contains_key(&name) {
            return Err(Error::UserAlreadyExist);
        }
        let no_password = no_password.unwrap_or(false);
        let password = if no_password { Bytes::new() } else { hash };
        let since = self.count(batch);
        let user = User { password, no_password: Some(no_password), since, ..User::default() };
        self.put_user(name, user, batch);
        Ok(())
    }

    fn user_delete(&mut self, name: &str, batch: &mut Batch) -> Result<(), Error> {
        if self.enabled && name == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        self.users.remove(name).ok_or(Error::UserNotFound)?;
        batch.delete(Rows::Auth, rows::key(rows::USER, name));
        batch.delete(Rows::Auth, rows::key(rows::SINCE, name));
        self.count(batch);
        Ok(())
    }

    fn user_change_password(&mut self, name: &str, hash: Bytes, batch: &mut Batch) -> Result<(), Error> {
        let user = self.users.get(name).ok_or(Error::UserNotFound)?;
        let password = if user.no_password == Some(true) { Bytes::new() } else { hash };
        let user = User { password, since: self.revision + 1, ..user.clone() };
        self.count(batch);
        self.put_user(name.to_owned(), user, batch);
        Ok(())
    }

    fn user_grant_role(&mut self, name: &str, role: String, batch: &mut Batch) -> Result<(), Error> {
        let user = self.users.get(name).ok_or(Error::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(&role) {
            return Err(Error::RoleNotFound);
        }
        let Err(at) = user.roles.binary_search(&role) else { return Ok(()) };
        let mut user = user.clone();
        user.roles.insert(at, role);
        self.count(batch);
        self.put_user(name.to_owned(), user, batch);
        Ok(())
    }

    fn user_revoke_role(&mut self, name: &str, role: &str, batch: &mut Batch) -> Result<(), Error> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        let mut user = self.users.get(name).ok_or(Error::UserNotFound)?.clone();
        let before = user.roles.len();
        user.roles.retain(|own| own != role);
        if user.roles.len() == before {
            return Err(Error::RoleNotGranted);
        }
        self.count(batch);
        self.put_user(name.to_owned(), user, batch);
        Ok(())
    }

    fn role_add(&mut self, name: String, batch: &mut Batch) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::RoleEmpty);
        }
        if self.roles.contains_key(&name) {
            return Err(Error::RoleAlreadyExist);
        }
        self.count(batch);
        self.put_role(&name, Vec::new(), batch);
        Ok(())
    }

    fn role_delete(&mut self, name: &str, batch: &mut Batch) -> Result<(), Error> {
        if self.enabled && name == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        self.roles.remove(name).ok_or(Error::RoleNotFound)?;
        batch.delete(Rows::Auth, rows::key(rows::ROLE, name));
        self.count(batch);
        for holder in self.holders(name) {
            let mut user = self.users[&holder].clone();
            user.roles.retain(|own| own != name);
            self.put_user(holder, user, batch);
        }
        Ok(())
    }

    fn role_get(&self, name: &str) -> Result<Reply, Error> {
        let permissions = self.roles.get(name).ok_or(Error::RoleNotFound)?;
        if name == ROOT {
            // It needs none, and etcd shows this one.
            let all = Permission { kind: Kind::ReadWrite, key: Bytes::new(), range_end: Bytes::from_static(&[0]) };
            return Ok(Reply::Permissions(vec![all]));
        }
        Ok(Reply::Permissions(permissions.clone()))
    }

    fn role_grant(&mut self, role: &str, permission: Permission, batch: &mut Batch) -> Result<(), Error> {
        if !permission.is_valid() {
            return Err(Error::InvalidAuthMgmt);
        }
        let mut permissions = self.roles.get(role).ok_or(Error::RoleNotFound)?.clone();
        let is_same = |own: &&mut Permission| own.key == permission.key && own.range_end == permission.range_end;
        match permissions.iter_mut().find(is_same) {
            Some(own) => own.kind = permission.kind,
            None => {
                // A copy: the key is a slice of its entry, which would stay in memory as long as the permission.
                let Permission { kind, key, range_end } = permission;
                let copy = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
                permissions.push(Permission { kind, key: copy(key), range_end: copy(range_end) });
                permissions.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        self.count(batch);
        self.put_role(role, permissions, batch);
        Ok(())
    }

    fn role_revoke(&mut self, role: &str, key: &[u8], range_end: &[u8], batch: &mut Batch) -> Result<(), Error> {
        let mut permissions = self.roles.get(role).ok_or(Error::RoleNotFound)?.clone();
        let before = permissions.len();
        permissions.retain(|own| own.key.as_ref() != key || own.range_end.as_ref() != range_end);
        if permissions.len() == before {
            return Err(Error::PermissionNotGranted);
        }
        self.count(batch);
        self.put_role(role, permissions, batch);
        Ok(())
    }

    /// Counts a change; the revision that it makes.
    fn count(&mut self, batch: &mut Batch) -> u64 {
        self.revision += 1;
        batch.put(Rows::Auth, rows::AUTH_REVISION, Bytes::copy_from_slice(&self.revision.to_be_bytes()));
        self.revision
    }

    fn put_user(&mut self, name: String, user: User, batch: &mut Batch) {
        let row = UserRow {
            name: Bytes::copy_from_slice(name.as_bytes()),
            password: user.password.clone(),
            roles: user.roles.clone(),
            options: user.no_password.map(|no_password| UserOptions { no_password }),
        };
        batch.put(Rows::Auth, rows::key(rows::USER, &name), row.encode_to_vec());
        let (since, revision) = rows::since_row(name.as_bytes(), user.since);
        batch.put(Rows::Auth, since, revision);
        self.users.insert(name.clone(), user);
        self.unite(&name);
    }

    fn put_role(&mut self, name: &str, permissions: Vec<Permission>, batch: &mut Batch) {
        batch.put(Rows::Auth, rows::key(rows::ROLE, name), rows::role_row(name, &permissions));
        self.roles.insert(name.to_owned(), permissions);
        for holder in self.holders(name) {
            self.unite(&holder);
        }
    }

    /// Users who have a role.
    fn holders(&self, role: &str) -> Vec<String> {
        let holders = self.users.iter().filter(|(_, user)| user.roles.iter().any(|own| own == role));
        holders.map(|(name, _)| name.clone()).collect()
    }

    /// Makes anew what a user's roles let them do together.
    fn unite(&mut self, name: &str) {
        let Some(user) = self.users.get_mut(name) else { return };
        let permissions = || user.roles.iter().filter_map(|role| self.roles.get(role)).flatten();
        let of = |kinds: [Kind; 2]| {
            permissions().filter(|own| kinds.contains(&own.kind)).map(Permission::range).collect::<Ranges>()
        };
        let (reads, writes) = (of([Kind::Read, Kind::ReadWrite]), of([Kind::Write, Kind::ReadWrite]));
        (user.reads, user.writes) = (reads, writes);
    }
}

fn text(name: &[u8]) -> Option<String> {
    String::from_utf8(name.to_vec()).ok()
}
