//! The replies of a stream, made when they are asked for: hubs are polled here, and nowhere else.

use super::{
    Locals, WatchSettings,
    leader::Looking,
    merge::Home,
    session::{Next, Session},
};
use crate::{
    runtime,
    server::{WatchReply, discard, interval, run},
    types::Error,
    watch::{Deliveries, Delivery, Done, Turn},
};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinHandle},
    time::{Instant, Sleep},
};
use tokio_stream::Stream;
use tonic::Status;

type Event = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Done at a change; gives back what to wait for the next one with.
type Change = Pin<Box<dyn Future<Output = watch::Receiver<u64>> + Send>>;

fn changed(mut count: watch::Receiver<u64>) -> Change {
    Box::pin(async move {
        if count.changed().await.is_err() {
            // Nobody is left to change anything.
            std::future::pending::<()>().await;
        }
        count
    })
}

/// A hub's replies to this stream.
pub(super) struct Part {
    home: Home,
    /// There until this is dropped.
    deliveries: Option<Deliveries>,
    /// Reads history for watchers that are behind.
    job: Option<JoinHandle<Done>>,
    /// The hub is no more.
    ended: Event,
}

impl Part {
    pub(super) fn new(home: Home, deliveries: Deliveries, ended: watch::Receiver<bool>) -> Part {
        Part { home, deliveries: Some(deliveries), job: None, ended: told(ended) }
    }

    fn deliveries(&mut self) -> &mut Deliveries {
        self.deliveries.as_mut().expect("taken by drop alone")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.deliveries.take().into_iter().for_each(discard);
    }
}

/// Done when it is said, or nobody is left to say it.
fn told(mut word: watch::Receiver<bool>) -> Event {
    Box::pin(async move { drop(word.wait_for(|told| *told).await) })
}

/// See the module.
pub struct Answers<L: Locals> {
    session: Arc<Session<L>>,
    /// They end with this.
    tasks: [AbortHandle; 2],
    parts: Vec<Part>,
    /// Which of them is polled first.
    first: usize,
    readers: Arc<Semaphore>,
    interval: Duration,
    tick: Pin<Box<Sleep>>,
    probe: Pin<Box<Sleep>>,
    home_every: Duration,
    /// When watchers upstream look for a home here; there only while there are some.
    look_home: Option<Pin<Box<Sleep>>>,
    /// Who may watch what here may be another matter.
    change: Option<Change>,
    /// [`Locals::stamp`] when all watchers were last looked at.
    stamp: u64,
    stopping: Event,
    /// For a client that insists on a leader: there is none any more.
    leaderless: Option<(Event, Arc<Looking>)>,
    since_look: u32,
    is_over: bool,
}

/// Replies between two looks at everything else. A busy stream has to end too.
const LOOK_EVERY: u32 = 64;

/// How often hubs are asked how far they are. When one ends its watchers go on from there, at the latest.
const PROBE_EVERY: Duration = Duration::from_secs(60);

impl<L: Locals> Answers<L> {
    pub(super) fn new(
        session: Arc<Session<L>>,
        tasks: [AbortHandle; 2],
        settings: &WatchSettings,
        readers: Arc<Semaphore>,
        stopping: watch::Receiver<bool>,
        leader: Option<Arc<Looking>>,
    ) -> Answers<L> {
        let interval = interval(settings.progress_interval);
        Answers {
            change: session.changed().map(changed),
            // Requests may have been read already: it looks once in any case.
            stamp: u64::MAX,
            session,
            tasks,
            parts: Vec::new(),
            first: 0,
            readers,
            interval,
            tick: Box::pin(tokio::time::sleep(interval)),
            probe: Box::pin(tokio::time::sleep(PROBE_EVERY)),
            home_every: settings.home_every,
            look_home: None,
            stopping: told(stopping),
            leaderless: leader.map(|leader| (Box::pin(leader.lost()) as Event, leader)),
            since_look: 0,
            is_over: false,
        }
    }

