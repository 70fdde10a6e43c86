//! henge: a Raft-replicated, persistent key-value store that speaks etcd's v3 API.
//!
//! Each module is a room; a room imports only rooms that stand before it in the layout (`tests/tidy.rs` holds the rules,
//! `ARCHITECTURE.md` walks through the house).

pub mod pb;
mod runtime;
pub mod tls;
pub mod types;

#[cfg(feature = "server")]
pub mod bolt;
#[cfg(feature = "server")]
pub mod config;
#[cfg(any(feature = "server", feature = "ctl"))]
pub mod dns;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(any(feature = "server", feature = "ctl"))]
mod go;
#[cfg(feature = "server")]
pub mod io;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod places;

#[cfg(feature = "server")]
pub mod mvcc;
#[cfg(feature = "server")]
pub mod raft;
#[cfg(feature = "server")]
pub mod wal;

#[cfg(feature = "server")]
pub mod alarm;
#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
pub mod lease;
#[cfg(feature = "server")]
pub mod membership;

#[cfg(feature = "server")]
pub mod machine;

#[cfg(feature = "server")]
pub mod backup;
#[cfg(feature = "server")]
pub mod watch;

#[cfg(feature = "server")]
pub mod replica;

#[cfg(feature = "server")]
pub mod peer;

#[cfg(feature = "server")]
pub mod ring;
#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "server")]
pub mod gateway;

pub mod client;

#[cfg(feature = "server")]
pub mod proxy;

#[cfg(feature = "server")]
pub mod process;

#[cfg(feature = "ctl")]
pub mod ctl;

// Arbitrary bytes for whatever takes some: for tests and for `tests/fuzz`, never in a release.
#[cfg(all(any(test, feature = "fuzzing"), feature = "server", feature = "ctl"))]
#[doc(hidden)]
pub mod fuzz;

// The simulated world: for tests, never in a release.
#[cfg(all(test, feature = "server"))]
mod sim;
