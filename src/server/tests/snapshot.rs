//! The snapshot stream.

use super::*;
use crate::backup;
use pb::maintenance_client::MaintenanceClient;
use sha2::{Digest, Sha256};

async fn snapshot(world: &World) -> tonic::Streaming<pb::SnapshotResponse> {
    let mut client = MaintenanceClient::new(world.channel.clone());
    client.snapshot(pb::SnapshotRequest {}).await.expect("a stream").into_inner()
}

fn names(dir: &std::path::Path) -> usize {
    std::fs::read_dir(dir).expect("a folder").count()
}

#[tokio::test]
async fn a_snapshot_is_sent_in_chunks_with_its_hash_at_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world_with(Settings { spool_dir: dir.path().to_owned(), ..Settings::default() }).await;
    for number in 0..20 {
        world.put(&format!("key{number}"), &"v".repeat(10_000)).await;
    }
    let mut stream = snapshot(&world).await;
    let (mut bytes, mut remaining) = (Vec::new(), Vec::new());
    while let Some(chunk) = stream.message().await.expect("a chunk") {
        assert_eq!((&chunk.version[..], revision(&chunk.header)), ("3.7.0", 21));
        bytes.extend_from_slice(&chunk.blob);
        remaining.push((chunk.blob.len(), chunk.remaining_bytes));
    }
    let data_bytes = bytes.len() - 32;
    assert_eq!(remaining[0], (32 << 10, data_bytes as u64 - (32 << 10)));
    assert_eq!(remaining[remaining.len() - 1], (32, 0));
    assert_eq!(Sha256::digest(&bytes[..data_bytes])[..], bytes[data_bytes..]);
    let file = dir.path().join("snapshot.db");
    std::fs::write(&file, &bytes).expect("room");
    let status = backup::status(&file).expect("a sound file");
    assert_eq!((status.revision, status.total_keys, status.total_bytes), (21, 20, data_bytes as u64));
}

#[tokio::test]
async fn a_client_that_goes_leaves_nothing_and_makes_room_for_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world_with(Settings { spool_dir: dir.path().to_owned(), ..Settings::default() }).await;
    for number in 0..100 {
        world.put(&format!("key{number}"), &"v".repeat(100_000)).await;
    }
    let mut streams = Vec::new();
    for _ in 0..4 {
        // Each over a connection of its own, whose window fills up.
        let channel = Channel::from_shared(world.url.clone()).expect("a URL").connect().await.expect("a port");
        let mut stream =
            MaintenanceClient::new(channel).snapshot(pb::SnapshotRequest {}).await.expect("a stream").into_inner();
        stream.message().await.expect("a chunk").expect("a first one");
        streams.push(stream);
    }
    let mut client = MaintenanceClient::new(world.channel.clone());
    let fifth = client.snapshot(pb::SnapshotRequest {}).await;
    refused(fifth.map(drop), Code::ResourceExhausted, "etcdserver: too many requests");
    assert_eq!(names(dir.path()), 0, "the files have no names");
    drop(streams);
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while client.snapshot(pb::SnapshotRequest {}).await.is_err() {
        assert!(tokio::time::Instant::now() < patience, "the room is not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_disk_without_room_is_told_and_harms_nobody() {
    let spool_dir = std::path::PathBuf::from("/nonexistent/henge");
    let world = world_with(Settings { spool_dir, ..Settings::default() }).await;
    let status = snapshot(&world).await.message().await.expect_err("no folder");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("no room to make the snapshot: /nonexistent/henge"), "{}", status.message());
    world.put("k", "v").await;
}