    fn next(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchReply, Status>> {
        loop {
            if self.since_look == 0 {
                self.look_around(context)?;
            }
            let has_looked = self.since_look == 0;
            self.since_look = (self.since_look + 1) % LOOK_EVERY;
            self.reconsider();
            // One delivery at a time goes behind what is there, so nobody keeps the others from their turn.
            let has_more = self.take_delivery(context);
            match self.session.poll(context, has_looked && !has_more) {
                Poll::Ready(Next::WatchReply(answer)) => return Poll::Ready(Ok(answer)),
                Poll::Ready(Next::Failed(status)) => return Poll::Ready(Err(status)),
                Poll::Ready(Next::Parts(parts)) => {
                    self.parts.extend(parts);
                    self.since_look = 0;
                }
                Poll::Pending if has_more => {}
                // Before it sleeps it must have asked everybody to be woken.
                Poll::Pending => {
                    self.since_look = 0;
                    if has_looked {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Has watchers go that may not be served here any more, before anything is made for them.
    fn reconsider(&mut self) {
        let stamp = self.session.stamp();
        if stamp != self.stamp {
            // Before the look: what changes meanwhile has the next one look again.
            self.stamp = stamp;
            self.session.with_polled(|merger| merger.reconsider());
        }
    }

    /// Asks everybody but hubs and the session.
    fn look_around(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        if self.stopping.as_mut().poll(context).is_ready() {
            return Err(Error::Stopped.into());
        }
        if let Some((leaderless, _)) = &mut self.leaderless
            && leaderless.as_mut().poll(context).is_ready()
        {
            return Err(Error::NoLeader.into());
        }
        while self.tick.as_mut().poll(context).is_ready() {
            self.parts.iter_mut().for_each(|part| part.deliveries().tick());
            self.tick.as_mut().reset(Instant::now() + self.interval);
        }
        while self.probe.as_mut().poll(context).is_ready() {
            self.session.with_polled(|merger| merger.probe());
            self.probe.as_mut().reset(Instant::now() + PROBE_EVERY);
        }
        while let Some(change) = &mut self.change
            && let Poll::Ready(count) = change.as_mut().poll(context)
        {
            self.change = Some(changed(count));
        }
        self.look_home(context);
        let mut at = 0;
        while at < self.parts.len() {
            self.catch_up(at, context)?;
            if self.parts[at].ended.as_mut().poll(context).is_ready() {
                let mut part = self.parts.swap_remove(at);
                self.take_last_words(&mut part, context);
                self.session.home_ended(part.home);
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    fn look_home(&mut self, context: &mut Context<'_>) {
        loop {
            if !self.session.has_watchers_away() {
                self.look_home = None;
                return;
            }
            let every = self.home_every;
            let timer = self.look_home.get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
            if timer.as_mut().poll(context).is_pending() {
                return;
            }
            self.session.with_polled(|merger| merger.come_home());
            self.look_home = None;
        }
    }

    /// What a hub that is no more still has for its watchers, and how far it came. Those that were behind read the rest elsewhere.
    fn take_last_words(&mut self, part: &mut Part, context: &mut Context<'_>) {
        let home = part.home;
        self.session.with_polled(|merger| merger.ask_before_the_end(home));
        while let Poll::Ready(Turn::Deliver(delivery)) = part.deliveries().poll(context) {
            let deliveries = whole(part.deliveries(), delivery, context);
            self.session.with_polled(|merger| deliveries.into_iter().for_each(|one| merger.delivered(home, one)));
        }
    }

    fn catch_up(&mut self, at: usize, context: &mut Context<'_>) -> Result<(), Status> {
        let part = &mut self.parts[at];
        if let Some(job) = &mut part.job
            && let Poll::Ready(done) = Pin::new(job).poll(context)
        {
            part.job = None;
            // Only a runtime that shuts down drops a task.
            let done = done.map_err(|_| Status::from(Error::Stopped))?;
            part.deliveries().caught(done).map_err(|fault| {
                tracing::error!(%fault, "a copy cannot be read");
                Status::from(Error::Stopped)
            })?;
        }
        Ok(())
    }

    /// Takes a delivery of some hub, if there is one, and all that belongs to it.
    fn take_delivery(&mut self, context: &mut Context<'_>) -> bool {
        let count = self.parts.len();
        self.first += 1;
        for at in 0..count {
            let at = (self.first + at) % count;
            let part = &mut self.parts[at];
            let home = part.home;
            match part.deliveries().poll(context) {
                Poll::Pending => {}
                Poll::Ready(Turn::Read(job)) => {
                    part.job = Some(runtime::spawn(run(job, Arc::clone(&self.readers))));
                    self.since_look = 0;
                    return true;
                }
                Poll::Ready(Turn::Deliver(delivery)) => {
                    let deliveries = whole(part.deliveries(), delivery, context);
                    self.session
                        .with_polled(|merger| deliveries.into_iter().for_each(|one| merger.delivered(home, one)));
                    return true;
                }
            }
        }
        false
    }
}

/// The fragments of a delivery: nothing may stand between them, and they are ready together.
fn whole(deliveries: &mut Deliveries, delivery: Delivery, context: &mut Context<'_>) -> Vec<Delivery> {
    let mut all = vec![delivery];
    while matches!(all.last(), Some(Delivery::Events { fragment: true, .. })) {
        let Poll::Ready(Turn::Deliver(next)) = deliveries.poll(context) else {
            unreachable!("a hub has all fragments of a reply ready");
        };
        all.push(next);
    }
    all
}

impl<L: Locals> Drop for Answers<L> {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Nothing in it is pinned in place.
impl<L: Locals> Unpin for Answers<L> {}

impl<L: Locals> Stream for Answers<L> {
    type Item = Result<WatchReply, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(this.next(context));
        this.is_over = next.is_err();
        Poll::Ready(Some(next))
    }
}
