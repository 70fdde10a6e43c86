//! Calls that the front decodes: `Range` is answered from a copy if one can, and otherwise passed on as it came.

use super::{Caller, Copies, age::MIN_REVISION};
use crate::{
    pb::etcdserverpb::{CompactionRequest, RangeRequest},
    server::CallBody,
    types::{KeyRange, Revision},
};
use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    request::Parts,
};
use http_body_util::{BodyExt, BodyStream, Full, Limited, StreamBody};
use hyper::body::Frame;
use prost::Message;
use std::{convert::Infallible, error::Error, time::Duration};
use tokio_stream::StreamExt;
use tonic::{Code, Status, body::Body, metadata::MetadataMap};

/// What precedes a message on the wire: one byte that tells whether it is compressed, and its length in four.
const PREFIX_BYTES: usize = 5;
/// A request for a range is two keys and some numbers. Whoever sends more has made a mistake.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Longest wait for the body of a request after its headers.
const BODY_MAX: Duration = Duration::from_secs(30);

/// Answers a call of `Range`, or gives it back.
///
/// # Errors
/// The request, to be passed on.
pub(super) async fn range<R: CallBody>(copies: &Copies, request: Request<R>) -> Result<Response<Body>, Request<Body>> {
    let brings_revision = request.headers().contains_key(MIN_REVISION);
    if !copies.answers_anything() && !brings_revision {
        return Err(request.map(Body::new));
    }
    let (mut parts, body) = match come(request).await {
        Ok(Came::Whole(parts, body)) => (parts, body),
        Ok(Came::Large(request)) => return Err(request),
        Err(status) => return Ok(status.into_http()),
    };
    let metadata = MetadataMap::from_headers(std::mem::take(&mut parts.headers));
    let mut body = body;
    if let Some(asked) = message(&body).and_then(|message| RangeRequest::decode(message).ok()) {
        let serializable = asked.serializable.then(|| KeyRange::from_wire(asked.key.clone(), asked.range_end.clone()));
        let caller = Caller::known_by(&parts.extensions, &metadata);
        match copies.range_for(&caller, &metadata, asked).await {
            Some(Ok(answer)) => return Ok(to_http(answer)),
            Some(Err(status)) => return Ok(status.into_http()),
            // A member that answers from what it has may be behind what the client has seen, and knows nothing of that if it is etcd's.
            None if serializable.is_some_and(|range| brings_revision || copies.was_ahead(&range)) => {
                body = linearizable(&body);
            }
            None => {}
        }
    }
    parts.headers = metadata.into_headers();
    // It may have become longer.
    parts.headers.remove(CONTENT_LENGTH);
    Err(Request::from_parts(parts, Body::new(Full::new(body))))
}

/// The same request for a range, but for the field `serializable`. What else is in it stays, known or not: of a field that comes twice the
/// last one counts.
fn linearizable(body: &Bytes) -> Bytes {
    const SERIALIZABLE_NO: [u8; 2] = [7 << 3, 0];
    let message = &body[PREFIX_BYTES..];
    let mut framed = BytesMut::with_capacity(body.len() + SERIALIZABLE_NO.len());
    framed.put_u8(0);
    // The message is shorter than `REQUEST_BYTES_MAX`.
    framed.put_u32((message.len() + SERIALIZABLE_NO.len()) as u32);
    framed.put_slice(message);
    framed.put_slice(&SERIALIZABLE_NO);
    framed.freeze()
}

/// Looks at a call of `Compact` on its way. The call itself is given back, with the revision that it names.
///
/// # Errors
/// If it did not come whole.
pub(super) async fn compact<R: CallBody>(
    copies: &Copies,
    request: Request<R>,
) -> Result<(Request<Body>, Option<Revision>), Status> {
    if !copies.answers_anything() {
        return Ok((request.map(Body::new), None));
    }
    let (parts, body) = whole(request).await?;
    let asked = message(&body).and_then(|message| CompactionRequest::decode(message).ok());
    let request = Request::from_parts(parts, Body::new(Full::new(body)));
    Ok((request, asked.map(|asked| Revision(asked.revision))))
}

/// Whether upstream certainly did not do what it was asked.
pub(super) fn is_refused<T>(answer: &Response<T>) -> bool {
    // A refusal has nothing but headers.
    let Some(status) = Status::from_header_map(answer.headers()) else { return false };
    let may_be_done =
        [Code::Ok, Code::Cancelled, Code::Unknown, Code::DeadlineExceeded, Code::Internal, Code::Unavailable];
    !may_be_done.contains(&status.code())
}

/// A request as far as it is looked at.
enum Came {
    Whole(Parts, Bytes),
    /// More than anybody looks at here: what came goes on before the rest.
    Large(Request<Body>),
}

