//! Progress that speaks for a whole stream: each part is asked, and the least of their answers is true for all.

use super::merge::Place;
use crate::pb::etcdserverpb::ResponseHeader;
use std::collections::BTreeMap;

/// What a stream owes in answers to `WatchProgressRequest`, and the round of questions that is under way.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Requests that the next round will answer, each by a reply of its own.
    wanted: u32,
    round: Option<Round>,
    /// Questions to hubs that are not answered. Each gets one answer, in order; only the last may end a round.
    asked: BTreeMap<Place, u32>,
}

#[derive(Debug)]
struct Round {
    answers: u32,
    waits: BTreeMap<Place, Question>,
    least: Option<ResponseHeader>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Asked,
    /// Watchers have come since: the answer may not know of them.
    Stale,
}

/// What follows from an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Not of this round, or not the last of it.
    Nothing,
    /// The part has to be asked again.
    Again,
    /// So many requests are answered by this header.
    Done(u32, ResponseHeader),
}

impl Progress {
    /// The client asks.
    pub(super) fn want(&mut self) {
        // A client that asks and never reads must not make us owe it without end.
        self.wanted = (self.wanted + 1).min(WANTED_MAX);
    }

    /// Begins a round if one is due; returns whom to ask. A stream without watchers asks upstream.
    pub(super) fn begin(&mut self, places: impl Iterator<Item = Place>) -> Vec<Place> {
        if self.round.is_some() || self.wanted == 0 {
            return Vec::new();
        }
        let mut places: Vec<Place> = places.collect();
        if places.is_empty() {
            places.push(Place::Upstream);
        }
        let waits = places.iter().map(|place| (*place, Question::Asked)).collect();
        self.round = Some(Round { answers: std::mem::take(&mut self.wanted), waits, least: None });
        places
    }

    /// Whether the round waits for this part.
    pub(super) fn waits_for(&self, place: Place) -> bool {
        self.round.as_ref().is_some_and(|round| round.waits.contains_key(&place))
    }

    /// A watcher has come to a part. If a round is under way the part has to be asked, or once more: returns whether at once.
    pub(super) fn gained(&mut self, place: Place) -> bool {
        let Some(round) = &mut self.round else { return false };
        if let Some(question) = round.waits.get_mut(&place) {
            *question = Question::Stale;
            return false;
        }
        round.waits.insert(place, Question::Asked);
        true
    }

    /// A hub was asked, be it for a round or otherwise.
    pub(super) fn hub_was_asked(&mut self, place: Place) {
        *self.asked.entry(place).or_default() += 1;
    }

    /// Whether a hub owes an answer.
    pub(super) fn hub_owes(&self, place: Place) -> bool {
        self.asked.get(&place).is_some_and(|questions| *questions > 0)
    }

    /// A hub has answered; returns whether it was the last question to it.
    pub(super) fn hub_has_answered(&mut self, place: Place) -> bool {
        let Some(left) = self.asked.get_mut(&place) else { return true };
        *left = left.saturating_sub(1);
        *left == 0
    }

    /// Takes the answer of a part to the last question that it was asked.
    pub(super) fn answered(&mut self, place: Place, header: ResponseHeader) -> Verdict {
        let Some(round) = &mut self.round else { return Verdict::Nothing };
        match round.waits.get_mut(&place) {
            None => return Verdict::Nothing,
            Some(question @ Question::Stale) => {
                *question = Question::Asked;
                return Verdict::Again;
            }
            Some(Question::Asked) => drop(round.waits.remove(&place)),
        }
        if round.least.as_ref().is_none_or(|least| header.revision < least.revision) {
            round.least = Some(header);
        }
        self.done()
    }

    /// A hub is no more: nobody waits for it.
    pub(super) fn lost(&mut self, place: Place) -> Verdict {
        self.asked.remove(&place);
        if let Some(round) = &mut self.round {
            round.waits.remove(&place);
        }
        self.done()
    }

    /// The link to upstream is new. If the round waits for an answer from there it has to be asked for again, of all watchers.
    pub(super) fn link_is_new(&mut self) -> bool {
        let question = self.round.as_mut().and_then(|round| round.waits.get_mut(&Place::Upstream));
        question.map(|question| *question = Question::Asked).is_some()
    }

    fn done(&mut self) -> Verdict {
        let Some(round) = self.round.take_if(|round| round.waits.is_empty()) else { return Verdict::Nothing };
        match round.least {
            Some(header) => Verdict::Done(round.answers, header),
            None => {
                // All who were asked are gone without an answer: a new round.
                self.wanted = (self.wanted + round.answers).min(WANTED_MAX);
                Verdict::Nothing
            }
        }
    }
}

const WANTED_MAX: u32 = 1_000;
