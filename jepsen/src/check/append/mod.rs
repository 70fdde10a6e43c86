//! Are transactions over lists strictly serializable? After Elle (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from
//! Experimental Observations", 2020), for its strongest case: lists to which unique elements are appended.
//!
//! A list that a transaction read tells in which order all its elements were appended, and so who came after whom:
//!
//! ```text
//!   list [.. a b ..]    who appended a ──ww──▶ who appended b
//!   read [.. a]         who appended a ──wr──▶ who read ──rw──▶ who appended b
//!   time                who had returned ──rt──▶ who was called later
//! ```
//!
//! A cycle contradicts any serial order; its edges name the anomaly ([`cycles`]). What needs no cycle is found here.

mod cycles;

use super::{Finding, ms};
use crate::timeline::End;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Appended `element` to list `key`. Each element is appended by one step of one transaction only.
    Append {
        /// Which list.
        key: u64,
        /// What.
        element: u64,
    },
    /// Read list `key`.
    Read {
        /// Which list.
        key: u64,
        /// What was there; `None` if the answer did not arrive.
        saw: Option<Vec<u64>>,
    },
}

/// One transaction of one client.
#[derive(Clone, Debug)]
pub struct Txn {
    /// Who called.
    pub client: usize,
    /// When, in nanoseconds since the start.
    pub called_ns: u64,
    /// When it was over.
    pub returned_ns: u64,
    /// How it ended.
    pub end: End,
    /// Its steps, in order.
    pub steps: Vec<Step>,
}

impl fmt::Display for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.end == End::Ok { ms(self.returned_ns) } else { format!("{:?}", self.end) };
        write!(f, "client {} {} .. {end}:", self.client, ms(self.called_ns))?;
        for step in &self.steps {
            match step {
                Step::Append { key, element } => write!(f, " append {element} to {key};")?,
                Step::Read { key, saw: Some(saw) } => write!(f, " read {key} {};", tail(saw))?,
                Step::Read { key, saw: None } => write!(f, " read {key} ?;")?,
            }
        }
        Ok(())
    }
}

/// A list for people: its end.
fn tail(list: &[u64]) -> String {
    let shown: Vec<String> = list[list.len().saturating_sub(6)..].iter().map(u64::to_string).collect();
    let dots = if list.len() > 6 { ".. " } else { "" };
    format!("[{dots}{}]", shown.join(" "))
}

/// What is known of a history, for all checks.
struct Facts<'a> {
    txns: &'a [Txn],
    /// Who appended an element of a list.
    writer: HashMap<(u64, u64), usize>,
    /// The longest list that was read of each key, and by whom.
    order: BTreeMap<u64, (&'a [u64], usize)>,
}

