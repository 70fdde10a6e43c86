//! Watchers that are behind read history, all those of a stream together, until they are level and can go live.
//!
//! As long as a cohort is far behind it reads up to the hub's level, step by step. Once it is near, its watchers go live *first*, at
//! a level that is noted, and then the rest up to that level is read. Meanwhile the stream's queue, where newer events may already
//! arrive, is held. So there is neither a gap nor a race with a hub that moves on all the time.

use super::{
    Shared,
    batch::{EventItem, Happening, Wants},
    matcher::{Keys, Matcher},
    subscriber::Subscriber,
};
use crate::{
    mvcc::History,
    types::{Error, Fault, Revision},
};
use std::sync::{Arc, atomic::Ordering};

/// A watcher that is behind.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: i64,
    pub(super) serial: u64,
    pub(super) keys: Keys,
    pub(super) wants: Wants,
    /// The first revision that it has not seen.
    pub(super) next: i64,
    /// The first revision that it will see live.
    pub(super) until: i64,
}

/// The watchers of a stream that read history together.
pub(super) struct Cohort {
    members: Vec<Member>,
    /// Their places in `members`, by what they want. Made by the first step.
    matcher: Matcher,
    is_matched: bool,
    /// All of them have everything below.
    next: i64,
    /// Set once they are live: all that they lack is up to here.
    live_upto: Option<i64>,
}

/// Watchers that are handled under one hold of the locks.
pub(super) const LOCK_STEP: usize = 256;

/// Events for watchers after which a step ends: one event may be for very many.
const FOUND_MAX: usize = 20_000;

/// A step of reading history: it blocks, so it is for a thread that may. Its outcome goes to [`super::Deliveries::caught`].
#[must_use]
pub struct Job {
    pub(super) hub: Arc<Shared>,
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) stream: u32,
    pub(super) cohort: Box<Cohort>,
}

/// What a [`Job`] has brought.
#[must_use]
pub struct Done {
    /// Those who are not level yet.
    pub(super) cohort: Option<Box<Cohort>>,
    pub(super) found: Vec<(u64, EventItem)>,
    /// Watchers that need what is gone (id and serial).
    pub(super) compacted: Vec<(i64, u64)>,
    pub(super) result: Result<(), Fault>,
}

impl Cohort {
    pub(super) fn new(members: Vec<Member>) -> Cohort {
        let next = members.iter().map(|member| member.next).min().unwrap_or(i64::MAX);
        Cohort { members, matcher: Matcher::default(), is_matched: false, next, live_upto: None }
    }

    /// What a member lacks begins here; `None` if it lacks nothing, or is no more.
    fn lacks_from(&self, member: &Member) -> Option<i64> {
        Some(member.next.max(self.next)).filter(|from| *from < member.until)
    }

    fn is_done(&self) -> bool {
        self.live_upto.is_some_and(|upto| self.next > upto) || self.members.iter().all(|member| member.until == ENDED)
    }
}

/// As [`Member::until`]: this one is no more.
const ENDED: i64 = 0;

impl Job {
    /// Reads a part of the history.
    pub fn run(mut self) -> Done {
        let mut done = Done { cohort: None, found: Vec::new(), compacted: Vec::new(), result: Ok(()) };
        let level = self.hub.level.load(Ordering::Acquire);
        if self.cohort.live_upto.is_none() {
            self.drop_ended();
            if level.saturating_sub(self.cohort.next) <= self.hub.options.near_revisions {
                self.go_live(&mut done.compacted);
            }
        }
        self.match_members();
        let upto = self.cohort.live_upto.unwrap_or(level);
        if self.cohort.next <= upto && !self.cohort.is_done() {
            match self.read(upto, &mut done.found) {
                Ok(Ok(())) => {}
                // There is no other refusal.
                Ok(Err(_)) => self.end_compacted(&mut done.compacted),
                Err(fault) => done.result = Err(fault),
            }
        }
        done.cohort = Some(self.cohort).filter(|cohort| !cohort.is_done());
        done
    }

