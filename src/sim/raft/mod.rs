//! Raft in the simulated world: real nodes, everything around them from one seed.
//!
//! Members come and go, learn and vote, hand leadership over, and take over each other's states; one run in five is without all that.
//!
//! **Promises.** All that a member's caller may do to its node happens here sooner or later, in any order that the documentation of
//! [`crate::raft::Output`] allows: late and merged completions, outputs of many inputs acted on at once, crashes between any two steps.
//! The checkers look after every step. At the end of a run everything is healed, and the cluster must work again.
//! **May not know** a node's inside; only its status, what it hands out, and what it asks to be written.
//!
//! ```text
//!   queue ─► tick │ deliver │ act │ synced │ told │ state │ client │ fault ─► node.step ─► checkers
//!     ▲                                                                  │ output
//!     └── network (delay, loss) ◄── send now ── act ── write ─► disk ────┘ sync, then send
//! ```

mod alive;
mod checkers;
mod churn;
mod disk;
mod event;
mod links;
mod member;
mod nemesis;
mod plan;
mod tests;
mod world;
