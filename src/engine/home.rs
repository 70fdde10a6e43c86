//! Where a member keeps its store, and how the store of a snapshot takes its place.
//!
//! ```text
//!   store        the present one; with the file OUTVOTED in it, it is known to be wrong
//!   store.next   the one that is being filled; with the file WHOLE in it, it is complete
//!   store.old    for a moment: the one that was replaced
//! ```
//! A crash at any moment leaves one of the two whole: [`Home::open`] finishes what was begun.

use super::{Engine, Kind, Options, Result, open};
use crate::{
    io::{Disk, DiskFile, real::RealDisk},
    types::Fault,
};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The place of one member's store.
pub trait Home: Send + Sync + 'static {
    /// Opens the present store; an empty one if there is none.
    fn open(&self) -> Result<Arc<dyn Engine>>;

    /// Makes an empty store beside the present one. What was staged before is thrown away; nobody may hold it any more.
    fn stage(&self) -> Result<Arc<dyn Engine>>;

    /// What was staged is whole, flushed and closed: from now on a crash does not take it away.
    fn seal(&self) -> Result<()>;

    /// Opens the staged store, if it was sealed and not installed. To be dropped before anything else is done with it.
    fn sealed(&self) -> Result<Option<Arc<dyn Engine>>>;

    /// Puts the sealed store in the place of the present one and opens it. Whoever holds the former goes on reading it.
    fn install(&self) -> Result<Arc<dyn Engine>>;

    /// Throws away what was staged.
    fn discard(&self) -> Result<()>;

    /// Notes, so that a restart finds it, that the present store is not what the other members hold. The note goes when another store takes
    /// the place of this one.
    fn distrust(&self) -> Result<()>;

    /// Takes the note back, if there is one.
    fn trust(&self) -> Result<()>;

    /// Whether the present store has the note.
    fn is_distrusted(&self) -> Result<bool>;
}

/// A home in a folder.
pub struct DirHome {
    dir: PathBuf,
    kind: Kind,
    options: Options,
    disk: RealDisk,
}

const WHOLE: &str = "WHOLE";
const OUTVOTED: &str = "OUTVOTED";

impl DirHome {
    /// The home of a store of `kind` in `dir`, which must exist.
    pub fn new(dir: &Path, kind: Kind, options: Options) -> DirHome {
        DirHome { dir: dir.to_owned(), kind, options, disk: RealDisk::default() }
    }

    /// Folder of the present store.
    pub fn present(&self) -> PathBuf {
        self.dir.join("store")
    }

    fn next(&self) -> PathBuf {
        self.dir.join("store.next")
    }

    fn old(&self) -> PathBuf {
        self.dir.join("store.old")
    }

    fn is_sealed(&self) -> bool {
        self.next().join(WHOLE).exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to).map_err(|source| Fault::io("rename", from, source))?;
        self.disk.sync_dir(&self.dir).map_err(|source| Fault::io("fsync folder", &self.dir, source))
    }

    fn remove(&self, dir: &Path) -> Result<()> {
        match std::fs::remove_dir_all(dir) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(Fault::io("remove", dir, source)),
            _ => Ok(()),
        }
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(Fault::io("remove", path, source)),
            _ => Ok(()),
        }
    }

    /// An empty file that outlives a crash.
    fn put_note(&self, path: &Path, dir: &Path) -> Result<()> {
        let write = || {
            self.disk.create(path)?.sync_data()?;
            self.disk.sync_dir(dir)
        };
        write().map_err(|source| Fault::io("write", path, source))
    }

    /// The second half of an installation, which a crash may have cut off.
    fn finish(&self) -> Result<()> {
        if !self.present().exists() {
            if self.is_sealed() {
                self.rename(&self.next(), &self.present())?;
            } else if self.old().exists() {
                self.rename(&self.old(), &self.present())?;
            }
        }
        self.remove_file(&self.present().join(WHOLE))?;
        self.remove(&self.old())
    }
}

impl Home for DirHome {
    fn open(&self) -> Result<Arc<dyn Engine>> {
        self.finish()?;
        if !self.is_sealed() {
            self.remove(&self.next())?;
        }
        open(self.kind, &self.present(), self.options.clone())
    }

    fn stage(&self) -> Result<Arc<dyn Engine>> {
        self.discard()?;
        open(self.kind, &self.next(), self.options.clone())
    }

