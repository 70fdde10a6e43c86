//! Who waits for which applied index: linearizable reads after their quorum round.

use crate::{
    raft::ReadId,
    types::{Error, Index},
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::oneshot;

/// A read that waits.
pub(crate) struct Waiting {
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
    pub(super) deadline: Duration,
}

/// Reads in two stages: in a quorum round (all reads of one round share its id), then waiting for apply to catch up.
#[derive(Default)]
pub(super) struct Reads {
    rounds: Mutex<BTreeMap<ReadId, Vec<Waiting>>>,
    behind: Mutex<Behind>,
}

#[derive(Default)]
struct Behind {
    applied: Index,
    by_index: BTreeMap<Index, Vec<Waiting>>,
}

impl Reads {
    /// `reads` share round `id`.
    pub(super) fn begin(&self, id: ReadId, reads: Vec<Waiting>) {
        self.rounds.lock().insert(id, reads);
    }

    /// A quorum has confirmed round `id` at `index`.
    pub(super) fn confirmed(&self, id: ReadId, index: Index) {
        if let Some(reads) = self.rounds.lock().remove(&id) {
            self.follow(index, reads);
        }
    }

    /// `reads` may be answered once this member has applied up to `index`.
    pub(super) fn follow(&self, index: Index, reads: Vec<Waiting>) {
        let mut behind = self.behind.lock();
        if behind.applied >= index {
            drop(behind);
            answer(reads, &Ok(()));
        } else {
            behind.by_index.entry(index).or_default().extend(reads);
        }
    }

    /// Round `id` came to nothing; its reads may try again.
    pub(super) fn take(&self, id: ReadId) -> Vec<Waiting> {
        self.rounds.lock().remove(&id).unwrap_or_default()
    }

    /// This member has applied up to `index`, and readers see it.
    pub(super) fn applied(&self, index: Index) {
        let ready = {
            let mut behind = self.behind.lock();
            behind.applied = index;
            let later = behind.by_index.split_off(&index.next());
            std::mem::replace(&mut behind.by_index, later)
        };
        for reads in ready.into_values() {
            answer(reads, &Ok(()));
        }
    }

    /// Ends reads whose deadline has passed.
    pub(super) fn expire(&self, now: Duration) {
        let mut late = Vec::new();
        let is_late = |read: &mut Waiting| read.deadline <= now;
        for reads in self.rounds.lock().values_mut() {
            late.extend(reads.extract_if(.., is_late));
        }
        answer(late, &Err(Error::Timeout));
        let mut late = Vec::new();
        for reads in self.behind.lock().by_index.values_mut() {
            late.extend(reads.extract_if(.., is_late));
        }
        answer(late, &Err(Error::TimeoutWaitAppliedIndex));
    }

    /// Ends everything that waits.
    pub(super) fn fail_all(&self, error: &Error) {
        let rounds = std::mem::take(&mut *self.rounds.lock());
        let behind = std::mem::take(&mut self.behind.lock().by_index);
        for reads in rounds.into_values().chain(behind.into_values()) {
            answer(reads, &Err(error.clone()));
        }
    }
}

pub(super) fn answer(reads: Vec<Waiting>, result: &Result<(), Error>) {
    for read in reads {
        // A caller that has gone away does not want to know.
        let _ = read.reply.send(result.clone());
    }
}
