//! Free space of a stopped member's store back to the file system.

use super::Error;
use crate::{
    engine::{self, Size},
    io::real::lock_dir,
};
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Between two attempts to get hold of a data directory.
const LOCK_STEP: Duration = Duration::from_millis(100);

/// The data directory of a member of henge's.
#[derive(Debug)]
pub struct MemberDir<'a>(&'a Path);

impl MemberDir<'_> {
    /// The data directory of a member that has run.
    ///
    /// # Errors
    /// [`Error::Unusable`] if there is none, or if it is etcd's.
    pub fn find(data_dir: &Path) -> Result<MemberDir<'_>, Error> {
        let store = data_dir.join("member/store");
        if data_dir.join("member/snap/db").exists() {
            let what =
                "this is etcd's data directory: its own etcdutl is for it, and `hengectl import` makes henge's of it";
            return Err(Error::unusable(data_dir, what));
        }
        match std::fs::metadata(&store) {
            Ok(_) => Ok(MemberDir(data_dir)),
            Err(error) => Err(Error::unusable(store, error.to_string())),
        }
    }

    /// Moves what is in use together and cuts the file behind it. The member must be stopped: whoever has the directory is waited for as
    /// long as `patience` (forever, if that is zero). The sizes before and after.
    ///
    /// # Errors
    /// [`Error::Store`] with the directory's name if somebody else keeps it, and whatever the store says.
    pub fn defragment(&self, patience: Duration) -> Result<(Size, Size), Error> {
        let began = Instant::now();
        let _lock = loop {
            match lock_dir(self.0) {
                Ok(lock) => break lock,
                Err(fault) if !patience.is_zero() && began.elapsed() >= patience => return Err(fault.into()),
                Err(_) => thread::sleep(LOCK_STEP),
            }
        };
        Ok(engine::defragment(&self.0.join("member/store"))?)
    }
}
