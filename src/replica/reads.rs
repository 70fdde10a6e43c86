//! Who waits for which applied index: linearizable reads after their quorum round.

use crate::{
    raft::ReadId,
    types::{Error, Index},
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, collections::HashMap, time::Instant};
use tokio::sync::oneshot;

pub(super) type ReadReply = oneshot::Sender<Result<(), Error>>;

/// Reads in two stages: in a quorum round (all reads of one round share its id), then waiting for apply to catch up.
#[derive(Default)]
pub(super) struct Reads {
    rounds: Mutex<HashMap<ReadId, (Instant, Vec<ReadReply>)>>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    applied: Index,
    by_index: BTreeMap<Index, Vec<ReadReply>>,
}

impl Reads {
    /// `replies` share round `id`; they time out at `deadline`.
    pub(super) fn begin(&self, id: ReadId, deadline: Instant, replies: Vec<ReadReply>) {
        self.rounds.lock().insert(id, (deadline, replies));
    }

    /// A quorum has confirmed round `id` at `index`.
    pub(super) fn confirmed(&self, id: ReadId, index: Index) {
        let Some((_, replies)) = self.rounds.lock().remove(&id) else { return };
        let mut waiting = self.waiting.lock();
        if waiting.applied >= index {
            drop(waiting);
            answer(replies, &Ok(()));
        } else {
            waiting.by_index.entry(index).or_default().extend(replies);
        }
    }

    /// Round `id` came to nothing.
    pub(super) fn failed(&self, id: ReadId, error: Error) {
        if let Some((_, replies)) = self.rounds.lock().remove(&id) {
            answer(replies, &Err(error));
        }
    }

    /// This member has applied up to `index`, and readers see it.
    pub(super) fn applied(&self, index: Index) {
        let ready = {
            let mut waiting = self.waiting.lock();
            waiting.applied = index;
            let later = waiting.by_index.split_off(&index.next());
            std::mem::replace(&mut waiting.by_index, later)
        };
        for replies in ready.into_values() {
            answer(replies, &Ok(()));
        }
    }

    /// Ends rounds whose deadline has passed.
    pub(super) fn expire(&self, now: Instant) {
        let late = self.rounds.lock().extract_if(|_, (deadline, _)| *deadline <= now).collect::<Vec<_>>();
        for (_, (_, replies)) in late {
            answer(replies, &Err(Error::Timeout));
        }
    }

    /// Ends everything that waits.
    pub(super) fn fail_all(&self, error: &Error) {
        let rounds = std::mem::take(&mut *self.rounds.lock());
        let waiting = std::mem::take(&mut self.waiting.lock().by_index);
        let all = rounds.into_values().map(|(_, replies)| replies).chain(waiting.into_values());
        for replies in all {
            answer(replies, &Err(error.clone()));
        }
    }
}

fn answer(replies: Vec<ReadReply>, result: &Result<(), Error>) {
    for reply in replies {
        // A caller that has gone away does not want to know.
        let _ = reply.send(result.clone());
    }
}
