//! Is the history of one register linearizable?
//!
//! The search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with the memory of Lowe ("Testing for
//! linearizability", 2017): walk the calls and returns in order of time, try to let each call that is open take effect now,
//! and step back when a return is met whose call has not. A set of (calls done, value) that was met before is not tried again.
//!
//! ```text
//!   call a ── call b ── return a ── call c ── return b ── return c      lift: take a call and its return out of the list
//!      └─ effect of a somewhere here ─┘
//! ```
//!
//! That written values are unique keeps this fast, and lets calls without an answer go whose value nobody saw: whether they
//! took effect changes nothing that anybody saw. A call whose value was seen did take effect.

use crate::check::history::{Action, Operation, Value};
use std::collections::HashSet;

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Violation {
        /// The call that no order reached explains; of several, the one furthest in the history.
        stuck: Operation,
        /// The longest order found, which explains all that returned before.
        explained: Vec<Operation>,
    },
    /// The search was ended at its limit.
    Undecided,
}

/// Positions in the list that the search walks; 0 is its head.
type At = usize;

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The operation this belongs to.
    operation: usize,
    /// For a call, where its return is; for a return, `None`.
    end: Option<At>,
    before: At,
    after: At,
}

/// Calls and returns in order of time, as a ring through `nodes[0]`.
struct Timeline {
    nodes: Vec<Node>,
}

impl Timeline {
    fn new(operations: &[Operation]) -> Timeline {
        // At equal times the call goes first: what touches counts as overlapping.
        let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(operations.len() * 2);
        for (at, operation) in operations.iter().enumerate() {
            events.push((operation.called_ns, false, at));
            events.push((operation.returned_ns.unwrap_or(u64::MAX), true, at));
        }
        events.sort_unstable();
        let last = events.len();
        let mut nodes =
            vec![Node { operation: usize::MAX, end: None, before: last, after: if last == 0 { 0 } else { 1 } }];
        let mut calls = vec![0; operations.len()];
        for (at, (_, is_return, operation)) in events.into_iter().enumerate() {
            let here = at + 1;
            nodes.push(Node { operation, end: None, before: at, after: if here == last { 0 } else { here + 1 } });
            if is_return {
                nodes[calls[operation]].end = Some(here);
            } else {
                calls[operation] = here;
            }
        }
        Timeline { nodes }
    }

    fn first(&self) -> At {
        self.nodes[0].after
    }

    fn unlink(&mut self, at: At) {
        let Node { before, after, .. } = self.nodes[at];
        self.nodes[before].after = after;
        self.nodes[after].before = before;
    }

    fn relink(&mut self, at: At) {
        let Node { before, after, .. } = self.nodes[at];
        self.nodes[before].after = at;
        self.nodes[after].before = at;
    }

    /// Takes a call and its return out.
    fn lift(&mut self, call: At, end: At) {
        self.unlink(call);
        self.unlink(end);
    }

    /// Undoes the last [`Timeline::lift`]; the order of the two matters.
    fn put_back(&mut self, call: At, end: At) {
        self.relink(end);
        self.relink(call);
    }
}

/// Which operations have taken effect.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn flip(&mut self, operation: usize) {
        self.0[operation / 64] ^= 1 << (operation % 64);
    }
}

/// The value after `action` at `value`, or `None` if it cannot have taken effect there.
fn apply(value: Value, action: Action) -> Option<Value> {
    match action {
        Action::Read(saw) => (saw == value).then_some(value),
        Action::Write(written) => Some(Some(written)),
        Action::Swap { from, to } => (from == value).then_some(Some(to)),
        Action::Refused { from, saw } => (saw == value && from != value).then_some(value),
    }
}

/// Leaves out the calls without an answer whose value nobody saw. A swap without an answer saw something only if it took effect,
/// and so only if somebody saw what it wrote.
fn relevant(history: &[Operation]) -> Vec<Operation> {
    let (mut matters, mut waits): (Vec<Operation>, Vec<Operation>) =
        history.iter().partition(|operation| operation.returned_ns.is_some());
    let saw = |operations: &[Operation]| {
        operations.iter().filter_map(|operation| operation.action.sees().flatten()).collect::<HashSet<u64>>()
    };
    loop {
        let seen = saw(&matters);
        let is_seen = |operation: &Operation| operation.action.writes().is_some_and(|value| seen.contains(&value));
        let (more, rest): (Vec<Operation>, Vec<Operation>) = waits.into_iter().partition(is_seen);
        if more.is_empty() {
            return matters;
        }
        matters.extend(more);
        waits = rest;
    }
}

/// Searches for an order of the operations of one register, which is empty at first, within `steps_max` steps.
///
/// Each written value must be written by one operation only.
pub fn check(history: &[Operation], steps_max: u64) -> Verdict {
    let operations = relevant(history);
    let mut timeline = Timeline::new(&operations);
    let mut done = Done(vec![0; operations.len().div_ceil(64)]);
    let mut value: Value = None;
    let mut met: HashSet<(Done, Value)> = HashSet::new();
    // The calls that took effect, in that order, each with the value before it.
    let mut order: Vec<(At, Value)> = Vec::new();
    let mut deepest: Option<(usize, usize, Vec<usize>)> = None;
    let mut at = timeline.first();
    for _ in 0..steps_max {
        if timeline.first() == 0 {
            return Verdict::Linearizable;
        }
        let node = timeline.nodes[at];
        if let Some(end) = node.end {
            if let Some(next) = apply(value, operations[node.operation].action) {
                done.flip(node.operation);
                if met.insert((done.clone(), next)) {
                    order.push((at, value));
                    value = next;
                    timeline.lift(at, end);
                    at = timeline.first();
                    continue;
                }
                done.flip(node.operation);
            }
            at = node.after;
            continue;
        }
        // A return whose call has not taken effect: one of the choices before it was wrong.
        if deepest.as_ref().is_none_or(|(depth, _, _)| order.len() > *depth) {
            let explained = order.iter().map(|(call, _)| timeline.nodes[*call].operation).collect();
            deepest = Some((order.len(), node.operation, explained));
        }
        let Some((call, before)) = order.pop() else {
            let (_, stuck, explained) = deepest.expect("set above");
            let explained = explained.into_iter().map(|operation| operations[operation]).collect();
            return Verdict::Violation { stuck: operations[stuck], explained };
        };
        value = before;
        let Node { operation, end, .. } = timeline.nodes[call];
        done.flip(operation);
        timeline.put_back(call, end.expect("only calls take effect"));
        at = timeline.nodes[call].after;
    }
    Verdict::Undecided
}

#[cfg(test)]
mod tests;