impl<'a> Facts<'a> {
    fn new(txns: &'a [Txn]) -> Facts<'a> {
        let mut writer = HashMap::new();
        let mut order: BTreeMap<u64, (&[u64], usize)> = BTreeMap::new();
        for (at, txn) in txns.iter().enumerate() {
            for step in &txn.steps {
                if let Step::Append { key, element } = step {
                    writer.insert((*key, *element), at);
                }
            }
            for (key, saw) in reads(txn) {
                if order.get(&key).is_none_or(|(longest, _)| longest.len() < saw.len()) {
                    order.insert(key, (saw, at));
                }
            }
        }
        Facts { txns, writer, order }
    }
}

/// The answered reads of a transaction that was committed.
fn reads(txn: &Txn) -> impl Iterator<Item = (u64, &[u64])> {
    let ok = txn.end == End::Ok;
    txn.steps.iter().filter(move |_| ok).filter_map(|step| match step {
        Step::Read { key, saw: Some(saw) } => Some((*key, saw.as_slice())),
        _ => None,
    })
}

/// What contradicts strict serializability in `txns`.
pub fn check(txns: &[Txn]) -> Vec<Finding> {
    let facts = Facts::new(txns);
    let mut findings = Vec::new();
    for txn in txns {
        findings.extend(internal(txn));
        for (key, saw) in reads(txn) {
            findings.extend(elements(&facts, txn, key, saw));
        }
    }
    findings.extend(lost(&facts));
    if findings.iter().any(|finding| finding.kind == "incompatible order" || finding.kind == "duplicate element") {
        // Without one order of each list there is no graph to search.
        return findings;
    }
    findings.extend(cycles::find(&facts));
    findings
}

/// A transaction that contradicts itself: a read without its own appends, or two reads that differ by more than these.
fn internal(txn: &Txn) -> Option<Finding> {
    let mut expected: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut own: HashMap<u64, Vec<u64>> = HashMap::new();
    for step in txn.steps.iter().filter(|_| txn.end == End::Ok) {
        match step {
            Step::Append { key, element } => {
                own.entry(*key).or_default().push(*element);
                if let Some(list) = expected.get_mut(key) {
                    list.push(*element);
                }
            }
            Step::Read { key, saw: Some(saw) } => {
                let agrees = match expected.get(key) {
                    Some(list) => list == saw,
                    None => own.get(key).is_none_or(|own| saw.ends_with(own)),
                };
                if !agrees {
                    let what = format!("list {key} does not follow from the steps before it: {txn}");
                    return Some(Finding::new("internal", what).at(txn.called_ns));
                }
                expected.insert(*key, saw.clone());
            }
            Step::Read { saw: None, .. } => {}
        }
    }
    None
}

/// What is wrong with the elements of one list as they were read.
fn elements(facts: &Facts<'_>, txn: &Txn, key: u64, saw: &[u64]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |kind: &str, what: String| findings.push(Finding::new(kind, what).at(txn.called_ns));
    let mut met = BTreeSet::new();
    for element in saw {
        if !met.insert(element) {
            add("duplicate element", format!("list {key} holds {element} twice: {txn}"));
        }
        match facts.writer.get(&(key, *element)) {
            None => add("unexpected element", format!("nobody appended {element} to list {key}: {txn}")),
            Some(writer) if facts.txns[*writer].end == End::Failed => {
                let writer = &facts.txns[*writer];
                add(
                    "G1a",
                    format!("{element} of list {key} is of a transaction that was refused\n  {writer}\n  {txn}"),
                );
            }
            Some(_) => {}
        }
    }
    let own = |element: &u64| facts.writer.get(&(key, *element)).is_some_and(|at| std::ptr::eq(&facts.txns[*at], txn));
    if let Some(last) = saw.last().filter(|last| !own(last))
        && let Some(writer) = facts.writer.get(&(key, *last)).map(|at| &facts.txns[*at])
    {
        let mut appended = writer.steps.iter().filter_map(|step| match step {
            Step::Append { key: to, element } if *to == key => Some(element),
            _ => None,
        });
        if appended.next_back() != Some(last) {
            add("G1b", format!("list {key} was read in the middle of a transaction\n  {writer}\n  {txn}"));
        }
    }
    if let Some((longest, reader)) = facts.order.get(&key)
        && !longest.starts_with(saw)
    {
        let other = &facts.txns[*reader];
        add("incompatible order", format!("two orders of list {key}\n  {txn}\n  {other}"));
    }
    findings
}

/// Acknowledged elements that a read which began later does not hold, and no read at all does.
fn lost(facts: &Facts<'_>) -> Vec<Finding> {
    let mut last: HashMap<u64, &Txn> = HashMap::new();
    for txn in facts.txns {
        for (key, _) in reads(txn) {
            let newest = last.entry(key).or_insert(txn);
            if newest.called_ns < txn.called_ns {
                *newest = txn;
            }
        }
    }
    let held: HashMap<u64, BTreeSet<u64>> =
        facts.order.iter().map(|(key, (list, _))| (*key, list.iter().copied().collect())).collect();
    let mut findings = Vec::new();
    for txn in facts.txns.iter().filter(|txn| txn.end == End::Ok) {
        for step in &txn.steps {
            let Step::Append { key, element } = step else { continue };
            let is_held = held.get(key).is_some_and(|held| held.contains(element));
            if let Some(reader) = last.get(key).filter(|reader| !is_held && reader.called_ns > txn.returned_ns) {
                let what = format!("{element} was appended to list {key}, and no read holds it\n  {txn}\n  {reader}");
                findings.push(Finding::new("lost append", what).at(txn.returned_ns));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests;
