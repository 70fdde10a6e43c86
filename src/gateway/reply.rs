//! The answer of a call: its messages, as JSON.

use super::{
    failure,
    json::{self, PREFIX_BYTES},
};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use hyper::body::{Body as _, Frame};
use prost_reflect::MessageDescriptor;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Sleep,
};
use tonic::{Status, body::Body};

/// An answer larger than this takes so long to write that others on the same thread would notice.
const LARGE_BYTES: usize = 1 << 20;

/// What the metadata of an answer is called over plain HTTP: as that of the request.
pub(super) fn headers(metadata: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in metadata {
        let name = name.as_str();
        if name.starts_with("grpc-") || matches!(name, "date" | "content-length" | "transfer-encoding") {
            continue;
        }
        if let Ok(name) = HeaderName::try_from(format!("{}{name}", super::request::METADATA)) {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// The messages of an answer.
pub(super) struct Replies {
    body: Body,
    bytes: BytesMut,
    is_over: bool,
}

impl Replies {
    pub(super) fn new(body: Body) -> Replies {
        Replies { body, bytes: BytesMut::new(), is_over: false }
    }

    /// The one message of an answer that has one.
    ///
    /// # Errors
    /// What the call was refused with.
    pub(super) async fn only(mut self) -> Result<Bytes, Status> {
        let reply = poll_fn(|context| self.poll_next(context)).await;
        let reply = reply.ok_or_else(|| Status::internal("the call ended without an answer"))??;
        // It may have failed after all.
        match poll_fn(|context| self.poll_next(context)).await {
            None => Ok(reply),
            Some(Ok(_)) => Err(Status::internal("the call has several answers")),
            Some(Err(status)) => Err(status),
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match self.take() {
                Ok(None) if self.is_over => return Poll::Ready(None),
                Ok(None) => {}
                found => return Poll::Ready(found.transpose()),
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
                self.is_over = true;
                return Poll::Ready(Some(Err(Status::unknown("the call ended without a status"))));
            };
            match frame?.into_data() {
                Ok(data) => self.add(data),
                Err(frame) => {
                    self.is_over = true;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let status = Status::from_header_map(&trailers).filter(|status| status.code() != tonic::Code::Ok);
                    return Poll::Ready(status.map(Err));
                }
            }
        }
    }

    /// Most often a message comes in one piece, which is then not copied.
    fn add(&mut self, data: Bytes) {
        if !self.bytes.is_empty() {
            return self.bytes.extend_from_slice(&data);
        }
        self.bytes = data.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    }

    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((prefix, rest)) = self.bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [is_compressed, length @ ..] = *prefix;
        if is_compressed != 0 {
            return Err(Status::internal("the answer is compressed, which nobody asked for"));
        }
        let bytes = u32::from_be_bytes(length) as usize;
        if rest.len() < bytes {
            return Ok(None);
        }
        self.bytes.advance(PREFIX_BYTES);
        Ok(Some(self.bytes.split_to(bytes).freeze()))
    }
}

/// The JSON of an answer.
///
/// # Errors
/// As [`json::write`].
pub(super) async fn whole(message: Bytes, kind: &MessageDescriptor) -> Result<Vec<u8>, Status> {
    let write = |message, kind: &MessageDescriptor| {
        let mut text = Vec::new();
        json::write(message, kind, &mut text).map(|()| text)
    };
    if message.len() < LARGE_BYTES {
        return write(message, kind);
    }
    let kind = kind.clone();
    let writing = tokio::task::spawn_blocking(move || write(message, &kind));
    // Only a runtime that ends drops it.
    writing.await.map_err(|_| Status::from(crate::types::Error::Stopped))?
}

/// Answers without an end, as lines. Each is made when the client has room for it, and is a piece of its own: there are clients that read pieces,
/// not lines.
pub(super) struct Lines {
    pub(super) replies: Replies,
    pub(super) kind: MessageDescriptor,
    /// What was wrong with the requests, if there are many.
    pub(super) failed: Option<oneshot::Receiver<Status>>,
    /// When the caller has waited long enough.
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
    /// Made already.
    pub(super) first: Option<Bytes>,
    pub(super) is_over: bool,
    /// Held until the call is over.
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Lines {
    /// The next line; an error is the last.
    pub(super) fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return self.end_with(super::call::deadline_exceeded());
        }
        // The answer comes first: it is what drives the requests.
        let next = self.replies.poll_next(context);
        if let Some(failed) = &mut self.failed
            && let Poll::Ready(status) = Pin::new(failed).poll(context)
        {
            self.failed = None;
            // Without one the requests came to their end.
            if let Ok(status) = status {
                return self.end_with(status);
            }
        }
        match ready!(next) {
            Some(Ok(message)) => match self.line(message) {
                Ok(line) => Poll::Ready(Some(Ok(line))),
                Err(status) => self.end_with(status),
            },
            Some(Err(status)) => self.end_with(status),
            None => {
                self.is_over = true;
                Poll::Ready(None)
            }
        }
    }

    fn end_with(&mut self, status: Status) -> Poll<Option<Result<Bytes, Status>>> {
        self.is_over = true;
        Poll::Ready(Some(Err(status)))
    }

    fn line(&self, message: Bytes) -> Result<Bytes, Status> {
        let mut line = Vec::with_capacity(message.len() * 3 / 2 + 64);
        line.extend_from_slice(br#"{"result":"#);
        json::write(message, &self.kind, &mut line)?;
        line.extend_from_slice(b"}\n");
        Ok(line.into())
    }
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let line = ready!(self.poll_line(context));
        let line = line.map(|line| line.unwrap_or_else(|status| failure::line(&status).into()));
        Poll::Ready(line.map(|line| Ok(Frame::data(line))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over && self.first.is_none()
    }
}
