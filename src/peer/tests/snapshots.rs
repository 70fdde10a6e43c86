//! Snapshots: whole, resumed, and damaged on the way.

use super::double::{CLUSTER, Frozen, Node, soon, until};
use crate::{
    engine::Table,
    membership::Member,
    pb::henge::peer::{Hello, Row as WireRow, Rows, SnapshotChunk, peer_client::PeerClient},
    peer::{
        Tls,
        convert::header_to_wire,
        dial::{Dialer, KeepAlive},
    },
    replica::{Outgoing, Row, Transport},
    types::{ConfState, Index, MemberId, SnapshotMeta, Term},
};
use bytes::Bytes;
use prost::Message as _;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tonic::{Code, Status};

const ANY: &str = "http://127.0.0.1:0";

fn meta(index: u64) -> SnapshotMeta {
    let conf_state = ConfState { voters: vec![MemberId(1), MemberId(2)], ..ConfState::default() };
    SnapshotMeta { index: Index(index), term: Term(3), conf_state }
}

/// Rows of several tables, of many sizes, in their order.
fn rows(count: usize, bytes: usize) -> Vec<Row> {
    let mut rows = BTreeMap::new();
    for number in 0..count {
        let table = Table::ALL[number % 4];
        let key = Bytes::from(format!("{number:08}"));
        let value = (0..bytes * (number % 7) / 3).map(|at| (at * 31 + number) as u8).collect::<Vec<_>>();
        rows.insert((table, key), Bytes::from(value));
    }
    rows.into_iter().map(|((table, key), value)| (table, key, value)).collect()
}

fn outgoing(index: u64, rows: &[Row]) -> Outgoing {
    let frozen = rows.iter().map(|(table, key, value)| ((*table, key.clone()), value.clone())).collect();
    Outgoing::new(meta(index), 0, Box::new(Frozen(frozen)))
}

async fn arrived(node: &Node) -> Vec<Row> {
    let mut is_complete = node.double.shelf.is_complete.subscribe();
    soon("the snapshot", is_complete.wait_for(|is_complete| *is_complete)).await.unwrap();
    node.double.shelf.rows.lock().clone()
}

#[tokio::test]
async fn a_snapshot_arrives_byte_for_byte() {
    let (a, b) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    a.meet(&[b.as_member()]);
    let rows = rows(4_000, 1_000);
    a.network.send_snapshot(b.id, outgoing(9, &rows));
    assert!(a.network.is_sending_snapshot(b.id));
    assert!(arrived(&b).await == rows);
    assert_eq!(*b.double.shelf.meta.lock(), Some(meta(9)));
    until("the end of sending", || !a.network.is_sending_snapshot(b.id)).await;
    assert_eq!(*b.double.shelf.offers.lock(), 1);
}

#[tokio::test]
async fn an_empty_store_is_a_snapshot_too() {
    let (a, b) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    a.meet(&[b.as_member()]);
    a.network.send_snapshot(b.id, outgoing(9, &[]));
    assert!(arrived(&b).await.is_empty());
}

/// A wire to `target` that breaks twice: after `bytes` of the first connection that carries so many, and of the second.
async fn brittle(target: String, bytes: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let breaks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&breaks);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(target.trim_start_matches("http://")).await.unwrap();
            let breaks = Arc::clone(&counted);
            tokio::spawn(async move {
                let (mut near_in, mut near_out) = near.into_split();
                let (mut far_in, mut far_out) = far.into_split();
                let back = tokio::spawn(async move { tokio::io::copy(&mut far_in, &mut near_out).await });
                let (mut buffer, mut passed) = (vec![0; 16 << 10], 0);
                while let Ok(count @ 1..) = near_in.read(&mut buffer).await {
                    passed += count;
                    if passed > bytes && breaks.load(Ordering::SeqCst) < 2 {
                        breaks.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    if far_out.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
                back.abort();
            });
        }
    });
    (url, breaks)
}

#[tokio::test]
async fn a_snapshot_that_breaks_off_goes_on_where_it_was() {
    let (a, b) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    let rows = rows(4_000, 2_000);
    let (url, breaks) = brittle(b.url.clone(), 2 << 20).await;
    a.meet(&[Member { id: b.id, peer_urls: vec![url], ..Member::default() }]);
    a.network.send_snapshot(b.id, outgoing(9, &rows));
    assert!(arrived(&b).await == rows, "every row once, as it was");
    assert_eq!(breaks.load(Ordering::SeqCst), 2);
    assert_eq!(*b.double.shelf.offers.lock(), 3);
}

