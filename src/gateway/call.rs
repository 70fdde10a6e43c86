//! One call over plain HTTP: JSON to the message that it describes, the same call as over gRPC, and its answer as JSON.

use super::{
    failure::{self, JSON},
    reply::{self, Lines, Replies},
    request::{self, Requests, Share, Stream},
    table::{self, Method},
    websocket,
};
use bytes::Bytes;
use http::{HeaderMap, Method as Verb, Request, Response, Version, header::CONTENT_TYPE};
use http_body_util::Full;
use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, sleep_until, timeout_at},
};
use tonic::{Code, Status, body::Body};

/// Calls that may be under way at once, streams included.
const CALLS_MAX: usize = 20_000;
/// Bytes of requests that may be under way at once, if one request is not larger than that.
const BYTES_MAX: usize = 64 << 20;

/// What answers calls of gRPC in this process.
pub trait Calls: Clone + Send + Sync + 'static {
    /// Answers one call.
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

/// The JSON gateway before whatever answers calls. Cheap to clone; all clones share the bounds.
#[derive(Clone)]
pub struct Json<C> {
    calls: C,
    request_bytes_max: usize,
    room: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// The text is that of etcd's gateway.
pub(super) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

impl<C: Calls> Json<C> {
    /// A gateway to `calls`, which take messages of at most `message_bytes_max`.
    pub fn new(calls: C, message_bytes_max: usize) -> Json<C> {
        // Base64 takes four bytes for three, and there may be spaces. What is longer than a message can be is refused here already.
        let request_bytes_max = message_bytes_max.saturating_mul(2).saturating_add(64 << 10);
        let bytes = BYTES_MAX.max(request_bytes_max).min(Semaphore::MAX_PERMITS);
        let (room, bytes) = (Arc::new(Semaphore::new(CALLS_MAX)), Arc::new(Semaphore::new(bytes)));
        Json { calls, request_bytes_max, room, bytes }
    }

    /// Answers a request for a path under `/v3/`, or `/v3beta/`, which is the same: with the answer of the call, or with a WebSocket on
    /// which the call is made.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        match websocket::is_asked_for(request.headers()) {
            true => websocket::answer(self.clone(), request),
            false => self.make(request).await,
        }
    }

    /// Longest JSON of one message.
    pub(super) fn request_bytes_max(&self) -> usize {
        self.request_bytes_max
    }

    /// Of the bytes that all requests together may hold, none yet.
    pub(super) fn share(&self) -> Share {
        Share::of(Arc::clone(&self.bytes))
    }

    /// Makes the call that a request asks for.
    pub(super) async fn make<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let refusal = match method(request.uri().path()) {
            Some(_) if request.method() != Verb::POST => Status::unimplemented("Method Not Allowed"),
            Some(method) => match self.transcode(method, request).await {
                Ok(response) => return response,
                Err(status) => return failure::refusal(&status),
            },
            None => Status::not_found("Not Found"),
        };
        request::drain(pin!(request.into_body())).await;
        failure::refusal(&refusal)
    }

    async fn transcode<B>(&self, method: &Method, request: Request<B>) -> Result<Response<Body>, Status>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            return Err(crate::types::Error::RequestTooManyRequests.into());
        };
        let (parts, body) = request.into_parts();
        let deadline = request::time_limit(&parts.headers)?.map(|limit| Instant::now() + limit);
        let requests = Requests::new(body, method.request.clone(), self.request_bytes_max, self.share());
        let (body, failed) = if method.streams_requests {
            let (fail, failed) = oneshot::channel();
            (Body::new(Stream { requests, failed: Some(fail) }), Some(failed))
        } else {
            (Body::new(Full::new(before(deadline, requests.only()).await??)), None)
        };
        let answer = self.calls.call(call(method, request::metadata(&parts.headers), body));
        let (head, body) = before(deadline, answer).await?.into_parts();
        let headers = reply::headers(&head.headers);
        // A call that was refused has its status where others have their metadata.
        let refusal = Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok);
        if !method.streams_replies {
            if let Some(status) = refusal {
                return Err(status);
            }
            let message = before(deadline, Replies::new(body).only()).await??;
            let text = reply::whole(message, &method.reply).await?;
            return Ok(succeeded(headers, Body::new(Full::from(text))));
        }
        if let Some(status) = refusal {
            return Ok(failure::stream_refusal(&status));
        }
        let lines = Lines {
            replies: Replies::new(body),
            kind: method.reply.clone(),
            failed,
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
            first: None,
            is_over: false,
            _permit: permit,
        };
        Ok(stream(lines, headers).await)
    }
}

/// The call that belongs to a path.
pub(super) fn method(path: &str) -> Option<&'static Method> {
    match path.strip_prefix("/v3beta/") {
        Some(rest) => table::method(&format!("/v3/{rest}")),
        None => table::method(path),
    }
}

/// Waits for the first reply: only then it is known whether the call succeeds at all.
async fn stream(mut lines: Lines, headers: HeaderMap) -> Response<Body> {
    match poll_fn(|context| lines.poll_line(context)).await {
        Some(Err(status)) => failure::stream_refusal(&status),
        first => {
            lines.first = first.and_then(Result::ok);
            succeeded(headers, Body::new(lines))
        }
    }
}

/// Waits no longer than until `deadline`.
async fn before<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Result<T, Status> {
    match deadline {
        // What is ready at once would otherwise be too late and succeed.
        Some(deadline) if deadline <= Instant::now() => Err(deadline_exceeded()),
        Some(deadline) => timeout_at(deadline, work).await.map_err(|_| deadline_exceeded()),
        None => Ok(work.await),
    }
}

fn call(method: &Method, metadata: HeaderMap, body: Body) -> Request<Body> {
    let mut call = Request::new(body);
    *call.method_mut() = Verb::POST;
    *call.version_mut() = Version::HTTP_2;
    *call.uri_mut() = method.path.clone().into();
    *call.headers_mut() = metadata;
    call
}

fn succeeded(mut headers: HeaderMap, body: Body) -> Response<Body> {
    headers.insert(CONTENT_TYPE, JSON);
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}
