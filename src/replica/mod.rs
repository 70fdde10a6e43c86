//! One member: it drives raft, wal, machine and the watch hub. Proposals in, replies out.
//!
//! **Promises.** A proposal is answered once, in bounded time: with its outcome after it was applied here, or with an error that says
//! why that is not known. Nothing is applied before it is on disk here, and nothing is answered before it is applied. A fault
//! stops the member; it never limps on. **May not know** gRPC, HTTP or who the clients are.
//!
//! ```text
//!              handle ──inbox──▶ run (owns raft) ──▶ persist (owns wal: append, one fdatasync) ──┐
//!                ▲                 ▲   │                                                         │
//!                │                 └───┼──────────────────── Persisted ◀─────────────────────────┘
//!             replies                  └──▶ apply (owns machine) ──▶ hub, leases, waiting reads
//!                └────────────────────────────┘        flush: the store to disk, ten times a second if written to
//! ```
//!
//! The loop in `run` never waits for a disk. The threads hand each other batches: whatever has come in while one batch was on its way
//! is the next one, so that under load a put costs a fraction of a wake-up and a fraction of an `fdatasync`.

mod announce;
mod apply;
mod bootstrap;
mod compactor;
mod company;
mod desk;
mod expiry;
mod flush;
mod founding;
mod handle;
mod hashes;
mod health;
mod letters;
mod narrow;
mod pace;
mod persist;
mod proposals;
mod reads;
mod retention;
mod roster;
mod run;
mod snapshots;
mod standbys;
mod submit;
mod tally;
mod tasks;
mod transport;

pub use bootstrap::{Settings, StartAs, has_log, start};
pub use compactor::AutoCompaction;
pub use handle::{Handle, Status};
pub use snapshots::Incoming;
pub use tally::{Stages, Tally};
pub use transport::{Answer, Forwarded, Haste, Letter, Outgoing, PeerMessage, Question, Row, Standby, Transport};

// A member taken apart, for the simulator.
#[cfg(test)]
pub(crate) use {
    apply::Committed,
    bootstrap::{Ground, Parts, assemble},
    tasks::{Task, Tasks},
};

#[cfg(test)]
mod tests;
