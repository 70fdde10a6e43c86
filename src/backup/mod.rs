//! Backups in etcd's own format: a snapshot file out of a store, and a data directory out of a snapshot file or of etcd's directory.
//!
//! **Promises.** What [`export`] writes is a state that was there, whole: etcd's tools check it, restore it, and etcd then serves the same
//! keys at the same revisions with the same hash. What is taken up ([`restore`], [`adopt`]) was checked first, page by page and row by row;
//! a data directory appears under its name only when it is complete. Memory does not grow with the store, but for what a running member
//! holds too (the index of keys).
//! **May not know** who asks for a backup, or how it travels.
//!
//! ```text
//!   engine's checkpoint ─ export ─▶ bolt::Writer ─▶ file, SHA-256        snapshot file ─┐
//!                         rows: etcd's encoding of what is not the same                 ├─ import ─▶ fresh store ─▶ data directory
//!                                                       etcd's directory: database, log ┘
//! ```
//! The rows of keys are the same in both worlds and are copied as they are. Users and roles are kept verbatim in [`Table::Auth`], each
//! under its key with a letter before it that names the bucket: `a` settings, `u` users, `r` roles.
//!
//! [`Table::Auth`]: crate::engine::Table::Auth

mod adopt;
mod defragment;
mod export;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod golden;
mod hash;
mod import;
mod place;
mod progress;
mod replay;
mod request;
mod restore;
mod rows;
#[cfg(test)]
mod tests;

pub use adopt::{Adopt, Adopted, adopt};
pub use defragment::MemberDir;
pub use export::export;
pub use file::{HashCheck, SnapshotFile, Status, status};
pub use hash::hash_kv;
pub use import::Imported;
pub use progress::Progress;
pub use restore::{Restore, Restored, restore};

use crate::{bolt, types::Fault};
use std::path::PathBuf;

/// The version of etcd's storage that an exported file claims.
pub const STORAGE_VERSION: &str = "3.7.0";

/// Why a backup could not be made or taken up. Nothing here is a reason for a running member to stop but [`Error::Store`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Our own store or log.
    #[error(transparent)]
    Store(#[from] Fault),
    /// The bytes of a bbolt file.
    #[error("{}: {source}", path.display())]
    Bolt {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: bolt::Error,
    },
    /// A file, a folder or a flag that can't be used.
    #[error("{}: {what}", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
}

impl Error {
    fn unusable(path: impl Into<PathBuf>, what: impl Into<String>) -> Error {
        Error::Unusable { path: path.into(), what: what.into() }
    }
}

/// etcd's buckets, in the order of their names.
pub(crate) mod bucket {
    pub const ALARM: &[u8] = b"alarm";
    pub const AUTH: &[u8] = b"auth";
    pub const AUTH_ROLES: &[u8] = b"authRoles";
    pub const AUTH_USERS: &[u8] = b"authUsers";
    pub const CLUSTER: &[u8] = b"cluster";
    pub const KEY: &[u8] = b"key";
    pub const LEASE: &[u8] = b"lease";
    pub const MEMBERS: &[u8] = b"members";
    pub const MEMBERS_REMOVED: &[u8] = b"members_removed";
    pub const META: &[u8] = b"meta";
}

/// Buckets of users, roles and settings, and the letter before their keys in our own table.
const AUTH_BUCKETS: [(&[u8], u8); 3] = [(bucket::AUTH, b'a'), (bucket::AUTH_ROLES, b'r'), (bucket::AUTH_USERS, b'u')];
