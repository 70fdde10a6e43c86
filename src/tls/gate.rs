//! Handshakes under way: bounded, and none can hold up the others for long.
//!
//! When all places are taken, the handshake that has taken longest gives way, if it has had time enough to be done. So a thousand
//! half-open connections are cut one by one as others come, while honest ones that all come at once (a member has restarted) wait for
//! each other instead of being cut.

use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

/// Handshakes that may be under way.
const TURNS_MAX: usize = 1_024;
/// What each may take, however many wait.
const GRACE: Duration = Duration::from_secs(2);

/// Counts handshakes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Gate(Arc<Shared>);

struct Shared {
    turns_max: usize,
    grace: Duration,
    turns: Mutex<Turns>,
    left: Notify,
}

#[derive(Default)]
struct Turns {
    next: u64,
    /// By age: since when, and what ends it when it goes.
    taken: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
}

/// The right to shake hands, until it is dropped or taken away.
pub struct Turn {
    gate: Gate,
    number: u64,
    taken_away: oneshot::Receiver<()>,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::of(TURNS_MAX, GRACE)
    }
}

impl Gate {
    fn of(turns_max: usize, grace: Duration) -> Gate {
        Gate(Arc::new(Shared { turns_max, grace, turns: Mutex::default(), left: Notify::new() }))
    }

    /// Waits for a turn: not at all while there is room.
    pub(super) async fn enter(&self) -> Turn {
        loop {
            let left = self.0.left.notified();
            let until = match self.try_enter() {
                Ok(turn) => return turn,
                Err(until) => until,
            };
            tokio::select! {
                () = left => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// A turn, or when the oldest may be taken away.
    fn try_enter(&self) -> Result<Turn, Instant> {
        let mut turns = self.0.turns.lock();
        if turns.taken.len() >= self.0.turns_max
            && let Some(oldest) = turns.taken.first_entry()
        {
            let until = oldest.get().0 + self.0.grace;
            if Instant::now() < until {
                return Err(until);
            }
            oldest.remove();
        }
        let (ends, taken_away) = oneshot::channel();
        let number = turns.next;
        turns.next += 1;
        turns.taken.insert(number, (Instant::now(), ends));
        Ok(Turn { gate: self.clone(), number, taken_away })
    }
}

impl Turn {
    /// Waits until it is taken away.
    pub(super) async fn taken_away(&mut self) {
        // Nothing is ever sent: the sender goes.
        let _ = (&mut self.taken_away).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.gate.0.turns.lock().taken.remove(&self.number);
        self.gate.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    async fn full(most: usize) -> (Gate, Vec<Turn>) {
        let gate = Gate::of(most, SHORT);
        let mut turns = Vec::new();
        for _ in 0..most {
            turns.push(gate.enter().await);
        }
        (gate, turns)
    }

    #[tokio::test]
    async fn the_oldest_gives_way_but_not_before_it_had_its_time() {
        let began = Instant::now();
        let (gate, mut turns) = full(3).await;
        let _late = gate.enter().await;
        assert!(began.elapsed() >= SHORT, "it came too early");
        turns[0].taken_away().await;
        for turn in &mut turns[1..] {
            assert_eq!(turn.taken_away.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        }
    }

    #[tokio::test]
    async fn who_is_done_makes_room_at_once() {
        let began = Instant::now();
        let (gate, mut turns) = full(3).await;
        let waiting = tokio::spawn(async move { gate.enter().await });
        tokio::task::yield_now().await;
        turns.pop();
        waiting.await.unwrap();
        assert!(began.elapsed() < SHORT, "{:?}", began.elapsed());
    }
}
