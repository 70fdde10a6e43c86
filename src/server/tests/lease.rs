//! Leases, as a client sees them.

use super::*;
use pb::lease_client::LeaseClient;
use tonic::metadata::MetadataValue;

fn leases(world: &World) -> LeaseClient<Channel> {
    LeaseClient::new(world.channel.clone())
}

async fn grant(world: &World, id: i64, ttl: i64) -> Result<pb::LeaseGrantResponse, tonic::Status> {
    Ok(leases(world).lease_grant(pb::LeaseGrantRequest { id, ttl }).await?.into_inner())
}

async fn left(world: &World, id: i64) -> pb::LeaseTimeToLiveResponse {
    leases(world).lease_time_to_live(pb::LeaseTimeToLiveRequest { id, keys: true }).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_lease_lives_with_its_keys() {
    let world = world().await;
    let granted = grant(&world, 7, 60).await.unwrap();
    assert_eq!((granted.id, granted.ttl), (7, 60));
    let chosen = grant(&world, 0, 1).await.unwrap();
    assert!(chosen.id > 0 && chosen.ttl == 2, "{chosen:?}");
    refused(grant(&world, 7, 60).await, Code::FailedPrecondition, "etcdserver: lease already exists");
    refused(grant(&world, 8, 9_000_000_001).await, Code::OutOfRange, "etcdserver: too large lease TTL");

    world.kv().put(pb::PutRequest { lease: 7, ..put("b", "") }).await.unwrap();
    world.kv().put(pb::PutRequest { lease: 7, ..put("a", "") }).await.unwrap();
    let reply = left(&world, 7).await;
    assert_eq!((reply.granted_ttl, reply.keys), (60, vec![b("a"), b("b")]));
    let listed = leases(&world).lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [7, chosen.id]);

    let revoked = leases(&world).lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await.unwrap().into_inner();
    assert_eq!(revision(&revoked.header), 4, "all its keys in one revision");
    assert_eq!(world.kv().range(range("a", "z")).await.unwrap().into_inner().count, 0);
    let again = leases(&world).lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await;
    refused(again, Code::NotFound, "etcdserver: requested lease not found");
    let gone = left(&world, 7).await;
    assert_eq!((gone.id, gone.ttl, gone.granted_ttl), (7, -1, 0), "an unknown lease is no error");
}

#[tokio::test]
async fn a_lease_is_kept_alive_over_a_stream() {
    let world = world().await;
    grant(&world, 7, 60).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = leases(&world).lease_keep_alive(requests).await.unwrap().into_inner();
    for (id, ttl) in [(7, 60), (8, 0), (7, 60)] {
        sender.send(pb::LeaseKeepAliveRequest { id }).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl, revision(&answer.header)), (id, ttl, 1));
    }
    drop(sender);
    assert!(answers.message().await.unwrap().is_none(), "the stream ends with its requests");
}

#[tokio::test]
async fn a_stream_that_insists_on_a_leader_ends_without_one() {
    let settings = Settings { leaderless_max: Duration::from_millis(50), ..Settings::default() };
    let world = world_with(settings).await;
    let open = |insists: bool| {
        let mut request = tonic::Request::new(tokio_stream::pending());
        if insists {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        let mut client = leases(&world);
        async move { client.lease_keep_alive(request).await }
    };
    let mut insisting = open(true).await.unwrap().into_inner();
    let mut easy = open(false).await.unwrap().into_inner();
    world.backend.set_leader(None);
    refused(insisting.message().await, Code::Unavailable, "etcdserver: no leader");
    refused(open(true).await, Code::Unavailable, "etcdserver: no leader");

    // The other one lives until the member stops, and through a proxy longer.
    assert!(tokio::time::timeout(Duration::from_millis(100), easy.message()).await.is_err());
    if world.is_via() {
        return;
    }
    world.backend.set_stopping();
    refused(easy.message().await, Code::Unavailable, "etcdserver: server stopped");
}
