//! What a member tells the cluster of itself: its name and where clients find it; and the first leader, which version all speak.

use super::run::Run;
use crate::{machine::Command, raft::Role};
use std::time::Duration;

/// How soon what was told and is not seen in the state is told again.
const AGAIN: Duration = Duration::from_secs(2);

/// What there is to tell.
pub(super) struct Announcement {
    pub(super) name: String,
    pub(super) client_urls: Vec<String>,
    /// When it may be told again.
    pub(super) next: Duration,
}

/// The version of etcd's API and state that the members speak.
const CLUSTER_VERSION: &str = "3.7.0";

impl Run {
    /// Proposes what the state does not say yet.
    pub(super) fn announce(&mut self, now: Duration) {
        let status = self.node.status();
        if now < self.announcement.next || status.leader.is_none() {
            return;
        }
        let view = &self.shared.view;
        let Announcement { name, client_urls, .. } = &self.announcement;
        let mut commands = Vec::new();
        // One that is not in the state yet, or not any more, has nothing to tell.
        let known = view.member(self.shared.member_id);
        if known.is_some_and(|known| known.name != *name || known.client_urls != *client_urls) {
            let (member, name, client_urls) = (self.shared.member_id, name.clone(), client_urls.clone());
            commands.push(Command::MemberAttributes { member, name, client_urls });
        }
        if status.role == Role::Leader && view.cluster_version().is_none() {
            commands.push(Command::ClusterVersionSet { version: CLUSTER_VERSION.to_owned() });
        }
        if !commands.is_empty() {
            self.announcement.next = now + AGAIN;
            self.propose_own(commands);
        }
    }
}
