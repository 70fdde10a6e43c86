//! The disk thread: append, sync, answer `Persisted`.

use super::{handle::Shared, letters, run::Inbox, transport::Letter};
use crate::{
    io::Disk,
    types::{ConfState, Entry, Fault, HardState, Index, MemberId, Sabotage, Term},
    wal::{Mark, Wal},
};
use flume::{Receiver, Sender};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// What the loop owes the disk. Raft bounds the bytes of it: what a leader has not committed, what is on its way to a follower.
pub(crate) enum Save {
    /// Raft state, in the order of its making, and what may be said once it is on disk.
    State { hard_state: Option<HardState>, entries: Vec<Entry>, then_send: Vec<Letter> },
    /// The state of another member takes the place of the log up to the mark.
    Restore { mark: Mark, conf_state: ConfState },
    /// The store has everything up to the mark: remember that, and release segments wholly at or below `release`.
    Mark { mark: Mark, conf_state: ConfState, release: Index },
}

/// The way to the disk thread.
///
/// Each time that it is woken costs as much as a small write, so a commit index alone does not go there: it is found again from the entries,
/// and travels with the next of them.
pub(crate) struct ToDisk {
    save: Sender<Save>,
    /// Term and vote as they were last sent.
    promised: (Term, Option<MemberId>),
    /// A state that differs from what was sent in nothing but the commit index.
    lagging: Option<HardState>,
}

impl ToDisk {
    /// `durable` is on disk already.
    pub(super) fn new(save: Sender<Save>, durable: HardState) -> ToDisk {
        ToDisk { save, promised: (durable.term, durable.vote), lagging: None }
    }

    /// False if the disk thread is gone.
    pub(super) fn send(&mut self, save: Save) -> bool {
        let save = match save {
            Save::State { hard_state: None, entries, then_send } => {
                Save::State { hard_state: self.lagging.take(), entries, then_send }
            }
            Save::State { hard_state: Some(state), entries, then_send } => {
                let is_promise = (state.term, state.vote) != self.promised;
                if !is_promise && entries.is_empty() && then_send.is_empty() {
                    self.lagging = Some(state);
                    return true;
                }
                self.promised = (state.term, state.vote);
                self.lagging = None;
                Save::State { hard_state: Some(state), entries, then_send }
            }
            mark => {
                // Would not be believed after a restart if it were above the commit index in the log.
                self.end();
                mark
            }
        };
        self.save.send(save).is_ok()
    }

    /// Sends what still waits for company.
    pub(super) fn end(&mut self) {
        if let Some(state) = self.lagging.take() {
            // The disk thread is gone only when the member stops.
            let _ = self.save.send(Save::State { hard_state: Some(state), entries: Vec::new(), then_send: Vec::new() });
        }
    }
}

/// Owns the log until the loop hangs up; then everything is synced.
pub(crate) struct Persist<D: Disk> {
    wal: Wal<D>,
    /// What is on disk, to tell a commit index (which may lag) from a vote or a term (which must not).
    durable: HardState,
    /// A commit index that rides with the next append.
    lagging: Option<HardState>,
    inbox: Sender<Inbox>,
    shared: Arc<Shared>,
    /// Files that are no part of the log any more, to whoever removes them.
    released: Sender<PathBuf>,
    sabotage: Option<Sabotage>,
}

impl<D: Disk> Persist<D> {
    pub(super) fn new(
        wal: Wal<D>,
        durable: HardState,
        inbox: Sender<Inbox>,
        shared: Arc<Shared>,
        released: Sender<PathBuf>,
        sabotage: Option<Sabotage>,
    ) -> Persist<D> {
        Persist { wal, durable, lagging: None, inbox, shared, released, sabotage }
    }

    /// Runs until the loop hangs up or the disk fails.
    pub(super) fn run(mut self, work: Receiver<Save>) {
        while let Ok(first) = work.recv() {
            if let Err(fault) = self.batch(first, &work) {
                return self.shared.fail(&fault);
            }
        }
        self.end();
    }

    /// Makes durable what is left.
    pub(crate) fn end(&mut self) {
        let rest = self.lagging.take().map_or(Ok(()), |state| self.wal.append(Some(&state), &[]));
        if let Err(fault) = rest.and_then(|()| self.wal.sync()) {
            self.shared.fail(&fault);
        }
    }

    /// Everything that waits goes into one write and one sync.
    pub(crate) fn batch(&mut self, first: Save, work: &Receiver<Save>) -> Result<(), Fault> {
        let started = self.begin();
        let done = self.write(first, work, started);
        self.shared.facts.disk_busy_since_us.store(0, Ordering::Release);
        done
    }

    /// The disk is at work from now on, if it is not already: the loop watches how long.
    pub(crate) fn begin(&self) -> Duration {
        let started = self.shared.clock.now();
        let (busy, since) = (&self.shared.facts.disk_busy_since_us, (started.as_micros() as u64).max(1));
        // Fails if it is at work already.
        let _ = busy.compare_exchange(0, since, Ordering::AcqRel, Ordering::Acquire);
        started
    }