async fn come<R: CallBody>(request: Request<R>) -> Result<Came, Status> {
    let (parts, body) = request.into_parts();
    let mut body = Box::pin(body);
    let read = async {
        // Most requests come in one piece, which is not copied; the others are joined once, however many pieces they are.
        let (mut first, mut more) = (Bytes::new(), BytesMut::new());
        let is_whole = loop {
            if first.len() + more.len() > REQUEST_BYTES_MAX {
                break false;
            }
            match body.frame().await {
                None => break true,
                // Trailers say nothing.
                Some(Ok(frame)) if first.is_empty() => first = frame.into_data().unwrap_or_default(),
                Some(Ok(frame)) => more.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(error.into()),
            }
        };
        let bytes = if more.is_empty() { first } else { [first, more.freeze()].concat().into() };
        Ok((bytes, is_whole))
    };
    match tokio::time::timeout(BODY_MAX, read).await {
        Ok(Ok((bytes, true))) => Ok(Came::Whole(parts, bytes)),
        Ok(Ok((bytes, false))) => {
            let rest = BodyStream::new(body).map(|frame| frame.map_err(Into::into));
            let first = tokio_stream::once(Ok::<_, Box<dyn Error + Send + Sync>>(Frame::data(bytes)));
            Ok(Came::Large(Request::from_parts(parts, Body::new(StreamBody::new(first.chain(rest))))))
        }
        Ok(Err(error)) => Err(cut(error)),
        Err(_) => Err(late()),
    }
}

fn cut(error: Box<dyn Error + Send + Sync>) -> Status {
    Status::internal(format!("the request did not come whole: {error}"))
}

fn late() -> Status {
    Status::deadline_exceeded("the request did not come whole")
}

pub(super) async fn whole<R: CallBody>(request: Request<R>) -> Result<(Parts, Bytes), Status> {
    let (parts, body) = request.into_parts();
    match tokio::time::timeout(BODY_MAX, Limited::new(body, REQUEST_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok((parts, body.to_bytes())),
        Ok(Err(error)) => Err(cut(error)),
        Err(_) => Err(late()),
    }
}

/// The one message of a body, if it is not compressed.
fn message(body: &Bytes) -> Option<Bytes> {
    let (prefix, _) = body.split_first_chunk::<PREFIX_BYTES>()?;
    let [compressed, length @ ..] = *prefix;
    let message = body.slice(PREFIX_BYTES..);
    (compressed == 0 && u32::from_be_bytes(length) as usize == message.len()).then_some(message)
}

/// A message as the body of a call; `None` if it is too large.
fn frame(message: &impl Message) -> Option<Bytes> {
    let length = message.encoded_len();
    let prefix = u32::try_from(length).ok()?;
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(prefix);
    message.encode_raw(&mut framed);
    Some(framed.freeze())
}

pub(super) fn to_http(answer: tonic::Response<impl Message>) -> Response<Body> {
    let (metadata, message, _) = answer.into_parts();
    let Some(framed) = frame(&message) else {
        return Status::resource_exhausted("the answer is larger than a message can be").into_http();
    };
    let trailers = async {
        let ok = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from(Code::Ok as i32))]);
        Some(Ok::<_, Infallible>(ok))
    };
    let mut response = Response::new(Body::new(Full::new(framed).with_trailers(trailers)));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_made_linearizable_and_otherwise_stays_as_it_was() {
        let asked = RangeRequest { key: "a".into(), limit: 3, serializable: true, ..RangeRequest::default() };
        let passed = linearizable(&frame(&asked).unwrap());
        let passed = RangeRequest::decode(message(&passed).unwrap()).unwrap();
        assert_eq!(passed, RangeRequest { serializable: false, ..asked });
    }

    #[test]
    fn a_body_is_one_whole_message_or_not_for_us() {
        let body = |bytes: &'static [u8]| message(&Bytes::from_static(bytes));
        assert_eq!(body(b"\0\0\0\0\x02ab").as_deref(), Some(&b"ab"[..]));
        assert_eq!(body(b"\0\0\0\0\0").as_deref(), Some(&b""[..]));
        for odd in [&b""[..], b"\0\0\0\0", b"\x01\0\0\0\x02ab", b"\0\0\0\0\x02a", b"\0\0\0\0\x02abc"] {
            assert_eq!(body(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_serializable_request_is_made_linearizable_and_nothing_else_of_it_changes() {
        let asked =
            RangeRequest { key: "k".into(), limit: 3, serializable: true, keys_only: true, ..Default::default() };
        let mut framed = BytesMut::from(&[0, 0, 0, 0, asked.encoded_len() as u8][..]);
        asked.encode_raw(&mut framed);
        let changed = message(&linearizable(&framed.freeze())).expect("whole");
        assert_eq!(RangeRequest::decode(changed).unwrap(), RangeRequest { serializable: false, ..asked });
    }
}
