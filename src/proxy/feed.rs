//! Keeps a copy of one range: loads it, then follows it, for as long as the ring lives.
//!
//! The load streams by, or comes in pages from an upstream that knows no streams, at the revision of a fence. Then one watch of
//! upstream begins after it. When the stream breaks, another member is asked to go on after the last revision that is here: nothing is
//! lost and nothing comes twice, also if that member lags behind. A fence says before whether upstream is still what it was. Where the
//! history has a hole the copy ends, and another one is loaded.
//!
//! A watch of a range does not hear of other keys, so its revision would stand still while theirs go on. Whoever waits for one makes
//! the feed ask for progress: once for all who wait, and again for those who came meanwhile.

mod asking;
mod load;
pub(super) mod replies;
mod saved;

use super::{
    Source,
    budget::{Budget, Held},
    copies::Ground,
    copy::{Keep, Writer},
    fence::{Fence, Refusal, asks_who, ended_by_asking_who, header},
    place::Place,
    shelf::Shelf,
    source::own,
};
use crate::{
    client::Policy,
    pb::etcdserverpb::{self as pb, watch_client::WatchClient, watch_request::RequestUnion},
    types::{KeyRange, Revision, Sabotage},
    watch as hub,
};
use asking::Asking;
use bytes::Bytes;
use replies::{Inbox, News};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, metadata::MetadataValue};

/// How a feed behaves.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How much history is kept.
    pub keep: Keep,
    /// Whether to load by RangeStream where upstream has it; else in pages.
    pub streams: bool,
    /// The hub's bounds.
    pub hub: hub::Options,
    /// Longest wait for a page, or for a watch to begin.
    pub call_max: Duration,
    /// A member that does not come to what somebody waits for is left after this.
    pub lag_max: Duration,
    /// A range that was too large is looked at again after this.
    pub too_large_pause: Duration,
    /// Pauses between attempts.
    pub pauses: Policy,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            keep: Keep::default(),
            streams: true,
            hub: hub::Options::default(),
            call_max: Duration::from_secs(5),
            lag_max: Duration::from_secs(2),
            too_large_pause: Duration::from_secs(300),
            pauses: Policy::default(),
        }
    }
}

/// Keeps the copy of one range.
pub(super) struct Feed {
    range: KeyRange,
    source: Arc<dyn Source>,
    fence: Fence,
    rules: Rules,
    budget: Arc<Budget>,
    /// Where others find the copy.
    place: Arc<Place>,
    /// Where copies are on disk.
    shelf: Option<Arc<Shelf>>,
    /// Bytes that a load may take for each point of the place's worth, if it was not named.
    bytes_per_point: Option<usize>,
    sabotage: Option<Sabotage>,
}

/// Why a stream is no more.
#[derive(Debug)]
enum End {
    /// Another one can go on where it was.
    Lost(String),
    /// Nothing can.
    Over(String),
    /// Nothing can: upstream has another history.
    Alien(String),
    /// The copy has outgrown the budget.
    TooLarge,
}

impl Feed {
    /// What keeps the copy of `place`, by what `source` says.
    pub(super) fn new(place: &Arc<Place>, ground: &Ground, source: &Arc<dyn Source>, rules: &Rules) -> Feed {
        Feed {
            range: place.range().clone(),
            source: Arc::clone(source),
            fence: ground.fence.clone(),
            rules: rules.clone(),
            budget: Arc::clone(&ground.budget),
            place: Arc::clone(place),
            shelf: ground.shelf.clone(),
            bytes_per_point: None,
            sabotage: ground.sabotage,
        }
    }

    /// Has a load end if it takes more than so many bytes for each point that the place is worth.
    pub(super) fn worth(self, bytes_per_point: usize) -> Feed {
        Feed { bytes_per_point: Some(bytes_per_point), ..self }
    }

    /// Keeps the copy of a range that was named. Never returns.
    pub(super) async fn run(self) {
        loop {
            self.run_while_it_fits().await;
            tracing::warn!(
                range = ?self.range, budget_bytes = self.budget.bytes_max(),
                "the range does not fit into the budget of the copies, so it is passed through"
            );
            tokio::time::sleep(self.rules.too_large_pause).await;
        }
    }

