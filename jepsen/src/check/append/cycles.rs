//! The cycles of who came after whom, and what they are called (Adya, "Weak Consistency", 1999; the names with `realtime` are
//! Elle's: without the order of time there would be no cycle).

use super::{Facts, Finding, Txn, reads};
use crate::timeline::End;
use petgraph::{
    algo::tarjan_scc,
    graph::{DiGraph, EdgeIndex, NodeIndex},
    visit::{EdgeFiltered, EdgeRef},
};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

/// Why one transaction came before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Edge {
    /// Both appended to one list, one right after the other.
    WriteWrite(u64),
    /// The second read what the first appended.
    WriteRead(u64),
    /// The first did not see what the second appended.
    ReadWrite(u64),
    /// The first had returned when the second was called.
    Time,
}

impl Edge {
    fn kind(self) -> Kind {
        match self {
            Edge::WriteWrite(_) => Kind::Ww,
            Edge::WriteRead(_) => Kind::Wr,
            Edge::ReadWrite(_) => Kind::Rw,
            Edge::Time => Kind::Rt,
        }
    }

    fn say(self) -> String {
        match self {
            Edge::WriteWrite(key) => format!("then, in list {key}, came"),
            Edge::WriteRead(key) => format!("was seen in list {key} by"),
            Edge::ReadWrite(key) => format!("did not see in list {key}"),
            Edge::Time => "had returned before the call of".into(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ww,
    Wr,
    Rw,
    Rt,
}

use Kind::{Rt, Rw, Wr, Ww};

/// An anomaly is a cycle of one edge of the first kind and a way back over the others. Weaker ones stand first, and hide those
/// after them.
const ANOMALIES: &[(&str, Kind, &[Kind])] = &[
    ("G0", Ww, &[Ww]),
    ("G1c", Wr, &[Ww, Wr]),
    ("G-single", Rw, &[Ww, Wr]),
    ("G2", Rw, &[Ww, Wr, Rw]),
    ("G0-realtime", Ww, &[Ww, Rt]),
    ("G1c-realtime", Wr, &[Ww, Wr, Rt]),
    ("G-single-realtime", Rw, &[Ww, Wr, Rt]),
    ("G2-realtime", Rw, &[Ww, Wr, Rw, Rt]),
];

/// A transaction, or a point in time between transactions.
type Graph = DiGraph<Option<usize>, Edge>;

/// One finding for each knot of transactions and anomaly.
pub fn find(facts: &Facts<'_>) -> Vec<Finding> {
    let graph = graph(facts);
    let mut findings = Vec::new();
    let mut explained: HashSet<NodeIndex> = HashSet::new();
    for (name, first, back) in ANOMALIES {
        let allowed = |kind: Kind| kind == *first || back.contains(&kind);
        let part = EdgeFiltered::from_fn(&graph, |edge| allowed(edge.weight().kind()));
        for knot in tarjan_scc(&part).into_iter().filter(|knot| knot.len() > 1) {
            if knot.iter().any(|node| explained.contains(node)) {
                continue;
            }
            let knot: HashSet<NodeIndex> = knot.into_iter().collect();
            let Some(cycle) = shortest(&graph, &knot, *first, back) else { continue };
            explained.extend(cycle.iter().map(|edge| graph.raw_edges()[edge.index()].source()));
            findings.push(describe(name, facts.txns, &graph, &cycle));
        }
    }
    findings
}

/// Who came after whom, as far as the history tells.
fn graph(facts: &Facts<'_>) -> Graph {
    let mut graph = Graph::new();
    // Of transactions without an answer only those count that somebody saw.
    let mut seen: BTreeSet<usize> = BTreeSet::new();
    for (key, (list, _)) in &facts.order {
        seen.extend(list.iter().filter_map(|element| facts.writer.get(&(*key, *element))));
    }
    let mut nodes: HashMap<usize, NodeIndex> = HashMap::new();
    for (at, txn) in facts.txns.iter().enumerate() {
        if txn.end == End::Ok || txn.end == End::Unknown && seen.contains(&at) {
            nodes.insert(at, graph.add_node(Some(at)));
        }
    }
    let writer = |key: u64, element: u64| facts.writer.get(&(key, element)).and_then(|at| nodes.get(at)).copied();
    let add = |graph: &mut Graph, from: Option<NodeIndex>, to: Option<NodeIndex>, edge: Edge| {
        if let (Some(from), Some(to)) = (from, to)
            && from != to
        {
            graph.add_edge(from, to, edge);
        }
    };
    let mut next: HashMap<(u64, u64), u64> = HashMap::new();
    for (key, (list, _)) in &facts.order {
        for pair in list.windows(2) {
            next.insert((*key, pair[0]), pair[1]);
            add(&mut graph, writer(*key, pair[0]), writer(*key, pair[1]), Edge::WriteWrite(*key));
        }
    }
    for (at, txn) in facts.txns.iter().enumerate() {
        let reader = nodes.get(&at).copied();
        for (key, saw) in reads(txn) {
            let own = |element: &&u64| facts.writer.get(&(key, **element)) == Some(&at);
            // What the transaction had appended itself says nothing about others.
            let foreign = saw.iter().rev().find(|element| !own(element));
            if let Some(last) = foreign {
                add(&mut graph, writer(key, *last), reader, Edge::WriteRead(key));
            }
            let missed = match saw.last() {
                Some(last) => next.get(&(key, *last)).copied(),
                None => facts.order.get(&key).and_then(|(list, _)| list.first()).copied(),
            };
            // Its own later appends come after what it read anyway.
            if let Some(missed) = missed {
                add(&mut graph, reader, writer(key, missed), Edge::ReadWrite(key));
            }
        }
    }
    add_time(&mut graph, facts.txns, &nodes);
    graph
}

/// Time as a chain of the moments at which answers arrived: each hangs behind its transaction, and a call behind the last moment
/// before it. That says as much as an edge for each pair, with two a transaction.
fn add_time(graph: &mut Graph, txns: &[Txn], nodes: &HashMap<usize, NodeIndex>) {
    let mut answered: Vec<usize> = (0..txns.len()).filter(|at| txns[*at].end == End::Ok).collect();
    answered.sort_by_key(|at| txns[*at].returned_ns);
    let mut moments: Vec<(u64, NodeIndex)> = Vec::with_capacity(answered.len());
    for at in answered {
        let moment = graph.add_node(None);
        graph.add_edge(nodes[&at], moment, Edge::Time);
        if let Some((_, before)) = moments.last() {
            graph.add_edge(*before, moment, Edge::Time);
        }
        moments.push((txns[at].returned_ns, moment));
    }
    for (at, node) in nodes {
        let before = moments.partition_point(|(time, _)| *time < txns[*at].called_ns);
        if before > 0 {
            graph.add_edge(moments[before - 1].1, *node, Edge::Time);
        }
    }
}

/// The shortest cycle in `knot` of one edge of kind `first` and a way back over edges of `back`.
fn shortest(graph: &Graph, knot: &HashSet<NodeIndex>, first: Kind, back: &[Kind]) -> Option<Vec<EdgeIndex>> {
    let mut best: Option<Vec<EdgeIndex>> = None;
    for edge in graph.edge_references() {
        let inside = knot.contains(&edge.source()) && knot.contains(&edge.target());
        if !inside || edge.weight().kind() != first {
            continue;
        }
        if let Some(mut way) = way(graph, knot, edge.target(), edge.source(), back) {
            way.insert(0, edge.id());
            if best.as_ref().is_none_or(|best| way.len() < best.len()) {
                best = Some(way);
            }
        }
    }
    best
}

/// The shortest way over edges of `kinds` inside `knot`.
fn way(
    graph: &Graph,
    knot: &HashSet<NodeIndex>,
    from: NodeIndex,
    to: NodeIndex,
    kinds: &[Kind],
) -> Option<Vec<EdgeIndex>> {
    let mut came: HashMap<NodeIndex, EdgeIndex> = HashMap::new();
    let mut open = VecDeque::from([from]);
    while let Some(node) = open.pop_front() {
        if node == to {
            let mut way = Vec::new();
            let mut at = to;
            while at != from {
                let edge = came[&at];
                way.push(edge);
                at = graph.raw_edges()[edge.index()].source();
            }
            way.reverse();
            return Some(way);
        }
        for edge in graph.edges(node).filter(|edge| kinds.contains(&edge.weight().kind())) {
            let next = edge.target();
            if knot.contains(&next) && next != from && !came.contains_key(&next) {
                came.insert(next, edge.id());
                open.push_back(next);
            }
        }
    }
    None
}

/// The cycle in words, one transaction a line.
fn describe(name: &str, txns: &[Txn], graph: &Graph, cycle: &[EdgeIndex]) -> Finding {
    let mut lines = Vec::new();
    let mut first_ns = u64::MAX;
    for edge in cycle.iter().map(|edge| &graph.raw_edges()[edge.index()]) {
        // Moments are not worth a line: the edge into the first one has said it.
        if let Some(at) = graph[edge.source()] {
            lines.push(format!("  {}\n    {}", txns[at], edge.weight.say()));
            first_ns = first_ns.min(txns[at].called_ns);
        }
    }
    let start = cycle.first().and_then(|edge| graph[graph.raw_edges()[edge.index()].source()]);
    let again = start.map(|at| format!("\n  client {} again", txns[at].client)).unwrap_or_default();
    Finding::new(name, format!("a cycle of {} transactions:\n{}{again}", lines.len(), lines.join("\n"))).at(first_ns)
}
