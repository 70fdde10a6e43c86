//! What passes through undecoded: a request goes on as it came, and the answer comes back as it is.
//!
//! Only the count of proxies that it has passed is added. A call is sent once: to another address only if it certainly never left.
//! Anything else is told to the client, who alone knows whether doing it twice matters.

use super::{Upstream, link::Link};
use crate::{
    tls::{self, Http},
    types,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{self, HOST},
    uri::Scheme,
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};
use tonic::{Status, body::Body};

/// Longest time in which some upstream must be reached; then the call fails, whatever is left to try.
const REACH_MAX: Duration = Duration::from_secs(4);
/// Calls that may be under way at once, streams included.
const CALLS_MAX: usize = 100_000;
/// Plain HTTP requests that may be under way at once. Each has a connection of its own.
const PLAIN_MAX: usize = 64;
/// Longest wait for the connection of a plain HTTP request.
const PLAIN_DIAL_MAX: Duration = Duration::from_secs(1);

/// How many proxies a call has passed: metadata that each of them counts up.
const HOPS: HeaderName = HeaderName::from_static("henge-hops");
/// So many proxies are no tree any more: they were put before each other, and a call would go round for ever.
const HOPS_MAX: u32 = 16;

/// Calls that go on until somebody ends them: they end when the proxy stops. Those that wait for a lock, or to lead, are answered by a
/// member, which knows by the end of the call that nobody waits any more.
const ENDLESS: &[&str] = &[
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/v3electionpb.Election/Observe",
    "/v3electionpb.Election/Campaign",
    "/v3lockpb.Lock/Lock",
];

/// The way through. Cheap to clone.
#[derive(Clone)]
pub(super) struct Passage {
    upstream: Upstream,
    calls: Arc<Semaphore>,
    plain: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Passage {
    pub(super) fn new(upstream: Upstream, stopping: watch::Receiver<bool>) -> Passage {
        let (calls, plain) = (Arc::new(Semaphore::new(CALLS_MAX)), Arc::new(Semaphore::new(PLAIN_MAX)));
        Passage { upstream, calls, plain, stopping }
    }

    /// Passes a gRPC call on.
    ///
    /// # Errors
    /// What the proxy itself has to say: UNAVAILABLE if the call did not reach an upstream, or the connection was lost under it;
    /// FAILED_PRECONDITION if it goes round in circles.
    pub(super) async fn call(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let Ok(permit) = Arc::clone(&self.calls).try_acquire_owned() else {
            return Err(types::Error::RequestTooManyRequests.into());
        };
        let hops = request.headers().get(HOPS).and_then(|hops| hops.to_str().ok()?.parse().ok()).unwrap_or(0);
        if hops >= HOPS_MAX {
            return Err(Status::failed_precondition("henge proxy: the call goes round from proxy to proxy"));
        }
        let mut stopping = self.stopping.clone();
        let mut end =
            ENDLESS.contains(&request.uri().path()).then(|| Box::pin(async move { told(&mut stopping).await }) as End);
        request.headers_mut().insert(HOPS, HeaderValue::from(hops + 1));
        let mut tried = Tried::default();
        let deadline = Instant::now() + REACH_MAX;
        let count = self.upstream.len();
        // Once all have failed, the one whose turn it is again gets another chance after its pause.
        for attempt in 0..=count {
            let (turn, link) = self.upstream.link();
            let mut sender = match timeout_at(deadline, link.sender(attempt == count)).await {
                Ok(Ok(sender)) => sender,
                Ok(Err(why)) => {
                    self.upstream.leave(turn);
                    tried.note(&link, &why);
                    continue;
                }
                Err(_) => {
                    self.upstream.leave(turn);
                    tried.note(&link, "no connection in time");
                    break;
                }
            };
            address(&mut request, &link);
            let sent = sender.try_send_request(request);
            let sent = match &mut end {
                None => sent.await,
                Some(end) => tokio::select! {
                    biased;
                    sent = sent => sent,
                    () = end => return Err(types::Error::Stopped.into()),
                },
            };
            match sent {
                Ok(response) => {
                    if refuses(&response) {
                        // It is there, but can't serve: later calls may find one that can.
                        self.upstream.leave(turn);
                    }
                    let relay = |body| Body::new(Relay { body, link, end, is_over: false, _permit: permit });
                    return Ok(response.map(relay));
                }
                Err(mut failed) => {
                    if sender.is_closed() {
                        self.upstream.leave(turn);
                    }
                    match failed.take_message() {
                        Some(unsent) => {
                            tried.note(&link, &root(failed.error()));
                            request = unsent;
                        }
                        None => return Err(lost(&link, failed.error())),
                    }
                }
            }
        }
        Err(Status::unavailable(format!("henge proxy: not sent, for no upstream could be reached: {tried}")))
    }

    /// Passes plain HTTP on, over a connection of its own.
    pub(super) async fn plain(&self, request: Request<Incoming>) -> Response<Body> {
        let Ok(permit) = Arc::clone(&self.plain).try_acquire_owned() else {
            return said(StatusCode::SERVICE_UNAVAILABLE, "henge proxy: too many requests");
        };
        let mut tried = Tried::default();
        for _ in 0..self.upstream.len() {
            let (turn, link) = self.upstream.link();
            match dial(&link).await {
                Ok(sender) => return relay_plain(sender, &link, request, permit).await,
                Err(why) => {
                    self.upstream.leave(turn);
                    tried.note(&link, &why);
                }
            }
        }
        let text = format!("henge proxy: no upstream could be reached: {tried}");
        said(StatusCode::SERVICE_UNAVAILABLE, &text)
    }
}

/// What was tried in vain, and why the last time.
#[derive(Default)]
struct Tried(BTreeMap<String, String>);

impl Tried {
    fn note(&mut self, link: &Link, why: &str) {
        self.0.insert(link.url(), why.to_owned());
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (upstream, why)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{upstream} ({why})")?;
        }
        Ok(())
    }
}

