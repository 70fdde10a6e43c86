//! What happens to some keys from a revision on, for a call that waits for it inside of a member.

use super::super::{Backend, run};
use crate::{
    pb::{
        etcdserverpb::WatchResponse,
        mvccpb::{Event, event::EventType},
    },
    runtime,
    types::{Error, KeyRange, Revision},
    watch::{Control, Deliveries, Delivery, Done, Turn, WatchSpec},
};
use prost::Message;
use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{sync::Semaphore, task::JoinHandle};

/// A stream of the hub that no client holds. Dropping it ends its watchers.
pub(super) struct Follow<B> {
    backend: B,
    control: Control,
    deliveries: Deliveries,
    /// Reads history, if the keys had any by then.
    job: Option<JoinHandle<Done>>,
    readers: Arc<Semaphore>,
}

/// What was heard.
pub(super) enum Heard {
    /// It happened up to this revision.
    Events(Vec<Event>, Revision),
    /// What happened is compacted: the state of now has to be read instead.
    Compacted,
}

impl<B: Backend> Follow<B> {
    pub(super) fn new(backend: &B, readers: &Arc<Semaphore>) -> Follow<B> {
        let (control, deliveries) = backend.hub().open();
        Follow { backend: backend.clone(), control, deliveries, job: None, readers: Arc::clone(readers) }
    }

    /// Follows `range` from `start` on, which must not be 0.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`] if there are too many watchers already.
    pub(super) fn add(&self, range: KeyRange, start: Revision, deletes_alone: bool) -> Result<(), Error> {
        let spec = WatchSpec {
            id: None,
            range,
            start,
            no_put: deletes_alone,
            no_delete: false,
            prev_kv: false,
            fragment: false,
            progress_notify: false,
        };
        self.control.create(spec).map(drop)
    }

    /// What happens next. May be dropped and called again.
    ///
    /// # Errors
    /// The member's fault, if history could not be read.
    pub(super) async fn next(&mut self) -> Result<Heard, Error> {
        loop {
            match poll_fn(|context| self.poll(context)).await? {
                Delivery::Events { revision, events, .. } => {
                    let decoded = events.into_iter().map(WatchResponse::decode).collect::<Result<Vec<_>, _>>();
                    let replies = decoded.expect("encoded by the hub");
                    return Ok(Heard::Events(replies.into_iter().flat_map(|reply| reply.events).collect(), revision));
                }
                // Nobody here cancels, so that is the reason.
                Delivery::Canceled { .. } => return Ok(Heard::Compacted),
                Delivery::Created { .. } | Delivery::Refused { .. } | Delivery::Progress { .. } => {}
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Delivery, Error>> {
        loop {
            if let Some(job) = &mut self.job
                && let Poll::Ready(done) = Pin::new(job).poll(context)
            {
                self.job = None;
                // Only a runtime that shuts down drops a task.
                let done = done.map_err(|_| Error::Stopped)?;
                self.deliveries.caught(done).map_err(|fault| self.backend.report(fault))?;
            }
            match self.deliveries.poll(context) {
                Poll::Ready(Turn::Deliver(delivery)) => return Poll::Ready(Ok(delivery)),
                Poll::Ready(Turn::Read(job)) => {
                    self.job = Some(runtime::spawn(run(job, Arc::clone(&self.readers))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Whether this is the end of a key.
pub(super) fn is_delete(event: &Event) -> bool {
    event.r#type == EventType::Delete as i32
}
