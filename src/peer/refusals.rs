//! Log lines about strangers, one for each reason: strangers try again all the time.

use crate::types::MemberId;
use parking_lot::Mutex;
use std::{collections::BTreeSet, net::SocketAddr};

/// Reasons that are remembered. With more of them the log begins anew.
const SEEN_MAX: usize = 256;

#[derive(Default)]
pub(super) struct Refusals {
    seen: Mutex<BTreeSet<(MemberId, String)>>,
}

impl Refusals {
    /// Logs the refusal of `from`, unless it was refused for the same reason before.
    pub(super) fn log(&self, from: MemberId, remote: Option<SocketAddr>, why: &str) {
        let is_new = {
            let mut seen = self.seen.lock();
            if seen.len() >= SEEN_MAX {
                seen.clear();
            }
            seen.insert((from, why.to_owned()))
        };
        if is_new {
            let remote = remote.map(tracing::field::display);
            tracing::warn!(remote_addr = remote, remote_peer_id = %from, error = why, "rejected connection on peer endpoint");
        }
    }
}
