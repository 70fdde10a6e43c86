//! The log against a model, with a crash at every moment.

use super::*;
use proptest::prelude::*;

/// One record as the model remembers it.
#[derive(Clone, Debug)]
enum Written {
    Entry(Entry),
    State(HardState),
    Mark(Mark),
}

/// A log as it should be found: its entries follow `start`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Log {
    hard_state: HardState,
    start: Mark,
    entries: Vec<Entry>,
}

impl Log {
    fn last(&self) -> u64 {
        self.start.index.0 + self.entries.len() as u64
    }

    fn term(&self, index: u64) -> Option<Term> {
        match index.checked_sub(self.start.index.0 + 1) {
            None => (index == self.start.index.0).then_some(self.start.term),
            Some(at) => self.entries.get(at as usize).map(|entry| entry.term),
        }
    }

    fn take(&mut self, written: &Written) {
        match written {
            // It may be older than a mark that emptied the log.
            Written::State(state) => {
                self.hard_state = HardState { commit: state.commit.max(self.start.index), ..*state };
            }
            Written::Entry(entry) => {
                self.entries.truncate((entry.index.0 - self.start.index.0 - 1) as usize);
                self.entries.push(entry.clone());
            }
            Written::Mark(mark)
                if mark.index > self.hard_state.commit && self.term(mark.index.0) != Some(mark.term) =>
            {
                self.hard_state.commit = mark.index;
                (self.start, self.entries) = (*mark, Vec::new());
            }
            Written::Mark(_) => {}
        }
    }
}

/// All that was ever given to the log, in order, and how much of it was synced.
#[derive(Default)]
struct Model {
    written: Vec<Written>,
    synced: usize,
    released: u64,
}

impl Model {
    fn after(&self, count: usize) -> Log {
        let mut log = Log::default();
        self.written[..count].iter().for_each(|written| log.take(written));
        log
    }

    fn mark(&mut self, wal: &mut Wal<SimDisk>, index: u64, term: Term) -> Result<(), Fault> {
        let mark = Mark { index: Index(index), term };
        self.written.push(Written::Mark(mark));
        wal.save_mark(&mark, &ConfState::default())?;
        self.synced = self.written.len();
        Ok(())
    }

    /// Plays `steps` until the power goes.
    fn play(&mut self, disk: &SimDisk, steps: &[(u8, u16)]) -> Result<(), Fault> {
        let mut wal = Wal::create(disk.clone(), dir(), b"who", SMALL)?;
        for &(step, size) in steps {
            let log = self.after(self.written.len());
            let mut hard_state = log.hard_state;
            hard_state.term.0 = hard_state.term.0.max(1);
            let mut last = log.last();
            let commit = hard_state.commit.0;
            match step % 10 {
                0 => {
                    wal.sync()?;
                    self.synced = self.written.len();
                }
                1 => {
                    wal.sync()?;
                    self.synced = self.written.len();
                    self.released = hard_state.commit.0;
                    for segment in wal.release(hard_state.commit)? {
                        crate::wal::remove(disk, &segment)?;
                    }
                }
                2 => self.mark(&mut wal, commit, log.term(commit).expect("committed"))?,
                // A state is taken over from behind the log's end, or of an entry that this log has otherwise.
                8 => self.mark(&mut wal, last + 1 + u64::from(size % 3), hard_state.term)?,
                9 if last > commit => {
                    let index = commit + 1 + u64::from(size) % (last - commit);
                    self.mark(&mut wal, index, log.term(index).expect("not committed").next())?;
                    hard_state.term = hard_state.term.next();
                    self.written.push(Written::State(hard_state));
                    wal.append(Some(&hard_state), &[])?;
                }
                _ => {
                    if step % 10 == 3 {
                        hard_state.term = hard_state.term.next();
                        last = hard_state.commit.0;
                    }
                    let batch: Vec<Entry> = (0..1 + u64::from(size % 3))
                        // Zeros on purpose: a value may look like a sector that never arrived.
                        .map(|at| {
                            entry(hard_state.term.0, last + 1 + at, &vec![step / 10 % 2; usize::from(size % 1300)])
                        })
                        .collect();
                    if step % 2 == 0 {
                        hard_state.commit = Index(last + 1);
                    }
                    self.written.extend(batch.iter().cloned().map(Written::Entry));
                    self.written.push(Written::State(hard_state));
                    wal.append(Some(&hard_state), &batch)?;
                }
            }
        }
        Ok(())
    }

    /// What came back must be all that was synced and a prefix, record by record, of what followed.
    fn check(&self, disk: &SimDisk) {
        if !Wal::exists(disk, dir()).unwrap() {
            assert!(self.written.is_empty(), "the log is gone");
            return;
        }
        let from = self.released;
        let (mut wal, found) = Wal::open(disk.clone(), dir(), Index(from), SMALL).unwrap();
        let same = |count: usize| {
            let log = self.after(count);
            let passed_over = from.saturating_sub(log.start.index.0) as usize;
            let starts = (log.start.index.max(Index(from)), log.term(log.start.index.0.max(from)));
            log.hard_state == found.hard_state
                && log.entries.get(passed_over..) == Some(&found.entries[..])
                && (found.start == starts.0 && (found.start_term.is_none() || found.start_term == starts.1))
        };
        assert!((self.synced..=self.written.len()).any(same), "{found:?} after {} synced", self.synced);

        let next = entry(99, wal.last().0 + 1, b"more");
        wal.append(None, std::slice::from_ref(&next)).unwrap();
        wal.sync().unwrap();
        disk.crash();
        let (_, again) = Wal::open(disk.clone(), dir(), Index(from), SMALL).unwrap();
        assert_eq!((again.entries.last(), again.entries.len()), (Some(&next), found.entries.len() + 1));
        assert_eq!((again.hard_state, again.cut), (found.hard_state, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_at_any_moment_leaves_all_that_was_synced(
        steps in prop::collection::vec(any::<(u8, u16)>(), 1..25),
        seed: u64,
    ) {
        for moment in 0.. {
            let disk = disk(seed.wrapping_add(moment));
            disk.halt_after(moment);
            let mut model = Model::default();
            let whole = model.play(&disk, &steps).is_ok();
            disk.crash();
            model.check(&disk);
            if whole {
                break;
            }
        }
    }
}
