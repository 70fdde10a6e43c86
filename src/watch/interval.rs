//! Which ranges hold a key: a search tree of ranges by their start, each node of which knows the farthest end below it.
//!
//! The tree is a treap: its shape is that of a random insertion order, whatever the order was, so it stays flat without rules for
//! rebalancing. What stands for chance is a scrambled counter, the same in every run.

use super::slots::Slots;
use std::{cmp::Ordering, sync::Arc};

/// The end of a range; `None` is "no end".
pub(super) type End = Option<Arc<[u8]>>;

const NONE: u32 = u32::MAX;

/// Ranges `[start, end)`, each of them once, with a number that the caller gives.
#[derive(Debug)]
pub(super) struct Intervals {
    nodes: Slots<Node>,
    root: u32,
    made: u64,
}

#[derive(Debug)]
struct Node {
    start: Arc<[u8]>,
    end: End,
    value: u32,
    /// Above all of its children's.
    priority: u64,
    left: u32,
    right: u32,
    /// The node of this subtree whose range ends last.
    farthest: u32,
}

impl Default for Intervals {
    fn default() -> Intervals {
        Intervals { nodes: Slots::default(), root: NONE, made: 0 }
    }
}

impl Intervals {
    /// The number of exactly this range.
    pub(super) fn find(&self, start: &[u8], end: &End) -> Option<u32> {
        let mut at = self.root;
        while at != NONE {
            let node = self.nodes.get(at);
            at = match order((start, end), (&node.start, &node.end)) {
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
                Ordering::Equal => return Some(node.value),
            };
        }
        None
    }

    /// Adds a range that is not there.
    pub(super) fn insert(&mut self, start: Arc<[u8]>, end: End, value: u32) {
        self.made += 1;
        let priority = scramble(self.made);
        let (left, right) = self.split(self.root, &start, &end);
        let new = self.nodes.insert(Node { start, end, value, priority, left: NONE, right: NONE, farthest: NONE });
        self.update(new);
        let left = self.merge(left, new);
        self.root = self.merge(left, right);
    }

    /// Takes out a range that is there.
    pub(super) fn remove(&mut self, start: &[u8], end: &End) {
        self.root = self.remove_below(self.root, start, end);
    }

    /// Calls `visit` with the number of each range that holds `key`.
    pub(super) fn visit(&self, key: &[u8], visit: &mut impl FnMut(u32)) {
        self.visit_below(self.root, key, visit);
    }

    fn visit_below(&self, at: u32, key: &[u8], visit: &mut impl FnMut(u32)) {
        if at == NONE {
            return;
        }
        let node = self.nodes.get(at);
        // All ranges below end too early.
        if !reaches(&self.nodes.get(node.farthest).end, key) {
            return;
        }
        self.visit_below(node.left, key, visit);
        if *node.start <= *key {
            if reaches(&node.end, key) {
                visit(node.value);
            }
            self.visit_below(node.right, key, visit);
        }
    }

    fn remove_below(&mut self, at: u32, start: &[u8], end: &End) -> u32 {
        assert_ne!(at, NONE, "a range is removed once");
        let node = self.nodes.get(at);
        let (left, right) = (node.left, node.right);
        match order((start, end), (&node.start, &node.end)) {
            Ordering::Equal => {
                self.nodes.remove(at);
                return self.merge(left, right);
            }
            Ordering::Less => self.nodes.get_mut(at).left = self.remove_below(left, start, end),
            Ordering::Greater => self.nodes.get_mut(at).right = self.remove_below(right, start, end),
        }
        self.update(at);
        at
    }

