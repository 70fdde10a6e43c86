//! Leases: made through the log, renewed by whoever leads.

use super::{super::tally::Stages, Handle, LeaseCall};
use crate::{
    auth::Author,
    machine::{Applied, Command},
    types::{Error, LeaseId},
};
use tokio::sync::oneshot;

impl Handle {
    /// Makes a lease; id 0 lets this member choose, and a `ttl_s` below the least that an election allows is raised to it.
    ///
    /// # Errors
    /// As [`Handle::propose`].
    pub async fn lease_grant(&self, author: &Author, id: LeaseId, ttl_s: i64) -> Result<Applied, Error> {
        self.lease_grant_timed(author, id, ttl_s).await.map(|(applied, _)| applied)
    }

    /// The same, and where the time went.
    ///
    /// # Errors
    /// As [`Handle::propose`].
    pub async fn lease_grant_timed(
        &self,
        author: &Author,
        id: LeaseId,
        ttl_s: i64,
    ) -> Result<(Applied, Stages), Error> {
        let id = match id {
            LeaseId::NONE => self.unused_lease_id(),
            id => id,
        };
        let ttl_s = ttl_s.max(self.shared.limits.ttl_s_min);
        self.propose_timed(author, Command::LeaseGrant { id, ttl_s }).await
    }

    fn unused_lease_id(&self) -> LeaseId {
        loop {
            let id = LeaseId((self.shared.chance() >> 1) as i64);
            if id != LeaseId::NONE && !self.shared.view.has_lease(id) {
                return id;
            }
        }
    }

    /// Renews leases: the time to live of each in seconds, or `None` if there is no such lease. The leader's clock decides; a success
    /// means that the lease existed at that moment. All of them cost one proof of leadership.
    ///
    /// # Errors
    /// [`Error::Timeout`] if no leader answers, [`Error::Stopped`].
    pub async fn lease_keep_alive(&self, ids: Vec<LeaseId>) -> Result<Vec<Option<i64>>, Error> {
        if !self.shared.facts.is_alone() {
            return self.ask_about_leases(ids, true).await;
        }
        let (seconds, resets) = self.shared.expiry.renew_all(&ids);
        if !resets.is_empty() {
            // Else a new leader would give these leases less than is promised here.
            self.propose(Command::LeaseCheckpoint(resets)).await?;
        }
        Ok(seconds)
    }

    /// Seconds left of a lease, as the leader's clock has it; `None` if there is no such lease.
    ///
    /// # Errors
    /// [`Error::Timeout`] if no leader answers, [`Error::Stopped`].
    pub async fn lease_remaining_s(&self, id: LeaseId) -> Result<Option<i64>, Error> {
        match self.shared.facts.is_alone() {
            true => Ok(self.shared.expiry.remaining_s(id)),
            false => Ok(self.ask_about_leases(vec![id], false).await?.pop().flatten()),
        }
    }

    async fn ask_about_leases(&self, ids: Vec<LeaseId>, renews: bool) -> Result<Vec<Option<i64>>, Error> {
        self.trusted()?;
        let (reply, answer) = oneshot::channel();
        self.shared.join(&self.shared.lessees, LeaseCall { ids, renews, reply })?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }
}
