//! What must hold after every step of every member (Raft paper, figure 3), and for every read.

use super::churn;
use crate::{
    raft::{Body, Envelope, ReadId, Role, Status},
    types::{ConfState, Entry, EntryKind, Index, MemberId, SnapshotMeta, Term},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
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
    /// A member has one vote a term, over all its lives.
    OneVote,
    /// A leader has every entry that was committed before its term.
    LeaderCompleteness,
    /// Nobody applies another entry at a position that someone has committed.
    StateMachineSafety,
    /// What is committed is on the disks of a quorum.
    Durability,
    /// A read sees what was committed when it was asked for, and is answered once.
    LinearizableRead,
    /// Whoever has applied the same has the same membership, and a state that is taken over is what was committed.
    Membership,
    /// A member whose disk hangs does not lead if others could.
    Stalled,
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

/// An entry as a checker compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Term of the leader that made it.
    pub term: Term,
    /// What `data` is.
    pub kind: EntryKind,
    /// The command.
    pub data: Bytes,
}

impl Slot {
    /// The entry without its position.
    pub fn of(entry: &Entry) -> Slot {
        Slot { term: entry.term, kind: entry.kind, data: entry.data.clone() }
    }
}

/// The content of a log: by position, without gaps from 1.
pub type Shadow = Vec<Slot>;

/// What all members together have shown.
#[derive(Debug, Default)]
pub struct Checkers {
    leaders: BTreeMap<Term, MemberId>,
    /// What follows and precedes a position and term: the entry there, and the term before.
    entries: HashMap<(Index, Term), (Term, Slot)>,
    committed: Shadow,
    /// In which term each of them was committed.
    committed_in: Vec<Term>,
    /// Who votes and who learns from each committed change on; at 0 the founders.
    memberships: BTreeMap<Index, ConfState>,
    /// Payloads of committed entries: each was proposed once.
    payloads: HashSet<Bytes>,
    /// Whom each member has been seen to vote for.
    votes: HashMap<(MemberId, Term), MemberId>,
    /// The highest index with which a read of each member was answered.
    answered: HashMap<MemberId, Index>,
    /// For each read under way, what was committed when it was asked for.
    reads: HashMap<(MemberId, ReadId), Index>,
}

impl Checkers {
    /// Of a cluster that `founders` begin.
    pub fn new(founders: ConfState) -> Checkers {
        Checkers { memberships: [(Index(0), founders)].into(), ..Checkers::default() }
    }

    /// Who votes and who learns once everything up to `index` is applied; and the change that made it so.
    pub fn membership_at(&self, index: Index) -> (Index, &ConfState) {
        let (at, conf_state) = self.memberships.range(..=index).next_back().expect("there were founders");
        (*at, conf_state)
    }

    /// Everything that any member has known to be committed.
    pub fn committed(&self) -> &Shadow {
        &self.committed
    }

