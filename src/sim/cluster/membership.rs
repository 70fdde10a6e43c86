//! Members come and go: one change at a time is asked for, but nobody waits for its outcome to be known.

use super::{
    calls::{Ask, pick},
    host::{Fate, Host, url},
    plan::S,
    world::{Event, World},
};
use crate::{
    io::Rng,
    membership::{Change, Member},
    replica::StartAs,
    types::MemberId,
};

/// Most machines in a run, and most members at a time.
const HOSTS_MAX: usize = 9;
const MEMBERS_MAX: usize = 6;

impl World {
    /// Asks for one more change.
    pub fn churn(&mut self) {
        let sound = self.sound();
        let Some(at) = pick(&mut self.chance, &sound) else { return };
        if self.changes_open > 0 {
            return;
        }
        let view = self.checkers.oracle.view();
        let (conf, members) = (view.conf_state(), view.members());
        let lost = |id: &MemberId| self.hosts.iter().any(|host| host.id == *id && is_lost(host));
        let lost = conf.voters.iter().chain(&conf.learners).copied().filter(lost).collect::<Vec<_>>();
        let learner = pick(&mut self.chance, &conf.learners);
        match (self.chance.below(4), learner) {
            // Whoever is lost goes first, so that there is room for another failure.
            _ if !lost.is_empty() => self.change(at, Change::Remove(lost[0])),
            (0, Some(id)) => drop(self.call(at, None, Ask::IsReady(id))),
            (1, _) if conf.voters.len() > 3 => {
                let id = pick(&mut self.chance, &conf.voters).expect("there are some");
                self.change(at, Change::Remove(id));
            }
            (2, Some(id)) if self.chance.hits(1, 4) => self.change(at, Change::Remove(id)),
            _ if members.len() < MEMBERS_MAX && self.hosts.len() < HOSTS_MAX => self.add(at),
            _ => {}
        }
        self.arm(at);
    }

    fn add(&mut self, at: usize) {
        let number = self.hosts.len() + 1;
        let id = MemberId(self.chance.next_u64() | 1);
        let is_learner = self.chance.hits(2, 3);
        let member = Member { id, peer_urls: vec![url(number)], is_learner, ..Member::default() };
        let up = self.hosts[at].up.as_ref().expect("it is sound");
        let mut members = self.checkers.oracle.view().members();
        members.push(member.clone());
        let start_as = StartAs::Joined { member_id: id, cluster_id: up.handle.cluster_id(), members };
        let seed = self.chance.next_u64();
        self.hosts.push(Host::new(number, &self.plan, start_as, &self.time, seed));
        // Before it is a member or after it.
        let delay = self.chance.between(1, 2 * S);
        self.after(delay, Event::Start { at: number - 1 });
        self.change(at, Change::Add(member));
    }

    /// A learner says that it is ready.
    pub fn promote(&mut self, at: usize, id: MemberId) {
        if self.hosts[at].up.is_some() && self.changes_open == 0 {
            self.change(at, Change::Promote(id));
        }
    }

    fn change(&mut self, at: usize, change: Change) {
        self.changes_open += 1;
        self.call(at, None, Ask::Change(change));
    }

    /// A change is made, or nobody waits for it any more.
    pub fn change_ended(&mut self, _change: Change, is_made: bool) {
        self.changes_open -= 1;
        self.stats.changes += u64::from(is_made);
    }
}

/// Whether it may be that it never serves again.
fn is_lost(host: &Host) -> bool {
    host.is_tainted || matches!(host.fate, Fate::Damaged(_))
}
