//! The words that every room shares: numbers with names, keys and ranges, log entries, refusals and faults.
//!
//! **Promises.** Values only: nothing here does I/O, waits or logs. **May not know** any other room.

mod conf;
mod entry;
mod error;
mod fault;
mod id;
mod key;
mod sabotage;
mod stop;

pub use conf::{ConfChange, ConfRefusal, ConfState, ConfStep, ConfStepKind};
pub use entry::{Entry, EntryKind, HardState, SnapshotMeta};
pub use error::Error;
pub use fault::Fault;
pub use id::{ClusterId, Index, LeaseId, MemberId, Revision, Term};
pub use key::{Key, KeyRange, prefix_end};
pub use sabotage::Sabotage;
pub use stop::Stop;