/// Makes a request one to where `link` leads. Everything else of it stays.
fn address(request: &mut Request<Body>, link: &Link) {
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(if link.tls().is_some() { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(link.authority().clone());
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
    // HTTP/2 says it in `:authority`.
    request.headers_mut().remove(HOST);
}

/// Whether an answer says at once that its member is not available.
fn refuses(response: &Response<Incoming>) -> bool {
    response.headers().get("grpc-status").is_some_and(|code| code.as_bytes() == b"14")
}

/// The connection went away under a call.
fn lost(link: &Link, error: &hyper::Error) -> Status {
    let (upstream, why) = (link.url(), root(error));
    Status::unavailable(format!(
        "henge proxy: the connection to {upstream} was lost ({why}); whether the call took effect is not known"
    ))
}

/// The last cause: the others only say that something failed.
fn root(error: &hyper::Error) -> String {
    let mut root: &dyn Error = error;
    while let Some(deeper) = root.source() {
        root = deeper;
    }
    root.to_string()
}

/// Waits until the proxy stops.
pub(super) async fn told(stopping: &mut watch::Receiver<bool>) {
    let is_gone = stopping.wait_for(|stopping| *stopping).await.is_err();
    if is_gone {
        // The proxy is gone, and its connections with it.
        std::future::pending::<()>().await;
    }
}

type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An answer on its way. If its connection is lost the client gets a status, not a reset.
struct Relay {
    body: Incoming,
    link: Link,
    /// Resolves when streams have to end.
    end: Option<End>,
    is_over: bool,
    /// Held until the call is over.
    _permit: OwnedSemaphorePermit,
}

impl Relay {
    fn end_with(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}

impl hyper::body::Body for Relay {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Some(end) = &mut self.end
            && end.as_mut().poll(context).is_ready()
        {
            return self.end_with(&types::Error::Stopped.into());
        }
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => {
                let status = lost(&self.link, &error);
                self.end_with(&status)
            }
            None => {
                self.is_over = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type PlainSender = http1::SendRequest<Body>;

async fn dial(link: &Link) -> Result<PlainSender, String> {
    let connect = async {
        let stream = tls::dial(link.authority().as_str(), link.tls(), Http::One).await;
        let stream = stream.map_err(|error| error.to_string())?;
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())
    };
    let (sender, connection) =
        timeout(PLAIN_DIAL_MAX, connect).await.map_err(|_| "no connection in time".to_owned())??;
    tokio::spawn(async move {
        // Ends with the one answer.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to upstream ended");
        }
    });
    Ok(sender)
}

async fn relay_plain(
    mut sender: PlainSender,
    link: &Link,
    request: Request<Incoming>,
    permit: OwnedSemaphorePermit,
) -> Response<Body> {
    let mut request = request.map(Body::new);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let Ok(uri) = path.parse() else { return said(StatusCode::BAD_REQUEST, "henge proxy: no such path") };
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    drop_hop_by_hop(request.headers_mut());
    if let Ok(host) = HeaderValue::from_str(link.authority().as_str()) {
        request.headers_mut().insert(HOST, host);
    }
    match sender.send_request(request).await {
        Ok(mut response) => {
            drop_hop_by_hop(response.headers_mut());
            response.map(|body| Body::new(Plain { body, _permit: permit }))
        }
        Err(error) => {
            let text = format!("henge proxy: {} did not answer: {}", link.url(), root(&error));
            said(StatusCode::BAD_GATEWAY, &text)
        }
    }
}

/// Headers that are about one connection, not about the request.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    const NAMES: &[HeaderName] = &[
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    for name in NAMES {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// An answer to plain HTTP on its way.
struct Plain {
    body: Incoming,
    /// Held until the answer is over.
    _permit: OwnedSemaphorePermit,
}

impl hyper::body::Body for Plain {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A plain answer of the proxy itself.
pub(super) fn said(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::new(Bytes::from(format!("{text}\n")))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
