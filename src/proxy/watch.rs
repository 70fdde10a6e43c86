//! The Watch service of a proxy: watchers that a copy of this process can serve, and others, on one stream.
//!
//! ```text
//!                            ┌── hub of a copy ── Deliveries ──┐
//!   requests ── read ── Merger                                 Merger ── Answers ── the wire
//!                            └── link (a task): one stream upstream ──┘
//! ```
//!
//! A client's stream has one [`merge::Merger`] behind a lock that is held for moments ([`session`]). Requests are read by a task, the
//! stream upstream is kept by another ([`link`]), and hubs are polled when the connection asks for replies ([`answers`]): what a client
//! does not read is not made, and piles up in hubs no further than their bounds, nor in the link than its own.
//!
//! The link insists on a leader, so a member that is cut off from its cluster is left for another. It is made again for as long as
//! the client listens; watchers go on where they were, and the client hears of it only if what they need is compacted meanwhile. A
//! client that insists on a leader itself is cut off when upstream has said for [`WatchSettings::leaderless_max`] that there is none,
//! whoever serves its watchers ([`leader`]).
//!
//! A stream with a token does not belong here, unless the proxy knows what tokens are worth: see [`takes`]. Whether its watchers may be
//! served by hubs is asked again whenever that may have changed; those that may not any more go upstream, which has the last word.

mod answers;
mod leader;
mod link;
mod merge;
mod round;
mod session;

use super::{Caller, Source};
use crate::{
    client::Policy,
    pb::etcdserverpb::WatchRequest,
    runtime,
    server::{CallBody, Header, WatchCodec, WatchReply},
    types::{Error, KeyRange, Revision},
    watch::Hub,
};
use answers::Answers;
use http::{HeaderMap, Request as HttpRequest, Response as HttpResponse};
use leader::{Looking, Lookout};
use session::Session;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{Semaphore, watch};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    metadata::MetadataMap,
    server::{Grpc, StreamingService},
};

/// [`WatchSettings::home_every`], unless somebody wants otherwise.
pub(super) const HOME_EVERY: Duration = Duration::from_secs(15);

/// Which watchers can be served in this process.
pub trait Locals: Clone + Send + Sync + 'static {
    /// What serves watchers of `range` from `start` on (0: from now) for `caller`; `None` if nothing may, or nothing has all of that range
    /// and history. Cheap, and it must not wait: streams ask with a lock held.
    ///
    /// Streams ask again and again for what is not served here, each [`WatchSettings::home_every`].
    fn local(&self, caller: &Caller, range: &KeyRange, start: Revision) -> Option<Local>;

    /// Whether `caller` may be served here what is in `range`, if there is anything.
    fn allows(&self, _caller: &Caller, _range: &KeyRange) -> bool {
        true
    }

    /// Another number whenever [`Locals::allows`] may say something else. Asked before each reply, so it must be cheap.
    fn stamp(&self) -> u64 {
        0
    }

    /// A wake-up when the number is another one; none if it never is.
    fn changed(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Finds out who `caller` is, if that takes a question. Ends in bounded time.
    fn meet(&self, _caller: &Caller) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// What a stream upstream for `caller` is to say of it, besides `metadata`.
    fn convey(&self, _caller: &Caller, metadata: MetadataMap) -> MetadataMap {
        metadata
    }
}

/// A hub that serves watchers in place of upstream.
#[derive(Clone)]
pub struct Local {
    /// Where watchers attach. All events of the range come through it, with the core's revisions.
    pub hub: Hub,
    /// What replies say of cluster, member and term; the revision in it is not looked at.
    pub header: Arc<dyn Fn() -> Header + Send + Sync>,
    /// Somebody wants to know how far the hub is. A copy hears of its own keys alone: this has it ask upstream, and not wait for that.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
    /// Becomes `true`, or loses its sender, when nothing will come through the hub any more: its watchers go elsewhere.
    pub ended: watch::Receiver<bool>,
}

/// How the service behaves.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// Largest request.
    pub message_bytes_max: usize,
    /// `watch-progress-notify-interval` of watchers that hubs here serve.
    pub progress_interval: Duration,
    /// How often a stream looks whether its watchers upstream can be served here.
    pub home_every: Duration,
    /// How much of a stream from upstream is held for a client that does not read. One reply always fits.
    pub backlog_bytes_max: usize,
    /// Most requests of a stream that are not answered.
    pub requests_max: usize,
    /// How long upstream may be without a leader before clients that insist on one are cut off.
    pub leaderless_max: Duration,
    /// The pauses between attempts to reach upstream.
    pub retry: Policy,
}

impl Default for WatchSettings {
    fn default() -> WatchSettings {
        WatchSettings {
            message_bytes_max: 2 << 20,
            progress_interval: Duration::from_secs(600),
            home_every: HOME_EVERY,
            backlog_bytes_max: 4 << 20,
            requests_max: 128 << 10,
            leaderless_max: Duration::from_secs(3),
            retry: Policy::default(),
        }
    }
}