#[tokio::test]
async fn a_receiver_that_cannot_write_keeps_what_it_has_and_is_tried_again() {
    let (a, b) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    let rows = rows(4_000, 1_000);
    *b.double.shelf.breaks_at.lock() = Some(1_000);
    a.meet(&[b.as_member()]);
    a.network.send_snapshot(b.id, outgoing(9, &rows));
    assert!(arrived(&b).await == rows);
    assert_eq!(*b.double.shelf.offers.lock(), 2);
}

#[tokio::test]
async fn a_second_snapshot_to_the_same_member_waits_for_another_call() {
    let (a, b) = (Node::start(1, ANY).await, Node::start(2, ANY).await);
    let rows = rows(2_000, 1_000);
    a.meet(&[b.as_member()]);
    a.network.send_snapshot(b.id, outgoing(9, &rows));
    a.network.send_snapshot(b.id, outgoing(10, &rows));
    assert!(arrived(&b).await == rows);
    assert_eq!(*b.double.shelf.meta.lock(), Some(meta(9)));
}

#[tokio::test]
async fn a_snapshot_to_a_member_that_leaves_is_given_up() {
    let a = Node::start(1, ANY).await;
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let urls = vec![format!("http://{}", deaf.local_addr().unwrap())];
    a.meet(&[Member { id: MemberId(2), peer_urls: urls, ..Member::default() }]);
    a.network.send_snapshot(MemberId(2), outgoing(9, &rows(10, 10)));
    assert!(a.network.is_sending_snapshot(MemberId(2)));
    a.network.set_members(vec![a.as_member()], vec![MemberId(2)]);
    assert!(!a.network.is_sending_snapshot(MemberId(2)));
}

/// What a receiver says to these chunks.
async fn offer(node: &Node, chunks: Vec<SnapshotChunk>) -> Status {
    let dialer = Dialer { tls: Tls::default(), patience: Duration::from_secs(10) };
    let keep_alive = KeepAlive { interval: Duration::from_secs(10), timeout: Duration::from_secs(10) };
    let channel = dialer.dial(&node.url, keep_alive).await.expect("it listens");
    let hello = Hello { version: 1, cluster_id: CLUSTER.0, from: 1, to: node.id.0, lane: 1, ..Hello::default() };
    let first =
        SnapshotChunk { hello: Some(hello), header: Some(header_to_wire(&meta(9), 0)), ..SnapshotChunk::default() };
    let stream = tokio_stream::iter([first].into_iter().chain(chunks));
    let mut acks = PeerClient::new(channel).snapshot(stream).await.expect("it is let in").into_inner();
    soon("the end", async {
        loop {
            match acks.message().await {
                Ok(Some(ack)) => assert!(!ack.is_complete),
                Ok(None) => panic!("ended without a reason"),
                Err(status) => return status,
            }
        }
    })
    .await
}

fn chunk(number: u64, key: &'static str) -> SnapshotChunk {
    let row = WireRow { table: 2, key: Bytes::from_static(key.as_bytes()), value: Bytes::from_static(b"value") };
    let rows = Bytes::from(Rows { rows: vec![row] }.encode_to_vec());
    SnapshotChunk { number, crc: crc32c::crc32c(&rows), rows, ..SnapshotChunk::default() }
}

#[tokio::test]
async fn a_damaged_chunk_is_refused_and_what_came_before_it_stays() {
    let node = Node::start(2, ANY).await;
    let mut bad = chunk(2, "b");
    bad.crc ^= 1;
    let status = offer(&node, vec![chunk(1, "a"), bad]).await;
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "chunk 2 is damaged"));
    assert_eq!(node.double.shelf.rows.lock().len(), 1);
    assert!(!*node.double.shelf.is_complete.borrow());
}

#[tokio::test]
async fn a_missing_chunk_is_noticed_and_so_is_an_early_end() {
    let node = Node::start(2, ANY).await;
    let status = offer(&node, vec![chunk(1, "a"), chunk(3, "c")]).await;
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "chunk 3 came where 2 was due"));
    let status = offer(&node, vec![chunk(1, "b")]).await;
    assert_eq!(status.code(), Code::Aborted);
    assert!(!*node.double.shelf.is_complete.borrow());
}

#[tokio::test]
async fn a_row_of_a_table_that_this_version_does_not_have_ends_the_transfer() {
    let node = Node::start(2, ANY).await;
    let rows = Bytes::from(Rows { rows: vec![WireRow { table: 99, ..WireRow::default() }] }.encode_to_vec());
    let foreign = SnapshotChunk { number: 1, crc: crc32c::crc32c(&rows), rows, ..SnapshotChunk::default() };
    assert_eq!(offer(&node, vec![foreign]).await.code(), Code::InvalidArgument);
}
