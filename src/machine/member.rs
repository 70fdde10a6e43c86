//! What changes of membership do, and what members tell of themselves and of the cluster.

use super::{
    Machine,
    command::{Effect, Outcome, Reply},
};
use crate::{
    engine::{Batch, Table},
    membership::Changes,
    types::{ConfChange, Error, Index, MemberId, Stop},
};
use bytes::Bytes;

/// Rows of [`Table::Meta`].
pub(super) const CLUSTER_VERSION: &[u8] = b"cluster_version";
pub(super) const DOWNGRADE: &[u8] = b"downgrade";

impl Machine {
    /// Raft hears of every such entry, refused or not: it waits for it before it takes the next one.
    pub(super) fn change_members(
        &mut self,
        index: Index,
        changes: Result<Changes, String>,
        batch: &mut Batch,
        outcome: &mut Outcome,
    ) -> Result<Reply, Error> {
        let members = &mut self.shared.state.write().members;
        let result = changes.map_err(Error::Invalid).and_then(|changes| members.change(&changes, batch));
        let change = result.clone().unwrap_or(ConfChange::Nothing);
        outcome.effects.push(Effect::ConfChanged { index, change, conf_state: members.conf_state().clone() });
        result.map(|_| Reply::Members(members.list()))
    }

    pub(super) fn member_attributes(
        &mut self,
        member: MemberId,
        name: &str,
        client_urls: &[String],
        batch: &mut Batch,
    ) -> Result<Reply, Stop> {
        self.shared.state.write().members.set_attributes(member, name, client_urls, batch)?;
        Ok(Reply::Done)
    }

    pub(super) fn cluster_version_set(&mut self, version: String, batch: &mut Batch) -> Result<Reply, Stop> {
        check_version(&version)?;
        batch.put(Table::Meta, CLUSTER_VERSION, Bytes::from(version.clone()));
        self.shared.state.write().cluster_version = Some(version);
        Ok(Reply::Done)
    }

    pub(super) fn downgrade_info(&mut self, enabled: bool, version: String, batch: &mut Batch) -> Result<Reply, Stop> {
        if !enabled {
            batch.delete(Table::Meta, DOWNGRADE);
            self.shared.state.write().downgrade = None;
            return Ok(Reply::Done);
        }
        check_version(&version)?;
        batch.put(Table::Meta, DOWNGRADE, Bytes::from(version.clone()));
        self.shared.state.write().downgrade = Some(version);
        Ok(Reply::Done)
    }
}

/// Three numbers with dots; others would confuse whoever compares versions later.
fn check_version(version: &str) -> Result<(), Error> {
    let mut parts = version.split('.');
    let numbers = parts.by_ref().take(3).filter(|part| part.parse::<u16>().is_ok()).count();
    match numbers == 3 && parts.next().is_none() {
        true => Ok(()),
        false => Err(Error::Invalid(format!("{version:?} is no version"))),
    }
}
