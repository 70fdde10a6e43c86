//! What alarm commands do, and what alarms forbid.

use super::{
    Machine,
    command::{AlarmAction, AlarmKind, Command, Effect, Outcome, Reply},
};
use crate::{
    alarm::Table,
    engine::Batch,
    types::{Error, MemberId},
};

/// Why the active alarms refuse `command`, if they do.
///
/// After CORRUPT no data may be touched, or the damage would spread. After NOSPACE nothing may grow, but whatever shrinks the
/// store must go through, or it could never be freed.
pub(super) fn refusal(alarms: &Table, command: &Command) -> Option<Error> {
    let (is_data, grows) = match command {
        Command::Put(_) | Command::LeaseGrant { .. } => (true, true),
        Command::Txn(txn) => (true, txn.may_put()),
        Command::DeleteRange(_) | Command::Range(_) | Command::Compact { .. } | Command::LeaseRevoke { .. } => {
            (true, false)
        }
        Command::LeaseCheckpoint(_)
        | Command::Alarm { .. }
        | Command::ClusterVersionSet { .. }
        | Command::MemberAttributes { .. }
        | Command::DowngradeInfo { .. }
        | Command::Auth(_) => (false, false),
    };
    if is_data && alarms.any(AlarmKind::Corrupt) {
        return Some(Error::Corrupt);
    }
    (grows && alarms.any(AlarmKind::NoSpace)).then_some(Error::NoSpace)
}

impl Machine {
    /// Answers with the alarms that the command was about, as etcd does: for a `Deactivate` those that were active.
    pub(super) fn alarm(
        &mut self,
        action: AlarmAction,
        member: MemberId,
        kind: Option<AlarmKind>,
        batch: &mut Batch,
        outcome: &mut Outcome,
    ) -> Reply {
        let alarms = &mut self.shared.state.write().alarms;
        let (changed, about) = match (action, kind) {
            (AlarmAction::Get, kind) => (false, alarms.list(kind)),
            (AlarmAction::Activate, Some(kind)) => (alarms.activate(member, kind, batch), vec![(member, kind)]),
            (AlarmAction::Deactivate, Some(kind)) if alarms.deactivate(member, kind, batch) => {
                (true, vec![(member, kind)])
            }
            (AlarmAction::Activate | AlarmAction::Deactivate, _) => (false, Vec::new()),
        };
        if changed {
            outcome.effects.push(Effect::AlarmChanged);
        }
        Reply::Alarms(about)
    }
}
