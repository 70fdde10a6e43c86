//! Linearizable reads without the log (thesis, section 6.4): an index, and the proof that nobody else led when it was taken.
//!
//! A round of heartbeats has a number that grows within the leader's term, and its answers name it. A quorum of answers to a round
//! proves that no newer leader could commit before the round began. So a read may join a round only before its heartbeats are sent;
//! one that comes later waits for the next, together with all others that do. (Term, round) is unique for all time: an answer that was
//! delayed or doubled can confirm no other round.

use super::output::ReadId;
use crate::types::{Index, MemberId};
use std::collections::VecDeque;

/// Most reads that wait at one leader; more are refused at once.
const READS_MAX: usize = 65_536;

/// One read, and who asked: `None` is this member.
pub(super) type Read = (Option<MemberId>, ReadId);

#[derive(Debug)]
struct Round {
    number: u64,
    index: Index,
    reads: Vec<Read>,
}

/// The reads of one leader in one term.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Number of the latest round. Rounds that carry no reads are counted too.
    latest: u64,
    /// Rounds whose reads are not confirmed yet, oldest first.
    rounds: VecDeque<Round>,
    /// Reads for the next round.
    waiting: Vec<Read>,
    count: usize,
}

impl Reads {
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Takes a read. False if there are too many.
    pub(super) fn wait(&mut self, read: Read) -> bool {
        let room = self.count < READS_MAX;
        if room {
            self.count += 1;
            self.waiting.push(read);
        }
        room
    }

    /// Whether a round should begin at once: reads wait, and none is on its way. Else they wait for its end, so that a busy leader
    /// sends as few heartbeats as its followers answer.
    pub(super) fn wants_round(&self) -> bool {
        !self.waiting.is_empty() && self.rounds.is_empty()
    }

    /// Whether reads wait for answers to a round that has begun.
    pub(super) fn is_under_way(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// Begins a round. `index` is what the waiting reads will be answered with; `None` (not known yet) leaves them waiting.
    pub(super) fn begin(&mut self, index: Option<Index>) -> u64 {
        self.latest += 1;
        if let Some(index) = index
            && !self.waiting.is_empty()
        {
            let reads = std::mem::take(&mut self.waiting);
            self.rounds.push_back(Round { number: self.latest, index, reads });
        }
        self.latest
    }

    /// Lets the waiting reads join the latest round, whose heartbeats were not sent yet. `index` is the commit index of now.
    pub(super) fn join(&mut self, index: Index) {
        let reads = std::mem::take(&mut self.waiting);
        match self.rounds.back_mut().filter(|round| round.number == self.latest) {
            Some(round) => {
                round.index = index;
                round.reads.extend(reads);
            }
            None => self.rounds.push_back(Round { number: self.latest, index, reads }),
        }
    }

    /// A quorum has answered round `number`, which proves all rounds before it too.
    pub(super) fn confirmed(&mut self, number: u64) -> Vec<(Read, Index)> {
        let mut answers = Vec::new();
        while let Some(round) = self.rounds.pop_front_if(|round| round.number <= number) {
            self.count -= round.reads.len();
            answers.extend(round.reads.into_iter().map(|read| (read, round.index)));
        }
        answers
    }

    /// Leadership is lost: all reads, unanswered.
    pub(super) fn abandon(&mut self) -> Vec<Read> {
        self.count = 0;
        let rounds = self.rounds.drain(..).flat_map(|round| round.reads);
        rounds.chain(self.waiting.drain(..)).collect()
    }
}
