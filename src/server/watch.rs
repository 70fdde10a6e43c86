//! The Watch service.
//!
//! A stream has two sides that never wait for each other. Requests are read by a task of their own, which waits only while too many
//! replies to them are unread. Replies are made when the connection asks for more: what a client does not read is not made, and
//! piles up in the hub no further than its bound.

use super::{
    Backend, CallBody, Edge, EdgeCounts, Header, Identity,
    admission::{Class, StreamTicket},
    edge::StreamEnd,
    guard::Guard,
};
use crate::{
    pb::etcdserverpb::{self as pb, WatchRequest, watch_create_request::FilterType, watch_request::RequestUnion},
    runtime,
    types::{Error, KeyRange, Revision},
    watch::{Control, Deliveries, Delivery, Done, Job, Turn, WatchSpec},
};
use bytes::Bytes;
use http::{Request as HttpRequest, Response as HttpResponse};
use prost::Message;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
    task::{AbortHandle, JoinHandle},
    time::{Instant, Sleep},
};
use tokio_stream::Stream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
    server::{Grpc, StreamingService},
};
use tonic_prost::{ProstCodec, ProstDecoder};

/// The Watch service. Cheap to clone.
#[derive(Clone)]
pub struct WatchService<B> {
    edge: Edge<B>,
    message_bytes_max: usize,
    /// Threads that read history for streams: whoever is behind must not take the machine from those who are not.
    readers: Arc<Semaphore>,
}

impl<B: Backend> WatchService<B> {
    /// The service on this edge, for requests of at most `message_bytes_max`.
    pub fn new(edge: Edge<B>, message_bytes_max: usize) -> WatchService<B> {
        let readers = Arc::clone(&edge.history_readers);
        WatchService { edge, message_bytes_max, readers }
    }

    /// Answers a call. Written out, where other services have generated code, because the replies have a codec of their own.
    pub(super) async fn call<R: CallBody>(self, request: HttpRequest<R>) -> Result<HttpResponse<Body>, Infallible> {
        if request.uri().path() != "/etcdserverpb.Watch/Watch" {
            return Ok(Status::unimplemented("").into_http());
        }
        let mut grpc = Grpc::new(WatchCodec).apply_max_message_size_config(Some(self.message_bytes_max), None);
        Ok(grpc.streaming(self, request).await)
    }

    fn open(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Answers<B>>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let identity = self.edge.open(&metadata, &extensions, false)?;
        let mut end: StreamEnd = self.edge.stream_end(&metadata);
        let open = self.edge.admission.stream(Class::Write)?;
        let (control, deliveries) = self.edge.backend.hub().open();
        let (failed, has_failed) = oneshot::channel();
        let watched = Arc::new(Watched { control, guard: Guard::new(self.edge.view().clone()) });
        let (reader, edge) = (Arc::clone(&watched), self.edge.clone());
        let reading = runtime::spawn(async move {
            if let Err(status) = read_requests(requests, &edge, &reader, &identity).await {
                // Nobody listens if the stream has ended.
                let _ = failed.send(status);
            }
        });
        Ok(Response::new(Answers {
            backend: self.edge.backend.clone(),
            counts: Arc::clone(&self.edge.counts),
            deliveries: Some(deliveries),
            watched,
            job: None,
            readers: Arc::clone(&self.readers),
            interval: interval(self.edge.settings.watch_progress_interval),
            tick: Box::pin(tokio::time::sleep(interval(self.edge.settings.watch_progress_interval))),
            end: Box::pin(async move { end.reached().await }),
            failed: Some(has_failed),
            reading: reading.abort_handle(),
            since_look: 0,
            is_over: false,
            _open: open,
        }))
    }
}

impl<B: Backend> StreamingService<WatchRequest> for WatchService<B> {
    type Response = WatchReply;
    type ResponseStream = Answers<B>;
    type Future = std::future::Ready<Result<Response<Answers<B>>, Status>>;

    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        std::future::ready(self.open(request))
    }
}

/// The time between two notifications, with a little chance: streams that began together must not all be told at once.
pub(crate) fn interval(configured: Duration) -> Duration {
    let least = configured.max(PROGRESS_INTERVAL_MIN);
    least + least.mul_f64(runtime::chance(0.0..0.1))
}

const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What the two sides of a stream share.
struct Watched {
    control: Control,
    guard: Guard,
}

