//! What lease commands do.

use super::{
    Machine,
    command::{Effect, Outcome, Reply},
};
use crate::{
    engine::Batch,
    types::{LeaseId, Stop},
};

impl Machine {
    pub(super) fn lease_grant(
        &mut self,
        id: LeaseId,
        ttl_s: i64,
        batch: &mut Batch,
        outcome: &mut Outcome,
    ) -> Result<Reply, Stop> {
        self.shared.state.write().leases.grant(id, ttl_s, batch)?;
        outcome.effects.push(Effect::LeaseGranted { id, ttl_s });
        Ok(Reply::LeaseGrant { id, ttl_s })
    }

    /// The lease and its keys go in one batch, the keys at one revision.
    pub(super) fn lease_revoke(
        &mut self,
        id: LeaseId,
        batch: &mut Batch,
        outcome: &mut Outcome,
    ) -> Result<Reply, Stop> {
        let keys = self.shared.state.write().leases.revoke(id, batch)?;
        self.delete_keys(keys, batch, outcome)?;
        outcome.effects.push(Effect::LeaseRevoked { id });
        Ok(Reply::LeaseRevoke)
    }

    /// Leases that are gone by now are passed over: the leader could not know.
    pub(super) fn lease_checkpoint(
        &mut self,
        leases: Vec<(LeaseId, i64)>,
        batch: &mut Batch,
        outcome: &mut Outcome,
    ) -> Reply {
        let state = &mut *self.shared.state.write();
        for (id, remaining_s) in leases {
            if state.leases.checkpoint(id, remaining_s, batch) {
                outcome.effects.push(Effect::LeaseCheckpointed { id, remaining_s });
            }
        }
        Reply::Done
    }
}
