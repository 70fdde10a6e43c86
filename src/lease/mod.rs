//! Leases: keys that live as long as somebody keeps saying so.
//!
//! [`Table`] is replicated: which leases exist, with what time to live and which keys. [`Wheel`] belongs to whoever leads: when
//! each of them ends. The two meet in the log alone: the leader *proposes* to revoke what the wheel calls expired.
//!
//! **Promises.** The table is a function of the log. A lease never ends earlier than it was promised: a new leader gives each
//! lease what the log says it has left, and a renewal that the log contradicts is told so ([`Renewal::Renewed`]). Renewing costs
//! a look-up, with a million leases too.
//! **May not know** the time (it is an argument), who leads, or what a key holds.

mod checkpoint;
mod table;
mod wheel;

pub use checkpoint::{CHECKPOINT_EVERY, CHECKPOINTS_MAX};
pub use table::{Lease, TTL_MAX_S, Table, Terms};
pub use wheel::{Renewal, Wheel};