    /// Keeps the copy. Returns when it does not fit.
    pub(super) async fn run_while_it_fits(&self) {
        let mut pauses = self.rules.pauses.pauses(self.source.ways());
        let mut is_first = true;
        loop {
            let mut held = self.budget.claim(self.place.rank());
            let saved = if std::mem::take(&mut is_first) { self.take_saved(&mut held).await } else { None };
            let was_saved = saved.is_some();
            let begun = match saved {
                Some(writer) => Ok(writer),
                None => self.load(&mut held).await.inspect(|writer| self.begin(writer)),
            };
            let end = match begun {
                Ok(mut writer) => {
                    let began = Instant::now();
                    let end = self.follow(&mut writer, &mut held, was_saved).await;
                    // Before the copy is over: nobody is to find it then.
                    self.place.empty(self.fence.now());
                    // One that ends at once, again and again, must not cost upstream a load each time.
                    if began.elapsed() > self.rules.call_max {
                        pauses.reset();
                    }
                    end
                }
                Err(end) => end,
            };
            drop(held);
            let pause = match end {
                End::TooLarge => return,
                End::Alien(why) => {
                    self.discard_saved(&why).await;
                    pauses.next()
                }
                End::Lost(why) | End::Over(why) => {
                    let pause = pauses.next();
                    tracing::info!(range = ?self.range, why, ?pause, "a copy is to be loaded");
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn begin(&self, writer: &Writer) {
        tracing::info!(range = ?self.range, revision = %writer.revision(), bytes = writer.bytes(), "a copy begins");
        self.place.fill(writer.copy(), self.fence.now());
    }

    /// Brings events in until nothing can any more. `is_resumed`: upstream is to say first that it is still what it was.
    async fn follow(&self, writer: &mut Writer, held: &mut Held, mut is_resumed: bool) -> End {
        let mut pauses = self.rules.pauses.pauses(self.source.ways());
        loop {
            let (began, before) = (Instant::now(), writer.revision());
            let (turn, _) = self.source.pick();
            let why = match self.one_stream(writer, held, is_resumed).await {
                Err(End::Lost(why)) => why,
                Err(end) => return end,
                Ok(never) => match never {},
            };
            is_resumed = true;
            self.source.leave(turn);
            // One that answers and hangs up at once is as bad as one that does not answer.
            if writer.revision() > before || began.elapsed() > self.rules.call_max {
                pauses.reset();
            }
            let pause = pauses.next();
            tracing::debug!(range = ?self.range, why, ?pause, "a copy has lost upstream");
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => {}
                () = over(writer) => return End::Over("it is not upstream's history any more".into()),
            }
        }
    }

    async fn one_stream(
        &self,
        writer: &mut Writer,
        held: &mut Held,
        is_resumed: bool,
    ) -> Result<std::convert::Infallible, End> {
        if is_resumed {
            let before = writer.revision();
            let proof = self.fence.pass().await.map_err(|refusal| match refusal {
                // Nothing may be answered from it any more.
                Refusal::Locked => End::Over(refusal.to_string()),
                Refusal::TimedOut | Refusal::NotThere | Refusal::Refused(_) => End::Lost(refusal.to_string()),
            })?;
            if !writer.copy().agrees(before, &proof) {
                self.fence.forget();
                return Err(End::Alien(writer.copy().disagreement(&proof)));
            }
        }
        let opening = tokio::time::timeout(self.rules.call_max, self.open(self.resumption(writer, is_resumed)));
        let (requests, mut replies) = opening.await.unwrap_or_else(|_| Err(End::Lost("no watch in time".into())))?;
        let mut wanted = writer.copy().wanted();
        let mut inbox = Inbox::default();
        let mut asking = Asking::new();
        let mut is_untidy = true;
        loop {
            let goal = *wanted.borrow_and_update();
            let now = Instant::now();
            let ask_at = asking
                .ask_at(now, writer.revision(), goal, self.rules.lag_max)
                .map_err(|()| End::Lost("the member lags behind".into()))?;
            let reply = tokio::select! {
                // Replies that never stop keep neither the end nor a question waiting.
                biased;
                () = over(writer) => return Err(End::Over("it is not upstream's history any more".into())),
                () = tokio::time::sleep_until(ask_at.unwrap_or(now)), if ask_at.is_some() => {
                    let union = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    asking.asked(now, goal);
                    // Full only if the connection takes nothing: then the question is lost like others, and asked again.
                    let _ = requests.try_send(pb::WatchRequest { request_union: Some(union) });
                    continue;
                }
                reply = replies.message() => reply,
                Ok(()) = wanted.changed() => continue,
                () = tokio::task::yield_now(), if is_untidy => {
                    is_untidy = writer.tidy().map_err(fault)?;
                    continue;
                }
            };
            let reply = match reply {
                Ok(Some(reply)) => reply,
                Ok(None) => return Err(End::Lost("the stream ended".into())),
                Err(status) => return Err(End::Lost(format!("{:?}: {}", status.code(), status.message()))),
            };
            if header(reply.header).is_some_and(|header| !writer.heard(&header)) {
                self.fence.forget();
                return Err(End::Alien("upstream is another cluster".into()));
            }
            match inbox.take(reply) {
                News::Nothing => {}
                News::Events(events) => sound(writer.events(events))?,
                News::Progress { upto, is_answer } => {
                    writer.progress(upto);
                    if is_answer {
                        asking.answered(Instant::now(), upto);
                    }
                }
                News::Compacted(at) => return Err(End::Over(format!("upstream is compacted at {at}"))),
                News::Canceled(why) if ended_by_asking_who(&why) => {
                    // Before the copy ends: nobody must find the next one.
                    self.fence.lock();
                    return Err(End::Over(Refusal::Locked.to_string()));
                }
                News::Canceled(why) => return Err(End::Lost(format!("the watch was cancelled: {why}"))),
            }
            is_untidy = true;
            if !held.resize(writer.bytes()).await {
                return Err(End::TooLarge);
            }
        }
    }

    /// Where the next stream begins.
    fn resumption(&self, writer: &Writer, is_resumed: bool) -> Revision {
        let next = writer.revision().next();
        if is_resumed && Sabotage::ResumeTooLate.is(self.sabotage) { next.next() } else { next }
    }

    async fn open(
        &self,
        start: Revision,
    ) -> Result<(mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>), End> {
        let (key, range_end) = to_wire(&self.range);
        // What an event replaced is here already, so it need not come again.
        let create = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: start.0,
            progress_notify: true,
            fragment: true,
            ..Default::default()
        };
        let (requests, stream) = mpsc::channel(4);
        // It waits in the queue before the call: members answer the call itself only after it.
        let _ = requests.try_send(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        let mut request = own(&*self.source, ReceiverStream::new(stream));
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let (_, channel) = self.source.pick();
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        match client.watch(request).await {
            Ok(replies) => Ok((requests, replies.into_inner())),
            Err(status) if asks_who(&status) => Err(End::Over(status.message().to_owned())),
            Err(status) => Err(End::Lost(status.message().to_owned())),
        }
    }
}

/// Returns once the copy has ended.
fn over(writer: &Writer) -> impl Future<Output = ()> + use<> {
    let copy = Arc::clone(writer.copy());
    async move { copy.over().await }
}

fn fault(fault: crate::types::Fault) -> End {
    End::Over(format!("the copy is broken: {fault}"))
}

fn sound(result: Result<Result<(), crate::mvcc::Diverged>, crate::types::Fault>) -> Result<(), End> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(diverged)) => Err(End::Over(format!("what came does not fit: {diverged}"))),
        Err(broken) => Err(fault(broken)),
    }
}

/// A range in etcd's two fields.
pub(super) fn to_wire(range: &KeyRange) -> (Bytes, Bytes) {
    const ZERO: Bytes = Bytes::from_static(&[0]);
    match range {
        KeyRange::One(key) => (key.clone(), Bytes::new()),
        KeyRange::Span { start, end } => (start.clone(), end.clone()),
        KeyRange::From(start) => (if start.is_empty() { ZERO } else { start.clone() }, ZERO),
    }
}
