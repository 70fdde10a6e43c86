//! Handing leadership over (thesis, section 3.10): the other one campaigns at once, so nobody waits for a timeout.

use super::{
    core::{Core, Next},
    leader::Leader,
    message::Body,
    output::Output,
    progress::Phase,
};
use crate::types::MemberId;

/// An attempt. It ends when the leader hears of the next term, or after `election_ticks`.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) to: MemberId,
    elapsed: u32,
}

impl Leader {
    /// Begins to hand over to `to`, a voter that gets this leader's log. Asked again for the same one, it goes on as before.
    pub(super) fn transfer(&mut self, core: &Core, to: MemberId, out: &mut Output) {
        if !self.followers.contains_key(&to) || !core.members.is_voter(to) || self.transferee() == Some(to) {
            return;
        }
        self.transfer = Some(Transfer { to, elapsed: 0 });
        self.send_to(core, to, out);
        self.urge_transferee(core, to, out);
    }

    pub(super) fn transferee(&self) -> Option<MemberId> {
        self.transfer.as_ref().map(|transfer| transfer.to)
    }

    /// Tells `from`, who has just answered, to campaign, if it is the one and lacks nothing.
    pub(super) fn urge_transferee(&self, core: &Core, from: MemberId, out: &mut Output) {
        let lacks_nothing = self.followers.get(&from).is_some_and(|progress| progress.matched == core.log.last().index);
        if self.transferee() == Some(from) && lacks_nothing {
            self.say(core, from, Body::TimeoutNow, out);
        }
    }

    /// An attempt that came to nothing is given up: proposals flow again, unless this leader has to go.
    pub(super) fn transfer_tick(&mut self, core: &Core) -> Next {
        let Some(transfer) = &mut self.transfer else { return Next::Stay };
        transfer.elapsed += 1;
        if transfer.elapsed < core.config.election_ticks {
            return Next::Stay;
        }
        self.transfer = None;
        match self.may_go(core) {
            true => Next::Follow(None),
            false => Next::Stay,
        }
    }

    /// Goes: in good order if there is somebody to hand over to.
    pub(super) fn hand_over(&mut self, core: &Core, out: &mut Output) -> Next {
        if self.transfer.is_some() {
            return Next::Stay;
        }
        let Some(heir) = self.heir(core) else { return Next::Follow(None) };
        self.transfer(core, heir, out);
        Next::Stay
    }

    /// Goes at once: whoever has the most is told to campaign, although it may lack something that was never acknowledged.
    pub(super) fn drop_everything(&mut self, core: &Core, out: &mut Output) {
        if let Some(heir) = self.heir(core) {
            self.say(core, heir, Body::TimeoutNow, out);
        }
    }

    /// The voter that has most of the log, of those that were heard from lately.
    fn heir(&self, core: &Core) -> Option<MemberId> {
        let voters = self.followers.iter().filter(|(id, progress)| {
            core.members.is_voter(**id) && progress.active && progress.phase != Phase::NeedsSnapshot
        });
        voters.max_by_key(|(_, progress)| progress.matched).map(|(id, _)| *id)
    }
}
