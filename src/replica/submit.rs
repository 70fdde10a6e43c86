//! The way of a proposal, a read or a question to whoever leads: this member, or another one.

use super::{
    desk,
    handle::Handle,
    reads::Waiting,
    run::{Inbox, Run, Transfer},
    transport::{Answer, Forwarded, Letter, PeerMessage, Question},
};
use crate::{
    auth::Author,
    machine::{Command, RequestId, codec},
    raft::{Input, Proposal, ReadId, Role},
    types::{ConfState, EntryKind, Error, MemberId, Term},
};
use bytes::Bytes;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::sync::oneshot;

/// About how many bytes of proposals travel in one message to the leader.
const FORWARD_BYTES_MAX: usize = 1 << 20;

/// Where proposals go at the moment.
enum Way {
    Own(Term),
    To(MemberId, Term),
    /// Nobody leads, or whoever does is about to hand over.
    Nowhere,
}

/// What decides in which words a proposal is given up.
struct Circumstances<'a> {
    own: MemberId,
    leader: Option<MemberId>,
    /// When this leader was first heard of; 0: never.
    led_since: Duration,
    election: Duration,
    members: &'a ConfState,
    connected_for: &'a dyn Fn(MemberId) -> Option<Duration>,
}

impl Circumstances<'_> {
    /// Why what has waited from `since` until `now` was in vain: etcd's reasons. Without a leader etcd names none.
    fn reason(&self, since: Duration, now: Duration) -> Error {
        let lost_at = self.led_since.saturating_sub(self.election * 2);
        let waited = now.saturating_sub(since);
        let stood = |id: &MemberId| (self.connected_for)(*id).is_some_and(|time| time >= waited);
        match self.leader {
            // Who began while a leader was being lost was hit by that.
            _ if self.led_since > Duration::ZERO && (lost_at..=self.led_since).contains(&since) => {
                Error::TimeoutDueToLeaderFail
            }
            Some(leader) if leader == self.own => {
                let is_there = |id: &&MemberId| **id == self.own || stood(id);
                let is_majority = |half: &[MemberId]| half.iter().filter(is_there).count() * 2 > half.len();
                let outgoing = &self.members.voters_outgoing;
                match is_majority(&self.members.voters) && (outgoing.is_empty() || is_majority(outgoing)) {
                    true => Error::Timeout,
                    false => Error::TimeoutDueToConnectionLost,
                }
            }
            Some(leader) if !stood(&leader) => Error::TimeoutDueToConnectionLost,
            _ => Error::Timeout,
        }
    }
}

impl Run {
    fn way(&self) -> Way {
        let status = self.node.status();
        match status.leader {
            Some(leader) if leader == self.shared.member_id => match (status.role, status.transferee) {
                (Role::Leader, None) => Way::Own(status.term),
                _ => Way::Nowhere,
            },
            Some(leader) => Way::To(leader, status.term),
            None => Way::Nowhere,
        }
    }

    /// Sends proposals of this member's callers to the log.
    pub(super) fn propose(&mut self, ids: &[RequestId]) {
        match self.way() {
            Way::Own(term) => {
                let proposals = self.take(ids, term);
                for (id, kind) in self.append(proposals) {
                    match kind {
                        EntryKind::Normal => self.shared.proposals.fail(id, Error::RequestTooManyRequests),
                        // Another change is under way: this one waits for its end.
                        _ => {
                            self.shared.proposals.recall(&[id], term);
                            self.parked.push_back(id);
                        }
                    }
                }
            }
            Way::To(leader, term) => {
                let proposals = self.take(ids, term);
                let letters = packs(proposals)
                    .map(|proposals| Letter { to: leader, message: PeerMessage::Forward { term, proposals } });
                self.shared.transport.send(letters.collect());
            }
            Way::Nowhere => self.parked.extend(ids),
        }
    }

    /// Those of `ids` that go to the log of `term` now.
    fn take(&self, ids: &[RequestId], term: Term) -> Vec<Forwarded> {
        let shared = &self.shared;
        shared.proposals.submit(ids, term, shared.clock.now(), &shared.facts.tally.queued)
    }

