//! Any request over plain HTTP, with any answer to it: what goes on is a message of its kind, and what comes back is JSON.

use super::{Access, Calls, Json, json, table};
use arbitrary::Unstructured;
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor};
use std::convert::Infallible;
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;

/// Between the request and the answer. No text has it.
const BORDER: u8 = 0xff;
/// Largest message of the calls.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Whatever answers: with bytes that may be messages or not.
#[derive(Clone)]
struct Answers {
    body: Bytes,
}

impl Calls for Answers {
    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let kind = kind_of(request.uri().path());
        // A stream of requests that breaks off ends without an error here; its cause goes to the client.
        let mut body = request.into_body().collect().await.expect("requests of our own").to_bytes();
        while body.has_remaining() {
            assert_eq!(body.get_u8(), 0, "a request is not compressed");
            let length = body.get_u32() as usize;
            let message = body.split_to(length);
            DynamicMessage::decode(kind.clone(), message).expect("a request is a message of its kind");
        }
        let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
        Response::new(in_pieces(self.body.clone(), 1_000, Some(trailers)))
    }
}

/// Of the requests of a call.
fn kind_of(path: &str) -> MessageDescriptor {
    let mut methods = table::pool().services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let is_at =
        |method: &MethodDescriptor| format!("/{}/{}", method.parent_service().full_name(), method.name()) == path;
    methods.find(is_at).expect("a path of a call that there is").input()
}

fn in_pieces(body: Bytes, piece_bytes: usize, trailers: Option<HeaderMap>) -> Body {
    let pieces = body.chunks(piece_bytes.max(1)).map(|piece| Frame::data(Bytes::copy_from_slice(piece)));
    let frames: Vec<_> = pieces.chain(trailers.map(Frame::trailers)).map(Ok::<_, Infallible>).collect();
    Body::new(StreamBody::new(tokio_stream::iter(frames)))
}

/// A request as it is written: method and path, headers, an empty line, the body.
fn request(text: &[u8]) -> Option<Request<Body>> {
    let mut lines = text.splitn(2, |byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, path) = first.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(path);
    let mut rest = lines.next().unwrap_or_default();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    let pieces = Unstructured::new(rest).int_in_range(1..=200).unwrap_or(1);
    request.body(in_pieces(Bytes::copy_from_slice(rest), pieces, None)).ok()
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime without threads");
}

/// Makes the request that `data` is.
pub(crate) fn target(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == BORDER);
    let (asked, answered) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Some(request) = request(asked) else { return };
    let access = Access::new(["http://a".to_owned()], ["here".to_owned(), "::1".to_owned()]);
    if let Ok(admitted) = access.admit(&request) {
        admitted.mark(&mut HeaderMap::new());
    }
    let asks_for_socket = super::websocket::is_asked_for(request.headers());
    let json = Json::new(Answers { body: Bytes::copy_from_slice(answered) }, MESSAGE_BYTES_MAX);
    let (status, body) = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (head, body) = json.answer(request).await.into_parts();
            (head.status, body.collect().await.expect("an answer of our own").to_bytes())
        })
    });
    if asks_for_socket {
        // There is no connection here that could become one.
        return assert!([101, 400, 405].contains(&status.as_u16()), "{status}");
    }
    assert!(status.is_success() || status.as_u16() >= 400, "{status}");
    // One object, or one on each line.
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if let Err(error) = serde_json::from_slice::<serde_json::Value>(line) {
            // A message may go deeper than this reader of JSON.
            assert!(error.to_string().contains("recursion limit"), "{error}: {}", String::from_utf8_lossy(line));
        }
    }
}

/// The requests of the transcripts, with their answers.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let transcripts = [
        include_str!("testdata/auth"),
        include_str!("testdata/json"),
        include_str!("testdata/refusals"),
        include_str!("testdata/services"),
    ];
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for transcript in transcripts {
        for exchange in transcript.split("\n\n") {
            let (asked, answered): (Vec<_>, Vec<_>) =
                exchange.lines().filter(|line| !line.starts_with('#')).partition(|line| line.starts_with('>'));
            seeds.extend(seed(&asked, &answered));
        }
    }
    seeds
}

fn seed(asked: &[&str], answered: &[&str]) -> Option<Vec<u8>> {
    let (first, headers) = asked.split_first()?;
    let mut words = first.trim_start_matches("> ").splitn(3, ' ');
    let (verb, path, body) = (words.next()?, words.next()?, words.next().unwrap_or_default());
    let headers: String = headers.iter().map(|line| format!("{}\n", line.trim_start_matches("> "))).collect();
    let mut seed = format!("{verb} {path}\n{headers}\n{body}").into_bytes();
    seed.push(BORDER);
    let lines = answered.iter().filter_map(|line| line.strip_prefix("< ")).filter(|line| line.starts_with('{'));
    for line in lines {
        let line = line.strip_prefix(r#"{"result":"#).and_then(|line| line.strip_suffix('}')).unwrap_or(line);
        if let Some(method) = table::method(path)
            && let Ok(message) = json::read(line.as_bytes(), &method.reply)
        {
            seed.extend_from_slice(&message);
        }
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_calls() {
        let (seeds, calls) = (seeds(), |seed: &Vec<u8>| request(seed).is_some());
        assert!(seeds.len() > 30 && seeds.iter().filter(|seed| calls(seed)).count() > 30, "{} seeds", seeds.len());
    }
}
