//! What clients ask of members, through their handles; and what becomes of the answers.

use super::{
    checkers::{Floor, Rule, Violation, broken},
    world::World,
};
use crate::{
    auth::Author,
    io::Rng,
    machine::{Applied, Command, Reply},
    membership::Change,
    mvcc::{RangeQuery, RangeResult},
    replica::Handle,
    types::{Error, Index, LeaseId, MemberId, Revision},
};

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A write.
    Write(Command),
    /// A linearizable read.
    Read(RangeQuery),
    /// A read of what the member has.
    ReadLocally(RangeQuery),
    /// A new lease.
    Grant(i64),
    /// Another time to live.
    Renew(LeaseId),
    /// How much time is left.
    Remaining(LeaseId),
    /// The end of a lease.
    Revoke(LeaseId),
    /// To hand over the lead.
    MoveLeader(MemberId),
    /// To change the membership.
    Change(Change),
    /// Whether a learner could vote.
    IsReady(MemberId),
    /// A write at the end of a run, to see that they work.
    ProveWrite(Command),
    /// A read likewise.
    ProveRead(RangeQuery),
}

/// What comes back.
#[derive(Debug)]
pub enum Answer {
    /// To what goes through the log.
    Applied(Result<Applied, Error>),
    /// To reads. The first error is one of the way there.
    Found(Result<Result<RangeResult, Error>, Error>),
    /// To questions about leases.
    Seconds(Result<Option<i64>, Error>),
    /// To questions about learners.
    Is(Result<bool, Error>),
    /// To the rest.
    Done(#[allow(dead_code, reason = "for the report")] Result<(), Error>),
}

/// A call under way.
pub struct Call {
    /// At which machine.
    pub at: usize,
    /// In which life.
    pub life: u64,
    /// Whose.
    pub client: Option<usize>,
    /// What.
    pub ask: Ask,
    /// What was known when it was made: answers,
    floor: Floor,
    /// what was committed,
    known: Index,
    /// and what the clocks showed.
    clocks: Vec<u64>,
}

impl World {
    /// Asks the member of a machine, which must run.
    pub fn call(&mut self, at: usize, client: Option<usize>, ask: Ask) -> u64 {
        let up = self.hosts[at].up.as_ref().expect("only running members are asked");
        let future = begin(up.handle.clone(), ask.clone(), self.plan.lie == Some(super::plan::Lie::ReadsLocally));
        let number = self.executor.spawn(future);
        let (floor, known, clocks) = (self.checkers.floor, self.checkers.last(), self.clocks());
        if let Ask::Revoke(id) = &ask {
            self.checkers.leases.given_up(*id);
        }
        self.note(|| format!("m{} #{number} {ask:?}", at + 1));
        let life = self.hosts[at].life;
        self.calls.insert(number, Call { at, life, client, ask, floor, known, clocks });
        number
    }

    /// A caller goes away: its member is gone, or it has waited long enough.
    pub fn hang_up(&mut self, number: u64) {
        self.executor.abandon(number);
        let Some(call) = self.calls.remove(&number) else { return };
        self.note(|| format!("#{number} is given up"));
        if let Ask::Change(change) = &call.ask {
            self.change_ended(change.clone(), false);
        }
        if let Some(client) = call.client {
            self.client_rests(client);
        }
    }

    /// An answer has come.
    pub fn answered(&mut self, call: Call, answer: Answer) -> Result<(), Violation> {
        self.stats.answers += 1;
        self.note(|| format!("m{} {:?} is answered {answer:?}", call.at + 1, call.ask));
        if !self.hosts[call.at].is_suspect {
            self.check(&call, &answer)?;
        }
        self.follow_up(&call, answer);
        if let Some(client) = call.client {
            self.client_rests(client);
        }
        Ok(())
    }

