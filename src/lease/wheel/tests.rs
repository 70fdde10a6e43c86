use super::*;
use crate::{engine::Batch, lease::Table};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn at(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn renewed(ttl_s: i64) -> Renewal {
    Renewal::Renewed { ttl_s, reset_checkpoint: false }
}

#[test]
fn a_lease_ends_when_its_time_is_over_and_not_before() {
    let mut wheel = Wheel::default();
    wheel.insert(LeaseId(1), 10, at(0));
    assert!(wheel.expired(at(9), 10).is_empty());
    assert_eq!(wheel.remaining(LeaseId(1), at(9)), Some(at(1)));
    assert_eq!(wheel.expired(at(10), 10), [LeaseId(1)]);
}

#[test]
fn a_renewed_lease_gets_its_full_time_again() {
    let mut wheel = Wheel::default();
    wheel.insert(LeaseId(1), 10, at(0));
    assert_eq!(wheel.renew(LeaseId(1), at(9)), renewed(10));
    assert!(wheel.expired(at(18), 10).is_empty());
    assert_eq!(wheel.expired(at(19), 10), [LeaseId(1)]);
}

#[test]
fn etcd_20615_an_expired_or_revoked_lease_is_not_renewed() {
    let mut wheel = Wheel::default();
    wheel.insert(LeaseId(1), 10, at(0));
    assert_eq!(wheel.expired(at(10), 10), [LeaseId(1)]);
    assert_eq!(wheel.renew(LeaseId(1), at(10)), Renewal::Expired);
    wheel.remove(LeaseId(1));
    assert_eq!(wheel.renew(LeaseId(1), at(11)), Renewal::Unknown);
}

#[test]
fn expired_leases_come_in_bounded_chunks_and_again_if_nobody_revoked_them() {
    let mut wheel = Wheel::default();
    (1..=5).for_each(|id| wheel.insert(LeaseId(id), 10 + id, at(0)));
    assert_eq!(wheel.expired(at(100), 3), [LeaseId(1), LeaseId(2), LeaseId(3)]);
    assert_eq!(wheel.expired(at(100), 3), [LeaseId(4), LeaseId(5)]);
    assert!(wheel.expired(at(100), 3).is_empty());
    wheel.remove(LeaseId(1));
    assert_eq!(wheel.expired(at(100) + RETRY_AFTER, 9).len(), 4);
}

#[test]
fn a_reused_id_is_not_ended_by_its_former_lease() {
    let mut wheel = Wheel::default();
    wheel.insert(LeaseId(1), 10, at(0));
    wheel.remove(LeaseId(1));
    wheel.insert(LeaseId(1), 100, at(5));
    assert!(wheel.expired(at(50), 10).is_empty());
    assert_eq!(wheel.expired(at(105), 10), [LeaseId(1)]);
}

#[test]
fn a_new_leader_gives_what_the_log_says_is_left_and_an_election_on_top() {
    let (mut table, mut batch) = (Table::default(), Batch::default());
    table.grant(LeaseId(1), 600, &mut batch).expect("a free id");
    table.grant(LeaseId(2), 600, &mut batch).expect("a free id");
    table.checkpoint(LeaseId(2), 300, &mut batch);
    let mut wheel = Wheel::default();
    wheel.promote(table.terms(), at(1000), at(2));
    assert_eq!(wheel.remaining(LeaseId(1), at(1000)), Some(at(602)));
    assert_eq!(wheel.remaining(LeaseId(2), at(1000)), Some(at(302)));
    // The holder of a checkpointed lease is told of a full time only after the log agrees.
    assert_eq!(wheel.renew(LeaseId(1), at(1000)), renewed(600));
    let reset = Renewal::Renewed { ttl_s: 600, reset_checkpoint: true };
    assert_eq!(wheel.renew(LeaseId(2), at(1000)), reset);
    wheel.checkpointed(LeaseId(2), 0);
    assert_eq!(wheel.renew(LeaseId(2), at(1000)), renewed(600));
}

#[test]
fn etcd_17132_remaining_time_never_grows_over_many_changes_of_leader() {
    let (mut table, mut batch) = (Table::default(), Batch::default());
    table.grant(LeaseId(1), 3000, &mut batch).expect("a free id");
    let (mut now, mut left) = (at(0), 3000);
    for _ in 0..5 {
        let mut wheel = Wheel::default();
        wheel.promote(table.terms(), now, Duration::ZERO);
        now += CHECKPOINT_EVERY;
        for (id, remaining_s) in wheel.checkpoints(now, 10) {
            table.checkpoint(id, remaining_s, &mut batch);
            assert_eq!(remaining_s, left - CHECKPOINT_EVERY.as_secs() as i64);
            left = remaining_s;
        }
    }
    assert_eq!(left, 1500);
}

#[test]
fn a_million_leases_are_cheap_and_churn_leaves_nothing_behind() {
    let mut wheel = Wheel::default();
    for id in 0..100_000 {
        wheel.insert(LeaseId(id), 1_000_000, at(0));
        wheel.remove(LeaseId(id));
    }
    assert!(wheel.is_empty() && wheel.queue.len() <= 64 && wheel.checkpoints.len() <= 64);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(i64, i64),
    Renew(i64),
    Remove(i64),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6i64, 0..20i64).prop_map(|(id, ttl_s)| Step::Insert(id, ttl_s)),
        (0..6i64).prop_map(Step::Renew),
        (0..6i64).prop_map(Step::Remove),
        (0..8u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// The model looks at every lease each time.
    #[test]
    fn the_wheel_names_what_a_look_at_every_lease_would(steps in prop::collection::vec(steps(), 1..80)) {
        let mut wheel = Wheel::default();
        // Time to live, deadline, and when to be named at the earliest.
        let mut model: BTreeMap<LeaseId, (i64, Duration, Duration)> = BTreeMap::new();
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Insert(id, ttl_s) => {
                    wheel.insert(LeaseId(id), ttl_s, now);
                    model.insert(LeaseId(id), (ttl_s, now + seconds(ttl_s), at(0)));
                }
                Step::Renew(id) => {
                    let expected = match model.get_mut(&LeaseId(id)) {
                        None => Renewal::Unknown,
                        Some((_, deadline, _)) if *deadline <= now => Renewal::Expired,
                        Some((ttl_s, deadline, _)) => {
                            *deadline = now + seconds(*ttl_s);
                            renewed(*ttl_s)
                        }
                    };
                    prop_assert_eq!(wheel.renew(LeaseId(id), now), expected);
                }
                Step::Remove(id) => {
                    wheel.remove(LeaseId(id));
                    model.remove(&LeaseId(id));
                }
                Step::Wait(s) => now += at(s),
            }
            let mut expired = wheel.expired(now, usize::MAX);
            expired.sort();
            let mut expected = Vec::new();
            for (id, (_, deadline, named)) in &mut model {
                if *deadline <= now && *named <= now {
                    *named = now + RETRY_AFTER;
                    expected.push(*id);
                }
            }
            prop_assert_eq!(expired, expected);
            prop_assert_eq!(wheel.len(), model.len());
        }
    }
}
