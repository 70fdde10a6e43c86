//! Who is let in, who is not, and who is told why.

use super::double::{CLUSTER, Node, Odd, hash, soon};
use crate::{
    membership::Member,
    pb::henge::peer::{Batch, Hello, peer_client::PeerClient},
    peer::{
        Cluster, Tls, ask_cluster,
        dial::{Dialer, KeepAlive},
        service::says_removed,
    },
    replica::Transport,
    types::{ClusterId, MemberId},
};
use std::time::Duration;
use tonic::{Code, Status};

const ANY: &str = "http://127.0.0.1:0";

fn hello(from: u64, to: u64) -> Hello {
    Hello { version: 1, cluster_id: CLUSTER.0, from, to, ..Hello::default() }
}

/// What a stream that begins so is told.
async fn greet(node: &Node, hello: Option<Hello>) -> Result<(), Status> {
    let dialer = Dialer { tls: Tls::default(), patience: Duration::from_secs(10) };
    let keep_alive = KeepAlive { interval: Duration::from_secs(10), timeout: Duration::from_secs(10) };
    let channel = dialer.dial(&node.url, keep_alive).await.expect("it listens");
    let batch = Batch { hello, messages: Vec::new() };
    let open = tokio_stream::StreamExt::chain(tokio_stream::once(batch), tokio_stream::pending());
    soon("an answer", PeerClient::new(channel).messages(open)).await.map(drop)
}

#[tokio::test]
async fn strangers_are_refused_with_a_reason() {
    let node = Node::start(1, ANY).await;
    node.network.set_members(vec![node.as_member()], vec![MemberId(9)]);
    let cases = [
        (Some(Hello { cluster_id: 7, ..hello(2, 1) }), "cluster ID mismatch"),
        (Some(hello(2, 3)), "member ID mismatch"),
        (Some(hello(1, 1)), "the ID of this member"),
        (Some(Hello { version: 0, ..hello(2, 1) }), "version"),
        (Some(hello(9, 1)), "permanently removed"),
        (None, "who sends it"),
    ];
    for (hello, text) in cases {
        let status = greet(&node, hello).await.expect_err(text);
        assert!(status.message().contains(text), "{status:?}");
        assert_eq!(says_removed(&status), text.contains("removed"), "{status:?}");
    }
}

/// Its joining may not be applied here yet, and it may be the one to bring it.
#[tokio::test]
async fn a_member_that_is_not_known_yet_is_let_in() {
    let node = Node::start(1, ANY).await;
    node.network.set_members(vec![node.as_member()], Vec::new());
    assert!(greet(&node, Some(hello(77, 1))).await.is_ok());
}

/// One that starts from the first entry does not know who joined since; the leader may be among them.
#[tokio::test]
async fn a_member_that_is_not_known_yet_gets_answers() {
    let (mut leader, mut newcomer) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    newcomer.meet(&[]);
    leader.meet(&[newcomer.as_member()]);
    leader.send(newcomer.id, [hash(1)]);
    newcomer.received().await;
    newcomer.send(leader.id, [hash(2)]);
    assert_eq!(leader.received().await, (newcomer.id, hash(2)));
    // A table that still does not list it changes nothing; one that lists it as removed does.
    newcomer.meet(&[]);
    assert!(newcomer.network.connected_for(leader.id).is_some());
    newcomer.network.set_members(vec![newcomer.as_member()], vec![leader.id]);
    assert!(newcomer.network.connected_for(leader.id).is_none());
}

#[tokio::test]
async fn unknown_members_are_few() {
    let node = Node::start(1, ANY).await;
    let mut refused = None;
    let mut open = Vec::new();
    for from in 100..140 {
        // Each on a stream that stays: the connection lives as long as the answer.
        let dialer = Dialer { tls: Tls::default(), patience: Duration::from_secs(10) };
        let keep_alive = KeepAlive { interval: Duration::from_secs(10), timeout: Duration::from_secs(10) };
        let channel = dialer.dial(&node.url, keep_alive).await.expect("it listens");
        let batch = Batch { hello: Some(hello(from, 1)), messages: Vec::new() };
        let stream = tokio_stream::StreamExt::chain(tokio_stream::once(batch), tokio_stream::pending());
        match soon("an answer", PeerClient::new(channel).messages(stream)).await {
            Ok(answer) => open.push(answer),
            Err(status) => refused = Some(status.code()),
        }
    }
    assert_eq!((open.len(), refused), (16, Some(Code::ResourceExhausted)));
}

#[tokio::test]
async fn a_removed_member_is_told_so() {
    let (a, b) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    b.meet(&[a.as_member()]);
    a.meet(&[b.as_member()]);
    b.connected_to(a.id).await;
    a.network.set_members(vec![a.as_member()], vec![b.id]);
    let mut expelled = b.double.expelled.subscribe();
    soon("the news", expelled.wait_for(Option::is_some)).await.unwrap();
    assert_eq!(*b.double.expelled.borrow(), Some(a.id));
}

#[tokio::test]
async fn another_cluster_at_the_same_address_expels_nobody() {
    let other = Node::start_odd(1, ANY, Odd { cluster: ClusterId(0xbad), ..Odd::default() }).await;
    other.network.set_members(vec![other.as_member()], vec![MemberId(2)]);
    let b = Node::start(2, ANY).await;
    b.meet(&[other.as_member()]);
    super::double::until("some refusals", || b.network.counts()[0].1.failures >= 4).await;
    assert_eq!(*b.double.expelled.borrow(), None);
    b.send(other.id, [hash(1)]);
}

#[tokio::test]
async fn a_newcomer_asks_one_url_after_the_other_who_belongs_to_the_cluster() {
    let known = vec![
        Member {
            id: MemberId(1),
            name: "one".to_owned(),
            peer_urls: vec!["http://a:1".to_owned()],
            ..Member::default()
        },
        Member { id: MemberId(5), peer_urls: vec!["http://b:1".to_owned()], is_learner: true, ..Member::default() },
    ];
    let lagging = Node::start(2, ANY).await;
    let node = Node::start_odd(1, ANY, Odd { known: known.clone(), ..Odd::default() }).await;
    let urls = ["http://127.0.0.1:1".to_owned(), lagging.url.clone(), node.url.clone()];
    let has_members = |cluster: Cluster| match cluster.members.is_empty() {
        true => Err("nobody".to_owned()),
        false => Ok(cluster),
    };
    let answer = ask_cluster(&urls, &Tls::default(), has_members).await;
    assert_eq!(answer, Ok(Cluster { id: CLUSTER, member_id: MemberId(1), members: known }));
    assert_eq!(ask_cluster(&urls[..2], &Tls::default(), has_members).await, Err("nobody".to_owned()));
    let silence = ask_cluster(&urls[..1], &Tls::default(), has_members).await.unwrap_err();
    assert!(silence.contains("could not retrieve cluster information from the given URLs"), "{silence}");
}
