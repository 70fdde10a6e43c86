//! Which changes of membership are let into the log: what could cost the cluster its quorum is refused before it is proposed.
//!
//! Everything here is a function of its arguments. The answers are those of the member that is asked: it says who is connected to *it*,
//! and its flags count. What must hold on every member alike (no id twice, no URL twice) is decided when the change is applied.

use crate::{
    config::parse_url,
    membership::Member,
    types::{Error, MemberId},
};
use sha1::{Digest, Sha1};
use std::time::Duration;

/// A connection that is younger than this may be one of a member that starts again and again (etcd's health interval).
const SETTLED: Duration = Duration::from_secs(5);

/// What the flags of this member say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `strict-reconfig-check`
    pub strict: bool,
    /// `max-learners`
    pub learners_max: usize,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { strict: true, learners_max: 1 }
    }
}

/// The cluster, as the member that is asked sees it.
pub struct Situation<'a> {
    /// All members.
    pub members: &'a [Member],
    /// The member that is asked.
    pub own: MemberId,
    /// For how long another member has been connected without a break.
    pub connected_for: &'a dyn Fn(MemberId) -> Option<Duration>,
}

impl Situation<'_> {
    fn member(&self, id: MemberId) -> Result<&Member, Error> {
        self.members.iter().find(|member| member.id == id).ok_or(Error::MemberNotFound)
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.is_learner)
    }

    /// How many voters there are, how many of them have ever started, and how many have been connected for long enough.
    fn count(&self) -> Count {
        let mut count = Count { voters: 0, started: 0, settled: 0 };
        for voter in self.voters() {
            count.voters += 1;
            count.started += usize::from(has_started(voter));
            count.settled += usize::from(self.is_connected(voter.id, SETTLED));
        }
        count
    }

    fn is_connected(&self, id: MemberId, at_least: Duration) -> bool {
        id == self.own || (self.connected_for)(id).is_some_and(|time| time >= at_least)
    }
}

struct Count {
    voters: usize,
    started: usize,
    settled: usize,
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// A member tells its name when it starts for the first time.
fn has_started(member: &Member) -> bool {
    !member.name.is_empty()
}

impl Rules {
    /// Whether `new` may join.
    ///
    /// A learner takes nothing away from the quorum, so it may also join while a minority is down: how else should a dead member be
    /// replaced before it is removed? etcd asks that all voters are connected then, too.
    ///
    /// # Errors
    /// [`Error::MemberNotEnoughStarted`], [`Error::Unhealthy`], [`Error::PeerURLExist`], [`Error::TooManyLearners`]
    pub fn may_add(&self, now: &Situation<'_>, new: &Member) -> Result<(), Error> {
        if self.strict {
            let Count { voters, started, settled } = now.count();
            // A second member may join a lone one, or no cluster could ever grow.
            let is_second = voters == 1 && started == 1;
            if !new.is_learner && !is_second && started < quorum(voters + 1) {
                return Err(Error::MemberNotEnoughStarted);
            }
            let needed = if new.is_learner { quorum(voters) } else { voters };
            if settled < needed {
                return Err(Error::Unhealthy);
            }
        }
        if now.members.iter().any(|member| member.peer_urls.iter().any(|url| new.peer_urls.contains(url))) {
            return Err(Error::PeerURLExist);
        }
        let learners = now.members.iter().filter(|member| member.is_learner).count();
        if new.is_learner && learners >= self.learners_max {
            return Err(Error::TooManyLearners);
        }
        Ok(())
    }

    /// Whether `id` may leave.
    ///
    /// # Errors
    /// [`Error::MemberNotFound`], [`Error::MemberNotEnoughStarted`], [`Error::Unhealthy`]
    pub fn may_remove(&self, now: &Situation<'_>, id: MemberId) -> Result<(), Error> {
        let leaving = now.member(id)?;
        if leaving.is_learner {
            return Ok(());
        }
        let Count { voters, started, settled } = now.count();
        if voters == 1 {
            // Whatever the flag says: without a voter there is no cluster.
            return Err(Error::MemberNotEnoughStarted);
        }
        if !self.strict {
            return Ok(());
        }
        if started - usize::from(has_started(leaving)) < quorum(voters - 1) {
            return Err(Error::MemberNotEnoughStarted);
        }
        // A member that is down is no part of what holds the quorum up.
        if !now.is_connected(id, Duration::ZERO) {
            return Ok(());
        }
        if settled.saturating_sub(1) < quorum(voters - 1) {
            return Err(Error::Unhealthy);
        }
        Ok(())
    }

    /// Whether learner `id` may get a vote, as far as the others are concerned; whether it has caught up is for the leader to say.
    ///
    /// etcd does not ask who is connected. Here the voters that are, and the learner, must be a quorum of what the cluster will be:
    /// otherwise the promotion would be the last entry that is ever committed.
    ///
    /// # Errors
    /// [`Error::MemberNotFound`], [`Error::MemberNotLearner`], [`Error::MemberNotEnoughStarted`], [`Error::Unhealthy`]
    pub fn may_promote(&self, now: &Situation<'_>, id: MemberId) -> Result<(), Error> {
        if !now.member(id)?.is_learner {
            return Err(Error::MemberNotLearner);
        }
        if !self.strict {
            return Ok(());
        }
        let Count { voters, started, .. } = now.count();
        if started + 1 < quorum(voters + 1) {
            return Err(Error::MemberNotEnoughStarted);
        }
        let connected = now.voters().filter(|voter| now.is_connected(voter.id, Duration::ZERO)).count();
        if connected + 1 < quorum(voters + 1) {
            return Err(Error::Unhealthy);
        }
        Ok(())
    }
}

/// Whether `to` could lead.
///
/// # Errors
/// [`Error::BadLeaderTransferee`]
pub fn may_lead(members: &[Member], to: MemberId) -> Result<(), Error> {
    match members.iter().any(|member| member.id == to && !member.is_learner && has_started(member)) {
        true => Ok(()),
        false => Err(Error::BadLeaderTransferee),
    }
}

/// Peer URLs in the form and order in which they are kept.
///
/// # Errors
/// [`Error::MemberBadURLs`], also for none at all.
pub fn peer_urls(texts: &[String]) -> Result<Vec<String>, Error> {
    let urls = texts.iter().map(|text| match parse_url(text.trim()) {
        // A path is one too many, even if it is only a slash.
        Ok(url) if !text.trim().ends_with('/') => Ok(url.to_string()),
        _ => Err(Error::MemberBadURLs),
    });
    let mut urls = urls.collect::<Result<Vec<_>, _>>()?;
    urls.sort();
    if urls.is_empty() { Err(Error::MemberBadURLs) } else { Ok(urls) }
}

/// A member that is new at `now_s` (seconds since 1970), with the id that etcd would give it: the hash of its URLs and the time.
pub fn new_member(peer_urls: Vec<String>, is_learner: bool, now_s: u64) -> Member {
    let hash = Sha1::digest(format!("{}{now_s}", peer_urls.concat()));
    let id = u64::from_be_bytes(hash[..8].try_into().expect("a SHA-1 has 20 bytes"));
    Member { id: MemberId(id), peer_urls, is_learner, ..Member::default() }
}

#[cfg(test)]
mod tests;