    /// Appends to the own log; returns what was not taken.
    fn append(&mut self, mut proposals: Vec<Forwarded>) -> Vec<(RequestId, EntryKind)> {
        let mut refused = Vec::new();
        while !proposals.is_empty() {
            // A change of membership goes alone: what is refused is always the end of a batch.
            let is_change = |proposal: &Forwarded| proposal.kind != EntryKind::Normal;
            let count = proposals.iter().position(is_change).map_or(proposals.len(), |at| at.max(1));
            let rest = proposals.split_off(count);
            let named = proposals.iter().map(|proposal| (proposal.id, proposal.kind)).collect::<Vec<_>>();
            let batch = proposals.into_iter().map(|Forwarded { kind, data, .. }| Proposal { kind, data });
            let before = self.out.proposals_dropped;
            self.step(Input::Propose(batch.collect()));
            let dropped = self.out.proposals_dropped - before;
            refused.extend_from_slice(&named[named.len() - dropped..]);
            proposals = rest;
        }
        refused
    }

    /// Takes what a follower has sent to the leader of `term`.
    pub(super) fn take_forwarded(&mut self, from: MemberId, term: Term, proposals: Vec<Forwarded>) {
        let returned = match self.way() {
            Way::Own(own) if own == term => {
                let (full, busy) =
                    self.append(proposals).into_iter().partition::<Vec<_>, _>(|(_, kind)| *kind == EntryKind::Normal);
                let ids = |named: Vec<(RequestId, EntryKind)>| named.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
                [(ids(full), true), (ids(busy), false)]
            }
            _ => [(proposals.into_iter().map(|proposal| proposal.id).collect(), false), (Vec::new(), false)],
        };
        let letters = returned.into_iter().filter(|(ids, _)| !ids.is_empty());
        let letters =
            letters.map(|(ids, is_full)| Letter { to: from, message: PeerMessage::Returned { term, ids, is_full } });
        self.shared.transport.send(letters.collect());
    }

    /// Takes back what did not get into the leader's log. It is tried again at the next tick, or with the next leader.
    pub(super) fn take_returned(&mut self, term: Term, ids: &[RequestId], is_full: bool) {
        self.shared.proposals.recall(ids, term);
        match is_full {
            true => self.shared.proposals.refuse_idle(ids, &Error::RequestTooManyRequests),
            false => self.parked.extend(ids),
        }
    }

    /// All reads that wait at this moment share one quorum round. Its id is never used again, not even after a restart.
    pub(super) fn read(&mut self, reads: Vec<Waiting>) {
        if self.node.status().leader.is_none() {
            return self.parked_reads.extend(reads);
        }
        self.next_read += 1;
        let id = ReadId(self.next_read);
        self.shared.reads.begin(id, reads);
        self.shared.readers.lock().went(id.0, self.shared.clock.now());
        self.step(Input::ReadIndex(id));
    }

    /// Puts open questions to the leader.
    pub(super) fn put_questions(&mut self) {
        let status = self.node.status();
        let Some(leader) = status.leader else { return };
        let now = self.shared.clock.now();
        let term = status.term;
        let due = self.desk.due(leader, term, now, self.election / 2);
        if leader != self.shared.member_id {
            let letters = due.into_iter();
            let letters =
                letters.map(|(id, question)| Letter { to: leader, message: PeerMessage::Ask { id, term, question } });
            return self.shared.transport.send(letters.collect());
        }
        for (id, question) in due {
            match self.answer_at_once(&question) {
                Some(answer) => self.desk.answered(id, answer, term),
                None => {
                    let handle = Handle { shared: self.shared.clone() };
                    self.shared.tasks.spawn(Box::pin(async move {
                        let answer = desk::answer(handle.clone(), question, None).await;
                        // A full inbox loses an answer as a network may; the question is put again.
                        let _ = handle.shared.inbox.try_send(Inbox::Answered { id, answer });
                    }));
                }
            }
        }
    }

