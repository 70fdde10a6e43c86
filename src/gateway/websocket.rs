//! The same calls over a WebSocket, for pages and libraries that can't write a request while they read its answer: what the client sends is the
//! body of the request, and each line of the answer is a message.
//!
//! Follows what etcd puts before its gateway: any path, a token as the second of two subprotocols or in a cookie. A call with one request
//! begins with the first message here; etcd waits for the end of the requests, which on a WebSocket is also the end of the answer.

use super::{
    call::{Calls, Json, method},
    request::Share,
    said,
};
use crate::server::KeptPlace;
use bytes::Bytes;
use futures_util::SinkExt;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        AUTHORIZATION, CONNECTION, COOKIE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use http_body_util::BodyExt;
use hyper::{
    body::{Body as HttpBody, Frame},
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    future::pending,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::StreamExt;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tonic::body::Body;

/// The one subprotocol: the one after it is the token.
const BEARER: &str = "Bearer";
/// The cookie that is a token.
const COOKIE_NAME: &str = "token";
/// What a socket reads at a time. Most of them only listen.
const READ_BYTES: usize = 4 << 10;
/// How long a client may take to agree to the end.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Whether a request asks to go on as a WebSocket.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    has_word(headers, &CONNECTION, "upgrade") && has_word(headers, &UPGRADE, "websocket")
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    words(headers, name).any(|said| said.eq_ignore_ascii_case(word))
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',').map(str::trim))
}

/// Agrees to a WebSocket, and makes the call on it. The connection is then the call's, which ends when the client leaves.
pub(super) fn answer<C: Calls, B>(json: Json<C>, mut request: Request<B>) -> Response<Body> {
    let accept = match accept(&request) {
        Ok(accept) => accept,
        Err(status) => return refusal(status),
    };
    let speaks_bearer = words(request.headers(), &SEC_WEBSOCKET_PROTOCOL).next() == Some(BEARER);
    let upgrade = hyper::upgrade::on(&mut request);
    let call = call(&request);
    let place = request.extensions_mut().remove::<KeptPlace>();
    tokio::spawn(async move {
        converse(json, upgrade, call).await;
        drop(place);
    });

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if speaks_bearer {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BEARER));
    }
    response
}

/// What proves that this end understood.
fn accept<B>(request: &Request<B>) -> Result<HeaderValue, StatusCode> {
    if request.method() != Method::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let is_of_version = has_word(request.headers(), &SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers().get(SEC_WEBSOCKET_KEY).filter(|key| is_of_version && !key.is_empty());
    let key = key.ok_or(StatusCode::BAD_REQUEST)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| StatusCode::BAD_REQUEST)
}

fn refusal(status: StatusCode) -> Response<Body> {
    let mut response = said(status, status.canonical_reason().unwrap_or_default()).map(Body::new);
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// The call as it would come without a WebSocket, but for its body. A page can set no headers, so a token may stand elsewhere.
fn call<B>(request: &Request<B>) -> Request<()> {
    let mut call = Request::new(());
    *call.method_mut() = Method::POST;
    *call.uri_mut() = request.uri().clone();
    *call.headers_mut() = request.headers().clone();
    if let Some(token) = cookie(request.headers()).or_else(|| subprotocol(request.headers()))
        && let Ok(token) = HeaderValue::try_from(format!("{BEARER} {token}"))
    {
        call.headers_mut().insert(AUTHORIZATION, token);
    }
    call
}

fn subprotocol(headers: &HeaderMap) -> Option<&str> {
    let mut words = words(headers, &SEC_WEBSOCKET_PROTOCOL);
    words.next().filter(|first| *first == BEARER)?;
    words.next()
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, token)| token)
}

/// What the client sends, as a body.
struct Pieces(mpsc::Receiver<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// A connection; what has been read of a message that is not whole yet counts among what all requests hold together.
struct Metered {
    io: TokioIo<Upgraded>,
    share: Share,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buf))?;
        let read = buf.filled().len() - before;
        Poll::Ready(self.share.take(read).map_err(|status| io::Error::other(status.message().to_owned())))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

type Socket = WebSocketStream<Metered>;

