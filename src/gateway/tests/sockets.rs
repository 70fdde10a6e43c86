//! Calls over WebSockets: what pages and libraries of theirs do.

use super::client::{Spoken, post, send, whole};
use crate::{
    pb::etcdserverpb::{self as pb, kv_client::KvClient},
    server::{
        Backend,
        tests::{World, world},
    },
};
use futures_util::SinkExt;
use http::Request;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};
use tokio_stream::StreamExt;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

const PATIENCE: Duration = Duration::from_secs(10);

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn open(world: &World, path: &str) -> Socket {
        Socket::try_open(world, path, &[]).await.unwrap_or_else(|status| panic!("refused with {status}"))
    }

    /// The status of HTTP if it is refused.
    async fn try_open(world: &World, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
        let authority = world.url.strip_prefix("http://").unwrap();
        let mut request = format!("ws://{authority}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let connection = TcpStream::connect(authority).await.unwrap();
        match timeout(PATIENCE, client_async(request, connection)).await.expect("in time") {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn say(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }

    /// The next message that is not about the connection.
    async fn message(&mut self) -> Option<Message> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("in time") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn hear(&mut self) -> Value {
        match self.message().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("no text: {other:?}"),
        }
    }

    /// How it ended: nothing follows but the word for that.
    async fn end(&mut self) -> CloseCode {
        match self.message().await {
            Some(Message::Close(Some(frame))) => frame.code,
            other => panic!("no end: {other:?}"),
        }
    }
}

async fn put(world: &World, key: &str, value: &str) {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    KvClient::new(world.channel.clone()).put(request).await.unwrap();
}

async fn nobody_watches(world: &World) {
    let gone = async {
        while world.backend.hub().counts().watchers > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("nobody watches for a client that has left");
}

#[tokio::test]
async fn a_watch_over_a_websocket_lives_as_long_as_its_client() {
    let world = world().await;
    let mut watch = Socket::open(&world, "/v3/watch").await;
    watch.say(r#"{"create_request":{"key":"YQ=="}}"#).await;
    assert_eq!(watch.hear().await["result"]["created"], true);
    put(&world, "a", "1").await;
    assert_eq!(watch.hear().await["result"]["events"][0]["kv"]["value"], "MQ==");

    // Several messages are one request after the other, and one may come in several.
    for piece in [r#"{"create_request":{"key":"Yg=="#, r#"","watch_id":7}} {"cancel_request":{"watch_id":"0"}}"#] {
        watch.say(piece).await;
    }
    assert_eq!(watch.hear().await["result"]["watch_id"], "7");
    assert_eq!(watch.hear().await["result"]["canceled"], true);
    watch.0.send(Message::Ping("there?".into())).await.unwrap();
    put(&world, "b", "2").await;
    assert_eq!(watch.hear().await["result"]["watch_id"], "7");

    watch.0.close(None).await.unwrap();
    nobody_watches(&world).await;
    let mut vanished = Socket::open(&world, "/v3beta/watch").await;
    vanished.say(r#"{"create_request":{"key":"YQ=="}}"#).await;
    assert_eq!(vanished.hear().await["result"]["created"], true);
    drop(vanished);
    nobody_watches(&world).await;
}

#[tokio::test]
async fn other_calls_are_made_over_websockets_too() {
    let world = world().await;
    let mut put = Socket::open(&world, "/v3/kv/put").await;
    put.say(r#"{"key":"YQ==","value":"MQ=="}"#).await;
    assert_eq!(put.hear().await["header"]["revision"], "2");
    assert_eq!(put.end().await, CloseCode::Normal);

    let mut grant = Socket::open(&world, "/v3/lease/grant").await;
    grant.say(r#"{"ID":"5","TTL":"60"}"#).await;
    assert_eq!(grant.hear().await["ID"], "5");
    let mut kept = Socket::open(&world, "/v3/lease/keepalive").await;
    for _ in 0..3 {
        kept.0.send(Message::binary(br#"{"ID":"5"}"#.to_vec())).await.unwrap();
        assert_eq!(kept.hear().await["result"]["TTL"], "60");
    }
}

#[tokio::test]
async fn what_a_websocket_is_refused_is_its_last_message() {
    let world = world().await;
    for (path, request, code) in [
        ("/v3/kv/put", "{}", 3),
        ("/v3/kv/put", "garbage", 3),
        ("/v3/nowhere", "{}", 5),
        ("/v3/lease/revoke", r#"{"ID":"1"}"#, 5),
    ] {
        let mut socket = Socket::open(&world, path).await;
        socket.say(request).await;
        assert_eq!(socket.hear().await["code"], code, "{path} {request}");
        assert_eq!(socket.end().await, CloseCode::Normal, "{path} {request}");
    }
    let mut watch = Socket::open(&world, "/v3/watch").await;
    watch.say("garbage").await;
    assert_eq!(watch.hear().await["error"]["code"], 3);
    assert_eq!(watch.end().await, CloseCode::Normal);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_the_last_of_its_websocket() {
    let world = world().await;
    let mut socket = Socket::open(&world, "/v3/kv/put").await;
    let large = json!({"key": "YQ==", "value": "A".repeat(5_000_000)});
    // It may be cut before all of it is sent.
    let _ = socket.0.send(Message::text(large.to_string())).await;
    assert!(!matches!(socket.message().await, Some(Message::Text(_) | Message::Binary(_))));
    // What there was of it is not held against others.
    let fits = json!({"key": "YQ==", "value": "A".repeat(1_000_000)});
    assert_eq!(send(&world.url, Spoken::One, post("/v3/kv/put", fits.to_string())).await.status(), 200);
}

#[tokio::test]
async fn what_is_no_websocket_is_told_so() {
    let world = world().await;
    let ask = |method: &'static str, version: &'static str, key: &'static str| {
        let request = Request::builder().method(method).uri("/v3/watch").header("connection", "upgrade");
        let request = request.header("upgrade", "websocket").header("sec-websocket-version", version);
        let request = request.header("sec-websocket-key", key).body(tonic::body::Body::empty()).unwrap();
        async { whole(send(&world.url, Spoken::One, request).await).await }
    };
    assert_eq!(ask("POST", "13", "bm9uY2U=").await, (405, "Method Not Allowed\n".to_owned()));
    assert_eq!(ask("GET", "8", "bm9uY2U=").await, (400, "Bad Request\n".to_owned()));
    assert_eq!(ask("GET", "13", "").await, (400, "Bad Request\n".to_owned()));
}

#[tokio::test]
async fn a_page_tells_its_token_by_subprotocol_or_cookie() {
    let world = world().await;
    let call = |path: &'static str, body: Value| {
        let request = post(path, body.to_string());
        async { serde_json::from_str::<Value>(&whole(send(&world.url, Spoken::One, request).await).await.1).unwrap() }
    };
    call("/v3/auth/user/add", json!({"name": "root", "password": "secret"})).await;
    call("/v3/auth/role/add", json!({"name": "root"})).await;
    call("/v3/auth/user/grant", json!({"user": "root", "role": "root"})).await;
    call("/v3/auth/enable", json!({})).await;
    let login = call("/v3/auth/authenticate", json!({"name": "root", "password": "secret"})).await;
    let token = login["token"].as_str().expect("a token");

    let said = [
        ("sec-websocket-protocol", format!("Bearer, {token}")),
        ("cookie", format!("token={token}")),
        ("authorization", token.to_owned()),
    ];
    for (name, value) in &said {
        let mut watch = Socket::try_open(&world, "/v3/watch", &[(*name, value)]).await.expect("a socket");
        watch.say(r#"{"create_request":{"key":"YQ=="}}"#).await;
        assert_eq!(watch.hear().await["result"]["created"], true, "{name}");
    }
    let mut watch = Socket::open(&world, "/v3/watch").await;
    watch.say(r#"{"create_request":{"key":"YQ=="}}"#).await;
    let refused = watch.hear().await;
    assert_eq!(refused["result"]["canceled"], true, "{refused}");
}