    /// Takes the question of another member that was in `term` when it asked.
    pub(super) fn take_question(&mut self, from: MemberId, id: u64, term: Term, question: Question) {
        match self.answer_at_once(&question) {
            Some(answer) => {
                self.shared.transport.send(vec![Letter { to: from, message: PeerMessage::Answer { id, answer } }])
            }
            None => desk::answer_peer(&self.shared, from, id, question, self.node.vouched(from, term)),
        }
    }

    /// What only the loop knows.
    fn answer_at_once(&self, question: &Question) -> Option<Answer> {
        let Question::IsReady(member) = question else { return None };
        if self.node.status().role != Role::Leader {
            return Some(Answer::NotLeader);
        }
        let follower = self.node.followers().into_iter().find(|follower| follower.id == *member);
        // etcd's rule: nine tenths of what the leader has.
        let last = self.node.status().commit.0 as f64;
        let is_ready = follower.is_some_and(|follower| follower.active && follower.matched.0 as f64 >= last * 0.9);
        Some(Answer::Is(is_ready))
    }

    /// What waited for a leader tries again, if there is one.
    pub(super) fn retry(&mut self) {
        self.put_questions();
        if matches!(self.way(), Way::Nowhere) {
            return;
        }
        if !self.parked.is_empty() {
            let ids = std::mem::take(&mut self.parked).into_iter().collect::<Vec<_>>();
            self.propose(&ids);
        }
        if !self.parked_reads.is_empty() {
            let reads = std::mem::take(&mut self.parked_reads);
            self.read(reads);
        }
    }

    /// Ends what has waited too long.
    pub(super) fn expire(&mut self, now: Duration) {
        let own = self.shared.member_id;
        let circumstances = Circumstances {
            own,
            leader: self.node.status().leader,
            led_since: Duration::from_micros(self.shared.facts.led_since_us.load(Ordering::Relaxed)),
            election: self.election,
            members: &self.node.members().conf_state(),
            connected_for: &|id| self.shared.transport.connected_for(id),
        };
        self.shared.proposals.expire(now, |since| circumstances.reason(since, now));
        self.shared.reads.expire(now);
        self.desk.expire(now);
        let late = self.parked_reads.extract_if(.., |read| read.deadline <= now).collect();
        super::reads::answer(late, &Err(Error::Timeout));
        if let Some(late) = self.transfer.take_if(|transfer| transfer.deadline <= now) {
            let _ = late.reply.send(Err(Error::Timeout));
        }
    }

    /// Appends commands of the member's own; nobody waits for their outcome, and what raft drops comes up again by itself.
    pub(super) fn propose_own(&mut self, commands: impl IntoIterator<Item = Command>) {
        let encode = |command: Command| {
            let id = RequestId(self.shared.chance());
            Forwarded { id, kind: EntryKind::Normal, data: codec::encode(id, &Author::Member, &command) }
        };
        let proposals = commands.into_iter().map(encode).collect::<Vec<_>>();
        if proposals.is_empty() {
            return;
        }
        match self.way() {
            Way::Own(_) => drop(self.append(proposals)),
            Way::To(leader, term) => {
                self.shared
                    .transport
                    .send(vec![Letter { to: leader, message: PeerMessage::Forward { term, proposals } }]);
            }
            Way::Nowhere => {}
        }
    }

    /// Proposes the end of leases that have run out, and now and then how much time the others have left. What raft drops the wheel
    /// names again. Only a leader that a quorum has confirmed may say that a lease has run out.
    pub(super) fn tend_leases(&mut self, is_confirmed: bool) {
        if !is_confirmed {
            return;
        }
        let expired = self.shared.expiry.expired();
        if !expired.is_empty() {
            self.shared.facts.tally.leases_expired.fetch_add(expired.len() as u64, Ordering::Relaxed);
        }
        let revokes = expired.into_iter().map(|id| Command::LeaseRevoke { id });
        let checkpoints = Some(self.shared.expiry.checkpoints()).filter(|due| !due.is_empty());
        let commands = revokes.chain(checkpoints.map(Command::LeaseCheckpoint)).collect::<Vec<_>>();
        self.propose_own(commands);
    }