/// Carries requests to the hub, until the client has no more. The stream goes on after that: one who asks over HTTP says all at once.
/// And has watchers end whose permission is gone, also where nothing happens that would have to be withheld.
async fn read_requests<B: Backend>(
    mut requests: Streaming<WatchRequest>,
    edge: &Edge<B>,
    watched: &Watched,
    identity: &Identity,
) -> Result<(), Status> {
    let Watched { control, guard } = watched;
    let mut auth_changed = edge.backend.keeper().changed();
    guard.meet(edge, identity).await;
    let mut has_more = true;
    loop {
        let message = async {
            poll_fn(|context| control.poll_room(context)).await;
            requests.message().await
        };
        let request = tokio::select! {
            // What may no longer be seen ends before anything new begins.
            biased;
            changed = auth_changed.changed() => {
                if changed.is_err() {
                    return Ok(()); // the member ends
                }
                guard.meet(edge, identity).await;
                guard.look(control);
                continue;
            }
            message = message, if has_more => message?,
        };
        let Some(request) = request else {
            has_more = false;
            continue;
        };
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                let spec = spec(create);
                let range = spec.range.clone();
                // Whether it worked is in the reply.
                guard.create(control, &range, || control.create(spec).ok());
            }
            Some(RequestUnion::CancelRequest(cancel)) => {
                control.cancel(cancel.watch_id);
                guard.canceled(cancel.watch_id);
            }
            Some(RequestUnion::ProgressRequest(_)) => control.request_progress(),
            // Of a client that is newer than we are.
            None => {}
        }
    }
}

/// What a request asks the hub for.
pub(crate) fn spec(create: pb::WatchCreateRequest) -> WatchSpec {
    let wants = |filter: FilterType| create.filters.contains(&i32::from(filter));
    let (no_put, no_delete) = (wants(FilterType::Noput), wants(FilterType::Nodelete));
    // No key is the smallest key.
    let key = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key };
    WatchSpec {
        id: Some(create.watch_id).filter(|id| *id != 0),
        range: KeyRange::from_wire(key, create.range_end),
        start: Revision(create.start_revision),
        no_put,
        no_delete,
        prev_kv: create.prev_kv,
        fragment: create.fragment,
        progress_notify: create.progress_notify,
    }
}

/// The replies of a stream, made when they are asked for.
pub struct Answers<B> {
    backend: B,
    counts: Arc<EdgeCounts>,
    /// There until this is dropped.
    deliveries: Option<Deliveries>,
    watched: Arc<Watched>,
    /// Reads history for watchers that are behind.
    job: Option<JoinHandle<Done>>,
    readers: Arc<Semaphore>,
    interval: Duration,
    tick: Pin<Box<Sleep>>,
    /// The member stops, or has been without a leader for too long.
    end: Pin<Box<dyn Future<Output = Error> + Send>>,
    /// What was wrong with the requests.
    failed: Option<oneshot::Receiver<Status>>,
    reading: AbortHandle,
    since_look: u32,
    is_over: bool,
    _open: StreamTicket,
}

/// Nothing in it is pinned in place.
impl<B> Unpin for Answers<B> {}

impl<B> Drop for Answers<B> {
    fn drop(&mut self) {
        self.reading.abort();
        self.deliveries.take().into_iter().for_each(discard);
    }
}

/// Ends a stream's watchers, not on a thread that others wait for if they are many.
pub(crate) fn discard(deliveries: Deliveries) {
    // Without a runtime the program ends, and nobody waits.
    if deliveries.watchers() > WATCHERS_FEW
        && let Ok(runtime) = Handle::try_current()
    {
        runtime.spawn_blocking(move || drop(deliveries));
    }
}

/// So many watchers end in no time.
const WATCHERS_FEW: usize = 500;

/// Replies between two looks at everything else. A busy stream has to end too.
const LOOK_EVERY: u32 = 64;

impl<B: Backend> Stream for Answers<B> {
    type Item = Result<WatchReply, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let next = ready!(this.next(context));
        this.is_over = next.is_err();
        Poll::Ready(Some(next))
    }
}