    fn seal(&self) -> Result<()> {
        self.put_note(&self.next().join(WHOLE), &self.next())?;
        self.disk.sync_dir(&self.dir).map_err(|source| Fault::io("fsync folder", &self.dir, source))
    }

    fn sealed(&self) -> Result<Option<Arc<dyn Engine>>> {
        match self.is_sealed() {
            true => open(self.kind, &self.next(), self.options.clone()).map(Some),
            false => Ok(None),
        }
    }

    fn install(&self) -> Result<Arc<dyn Engine>> {
        assert!(self.is_sealed(), "only a whole store is installed");
        self.remove(&self.old())?;
        self.rename(&self.present(), &self.old())?;
        self.finish()?;
        open(self.kind, &self.present(), self.options.clone())
    }

    fn discard(&self) -> Result<()> {
        // The file that says "whole" goes first: what is half removed must not be taken for it.
        self.remove_file(&self.next().join(WHOLE))?;
        self.remove(&self.next())
    }

    fn distrust(&self) -> Result<()> {
        self.put_note(&self.present().join(OUTVOTED), &self.present())
    }

    fn trust(&self) -> Result<()> {
        self.remove_file(&self.present().join(OUTVOTED))
    }

    fn is_distrusted(&self) -> Result<bool> {
        let path = self.present().join(OUTVOTED);
        path.try_exists().map_err(|source| Fault::io("look for", &path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Batch, Table};

    fn fill(engine: &dyn Engine, value: &'static str) {
        let mut batch = Batch::default();
        batch.put(Table::Meta, "who", value);
        engine.write(batch).expect("a sound disk");
        engine.flush().expect("a sound disk");
    }

    fn who(engine: &dyn Engine) -> Option<bytes::Bytes> {
        engine.get(Table::Meta, b"who").expect("a sound disk")
    }

    #[test]
    fn a_sealed_store_takes_the_place_of_the_present_one_which_can_still_be_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = DirHome::new(dir.path(), Kind::Redb, Options::default());
        let former = home.open().expect("a store");
        fill(&*former, "former");
        fill(&*home.stage().expect("a second store"), "next");
        assert!(home.sealed().expect("a sound disk").is_none(), "not whole yet");
        home.seal().expect("a sound disk");
        assert_eq!(who(&*home.sealed().expect("a sound disk").expect("sealed")).as_deref(), Some(&b"next"[..]));
        let present = home.install().expect("a sound disk");
        assert_eq!(who(&*present).as_deref(), Some(&b"next"[..]));
        assert_eq!(who(&*former).as_deref(), Some(&b"former"[..]));
        drop((former, present));
        assert_eq!(who(&*home.open().expect("a store")).as_deref(), Some(&b"next"[..]));
    }

    #[test]
    fn a_crash_in_the_middle_of_an_installation_is_made_good() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = DirHome::new(dir.path(), Kind::Redb, Options::default());
        fill(&*home.open().expect("a store"), "former");
        fill(&*home.stage().expect("a second store"), "next");
        home.seal().expect("a sound disk");
        std::fs::rename(dir.path().join("store"), dir.path().join("store.old")).expect("a sound disk");
        assert_eq!(who(&*home.open().expect("a store")).as_deref(), Some(&b"next"[..]));
        assert!(!dir.path().join("store.old").exists() && !dir.path().join("store.next").exists());
    }

    #[test]
    fn a_store_is_distrusted_until_another_takes_its_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = DirHome::new(dir.path(), Kind::Redb, Options::default());
        fill(&*home.open().expect("a store"), "wrong");
        assert!(!home.is_distrusted().expect("a sound disk"));
        home.distrust().expect("a sound disk");
        drop(home.open().expect("a store"));
        assert!(home.is_distrusted().expect("a sound disk"), "a restart does not make it right");
        fill(&*home.stage().expect("a second store"), "right");
        home.seal().expect("a sound disk");
        drop(home.install().expect("a sound disk"));
        assert!(!home.is_distrusted().expect("a sound disk"));
        home.distrust().and_then(|()| home.trust()).expect("a sound disk");
        assert!(!home.is_distrusted().expect("a sound disk"));
    }

    #[test]
    fn what_was_staged_and_not_sealed_does_not_survive() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = DirHome::new(dir.path(), Kind::Redb, Options::default());
        fill(&*home.open().expect("a store"), "former");
        fill(&*home.stage().expect("a second store"), "half");
        assert_eq!(who(&*home.open().expect("a store")).as_deref(), Some(&b"former"[..]));
        assert!(!dir.path().join("store.next").exists());
    }
}