    /// Begins to hand over the lead.
    pub(super) fn begin_transfer(&mut self, to: Option<MemberId>, reply: oneshot::Sender<Result<(), Error>>) {
        let status = self.node.status();
        if status.role != Role::Leader {
            return drop(reply.send(Err(Error::NotLeader)));
        }
        let is_voter = |id: MemberId| self.node.members().is_voter(id);
        let followers = self.node.followers();
        let best = || {
            let candidates = followers.iter().filter(|follower| follower.active && is_voter(follower.id));
            candidates.max_by_key(|follower| follower.matched).map(|follower| follower.id)
        };
        let Some(to) = to.or_else(best) else { return drop(reply.send(Err(Error::BadLeaderTransferee))) };
        if to == self.shared.member_id {
            return drop(reply.send(Ok(())));
        }
        if !is_voter(to) || !followers.iter().any(|follower| follower.id == to) {
            return drop(reply.send(Err(Error::BadLeaderTransferee)));
        }
        let deadline = self.shared.clock.now() + self.election * 2;
        if let Some(earlier) = self.transfer.replace(Transfer { to, deadline, reply }) {
            let _ = earlier.reply.send(Err(Error::Timeout));
        }
        self.step(Input::Transfer(to));
    }

    /// Tells whoever waits for a transfer how it ended.
    pub(super) fn end_transfer(&mut self, leader: Option<MemberId>) {
        let Some(leader) = leader else { return };
        if let Some(Transfer { to, reply, .. }) = self.transfer.take() {
            let _ = reply.send(if leader == to { Ok(()) } else { Err(Error::LeaderChanged) });
        }
    }
}

/// Proposals in portions of bounded bytes.
fn packs(proposals: Vec<Forwarded>) -> impl Iterator<Item = Vec<Forwarded>> {
    let mut rest = proposals.into_iter().peekable();
    std::iter::from_fn(move || {
        rest.peek()?;
        let mut bytes = 0;
        let fits = |data: &Bytes, bytes: &mut usize| {
            let first = *bytes == 0;
            *bytes += data.len().max(1);
            first || *bytes <= FORWARD_BYTES_MAX
        };
        let mut pack = Vec::new();
        while let Some(next) = rest.next_if(|next| fits(&next.data, &mut bytes)) {
            pack.push(next);
        }
        Some(pack)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a cluster of 1, 2 and 3, of which this is 1: after seven seconds of waiting, since when `connected` are.
    fn reason(leader: Option<u64>, led_since_s: u64, connected: &[u64]) -> Error {
        let members = ConfState { voters: [1, 2, 3].map(MemberId).to_vec(), ..ConfState::default() };
        let connected_for = |id: MemberId| Some(Duration::from_secs(if connected.contains(&id.0) { 60 } else { 6 }));
        let circumstances = Circumstances {
            own: MemberId(1),
            leader: leader.map(MemberId),
            led_since: Duration::from_secs(led_since_s),
            election: Duration::from_secs(1),
            members: &members,
            connected_for: &connected_for,
        };
        circumstances.reason(Duration::from_secs(100), Duration::from_secs(107))
    }

    #[test]
    fn what_was_in_vain_is_given_up_in_the_words_that_etcd_has_for_it() {
        assert_eq!(reason(None, 50, &[2, 3]), Error::Timeout);
        assert_eq!(reason(None, 0, &[]), Error::Timeout);
        assert_eq!(reason(Some(1), 50, &[2]), Error::Timeout);
        assert_eq!(reason(Some(1), 50, &[]), Error::TimeoutDueToConnectionLost);
        assert_eq!(reason(Some(2), 50, &[2]), Error::Timeout);
        assert_eq!(reason(Some(2), 50, &[3]), Error::TimeoutDueToConnectionLost);
        assert_eq!(reason(Some(2), 101, &[2]), Error::TimeoutDueToLeaderFail);
        assert_eq!(reason(Some(2), 103, &[2]), Error::Timeout);
    }
}
