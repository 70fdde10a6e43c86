//! What is to be done next for the core to be whole: a function of what one leader sees.
//!
//! **Promises.** At most one step, and none while a change is half way or somebody else's learner is there. A step leaves a quorum of
//! voters that are connected now, and never more voters than asked for. A voter goes only after it has been away for the configured
//! time, is not connected at this moment, and is replaced in the same change; or is one too many. It keeps nothing, so whoever leads comes
//! to the same answer once it has seen the same.

use super::Healing;
use crate::{membership::Member, ring::is_standby_name, types::MemberId};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// A standby that has not come after this, or has gone away again for as long, is given up.
const COME_MAX: Duration = Duration::from_secs(120);

/// How the leader sees another member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Presence {
    /// It is connected now.
    pub(super) is_here: bool,
    /// For how long it has not been connected for good; 0 if it is.
    pub(super) away_for: Duration,
}

/// What the leader sees.
pub(super) struct Sight<'a> {
    pub(super) own: MemberId,
    pub(super) members: &'a [Member],
    /// A joint membership has begun and not ended.
    pub(super) is_half_way: bool,
    pub(super) presence: BTreeMap<MemberId, Presence>,
    /// For how long there have been fewer voters than there should be.
    pub(super) short_for: Duration,
    /// Peer URLs of hosts that volunteer, and whether they are there.
    pub(super) standbys: &'a BTreeMap<String, bool>,
    /// Peer URLs of those that were asked, and did not come.
    pub(super) failed: BTreeSet<String>,
}

impl<'a> Sight<'a> {
    fn voters(&self) -> Vec<&'a Member> {
        self.members.iter().filter(|member| !member.is_learner).collect()
    }

    fn presence(&self, id: MemberId) -> Presence {
        match self.presence.get(&id) {
            _ if id == self.own => Presence { is_here: true, away_for: Duration::ZERO },
            Some(presence) => *presence,
            None => Presence { is_here: false, away_for: Duration::ZERO },
        }
    }

    /// Whether a learner was added on account of a standby. Its proxy may be unheard of by now; then its name tells.
    fn is_standby(&self, learner: &Member) -> bool {
        let known = |url: &String| self.standbys.contains_key(url) || is_standby_name(&learner.name, url);
        learner.peer_urls.iter().any(known)
    }

    /// A host that volunteers, preferably on a machine where no voter is that is connected.
    fn volunteer(&self) -> Option<&'a String> {
        let taken = self.members.iter().flat_map(|member| &member.peer_urls).collect::<BTreeSet<_>>();
        let living = self.voters().into_iter().filter(|voter| self.presence(voter.id).is_here);
        let crowded = living.flat_map(|voter| voter.peer_urls.iter().map(|url| host(url))).collect::<BTreeSet<_>>();
        let free = |(url, is_there): &(&String, &bool)| {
            **is_there && !taken.contains(*url) && !self.failed.contains(url.as_str())
        };
        let free = self.standbys.iter().filter(free).map(|(url, _)| url);
        free.min_by_key(|url| (crowded.contains(host(url)), *url))
    }
}

