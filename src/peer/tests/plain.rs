//! What is answered on the peer URLs to those who are no peers.

use super::double::{Node, Odd, soon};
use crate::{membership::Member, types::MemberId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn connected(node: &Node) -> TcpStream {
    TcpStream::connect(node.url.strip_prefix("http://").expect("a URL")).await.expect("it listens")
}

/// Head and body of an answer.
async fn ask(node: &Node, request: &str) -> (String, String) {
    let mut stream = connected(node).await;
    let request = format!("{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.expect("a text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn whoever_looks_after_members_is_answered_as_etcd_does() {
    let learner = Member { id: MemberId(3), peer_urls: vec!["http://a".into()], is_learner: true, ..Member::default() };
    let voter = Member {
        id: MemberId(2),
        name: "two".into(),
        peer_urls: vec!["http://b".into()],
        client_urls: vec!["http://c".into()],
        is_learner: false,
    };
    let odd = Odd { known: vec![voter, learner], ..Odd::default() };
    let node = Node::start_odd(1, "http://127.0.0.1:0", odd).await;

    let (head, body) = ask(&node, "GET /members").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("\r\nx-etcd-cluster-id: "), "{head}");
    let listed = r#"[{"id":3,"peerURLs":["http://a"],"isLearner":true},{"id":2,"peerURLs":["http://b"],"name":"two","clientURLs":["http://c"]}]"#;
    assert_eq!(body, format!("{listed}\n"));
    assert_eq!(ask(&node, "GET /version").await.1, "{}");
    assert_eq!(ask(&node, "GET /downgrade/enabled").await.1, "false");
    let (head, body) = ask(&node, "GET /raft/probing").await;
    assert!(head.starts_with("http/1.1 200") && body.starts_with(r#"{"OK":true,"Now":"20"#), "{body}");
    for (request, status) in [("POST /version", "405"), ("GET /health", "404"), ("GET /", "404"), ("POST /raft", "404")]
    {
        let (head, _) = ask(&node, request).await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{request}: {head}");
    }
}

#[tokio::test]
async fn by_asking_nobody_keeps_a_place() {
    let node = Node::start(1, "http://127.0.0.1:0").await;
    let mut asker = connected(&node).await;
    asker.write_all(b"GET /version HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("a request");
    let mut piece = [0; 1_024];
    assert!(soon("an answer", asker.read(&mut piece)).await.expect("an answer") > 0);
    let mut others = Vec::new();
    for _ in 0..crate::peer::listen::PLACES.silent_max {
        others.push(connected(&node).await);
    }
    let gone = async {
        loop {
            // It is told by an end, or a reset.
            match asker.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    soon("its place is another's", gone).await;
}
