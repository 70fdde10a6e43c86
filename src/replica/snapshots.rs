//! Snapshots between members: made from the store, taken in beside it, put in its place. One owner of the swap.
//!
//! ```text
//!   leader:   tend_followers ─▶ make (flush, checkpoint) ─▶ transport
//!   follower: Handle::receive_snapshot ─▶ Incoming: rows into a store beside the present one ─▶ sealed
//!               ─▶ loop: raft decides ─▶ log: mark, then later entries · apply: the store is replaced
//! ```
//! The present state serves until the new one is whole. A crash at any moment leaves one of the two, with a log that fits: see
//! `bootstrap`.

use super::{
    handle::{Handle, Shared},
    persist::Save,
    run::{Inbox, Run},
    transport::{Haste, Outgoing, Row},
};
use crate::{
    engine::{Batch, Engine, Table},
    io::real::give_way,
    machine,
    raft::Input,
    types::{Error, Fault, Index, MemberId, SnapshotMeta},
    wal::Mark,
};
use bytes::Bytes;
use std::sync::{Arc, atomic::Ordering};

/// Bytes of an incoming snapshot between two flushes of its store.
const FLUSH_BYTES: usize = 2 << 20;

/// Where an incoming snapshot is.
#[derive(Default)]
pub(super) enum Arrival {
    /// Nothing comes, and nothing is left of what came.
    #[default]
    Idle,
    /// A part is here; its stream broke off.
    Part(Box<Staged>),
    /// A stream is at work.
    Arriving,
    /// All is here; loop and apply are to take it over.
    Whole,
}

/// What has come so far.
pub(super) struct Staged {
    meta: SnapshotMeta,
    engine: Arc<dyn Engine>,
    last: Option<(Table, Bytes)>,
    unflushed_bytes: usize,
}

/// A snapshot on its way in. Dropped before its end, what has come is kept for the next attempt to send the same.
pub struct Incoming {
    shared: Arc<Shared>,
    staged: Option<Box<Staged>>,
}

/// Makes a snapshot for `to`, beside the loop, and has it sent.
pub(super) fn make_for(shared: &Arc<Shared>, to: MemberId, haste: Haste) {
    let member = Arc::clone(shared);
    shared.tasks.block(Box::new(move || {
        let made = make(&member);
        let index = made.as_ref().ok().map(|made| made.meta.index);
        // The loop is gone only when the member stops.
        let _ = member.inbox.send(Inbox::SnapshotMade { to, index });
        match made {
            Ok(snapshot) => {
                tracing::info!(to = %to, index = snapshot.meta.index.0, bytes = snapshot.bytes_about, "sending a snapshot");
                member.transport.send_snapshot(to, snapshot.hastened_by(haste));
            }
            Err(fault) => member.fail(&fault),
        }
    }));
}

fn make(shared: &Shared) -> Result<Outgoing, Fault> {
    let engine = shared.view.engine();
    let rows = engine.checkpoint()?;
    let meta = machine::meta_of(&*rows)?;
    Ok(Outgoing::new(meta, engine.size()?.used_bytes, rows))
}

impl Handle {
    /// `from` offers the state after `meta`. What came of the same snapshot before stays: see [`Incoming::position`]. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`] while another one arrives or is taken over, [`Error::Invalid`] if it brings nothing new,
    /// [`Error::Stopped`].
    pub fn receive_snapshot(&self, from: MemberId, meta: SnapshotMeta) -> Result<Incoming, Error> {
        let shared = &self.shared;
        if shared.fault.borrow().is_some() {
            return Err(Error::Stopped);
        }
        let applied = shared.facts.applied.load(Ordering::Acquire);
        if meta.index.0 <= applied && !shared.facts.quarantined.load(Ordering::Acquire) {
            return Err(Error::Invalid(format!("index {} is applied here already", meta.index)));
        }
        let before = {
            let mut arrival = shared.arrival.lock();
            match std::mem::replace(&mut *arrival, Arrival::Arriving) {
                busy @ (Arrival::Arriving | Arrival::Whole) => {
                    *arrival = busy;
                    return Err(Error::RequestTooManyRequests);
                }
                Arrival::Part(staged) if staged.meta == meta => Some(staged),
                Arrival::Part(_) | Arrival::Idle => None,
            }
        };
        let staged = match before {
            Some(staged) => staged,
            None => match shared.home.stage() {
                Ok(engine) => Box::new(Staged { meta, engine, last: None, unflushed_bytes: 0 }),
                Err(fault) => {
                    *shared.arrival.lock() = Arrival::Idle;
                    shared.fail(&fault);
                    return Err(Error::Stopped);
                }
            },
        };
        tracing::info!(from = %from, index = staged.meta.index.0, resumed = staged.last.is_some(), "receiving a snapshot");
        Ok(Incoming { shared: Arc::clone(shared), staged: Some(staged) })
    }
}

