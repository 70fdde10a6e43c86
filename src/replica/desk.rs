//! What is asked of the leader beside the log: leases are renewed, and members looked at, by whoever leads.
//!
//! Whatever comes in between two turns of the loop travels as one question. A question is put again when the leader changes or an
//! answer does not come; all of them may be answered twice without harm.

use super::{
    handle::{Handle, Shared},
    transport::{Answer, Letter, PeerMessage, Question},
};
use crate::{
    machine::Command,
    types::{Error, Index, LeaseId, MemberId, Term},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// Most calls that may wait for the leader's answer.
const CALLS_MAX: usize = 1_000_000;
/// Most leases in one question.
const LEASES_MAX: usize = 10_000;

/// Who waits for what is known of some leases: the seconds of each, or that there is no such lease.
pub(super) type SecondsReply = oneshot::Sender<Result<Vec<Option<i64>>, Error>>;

/// A call about some leases.
pub(crate) struct LeaseCall {
    pub(super) ids: Vec<LeaseId>,
    /// To be renewed; else only looked at.
    pub(super) renews: bool,
    pub(super) reply: SecondsReply,
}

enum Replies {
    /// And of how many leases each wants to know.
    Seconds(Vec<(usize, SecondsReply)>),
    Is(oneshot::Sender<Result<bool, Error>>),
}

impl Replies {
    fn len(&self) -> usize {
        match self {
            Replies::Seconds(replies) => replies.iter().map(|(count, _)| count).sum(),
            Replies::Is(_) => 1,
        }
    }

    /// A caller that has gone away does not want to know.
    fn fail(self, error: &Error) {
        match self {
            Replies::Seconds(replies) => {
                replies.into_iter().for_each(|(_, reply)| drop(reply.send(Err(error.clone()))));
            }
            Replies::Is(reply) => drop(reply.send(Err(error.clone()))),
        }
    }
}

impl LeaseCall {
    /// A caller that has gone away does not want to know.
    pub(super) fn fail(self, error: &Error) {
        let _ = self.reply.send(Err(error.clone()));
    }
}

/// A question without an answer yet.
struct Open {
    question: Question,
    replies: Replies,
    deadline: Duration,
    /// To whom and when it was put last.
    put: Option<(MemberId, Term, Duration)>,
}

/// The open questions of this member.
pub(super) struct Desk {
    open: BTreeMap<u64, Open>,
    next: u64,
    calls: usize,
}

impl Desk {
    /// `first` is the id of the first question; no run of this member before may have used it or those after it.
    pub(super) fn new(first: u64) -> Desk {
        Desk { open: BTreeMap::new(), next: first, calls: 0 }
    }

    /// Takes calls about leases, as few questions; the number of the last one.
    pub(super) fn take_leases(&mut self, calls: Vec<LeaseCall>, deadline: Duration) -> u64 {
        let (renew, look): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| call.renews);
        for (calls, question) in [(renew, Question::Renew as fn(Vec<LeaseId>) -> Question), (look, Question::Remaining)]
        {
            let (mut ids, mut replies) = (Vec::new(), Vec::new());
            for call in calls {
                if !ids.is_empty() && ids.len() + call.ids.len() > LEASES_MAX {
                    let replies = Replies::Seconds(std::mem::take(&mut replies));
                    self.take(question(std::mem::take(&mut ids)), replies, deadline);
                }
                replies.push((call.ids.len(), call.reply));
                ids.extend(call.ids);
            }
            if !replies.is_empty() {
                self.take(question(ids), Replies::Seconds(replies), deadline);
            }
        }
        self.next.saturating_sub(1)
    }

    /// Takes a call about a learner.
    pub(super) fn take_is_ready(
        &mut self,
        member: MemberId,
        reply: oneshot::Sender<Result<bool, Error>>,
        deadline: Duration,
    ) {
        self.take(Question::IsReady(member), Replies::Is(reply), deadline);
    }

    fn take(&mut self, question: Question, replies: Replies, deadline: Duration) {
        if self.calls + replies.len() > CALLS_MAX {
            return replies.fail(&Error::RequestTooManyRequests);
        }
        self.calls += replies.len();
        self.open.insert(self.next, Open { question, replies, deadline, put: None });
        self.next += 1;
    }

    /// The questions that `leader` of `term` has not been asked, or has not answered for `patience`. They count as put from now on.
    pub(super) fn due(
        &mut self,
        leader: MemberId,
        term: Term,
        now: Duration,
        patience: Duration,
    ) -> Vec<(u64, Question)> {
        let is_due = |open: &Open| match open.put {
            Some((to, at_term, at)) => (to, at_term) != (leader, term) || now >= at + patience,
            None => true,
        };
        let due = self.open.iter_mut().filter(|(_, open)| is_due(open));
        due.map(|(id, open)| {
            open.put = Some((leader, term, now));
            (*id, open.question.clone())
        })
        .collect()
    }

    /// Gives the callers their answer. One that comes twice, or late, finds nobody. What a leader says whose term is over, since this
    /// member is in `term`, may not hold any more.
    pub(super) fn answered(&mut self, id: u64, answer: Answer, term: Term) {
        let is_of_now = |open: &Open| open.put.is_some_and(|(_, asked_in, _)| asked_in == term);
        if answer == Answer::NotLeader || !self.open.get(&id).is_some_and(is_of_now) {
            // Put again when there is a leader.
            return;
        }
        let Some(open) = self.open.remove(&id) else { return };
        self.calls -= open.replies.len();
        match (open.replies, answer) {
            (replies @ Replies::Seconds(_), Answer::Seconds(seconds)) if replies.len() == seconds.len() => {
                let Replies::Seconds(replies) = replies else { unreachable!("matched just now") };
                let mut seconds = seconds.into_iter();
                for (count, reply) in replies {
                    let _ = reply.send(Ok(seconds.by_ref().take(count).collect()));
                }
            }
            (Replies::Is(reply), Answer::Is(yes)) => drop(reply.send(Ok(yes))),
            (replies, answer) => {
                tracing::warn!(?answer, "the leader's answer does not fit the question");
                replies.fail(&Error::Timeout);
            }
        }
    }

    /// Ends the questions whose deadline has passed.
    pub(super) fn expire(&mut self, now: Duration) {
        let late = self.open.extract_if(.., |_, open| open.deadline <= now).collect::<Vec<_>>();
        for (_, open) in late {
            self.calls -= open.replies.len();
            open.replies.fail(&Error::Timeout);
        }
    }

    /// Ends all questions.
    pub(super) fn fail_all(&mut self, error: &Error) {
        self.calls = 0;
        for (_, open) in std::mem::take(&mut self.open) {
            open.replies.fail(error);
        }
    }
}

