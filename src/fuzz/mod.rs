//! What takes bytes from elsewhere, under arbitrary bytes: one target for each way in.
//!
//! **Promises.** A target returns, whatever it is given: bytes that are no good are refused in words, and what is accepted keeps to what its
//! room promises, which the target looks at. It depends on its input alone, and leaves nothing behind. **May not know** who makes the bytes:
//! libFuzzer does (`tests/fuzz`), and the tests here, from the same seeds, a little with every `cargo test`.
//!
//! The targets stand in their rooms (`fuzz.rs`), where they see what nobody else should. What is checksummed comes in two forms, as it is and
//! with checksums that fit: no fuzzer guesses one.

#[cfg(test)]
mod tests;

use crate::{backup, bolt, config, ctl, gateway, machine, peer, proxy, ring, server, wal};

/// A way in.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As its folder of inputs is called.
    pub name: &'static str,
    /// Feeds it.
    pub feed: fn(&[u8]),
    /// Inputs to begin with: files of etcd's and of ours.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs `cargo test` tries. Each target has about a second.
    pub cases: usize,
}

const fn of(name: &'static str, feed: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>, cases: usize) -> Target {
    Target { name, feed, seeds, cases }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    of("machine", machine::fuzz::target, machine::fuzz::seeds, 400),
    of("requests", server::check::fuzz::target, server::check::fuzz::seeds, 3_000),
    of("wal", wal::fuzz::target, wal::fuzz::seeds, 5_000),
    of("bolt", bolt::fuzz::target, bolt::fuzz::seeds, 5_000),
    of("import", backup::fuzz::target, backup::fuzz::seeds, 400),
    of("gateway", gateway::fuzz::target, gateway::fuzz::seeds, 5_000),
    of("config", config::fuzz::target, config::fuzz::seeds, 1_000),
    of("tokens", server::fuzz::target, server::fuzz::seeds, 3_000),
    of("txn", ctl::fuzz::target, ctl::fuzz::seeds, 5_000),
    of("peer", peer::fuzz::target, peer::fuzz::seeds, 20_000),
    of("ring", ring::fuzz::target, ring::fuzz::seeds, 10_000),
    of("shelf", proxy::fuzz::target, proxy::fuzz::seeds, 10_000),
];

/// The target of this name.
///
/// # Panics
/// If there is none: it is the name of a program.
pub fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target {name:?}"))
}