/// The Watch service of a proxy. Cheap to clone.
#[derive(Clone)]
pub struct ProxyWatch<L> {
    locals: L,
    source: Arc<dyn Source>,
    settings: Arc<WatchSettings>,
    stopping: watch::Receiver<bool>,
    /// For clients that insist on a leader.
    lookout: Lookout,
    /// Threads that read history for streams.
    readers: Arc<Semaphore>,
    /// The watchers of all streams.
    watchers: Arc<AtomicUsize>,
}

impl<L: Locals> ProxyWatch<L> {
    /// The service over what is here and what is upstream. Streams end when `stopping` becomes true.
    pub fn new(
        locals: L,
        source: Arc<dyn Source>,
        settings: WatchSettings,
        stopping: watch::Receiver<bool>,
    ) -> ProxyWatch<L> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let readers = Arc::new(Semaphore::new(processors.div_ceil(2)));
        let settings = Arc::new(settings);
        let lookout = Lookout::new(Arc::clone(&source), Arc::clone(&settings));
        ProxyWatch { locals, source, settings, stopping, lookout, readers, watchers: Arc::default() }
    }

    /// How many watchers there are on all streams.
    pub fn watchers(&self) -> usize {
        self.watchers.load(Relaxed)
    }

    /// Answers a call of `/etcdserverpb.Watch/Watch`.
    pub(crate) async fn call<R: CallBody>(self, mut request: HttpRequest<R>) -> Result<HttpResponse<Body>, Infallible> {
        if request.headers().get("hasleader").is_some_and(|value| value.as_bytes() == b"true") {
            let leader = self.lookout.look();
            if leader.is_without(self.settings.leaderless_max).await {
                return Ok(Status::from(Error::NoLeader).into_http());
            }
            request.extensions_mut().insert(leader);
        }
        if let Some(caller) = request.extensions().get::<Arc<Caller>>().cloned() {
            self.locals.meet(&caller).await;
        }
        let mut grpc = Grpc::new(WatchCodec).apply_max_message_size_config(Some(self.settings.message_bytes_max), None);
        Ok(grpc.streaming(self, request).await)
    }

    fn open(&self, request: Request<Streaming<WatchRequest>>) -> Answers<L> {
        let (metadata, mut extensions, requests) = request.into_parts();
        let leader = extensions.remove::<Arc<Looking>>();
        let caller = Caller::known_by(&extensions, &metadata);
        let metadata = self.locals.convey(&caller, passed_on(metadata));
        let session = Session::new(self.locals.clone(), caller, &self.settings, Arc::clone(&self.watchers));
        let session = Arc::new(session);
        let reading = runtime::spawn(read_requests(requests, Arc::clone(&session)));
        let link = link::Link {
            session: Arc::clone(&session),
            source: Arc::clone(&self.source),
            metadata,
            settings: Arc::clone(&self.settings),
        };
        let linking = runtime::spawn(link.run());
        let tasks = [reading.abort_handle(), linking.abort_handle()];
        Answers::new(session, tasks, &self.settings, Arc::clone(&self.readers), self.stopping.clone(), leader)
    }
}

impl<L: Locals> StreamingService<WatchRequest> for ProxyWatch<L> {
    type Response = WatchReply;
    type ResponseStream = Answers<L>;
    type Future = std::future::Ready<Result<Response<Answers<L>>, Status>>;

    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.open(request))))
    }
}

/// Carries the client's requests to the stream until there are no more. The stream goes on after that.
async fn read_requests<L: Locals>(mut requests: Streaming<WatchRequest>, session: Arc<Session<L>>) {
    loop {
        session.has_room().await;
        match requests.message().await {
            Ok(Some(request)) => session.with(|merger| merger.request(request)),
            Ok(None) => return,
            Err(status) => return session.fail(status),
        }
    }
}

/// Whether a call with these headers is one for [`ProxyWatch::call`], if users are none of the proxy's business. Who may watch what only the core
/// knows then: a call that carries an identity must be passed through as it is.
pub fn takes(headers: &HeaderMap) -> bool {
    !headers.contains_key("token") && !headers.contains_key("authorization")
}

/// What a client says about itself, for upstream. Not what it says about its own connection: that is another one.
fn passed_on(metadata: MetadataMap) -> MetadataMap {
    let mut headers = metadata.into_headers();
    let own: Vec<_> = headers.keys().filter(|name| is_of_the_connection(name.as_str())).cloned().collect();
    own.into_iter().for_each(|name| drop(headers.remove(name)));
    MetadataMap::from_headers(headers)
}

fn is_of_the_connection(name: &str) -> bool {
    name.starts_with("grpc-") || matches!(name, "te" | "content-type" | "content-length" | "user-agent" | "host")
}

#[cfg(test)]
mod tests;
