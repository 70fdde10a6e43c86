//! Whole members in the simulated world: what runs in production, taken apart into its stages, everything around it from one seed.
//!
//! **Promises.** Each stage of a member (loop, log, apply, flush, sweep, jobs) runs when it has work, after a delay of its own: a slow disk
//! holds up its own stage and no other. A crash comes between any two steps, or in the middle of a write. Checkers look at every entry that
//! anybody applies and at every answer that a client gets. At the end all is healed, and the cluster must work again, in bounded time.
//! **May not know** a member's inside; only what an operator, a client, a peer or a disk sees, and what checkers are shown.
//!
//! ```text
//!   queue ─► stage of a member │ deliver │ snapshot step │ client │ watcher │ fault
//!     ▲            │ letters         ▲           ▲            │ calls          │
//!     └────────────┴── network ──────┘           │            ▼                ▼
//!                        └───────────────────────┘   Handle: propose, read, renew    nemesis
//!   checkers: the log is applied to an oracle as it is first applied by anyone; states, answers and watchers are compared with it
//! ```

mod calls;
mod checkers;
mod clock;
mod executor;
mod host;
mod lives;
mod medium;
mod membership;
mod nemesis;
mod network;
mod plan;
mod proof;
mod ring;
mod stages;
mod tests;
mod watchers;
mod workload;
mod world;