    fn write(&mut self, first: Save, work: &Receiver<Save>, started: Duration) -> Result<(), Fault> {
        let (mut persisted, mut sync): (Option<(Index, Term)>, bool) = (None, false);
        let mut letters = Vec::new();
        for save in std::iter::once(first).chain(work.try_iter()) {
            match save {
                Save::State { hard_state, entries, then_send } => {
                    sync |= self.append(hard_state, &entries)?;
                    persisted = entries.last().map(|entry| (entry.index, entry.term)).or(persisted);
                    letters.extend(then_send);
                }
                Save::Mark { mark, conf_state, release } => self.mark(&mark, &conf_state, release)?,
                Save::Restore { mark, conf_state } => {
                    self.mark(&mark, &conf_state, mark.index)?;
                    sync = true;
                    // Entries of before are gone.
                    persisted = None;
                }
            }
        }
        self.shared.facts.tally.wal_bytes.store(self.wal.written_bytes(), Ordering::Relaxed);
        if sync && !Sabotage::AckBeforeFsync.is(self.sabotage) {
            let written = self.shared.clock.now();
            self.wal.sync()?;
            let synced = self.shared.clock.now();
            let facts = &self.shared.facts;
            facts.wal_sync(synced.saturating_sub(started));
            facts.tally.wal_write.observe(written.saturating_sub(started));
            facts.tally.wal_fsync.observe(synced.saturating_sub(written));
        }
        if !letters.is_empty() {
            letters::thin(&mut letters);
            self.shared.transport.send(letters);
        }
        if let Some(persisted) = persisted {
            *self.shared.persisted.lock() = Some(persisted);
            // In this order: see `Run::overlooked`.
            if self.shared.facts.awaits_disk.load(Ordering::Acquire) {
                // A full queue means that the loop is awake. This thread must not wait for it: it may be waiting for this one.
                let _ = self.inbox.try_send(Inbox::Look);
            }
        }
        Ok(())
    }

    /// Whether a sync is owed. A commit index alone owes none: it is found again from the entries (etcd's `MustSync`).
    fn append(&mut self, hard_state: Option<HardState>, entries: &[Entry]) -> Result<bool, Fault> {
        if let Some(state) = hard_state {
            let vote_or_term = (state.term, state.vote) != (self.durable.term, self.durable.vote);
            self.durable = state;
            self.lagging = Some(state);
            if !vote_or_term && entries.is_empty() {
                return Ok(false);
            }
        }
        if entries.is_empty() && self.lagging.is_none() {
            return Ok(false);
        }
        let state = self.lagging.take();
        self.wal.append(state.as_ref(), entries)?;
        Ok(true)
    }

    fn mark(&mut self, mark: &Mark, conf_state: &ConfState, release: Index) -> Result<(), Fault> {
        if let Some(state) = self.lagging.take() {
            // A mark above the durable commit index would not be believed after a restart.
            self.wal.append(Some(&state), &[])?;
        }
        self.wal.save_mark(mark, conf_state)?;
        let released = self.wal.release(release)?;
        tracing::info!(index = mark.index.0, term = mark.term.0, released = released.len(), "saved snapshot to disk");
        for segment in released {
            // Nobody hears it only if the member stops; what is left then is released again after the start.
            let _ = self.released.send(segment);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::EntryKind;
    use bytes::Bytes;

    fn state(term: u64, commit: u64) -> HardState {
        HardState { term: Term(term), vote: Some(MemberId(1)), commit: Index(commit) }
    }

    fn save(hard_state: Option<HardState>, entries: u64) -> Save {
        let entry = |index| Entry { term: Term(1), index: Index(index), kind: EntryKind::Normal, data: Bytes::new() };
        Save::State { hard_state, entries: (1..=entries).map(entry).collect(), then_send: Vec::new() }
    }

    /// What has come of each piece of work: its state, and how many entries it has.
    fn sent(saves: &Receiver<Save>) -> Vec<(Option<HardState>, Option<usize>)> {
        let seen = |save| match save {
            Save::State { hard_state, entries, .. } => (hard_state, Some(entries.len())),
            Save::Restore { .. } | Save::Mark { .. } => (None, None),
        };
        saves.try_iter().map(seen).collect()
    }

    #[test]
    fn a_commit_index_alone_waits_for_entries_a_vote_a_mark_or_the_end() {
        let (save_in, saves) = flume::unbounded();
        let mut disk = ToDisk::new(save_in, state(1, 0));
        assert!(disk.send(save(Some(state(1, 1)), 0)) && disk.send(save(Some(state(1, 2)), 0)));
        assert!(sent(&saves).is_empty());
        assert!(disk.send(save(None, 3)));
        assert_eq!(sent(&saves), [(Some(state(1, 2)), Some(3))]);
        assert!(disk.send(save(Some(state(1, 3)), 0)) && disk.send(save(Some(state(1, 4)), 1)));
        assert_eq!(sent(&saves), [(Some(state(1, 4)), Some(1))], "it was overtaken");
        assert!(disk.send(save(Some(state(1, 5)), 0)) && disk.send(save(Some(state(2, 5)), 0)));
        assert_eq!(sent(&saves), [(Some(state(2, 5)), Some(0))], "a term must not wait");
        assert!(disk.send(save(Some(state(2, 6)), 0)));
        let mark = Mark { index: Index(6), term: Term(2) };
        assert!(disk.send(Save::Mark { mark, conf_state: ConfState::default(), release: Index(0) }));
        assert_eq!(sent(&saves), [(Some(state(2, 6)), Some(0)), (None, None)]);
        assert!(disk.send(save(Some(state(2, 7)), 0)));
        disk.end();
        disk.end();
        assert_eq!(sent(&saves), [(Some(state(2, 7)), Some(0))]);
    }
}
