//! What waits to be sent to one peer, bounded in messages and bytes.

use crate::{
    raft::Body,
    replica::{Answer, Forwarded, PeerMessage, Question},
};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tokio_stream::Stream;

/// Bytes from which on a batch takes no further message; a larger message travels alone.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// Bounds of a queue; past either of them new messages are dropped. One message is always taken by an empty queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
}

/// Messages in the order of their coming, for one reader at a time.
pub(super) struct Queue {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<PeerMessage>,
    /// Of all that waits.
    bytes: usize,
    /// Messages that had no room, or waited for a connection that did not come about.
    dropped: u64,
    /// The number of the last [`Reader`]. One with a lower number has ended.
    reader: u64,
    /// Whether that reader may read already.
    is_open: bool,
    waker: Option<Waker>,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Queue {
        Queue { bounds, state: Mutex::default() }
    }

    /// Adds as many messages as there is room for.
    pub(super) fn push(&self, messages: impl Iterator<Item = PeerMessage>) {
        let waker = {
            let mut state = self.state.lock();
            for message in messages {
                let bytes = weight(&message);
                let fits = state.waiting.len() < self.bounds.messages_max
                    && state.bytes.saturating_add(bytes) <= self.bounds.bytes_max;
                if fits || state.waiting.is_empty() {
                    state.bytes += bytes;
                    state.waiting.push_back(message);
                } else {
                    state.dropped += 1;
                }
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops everything that waits: there is nobody to send it to, and by the time that there is it will be stale.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        state.dropped += state.waiting.len() as u64;
        state.waiting.clear();
        state.bytes = 0;
    }

    /// How many messages were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.state.lock().dropped
    }

    /// Everything that waits and will, in batches, from [`Queue::open`] on. Ends the reader before it, so that no batch goes to a dead
    /// connection's.
    pub(super) fn reader(self: &Arc<Queue>) -> Reader {
        let (number, waker) = {
            let mut state = self.state.lock();
            state.reader += 1;
            state.is_open = false;
            (state.reader, state.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Reader { queue: Arc::clone(self), number }
    }

    /// Lets the last reader read: the other side listens.
    pub(super) fn open(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.is_open = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The way out of a [`Queue`]. Whatever has come in while one batch was on its way is the next one.
pub(super) struct Reader {
    queue: Arc<Queue>,
    number: u64,
}

impl Stream for Reader {
    type Item = Vec<PeerMessage>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Vec<PeerMessage>>> {
        let mut state = self.queue.state.lock();
        if state.reader != self.number {
            return Poll::Ready(None);
        }
        if state.waiting.is_empty() || !state.is_open {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(message) = state.waiting.pop_front() {
            let weight = weight(&message);
            if !batch.is_empty() && bytes + weight > BATCH_BYTES {
                state.waiting.push_front(message);
                break;
            }
            bytes += weight;
            batch.push(message);
        }
        state.bytes -= bytes;
        Poll::Ready(Some(batch))
    }
}

/// Whether the message is small and impatient. All appends, also empty ones, stay in one lane: one that overtakes another is refused.
pub(super) fn is_urgent(message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Raft(message) => !matches!(message.body, Body::Append { .. }),
        PeerMessage::Forward { .. } => false,
        PeerMessage::Returned { .. }
        | PeerMessage::Ask { .. }
        | PeerMessage::Answer { .. }
        | PeerMessage::Refill
        | PeerMessage::Standbys(_)
        | PeerMessage::Hash { .. } => true,
    }
}

/// About how many bytes a message has on the wire and in memory. The same for the same message.
fn weight(message: &PeerMessage) -> usize {
    const BASE: usize = 64;
    BASE + match message {
        PeerMessage::Raft(message) => match &message.body {
            Body::Append { entries, .. } => entries.iter().map(|entry| BASE + entry.data.len()).sum(),
            _ => 0,
        },
        PeerMessage::Forward { proposals, .. } => proposals.iter().map(proposal_weight).sum(),
        PeerMessage::Returned { ids, .. } => 8 * ids.len(),
        PeerMessage::Ask { question: Question::Renew(ids) | Question::Remaining(ids), .. } => 8 * ids.len(),
        PeerMessage::Answer { answer: Answer::Seconds(seconds), .. } => 16 * seconds.len(),
        PeerMessage::Standbys(standbys) => standbys.iter().map(|standby| BASE + standby.peer_url.len()).sum(),
        PeerMessage::Ask { .. } | PeerMessage::Answer { .. } | PeerMessage::Refill | PeerMessage::Hash { .. } => 0,
    }
}

fn proposal_weight(proposal: &Forwarded) -> usize {
    64 + proposal.data.len()
}

/// Proposals in portions of about a batch: nothing but their number bounds what a follower forwards at once, and a message must not
/// be larger than its receiver takes.
pub(super) fn portions(message: PeerMessage) -> Vec<PeerMessage> {
    let PeerMessage::Forward { term, proposals } = message else { return vec![message] };
    let (mut portions, mut portion, mut bytes) = (Vec::new(), Vec::new(), 0);
    for proposal in proposals {
        let weight = proposal_weight(&proposal);
        if !portion.is_empty() && bytes + weight > BATCH_BYTES {
            portions.push(PeerMessage::Forward { term, proposals: std::mem::take(&mut portion) });
            bytes = 0;
        }
        bytes += weight;
        portion.push(proposal);
    }
    if !portion.is_empty() {
        portions.push(PeerMessage::Forward { term, proposals: portion });
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine::RequestId,
        types::{EntryKind, Index, Term},
    };
    use bytes::Bytes;
    use tokio_stream::StreamExt;

    fn hash(number: u64) -> PeerMessage {
        PeerMessage::Hash { index: Index(number), hash: number }
    }

    fn proposal(id: u64, bytes: usize) -> Forwarded {
        Forwarded { id: RequestId(id), kind: EntryKind::Normal, data: Bytes::from(vec![0; bytes]) }
    }

    fn forward(bytes: usize) -> PeerMessage {
        PeerMessage::Forward { term: Term(1), proposals: vec![proposal(1, bytes)] }
    }

    fn queue(messages_max: usize, bytes_max: usize) -> Arc<Queue> {
        Arc::new(Queue::new(Bounds { messages_max, bytes_max }))
    }

    #[tokio::test]
    async fn everything_that_waits_is_one_batch() {
        let queue = queue(100, 1 << 20);
        queue.push((0..10).map(hash));
        let mut reader = queue.reader();
        queue.open();
        assert_eq!(reader.next().await, Some((0..10).map(hash).collect()));
    }

    #[tokio::test]
    async fn a_batch_ends_at_a_mebibyte_but_a_larger_message_travels() {
        let queue = queue(100, 100 << 20);
        let sizes = [600 << 10, 600 << 10, 3 << 20, 1];
        queue.push(sizes.into_iter().map(forward));
        let mut reader = queue.reader();
        queue.open();
        for expected in [1, 1, 1, 1] {
            assert_eq!(reader.next().await.map(|batch| batch.len()), Some(expected));
        }
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted() {
        let by_count = queue(3, usize::MAX);
        by_count.push((0..5).map(hash));
        assert_eq!(by_count.dropped(), 2);
        let by_bytes = queue(100, 1000);
        by_bytes.push((0..3).map(|_| forward(5000)));
        assert_eq!(by_bytes.dropped(), 2, "one is always taken");
        by_bytes.clear();
        assert_eq!(by_bytes.dropped(), 3);
        by_bytes.push(std::iter::once(hash(1)));
        assert_eq!(by_bytes.dropped(), 3, "there is room again");
    }

    #[tokio::test]
    async fn a_new_reader_ends_the_one_before_and_waits_until_somebody_listens() {
        let queue = queue(100, 1 << 20);
        let mut old = queue.reader();
        let ended = tokio::spawn(async move { old.next().await });
        tokio::task::yield_now().await;
        let mut new = queue.reader();
        assert_eq!(ended.await.unwrap(), None);
        queue.push(std::iter::once(hash(1)));
        let read = tokio::spawn(async move { new.next().await });
        tokio::task::yield_now().await;
        assert!(!read.is_finished(), "nobody listens yet");
        queue.open();
        assert_eq!(read.await.unwrap(), Some(vec![hash(1)]));
    }

    #[test]
    fn a_large_forward_is_cut_into_portions_without_loss() {
        let proposals = (0..40).map(|id| proposal(id, 100 << 10)).collect::<Vec<_>>();
        let portions = portions(PeerMessage::Forward { term: Term(7), proposals: proposals.clone() });
        assert!(portions.len() > 3 && portions.iter().all(|portion| weight(portion) <= BATCH_BYTES + 64));
        let back = portions.into_iter().flat_map(|portion| match portion {
            PeerMessage::Forward { term: Term(7), proposals } => proposals,
            other => panic!("not a proposal: {other:?}"),
        });
        assert_eq!(back.collect::<Vec<_>>(), proposals);
    }
}
