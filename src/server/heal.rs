//! A core that heals itself: a voter that has been away for long is replaced by a host of the ring that volunteers.
//!
//! ```text
//!   a voter stays away ─▶ a standby is added as a learner ─▶ it starts by itself ─▶ it catches up ─▶ it gets the vote of the one that is away
//! ```
//! The leader alone decides, and one step at a time ([`policy`]). Where it stands is read off the members before each step, and how long
//! somebody has been away is what this leader has seen itself: another one goes on where this one was, after it has seen the same. Members
//! that do not lead pass on to the leader which hosts volunteer, since each host tells one of them.

mod policy;
mod watchman;

use super::{Backend, MemberBackend, upkeep};
use crate::{pb::henge::ring as wire, replica::Standby, ring::Roster, types::Error};
use parking_lot::Mutex;
use policy::{Outlook, Step};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use watchman::Watchman;

/// Between two tellings of the leader which hosts volunteer.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// After a step that was refused or failed. What could cost the quorum now may be let in later.
const REFUSED_PAUSE: Duration = Duration::from_secs(3);

/// `core-size` and `core-heal-after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healing {
    /// Voters that there should be; odd, and at least 3.
    pub core_size: usize,
    /// How long a voter must have been away to be replaced.
    pub after: Duration,
}

/// What is known of the healing, for whoever asks. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct HealingNews(Arc<Mutex<Option<wire::Healing>>>);

impl HealingNews {
    /// As it is now; `None` if this member does not heal.
    pub(super) fn now(&self) -> Option<wire::Healing> {
        self.0.lock().clone()
    }

    fn say(&self, healing: Healing, doing: String) {
        let Healing { core_size, after } = healing;
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        *self.0.lock() = Some(wire::Healing { core_size: core_size as u32, after_ms, doing });
    }
}

/// Heals the core while this member leads; else tells the leader who volunteers.
pub(super) async fn heal(
    backend: MemberBackend,
    roster: Roster,
    healing: Healing,
    news: HealingNews,
    mut stopping: watch::Receiver<bool>,
) {
    let mut healer = Healer { backend, roster, healing, watch: None, said: None };
    let (mut tell_at, mut rest_until) = (Instant::now(), Instant::now());
    news.say(healing, String::new());
    while upkeep::goes_on(&mut stopping).await {
        let now = Instant::now();
        let Some(outlook) = healer.look(now) else {
            news.say(healing, String::new());
            if now >= tell_at {
                healer.tell_leader();
                tell_at = now + TELL_EVERY;
            }
            continue;
        };
        news.say(healing, outlook.to_string());
        healer.log(&outlook);
        if matches!(outlook, Outlook::Due(_)) && now >= rest_until && !healer.step().await {
            rest_until = Instant::now() + REFUSED_PAUSE;
        }
    }
}

struct Healer {
    backend: MemberBackend,
    roster: Roster,
    healing: Healing,
    /// What was seen since this member leads, if it does.
    watch: Option<Watchman>,
    /// The kind of outlook that the log has last told of.
    said: Option<std::mem::Discriminant<Outlook>>,
}

impl Healer {
    /// What is to be done as far as this member knows; `None` if it does not lead.
    fn look(&mut self, now: Instant) -> Option<Outlook> {
        let handle = self.backend.handle();
        let own = handle.member_id();
        if *handle.leader().borrow() != Some(own) {
            (self.watch, self.said) = (None, None);
            return None;
        }
        let term = handle.term();
        let watch = match &mut self.watch {
            Some(watch) if watch.term() == term => watch,
            // It has led before, and another one may have since: what it saw then is over.
            watch => watch.insert(Watchman::new(term)),
        };
        let view = handle.view();
        let (members, is_half_way) = (view.members(), !view.conf_state().voters_outgoing.is_empty());
        let standbys = standbys(&self.roster, handle.told_standbys());
        watch.look(now, own, &members, self.healing.core_size, |id| handle.connected_for(id));
        Some(policy::outlook(self.healing, &watch.sight(now, own, &members, is_half_way, &standbys)))
    }

    fn tell_leader(&self) {
        let own = standbys(&self.roster, Vec::new());
        let standbys = own.into_iter().map(|(peer_url, is_there)| Standby { peer_url, is_there });
        self.backend.handle().tell_standbys(standbys.collect());
    }

    /// Says once what is new. Steps are told of when they are made.
    fn log(&mut self, outlook: &Outlook) {
        let is_new = self.said.replace(std::mem::discriminant(outlook)) != Some(std::mem::discriminant(outlook));
        match outlook {
            _ if !is_new => {}
            Outlook::Whole | Outlook::Due(_) => tracing::debug!(%outlook, "healing the core"),
            _ => tracing::info!(%outlook, "healing the core"),
        }
    }

    /// Makes the step that is due, after this member has proved that it leads. `false`: it was refused, or came to nothing.
    async fn step(&mut self) -> bool {
        if self.backend.handle().read_index().await.is_err() {
            return false;
        }
        // Now everything is applied that anybody was told of before, and another look may see it otherwise.
        let Some(Outlook::Due(step)) = self.look(Instant::now()) else { return true };
        let made = self.make(&step).await;
        match &made {
            Ok(()) => tracing::warn!(%step, "the core heals itself"),
            Err(Error::LearnerNotReady) => tracing::debug!(%step, "the standby has not caught up yet"),
            Err(error) => tracing::warn!(%step, %error, "a step of healing was not made; this leader tries again"),
        }
        matches!(made, Ok(()) | Err(Error::LearnerNotReady))
    }

    async fn make(&mut self, step: &Step) -> Result<(), Error> {
        let backend = self.backend.clone();
        match step {
            Step::Add { peer_url } => backend.member_add(vec![peer_url.clone()], true).await.map(drop),
            Step::Promote(learner) => backend.member_promote(*learner).await.map(drop),
            Step::Swap { learner, gone } => {
                if !backend.handle().learner_is_ready(*learner).await? {
                    return Err(Error::LearnerNotReady);
                }
                // The question took its time, and the voter may have come back.
                match self.look(Instant::now()) {
                    Some(Outlook::Due(still)) if still == *step => {
                        backend.handle().swap_members(*learner, *gone).await?.result.map(drop)
                    }
                    _ => Err(Error::Unhealthy),
                }
            }
            Step::RemoveVoter(gone) => backend.member_remove(*gone).await.map(drop),
            Step::RemoveLearner { learner, has_failed } => {
                let urls = backend.handle().view().member(*learner).map(|member| member.peer_urls).unwrap_or_default();
                backend.member_remove(*learner).await?;
                if let Some(watch) = self.watch.as_mut().filter(|_| *has_failed) {
                    watch.has_failed(Instant::now(), urls);
                }
                Ok(())
            }
        }
    }
}

/// Hosts that volunteer by peer URL, and whether they are there: those of `roster`, and those that others have told of.
fn standbys(roster: &Roster, told: Vec<Standby>) -> BTreeMap<String, bool> {
    let own = roster.standbys().into_iter().map(|(peer_url, is_there)| Standby { peer_url, is_there });
    let mut all = BTreeMap::new();
    for Standby { peer_url, is_there } in own.chain(told) {
        // Lost here, it may be heard of there.
        *all.entry(peer_url).or_insert(false) |= is_there;
    }
    all
}