    fn check(&mut self, call: &Call, answer: &Answer) -> Result<(), Violation> {
        match (&call.ask, answer) {
            (Ask::Grant(_), Answer::Applied(Ok(applied))) => {
                self.checkers.wrote(call.floor, applied)?;
                if let Ok(Reply::LeaseGrant { id, ttl_s }) = applied.result {
                    self.checkers.leases.promised(id, ttl_s, call.clocks.clone());
                }
                Ok(())
            }
            (_, Answer::Applied(Ok(applied))) => self.checkers.wrote(call.floor, applied),
            (Ask::Read(query) | Ask::ProveRead(query), Answer::Found(Ok(result))) => {
                self.checkers.read(call.floor, query, result)
            }
            (Ask::ReadLocally(query), Answer::Found(Ok(result))) => {
                let Some(client) = call.client else { return Ok(()) };
                let member = (self.hosts[call.at].id, call.life);
                let seen = self.clients[client].seen.entry(member).or_insert(Revision(0));
                self.checkers.read_locally(seen, query, result)
            }
            (Ask::Renew(id), Answer::Seconds(Ok(seconds))) => {
                let now = self.clocks();
                self.checkers.renewed(*id, *seconds, call.known, call.clocks.clone(), &now)
            }
            (Ask::Remaining(id), Answer::Seconds(Ok(seconds))) => {
                let (granted, revoked) = self.checkers.oracle.lease(*id);
                let is_over = granted.is_none() || revoked.is_some_and(|revoked| revoked <= call.known);
                match seconds {
                    Some(_) if is_over => broken(Rule::Lease, format!("{id} is over, but has {seconds:?} seconds")),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// What follows from an answer, beside that it must be right.
    fn follow_up(&mut self, call: &Call, answer: Answer) {
        match (&call.ask, answer) {
            (Ask::Change(change), Answer::Applied(applied)) => {
                let is_made = applied.is_ok_and(|applied| applied.result.is_ok());
                self.change_ended(change.clone(), is_made);
            }
            (Ask::IsReady(id), Answer::Is(Ok(true))) => self.promote(call.at, *id),
            (Ask::Grant(_), Answer::Applied(Ok(Applied { result: Ok(Reply::LeaseGrant { id, .. }), .. }))) => {
                self.client_has(call.client, id);
            }
            (Ask::Read(_), Answer::Found(Ok(Ok(found)))) => {
                if let Some(client) = call.client {
                    let known = &mut self.clients[client].known;
                    known.extend(found.kvs.into_iter().map(|kv| (kv.key.clone(), kv)));
                }
            }
            (Ask::ProveWrite(_), Answer::Applied(Ok(_))) => self.proofs.written.push(self.hosts[call.at].id),
            (Ask::ProveRead(_), Answer::Found(Ok(_))) => self.proofs.read.push(self.hosts[call.at].id),
            _ => {}
        }
    }

    /// A client takes up its work again after a while.
    fn client_rests(&mut self, number: usize) {
        self.clients[number].call = None;
        let delay = self.chance.between(1, self.plan.client_gap);
        self.after(delay, super::world::Event::Client { number });
    }
}

fn begin(handle: Handle, ask: Ask, reads_locally: bool) -> super::executor::Job<Answer> {
    Box::pin(async move {
        match ask {
            Ask::Write(command) | Ask::ProveWrite(command) => Answer::Applied(handle.propose(command).await),
            Ask::Revoke(id) => Answer::Applied(handle.propose(Command::LeaseRevoke { id }).await),
            Ask::Grant(ttl_s) => Answer::Applied(handle.lease_grant(&Author::Member, LeaseId::NONE, ttl_s).await),
            Ask::Change(change) => Answer::Applied(handle.change_members(change).await),
            Ask::Read(query) | Ask::ProveRead(query) => {
                let asked = if reads_locally { Ok(()) } else { handle.read_index().await };
                Answer::Found(asked.map(|()| range(&handle, &query)))
            }
            Ask::ReadLocally(query) => Answer::Found(Ok(range(&handle, &query))),
            Ask::Renew(id) => Answer::Seconds(handle.lease_keep_alive(vec![id]).await.map(|seconds| seconds[0])),
            Ask::Remaining(id) => Answer::Seconds(handle.lease_remaining_s(id).await),
            Ask::MoveLeader(to) => Answer::Done(handle.move_leader(to).await),
            Ask::IsReady(id) => Answer::Is(handle.learner_is_ready(id).await),
        }
    })
}

fn range(handle: &Handle, query: &RangeQuery) -> Result<RangeResult, Error> {
    handle.reader().range(query).expect("a store in memory is sound")
}

/// Whichever of `of`.
pub fn pick<T: Copy>(chance: &mut crate::sim::Chance, of: &[T]) -> Option<T> {
    if of.is_empty() {
        return None;
    }
    of.get(chance.below(of.len() as u64) as usize).copied()
}
