//! One follower as the leader sees it.

use crate::types::Index;
use std::collections::VecDeque;

/// How a follower is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Where its log and ours part is not known: one append a heartbeat, until one is accepted.
    Probe,
    /// Appends are streamed without waiting for answers.
    Replicate,
    /// It lacks entries that are no longer in the log. Nothing is sent but heartbeats, until it has a snapshot.
    NeedsSnapshot,
}

/// One follower. Invariant: `matched < next`.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Known to be on the follower's disk.
    pub(super) matched: Index,
    /// The next entry to send.
    pub(super) next: Index,
    pub(super) phase: Phase,
    /// Probing, and the probe is on its way.
    pub(super) paused: bool,
    /// Has answered since the last check of the quorum.
    pub(super) active: bool,
    /// Latest heartbeat round that it has answered.
    pub(super) round: u64,
    /// The latest round of due heartbeats that it has answered, and as the how manieth.
    pub(super) due_answered: (u64, u32),
    /// The commit index of the latest append.
    pub(super) told_commit: Index,
    pub(super) inflight: Inflight,
    /// Most appends on the way, for now: one after a refusal, then twice as many after each answer that brings news.
    ///
    /// A lost append is answered by a refusal of each that followed it. Where messages overtake each other, such a refusal may come
    /// when streaming has begun again, ends it once more, and is followed by an old acceptance that begins it again: if each time a
    /// whole window went out, the answers to that would do the same, and there would be ever more of them.
    window: usize,
}

impl Progress {
    /// A follower of whom nothing is known yet, in a log that ends before `next`.
    pub(super) fn new(next: Index) -> Progress {
        Progress {
            matched: Index(0),
            next,
            phase: Phase::Probe,
            paused: false,
            // A new leader gives everyone one election timeout to answer.
            active: true,
            round: 0,
            due_answered: (0, 0),
            told_commit: Index(0),
            inflight: Inflight::default(),
            window: usize::MAX,
        }
    }

    /// The follower has everything up to `matched`. False if that is no news.
    pub(super) fn accepted(&mut self, matched: Index) -> bool {
        self.inflight.acknowledge(matched);
        let news = matched > self.matched;
        if news {
            self.matched = matched;
            self.next = self.next.max(matched.next());
            self.window = self.window.saturating_mul(2);
        }
        // Also without news: a probe of a follower that lacks nothing is answered with what is known.
        if self.phase == Phase::Probe && matched >= self.matched {
            self.phase = Phase::Replicate;
            self.next = self.matched.next();
            self.inflight.clear();
        }
        self.paused = false;
        news
    }

    /// The append after `prev` was refused, and the logs may agree up to `agreed` at most. False if this is old news.
    pub(super) fn rejected(&mut self, prev: Index, agreed: Index) -> bool {
        let stale = match self.phase {
            Phase::Replicate => prev <= self.matched || prev >= self.next,
            Phase::Probe => prev.next() != self.next || prev <= self.matched,
            Phase::NeedsSnapshot => true,
        };
        if stale {
            return false;
        }
        self.window = 1;
        let floor = self.matched.next();
        self.probe_from(agreed.next().min(prev).max(floor));
        true
    }

    /// Starts over with one append at a time.
    pub(super) fn probe_from(&mut self, next: Index) {
        self.phase = Phase::Probe;
        self.next = next;
        self.paused = false;
        self.inflight.clear();
    }

    /// Whether an append may be sent now.
    pub(super) fn may_send(&self, messages_max: usize, bytes_max: usize) -> bool {
        match self.phase {
            Phase::Probe => !self.paused,
            Phase::Replicate => !self.inflight.is_full(messages_max.min(self.window), bytes_max),
            Phase::NeedsSnapshot => false,
        }
    }

    /// An append with entries up to `last` is on its way.
    pub(super) fn sent(&mut self, last: Index, bytes: usize) {
        match self.phase {
            Phase::Replicate => {
                self.next = last.next();
                self.inflight.add(last, bytes);
            }
            Phase::Probe => self.paused = true,
            Phase::NeedsSnapshot => unreachable!("nothing is sent to a follower that needs a snapshot"),
        }
    }
}

/// Appends on their way to one follower, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Inflight {
    sent: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Inflight {
    fn add(&mut self, last: Index, bytes: usize) {
        self.sent.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// An acknowledgement stands for all appends before it.
    fn acknowledge(&mut self, matched: Index) {
        while let Some(&(last, bytes)) = self.sent.front()
            && last <= matched
        {
            self.sent.pop_front();
            self.bytes -= bytes;
        }
    }

    fn clear(&mut self) {
        self.sent.clear();
        self.bytes = 0;
    }

    fn is_full(&self, messages_max: usize, bytes_max: usize) -> bool {
        self.sent.len() >= messages_max || self.bytes >= bytes_max
    }

    pub(super) fn messages(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_full_by_messages_or_by_bytes_and_an_acknowledgement_frees_all_before_it() {
        let mut progress = Progress::new(Index(1));
        assert!(!progress.accepted(Index(0)), "no news, but it ends the probing");
        assert_eq!(progress.phase, Phase::Replicate);
        progress.sent(Index(3), 10);
        progress.sent(Index(4), 90);
        assert!(!progress.may_send(2, 1_000) && !progress.may_send(9, 100) && progress.may_send(9, 1_000));
        assert!(progress.accepted(Index(3)));
        assert_eq!((progress.inflight.messages(), progress.inflight.bytes()), (1, 90));
        assert_eq!((progress.matched, progress.next), (Index(3), Index(5)));
    }

    #[test]
    fn after_a_refusal_the_window_is_one_and_grows_with_news_alone() {
        let mut progress = Progress::new(Index(10));
        assert!(progress.rejected(Index(9), Index(4)));
        assert!(progress.accepted(Index(5)), "the probe is answered");
        progress.sent(Index(6), 1);
        assert!(progress.may_send(9, 100), "that was news");
        progress.sent(Index(7), 1);
        assert!(!progress.may_send(9, 100));
        assert!(progress.rejected(Index(6), Index(5)));
        assert!(!progress.accepted(Index(5)), "an old answer ends the probing");
        progress.sent(Index(6), 1);
        assert!(!progress.may_send(9, 100), "and begins with one");
    }

    #[test]
    fn a_late_rejection_moves_nothing() {
        let mut progress = Progress::new(Index(10));
        assert!(!progress.rejected(Index(7), Index(2)), "the probe was after 9");
        assert!(progress.rejected(Index(9), Index(4)));
        assert_eq!(progress.next, Index(5));
        assert!(!progress.rejected(Index(9), Index(1)), "answered twice");
        assert!(progress.accepted(Index(6)));
        progress.sent(Index(8), 1);
        assert!(!progress.rejected(Index(6), Index(0)), "already matched");
        assert_eq!((progress.phase, progress.next), (Phase::Replicate, Index(9)));
    }
}
