//! The bytes of a stored version: row key and row value, both as etcd writes them.
//!
//! A row key is a revision: main and sub as 8 big-endian bytes each, `_` between them, and `t` at the end if the row is a
//! tombstone. A row value is the protobuf encoding of `mvccpb.KeyValue`; a tombstone's has the key only. The codec is written by
//! hand because it runs for every write and every row that is read, and because decoding must not copy.

use crate::types::{Key, LeaseId, Revision};
use bytes::Bytes;

/// One version of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// The value. Empty in a tombstone.
    pub value: Bytes,
    /// Revision at which this generation of the key began. 0 in a tombstone.
    pub create_revision: Revision,
    /// Revision that wrote this version.
    pub mod_revision: Revision,
    /// Number of puts since creation, from 1. 0 in a tombstone.
    pub version: i64,
    /// The lease that the key is attached to, or [`LeaseId::NONE`].
    pub lease: LeaseId,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The key was created or got a new version.
    Put,
    /// The key was deleted, by a request or with its lease.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new version. Of a delete: key and `mod_revision` only.
    pub kv: KeyValue,
    /// The version that this one replaced, where it was read. `None` also if there was none: a put with `kv.version` 1.
    pub prev: Option<KeyValue>,
}