    /// Forgets those who were cancelled meanwhile.
    fn drop_ended(&mut self) {
        for members in self.cohort.members.chunks_mut(LOCK_STEP) {
            let inner = self.subscriber.inner.lock();
            for member in members {
                if !inner.is(member.id, member.serial) {
                    member.until = ENDED;
                }
            }
        }
    }

    /// Puts the members back into the hub's matcher and notes from where on each of them is live.
    fn go_live(&mut self, compacted: &mut Vec<(i64, u64)>) {
        let (mut upto, next) = (0, self.cohort.next);
        for members in self.cohort.members.chunks_mut(LOCK_STEP) {
            let mut state = self.hub.state.lock();
            let mut inner = self.subscriber.inner.lock();
            // From here on newer events arrive in the queue.
            inner.is_held = true;
            let level = self.hub.level.load(Ordering::Relaxed);
            let oldest = self.hub.reader.compacted().0;
            upto = level;
            for member in members.iter_mut().filter(|member| member.until != ENDED) {
                let Some(local) = inner.watchers.get_mut(&member.id).filter(|local| local.serial == member.serial)
                else {
                    member.until = ENDED;
                    continue;
                };
                let from = member.next.max(next);
                if from < oldest {
                    member.until = ENDED;
                    compacted.push((member.id, member.serial));
                    continue;
                }
                member.until = from.max(level + 1);
                local.slot =
                    Some(state.attach(self.stream, member.id, member.serial, &member.keys, member.wants, member.until));
                self.hub.behind.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.cohort.live_upto = Some(upto);
    }

    fn match_members(&mut self) {
        let Cohort { members, matcher, is_matched, .. } = &mut *self.cohort;
        if !std::mem::replace(is_matched, true) {
            for (place, member) in members.iter().enumerate() {
                matcher.insert(&member.keys, place as u32);
            }
        }
    }

    /// Takes one chunk of history and finds out whom it concerns.
    fn read(&mut self, upto: i64, found: &mut Vec<(u64, EventItem)>) -> Result<Result<(), Error>, Fault> {
        let Cohort { members, matcher, next, .. } = &mut *self.cohort;
        let with_prev = members.iter().any(|member| member.wants.prev_kv);
        let wanted = |key: &[u8]| matcher.wants(key);
        let bytes_max = self.hub.history_bytes_now();
        let (from, upto) = (Revision(*next), Revision(upto));
        let history = match self.hub.reader.history(from, upto, &wanted, with_prev, bytes_max)? {
            Ok(history) => history,
            Err(error) => return Ok(Err(error)),
        };
        let History { events, next: mut end } = history;
        for (revision, events) in events {
            if found.len() >= FOUND_MAX {
                end = revision;
                break;
            }
            for event in events {
                let (kind, key) = (event.kind, event.kv.key.clone());
                let happening = Happening::new(revision, event);
                matcher.visit(&key, &mut |place| {
                    let Member { id, serial, wants, next, until, .. } = members[place as usize];
                    if (next..until).contains(&revision.0) && wants.kind(kind) {
                        found.push((serial, EventItem { id, happening: Arc::clone(&happening), cost: 0, wants }));
                    }
                });
            }
        }
        *next = end.0;
        Ok(Ok(()))
    }

    /// Ends those who need what is gone; the others go on behind it.
    fn end_compacted(&mut self, compacted: &mut Vec<(i64, u64)>) {
        let oldest = self.hub.reader.compacted().0;
        let mut next = i64::MAX;
        for place in 0..self.cohort.members.len() {
            let Some(from) = self.cohort.lacks_from(&self.cohort.members[place]) else { continue };
            if from >= oldest {
                next = next.min(from);
                continue;
            }
            let member = &mut self.cohort.members[place];
            member.until = ENDED;
            compacted.push((member.id, member.serial));
        }
        self.cohort.next = next;
    }
}