async fn converse<C: Calls>(json: Json<C>, upgrade: OnUpgrade, call: Request<()>) {
    // A client that has left meanwhile needs no answer.
    let Ok(connection) = upgrade.await else { return };
    let connection = Metered { io: TokioIo::new(connection), share: json.share() };
    let bytes_max = Some(json.request_bytes_max());
    let settings = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(bytes_max)
        .max_frame_size(bytes_max);
    let mut socket = WebSocketStream::from_raw_socket(connection, Role::Server, Some(settings)).await;

    let takes_many = method(call.uri().path()).is_some_and(|method| method.streams_requests);
    let (pieces, requests) = mpsc::channel(1);
    let (lines, replies) = mpsc::channel(1);
    let calling = async {
        make(json, call.map(|()| Pieces(requests)), lines).await;
        // What it had to say may still be on its way; the conversation ends with it.
        pending().await
    };
    tokio::select! {
        biased;
        () = talk(&mut socket, pieces, takes_many, replies) => {}
        () = calling => {}
    }
}

/// Makes the call, and passes on the lines of its answer.
async fn make<C: Calls>(json: Json<C>, request: Request<Pieces>, lines: mpsc::Sender<Bytes>) {
    let mut answer = json.make(request).await.into_body();
    while let Some(Ok(frame)) = answer.frame().await {
        let Ok(line) = frame.into_data() else { continue };
        // The client is gone.
        if lines.send(line).await.is_err() {
            return;
        }
    }
}

/// Passes on in both directions until one of the two has ended.
async fn talk(socket: &mut Socket, pieces: mpsc::Sender<Bytes>, takes_many: bool, mut replies: mpsc::Receiver<Bytes>) {
    let mut pieces = Some(pieces);
    let mut waiting = None;
    let end = loop {
        tokio::select! {
            biased;
            reply = replies.recv() => match reply.map(text) {
                Some(Some(text)) => if socket.send(Message::Text(text)).await.is_err() { return },
                Some(None) => {}
                None => break CloseCode::Normal,
            },
            () = deliver(pieces.as_ref(), &mut waiting), if waiting.is_some() => {
                socket.get_mut().share.give_all_back();
                if !takes_many {
                    pieces = None;
                }
            }
            message = socket.next(), if waiting.is_none() => match message {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => waiting = Some(message.into_data()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(tungstenite::Error::Capacity(_))) => break CloseCode::Size,
                // Nobody is there any more.
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
        }
    };
    let goodbye = async {
        let frame = CloseFrame { code: end, reason: Utf8Bytes::default() };
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // Whoever does not agree in time is cut.
    let _ = timeout(GOODBYE_MAX, goodbye).await;
}

/// Hands a piece on to the call, once it has room; one that nobody wants any more is dropped.
async fn deliver(pieces: Option<&mpsc::Sender<Bytes>>, waiting: &mut Option<Bytes>) {
    let room = match pieces {
        Some(pieces) => pieces.reserve().await.ok(),
        None => None,
    };
    if let (Some(room), Some(piece)) = (room, waiting.take()) {
        room.send(piece);
    }
}

/// A line as a message; `None` if there is nothing in it.
fn text(mut line: Bytes) -> Option<Utf8Bytes> {
    if line.ends_with(b"\n") {
        line.truncate(line.len() - 1);
    }
    // JSON is UTF-8, whoever wrote it.
    Utf8Bytes::try_from(line).ok().filter(|line| !line.as_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn both_headers_ask_for_it_whatever_else_they_say() {
        let asks = |connection, upgrade| is_asked_for(&headers(&[("connection", connection), ("upgrade", upgrade)]));
        assert!(asks("keep-alive, Upgrade", "WebSocket"));
        assert!(!asks("keep-alive", "websocket"));
        assert!(!asks("upgrade", "h2c"));
    }

    #[test]
    fn a_token_is_the_second_subprotocol_or_in_a_cookie() {
        let token = |of: &[(&'static str, &'static str)]| {
            let mut request = Request::new(());
            *request.headers_mut() = headers(of);
            let call = call(&request);
            call.headers().get(AUTHORIZATION).map(|token| token.to_str().unwrap().to_owned())
        };
        assert_eq!(token(&[("sec-websocket-protocol", "Bearer, abc.1")]).as_deref(), Some("Bearer abc.1"));
        assert_eq!(token(&[("sec-websocket-protocol", "Bearer,abc.1")]).as_deref(), Some("Bearer abc.1"));
        assert_eq!(token(&[("sec-websocket-protocol", "chat, abc.1")]), None);
        assert_eq!(token(&[("sec-websocket-protocol", "Bearer")]), None);
        assert_eq!(token(&[("cookie", "a=b; token=abc.2; c=d")]).as_deref(), Some("Bearer abc.2"));
        let both = [("sec-websocket-protocol", "Bearer, abc.1"), ("cookie", "token=abc.2")];
        assert_eq!(token(&both).as_deref(), Some("Bearer abc.2"));
        assert_eq!(token(&[("authorization", "abc.3")]).as_deref(), Some("abc.3"));
    }
}
