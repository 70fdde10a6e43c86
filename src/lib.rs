//! henge: a Raft-replicated, persistent key-value store that speaks etcd's v3 API.
//!
//! Each module is a room; a room imports only rooms above it in this list (`tests/tidy.rs` holds the rules, `ARCHITECTURE.md`
//! walks through the house).

pub mod pb;
pub mod types;

#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod io;

pub mod client;

#[cfg(feature = "ctl")]
pub mod ctl;
