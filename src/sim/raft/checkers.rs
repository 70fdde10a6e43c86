//! What must hold after every step of every member (Raft paper, figure 3), and for every read.

use crate::{
    raft::{Envelope, ReadId, Role, Status},
    types::{Entry, Index, MemberId, Term},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// How.
    pub text: String,
}

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// At most one leader a term.
    ElectionSafety,
    /// The same position and term mean the same entry, after the same entries.
    LogMatching,
    /// A leader has every entry that was committed before its term.
    LeaderCompleteness,
    /// Nobody applies another entry at a position that someone has committed.
    StateMachineSafety,
    /// What is committed is on the disks of a quorum.
    Durability,
    /// A read sees what was committed when it was asked for, and is answered once.
    LinearizableRead,
    /// Terms and commit indexes never go back, and nothing is applied twice or left out.
    Monotony,
    /// Once the faults stop, everyone agrees again, and new writes and reads get through.
    Liveness,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}

/// The content of a log as a checker compares it: term and data by position, without gaps from 1.
pub type Shadow = Vec<(Term, Bytes)>;

/// What all members together have shown.
#[derive(Debug, Default)]
pub struct Checkers {
    leaders: BTreeMap<Term, MemberId>,
    /// What follows and precedes a position and term: the data there, and the term before.
    entries: HashMap<(Index, Term), (Term, Bytes)>,
    committed: Shadow,
    /// For each read under way, what was committed when it was asked for.
    reads: HashMap<(MemberId, ReadId), Index>,
}

impl Checkers {
    /// Everything that any member has known to be committed.
    pub fn committed(&self) -> &Shadow {
        &self.committed
    }

    /// The last committed position.
    pub fn commit(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// A member's log has new entries: takes them into its shadow.
    pub fn appended(&mut self, shadow: &mut Shadow, fresh: &[Entry]) -> Result<(), Violation> {
        for entry in fresh {
            let at = (entry.index.0 - 1) as usize;
            if at > shadow.len() {
                return broken(Rule::LogMatching, format!("a hole before {}", entry.index));
            }
            shadow.truncate(at);
            let before = shadow.last().map_or(Term(0), |(term, _)| *term);
            shadow.push((entry.term, entry.data.clone()));
            let mine = (before, entry.data.clone());
            let first = self.entries.entry((entry.index, entry.term)).or_insert_with(|| mine.clone());
            if *first != mine {
                return broken(Rule::LogMatching, format!("{} of term {} differs", entry.index, entry.term));
            }
        }
        Ok(())
    }

    /// A member's state after a step.
    pub fn stepped(&mut self, before: Status, after: Status, shadow: &Shadow) -> Result<(), Violation> {
        if after.term < before.term || after.commit < before.commit {
            return broken(Rule::Monotony, format!("{before:?} then {after:?}"));
        }
        if after.role == Role::Leader && (before.role != Role::Leader || before.term != after.term) {
            self.elected(after, shadow)?;
        }
        self.commits(after.id, after.commit, shadow)
    }

    fn elected(&mut self, leader: Status, shadow: &Shadow) -> Result<(), Violation> {
        let first = *self.leaders.entry(leader.term).or_insert(leader.id);
        if first != leader.id {
            return broken(Rule::ElectionSafety, format!("{first} and {} lead term {}", leader.id, leader.term));
        }
        if self.committed.last().is_some_and(|(term, _)| *term <= leader.term) && !shadow.starts_with(&self.committed) {
            let text = format!("{} leads term {} without all of 1..={}", leader.id, leader.term, self.commit());
            return broken(Rule::LeaderCompleteness, text);
        }
        Ok(())
    }

    /// A member claims that everything up to `commit` is committed.
    pub fn commits(&mut self, id: MemberId, commit: Index, shadow: &Shadow) -> Result<(), Violation> {
        let known = self.committed.len();
        let upto = commit.0 as usize;
        if upto > shadow.len() {
            return broken(Rule::StateMachineSafety, format!("{id} commits {commit} beyond its log"));
        }
        if upto > known {
            self.committed.extend_from_slice(&shadow[known..upto]);
        }
        // What it committed earlier was compared then; its log can't change there unnoticed, since each change comes through here.
        let from = known.min(upto).saturating_sub(64);
        if shadow[from..upto] != self.committed[from..upto] {
            return broken(Rule::StateMachineSafety, format!("{id} commits another entry somewhere in {from}..={upto}"));
        }
        Ok(())
    }

    /// A member applies `entries`, after `applied`.
    pub fn applies(&self, id: MemberId, applied: Index, entries: &[Entry]) -> Result<(), Violation> {
        let mut at = applied;
        for entry in entries {
            if entry.index != at.next() {
                return broken(Rule::Monotony, format!("{id} applies {} after {at}", entry.index));
            }
            at = entry.index;
            if self.committed.get((at.0 - 1) as usize) != Some(&(entry.term, entry.data.clone())) {
                return broken(Rule::StateMachineSafety, format!("{id} applies another entry at {at}"));
            }
        }
        Ok(())
    }

    /// How many members have each of `from..=commit` on disk, according to `holds`, must be a majority.
    pub fn durable(&self, from: Index, members: usize, holds: impl Fn(Index, &(Term, Bytes)) -> usize) -> Result<(), Violation> {
        for at in from.0..self.committed.len() as u64 {
            let disks = holds(Index(at + 1), &self.committed[at as usize]);
            if disks * 2 <= members {
                return broken(Rule::Durability, format!("{} is committed, but on {disks} of {members} disks", at + 1));
            }
        }
        Ok(())
    }

    /// A read is asked for.
    pub fn read_begins(&mut self, id: MemberId, read: ReadId) {
        self.reads.insert((id, read), self.commit());
    }

    /// A read is answered with `index`, or refused.
    pub fn read_ends(&mut self, id: MemberId, read: ReadId, index: Option<Index>) -> Result<(), Violation> {
        let Some(floor) = self.reads.remove(&(id, read)) else {
            return broken(Rule::LinearizableRead, format!("{id} answers {read:?} twice, or unasked"));
        };
        match index {
            Some(index) if index < floor => {
                broken(Rule::LinearizableRead, format!("{id} answers {read:?} with {index}, but {floor} was committed"))
            }
            _ => Ok(()),
        }
    }

    /// A member crashed: its reads will not be answered.
    pub fn forget_reads(&mut self, id: MemberId) {
        self.reads.retain(|(member, _), _| *member != id);
    }

    /// How many reads of `id` are under way.
    pub fn reads_open(&self, id: MemberId) -> usize {
        self.reads.keys().filter(|(member, _)| *member == id).count()
    }

    /// A message must speak of a term that its sender is in.
    pub fn sends(&self, status: Status, envelope: &Envelope) -> Result<(), Violation> {
        if envelope.message.term > status.term || envelope.to == status.id {
            return broken(Rule::Monotony, format!("{} sends {envelope:?} in term {}", status.id, status.term));
        }
        Ok(())
    }
}

fn broken(rule: Rule, text: String) -> Result<(), Violation> {
    Err(Violation { rule, text })
}
