//! Who belongs to the cluster: names and URLs of members, and which of them vote.
//!
//! **Promises.** One truth: whether a member votes or learns is asked of raft's [`ConfState`] alone and never kept a second time
//! beside its URLs, and what a change makes of it is [`ConfState::after`] here as there. A removed id never comes back. Every change is checked as a whole before anything of it is kept, and its rows
//! go into one batch.
//! **May not know** who leads, who is reachable, or what a member's flags are.

mod identity;
mod row;

pub use identity::{Identity, cluster_id, member_id};
pub use row::decode_conf_state;

use crate::{
    engine::{Batch, Engine, Table as Rows},
    types::{ConfChange, ConfRefusal, ConfState, ConfStep, ConfStepKind, Error, Fault, MemberId},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, ControlFlow},
};

/// Row of [`Rows::Meta`] that holds who votes and who learns; see [`decode_conf_state`].
pub const CONF_STATE: &[u8] = b"conf_state";

/// A member, as the table tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// For life.
    pub id: MemberId,
    /// Empty until the member has started and told its name.
    pub name: String,
    /// Where other members find it.
    pub peer_urls: Vec<String>,
    /// Where clients find it; empty until it has started.
    pub client_urls: Vec<String>,
    /// Whether it receives the log without a vote. Read from the [`ConfState`].
    pub is_learner: bool,
}

/// One change of who belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new member, a voter or a learner as `is_learner` says.
    Add(Member),
    /// A learner gets a vote.
    Promote(MemberId),
    /// A member leaves for good.
    Remove(MemberId),
    /// A member has other peer URLs. Never changes who votes.
    UpdatePeers(MemberId, Vec<String>),
}

impl Change {
    /// Whom it is about.
    pub fn member(&self) -> MemberId {
        match self {
            Change::Add(member) => member.id,
            Change::Promote(id) | Change::Remove(id) | Change::UpdatePeers(id, _) => *id,
        }
    }
}

/// What one entry of the log does to the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// One change, which is there at once.
    One(Change),
    /// Several at once, each of another member, through a joint membership.
    Joint {
        /// What changes.
        changes: Vec<Change>,
        /// The leader ends the joint membership by itself.
        auto_leave: bool,
    },
    /// The end of a joint membership.
    Leave,
}

/// What is kept of one member: all but who it is and whether it votes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    name: String,
    peer_urls: Vec<String>,
    client_urls: Vec<String>,
}

/// All members, those that left, and raft's membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    records: BTreeMap<MemberId, Record>,
    removed: BTreeSet<MemberId>,
    conf_state: ConfState,
}

