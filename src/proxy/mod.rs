//! The ring: proxies on the hosts, each as consistent as the core.
//!
//! **Promises.** What is answered here is what upstream would answer: a linearizable read is preceded by a linearizable read of upstream
//! ([`fence`]), and no copy goes back. What cannot be answered exactly is passed on. Every local answer says how old it may be.
//! **May not know** how upstream replicates, or what its store is.
//!
//! ```text
//!   upstream ── pages at one revision ─▶ feed ─▶ Writer ─▶ mvcc::Store ─▶ readers ─▶ kv (Range)
//!            ── watch from there on ───▶         (one copy of one range)  └▶ watch::Hub ─▶ watchers
//!            ◀─ one fence for all who wait ── fence ◀── linearizable reads
//! ```

pub mod age;
pub mod copies;
pub mod copy;
pub mod feed;
pub mod fence;
pub mod kv;
pub mod source;

#[cfg(test)]
mod tests;

pub use copies::{Copies, Settings};
pub use copy::Copy;
pub use source::Source;
