//! Who waits for the outcome of which proposal.

use super::{tally::Stages, transport::Forwarded};
use crate::{
    machine::{Applied, RequestId},
    metrics::Histogram,
    types::{EntryKind, Error, Term},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::oneshot;

/// Most calls that may wait at once; each holds a request of at most `max-request-bytes`.
const WAITING_MAX: usize = 100_000;
/// Most bytes of commands that may wait at once.
const WAITING_BYTES_MAX: u64 = 256 << 20;

pub(super) type Answer = Result<(Applied, Stages), Error>;

struct Waiter {
    reply: oneshot::Sender<Answer>,
    kind: EntryKind,
    /// Kept until the answer: should the leader change, it may have to be proposed again.
    data: Bytes,
    since: Duration,
    deadline: Duration,
    /// When it was last given to the log, or sent to the log's leader.
    submitted: Duration,
    /// The term in which it was given to the log, or sent to the log's leader; `None` while it waits for a leader.
    term: Option<Term>,
}

/// So many fresh ones are not kept waiting for more.
const FRESH_MAX: usize = 1_024;
/// Over how many batches it is learned how long agreement takes.
const LEARN_OVER: u64 = 8;

/// The calls that wait, by the id in their command. Each is answered once: by apply, by a refusal of raft, by its deadline or by
/// the end of the member.
#[derive(Default)]
pub(super) struct Proposals {
    waiting: Mutex<Waiting>,
    bytes: AtomicU64,
    /// How long it takes of late until what was submitted is agreed upon, in microseconds.
    usual_us: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    calls: HashMap<RequestId, Waiter>,
    /// Those that the loop has not taken up yet, oldest first.
    fresh: Vec<RequestId>,
}

impl Proposals {
    /// Registers a call. True if the loop has to be told: of the first, and when there are many. It takes all that it finds.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`] if too many wait already.
    pub(super) fn wait(
        &self,
        id: RequestId,
        kind: EntryKind,
        data: Bytes,
        now: Duration,
        deadline: Duration,
    ) -> Result<(oneshot::Receiver<Answer>, bool), Error> {
        let bytes = data.len() as u64;
        if self.bytes.load(Ordering::Relaxed) + bytes > WAITING_BYTES_MAX {
            return Err(Error::RequestTooManyRequests);
        }
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.calls.len() >= WAITING_MAX {
            return Err(Error::RequestTooManyRequests);
        }
        waiting.calls.insert(id, Waiter { reply, kind, data, since: now, deadline, submitted: now, term: None });
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        waiting.fresh.push(id);
        Ok((answer, matches!(waiting.fresh.len(), 1 | FRESH_MAX)))
    }

    /// Whether there are fresh ones, and whether so many that they should not wait for more.
    pub(super) fn has_fresh(&self) -> (bool, bool) {
        let count = self.waiting.lock().fresh.len();
        (count > 0, count >= FRESH_MAX)
    }

    /// The fresh ones, oldest first.
    pub(super) fn take_fresh(&self) -> Vec<RequestId> {
        std::mem::take(&mut self.waiting.lock().fresh)
    }

    /// How long it takes of late until what was submitted is agreed upon.
    pub(super) fn usual(&self) -> Duration {
        Duration::from_micros(self.usual_us.load(Ordering::Relaxed))
    }

    /// Those of `ids` that still wait for a leader, as they go to that of `term`. None is ever given out twice at a time: it would be
    /// applied twice. `queued` takes note of how long they have waited until `now`.
    pub(super) fn submit(&self, ids: &[RequestId], term: Term, now: Duration, queued: &Histogram) -> Vec<Forwarded> {
        let (mut waited, mut submitted) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        {
            let mut waiting = self.waiting.lock();
            for id in ids {
                let Some(waiter) = waiting.calls.get_mut(id).filter(|waiter| waiter.term.is_none()) else { continue };
                (waiter.term, waiter.submitted) = (Some(term), now);
                waited.push(now.saturating_sub(waiter.since));
                submitted.push(Forwarded { id: *id, kind: waiter.kind, data: waiter.data.clone() });
            }
        }
        queued.observe_all(waited.into_iter());
        submitted
    }

    /// Those of `ids` that were submitted in `term` got into no log, and may be submitted again.
    pub(super) fn recall(&self, ids: &[RequestId], term: Term) {
        let mut waiting = self.waiting.lock();
        for id in ids {
            if let Some(waiter) = waiting.calls.get_mut(id).filter(|waiter| waiter.term == Some(term)) {
                waiter.term = None;
            }
        }
    }

    /// An entry of `term` was applied: what was submitted in an earlier term and has no answer yet never got into the log that
    /// counts, and never will. Returns it, to be submitted again.
    pub(super) fn outlived(&self, term: Term) -> Vec<RequestId> {
        let mut waiting = self.waiting.lock();
        let late = waiting.calls.iter_mut().filter(|(_, waiter)| waiter.term.is_some_and(|submitted| submitted < term));
        let mut late = late.map(|(id, waiter)| {
            waiter.term = None;
            (waiter.since, *id)
        });
        let mut ids = late.by_ref().collect::<Vec<_>>();
        // Oldest first, and not in the map's order: the simulator's runs must repeat.
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Answers those of `applied` that wait here; the others were proposed elsewhere, or before a restart. `began` and `done`: when
    /// their batch was. `agreed` takes note of how long it took until then.
    pub(super) fn complete(&self, applied: Vec<Applied>, (began, done): (Duration, Duration), agreed: &Histogram) {
        let mut answers = Vec::with_capacity(applied.len());
        let applying = done.saturating_sub(began);
        {
            let mut waiting = self.waiting.lock();
            for outcome in applied {
                if let Some(waiter) = waiting.calls.remove(&outcome.request) {
                    self.bytes.fetch_sub(waiter.data.len() as u64, Ordering::Relaxed);
                    let stages = Stages {
                        queued: waiter.submitted.saturating_sub(waiter.since),
                        agreed: began.saturating_sub(waiter.submitted),
                        applied: applying,
                    };
                    answers.push((waiter.reply, (outcome, stages)));
                }
            }
        }
        agreed.observe_all(answers.iter().map(|(_, (_, stages))| stages.agreed));
        self.learn(&answers);
        for (reply, outcome) in answers {
            // A caller that has gone away does not want to know.
            let _ = reply.send(Ok(outcome));
        }
    }

    /// Takes note of how long a batch took to be agreed upon. For the one thread that applies.
    fn learn(&self, answers: &[(oneshot::Sender<Answer>, (Applied, Stages))]) {
        let all = answers.iter().map(|(_, (_, stages))| stages.agreed).sum::<Duration>();
        let Some(mean) = (all.as_micros() as u64).checked_div(answers.len() as u64) else { return };
        let usual = self.usual_us.load(Ordering::Relaxed);
        self.usual_us.store((usual * (LEARN_OVER - 1) + mean) / LEARN_OVER, Ordering::Relaxed);
    }

    /// Answers one call with an error.
    pub(super) fn fail(&self, id: RequestId, error: Error) {
        let waiter = self.waiting.lock().calls.remove(&id);
        self.refuse(waiter, &error);
    }

    /// Answers those of `ids` that are in nobody's log with an error.
    pub(super) fn refuse_idle(&self, ids: &[RequestId], error: &Error) {
        let refused = {
            let mut waiting = self.waiting.lock();
            let is_idle = |waiter: &Waiter| waiter.term.is_none();
            ids.iter()
                .filter_map(|id| waiting.calls.get(id).is_some_and(is_idle).then(|| waiting.calls.remove(id))?)
                .collect::<Vec<_>>()
        };
        self.refuse(refused, error);
    }

    /// Answers every call with an error.
    pub(super) fn fail_all(&self, error: &Error) {
        let all = std::mem::take(&mut *self.waiting.lock());
        self.refuse(all.calls.into_values(), error);
    }

    /// Answers the calls that may or may not be in the log with an error: what became of them can't be seen here any more.
    pub(super) fn fail_submitted(&self, error: &Error) {
        let submitted = self.waiting.lock().calls.extract_if(|_, waiter| waiter.term.is_some()).collect::<Vec<_>>();
        self.refuse(submitted.into_iter().map(|(_, waiter)| waiter), error);
    }

    /// Answers the calls whose deadline has passed. `why` chooses the error by when a call began.
    pub(super) fn expire(&self, now: Duration, why: impl Fn(Duration) -> Error) {
        let late = self.waiting.lock().calls.extract_if(|_, waiter| waiter.deadline <= now).collect::<Vec<_>>();
        for (_, waiter) in late {
            let error = why(waiter.since);
            self.refuse([waiter], &error);
        }
    }

    /// How many calls wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().calls.len()
    }

    fn refuse(&self, waiters: impl IntoIterator<Item = Waiter>, error: &Error) {
        for waiter in waiters {
            self.bytes.fetch_sub(waiter.data.len() as u64, Ordering::Relaxed);
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }
}
