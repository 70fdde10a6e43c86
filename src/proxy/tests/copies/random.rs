//! Random lives of an upstream, and what copies of it say meanwhile.

use super::*;
use rand::{RngExt, SeedableRng};

/// One step of a random life of upstream.
async fn live(world: &World, wire: &Wire, random: &mut impl rand::RngExt) {
    let key = |random: &mut _| {
        let room = ["jobs/", "jobs/", "other/"][rand::RngExt::random_range(random, 0..3)];
        b(&format!("{room}{}", rand::RngExt::random_range(random, 0..6)))
    };
    match random.random_range(0..20) {
        0..8 => {
            let value = b(&random.random_range(0..1_000).to_string());
            kv(world).put(pb::PutRequest { key: key(random), value, ..Default::default() }).await.map(drop).unwrap();
        }
        8..11 => {
            let key = key(random);
            kv(world).delete_range(pb::DeleteRangeRequest { key, ..Default::default() }).await.map(drop).unwrap();
        }
        11..14 => {
            let mut keys: Vec<Bytes> = (0..4).map(|_| key(random)).collect();
            keys.sort();
            keys.dedup();
            let op = |key| {
                let put = pb::PutRequest { key, value: b("txn"), ..Default::default() };
                pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
            };
            let success = keys.into_iter().map(op).collect();
            kv(world).txn(pb::TxnRequest { success, ..Default::default() }).await.map(drop).unwrap();
        }
        14..16 => wire.cut(),
        16..19 => wire.lead_to(world),
        _ => {
            let now = kv(world).range(range("x", "")).await.unwrap().into_inner().header.unwrap().revision;
            let at = now - random.random_range(0..5);
            let request = pb::CompactionRequest { revision: at, physical: true };
            let _ = kv(world).compact(request).await; // compacted already
        }
    }
}

#[tokio::test]
async fn whatever_happens_upstream_answers_are_upstreams() {
    for seed in 0..3 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let world = world().await;
        let wire = Wire::to(&world).await;
        let mut settings = settings();
        settings.wait_max = Duration::from_secs(20);
        (settings.rules.keep.revisions, settings.rules.pauses.pause_max) = (20, Duration::from_millis(50));
        let copies = Copies::start(wire.source(), settings);
        let (mut seen, mut answered) = (0, 0);
        for step in 0..250 {
            live(&world, &wire, &mut random).await;
            if step % 5 > 0 {
                continue;
            }
            wire.lead_to(&world);
            let copy = covered(&copies).await;
            let past = random.random_range(0..4) == 0;
            let revision = if past { copy.revision().0 - random.random_range(0..6) } else { 0 };
            let limit = random.random_range(0..4);
            let request = pb::RangeRequest { revision, limit, ..range("jobs/", "jobs0") };
            let Some(here) = copies.range(&MetadataMap::new(), request.clone()).await else { continue };
            // Cut in the middle of a fence: no answer is no wrong answer.
            let Ok(here) = here else { continue };
            let there = kv(&world).range(request).await.map(tonic::Response::into_inner);
            assert_eq!(Ok(here.get_ref()), there.as_ref().map_err(|status| status.code()), "seed {seed}, step {step}");
            let revision = here.get_ref().header.unwrap().revision;
            assert!(revision >= seen, "seed {seed}, step {step}");
            (seen, answered) = (revision, answered + 1);
        }
        assert!(answered > 25, "seed {seed}: only {answered}");
    }
}
