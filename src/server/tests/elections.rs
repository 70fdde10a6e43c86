//! Elections, as a client sees them.

use super::{
    locks::{Call, outcome},
    *,
};
use crate::pb::{
    mvccpb::KeyValue,
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
        election_client::ElectionClient,
    },
};
use tonic::{Status, Streaming};

impl World {
    pub(super) fn elections(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.channel.clone())
    }

    async fn campaign(&self, lease: i64, value: &str) -> LeaderKey {
        won(outcome(self.stand(lease, value)).await)
    }

    /// One that waits to be elected.
    fn stand(&self, lease: i64, value: &str) -> Call<CampaignResponse> {
        let (mut elections, request) = (self.elections(), CampaignRequest { name: b("e"), lease, value: b(value) });
        tokio::spawn(async move { elections.campaign(request).await })
    }

    async fn proclaim(&self, leader: &LeaderKey, value: &str) -> Result<i64, Status> {
        let request = ProclaimRequest { leader: Some(leader.clone()), value: b(value) };
        Ok(revision(&self.elections().proclaim(request).await?.into_inner().header))
    }

    async fn resign(&self, leader: &LeaderKey) -> i64 {
        let request = ResignRequest { leader: Some(leader.clone()) };
        revision(&self.elections().resign(request).await.unwrap().into_inner().header)
    }

    async fn leader(&self) -> KeyValue {
        self.elections().leader(LeaderRequest { name: b("e") }).await.unwrap().into_inner().kv.unwrap()
    }

    pub(super) async fn observe(&self) -> Streaming<LeaderResponse> {
        self.elections().observe(LeaderRequest { name: b("e") }).await.unwrap().into_inner()
    }
}

fn won(response: Result<tonic::Response<CampaignResponse>, Status>) -> LeaderKey {
    response.unwrap().into_inner().leader.unwrap()
}

/// What an observer is told next: the value, and the revision in the header.
pub(super) async fn told(observed: &mut Streaming<LeaderResponse>) -> (String, i64) {
    let next = tokio::time::timeout(Duration::from_secs(30), observed.message());
    let reply = next.await.expect("in time").unwrap().expect("the stream goes on");
    (String::from_utf8(reply.kv.unwrap().value.into()).unwrap(), revision(&reply.header))
}

fn value(kv: &KeyValue) -> &str {
    std::str::from_utf8(&kv.value).unwrap()
}

#[tokio::test]
async fn a_leader_is_elected_proclaims_and_resigns() {
    let world = world().await;
    world.grant(&[1, 2]).await;
    let nobody = world.elections().leader(LeaderRequest { name: b("e") }).await;
    refused(nobody, Code::Unknown, "election: no leader");
    let one = world.campaign(1, "one").await;
    assert_eq!(one, LeaderKey { name: b("e"), key: b("e/1"), rev: 2, lease: 1 });
    let two = world.stand(2, "two");
    world.queued("e", &["e/1", "e/2"]).await;
    assert_eq!(world.proclaim(&one, "still one").await.unwrap(), 4);
    let leader = world.leader().await;
    assert_eq!((value(&leader), leader.lease, leader.create_revision), ("still one", 1, 2));
    assert!(!two.is_finished(), "to proclaim is not to resign");

    assert_eq!(world.resign(&one).await, 5);
    let two = won(outcome(two).await);
    assert_eq!((&two.key[..], two.rev), (&b"e/2"[..], 3));
    assert_eq!(value(&world.leader().await), "two");
}

#[tokio::test]
async fn who_stands_again_proclaims() {
    let world = world().await;
    world.grant(&[1]).await;
    let one = world.campaign(1, "one").await;
    assert_eq!(world.campaign(1, "one").await, one);
    assert_eq!(world.leader().await.version, 1, "the same value is no news");
    assert_eq!(world.campaign(1, "other").await, one);
    let leader = world.leader().await;
    assert_eq!((value(&leader), leader.version, leader.lease), ("other", 2, 1));
}

#[tokio::test]
async fn an_old_leader_has_nothing_to_say() {
    let world = world().await;
    world.grant(&[1, 2]).await;
    let old = world.campaign(1, "old").await;
    world.resign(&old).await;
    let again = world.campaign(1, "new").await;
    assert_eq!(again.key, old.key, "the same key, of another time");
    refused(world.proclaim(&old, "x").await, Code::Unknown, "election: not leader");
    assert_eq!(world.resign(&old).await, 4, "which changes nothing");
    assert_eq!(value(&world.leader().await), "new");

    let gone = LeaderKey { rev: 0, key: b("e/none"), ..old.clone() };
    refused(world.proclaim(&gone, "x").await, Code::Unknown, "election: not leader");
    assert_eq!(world.queue("e").await, ["e/1"]);
    let none = LeaderKey { key: Bytes::new(), ..old };
    refused(world.proclaim(&none, "x").await, Code::InvalidArgument, "etcdserver: key is not provided");
    let text = "\"leader\" field must be provided";
    refused(world.elections().proclaim(ProclaimRequest::default()).await, Code::Unknown, text);
    refused(world.elections().resign(ResignRequest::default()).await, Code::Unknown, text);
}

