//! Changes of who is a member: asked of the rules, by the cluster as it is, and then proposed.

use super::{
    super::{
        Rules,
        reconfig::{self, Situation},
    },
    MemberBackend,
};
use crate::{
    machine::Reply,
    membership::{Change, Member},
    types::{Error, MemberId},
};
use std::time::SystemTime;

impl MemberBackend {
    /// A member with an id that nobody has, or ever had: etcd's are made of the second, and two in one second would be the same.
    pub(super) fn newcomer(&self, peer_urls: &[String], is_learner: bool) -> Member {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let view = self.handle.view();
        let candidates = (now.as_secs()..).map(|now_s| reconfig::new_member(peer_urls.to_vec(), is_learner, now_s));
        let mut fresh = candidates.filter(|member| view.member(member.id).is_none() && !view.is_removed(member.id));
        fresh.next().expect("there are more seconds than members")
    }

    /// Asks the rules about the cluster as this member sees it now.
    fn judge(&self, verdict: impl FnOnce(Rules, &Situation<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let connected_for = |id| self.handle.connected_for(id);
        let members = self.handle.view().members();
        let now = Situation { members: &members, own: self.handle.member_id(), connected_for: &connected_for };
        verdict(self.rules, &now).inspect_err(|error| tracing::warn!(%error, "refused to change the membership"))
    }

    /// The same, about the cluster as it is by now.
    ///
    /// Without a quorum nobody knows that. Then what this member knows is enough for a refusal, and whoever asks hears the reason, not of
    /// a time that has run out; etcd always goes by what the member knows.
    pub(super) async fn judge_anew(
        &self,
        verdict: impl Fn(&Rules, &Situation<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let by_what_is_known = || self.judge(|rules, now| verdict(&rules, now));
        let mut leader = self.handle.leader();
        let read = self.handle.read_index();
        tokio::pin!(read);
        let is_current = tokio::select! {
            biased;
            is_current = &mut read => is_current,
            // From the start, or when whoever leads has heard of no quorum for as long as an election takes.
            () = async { drop(leader.wait_for(Option::is_none).await) } => {
                by_what_is_known()?;
                read.await
            }
        };
        by_what_is_known()?;
        is_current.map(|_| ())
    }

    pub(super) async fn promote(&self, id: MemberId) -> Result<Vec<Member>, Error> {
        self.handle.read_index().await?;
        // Whom nobody knows the leader need not be asked about; the others are asked about first, as in etcd.
        let learns = self.handle.view().member(id).ok_or(Error::MemberNotFound)?.is_learner;
        if learns && !self.handle.learner_is_ready(id).await? {
            return Err(Error::LearnerNotReady);
        }
        self.judge(|rules, now| rules.may_promote(now, id))?;
        self.change(Change::Promote(id)).await
    }

    pub(super) async fn change(&self, change: Change) -> Result<Vec<Member>, Error> {
        tracing::info!(?change, "changing the membership");
        let changed = self.handle.change_members(change).await;
        self.counts.proposed(&changed);
        match changed?.result? {
            Reply::Members(members) => Ok(members),
            other => unreachable!("changes of membership are answered with members: {other:?}"),
        }
    }
}
