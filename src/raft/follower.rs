//! A follower: takes over the leader's log, and waits for the leader's silence.

use super::{
    core::{Core, Next},
    message::{Body, LogId},
    output::{Output, ReadId},
};
use crate::types::{Entry, Index, MemberId, Term};

/// Most reads that wait for the leader's answer; more are refused at once.
const FORWARDED_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Follower {
    /// Reads that the leader was asked about, each with the ticks that it has waited.
    forwarded: Vec<(ReadId, u32)>,
}

impl Follower {
    pub(super) fn tick(&mut self, core: &mut Core, out: &mut Output) -> Next {
        let patience = core.config.election_ticks;
        self.forwarded.iter_mut().for_each(|(_, age)| *age += 1);
        // The question or its answer was lost.
        let lost = self.forwarded.extract_if(.., |(_, age)| *age >= patience);
        out.reads_failed.extend(lost.map(|(id, _)| id));
        if !core.wait_is_over() {
            return Next::Stay;
        }
        core.leader = None;
        self.leave(out);
        core.restart_timer();
        if core.may_campaign() { Next::Campaign } else { Next::Stay }
    }

    pub(super) fn receive(&mut self, core: &mut Core, from: MemberId, body: Body, out: &mut Output) -> Next {
        match body {
            Body::Append { prev, entries, commit } => {
                self.hear(core, from, out);
                append(core, from, prev, entries, commit, out);
            }
            Body::Heartbeat { commit, round } => {
                self.hear(core, from, out);
                core.log.commit_to(commit);
                // Not behind the disk, since it promises nothing that a crash could undo: whoever elected the leader has its term on
                // disk, so this member alone, back in an older term, could not help an older leader to commit anything.
                out.send_now.push(core.envelope(from, Body::HeartbeatReply { round }));
            }
            // From anyone but the leader it is not for this time.
            Body::TimeoutNow if core.leader == Some(from) && core.may_campaign() => return Next::TakeOver,
            Body::ReadIndexReply { id, index } => {
                // An answer that comes twice, or after its time, finds nobody waiting.
                if let Some(at) = self.forwarded.iter().position(|(waiting, _)| *waiting == id) {
                    self.forwarded.swap_remove(at);
                    match index {
                        Some(index) => out.reads.push((id, index)),
                        None => out.reads_failed.push(id),
                    }
                }
            }
            Body::ReadIndex { id } => {
                out.send_now.push(core.envelope(from, Body::ReadIndexReply { id, index: None }));
            }
            _ => {}
        }
        Next::Stay
    }

    pub(super) fn read(&mut self, core: &Core, id: ReadId, out: &mut Output) {
        match core.leader {
            Some(leader) if self.forwarded.len() < FORWARDED_MAX => {
                self.forwarded.push((id, 0));
                out.send_now.push(core.envelope(leader, Body::ReadIndex { id }));
            }
            _ => out.reads_failed.push(id),
        }
    }

    /// Gives up what waits for the leader.
    pub(super) fn leave(&mut self, out: &mut Output) {
        out.reads_failed.extend(self.forwarded.drain(..).map(|(id, _)| id));
    }

    /// The leader of this term has spoken.
    fn hear(&mut self, core: &mut Core, from: MemberId, out: &mut Output) {
        assert!(core.leader.is_none_or(|leader| leader == from), "two leaders in term {}", core.term);
        if core.leader.is_none() {
            self.leave(out);
        }
        core.leader = Some(from);
        core.restart_timer();
    }
}

fn append(core: &mut Core, from: MemberId, prev: LogId, entries: Vec<Entry>, commit: Index, out: &mut Output) {
    if prev.index < core.log.start().index {
        // Released here, thus committed, thus equal in the leader's log.
        let matched = core.log.commit();
        return out.send_durable.push(core.envelope(from, Body::AppendAccepted { matched }));
    }
    if !core.log.matches(prev) {
        let hint = core.log.last_at_most(prev.index, prev.term);
        return out.send_now.push(core.envelope(from, Body::AppendRejected { prev: prev.index, hint }));
    }
    if !is_chain(prev, &entries, core.term) {
        // Not something that a member says. Taking it would put a hole into the log, so it never arrived.
        return;
    }
    let matched = Index(prev.index.0 + entries.len() as u64);
    core.take_over(entries, out);
    // Beyond `matched` this log may differ from the leader's.
    core.log.commit_to(commit.min(matched));
    out.send_durable.push(core.envelope(from, Body::AppendAccepted { matched }));
}

/// Whether `entries` follow `prev` and each other without a hole, with terms that never fall nor exceed the leader's.
fn is_chain(prev: LogId, entries: &[Entry], term: Term) -> bool {
    let mut at = prev;
    entries.iter().all(|entry| {
        let follows = entry.index.0 == at.index.0 + 1 && entry.term >= at.term && entry.term <= term;
        at = LogId { index: entry.index, term: entry.term };
        follows
    })
}
