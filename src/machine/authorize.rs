//! Whether somebody may do what they ask for: the one place that says which permission each part of a request needs.
//!
//! It is asked twice, by the member that takes a request in, and again when the entry is applied, with the state that the log has by
//! then: a permission that was taken away earlier in the log is gone. What a request holds is walked whole, all branches of
//! nested transactions included, whichever of them runs: else an answer would tell which one it was.

use super::command::{AlarmAction, Command, DeleteRange, Op, Put, Txn};
use crate::{
    auth::{self, Author, Permits, Request},
    lease,
    types::{Error, KeyRange, LeaseId},
};

/// Whether `author` may have `command` done, in this state.
///
/// # Errors
/// etcd's: [`Error::UserEmpty`] for nobody, [`Error::PermissionDenied`], [`Error::UserNotFound`] where only root may;
/// [`Error::AuthOldRevision`] for a user whose record has changed since it was proven.
///
/// Differs from etcd in that an unrelated change of users or roles is no reason to refuse: it is decided again here.
pub(super) fn authorize(
    auth: &auth::Table,
    leases: &lease::Table,
    author: &Author,
    command: &Command,
) -> Result<(), Error> {
    if !auth.is_enabled() {
        return Ok(());
    }
    // Whoever is about to log in is nobody yet; whether one has to is told to everybody, as in etcd.
    if let Command::Auth(Request::Authenticate { .. } | Request::Status) = command {
        return Ok(());
    }
    let permits = auth.permits(author)?;
    let check = Check { permits, leases };
    match command {
        Command::Range(query) => permits.read(&query.range),
        Command::Put(put) => check.put(put),
        Command::DeleteRange(delete) => check.delete(delete),
        Command::Txn(txn) => check.txn(txn),
        Command::LeaseRevoke { id } => check.lease(*id),
        // Whoever is somebody.
        Command::LeaseGrant { .. } | Command::Alarm { action: AlarmAction::Get, .. } => Ok(()),
        Command::Compact { .. } | Command::Alarm { .. } => permits.admin(),
        Command::Auth(request) => about_users(auth, permits, author, request),
        // Nothing that clients can ask for in these words: members propose them, and who asked a member was looked at then.
        Command::LeaseCheckpoint(_)
        | Command::ClusterVersionSet { .. }
        | Command::MemberAttributes { .. }
        | Command::DowngradeInfo { .. } => Ok(()),
    }
}

/// Whether `author` may read all of `range`, by `auth`: for whoever answers reads, be it a member from its state or a proxy from what it was
/// told of that.
///
/// # Errors
/// Why not, in etcd's words: as for a command that reads it.
pub fn authorize_read(auth: &auth::Table, author: &Author, range: &KeyRange) -> Result<(), Error> {
    auth.permits(author)?.read(range)
}

/// Whether `author` may do what only root may, by `auth`.
///
/// # Errors
/// Why not, in etcd's words: as for a change of users.
pub fn authorize_admin(auth: &auth::Table, author: &Author) -> Result<(), Error> {
    auth.permits(author)?.admin()
}

/// [`authorize`] of a transaction that is no command, for it only reads.
pub(super) fn authorize_txn(
    auth: &auth::Table,
    leases: &lease::Table,
    author: &Author,
    txn: &Txn,
) -> Result<(), Error> {
    Check { permits: auth.permits(author)?, leases }.txn(txn)
}

/// Users may read their own record, and their roles.
fn about_users(auth: &auth::Table, permits: Permits<'_>, author: &Author, request: &Request) -> Result<(), Error> {
    let is_own = match (author, request) {
        (Author::User { name, .. }, Request::UserGet { name: asked }) => **name == **asked,
        (Author::User { name, .. }, Request::RoleGet { name: role }) => auth.has_role(name, role),
        _ => false,
    };
    if is_own { Ok(()) } else { permits.admin() }
}

#[derive(Clone, Copy)]
struct Check<'a> {
    permits: Permits<'a>,
    leases: &'a lease::Table,
}

impl Check<'_> {
    fn put(self, put: &Put) -> Result<(), Error> {
        let key = KeyRange::One(put.key.clone());
        self.permits.write(&key)?;
        // Who could not end the lease must not tie anything to it.
        self.lease(put.lease)?;
        if put.prev_kv { self.permits.read(&key) } else { Ok(()) }
    }

    fn delete(self, delete: &DeleteRange) -> Result<(), Error> {
        self.permits.write(&delete.range)?;
        if delete.prev_kv { self.permits.read(&delete.range) } else { Ok(()) }
    }

    fn txn(self, txn: &Txn) -> Result<(), Error> {
        txn.compares.iter().try_for_each(|compare| self.permits.read(&compare.range))?;
        txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
            Op::Range(query) => self.permits.read(&query.range),
            Op::Put(put) => self.put(put),
            Op::DeleteRange(delete) => self.delete(delete),
            Op::Txn(txn) => self.txn(txn),
        })
    }

    /// Ending a lease deletes its keys.
    fn lease(self, id: LeaseId) -> Result<(), Error> {
        if matches!(self.permits, Permits::All) {
            return Ok(());
        }
        let keys = self.leases.get(id).into_iter().flat_map(|lease| &lease.keys);
        keys.map(|key| KeyRange::One(key.clone())).try_for_each(|key| self.permits.write(&key))
    }
}
