//! Calls that go on, large ones, and who makes them.

use super::client::{Open, Spoken, post, send, whole};
use crate::{
    pb::etcdserverpb::{self as pb, kv_client::KvClient},
    server::{
        Backend,
        tests::{World, world},
    },
};
use bytes::Bytes;
use http::Request;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};
use std::{convert::Infallible, time::Duration};
use tonic::body::Body;

async fn put(world: &World, key: &str, value: impl Into<Bytes>) {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
    KvClient::new(world.channel.clone()).put(request).await.unwrap();
}

async fn call(world: &World, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = whole(send(&world.url, Spoken::One, post(path, body.to_string())).await).await;
    (status, serde_json::from_str(&text).unwrap())
}

async fn a_watch_lives(spoken: Spoken) {
    let world = world().await;
    let first = r#"{"create_request":{"key":"YQ=="}} {"create_request":{"key":"Yg==","watch_id":"5"}}"#;
    let mut watch = Open::post(&world.url, spoken, "/v3/watch", first).await;
    assert_eq!(watch.answer.status(), 200);
    assert_eq!(watch.line().await.unwrap()["result"]["created"], true);
    assert_eq!(watch.line().await.unwrap()["result"]["watch_id"], "5");

    put(&world, "a", "1").await;
    let event = watch.line().await.unwrap();
    assert_eq!(event["result"]["events"][0]["kv"]["value"], "MQ==");
    assert_eq!(event["result"]["events"][0].get("type"), None, "a put is what nothing is said of");

    // The request is still open, and comes in pieces that are no messages.
    for piece in [r#" {"create_request":{"key":"Y"#, r#"w==","watch_id":6}}{"cancel_request":{"watch_"#, r#"id":"5"}}"#]
    {
        watch.sender.send(piece).await.unwrap();
    }
    assert_eq!(watch.line().await.unwrap()["result"]["watch_id"], "6");
    assert_eq!(watch.line().await.unwrap()["result"]["canceled"], true);
    assert_eq!(world.backend.hub().counts().watchers, 2);

    // Whole, it goes on.
    drop(std::mem::replace(&mut watch.sender, tokio::sync::mpsc::channel(1).0));
    put(&world, "c", "3").await;
    assert_eq!(watch.line().await.unwrap()["result"]["watch_id"], "6");

    drop(watch);
    let gone = async {
        while world.backend.hub().counts().watchers > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("nobody watches for a client that has left");
}

#[tokio::test]
async fn a_watch_lives_as_long_as_its_client() {
    a_watch_lives(Spoken::One).await;
}

#[tokio::test]
async fn over_http_2_too() {
    a_watch_lives(Spoken::Two).await;
}

#[tokio::test]
async fn a_stream_whose_requests_turn_bad_says_so_and_ends() {
    let world = world().await;
    let first = r#"{"create_request":{"key":"YQ=="}}"#;
    let mut watch = Open::post(&world.url, Spoken::One, "/v3/watch", first).await;
    assert_eq!(watch.line().await.unwrap()["result"]["created"], true);
    watch.sender.send("garbage").await.unwrap();
    let error = watch.line().await.unwrap();
    assert_eq!(error["error"]["code"], 3, "{error}");
    assert_eq!(watch.line().await, None);
}

#[tokio::test]
async fn a_stream_has_the_time_that_its_caller_gives() {
    let world = world().await;
    let mut request = post("/v3/watch", r#"{"create_request":{"key":"YQ=="}}"#);
    request.headers_mut().insert("grpc-timeout", "500m".parse().unwrap());
    let (status, text) = whole(send(&world.url, Spoken::One, request).await).await;
    let last = text.lines().last().unwrap_or_default();
    assert_eq!(last, r#"{"error":{"code":4,"message":"context deadline exceeded"}}"#);
    // On a busy machine the time may have passed before the watch began.
    assert!(status == 200 || (status == 504 && text.lines().count() == 1), "{status} {text}");
}

/// A limit in the header of any caller ended the whole member: it was added to the time of now, and no clock goes so far.
#[tokio::test]
async fn a_time_limit_beyond_all_clocks_is_no_limit() {
    let world = world().await;
    for limit in ["18446744073709551615H", "18446744073709551615S", "9223372036854775807S", "9223372036000000000S"] {
        let mut request = post("/v3/kv/range", r#"{"key":"YQ=="}"#);
        request.headers_mut().insert("grpc-timeout", limit.parse().unwrap());
        let (status, text) = whole(send(&world.url, Spoken::One, request).await).await;
        assert_eq!(status, 200, "{limit}: {text}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_not_read() {
    let world = world().await;
    let value = |bytes: usize| json!({"key": "Zm9v", "value": "A".repeat(bytes)});
    let (status, refusal) = call(&world, "/v3/kv/put", &value(2_000_000)).await;
    assert_eq!(status, 200, "{refusal}: three quarters of that are under the limit");
    let (status, refusal) = call(&world, "/v3/kv/put", &value(2_120_000)).await;
    assert_eq!((status, &refusal["message"]), (400, &json!("etcdserver: request is too large")));
    let (status, refusal) = call(&world, "/v3/kv/put", &value(4_000_000)).await;
    let text = "grpc: received message larger than max (3000010 vs. 2097152)";
    assert_eq!((status, &refusal["code"], &refusal["message"]), (429, &json!(8), &json!(text)));

    // What is larger still is refused before it has come: none of these bodies would have an end.
    for path in ["/v3/kv/put", "/v3/watch"] {
        let piece = Bytes::from(vec![b' '; 1 << 20]);
        let endless =
            tokio_stream::iter(std::iter::repeat_with(move || Ok::<_, Infallible>(Frame::data(piece.clone()))));
        let request = Request::post(path).body(Body::new(StreamBody::new(endless))).unwrap();
        assert_eq!(send(&world.url, Spoken::Two, request).await.status(), 429, "{path}");
    }
}

#[tokio::test]
async fn a_large_answer_comes_whole() {
    let world = world().await;
    for key in ["large/a", "large/b"] {
        put(&world, key, vec![7; 1_400_000]).await;
    }
    let (status, answer) = call(&world, "/v3/kv/range", &json!({"key": "bGFyZ2U=", "range_end": "bGFyZ2Yq"})).await;
    assert_eq!((status, &answer["count"]), (200, &json!("2")));
    for kv in answer["kvs"].as_array().unwrap() {
        assert_eq!(kv["value"].as_str().unwrap().len(), 1_400_000usize.div_ceil(3) * 4);
    }
    let (status, text) = whole(send(&world.url, Spoken::One, post("/v3/maintenance/snapshot", "")).await).await;
    assert_eq!(status, 200);
    assert!(text.lines().all(|line| line.starts_with(r#"{"result":{"#) && line.ends_with("}}")), "lines");
}

#[tokio::test]
async fn metadata_goes_with_the_call() {
    let world = world().await;
    world.backend.set_leader(None);
    let mut insistent = post("/v3/kv/range", r#"{"key":"YQ==","serializable":true}"#);
    insistent.headers_mut().insert("grpc-metadata-hasleader", "true".parse().unwrap());
    let (status, text) = whole(send(&world.url, Spoken::One, insistent).await).await;
    assert_eq!((status, text.contains("etcdserver: no leader")), (503, true), "{text}");
}

#[tokio::test]
async fn a_token_says_who_calls() {
    let world = world().await;
    for (path, body) in [
        ("user/add", json!({"name": "root", "password": "secret"})),
        ("role/add", json!({"name": "root"})),
        ("user/grant", json!({"user": "root", "role": "root"})),
        ("enable", json!({})),
    ] {
        let (status, refusal) = call(&world, &format!("/v3/auth/{path}"), &body).await;
        assert_eq!(status, 200, "{path}: {refusal}");
    }
    let login = json!({"name": "root", "password": "secret"});
    let (status, answer) = call(&world, "/v3/auth/authenticate", &login).await;
    let token = answer["token"].as_str().expect("a token");
    assert_eq!(status, 200);
    for name in ["authorization", "grpc-metadata-token"] {
        let mut request = post("/v3/kv/put", r#"{"key":"YQ=="}"#);
        request.headers_mut().insert(name, token.parse().unwrap());
        assert_eq!(send(&world.url, Spoken::One, request).await.status(), 200, "{name}");
    }
}