/// The host in a URL, as it is spelled there.
fn host(url: &str) -> &str {
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// One change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A standby becomes a learner.
    Add { peer_url: String },
    /// A standby gets a vote, where there are too few.
    Promote(MemberId),
    /// A standby gets a vote, and the voter that is gone loses its own.
    Swap { learner: MemberId, gone: MemberId },
    /// A voter leaves that is gone, and one too many.
    RemoveVoter(MemberId),
    /// A standby leaves that is not needed any more, or has not come.
    RemoveLearner { learner: MemberId, has_failed: bool },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Add { peer_url } => write!(f, "standby {peer_url} is added as a learner"),
            Step::Promote(learner) => write!(f, "standby {learner} gets a vote"),
            Step::Swap { learner, gone } => write!(f, "standby {learner} takes the place of voter {gone}"),
            Step::RemoveVoter(gone) => write!(f, "voter {gone} is gone, and one too many: it is removed"),
            Step::RemoveLearner { learner, has_failed: false } => {
                write!(f, "standby {learner} is not needed any more: it is removed")
            }
            Step::RemoveLearner { learner, has_failed: true } => {
                write!(f, "standby {learner} does not come: it is removed")
            }
        }
    }
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// There is nothing to do.
    Whole,
    /// A voter is away, and may come back.
    Away { voter: MemberId, away_for: Duration, after: Duration },
    /// A voter has come, or come back, and may go again at once.
    Settling(MemberId),
    /// There are too few voters, and somebody may be about to add one.
    Short { voters: usize, core_size: usize },
    /// Something is to be done, and nobody volunteers.
    NoStandby { voters: usize, core_size: usize },
    /// A standby was added, and has not started yet, or is away.
    Coming { learner: MemberId, away_for: Duration },
    /// Somebody has added learners, and is at work.
    Learners,
    /// A change is half way.
    HalfWay,
    /// Too few voters are connected for anything to be changed.
    NoQuorum { here: usize, voters: usize },
    /// A step is to be made.
    Due(Step),
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outlook::Whole => write!(f, "all voters are there"),
            Outlook::Away { voter, away_for, after } => {
                let (away_s, after_s) = (away_for.as_secs(), after.as_secs_f64());
                write!(f, "voter {voter} has been away for {away_s} s, and is replaced after {after_s} s")
            }
            Outlook::Settling(voter) => write!(f, "voter {voter} has been connected for a few seconds only"),
            Outlook::Short { voters, core_size } => write!(f, "there are {voters} voters instead of {core_size}"),
            Outlook::NoStandby { voters, core_size } => {
                write!(f, "{core_size} voters should be there, {voters} are, and no other host volunteers")
            }
            Outlook::Coming { learner, away_for } => {
                write!(f, "standby {learner} was added, and has not been there for {} s", away_for.as_secs())
            }
            Outlook::Learners => write!(f, "there are learners that are no standbys; nothing is done beside them"),
            Outlook::HalfWay => write!(f, "a change of the membership is half way"),
            Outlook::NoQuorum { here, voters } => {
                write!(f, "{here} of {voters} voters are connected: nothing can be changed")
            }
            Outlook::Due(step) => step.fmt(f),
        }
    }
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// How things stand, and the one step to be made if there is one.
pub(super) fn outlook(healing: Healing, sight: &Sight<'_>) -> Outlook {
    if sight.is_half_way {
        return Outlook::HalfWay;
    }
    let voters = sight.voters();
    let here = voters.iter().filter(|voter| sight.presence(voter.id).is_here).count();
    if here < quorum(voters.len()) {
        return Outlook::NoQuorum { here, voters: voters.len() };
    }
    let gone = longest_away(sight, &voters)
        .filter(|(away_for, voter)| *away_for >= healing.after && !sight.presence(*voter).is_here);
    let gone = gone.map(|(_, voter)| voter);
    let mut learners = sight.members.iter().filter(|member| member.is_learner);
    match (learners.next(), learners.next()) {
        (None, _) => without_learner(healing, sight, &voters, here, gone),
        (Some(learner), None) if sight.is_standby(learner) => with_standby(healing, sight, &voters, gone, learner),
        _ => Outlook::Learners,
    }
}

/// The voter that has been away for longest, unless all are there.
fn longest_away(sight: &Sight<'_>, voters: &[&Member]) -> Option<(Duration, MemberId)> {
    let away = voters.iter().map(|voter| (sight.presence(voter.id), voter.id));
    // One that is connected, and was away before, may start again and again: it counts behind those that are not.
    let away = away.filter(|(presence, _)| !presence.is_here || presence.away_for > Duration::ZERO);
    let longest = away.max_by_key(|(presence, id)| (!presence.is_here, presence.away_for, *id));
    longest.map(|(presence, id)| (presence.away_for, id))
}

/// What is said of a voter that is not gone, and not there for good.
fn absence(sight: &Sight<'_>, (away_for, voter): (Duration, MemberId), after: Duration) -> Outlook {
    match sight.presence(voter).is_here {
        true => Outlook::Settling(voter),
        false => Outlook::Away { voter, away_for, after },
    }
}

fn without_learner(
    healing: Healing,
    sight: &Sight<'_>,
    voters: &[&Member],
    here: usize,
    gone: Option<MemberId>,
) -> Outlook {
    let Healing { core_size, after } = healing;
    let count = voters.len();
    match (gone, longest_away(sight, voters)) {
        (Some(gone), _) if count > core_size => return Outlook::Due(Step::RemoveVoter(gone)),
        (Some(_), _) => {}
        (None, Some(away)) => return absence(sight, away, after),
        (None, None) if count >= core_size => return Outlook::Whole,
        (None, None) if sight.short_for < after => return Outlook::Short { voters: count, core_size },
        (None, None) => {}
    }
    match sight.volunteer() {
        Some(peer_url) => Outlook::Due(Step::Add { peer_url: peer_url.clone() }),
        None => Outlook::NoStandby { voters: here, core_size },
    }
}

fn with_standby(
    healing: Healing,
    sight: &Sight<'_>,
    voters: &[&Member],
    gone: Option<MemberId>,
    learner: &Member,
) -> Outlook {
    let Healing { core_size, after } = healing;
    let (id, presence) = (learner.id, sight.presence(learner.id));
    let longest_away = longest_away(sight, voters);
    if presence.away_for >= COME_MAX {
        return Outlook::Due(Step::RemoveLearner { learner: id, has_failed: true });
    }
    if voters.len() > core_size || voters.len() == core_size && longest_away.is_none() {
        return Outlook::Due(Step::RemoveLearner { learner: id, has_failed: false });
    }
    // It tells its name when it starts.
    if !presence.is_here || learner.name.is_empty() {
        return Outlook::Coming { learner: id, away_for: presence.away_for };
    }
    match (gone, longest_away) {
        (Some(gone), _) => Outlook::Due(Step::Swap { learner: id, gone }),
        (None, Some(away)) => absence(sight, away, after),
        // All are connected, and the standby as well: of one more there is still a quorum.
        (None, None) => Outlook::Due(Step::Promote(id)),
    }
}

#[cfg(test)]
mod tests;
