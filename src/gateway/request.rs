//! The request of a call: what its headers say, and its body as messages.

use super::json::{self, Splitter};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use hyper::body::{Body, Frame};
use prost_reflect::MessageDescriptor;
use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};
use tonic::{Code, Status};

/// Headers with this before their name are metadata of the call.
pub(super) const METADATA: &str = "grpc-metadata-";
/// By this the services know that the certificate of the connection is none of the caller's; as etcd's gateway passes on `Accept`.
const ACCEPT: HeaderName = HeaderName::from_static("grpcgateway-accept");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// A limit that is longer is none.
const LIMIT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// Longest wait for the next piece of a request that must be whole before it is sent on.
const PIECE_MAX: Duration = Duration::from_secs(30);
/// Most bytes of a request that are read for nothing, and the longest time.
const DRAIN_BYTES_MAX: usize = 256 << 10;
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// The metadata of a call: what the caller says of itself, and nothing of the connection.
pub(super) fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix(METADATA)
            && !is_of_the_connection(name)
            && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
        {
            metadata.append(name, value.clone());
        }
    }
    if let Some(token) = headers.get(header::AUTHORIZATION) {
        metadata.insert(header::AUTHORIZATION, token.clone());
    }
    let accept = headers.get(header::ACCEPT).cloned().unwrap_or(HeaderValue::from_static("*/*"));
    metadata.insert(ACCEPT, accept);
    metadata.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    metadata.insert(header::TE, HeaderValue::from_static("trailers"));
    metadata
}

fn is_of_the_connection(name: &str) -> bool {
    const NAMES: &[&str] = &["te", "content-type", "content-length", "host", "connection", "transfer-encoding"];
    name.starts_with("grpc-") || NAMES.contains(&name)
}

/// How long the call may take, if its headers say so. None at all is no limit, as in etcd, and neither is one beyond all patience: clocks end
/// somewhere.
///
/// # Errors
/// `InvalidArgument`, if it is no time.
pub(super) fn time_limit(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(text) = headers.get(TIMEOUT) else { return Ok(None) };
    let text = text.to_str().unwrap_or_default();
    let invalid = || Status::new(Code::InvalidArgument, format!("invalid grpc-timeout: {text}"));
    let unit = text.chars().last().ok_or_else(invalid)?;
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| invalid())?;
    let time = match unit {
        'H' => Duration::from_secs(count.saturating_mul(3600)),
        'M' => Duration::from_secs(count.saturating_mul(60)),
        'S' => Duration::from_secs(count),
        'm' => Duration::from_millis(count),
        'u' => Duration::from_micros(count),
        'n' => Duration::from_nanos(count),
        _ => return Err(invalid()),
    };
    Ok(Some(time).filter(|time| !time.is_zero() && *time <= LIMIT_MAX))
}

/// Reads what is left of a body, within bounds. An answer that meets a request which is still on its way makes HTTP/2 reset the stream, and
/// there are clients that then forget the answer.
pub(super) async fn drain<B: Body<Data = Bytes>>(mut body: Pin<&mut B>) {
    let mut left = DRAIN_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Whoever takes longer may find the stream reset.
    let _ = timeout(DRAIN_MAX, reading).await;
}

/// A share of the bytes that all bodies together may hold.
pub(super) struct Share {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Nothing yet of `all`.
    pub(super) fn of(all: Arc<Semaphore>) -> Share {
        Share { all, held: None }
    }

    /// # Errors
    /// "too many requests", if others hold what is asked for.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Status> {
        let too_many = |_| Status::from(crate::types::Error::RequestTooManyRequests);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.all).try_acquire_many_owned(bytes).map_err(too_many)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }

    fn give_back(&mut self, bytes: usize) {
        if let Some(held) = &mut self.held {
            drop(held.split(bytes));
        }
    }

    pub(super) fn give_all_back(&mut self) {
        self.held = None;
    }
}

/// A body as messages: JSON objects one after the other.
pub(super) struct Requests<B> {
    body: Pin<Box<B>>,
    kind: MessageDescriptor,
    /// Longest JSON of one message.
    bytes_max: usize,
    text: BytesMut,
    splitter: Splitter,
    share: Share,
    is_whole: bool,
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>> Requests<B> {
    pub(super) fn new(body: B, kind: MessageDescriptor, bytes_max: usize, share: Share) -> Requests<B> {
        let (text, splitter) = (BytesMut::new(), Splitter::default());
        Requests { body: Box::pin(body), kind, bytes_max, text, splitter, share, is_whole: false }
    }

    /// The one message of a call that has one; what follows it does not count. An empty body is an empty message.
    ///
    /// # Errors
    /// `InvalidArgument` if it is none, `ResourceExhausted` if it is too long, `DeadlineExceeded` if it does not come.
    pub(super) async fn only(mut self) -> Result<Bytes, Status> {
        let message = self.first().await;
        drain(self.body.as_mut()).await;
        message
    }

    async fn first(&mut self) -> Result<Bytes, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            if self.is_whole {
                return json::read(b"{}", &self.kind);
            }
            match timeout(PIECE_MAX, poll_fn(|context| self.poll_more(context))).await {
                Ok(more) => more?,
                Err(_) => return Err(Status::deadline_exceeded("the request did not come whole")),
            }
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match self.take() {
                Ok(None) if self.is_whole => return Poll::Ready(None),
                Ok(None) => {}
                found => return Poll::Ready(found.transpose()),
            }
            if let Err(status) = ready!(self.poll_more(context)) {
                return Poll::Ready(Some(Err(status)));
            }
        }
    }

    /// The next message of what has come.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(bytes) = self.splitter.end(&self.text)? else {
            if self.is_whole && !self.text.trim_ascii().is_empty() {
                return Err(Status::new(Code::InvalidArgument, "unexpected EOF"));
            }
            return Ok(None);
        };
        let message = json::read(&self.text[..bytes], &self.kind)?;
        self.text.advance(bytes);
        self.share.give_back(bytes);
        Ok(Some(message))
    }

    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let Some(frame) = ready!(self.body.as_mut().poll_frame(context)) else {
            self.is_whole = true;
            return Poll::Ready(Ok(()));
        };
        let cut = |error: B::Error| Status::cancelled(format!("the request did not come whole: {}", error.into()));
        // Trailers say nothing that anybody would read.
        let Ok(data) = frame.map_err(cut)?.into_data() else { return Poll::Ready(Ok(())) };
        let bytes = self.text.len() + data.len();
        if bytes > self.bytes_max {
            let text = format!("grpc: received message larger than max ({bytes} vs. {})", self.bytes_max);
            return Poll::Ready(Err(Status::resource_exhausted(text)));
        }
        self.share.take(data.len())?;
        self.text.extend_from_slice(&data);
        Poll::Ready(Ok(()))
    }
}

/// A body of JSON as that of a call with many requests. What is wrong with it is told to whoever holds the other end of `failed`, who answers
/// the client; for the call it is over.
pub(super) struct Stream<B> {
    pub(super) requests: Requests<B>,
    pub(super) failed: Option<oneshot::Sender<Status>>,
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>> Body for Stream<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.failed.is_none() {
            return Poll::Ready(None);
        }
        match ready!(self.requests.poll_next(context)) {
            Some(Ok(message)) => Poll::Ready(Some(Ok(Frame::data(message)))),
            None => Poll::Ready(None),
            Some(Err(status)) => {
                if let Some(failed) = self.failed.take() {
                    // Nobody waits for it if the call is over.
                    let _ = failed.send(status);
                }
                Poll::Ready(None)
            }
        }
    }
}
