//! Majorities, of one set of voters or of two at once.

use crate::types::MemberId;

/// What a count of votes says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A quorum said yes.
    Won,
    /// So many said no that no quorum can say yes.
    Lost,
    /// Neither yet.
    Pending,
}

/// How many of `voters` are a majority.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest value that a majority of `voters` has reached. An empty set agrees to everything: so does the missing half of
/// a membership that is not joint.
pub fn reached_by_majority(voters: &[MemberId], value: &impl Fn(MemberId) -> u64) -> u64 {
    // Seven voters are the most that anyone runs; beyond, a heap allocation is the smaller cost.
    let mut small = [0; 7];
    let mut large;
    let values: &mut [u64] = if voters.len() <= small.len() {
        &mut small[..voters.len()]
    } else {
        large = vec![0; voters.len()];
        &mut large
    };
    for (slot, voter) in values.iter_mut().zip(voters) {
        *slot = value(*voter);
    }
    values.sort_unstable();
    match values.len().checked_sub(majority(values.len())) {
        Some(lowest_of_the_best) => values[lowest_of_the_best],
        None => u64::MAX,
    }
}

/// Counts the votes of one majority. An empty set is won: see [`reached_by_majority`].
pub fn votes_of_majority(voters: &[MemberId], vote: &impl Fn(MemberId) -> Option<bool>) -> Verdict {
    let yes = voters.iter().filter(|voter| vote(**voter) == Some(true)).count();
    let no = voters.iter().filter(|voter| vote(**voter) == Some(false)).count();
    let needed = if voters.is_empty() { 0 } else { majority(voters.len()) };
    match () {
        () if yes >= needed => Verdict::Won,
        () if voters.len() - no < needed => Verdict::Lost,
        () => Verdict::Pending,
    }
}

/// The highest value that a quorum has reached: while joint, a majority of each half (thesis, section 4.3).
pub fn reached(incoming: &[MemberId], outgoing: &[MemberId], value: impl Fn(MemberId) -> u64) -> u64 {
    reached_by_majority(incoming, &value).min(reached_by_majority(outgoing, &value))
}

/// Counts votes; while joint, both halves must agree.
pub fn votes(incoming: &[MemberId], outgoing: &[MemberId], vote: impl Fn(MemberId) -> Option<bool>) -> Verdict {
    match (votes_of_majority(incoming, &vote), votes_of_majority(outgoing, &vote)) {
        (Verdict::Won, Verdict::Won) => Verdict::Won,
        (Verdict::Lost, _) | (_, Verdict::Lost) => Verdict::Lost,
        _ => Verdict::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether the members of `set` are a quorum, by the definition.
    fn is_quorum(voters: &[MemberId], set: impl Fn(MemberId) -> bool) -> bool {
        voters.iter().filter(|voter| set(**voter)).count() * 2 > voters.len() || voters.is_empty()
    }

    fn ids(numbers: &[u8]) -> Vec<MemberId> {
        let mut ids: Vec<_> = numbers.iter().map(|n| MemberId(u64::from(*n))).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    proptest! {
        #[test]
        fn reached_is_the_highest_value_that_a_quorum_has(
            incoming in proptest::collection::vec(1_u8..12, 1..9),
            outgoing in proptest::collection::vec(1_u8..12, 0..9),
            values in proptest::collection::vec(0_u64..20, 12),
        ) {
            let (incoming, outgoing) = (ids(&incoming), ids(&outgoing));
            let value = |id: MemberId| values[id.0 as usize];
            let holds = |v: u64| is_quorum(&incoming, |id| value(id) >= v) && is_quorum(&outgoing, |id| value(id) >= v);
            let brute = (0..=20).rev().find(|v| holds(*v)).expect("0 always holds");
            prop_assert_eq!(reached(&incoming, &outgoing, value), brute);
        }

        #[test]
        fn an_election_is_lost_when_no_outcome_of_the_missing_votes_wins(
            incoming in proptest::collection::vec(1_u8..9, 1..7),
            outgoing in proptest::collection::vec(1_u8..9, 0..7),
            cast in proptest::collection::vec(proptest::option::of(any::<bool>()), 9),
        ) {
            let (incoming, outgoing) = (ids(&incoming), ids(&outgoing));
            let vote = |id: MemberId| cast[id.0 as usize];
            let wins = |missing: bool| {
                let yes = |id: MemberId| vote(id).unwrap_or(missing);
                is_quorum(&incoming, yes) && is_quorum(&outgoing, yes)
            };
            let brute = if wins(false) { Verdict::Won } else if wins(true) { Verdict::Pending } else { Verdict::Lost };
            prop_assert_eq!(votes(&incoming, &outgoing, vote), brute);
        }
    }
}
