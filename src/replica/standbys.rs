//! Hosts that volunteer to become members: each tells one member of itself, and the leader has to know them all.

use super::{
    handle::{Handle, Shared},
    transport::{Letter, PeerMessage, Standby},
};
use crate::types::MemberId;
use std::{collections::BTreeMap, time::Duration};

/// What another member has told counts for so long.
const TOLD_KEPT: Duration = Duration::from_secs(10);
/// Of how many hosts a member tells, or is told by each other one.
const STANDBYS_MAX: usize = 1_000;
/// How long a URL may be.
const URL_MAX: usize = 256;

/// What other members have told, and when.
#[derive(Default)]
pub(super) struct Standbys(BTreeMap<MemberId, (Duration, Vec<Standby>)>);

impl Standbys {
    fn note(&mut self, from: MemberId, mut standbys: Vec<Standby>, now: Duration) {
        self.0.retain(|_, (at, _)| now < *at + TOLD_KEPT);
        standbys.retain(|standby| standby.peer_url.len() <= URL_MAX);
        standbys.truncate(STANDBYS_MAX);
        self.0.insert(from, (now, standbys));
    }

    fn told(&self, now: Duration) -> Vec<Standby> {
        let fresh = self.0.values().filter(|(at, _)| now < *at + TOLD_KEPT);
        fresh.flat_map(|(_, standbys)| standbys.clone()).collect()
    }
}

impl Shared {
    pub(super) fn note_standbys(&self, from: MemberId, standbys: Vec<Standby>) {
        self.standbys.lock().note(from, standbys, self.clock.now());
    }
}

impl Handle {
    /// Tells the leader which hosts volunteer, if another member leads. It may not arrive, and is forgotten after a while: to be told again.
    pub fn tell_standbys(&self, mut standbys: Vec<Standby>) {
        let leader = *self.shared.leader.borrow();
        if let Some(leader) = leader.filter(|leader| *leader != self.shared.member_id) {
            standbys.truncate(STANDBYS_MAX);
            self.shared.transport.send(vec![Letter { to: leader, message: PeerMessage::Standbys(standbys) }]);
        }
    }

    /// Hosts that volunteer, as other members have told lately.
    pub fn told_standbys(&self) -> Vec<Standby> {
        self.shared.standbys.lock().told(self.shared.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_again_is_forgotten() {
        let standby = |url: &str| Standby { peer_url: url.to_owned(), is_there: true };
        let mut standbys = Standbys::default();
        standbys.note(MemberId(1), vec![standby("a"), standby(&"long".repeat(URL_MAX))], Duration::ZERO);
        standbys.note(MemberId(2), vec![standby("b")], Duration::from_secs(6));
        assert_eq!(standbys.told(Duration::from_secs(9)), [standby("a"), standby("b")]);
        assert_eq!(standbys.told(Duration::from_secs(10)), [standby("b")]);
        standbys.note(MemberId(2), Vec::new(), Duration::from_secs(11));
        assert!(standbys.told(Duration::from_secs(11)).is_empty() && standbys.0.len() == 1);
    }
}