impl<B: Backend> Answers<B> {
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchReply, Status>> {
        loop {
            if self.since_look == 0 {
                self.look_around(context)?;
            }
            self.since_look = (self.since_look + 1) % LOOK_EVERY;
            match self.deliveries().poll(context) {
                Poll::Ready(Turn::Deliver(delivery)) => {
                    if !self.watched.guard.lets(&self.watched.control, &delivery) {
                        continue;
                    }
                    if let Delivery::Events { events, .. } = &delivery {
                        self.counts.events_sent.fetch_add(events.len() as u64, Relaxed);
                    }
                    let header = self.backend.header().at(delivery.revision());
                    return Poll::Ready(Ok(WatchReply::Made { header, delivery }));
                }
                Poll::Ready(Turn::Read(job)) => {
                    self.job = Some(runtime::spawn(run(job, Arc::clone(&self.readers))));
                    self.since_look = 0;
                }
                Poll::Pending if self.since_look == 1 => {
                    self.since_look = 0;
                    return Poll::Pending;
                }
                // Before it sleeps it must have asked everybody to be woken.
                Poll::Pending => self.since_look = 0,
            }
        }
    }

    fn deliveries(&mut self) -> &mut Deliveries {
        self.deliveries.as_mut().expect("taken by drop alone")
    }

    /// Asks everybody but the hub.
    fn look_around(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        if let Poll::Ready(error) = self.end.as_mut().poll(context) {
            return Err(error.into());
        }
        if let Some(failed) = &mut self.failed
            && let Poll::Ready(failed_or_done) = Pin::new(failed).poll(context)
        {
            self.failed = None;
            // An error means that the requests came to their end.
            if let Ok(status) = failed_or_done {
                return Err(status);
            }
        }
        while self.tick.as_mut().poll(context).is_ready() {
            self.deliveries().tick();
            self.tick.as_mut().reset(Instant::now() + self.interval);
        }
        if let Some(job) = &mut self.job
            && let Poll::Ready(done) = Pin::new(job).poll(context)
        {
            self.job = None;
            // Only a runtime that shuts down drops a task.
            let done = done.map_err(|_| Status::from(Error::Stopped))?;
            self.deliveries().caught(done).map_err(|fault| Status::from(self.backend.report(fault)))?;
        }
        Ok(())
    }
}

/// Runs a job on a thread that may block, as soon as there is one to spare.
pub(crate) async fn run(job: Job, readers: Arc<Semaphore>) -> Done {
    let _permit = readers.acquire().await.expect("it is never closed");
    runtime::spawn_blocking(move || job.run()).await.expect("a job ends, and is not cancelled")
}

/// A reply on its way to a client.
#[derive(Debug)]
pub enum WatchReply {
    /// Of a hub of this process.
    Made {
        /// At the revision of the delivery.
        header: Header,
        /// Its events are encoded already.
        delivery: Delivery,
    },
    /// Of another server, as a proxy passes it on.
    Passed(pb::WatchResponse),
}

/// Requests as everywhere; replies by joining bytes that were encoded once for all streams.
#[derive(Clone, Copy, Debug)]
pub struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = WatchReply;
    type Decode = WatchRequest;
    type Encoder = WatchCodec;
    type Decoder = ProstDecoder<WatchRequest>;

    fn encoder(&mut self) -> WatchCodec {
        WatchCodec
    }

    fn decoder(&mut self) -> ProstDecoder<WatchRequest> {
        ProstCodec::<WatchRequest, WatchRequest>::raw_decoder(buffers(REQUEST_BYTES_USUAL))
    }
}

/// Room for a request and for replies, to begin with. Each stream has both for as long as it is open, and most are idle: with the library's 8 KiB
/// for each they were the most of what a stream takes.
const REQUEST_BYTES_USUAL: usize = 256;
const REPLY_BYTES_USUAL: usize = 1 << 10;

fn buffers(bytes: usize) -> BufferSettings {
    BufferSettings::new(bytes, YIELD_AT_BYTES)
}

/// So much is encoded before it is sent, as the library has it.
const YIELD_AT_BYTES: usize = 32 << 10;

impl Encoder for WatchCodec {
    type Item = WatchReply;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        buffers(REPLY_BYTES_USUAL)
    }

    fn encode(&mut self, answer: WatchReply, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match answer {
            WatchReply::Made { header, delivery } => {
                out.reserve(delivery.size_hint());
                delivery.encode(header.to_wire(), out);
            }
            WatchReply::Passed(reply) => reply.encode(out).expect("the buffer grows"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_has_a_least_and_a_little_chance() {
        for (configured, least) in [(Duration::ZERO, 100), (Duration::from_secs(600), 600_000)] {
            for _ in 0..100 {
                let millis = interval(configured).as_millis();
                assert!((least..=least * 11 / 10).contains(&millis), "{millis} ms");
            }
        }
    }
}
