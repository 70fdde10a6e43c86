//! Where a host that volunteers keeps its member: a folder in the proxy's own.
//!
//! ```text
//!   standby/            the member's data, and its LOCK while it runs
//!   standby/member-id   which member's data it is; written before there is any
//!   standby/pid         its process; counts only while the lock is held
//!   standby.removed/    what the one before it left
//! ```

use crate::{io::real::lock_dir, process::make_durably, types::Fault};
use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

/// See the module.
pub(super) struct Quarters {
    dir: PathBuf,
}

impl Quarters {
    pub(super) fn in_dir(data_dir: &Path) -> Quarters {
        Quarters { dir: data_dir.join("standby") }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Of which member there is data.
    pub(super) fn kept(&self) -> Option<u64> {
        let text = fs::read_to_string(self.dir.join("member-id")).ok()?;
        u64::from_str_radix(text.trim(), 16).ok()
    }

    /// Whether a member runs here. What cannot be looked at is taken to be in use.
    pub(super) fn is_in_use(&self) -> bool {
        match lock_dir(&self.dir) {
            Ok(_) => false,
            Err(Fault::Unusable { .. }) => true,
            Err(_) => self.dir.exists(),
        }
    }

    /// The process that runs here; counts only if one does.
    pub(super) fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("pid")).ok()?.trim().parse().ok()
    }

    /// Makes room for the data of member `id`, before anything of it is here.
    ///
    /// # Errors
    /// What went wrong with which file.
    pub(super) fn prepare(&self, id: u64) -> Result<(), String> {
        make_durably(&self.dir).map_err(|fault| fault.to_string())?;
        let wrong = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        // The number of a process that has ended may be another one's by now.
        let pid = self.dir.join("pid");
        match fs::remove_file(&pid) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(wrong(&pid, error)),
            _ => {}
        }
        if self.kept() == Some(id) {
            return Ok(());
        }
        let path = self.dir.join("member-id");
        let write = || {
            let mut file = File::create(&path)?;
            writeln!(file, "{id:x}")?;
            file.sync_all()?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|error| wrong(&path, error))
    }

    /// Notes the process that was started.
    pub(super) fn note_pid(&self, pid: Option<u32>) {
        let Some(pid) = pid else { return };
        if let Err(error) = fs::write(self.dir.join("pid"), format!("{pid}\n")) {
            tracing::warn!(%error, "the number of the member's process is not kept; should it have to be ended, that is by hand");
        }
    }

    /// What a member that was removed has left is of no use to another one. It is kept until the next one leaves something.
    pub(super) async fn put_aside(&self) {
        let (from, to) = (self.dir.clone(), self.dir.with_extension("removed"));
        let moved = tokio::task::spawn_blocking(move || {
            match fs::remove_dir_all(&to) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => fs::rename(&from, &to),
            }
            .map(|()| to)
        });
        match moved.await {
            Ok(Ok(to)) => tracing::warn!(dir = %to.display(), "the data of a member that was removed is set aside"),
            Ok(Err(error)) => {
                tracing::error!(%error, dir = %self.dir.display(), "the data of a member that was removed is in the way")
            }
            Err(error) => tracing::error!(%error, "the data of a member that was removed is not set aside"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_known_whose_data_is_here_and_whether_it_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let quarters = Quarters::in_dir(dir.path());
        assert_eq!((quarters.kept(), quarters.is_in_use(), quarters.pid()), (None, false, None));
        quarters.prepare(0xab).unwrap();
        quarters.note_pid(Some(77));
        assert_eq!((quarters.kept(), quarters.is_in_use(), quarters.pid()), (Some(0xab), false, Some(77)));
        let lock = lock_dir(quarters.dir()).unwrap();
        assert!(quarters.is_in_use());
        drop(lock);
        quarters.prepare(0xab).unwrap();
        assert_eq!((quarters.is_in_use(), quarters.pid()), (false, None), "a process that has ended has no number");

        for id in [0xab_u64, 0xcd] {
            quarters.prepare(id).unwrap();
            quarters.put_aside().await;
            assert_eq!(quarters.kept(), None);
            let aside = fs::read_to_string(dir.path().join("standby.removed/member-id")).unwrap();
            assert_eq!(aside.trim(), format!("{id:x}"));
        }
    }
}
