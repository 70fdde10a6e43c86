//! A lock and those who want it, against a queue: whoever is at its head holds the lock, and nobody else.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Somebody new comes.
    Come,
    /// One of the queue gives its lock back, or stops waiting.
    Leave(prop::sample::Index),
    /// The lease of one of the queue ends.
    Expire(prop::sample::Index),
    /// One asks again, as a client whose connection broke.
    Repeat(prop::sample::Index),
    /// Somebody's key is deleted by somebody else.
    Delete(prop::sample::Index),
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    let some = any::<prop::sample::Index>;
    prop_oneof![
        4 => Just(Step::Come),
        2 => some().prop_map(Step::Leave),
        2 => some().prop_map(Step::Expire),
        1 => some().prop_map(Step::Repeat),
        1 => some().prop_map(Step::Delete),
        1 => Just(Step::Compact),
    ]
}

/// One who came.
struct Contender {
    lease: i64,
    /// Until it is known to hold the lock.
    calls: Vec<Call<LockResponse>>,
}

impl Contender {
    fn key(&self) -> String {
        format!("a/{:x}", self.lease)
    }
}

struct Model {
    world: World,
    queue: Vec<Contender>,
    leases: i64,
    /// What fences the last holder.
    fence: i64,
}

impl Model {
    async fn take(&mut self, step: Step) {
        let at = |index: prop::sample::Index| (!self.queue.is_empty()).then(|| index.index(self.queue.len()));
        match step {
            Step::Come => {
                self.leases += 1;
                self.world.grant(&[self.leases]).await;
                let calls = vec![self.world.wait("a", self.leases)];
                self.queue.push(Contender { lease: self.leases, calls });
            }
            Step::Leave(index) => {
                let Some(contender) = at(index).map(|at| self.queue.remove(at)) else { return };
                if contender.calls.is_empty() {
                    self.world.unlock(&contender.key()).await;
                }
                contender.calls.iter().for_each(JoinHandle::abort);
            }
            Step::Expire(index) => {
                let Some(contender) = at(index).map(|at| self.queue.remove(at)) else { return };
                self.world.revoke(contender.lease).await;
                lose(contender).await;
            }
            Step::Delete(index) => {
                let Some(contender) = at(index).map(|at| self.queue.remove(at)) else { return };
                self.world.unlock(&contender.key()).await;
                lose(contender).await;
            }
            Step::Repeat(index) => {
                let Some(at) = at(index) else { return };
                let again = self.world.wait("a", self.queue[at].lease);
                self.queue[at].calls.push(again);
            }
            Step::Compact => {
                let revision = self.world.backend.header().revision.0;
                // It may be compacted already.
                let _ = self.world.kv().compact(pb::CompactionRequest { revision, physical: true }).await;
            }
        }
    }

    /// The head of the queue gets the lock; its key was the first at the revision that it was told.
    async fn settle(&mut self) {
        let keys: Vec<_> = self.queue.iter().map(Contender::key).collect();
        self.world.queued("a", &keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let Some((head, waiting)) = self.queue.split_first_mut() else { return };
        for call in head.calls.drain(..) {
            let response = outcome(call).await;
            let at = revision(&response.as_ref().unwrap().get_ref().header);
            let (key, fence) = held(response);
            assert_eq!(key, keys[0]);
            assert!(fence >= self.fence, "{fence} comes after {}", self.fence);
            self.fence = fence;
            let then = self.world.kv().range(pb::RangeRequest { revision: at, ..range("a/", "a0") }).await;
            // A repeated call of a holder may have been told a revision that is compacted by now.
            if let Ok(then) = then {
                let first = then.into_inner().kvs.into_iter().min_by_key(|kv| kv.create_revision).unwrap();
                assert_eq!((&first.key[..], first.create_revision), (key.as_bytes(), fence));
            }
        }
        assert!(waiting.iter().flat_map(|contender| &contender.calls).all(|call| !call.is_finished()));
    }
}

async fn lose(contender: Contender) {
    for call in contender.calls {
        refused(outcome(call).await, Code::Unknown, EXPIRED);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn whoever_is_at_the_head_of_the_queue_holds_the_lock_and_nobody_else(steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut model = Model { world: world().await, queue: Vec::new(), leases: 0, fence: 0 };
            for step in steps {
                model.take(step).await;
                model.settle().await;
            }
        });
    }
}
