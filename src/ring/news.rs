//! What is to be told upstream of those behind: what has changed since, and who has gone.

use super::roster::Entry;
use crate::{pb::henge::ring::Proxy, types::Revision};
use std::{collections::BTreeMap, time::Duration};

/// Which news are to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    All,
    /// Those of proxies that have come to a goal since they were last told of.
    Reached(Revision),
}

/// What a listener was told of whom.
#[derive(Default)]
pub(super) struct Told(BTreeMap<u64, Seen>);

struct Seen {
    identity_version: u32,
    state_version: u32,
    revision: Revision,
    at: Duration,
    named_at: Duration,
}

/// Names are told again after this, together with other news: whoever had no room for them may have it now.
const NAMED_AGAIN_AFTER: Duration = Duration::from_secs(300);

impl Told {
    /// News of `entries` since this was last asked, as far as it `wants` them, and who is no more. Whoever was told of before `again_after` is
    /// told of again.
    pub(super) fn diff(
        &mut self,
        entries: &BTreeMap<u64, Entry>,
        wants: Wants,
        again_after: Duration,
        now: Duration,
    ) -> (Vec<Proxy>, Vec<u64>) {
        let mut news = Vec::new();
        for (id, entry) in entries {
            let seen = self.0.get(id);
            let is_due = match (wants, seen) {
                (Wants::All, Some(seen)) => {
                    (seen.identity_version, seen.state_version) != (entry.identity_version, entry.state_version)
                        || now >= seen.at + again_after
                }
                (Wants::All, None) => true,
                (Wants::Reached(goal), Some(seen)) => seen.revision < goal && entry.revision() >= goal,
                (Wants::Reached(_), None) => false,
            };
            if !is_due {
                continue;
            }
            let named_at =
                seen.filter(|seen| seen.identity_version == entry.identity_version).map(|seen| seen.named_at);
            let is_named = named_at.is_none_or(|at| now >= at + NAMED_AGAIN_AFTER);
            news.push(entry.proxy(*id, is_named, now));
            let named_at = named_at.filter(|_| !is_named).unwrap_or(now);
            let Entry { identity_version, state_version, .. } = *entry;
            let seen = Seen { identity_version, state_version, revision: entry.revision(), at: now, named_at };
            self.0.insert(*id, seen);
        }
        let mut gone = Vec::new();
        if wants == Wants::All {
            self.0.retain(|id, _| {
                let stays = entries.contains_key(id);
                if !stays {
                    gone.push(*id);
                }
                stays
            });
        }
        (news, gone)
    }
}
