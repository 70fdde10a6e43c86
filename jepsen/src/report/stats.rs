//! Numbers about the calls of a run.

use crate::timeline::{Call, End, Episode};
use serde::Serialize;

/// Numbers about calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Calls that were answered.
    pub ok: usize,
    /// Calls that certainly did nothing.
    pub failed: usize,
    /// Calls that may have done something.
    pub unknown: usize,
    /// Longest time without any answer to any client.
    pub longest_gap_ms: u64,
    /// When that began.
    pub longest_gap_at_ms: u64,
    /// Time that answered calls took: half of them less than this.
    pub p50_ms: f64,
    /// 99 of 100 less than this.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Answers in each second.
    pub per_second: Vec<usize>,
}

impl Stats {
    /// The numbers of `calls`.
    pub fn new(calls: &[Call]) -> Stats {
        let of = |end: End| calls.iter().filter(|call| call.end == end).count();
        let mut times: Vec<u64> = ok(calls).map(|call| call.returned_ns - call.called_ns).collect();
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
        let ms = |ns: Option<&u64>| ns.map_or(0.0, |ns| *ns as f64 / 1e6);
        let (gap_ns, gap_at_ns) = longest_gap(calls);
        let mut per_second = Vec::new();
        for call in ok(calls) {
            let second = (call.returned_ns / 1_000_000_000) as usize;
            if per_second.len() <= second {
                per_second.resize(second + 1, 0);
            }
            per_second[second] += 1;
        }
        Stats {
            ok: of(End::Ok),
            failed: of(End::Failed),
            unknown: of(End::Unknown),
            longest_gap_ms: gap_ns / 1_000_000,
            longest_gap_at_ms: gap_at_ns / 1_000_000,
            p50_ms: ms(at(50)),
            p99_ms: ms(at(99)),
            max_ms: ms(times.last()),
            per_second,
        }
    }
}

fn ok(calls: &[Call]) -> impl Iterator<Item = &Call> {
    calls.iter().filter(|call| call.end == End::Ok)
}

/// The longest time between two answers that follow each other, and when it began. The first call and the end of the last one
/// count as answers.
fn longest_gap(calls: &[Call]) -> (u64, u64) {
    gaps(calls).into_iter().max().unwrap_or_default()
}

/// All times between two answers that follow each other: how long, and when it began.
fn gaps(calls: &[Call]) -> Vec<(u64, u64)> {
    let mut answers: Vec<u64> = ok(calls).map(|call| call.returned_ns).collect();
    answers.extend(calls.iter().map(|call| call.called_ns).min());
    answers.extend(calls.iter().map(|call| call.returned_ns).max());
    answers.sort_unstable();
    answers.windows(2).map(|pair| (pair[1] - pair[0], pair[0])).collect()
}

/// Sets how long clients were without an answer in each of `episodes`. Returns the median, if there are any.
pub fn set_gaps(episodes: &mut [Episode], calls: &[Call]) -> Option<u64> {
    let gaps = gaps(calls);
    for episode in &mut *episodes {
        // One that began just before is the fault's as well: the last answer had come.
        let during = gaps.iter().filter(|(gap, at)| at + gap > episode.from_ns && *at < episode.to_ns);
        episode.gap_ms = during.map(|(gap, _)| *gap).max().unwrap_or(0) / 1_000_000;
    }
    let mut all: Vec<u64> = episodes.iter().map(|episode| episode.gap_ms).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(called_ms: u64, returned_ms: u64, end: End) -> Call {
        Call { client: 0, what: "read", called_ns: called_ms * 1_000_000, returned_ns: returned_ms * 1_000_000, end }
    }

    #[test]
    fn a_gap_ends_with_an_answer_and_not_with_a_failure() {
        let calls =
            [call(0, 10, End::Ok), call(20, 30, End::Failed), call(40, 900, End::Unknown), call(0, 1500, End::Ok)];
        let stats = Stats::new(&calls);
        assert_eq!((stats.longest_gap_ms, stats.longest_gap_at_ms), (1490, 10));
        let down = [call(0, 10, End::Ok), call(20, 3000, End::Failed)];
        assert_eq!(Stats::new(&down).longest_gap_ms, 2990);
        assert_eq!((stats.ok, stats.failed, stats.unknown), (2, 1, 1));
        assert_eq!(stats.per_second, [1, 1]);
        assert_eq!(stats.max_ms, 1500.0);
    }

    #[test]
    fn a_gap_belongs_to_the_fault_during_which_it_began_or_ended() {
        let calls = [call(0, 10, End::Ok), call(0, 100, End::Ok), call(0, 500, End::Ok), call(0, 510, End::Ok)];
        let episode = |from_ms: u64, to_ms: u64| Episode {
            from_ns: from_ms * 1_000_000,
            to_ns: to_ms * 1_000_000,
            what: String::new(),
            gap_ms: 0,
        };
        let mut episodes = [episode(20, 50), episode(120, 130), episode(505, 600)];
        assert_eq!(set_gaps(&mut episodes, &calls), Some(90));
        assert_eq!(episodes.map(|episode| episode.gap_ms), [90, 400, 10]);
        assert_eq!(set_gaps(&mut [], &calls), None);
    }

    #[test]
    fn no_calls_have_no_numbers() {
        assert_eq!(Stats::new(&[]), Stats::default());
    }
}