impl Incoming {
    /// The last row that is here already: the sender goes on after it.
    pub fn position(&self) -> Option<(Table, Bytes)> {
        self.staged().last.clone()
    }

    fn staged(&self) -> &Staged {
        self.staged.as_ref().expect("held until the end")
    }

    /// Takes rows, in their order. Blocks on the disk.
    ///
    /// # Errors
    /// From the disk; the member stops then.
    pub fn write(&mut self, rows: Vec<Row>) -> Result<(), Fault> {
        let staged = self.staged.as_mut().expect("held until the end");
        let Some((table, key, _)) = rows.last() else { return Ok(()) };
        let last = (*table, key.clone());
        let mut batch = Batch::default();
        for (table, key, value) in rows {
            staged.unflushed_bytes += key.len() + value.len();
            batch.put(table, key, value);
        }
        let write = || {
            staged.engine.write(batch)?;
            if staged.unflushed_bytes >= FLUSH_BYTES {
                staged.unflushed_bytes = 0;
                staged.engine.flush()?;
            }
            Ok(())
        };
        let written = write();
        match &written {
            Ok(()) => staged.last = Some(last),
            Err(fault) => self.shared.fail(fault),
        }
        written
    }

    /// Everything has come: makes it durable and gives it to the member. Blocks on the disk.
    ///
    /// # Errors
    /// From the disk; or rows that are not those of the snapshot that was offered.
    pub fn finish(mut self) -> Result<(), Fault> {
        let staged = self.staged.take().expect("held until the end");
        let sealed = seal(&self.shared, *staged);
        match sealed {
            Ok(meta) => {
                *self.shared.arrival.lock() = Arrival::Whole;
                let _ = self.shared.inbox.send(Inbox::Incoming(meta));
                Ok(())
            }
            Err(fault) => {
                *self.shared.arrival.lock() = Arrival::Idle;
                Err(fault)
            }
        }
    }
}

fn seal(shared: &Shared, staged: Staged) -> Result<SnapshotMeta, Fault> {
    let Staged { meta, engine, .. } = staged;
    engine.flush()?;
    let found = machine::meta_of(&*engine.checkpoint()?)?;
    if found != meta {
        let what = format!("a snapshot of index {} was offered, but its rows are of index {}", meta.index, found.index);
        return Err(Fault::Damaged { path: "snapshot".into(), offset: None, what });
    }
    drop(engine);
    shared.home.seal()?;
    Ok(meta)
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            *self.shared.arrival.lock() = Arrival::Part(staged);
        }
    }
}

impl Run {
    /// The state of another member lies sealed on this member's disk: raft says whether it is taken over. A member that can't trust its
    /// own state takes any that its log goes on from.
    pub(super) fn restore(&mut self, meta: SnapshotMeta) {
        if self.shared.facts.quarantined.load(Ordering::Acquire) && meta.index <= self.node.status().commit {
            if meta.index.next() >= self.node.status().first_index {
                tracing::warn!(index = meta.index.0, "the state of this member is replaced by the leader's");
                self.handed = meta.index;
                self.restore = Some(meta);
                return;
            }
            return self.discard();
        }
        self.step(Input::Restore(meta));
        if self.out.restore.is_none() {
            self.discard();
        }
    }

    /// Does what raft has decided: the log begins anew, and the state machine is replaced.
    pub(super) fn begin_restore(&mut self, meta: SnapshotMeta) {
        let SnapshotMeta { index, term, conf_state } = meta.clone();
        self.retention.reset(index, conf_state.clone());
        // Before any entry that follows it. Should the log be gone on the way, the sealed store is found at the next start.
        self.disk.send(Save::Restore { mark: Mark { index, term }, conf_state });
        self.handed = index;
        self.restore = Some(meta);
    }

    fn discard(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.block(Box::new(move || {
            if let Err(fault) = shared.home.discard() {
                shared.fail(&fault);
            }
            *shared.arrival.lock() = Arrival::Idle;
        }));
    }

    /// The state machine has taken over the state after `index`. What this member's callers had in the log may be in it, but their
    /// answers are not.
    pub(super) fn restored(&mut self, index: Index) {
        tracing::info!(index = index.0, "applied snapshot");
        *self.shared.arrival.lock() = Arrival::Idle;
        self.shared.proposals.fail_submitted(&Error::LeaderChanged);
    }
}

/// Puts the sealed store in the place of the present one; for the apply thread.
///
/// All of it is read once. That is long, and this member has nothing better to do; others on the same machine may.
pub(super) fn install(shared: &Shared, machine: &mut machine::Machine, meta: &SnapshotMeta) -> Result<(), Fault> {
    let engine = shared.home.install()?;
    let replace = || {
        give_way();
        machine.replace(engine)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("snapshot".to_owned()).spawn_scoped(scope, replace);
        let thread = thread.map_err(|source| Fault::io("start a thread for", "snapshot", source))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    assert_eq!(machine.applied(), (meta.index, meta.term), "the sealed store is that of the snapshot");
    Ok(())
}
