//! Snapshots: rows of a store in checked, numbered chunks, over a connection of their own.
//!
//! ```text
//!   sender                                  receiver
//!     header (which snapshot) ────────────▶   what of it is here already?
//!     ◀──────────────────── the last row that is
//!     chunk 1, 2, 3 … ────────────────────▶   checks number and CRC32C, writes
//!     ◀──────────────────── taken up to 1, 2, …       at most WINDOW chunks are ahead of this
//!     last chunk ─────────────────────────▶   makes it durable, gives it to the member
//!     ◀──────────────────── complete
//! ```
//!
//! A transfer that breaks off is dialled again and goes on where the receiver says, as long as tries in a row bring it further.

mod beside;
mod receive;
mod send;
mod throttle;

pub(super) use receive::{Source, receive};
pub(super) use send::send;
pub(super) use throttle::Throttle;

/// Chunks that may be on their way without an acknowledgement.
pub(super) const WINDOW: usize = 8;
/// About how large a chunk is, in bytes of keys and values.
const CHUNK_BYTES: usize = 256 << 10;
