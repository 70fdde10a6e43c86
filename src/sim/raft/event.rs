//! What happens in the world.

use crate::{
    raft::{Envelope, LogId, Message},
    types::{MemberId, SnapshotMeta},
};

/// Something that happens at a time. Those that name a life do not happen in a later one.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Tick {
        at: usize,
        life: u64,
    },
    Deliver {
        at: usize,
        from: MemberId,
        message: Message,
    },
    /// Somebody acts on the output.
    Act {
        at: usize,
        life: u64,
    },
    /// The disk has finished a sync.
    Synced {
        at: usize,
        life: u64,
    },
    /// The member hears of it.
    Told {
        at: usize,
        life: u64,
        last: Option<LogId>,
        send: Vec<Envelope>,
    },
    /// The state of another member has arrived.
    State {
        at: usize,
        meta: SnapshotMeta,
    },
    /// The member hears that its disk hangs, or does not any more.
    Stalled {
        at: usize,
        life: u64,
        stalled: bool,
    },
    Client,
    Fault,
    Restart {
        at: usize,
    },
}

impl Event {
    /// Whose process it needs.
    pub(super) fn member(&self) -> Option<usize> {
        match self {
            Event::Tick { at, .. } | Event::Deliver { at, .. } | Event::Act { at, .. } => Some(*at),
            Event::Synced { at, .. } | Event::Told { at, .. } => Some(*at),
            Event::State { at, .. } | Event::Stalled { at, .. } => Some(*at),
            Event::Client | Event::Fault | Event::Restart { .. } => None,
        }
    }

    pub(super) fn life(&self) -> Option<(usize, u64)> {
        match self {
            Event::Tick { at, life } | Event::Act { at, life } => Some((*at, *life)),
            Event::Synced { at, life } | Event::Told { at, life, .. } => Some((*at, *life)),
            Event::Stalled { at, life, .. } => Some((*at, *life)),
            Event::Deliver { .. } | Event::State { .. } | Event::Client | Event::Fault | Event::Restart { .. } => None,
        }
    }

    pub(super) fn kind(&self) -> u64 {
        match self {
            Event::Tick { at, .. } => 10 + *at as u64,
            Event::Deliver { at, .. } => 20 + *at as u64,
            Event::Act { at, .. } => 30 + *at as u64,
            Event::Synced { at, .. } => 40 + *at as u64,
            Event::Told { at, .. } => 50 + *at as u64,
            Event::State { at, .. } => 70 + *at as u64,
            Event::Stalled { at, .. } => 80 + *at as u64,
            Event::Client => 1,
            Event::Fault => 2,
            Event::Restart { at } => 60 + *at as u64,
        }
    }
}
