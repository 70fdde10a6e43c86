//! A client of HTTP that can keep a request open, and reads an answer piece by piece.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, time::Duration};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::body::Body;

const PATIENCE: Duration = Duration::from_secs(10);

/// What HTTP is spoken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spoken {
    One,
    Two,
}

/// Sends a request over a connection of its own.
pub(super) async fn send(url: &str, spoken: Spoken, mut request: Request<Body>) -> Response<Incoming> {
    let authority = url.strip_prefix("http://").unwrap();
    let stream = TokioIo::new(TcpStream::connect(authority).await.unwrap());
    let response = match spoken {
        Spoken::One => {
            request.headers_mut().insert("host", authority.parse().unwrap());
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            timeout(PATIENCE, sender.send_request(request)).await
        }
        Spoken::Two => {
            *request.uri_mut() = format!("{url}{}", request.uri()).parse().unwrap();
            let executor = TokioExecutor::new();
            let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
            tokio::spawn(connection);
            timeout(PATIENCE, sender.send_request(request)).await
        }
    };
    response.expect("in time").unwrap()
}

/// A POST whose body is there at once.
pub(super) fn post(path: &str, body: impl Into<Bytes>) -> Request<Body> {
    Request::post(path).body(Body::new(Full::new(body.into()))).unwrap()
}

/// Status and body of an answer to its end.
pub(super) async fn whole(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = timeout(PATIENCE, response.into_body().collect()).await.expect("in time").unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A call whose request stays open.
pub(super) struct Open {
    /// Dropped, the request is whole.
    pub(super) sender: mpsc::Sender<&'static str>,
    pub(super) answer: Response<Incoming>,
}

impl Open {
    /// Begins with `first`, without which nobody would answer.
    pub(super) async fn post(url: &str, spoken: Spoken, path: &str, first: &'static str) -> Open {
        let (sender, receiver) = mpsc::channel(4);
        sender.send(first).await.unwrap();
        let pieces = ReceiverStream::new(receiver);
        let pieces =
            pieces.map(|piece| Ok::<_, Infallible>(hyper::body::Frame::data(Bytes::from_static(piece.as_bytes()))));
        let body = Body::new(http_body_util::StreamBody::new(pieces));
        let answer = send(url, spoken, Request::post(path).body(body).unwrap()).await;
        Open { sender, answer }
    }

    /// The next piece of the answer, which is a line; `None` at its end.
    pub(super) async fn line(&mut self) -> Option<serde_json::Value> {
        let frame = timeout(PATIENCE, self.answer.body_mut().frame()).await.expect("in time")?;
        let piece = frame.unwrap().into_data().unwrap();
        let line = piece.strip_suffix(b"\n").expect("a piece is a line");
        assert!(!line.contains(&b'\n'), "a piece is one line: {piece:?}");
        Some(serde_json::from_slice(line).unwrap())
    }
}
