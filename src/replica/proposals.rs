//! Who waits for the outcome of which proposal.

use crate::{machine::Applied, types::Error};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};
use tokio::sync::oneshot;

/// Most calls that may wait at once; each holds a request of at most `max-request-bytes`.
const WAITING_MAX: usize = 100_000;
/// Most bytes of commands that may wait at once.
const WAITING_BYTES_MAX: u64 = 256 << 20;

pub(super) type Answer = Result<Applied, Error>;

struct Waiter {
    reply: oneshot::Sender<Answer>,
    bytes: u64,
    deadline: Instant,
}

/// The calls that wait, by the id in their command. Each is answered once: by apply, by a refusal of raft, by its deadline or by
/// the end of the member.
#[derive(Default)]
pub(super) struct Proposals {
    waiting: Mutex<HashMap<u64, Waiter>>,
    bytes: AtomicU64,
}

impl Proposals {
    /// Registers a call whose command takes `bytes`.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`] if too many wait already.
    pub(super) fn wait(&self, id: u64, bytes: u64, deadline: Instant) -> Result<oneshot::Receiver<Answer>, Error> {
        if self.bytes.load(Ordering::Relaxed) + bytes > WAITING_BYTES_MAX {
            return Err(Error::RequestTooManyRequests);
        }
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_MAX {
            return Err(Error::RequestTooManyRequests);
        }
        waiting.insert(id, Waiter { reply, bytes, deadline });
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(answer)
    }

    /// Answers those of `applied` that wait here; the others were proposed elsewhere, or before a restart.
    pub(super) fn complete(&self, applied: Vec<Applied>) {
        let mut answers = Vec::with_capacity(applied.len());
        {
            let mut waiting = self.waiting.lock();
            for outcome in applied {
                if let Some(waiter) = waiting.remove(&outcome.request.0) {
                    self.bytes.fetch_sub(waiter.bytes, Ordering::Relaxed);
                    answers.push((waiter.reply, outcome));
                }
            }
        }
        for (reply, outcome) in answers {
            // A caller that has gone away does not want to know.
            let _ = reply.send(Ok(outcome));
        }
    }

    /// Answers one call with an error.
    pub(super) fn fail(&self, id: u64, error: Error) {
        if let Some(waiter) = self.waiting.lock().remove(&id) {
            self.bytes.fetch_sub(waiter.bytes, Ordering::Relaxed);
            let _ = waiter.reply.send(Err(error));
        }
    }

    /// Answers every call with an error.
    pub(super) fn fail_all(&self, error: &Error) {
        let all = std::mem::take(&mut *self.waiting.lock());
        self.bytes.store(0, Ordering::Relaxed);
        for waiter in all.into_values() {
            let _ = waiter.reply.send(Err(error.clone()));
        }
    }

    /// Answers the calls whose deadline has passed.
    pub(super) fn expire(&self, now: Instant) {
        let late = {
            let mut waiting = self.waiting.lock();
            waiting.extract_if(|_, waiter| waiter.deadline <= now).collect::<Vec<_>>()
        };
        for (_, waiter) in late {
            self.bytes.fetch_sub(waiter.bytes, Ordering::Relaxed);
            let _ = waiter.reply.send(Err(Error::Timeout));
        }
    }

    /// How many calls wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}