/// Answers a question about leases by this member's clock, if it leads and can prove it.
///
/// The proof comes first, unless the question itself is one (`vouched`: see [`Node::vouched`]): then all is applied here that anybody was told before, a grant or a revocation. A lease that is renewed after it
/// lives as long as was promised also under a leader that is elected meanwhile, who gives it its full time. Two answers need
/// a second proof, after they were found: that there is no such lease, which a newer leader may have renewed; and a renewal that takes
/// back a checkpoint, which a newer leader may have started from.
pub(super) async fn answer(handle: Handle, question: Question, vouched: Option<Index>) -> Answer {
    let term = handle.term();
    let is_leader = || handle.shared.expiry.runs_in(term);
    let proof = async {
        match vouched {
            Some(index) => handle.applied_to(index).await,
            None => handle.read_index().await,
        }
    };
    if !is_leader() || proof.await.is_err() || !is_leader() {
        return Answer::NotLeader;
    }
    let Some((seconds, is_certain)) = look(&handle, &question).await else { return Answer::NotLeader };
    if !is_certain && handle.read_index().await.is_err() {
        return Answer::NotLeader;
    }
    match is_leader() {
        true => Answer::Seconds(seconds),
        false => Answer::NotLeader,
    }
}

/// What this member's clock says, and whether that holds without a second proof.
async fn look(handle: &Handle, question: &Question) -> Option<(Vec<Option<i64>>, bool)> {
    let (seconds, resets) = match question {
        Question::Renew(ids) => renew(handle, ids).await?,
        Question::Remaining(ids) => (ids.iter().map(|id| handle.shared.expiry.remaining_s(*id)).collect(), false),
        Question::IsReady(_) => unreachable!("answered by the loop, which knows the followers"),
    };
    let is_certain = !resets && !seconds.contains(&None);
    Some((seconds, is_certain))
}

/// The seconds of each, and whether a checkpoint was taken back.
async fn renew(handle: &Handle, ids: &[LeaseId]) -> Option<(Vec<Option<i64>>, bool)> {
    let (seconds, resets) = handle.shared.expiry.renew_all(ids);
    let has_resets = !resets.is_empty();
    if has_resets {
        // Else a new leader would give the lease less than is promised here.
        handle.propose(Command::LeaseCheckpoint(resets)).await.ok()?;
    }
    Some((seconds, has_resets))
}

/// Has a question of `from` answered beside the loop, and the answer sent.
pub(super) fn answer_peer(shared: &Arc<Shared>, from: MemberId, id: u64, question: Question, vouched: Option<Index>) {
    let handle = Handle { shared: Arc::clone(shared) };
    shared.tasks.spawn(Box::pin(async move {
        let answer = answer(handle.clone(), question, vouched).await;
        handle.shared.transport.send(vec![Letter { to: from, message: PeerMessage::Answer { id, answer } }]);
    }));
}