    /// The last position that anyone has known to be committed.
    pub fn commit(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// How many elections were won.
    pub fn elections(&self) -> usize {
        self.leaders.len()
    }

    /// What a member is about to write: takes what is news into its shadow. Terms tell, since equal ones were compared before.
    pub fn appended(&mut self, shadow: &mut Shadow, pending: &[Entry]) -> Result<(), Violation> {
        for entry in pending {
            let at = (entry.index.0 - 1) as usize;
            if at > shadow.len() {
                return broken(Rule::LogMatching, format!("a hole before {}", entry.index));
            }
            if shadow.get(at).is_some_and(|slot| slot.term == entry.term) {
                continue;
            }
            shadow.truncate(at);
            let before = shadow.last().map_or(Term(0), |slot| slot.term);
            shadow.push(Slot::of(entry));
            // An equal entry and an equal one before it at each position of a term: by induction the logs are equal up to there.
            let mine = (before, Slot::of(entry));
            let first = self.entries.entry((entry.index, entry.term)).or_insert_with(|| mine.clone());
            if *first != mine {
                return broken(Rule::LogMatching, format!("{} of term {} differs", entry.index, entry.term));
            }
        }
        Ok(())
    }

    /// A member's state after a step.
    pub fn stepped(&mut self, before: Status, after: Status, shadow: &Shadow) -> Result<(), Violation> {
        let end = shadow.last().map_or(Term(0), |slot| slot.term);
        if (after.last_index.0, after.last_term) != (shadow.len() as u64, end) {
            return broken(Rule::LogMatching, format!("{after:?} was never told to write that log"));
        }
        if after.term < before.term || after.commit < before.commit {
            return broken(Rule::Monotony, format!("{before:?} then {after:?}"));
        }
        if after.role == Role::Leader && (before.role != Role::Leader || before.term != after.term) {
            self.elected(after, shadow)?;
        }
        self.commits(after.id, after.term, after.commit, shadow)
    }

    fn elected(&mut self, leader: Status, shadow: &Shadow) -> Result<(), Violation> {
        let first = *self.leaders.entry(leader.term).or_insert(leader.id);
        if first != leader.id {
            return broken(Rule::ElectionSafety, format!("{first} and {} lead term {}", leader.id, leader.term));
        }
        self.votes(leader.id, leader.term, leader.id)?;
        // One that is elected late, in a term that is over, need not know what later terms have committed.
        let known = self.committed_in.iter().rposition(|term| *term <= leader.term).map_or(0, |at| at + 1);
        if !shadow.starts_with(&self.committed[..known]) {
            let text = format!("{} leads term {} without all of 1..={known}", leader.id, leader.term);
            return broken(Rule::LeaderCompleteness, text);
        }
        Ok(())
    }

    /// A member claims, in `term`, that everything up to `commit` is committed.
    fn commits(&mut self, id: MemberId, term: Term, commit: Index, shadow: &Shadow) -> Result<(), Violation> {
        let known = self.committed.len();
        let upto = commit.0 as usize;
        if upto > shadow.len() {
            return broken(Rule::StateMachineSafety, format!("{id} commits {commit} beyond its log"));
        }
        for Slot { data, .. } in shadow.get(known..upto).unwrap_or_default() {
            if !data.is_empty() && !self.payloads.insert(data.clone()) {
                return broken(Rule::StateMachineSafety, format!("{id} commits {data:?} twice"));
            }
        }
        if upto > known {
            self.committed.extend_from_slice(&shadow[known..upto]);
            self.committed_in.resize(upto, term);
            for (slot, index) in shadow[known..upto].iter().zip(known as u64 + 1..) {
                let (_, before) = self.membership_at(Index(index));
                let after = churn::change_of(slot.kind, &slot.data).and_then(|change| before.after(&change).ok());
                if let Some(after) = after.filter(|after| after != before) {
                    self.memberships.insert(Index(index), after);
                }
            }
        }
        // What it committed earlier was compared then; its log can't change there unnoticed, since each change comes through here.
        let from = known.min(upto).saturating_sub(64);
        if shadow[from..upto] != self.committed[from..upto] {
            return broken(
                Rule::StateMachineSafety,
                format!("{id} commits another entry somewhere in {from}..={upto}"),
            );
        }
        Ok(())
    }

    fn votes(&mut self, voter: MemberId, term: Term, candidate: MemberId) -> Result<(), Violation> {
        let first = *self.votes.entry((voter, term)).or_insert(candidate);
        if first != candidate {
            return broken(Rule::OneVote, format!("{voter} votes for {first} and for {candidate} in term {term}"));
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
            if self.committed.get((at.0 - 1) as usize) != Some(&Slot::of(entry)) {
                return broken(Rule::StateMachineSafety, format!("{id} applies another entry at {at}"));
            }
        }
        Ok(())
    }

    /// Each of the committed entries after `from` must be on the disks of a quorum, according to `holds`.
    pub fn durable(&self, from: Index, holds: impl Fn(Index, &Slot) -> bool) -> Result<(), Violation> {
        for at in from.0..self.committed.len() as u64 {
            if !holds(Index(at + 1), &self.committed[at as usize]) {
                return broken(Rule::Durability, format!("{} is committed, but not on enough disks", at + 1));
            }
        }
        Ok(())
    }

    /// A member has applied everything up to `index`, and counts by `conf_state`.
    pub fn counts_by(&self, id: MemberId, index: Index, conf_state: &ConfState) -> Result<(), Violation> {
        let (_, expected) = self.membership_at(index);
        match conf_state == expected {
            true => Ok(()),
            false => broken(Rule::Membership, format!("{id} at {index} counts by {conf_state:?}, not {expected:?}")),
        }
    }

    /// A member takes a state over.
    pub fn takes_over(&self, id: MemberId, applied: Index, meta: &SnapshotMeta) -> Result<(), Violation> {
        let there = self.committed.get((meta.index.0 - 1) as usize).map(|slot| slot.term);
        if there != Some(meta.term) || meta.index <= applied {
            return broken(Rule::Membership, format!("{id}, which has applied {applied}, takes over {meta:?}"));
        }
        self.counts_by(id, meta.index, &meta.conf_state)
    }

    /// Whether a command is committed.
    pub fn committed_payload(&self, payload: &Bytes) -> bool {
        self.payloads.contains(payload)
    }

    /// Whether a member has answered a read that was asked for when everything committed now was.
    pub fn has_read(&self, id: MemberId, floor: Index) -> bool {
        self.answered.get(&id).is_some_and(|index| *index >= floor)
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
        let highest = self.answered.entry(id).or_default();
        *highest = index.unwrap_or_default().max(*highest);
        match index {
            Some(index) if index < floor => {
                broken(Rule::LinearizableRead, format!("{id} answers {read:?} with {index}, but {floor} was committed"))
            }
            _ => Ok(()),
        }
    }

    /// A member that led by its own vote alone crashed, and that vote was not on disk: nobody has heard of its term, and it may do the
    /// same again in another way.
    pub fn forget_term(&mut self, id: MemberId, term: Term) {
        self.entries.retain(|(_, of), _| *of != term);
        self.leaders.remove(&term);
        self.votes.remove(&(id, term));
    }

    /// A member crashed: its reads will not be answered.
    pub fn forget_reads(&mut self, id: MemberId) {
        self.reads.retain(|(member, _), _| *member != id);
    }

    /// A message leaves its sender. It must not speak of a term that the sender has not entered.
    pub fn sends(&mut self, from: MemberId, term: Term, envelope: &Envelope) -> Result<(), Violation> {
        if envelope.message.term > term || envelope.to == from {
            return broken(Rule::Monotony, format!("{from} sends {envelope:?} in term {term}"));
        }
        match envelope.message.body {
            Body::Vote { .. } => self.votes(from, envelope.message.term, from),
            Body::VoteReply { granted: true } => self.votes(from, envelope.message.term, envelope.to),
            _ => Ok(()),
        }
    }
}

pub fn broken(rule: Rule, text: String) -> Result<(), Violation> {
    Err(Violation { rule, text })
}
