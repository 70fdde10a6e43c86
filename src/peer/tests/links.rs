//! Messages: order, lanes, bounds, and connections that come and go.

use super::double::{Node, hash, soon, until};
use crate::{
    machine::RequestId,
    membership::Member,
    replica::{Forwarded, PeerMessage, Transport},
    types::{EntryKind, MemberId, Term},
};
use bytes::Bytes;
use std::time::Duration;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

const ANY: &str = "http://127.0.0.1:0";

fn forward(id: u64, bytes: usize) -> PeerMessage {
    let data = Bytes::from(vec![id as u8; bytes]);
    proposal(id, data)
}

fn proposal(id: u64, data: Bytes) -> PeerMessage {
    let proposals = vec![Forwarded { id: RequestId(id), kind: EntryKind::Normal, data }];
    PeerMessage::Forward { term: Term(1), proposals }
}

async fn pair() -> (Node, Node) {
    let (a, b) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    a.meet(&[b.as_member()]);
    b.meet(&[a.as_member()]);
    (a, b)
}

#[tokio::test]
async fn messages_arrive_whole_and_in_the_order_of_their_lane() {
    let (a, mut b) = pair().await;
    for number in 0..500 {
        a.send(b.id, [hash(number), forward(number, 1000)]);
    }
    let (mut small, mut large) = (Vec::new(), Vec::new());
    while small.len() + large.len() < 1000 {
        let (from, message) = b.received().await;
        assert_eq!(from, a.id);
        let lane = if matches!(message, PeerMessage::Hash { .. }) { &mut small } else { &mut large };
        lane.push(message);
    }
    assert_eq!(small, (0..500).map(hash).collect::<Vec<_>>());
    assert_eq!(large, (0..500).map(|number| forward(number, 1000)).collect::<Vec<_>>());
    let (to, counts) = a.network.counts()[0];
    assert_eq!((to, counts.messages_sent, counts.messages_dropped), (b.id, 1000, 0));
    assert!(counts.bytes_sent > 500_000);
}

#[tokio::test]
async fn what_is_sent_before_the_connection_stands_goes_with_it() {
    let (a, mut b) = pair().await;
    a.send(b.id, [hash(1)]);
    assert_eq!(b.received().await, (a.id, hash(1)));
    assert!(a.network.connected_for(b.id).is_some());
}

#[tokio::test]
async fn an_entry_larger_than_a_batch_arrives() {
    let (a, mut b) = pair().await;
    a.send(b.id, [forward(7, 20 << 20)]);
    assert_eq!(b.received().await.1, forward(7, 20 << 20));
}

#[tokio::test]
async fn a_peer_that_restarts_on_the_same_port_is_found_again() {
    let (a, mut b) = pair().await;
    a.send(b.id, [hash(1)]);
    b.received().await;
    let url = b.url.clone();
    b.stop().await;
    until("the loss of the connection", || a.network.connected_for(MemberId(2)).is_none()).await;
    let mut b = Node::start(2, &url).await;
    a.connected_to(b.id).await;
    a.send(b.id, [hash(2)]);
    assert_eq!(b.received().await, (a.id, hash(2)));
    assert!(a.network.counts()[0].1.failures >= 1);
}

/// What the `to` of an answer cannot be dialled never reaches, although a connection in the other direction stands.
#[tokio::test]
async fn nothing_comes_back_over_a_connection_that_the_other_side_has_dialled() {
    let (mut a, mut b) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    // Bound and never served: whoever dials it waits.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = format!("http://{}", deaf.local_addr().unwrap());
    a.meet(&[b.as_member()]);
    b.meet(&[Member { id: a.id, peer_urls: vec![nowhere], ..Member::default() }]);
    a.send(b.id, [hash(1)]);
    b.received().await;
    b.send(a.id, [hash(2)]);
    soon("b to dial a's URL", deaf.accept()).await.unwrap();
    assert!(a.network.connected_for(b.id).is_some() && b.network.connected_for(a.id).is_none());
    // Now a can be dialled, and the next one arrives. The first never had a way.
    b.meet(&[a.as_member()]);
    b.connected_to(a.id).await;
    b.send(a.id, [hash(3)]);
    let (_, first) = a.received().await;
    assert!(first == hash(3) || first == hash(2), "{first:?}");
}

