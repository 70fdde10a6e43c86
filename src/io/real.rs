//! The operating system's disk, clock and randomness.

use super::{Clock, Disk, DiskFile, Rng};
use crate::types::Fault;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Space that is given back at once, and the pause after it. A file of 64 MiB that goes in one step makes whoever syncs meanwhile wait for
/// 10 to 20 ms (ext4, mounted with `discard`); in steps of this size, for one at most.
const SHRINK_BYTES: u64 = 4 << 20;
const SHRINK_PAUSE: Duration = Duration::from_millis(10);

/// Cuts the file down step by step.
fn shrink(path: &Path, mut len: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    while len > SHRINK_BYTES {
        len -= SHRINK_BYTES;
        file.set_len(len)?;
        std::thread::sleep(SHRINK_PAUSE);
    }
    Ok(())
}

/// The file system of this machine. Files get mode 0600, folders 0700.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk {
    lazy: bool,
}

impl RealDisk {
    /// A disk that says "synced" and leaves it to the system when to write (`unsafe-no-fsync`): a power cut loses what was
    /// acknowledged.
    pub fn without_sync() -> RealDisk {
        RealDisk { lazy: true }
    }
}

/// An open file of [`RealDisk`].
#[derive(Debug)]
pub struct RealFile {
    file: File,
    lazy: bool,
}

impl RealDisk {
    fn wrap(self, file: File) -> RealFile {
        RealFile { file, lazy: self.lazy }
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn create(&self, path: &Path) -> io::Result<RealFile> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).map(|file| self.wrap(file))
    }

    fn open(&self, path: &Path) -> io::Result<RealFile> {
        OpenOptions::new().read(true).write(true).open(path).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        // A link is removed, not what it leads to.
        let metadata = std::fs::symlink_metadata(path)?;
        if metadata.is_file() && metadata.len() > SHRINK_BYTES {
            shrink(path, metadata.len())?;
        }
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.lazy {
            return Ok(());
        }
        // A relative path of one part has the parent "".
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()
    }
}

impl DiskFile for RealFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        use rustix::io::Errno;
        if len == 0 {
            return Ok(());
        }
        loop {
            match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // Not every file system can reserve. The length alone still spares the metadata update on each sync.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
                Err(error) => return Err(error.into()),
            }
        }
        if self.len()? < len { self.file.set_len(len) } else { Ok(()) }
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        if self.lazy { Ok(()) } else { self.file.sync_data() }
    }
}

/// The monotonic clock, counted from its creation.
#[derive(Clone, Copy, Debug)]
pub struct RealClock(Instant);

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock(Instant::now())
    }
}

impl Clock for RealClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Numbers that nobody can predict, seeded by the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealRng;

impl Rng for RealRng {
    fn next_u64(&mut self) -> u64 {
        rand::random()
    }
}

/// Keeps other processes out of a folder for as long as it lives; the system drops it with the process.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Takes `dir`, which must exist, for this process.
///
/// # Errors
/// [`Fault::Unusable`] with the folder's name if somebody has it. Nothing is waited for.
pub fn lock_dir(dir: &Path) -> Result<DirLock, Fault> {
    let path = dir.join("LOCK");
    // Neither truncated nor removed: the file's presence means nothing, only the lock on it does.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| Fault::io("open", &path, source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DirLock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Fault::Unusable { path: dir.into(), what: "another process is using this data directory".into() })
        }
        Err(error) => Err(Fault::io("lock", path, error.into())),
    }
}

/// How much a thread gives way that works beside the traffic, in steps of the system (0 is like everybody, 19 the most).
const NICE: i32 = 15;

/// Makes the calling thread give way to all others from now on. On Linux it is the thread's own and cannot be taken back: work that is to
/// give way gets a thread that ends with it. Elsewhere it would be the whole process's, so nothing happens.
pub fn give_way() {
    if cfg!(target_os = "linux") {
        let _ = rustix::process::nice(NICE); // as good as it gets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::fs::PermissionsExt,
        time::{Duration, Instant},
    };

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_removed_in_steps_is_gone_and_a_links_target_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let (path, link) = (temp.path().join("large"), temp.path().join("link"));
        RealDisk::default().create(&path).unwrap().allocate(2 * SHRINK_BYTES + 1).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        RealDisk::default().remove(&link).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * SHRINK_BYTES + 1);
        RealDisk::default().remove(&path).unwrap();
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_and_folders_are_private_and_keep_what_is_written() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, path) = (temp.path().join("a/b"), temp.path().join("a/b/file"));
        RealDisk::default().create_dir(&dir).unwrap();
        let mut file = RealDisk::default().create(&path).unwrap();
        assert_eq!((mode(&dir), mode(&path)), (0o700, 0o600));
        file.allocate(8192).unwrap();
        file.write_at(4090, b"across").unwrap();
        file.sync_data().unwrap();
        RealDisk::default().sync_dir(&dir).unwrap();
        let mut buffer = [1; 10_000];
        assert_eq!(RealDisk::default().open(&path).unwrap().read_at(4090, &mut buffer).unwrap(), 8192 - 4090);
        assert_eq!(&buffer[..7], b"across\0");
        file.truncate(3).unwrap();
        assert_eq!(file.len().unwrap(), 3);
        assert_eq!(RealDisk::default().list(&dir).unwrap(), [path]);
    }

    #[test]
    fn a_locked_folder_is_refused_by_name_until_the_lock_goes() {
        let temp = tempfile::tempdir().unwrap();
        let lock = lock_dir(temp.path()).unwrap();
        let refusal = lock_dir(temp.path()).unwrap_err().to_string();
        assert!(refusal.contains(&temp.path().display().to_string()), "{refusal}");
        drop(lock);
        // Another test may be starting a process, which holds what this one has open until it runs its program.
        let patience = Instant::now() + Duration::from_secs(10);
        while let Err(refusal) = lock_dir(temp.path()) {
            assert!(Instant::now() < patience, "{refusal}");
            std::thread::yield_now();
        }
    }
}
