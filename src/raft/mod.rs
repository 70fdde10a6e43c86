//! Agreement on one log among members that may crash and lose messages: Raft, as a pure function of its inputs.
//!
//! **Promises.** What is reported as committed is on the disks of a quorum, in the same place, for ever. At most one member leads a term.
//! A read that is answered with an index sees every write that was committed before the read was asked for. A leader counts
//! itself only for what is on its own disk; so does a lone voter.
//! **May not know** a clock, a disk, a network, chance (but for a seed that varies the wait before elections), or what an entry means.
//!
//! *Roles.* A follower that hears no leader for a random while asks around (pre-candidate), then campaigns (candidate), then leads.
//! *Terms* count elections; every message carries one, and `node.rs` is the gate at which older ones are turned away.
//! *The log* (`log.rs`) is the leader's; it is streamed to followers within a window (`progress.rs`), and committed when a quorum
//! (`quorum.rs`, `config.rs`) has it on disk and the last of it is of the leader's own term. *Reads* (`read.rs`) take no place in the log.
//! *States* of other members stand in for entries that nobody has any more; raft only decides whether one is taken over
//! ([`Input::Restore`]). *Transfers* (`transfer.rs`) spare everyone the wait for an election.
//!
//! ```text
//!   inputs ──► node ──► role (follower | candidate | leader) ──► output: send now │ to disk, then send │ committed │ reads
//!                          └── core (term, vote, log, members) ◄── persisted ────────────┘
//! ```
//!
//! *What we changed from the paper.* Elections ask first (PreVote) and members that hear a leader ignore candidates, while leaders that
//! hear no quorum step down (CheckQuorum): a member with a bad link costs the others nothing. A pre-vote carries the sender's real
//! term, not the next one, so the gate needs no exception. The leader writes its disk while the followers write theirs. A refused append
//! names a term to skip to. Membership counts from when an entry is applied, not when it is appended, one change at a time; so the log
//! itself tells that all changes in it but the last are committed. A leader that is removed goes when those who stay have that on disk,
//! and from then on protects with its vote only what is committed.

mod candidate;
mod config;
mod core;
mod follower;
mod leader;
mod log;
mod message;
mod node;
mod output;
mod progress;
mod quorum;
mod read;
mod status;
mod transfer;

#[cfg(test)]
mod script;
#[cfg(test)]
mod tests;

pub use crate::types::{ConfChange, ConfRefusal, ConfStep, ConfStepKind};
pub use config::Members;
pub use message::{Body, Envelope, LogId, Message};
pub use node::Node;
pub use output::{Config, Input, Output, Proposal, ReadId, Restored};
pub use progress::Phase;
pub use quorum::{Verdict, majority};
pub use status::{FollowerStatus, Role, Status};
