//! What raft wants to say, in fewer messages.
//!
//! A turn of the loop is many steps of raft, each of which may say something to the same member. Whatever is said twice costs the one who
//! hears it as much as the first time, and it would answer both.

use super::transport::{Letter, PeerMessage};
use crate::{
    raft::{Body, Envelope, Message},
    types::{Entry, Index},
};

/// Bytes of entries from which on an append takes no more of them, as raft has it.
pub(super) const APPEND_BYTES_MAX: usize = 1 << 20;

/// Letters of what raft says at once. Appends to one member that follow each other are one: as if the first were still on its way when
/// the second came.
pub(super) fn gathered(envelopes: &mut Vec<Envelope>) -> Vec<Letter> {
    let mut letters: Vec<Envelope> = Vec::with_capacity(envelopes.len());
    for envelope in envelopes.drain(..) {
        // A member has few letters in a turn.
        let earlier = letters.iter_mut().rev().find(|earlier| earlier.to == envelope.to && is_append(earlier));
        match earlier {
            Some(earlier) => {
                if let Some(apart) = join(earlier, envelope) {
                    letters.push(apart);
                }
            }
            None => letters.push(envelope),
        }
    }
    letters.into_iter().map(letter).collect()
}

fn is_append(envelope: &Envelope) -> bool {
    matches!(envelope.message.body, Body::Append { .. })
}

/// Adds `later` to `earlier`, an append to the same member, if it is one that goes on where that ends. Gives it back if it is not.
fn join(earlier: &mut Envelope, later: Envelope) -> Option<Envelope> {
    let Body::Append { prev, entries, commit } = &mut earlier.message.body else { return Some(later) };
    let same_term = earlier.message.term == later.message.term;
    let Envelope { to, message: Message { term, body } } = later;
    match body {
        Body::Append { prev: goes_on, entries: more, commit: newer }
            if same_term
                && goes_on.index == Index(prev.index.0 + entries.len() as u64)
                && (more.is_empty() || bytes(entries) + bytes(&more) <= APPEND_BYTES_MAX) =>
        {
            entries.extend(more);
            *commit = newer.max(*commit);
            None
        }
        body => Some(Envelope { to, message: Message { term, body } }),
    }
}

fn bytes(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.data.len()).sum()
}

pub(super) fn letter(Envelope { to, message }: Envelope) -> Letter {
    Letter { to, message: PeerMessage::Raft(message) }
}

/// Leaves out what is said again by a later one: an acknowledgement stands for all before it.
pub(super) fn thin(letters: &mut Vec<Letter>) {
    let acknowledges = |letter: &Letter| match &letter.message {
        PeerMessage::Raft(Message { term, body: Body::AppendAccepted { matched } }) => {
            Some((letter.to, *term, *matched))
        }
        _ => None,
    };
    let mut best = None;
    let mut at = letters.len();
    // From the last to the first: there is one leader to a term, and hardly ever a second term.
    while at > 0 {
        at -= 1;
        let Some(said) = acknowledges(&letters[at]) else { continue };
        match best {
            Some((to, term, matched)) if (to, term) == (said.0, said.1) && said.2 <= matched => {
                letters.remove(at);
            }
            _ => best = Some(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        raft::LogId,
        types::{EntryKind, MemberId, Term},
    };
    use bytes::Bytes;

    fn append(to: u64, prev: u64, count: u64, bytes: usize, commit: u64) -> Envelope {
        let data = Bytes::from(vec![0; bytes]);
        let entry = |index| Entry { term: Term(2), index: Index(index), kind: EntryKind::Normal, data: data.clone() };
        let body = Body::Append {
            prev: LogId { index: Index(prev), term: Term(2) },
            entries: (prev + 1..=prev + count).map(entry).collect(),
            commit: Index(commit),
        };
        Envelope { to: MemberId(to), message: Message { term: Term(2), body } }
    }

    fn says(to: u64, term: u64, body: Body) -> Letter {
        letter(Envelope { to: MemberId(to), message: Message { term: Term(term), body } })
    }

    fn accepted(to: u64, term: u64, matched: u64) -> Letter {
        says(to, term, Body::AppendAccepted { matched: Index(matched) })
    }

    #[test]
    fn appends_that_follow_each_other_are_one() {
        let heartbeat = Body::Heartbeat { commit: Index(4), round: 1 };
        let heartbeat = Envelope { to: MemberId(1), message: Message { term: Term(2), body: heartbeat } };
        let mut said = vec![
            append(1, 4, 0, 0, 4),
            append(2, 4, 0, 0, 4),
            heartbeat.clone(),
            append(1, 4, 2, 10, 4),
            append(2, 4, 2, 10, 4),
            append(1, 6, 3, 10, 5),
        ];
        let letters = gathered(&mut said);
        let expected = [append(1, 4, 5, 10, 5), append(2, 4, 2, 10, 4), heartbeat].map(letter);
        assert_eq!((letters, said), (expected.to_vec(), Vec::new()));
    }

    #[test]
    fn appends_that_leave_a_gap_or_are_large_stay_apart() {
        let said =
            [append(1, 4, 1, 1, 4), append(1, 7, 1, 1, 4), append(1, 4, 1, 1, 4), append(1, 5, 1, APPEND_BYTES_MAX, 4)];
        let expected = said.clone().map(letter).to_vec();
        assert_eq!(gathered(&mut said.to_vec()), expected);
    }

    #[test]
    fn an_acknowledgement_stands_for_those_before_it_of_its_term() {
        let vote = says(2, 3, Body::VoteReply { granted: true });
        let mut letters = vec![
            accepted(1, 2, 9),
            accepted(2, 3, 4),
            accepted(2, 3, 4),
            vote.clone(),
            accepted(2, 3, 8),
            accepted(2, 3, 7),
        ];
        thin(&mut letters);
        assert_eq!(letters, [accepted(1, 2, 9), vote, accepted(2, 3, 8), accepted(2, 3, 7)]);
        let mut one = vec![accepted(2, 3, 4)];
        thin(&mut one);
        assert_eq!(one, [accepted(2, 3, 4)]);
    }
}