impl Table {
    /// Reads what the engine holds.
    ///
    /// # Errors
    /// A broken store, or a row that is none of ours.
    pub fn load(engine: &dyn Engine) -> Result<Table, Fault> {
        let mut table = Table::default();
        let mut wrong = None;
        engine.scan(Rows::Members, (Bound::Unbounded, Bound::Unbounded), &mut |key, value| {
            let id = key.try_into().map(|id| MemberId(u64::from_be_bytes(id))).ok();
            match (id, row::decode_record(&value)) {
                (Some(id), Some(Some(record))) => drop(table.records.insert(id, record)),
                (Some(id), Some(None)) => drop(table.removed.insert(id)),
                _ => {
                    wrong = Some(format!("row {key:02x?} of the members is no member"));
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        if let Some(row) = engine.get(Rows::Meta, CONF_STATE)? {
            match row::decode_conf_state(&row) {
                Some(conf_state) => table.conf_state = conf_state,
                None => wrong = Some("the row of who votes and who learns is malformed".into()),
            }
        }
        match wrong {
            None => Ok(table),
            Some(what) => Err(Fault::Damaged { path: "store".into(), offset: None, what }),
        }
    }

    /// The table of a state that comes from elsewhere; its rows go into `batch`, for a store that has none.
    pub fn adopt(members: Vec<Member>, removed: BTreeSet<MemberId>, conf_state: ConfState, batch: &mut Batch) -> Table {
        let mut table = Table { records: BTreeMap::new(), removed, conf_state };
        for Member { id, name, peer_urls, client_urls, .. } in members {
            table.keep(id, Record { name, peer_urls, client_urls }, batch);
        }
        for id in &table.removed {
            batch.put(Rows::Members, key(*id), row::encode_record(None));
        }
        batch.put(Rows::Meta, CONF_STATE, row::encode_conf_state(&table.conf_state));
        table
    }

    /// Makes all of `changes`, or nothing. Returns what raft is to make of it.
    ///
    /// # Errors
    /// [`Error::MemberExist`] for an id that is or ever was a member's, [`Error::PeerURLExist`], [`Error::MemberNotFound`],
    /// [`Error::MemberNotLearner`], [`Error::MemberNotEnoughStarted`] if nobody would be left to vote, [`Error::Unhealthy`] while
    /// another change is half way, [`Error::Invalid`]. How many learners a cluster may have, and whether a quorum of the members
    /// is well, are questions of whoever proposes, and not asked here.
    pub fn change(&mut self, changes: &Changes, batch: &mut Batch) -> Result<ConfChange, Error> {
        let (mut next, mut rows) = (self.clone(), Batch::default());
        let told = match changes {
            Changes::One(change) => next.one(change, &mut rows)?.map_or(ConfChange::Nothing, ConfChange::Simple),
            Changes::Joint { changes, auto_leave } => {
                check_named_once(changes)?;
                let steps = changes.iter().map(|change| next.one(change, &mut rows));
                let steps = steps.collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().collect();
                ConfChange::Joint { steps, auto_leave: *auto_leave }
            }
            Changes::Leave => ConfChange::Leave,
        };
        next.conf_state = self.conf_state.after(&told).map_err(refusal)?;
        next.forget_who_left(&mut rows);
        if next.conf_state != self.conf_state {
            rows.put(Rows::Meta, CONF_STATE, row::encode_conf_state(&next.conf_state));
        }
        batch.ops.append(&mut rows.ops);
        *self = next;
        Ok(told)
    }

    /// Checks one change against the membership before all of them, and keeps what it says of names and URLs.
    fn one(&mut self, change: &Change, batch: &mut Batch) -> Result<Option<ConfStep>, Error> {
        let step = |kind, member: &MemberId| Ok(Some(ConfStep { kind, member: *member }));
        match change {
            Change::Add(member) => {
                if self.removed.contains(&member.id) || self.records.contains_key(&member.id) {
                    return Err(Error::MemberExist);
                }
                self.check_peer_urls(member.id, &member.peer_urls)?;
                let Member { id, name, peer_urls, client_urls, is_learner } = member.clone();
                self.keep(id, Record { name, peer_urls, client_urls }, batch);
                step(if is_learner { ConfStepKind::AddLearner } else { ConfStepKind::AddVoter }, &id)
            }
            Change::Promote(id) => {
                self.record(*id)?;
                if !self.conf_state.learners.contains(id) {
                    return Err(Error::MemberNotLearner);
                }
                step(ConfStepKind::AddVoter, id)
            }
            Change::Remove(id) => {
                self.record(*id)?;
                step(ConfStepKind::Remove, id)
            }
            Change::UpdatePeers(id, peer_urls) => {
                let record = self.record(*id)?.clone();
                self.check_peer_urls(*id, peer_urls)?;
                self.keep(*id, Record { peer_urls: peer_urls.clone(), ..record }, batch);
                Ok(None)
            }
        }
    }

    /// Whoever is in neither half any more has left for good. A voter that leaves through a joint membership stays until that ends,
    /// since its vote may be needed for it.
    fn forget_who_left(&mut self, batch: &mut Batch) {
        let members = self.conf_state.members();
        let left = self.records.extract_if(.., |id, _| !members.contains(id)).map(|(id, _)| id).collect::<Vec<_>>();
        for id in left {
            self.removed.insert(id);
            batch.put(Rows::Members, key(id), row::encode_record(None));
        }
    }

    /// Takes over what a member tells of itself.
    ///
    /// # Errors
    /// [`Error::MemberNotFound`] for an id that is no member's (any more).
    pub fn set_attributes(
        &mut self,
        id: MemberId,
        name: &str,
        client_urls: &[String],
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let peer_urls = self.record(id)?.peer_urls.clone();
        let (name, client_urls) = (name.to_owned(), client_urls.to_vec());
        self.keep(id, Record { name, peer_urls, client_urls }, batch);
        Ok(())
    }

    /// All members, by id.
    pub fn list(&self) -> Vec<Member> {
        self.records.keys().filter_map(|id| self.get(*id)).collect()
    }

    /// One member.
    pub fn get(&self, id: MemberId) -> Option<Member> {
        let Record { name, peer_urls, client_urls } = self.records.get(&id)?.clone();
        let is_learner = self.conf_state.learners.contains(&id) || self.conf_state.learners_next.contains(&id);
        Some(Member { id, name, peer_urls, client_urls, is_learner })
    }

    /// Whether this id was a member's that left.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// Members that left for good, by id.
    pub fn removed(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.removed.iter().copied()
    }

    /// Who votes and who learns.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    fn record(&self, id: MemberId) -> Result<&Record, Error> {
        self.records.get(&id).ok_or(Error::MemberNotFound)
    }

    /// No two members are reached by one URL: then one of them would answer for both.
    fn check_peer_urls(&self, id: MemberId, urls: &[String]) -> Result<(), Error> {
        let mut others = self.records.iter().filter(|(other, _)| **other != id);
        match others.any(|(_, record)| record.peer_urls.iter().any(|url| urls.contains(url))) {
            true => Err(Error::PeerURLExist),
            false => Ok(()),
        }
    }

    fn keep(&mut self, id: MemberId, record: Record, batch: &mut Batch) {
        batch.put(Rows::Members, key(id), row::encode_record(Some(&record)));
        self.records.insert(id, record);
    }
}

fn key(id: MemberId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

/// What one member becomes at once must not depend on the order in which others are told of.
fn check_named_once(changes: &[Change]) -> Result<(), Error> {
    let mut named = BTreeSet::new();
    match changes.iter().find(|change| !named.insert(change.member())) {
        Some(twice) => Err(Error::Invalid(format!("a change names member {} twice", twice.member()))),
        None => Ok(()),
    }
}

fn refusal(refusal: ConfRefusal) -> Error {
    match refusal {
        ConfRefusal::Joint => Error::Unhealthy,
        ConfRefusal::NotJoint => Error::Invalid("no change of membership is half way".into()),
        ConfRefusal::NoVoters => Error::MemberNotEnoughStarted,
    }
}

#[cfg(test)]
mod tests;
