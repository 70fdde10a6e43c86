//! Who may do what: users, roles, permissions, and what proves that somebody is a user.
//!
//! **Promises.** Users, roles and the switch are a function of the log alone; a change and its rows go into the same batch, in etcd's
//! own form. Whether somebody may do something depends on that state and on who asks, on nothing else. Passwords are never kept,
//! and never compared where a log is applied: what is replicated is their hash.
//! **May not know** what a request is made of (that is `machine`'s), who is connected, or what time it is: whoever asks brings it.
//!
//! ```text
//!   password ─ hash ─▶ Request ─ log ─▶ Table: users ─ roles ─ permissions ─▶ Ranges of each user
//!   token, certificate ──▶ Author (a user, and since when that is known) ──────▶ Table::permits ─▶ Permits::read, write, admin
//! ```
//!
//! A token says who somebody is, and not what they may: so no change of permissions ends one. What ends tokens is a change of the
//! user's own record, a new password or a deletion: each user has the revision *since* which what proves them holds, and an author
//! who was known before that has to prove it again.

mod password;
mod permission;
mod request;
mod rows;
mod table;
mod token;

#[cfg(test)]
mod tests;

pub use password::{COST_DEFAULT, COST_MAX, COST_MIN, hash, matches};
pub use permission::{Kind, Permission, Ranges};
pub use request::{Reply, Request};
pub use rows::{AUTH_REVISION, since_row};
pub use table::{Facts, Permits, Table, UserFacts};
pub use token::{SimpleTokens, index_of, prefix};

use std::sync::Arc;

/// The user without whom auth can't be enabled, and the role that may do everything.
pub const ROOT: &str = "root";

/// Who asks for something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Author {
    /// Somebody who has not said who they are.
    #[default]
    Nobody,
    /// A member, on its own account: a lease that has run out, an alarm.
    Member,
    /// A proxy that the core trusts, for its copies: it may read everything, and do nothing.
    Proxy,
    /// A user.
    User {
        /// By this name.
        name: Arc<str>,
        /// The auth revision at which that was proven.
        revision: u64,
    },
}

impl Author {
    /// A user who proved it at `revision`.
    pub fn user(name: &str, revision: u64) -> Author {
        Author::User { name: name.into(), revision }
    }

    /// As two fields of a command in the log. A member writes what etcd's members write: root.
    pub fn to_header(&self) -> (&str, u64) {
        match self {
            // Nothing that a proxy's copies need is done by the log: what got there all the same is nobody's.
            Author::Nobody | Author::Proxy => ("", 0),
            Author::Member => (ROOT, u64::MAX),
            Author::User { name, revision } => (name, *revision),
        }
    }

    /// The inverse of [`Author::to_header`].
    pub fn from_header(name: &str, revision: u64) -> Author {
        match (name, revision) {
            (_, 0) => Author::Nobody,
            (ROOT, u64::MAX) => Author::Member,
            _ => Author::user(name, revision),
        }
    }
}
