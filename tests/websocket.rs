//! The gateway's streams over WebSockets, on real processes: a member, a proxy before it, and one that copies all keys. `HENGE_BIN` names another
//! server to put behind them.

mod common;

use common::{PATIENCE, Proxy, Server};
use futures_util::SinkExt;
use serde_json::Value;
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};
use tokio_stream::StreamExt;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn open(url: &str, path: &str) -> Socket {
        let authority = url.strip_prefix("http://").expect("a URL");
        let request = format!("ws://{authority}{path}").into_client_request().expect("a request");
        let connection = TcpStream::connect(authority).await.expect("a connection");
        Socket(timeout(PATIENCE, client_async(request, connection)).await.expect("in time").expect("a WebSocket").0)
    }

    async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.expect("it takes requests");
    }

    async fn hear(&mut self) -> Value {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("in time").expect("it goes on").expect("no error") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("no text: {other:?}"),
            }
        }
    }

    /// Whether it has ended without another word; etcd ends it without a word for that.
    async fn is_over(&mut self) -> bool {
        let next = timeout(PATIENCE, self.0.next()).await.expect("in time");
        matches!(next, None | Some(Err(_) | Ok(Message::Close(_))))
    }
}

fn ways(server: &Server) -> Vec<(String, Option<Proxy>)> {
    let near = Proxy::of(&[server.url()]);
    let copy = Proxy::with(&[near.url()], &["--cache-prefix="]);
    let of = |proxy: Proxy| (proxy.url().to_owned(), Some(proxy));
    vec![(server.url().to_owned(), None), of(near), of(copy)]
}

#[test]
fn a_watch_goes_over_a_websocket_whoever_is_asked() {
    let server = Server::start();
    let runtime = Runtime::new().expect("a runtime");
    for (number, (url, _)) in ways(&server).iter().enumerate() {
        let mut watch = runtime.block_on(Socket::open(url, "/v3/watch"));
        let create = r#"{"create_request":{"key":"aw==","prev_kv":true}}"#;
        let created = runtime.block_on(async {
            watch.say(create).await;
            watch.hear().await
        });
        assert_eq!(created["result"]["created"], true, "{url}");
        server.put("k", &format!("{number}"));
        let event = runtime.block_on(watch.hear());
        assert_eq!(event["result"]["events"][0]["kv"]["key"], "aw==", "{url}");
        runtime.block_on(async {
            watch.say(r#"{"create_request":{"key":"bA=="}}"#).await;
            assert_eq!(watch.hear().await["result"]["watch_id"], "1", "{url}");
            watch.say(r#"{"cancel_request":{"watch_id":"1"}}"#).await;
            assert_eq!(watch.hear().await["result"]["canceled"], true, "{url}");
        });
    }
}

#[test]
fn renewals_of_a_lease_go_over_a_websocket() {
    let server = Server::start();
    let runtime = Runtime::new().expect("a runtime");
    let lease = server.grant(60);
    for (url, _) in &ways(&server) {
        runtime.block_on(async {
            let mut kept = Socket::open(url, "/v3/lease/keepalive").await;
            for _ in 0..2 {
                kept.say(&format!(r#"{{"ID":"{lease}"}}"#)).await;
                assert_eq!(kept.hear().await["result"]["TTL"], "60", "{url}");
            }
        });
    }
}

#[test]
fn a_path_that_is_none_ends_with_its_refusal() {
    let server = Server::start();
    for (url, _) in &ways(&server) {
        Runtime::new().expect("a runtime").block_on(async {
            let mut socket = Socket::open(url, "/v3/nowhere").await;
            assert_eq!(socket.hear().await["code"], 5, "{url}");
            assert!(socket.is_over().await, "{url}");
        });
    }
}

/// What still runs when the server stops is told, or cut; the server is gone in time either way.
#[test]
fn a_server_that_stops_does_not_wait_for_its_websockets() {
    let mut server = Server::start();
    let runtime = Runtime::new().expect("a runtime");
    let mut watch = runtime.block_on(Socket::open(server.url(), "/v3/watch"));
    runtime.block_on(async {
        watch.say(r#"{"create_request":{"key":"aw=="}}"#).await;
        assert_eq!(watch.hear().await["result"]["created"], true);
    });
    let began = std::time::Instant::now();
    assert!(server.stop().success());
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    let ended = async { while let Some(Ok(_)) = watch.0.next().await {} };
    runtime.block_on(async { timeout(PATIENCE, ended).await.expect("in time") });
}
