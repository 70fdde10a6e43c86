//! The services for real, over loopback, with the clients that `pb` generates.
//!
//! What is said of a member's answers holds through proxies too: `HENGE_VIA=proxy,copy cargo test --lib server::tests` puts them
//! between (`via`). A test of what is the member's own affair asks for it alone.

mod auth;
mod backend;
mod cluster;
mod elections;
mod kv;
mod lease;
mod locks;
mod members;
mod port;
mod snapshot;
mod via;
mod watch;

pub(crate) use backend::{ME, TestBackend};

use super::*;
use crate::{
    gateway,
    pb::etcdserverpb::{self as pb, kv_client::KvClient},
};
use bytes::Bytes;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, transport::Channel};

/// A served backend, and a connection to it, or to the outermost of the proxies before it.
pub(crate) struct World {
    pub(crate) backend: TestBackend,
    pub(crate) url: String,
    pub(crate) channel: Channel,
    serving: Serving,
    proxies: Vec<via::Proxy>,
}

pub(crate) async fn world() -> World {
    world_with(Settings::default()).await
}

pub(crate) async fn world_with(settings: Settings) -> World {
    let member = world_of(TestBackend::new(), settings.clone()).await;
    via::before(member, settings).await
}

/// A member that is spoken to directly, whatever the environment says.
async fn member() -> World {
    world_of(TestBackend::new(), Settings::default()).await
}

async fn world_of(backend: TestBackend, settings: Settings) -> World {
    let listener = Listener::bind("http://127.0.0.1:0").await.unwrap();
    let url = listener.url();
    let edge = Edge::new(backend.clone(), settings);
    let json = gateway::Json::new(Services::of(&edge), edge.settings.limits.message_bytes_max());
    let routes = gateway::with_json(gateway::routes(edge.clone()), Some(json), gateway::Access::default());
    let serving = serve(vec![listener], edge, routes, &ConnectionSettings::default());
    let channel = Channel::from_shared(url.clone()).unwrap().connect().await.unwrap();
    World { backend, url, channel, serving, proxies: Vec::new() }
}

impl World {
    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    async fn put(&self, key: &str, value: &str) -> pb::PutResponse {
        self.kv().put(put(key, value)).await.unwrap().into_inner()
    }

    /// Whether there are proxies before the member.
    fn is_via(&self) -> bool {
        !self.proxies.is_empty()
    }

    pub(crate) async fn http(&self, method: &str, path: &str) -> (u16, String) {
        http(&self.url, method, path).await
    }
}

/// Status and body of a plain HTTP request.
pub(crate) async fn http(url: &str, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: b(key), value: b(value), ..Default::default() }
}

fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: b(key), range_end: b(end), ..Default::default() }
}

fn revision(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().expect("every reply has a header").revision
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, tonic::Status>, code: Code, text: &str) {
    let status = result.expect_err(text);
    assert_eq!((status.code(), status.message()), (code, text));
}
