//! Seeing the ring: which proxies there are, who stands behind whom, and how far the copies of each have come.
//!
//! **Promises.** A roster is soft state with a bound: it knows who was heard of lately, says who is lost, and forgets. What it costs depends
//! on how many proxies there are, and not on what they do: whoever listens says how often it wants to hear, so that all together say
//! no more than [`NEWS_PER_S_MAX`] things a second. A proxy tells of those behind it in its own reports, so a member knows the whole tree
//! below it. **May not know** what a member or a proxy is made of: [`Host`] and [`Site`] tell.
//!
//! ```text
//!   leaf ── Reports ─▶ proxy: Roster ── Reports: news of all behind it ─▶ member: Roster ◀─ List ─ hengectl ring
//!        ◀── Pace ───                ◀── Pace: how often; a goal ───────
//! ```

mod news;
mod reporter;
mod roster;
mod service;

pub use reporter::{Site, Target, report};
pub use roster::{LISTENED_MIN, Line, NEWS_PER_S_MAX, Roster};
pub use service::{Host, RingService};

/// Farther from the core than this no proxy can be: calls would be refused on the way.
pub const TIER_MAX: u32 = 16;
