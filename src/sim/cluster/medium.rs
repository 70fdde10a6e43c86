//! What a machine keeps: the disk of the log, and the home of the store. Both survive the process; the power takes what was not synced.

use crate::{
    engine::{Engine, Home, MemoryHome, Result},
    io::{
        Disk, DiskFile,
        sim_disk::{SimDisk, SimFile},
    },
    types::Fault,
};
use parking_lot::Mutex;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The log's disk; it may lie about what is synced.
#[derive(Clone)]
pub struct LogDisk {
    /// Underneath.
    pub disk: SimDisk,
    /// Says "synced" of what is not.
    pub lies: bool,
}

/// A file of it.
pub struct LogFile {
    file: SimFile,
    lies: bool,
}

impl Disk for LogDisk {
    type File = LogFile;

    fn create(&self, path: &Path) -> io::Result<LogFile> {
        Ok(LogFile { file: self.disk.create(path)?, lies: self.lies })
    }
    fn open(&self, path: &Path) -> io::Result<LogFile> {
        Ok(LogFile { file: self.disk.open(path)?, lies: self.lies })
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
}

impl DiskFile for LogFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn allocate(&mut self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        if self.lies { Ok(()) } else { self.file.sync_data() }
    }
}

/// A home in memory that can lose power at any of its changes.
#[derive(Default)]
pub struct SimHome {
    home: MemoryHome,
    /// Changes left until the power goes; and whether the one that it takes is done.
    halt: Mutex<Option<(u64, bool)>>,
}

impl SimHome {
    /// As it is found after the process has gone: what was flushed.
    pub fn crash(&self) -> SimHome {
        SimHome { home: self.home.crash(), halt: Mutex::default() }
    }

    /// The power goes at the change after the next `changes`, before it or after it.
    pub fn halt_after(&self, changes: u64, is_done: bool) {
        *self.halt.lock() = Some((changes, is_done));
    }

    fn change<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let off = || Fault::io("change", "the home", io::Error::other("the power is off"));
        let mut halt = self.halt.lock();
        match &mut *halt {
            None => act(),
            Some((0, is_done)) => {
                if std::mem::take(is_done) {
                    drop(act()?);
                }
                Err(off())
            }
            Some((left, _)) => {
                *left -= 1;
                act()
            }
        }
    }
}

impl Home for SimHome {
    fn open(&self) -> Result<Arc<dyn Engine>> {
        self.home.open()
    }
    fn stage(&self) -> Result<Arc<dyn Engine>> {
        self.change(|| self.home.stage())
    }
    fn seal(&self) -> Result<()> {
        self.change(|| self.home.seal())
    }
    fn sealed(&self) -> Result<Option<Arc<dyn Engine>>> {
        self.home.sealed()
    }
    fn install(&self) -> Result<Arc<dyn Engine>> {
        self.change(|| self.home.install())
    }
    fn discard(&self) -> Result<()> {
        self.change(|| self.home.discard())
    }
    fn distrust(&self) -> Result<()> {
        self.change(|| self.home.distrust())
    }
    fn trust(&self) -> Result<()> {
        self.change(|| self.home.trust())
    }
    fn is_distrusted(&self) -> Result<bool> {
        self.home.is_distrusted()
    }
}