#[tokio::test]
async fn a_leader_that_names_no_lease_keeps_its_own() {
    let world = world().await;
    let leader = world.campaign(0, "a").await;
    assert!(leader.lease > 0 && world.leases().await == [leader.lease], "{leader:?}");
    world.proclaim(&LeaderKey { lease: 0, ..leader.clone() }, "b").await.unwrap();
    let kv = world.leader().await;
    assert_eq!((value(&kv), kv.lease), ("b", leader.lease));
    assert_eq!(world.leases().await, [leader.lease]);
}

#[tokio::test]
async fn a_candidate_whose_lease_ends_is_not_elected() {
    let world = world().await;
    world.grant(&[1, 2]).await;
    refused(outcome(world.stand(7, "x")).await, Code::NotFound, "etcdserver: requested lease not found");
    world.campaign(1, "one").await;
    let two = world.stand(2, "two");
    world.queued("e", &["e/1", "e/2"]).await;
    world.revoke(2).await;
    refused(outcome(two).await, Code::Unknown, "election: not leader");
}

#[tokio::test]
async fn a_candidate_that_goes_away_does_not_stand_any_more() {
    let world = world().await;
    world.grant(&[1, 2]).await;
    world.campaign(1, "one").await;
    let two = world.stand(2, "two");
    world.queued("e", &["e/1", "e/2"]).await;
    two.abort();
    world.queued("e", &["e/1"]).await;
    assert_eq!(world.leases().await, [1, 2], "its lease may hold other things");
}

#[tokio::test]
async fn observers_hear_of_each_leader_and_what_it_proclaims() {
    let world = world().await;
    world.grant(&[1, 2]).await;
    let mut early = world.observe().await;
    let one = world.campaign(1, "one").await;
    assert_eq!(told(&mut early).await, ("one".to_owned(), 2));
    let mut late = world.observe().await;
    assert_eq!(told(&mut late).await, ("one".to_owned(), 2));
    let two = world.stand(2, "two");
    world.queued("e", &["e/1", "e/2"]).await;
    world.proclaim(&one, "more").await.unwrap();
    for observed in [&mut early, &mut late] {
        assert_eq!(told(observed).await, ("more".to_owned(), 4), "and not of who waits");
    }
    world.revoke(1).await;
    let two = won(outcome(two).await);
    for observed in [&mut early, &mut late] {
        assert_eq!(told(observed).await.0, "two");
    }
    world.resign(&two).await;
    world.put("other", "").await;
    world.grant(&[3]).await;
    world.campaign(3, "three").await;
    assert_eq!(told(&mut early).await, ("three".to_owned(), 8));
}

#[tokio::test]
async fn an_observer_that_was_left_behind_by_a_compaction_hears_of_the_last_leader() {
    // Little fits in the hub's queue, so what is not read has to come from history.
    let options = crate::watch::Options { stream_bytes_max: 1 << 10, ..Default::default() };
    let world = world_of(TestBackend::with_hub(options), Settings::default()).await;
    world.grant(&[1, 2]).await;
    let one = world.campaign(1, "one").await;
    let mut observed = world.observe().await;
    assert_eq!(told(&mut observed).await.0, "one");
    let large = "x".repeat(1 << 20);
    let mut revision = 0;
    // More than the connection's windows and buffers hold.
    for _ in 0..16 {
        revision = world.proclaim(&one, &large).await.unwrap();
    }
    world.kv().compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
    world.resign(&one).await;
    world.campaign(2, "two").await;
    let mut heard = 0;
    while told(&mut observed).await.0 != "two" {
        heard += 1;
    }
    assert!(heard < 16, "some of it was compacted");
}

#[tokio::test]
async fn observing_ends_with_the_member_and_without_a_leader() {
    let world = world_with(Settings { leaderless_max: Duration::from_millis(50), ..Settings::default() }).await;
    let mut insists = tonic::Request::new(LeaderRequest { name: b("e") });
    insists.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let mut insisting = world.elections().observe(insists).await.unwrap().into_inner();
    let mut observed = world.observe().await;
    world.backend.set_leader(None);
    refused(insisting.message().await, Code::Unavailable, "etcdserver: no leader");
    world.backend.set_leader(Some(ME));
    world.backend.set_stopping();
    refused(observed.message().await, Code::Unavailable, "etcdserver: server stopped");
}