    /// What is below `at` in two trees: before the range, and from it on.
    fn split(&mut self, at: u32, start: &[u8], end: &End) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        let node = self.nodes.get(at);
        let (left, right) = (node.left, node.right);
        if order((&node.start, &node.end), (start, end)) == Ordering::Less {
            let (before, after) = self.split(right, start, end);
            self.nodes.get_mut(at).right = before;
            self.update(at);
            (at, after)
        } else {
            let (before, after) = self.split(left, start, end);
            self.nodes.get_mut(at).left = after;
            self.update(at);
            (before, at)
        }
    }

    /// One tree of two, where all of `left` comes before all of `right`.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NONE || right == NONE {
            return if left == NONE { right } else { left };
        }
        if self.nodes.get(left).priority > self.nodes.get(right).priority {
            let below = self.merge(self.nodes.get(left).right, right);
            self.nodes.get_mut(left).right = below;
            self.update(left);
            left
        } else {
            let below = self.merge(left, self.nodes.get(right).left);
            self.nodes.get_mut(right).left = below;
            self.update(right);
            right
        }
    }

    /// Finds the farthest end again after a child has changed.
    fn update(&mut self, at: u32) {
        let node = self.nodes.get(at);
        let mut farthest = at;
        for child in [node.left, node.right] {
            if child != NONE {
                let candidate = self.nodes.get(child).farthest;
                if order_ends(&self.nodes.get(candidate).end, &self.nodes.get(farthest).end) == Ordering::Greater {
                    farthest = candidate;
                }
            }
        }
        self.nodes.get_mut(at).farthest = farthest;
    }
}

fn order(one: (&[u8], &End), other: (&[u8], &End)) -> Ordering {
    one.0.cmp(other.0).then_with(|| order_ends(one.1, other.1))
}

fn order_ends(one: &End, other: &End) -> Ordering {
    match (one, other) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) => one.cmp(other),
    }
}

/// Whether a range with this end goes beyond `key`.
fn reaches(end: &End, key: &[u8]) -> bool {
    end.as_ref().is_none_or(|end| **end > *key)
}

/// The finisher of splitmix64: neighbours become strangers.
fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> Arc<[u8]> {
        text.as_bytes().into()
    }

    fn depth(tree: &Intervals, at: u32) -> usize {
        if at == NONE {
            return 0;
        }
        let node = tree.nodes.get(at);
        1 + depth(tree, node.left).max(depth(tree, node.right))
    }

    #[test]
    fn the_tree_stays_flat_when_ranges_come_in_order() {
        let mut tree = Intervals::default();
        for number in 0..10_000 {
            tree.insert(bytes(&format!("{number:06}")), Some(bytes(&format!("{:06}", number + 1))), number);
        }
        assert!(depth(&tree, tree.root) < 60, "{}", depth(&tree, tree.root));
        let mut seen = Vec::new();
        tree.visit(b"000777x", &mut |value| seen.push(value));
        assert_eq!(seen, [777]);
    }

    proptest! {
        #[test]
        fn a_key_finds_the_ranges_that_a_look_at_all_of_them_finds(
            steps in prop::collection::vec((any::<bool>(), "[a-d]{0,3}", prop::option::of("[a-d]{0,3}")), 1..200),
            keys in prop::collection::vec("[a-d]{0,4}", 20),
        ) {
            let mut tree = Intervals::default();
            let mut all: Vec<(Arc<[u8]>, End, u32)> = Vec::new();
            for (number, (add, start, end)) in steps.iter().enumerate() {
                let (start, end) = (bytes(start), end.as_deref().map(bytes));
                let known = all.iter().position(|(s, e, _)| (s, e) == (&start, &end));
                prop_assert_eq!(tree.find(&start, &end), known.map(|at| all[at].2));
                match known {
                    None if *add => {
                        all.push((start.clone(), end.clone(), number as u32));
                        tree.insert(start, end, number as u32);
                    }
                    Some(at) if !*add => {
                        tree.remove(&start, &end);
                        all.swap_remove(at);
                    }
                    _ => {}
                }
            }
            for key in keys {
                let mut found = Vec::new();
                tree.visit(key.as_bytes(), &mut |value| found.push(value));
                found.sort_unstable();
                let holds = |(start, end, _): &&(Arc<[u8]>, End, u32)| **start <= *key.as_bytes() && reaches(end, key.as_bytes());
                let mut expected: Vec<u32> = all.iter().filter(holds).map(|(_, _, value)| *value).collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
