//! Seeing the ring: which proxies there are, who stands behind whom, and how far the copies of each have come.
//!
//! **Promises.** A roster is soft state with a bound: it knows who was heard of lately, says who is lost, and forgets. What it costs depends
//! on how many proxies there are, and not on what they do: whoever listens says how often it wants to hear, so that all together say
//! no more than [`NEWS_PER_S_MAX`] things a second. A proxy tells of those behind it in its own reports, so a member knows the whole tree
//! below it. **May not know** what a member or a proxy is made of: [`Host`] and [`Site`] tell; nor what users and permissions mean, which
//! [`Ledger`] has and `ledger` carries to those who are trusted.
//!
//! ```text
//!   leaf ── Reports ─▶ proxy: Roster ── Reports: news of all behind it ─▶ member: Roster ◀─ List ─ hengectl ring
//!        ◀── Pace ───                ◀── Pace: how often; a goal ───────
//! ```

mod ledger;
mod news;
mod reporter;
mod roster;
mod service;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use roster::fuzz;

pub use ledger::Ledger;
pub use reporter::{Site, Target, report};
pub use roster::{LISTENED_MIN, Line, NEWS_PER_S_MAX, Roster};
pub use service::{Host, RingService};

/// The name of the member that a host becomes which volunteers at `peer_url`, as a proxy of this name. No two members have the same URL,
/// and so no two the same name; and whoever sees it knows where it comes from.
pub fn standby_name(proxy: &str, peer_url: &str) -> String {
    let address = peer_url.split_once("://").map_or(peer_url, |(_, address)| address);
    // What would separate it from others in `--initial-cluster`.
    format!("{}@{address}", proxy.replace([',', '='], "-"))
}

/// Whether a member of this name at `peer_url` is a host that has volunteered.
pub fn is_standby_name(name: &str, peer_url: &str) -> bool {
    name.rsplit_once('@').is_some_and(|(proxy, _)| standby_name(proxy, peer_url) == name)
}

/// Farther from the core than this no proxy can be: calls would be refused on the way.
pub const TIER_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_standby_tells_where_it_is() {
        let url = "http://10.0.0.9:2380";
        assert_eq!(standby_name("a,b=c", url), "a-b-c@10.0.0.9:2380");
        assert!(is_standby_name(&standby_name("me@home", url), url));
        assert!(!is_standby_name("a@10.0.0.8:2380", url) && !is_standby_name("a", url) && !is_standby_name("", url));
    }
}
