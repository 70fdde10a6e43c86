//! What changes of membership do, and what members tell of themselves and of the cluster.

use super::{
    Machine, Stop,
    command::{ConfStep, ConfStepKind, Effect, Outcome, Reply},
};
use crate::{
    engine::{Batch, Table},
    membership::Change,
    types::{Error, Index, MemberId},
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
        change: Result<Option<Change>, String>,
        batch: &mut Batch,
        outcome: &mut Outcome,
    ) -> Result<Reply, Error> {
        let members = &mut self.shared.state.write().members;
        let result = match &change {
            Ok(Some(change)) => members.change(change, batch),
            Ok(None) => Ok(()),
            Err(text) => Err(Error::Invalid(text.clone())),
        };
        let step = match (&result, change) {
            (Ok(()), Ok(Some(change))) => Some(step(&change)),
            _ => None,
        };
        let conf_state = members.conf_state().clone();
        outcome.effects.push(Effect::ConfChanged { index, steps: step.into_iter().collect(), conf_state });
        result.map(|()| Reply::Members(members.list()))
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

fn step(change: &Change) -> ConfStep {
    let (kind, member) = match change {
        Change::Add(member) if member.is_learner => (ConfStepKind::AddLearner, member.id),
        Change::Add(member) => (ConfStepKind::AddVoter, member.id),
        Change::Promote(id) => (ConfStepKind::AddVoter, *id),
        Change::Remove(id) => (ConfStepKind::Remove, *id),
        Change::UpdatePeers(id, _) => (ConfStepKind::Update, *id),
    };
    ConfStep { kind, member }
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