#[tokio::test]
async fn urls_are_tried_in_turn_and_a_new_one_is_followed() {
    let (a, mut b) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead_url = format!("http://{}", dead.local_addr().unwrap());
    drop(dead);
    let two = Member { id: b.id, peer_urls: vec![dead_url, b.url.clone()], ..Member::default() };
    a.meet(&[two]);
    a.connected_to(b.id).await;
    // The same member at another place.
    let mut moved = Node::start(2, ANY).await;
    a.meet(&[moved.as_member()]);
    a.send(b.id, [hash(1)]);
    let received = tokio::select! {
        received = moved.received() => received,
        // The old connection may have taken it before it was left.
        _ = b.received() => {
            a.connected_to(moved.id).await;
            a.send(moved.id, [hash(1)]);
            moved.received().await
        }
    };
    assert_eq!(received, (a.id, hash(1)));
}

#[tokio::test]
async fn a_peer_that_cannot_be_reached_costs_a_bounded_queue() {
    let a = Node::start(1, ANY).await;
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let urls = vec![format!("http://{}", deaf.local_addr().unwrap())];
    a.meet(&[Member { id: MemberId(2), peer_urls: urls, ..Member::default() }]);
    let data = Bytes::from(vec![0; 1 << 20]);
    for id in 0..100 {
        // All of them share one piece of memory: what counts is what they would hold.
        a.send(MemberId(2), [proposal(id, data.clone())]);
    }
    a.send(MemberId(2), (0..20_000).map(hash));
    let dropped = a.network.counts()[0].1.messages_dropped;
    assert!(dropped > 60 + 10_000, "{dropped}");
    until("what waited to be dropped with the attempt", || a.network.counts()[0].1.messages_dropped == 20_100).await;
}

#[tokio::test]
async fn a_link_that_hangs_is_noticed() {
    let (a, b) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    // A wire that can be cut without anybody being told.
    let wire = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let urls = vec![format!("http://{}", wire.local_addr().unwrap())];
    let target = b.url.trim_start_matches("http://").to_owned();
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = wire.accept().await {
            let (target, mut is_cut) = (target.clone(), is_cut.clone());
            tokio::spawn(async move {
                let mut far = TcpStream::connect(target).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    // Both ends stay open, and nothing passes.
                    () = async { drop(is_cut.wait_for(|is_cut| *is_cut).await) } => {
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    });
    a.meet(&[Member { id: b.id, peer_urls: urls, ..Member::default() }]);
    a.connected_to(b.id).await;
    let began = std::time::Instant::now();
    cut.send_replace(true);
    until("the silence to be noticed", || a.network.connected_for(b.id).is_none()).await;
    // Asked after half an election timeout, and given up one later; the rest is the machine's.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Each connection passes this much, and the rest only once it may.
const HELD_AFTER: usize = 256 << 10;

#[tokio::test]
async fn a_heartbeat_does_not_stand_behind_entries_that_a_slow_wire_holds_up() {
    let (a, mut b) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    let wire = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let urls = vec![format!("http://{}", wire.local_addr().unwrap())];
    let target = b.url.trim_start_matches("http://").to_owned();
    let (release, is_released) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((near, _)) = wire.accept().await {
            let (target, mut is_released) = (target.clone(), is_released.clone());
            tokio::spawn(async move {
                let far = TcpStream::connect(target).await.unwrap();
                let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut far_in, &mut near_out).await });
                let mut first = (&mut near_in).take(HELD_AFTER as u64);
                tokio::io::copy(&mut first, &mut far_out).await.unwrap();
                drop(is_released.wait_for(|is_released| *is_released).await);
                let _ = tokio::io::copy(&mut near_in, &mut far_out).await; // the test may be over
            });
        }
    });
    a.meet(&[Member { id: b.id, peer_urls: urls, ..Member::default() }]);
    a.connected_to(b.id).await;
    a.send(b.id, [forward(1, 8 << 20), hash(1)]);
    assert_eq!(b.received().await, (a.id, hash(1)));
    assert!(b.inbox.try_recv().is_err());
    release.send_replace(true);
    assert_eq!(b.received().await, (a.id, forward(1, 8 << 20)));
}

#[tokio::test]
async fn a_member_that_has_left_is_not_spoken_to_any_more() {
    let (a, mut b) = pair().await;
    a.connected_to(b.id).await;
    a.network.set_members(vec![a.as_member()], vec![b.id]);
    assert_eq!(a.network.connected_for(b.id), None);
    a.send(b.id, [hash(1)]);
    assert!(a.network.counts().is_empty());
    b.network.stop();
    assert!(b.inbox.try_recv().is_err());
}
