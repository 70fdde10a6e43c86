//! A data directory that is being made: under a draft's name until it is complete.
//!
//! ```text
//!   DATA-DIR/member.draft/store   DATA-DIR/member.draft/wal (or --wal-dir)      finish: member.draft → member
//! ```
//! What an interrupted attempt left is thrown away by the next. A log in a folder of its own is the last that comes before the rename.

use super::Error;
use crate::{
    engine::{self, Engine, Kind, Options},
    io::{
        Disk,
        real::{DirLock, RealDisk, lock_dir},
    },
    types::{ConfState, Entry, Fault, HardState, Index, Term},
    wal::{self, Mark, Wal},
};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

const DRAFT: &str = "member.draft";
/// What may be in a data directory that counts as empty: a draft, and the lock that is held while one is made.
const NO_DATA: [&str; 2] = [DRAFT, "LOCK"];

pub(super) struct Place {
    data_dir: PathBuf,
    wal_dir: PathBuf,
    disk: RealDisk,
    is_finished: bool,
    _lock: DirLock,
}

impl Drop for Place {
    /// What was not finished goes, as well as it can: the next attempt removes what stays.
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = std::fs::remove_dir_all(self.data_dir.join(DRAFT));
        }
    }
}

impl Place {
    pub(super) fn prepare(data_dir: &Path, wal_dir: Option<&Path>) -> Result<Place, Error> {
        let disk = RealDisk::default();
        disk.create_dir(data_dir).map_err(|source| Fault::io("create", data_dir, source))?;
        let names = disk.list(data_dir).map_err(|source| Fault::io("list", data_dir, source))?;
        let is_data = |path: &&PathBuf| path.file_name().is_none_or(|name| NO_DATA.iter().all(|known| name != *known));
        if let Some(found) = names.iter().find(is_data) {
            let what = format!("the data directory is not empty: there is {}", found.display());
            return Err(Error::unusable(data_dir, what));
        }
        let lock = lock_dir(data_dir)?;
        let draft = data_dir.join(DRAFT);
        match std::fs::remove_dir_all(&draft) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(Fault::io("remove", draft, source).into());
            }
            _ => {}
        }
        disk.create_dir(&draft).map_err(|source| Fault::io("create", &draft, source))?;
        let wal_dir = wal_dir.map_or_else(|| draft.join("wal"), Path::to_owned);
        if wal_dir.exists() {
            return Err(Error::unusable(wal_dir, "the folder for the log exists already"));
        }
        if let Some(parent) = wal_dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.create_dir(parent).map_err(|source| Fault::io("create", parent, source))?;
        }
        Ok(Place { data_dir: data_dir.to_owned(), wal_dir, disk, is_finished: false, _lock: lock })
    }

    /// The store, empty.
    pub(super) fn store(&self, kind: Kind) -> Result<Arc<dyn Engine>, Error> {
        Ok(engine::open(kind, &self.data_dir.join(DRAFT).join("store"), Options::default())?)
    }

    /// The log of a member whose store stands at `applied`: from there on, `entries`.
    pub(super) fn log(
        &self,
        metadata: &[u8],
        applied: (Index, Term),
        conf_state: &ConfState,
        hard_state: &HardState,
        entries: &[Entry],
    ) -> Result<(), Error> {
        let mut log = Wal::create(self.disk, &self.wal_dir, metadata, wal::Options::default())?;
        let (index, term) = applied;
        if index > Index(0) {
            log.save_mark(&Mark { index, term }, conf_state)?;
        }
        log.append(Some(hard_state), entries)?;
        Ok(log.sync()?)
    }

    /// The data directory is complete.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let (draft, member) = (self.data_dir.join(DRAFT), self.data_dir.join("member"));
        let synced = |dir: &Path| self.disk.sync_dir(dir).map_err(|source| Fault::io("fsync folder", dir, source));
        synced(&draft)?;
        self.disk.rename(&draft, &member).map_err(|source| Fault::io("rename", &draft, source))?;
        self.is_finished = true;
        synced(&self.data_dir)?;
        Ok(self.data_dir.parent().map_or(Ok(()), synced)?)
    }
}
