//! A disk that fails on command: it can be full, slow to sync, hang, and lose what was not synced.
//!
//! It is a FUSE file system of this program's own, in memory. A process that is killed loses nothing of what it wrote, as with a
//! system's page cache; [`Disk::power_cut`] then drops what no sync covered.
//!
//! ```text
//!   member ── write, fsync ──▶ kernel ──▶ fuse (gate: full, slow, hang) ──▶ tree: live ─ sync ─▶ durable
//!                                                                                   ◀─ power cut ─┘
//! ```

mod content;
mod fuse;
mod tree;

use crate::random::Random;
use fuse::{Files, Shared};
use fuser::{BackgroundSession, Config, MountOption};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

/// What the table of mounts says a disk is, before the process id.
const SOURCE: &str = "henge-jepsen-";

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Each sync takes this long.
    SlowSync(Duration),
    /// Writes and syncs wait until the trouble is over.
    Hang,
    /// Nothing that takes new space succeeds.
    Full,
}

/// One mounted disk. Dropping it unmounts it, and all on it is gone.
#[derive(Debug)]
pub struct Disk {
    mount_point: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// Mounts an empty disk at `mount_point`, which is created.
    ///
    /// # Errors
    /// Where there is no /dev/fuse, or this process may not mount.
    pub fn mount(mount_point: &Path) -> io::Result<Disk> {
        fs::create_dir_all(mount_point)?;
        let shared = Arc::new(Shared::default());
        let session = Some(session(mount_point, &shared)?);
        Ok(Disk { mount_point: mount_point.to_path_buf(), shared, session })
    }

    /// Changes what is wrong. What a hang held up goes on.
    pub fn set(&self, trouble: Trouble) {
        self.shared.set(trouble);
    }

    /// Loses what was not synced; with `survive`, chance keeps some of it. No process may use the disk. Returns how many files and
    /// folders lost something.
    ///
    /// # Errors
    /// If it cannot be unmounted or mounted again.
    pub fn power_cut(&mut self, survive: Option<&mut Random>) -> io::Result<usize> {
        // Mounting anew is what empties the kernel's caches.
        self.unmount()?;
        let lost = self.shared.tree.lock().expect("no handler panics").power_cut(survive);
        self.session = Some(session(&self.mount_point, &self.shared)?);
        Ok(lost)
    }

    fn unmount(&mut self) -> io::Result<()> {
        self.set(Trouble::None);
        let Some(session) = self.session.take() else { return Ok(()) };
        session.umount_and_join().or_else(|cause| {
            // Somebody looks at it; it goes when they leave.
            let path = self.mount_point.as_os_str();
            let lazily = Command::new("umount").arg("--lazy").arg(path).status()?;
            if lazily.success() { Ok(()) } else { Err(cause) }
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(cause) = self.unmount() {
            eprintln!("jepsen: {} stays mounted: {cause}", self.mount_point.display());
        }
    }
}

fn session(mount_point: &Path, shared: &Arc<Shared>) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName(format!("{SOURCE}{}", std::process::id())), MountOption::NoDev, MountOption::NoSuid];
    fuser::spawn_mount(Files(shared.clone()), mount_point, &config)
}

/// Unmounts the disks of runs whose process has died.
pub fn remove_leftovers() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for (pid, path) in mounts.lines().filter_map(owner) {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = Command::new("umount").args(["--lazy", path]).status();
        }
    }
}

/// Whose disk is mounted where, from a line of the table of mounts.
fn owner(line: &str) -> Option<(u32, &str)> {
    let (pid, rest) = line.strip_prefix(SOURCE)?.split_once(' ')?;
    Some((pid.parse().ok()?, rest.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, SeekFrom, Write};

    /// A mounted disk in a folder of its own; `None` where this machine has no FUSE.
    fn disk(name: &str) -> Option<(Disk, PathBuf)> {
        let path = std::env::temp_dir().join(format!("henge-jepsen-test-{}-{name}", std::process::id()));
        match Disk::mount(&path) {
            Ok(disk) => Some((disk, path)),
            Err(cause) => {
                eprintln!("skipped: no FUSE here: {cause}");
                None
            }
        }
    }

    #[test]
    fn the_table_of_mounts_tells_whose_a_disk_is() {
        assert_eq!(owner("henge-jepsen-12 /tmp/a/data fuse rw 0 0"), Some((12, "/tmp/a/data")));
        assert_eq!(owner("/dev/vda / ext4 rw 0 0"), None);
    }

    #[test]
    fn a_real_file_loses_exactly_what_was_not_synced() {
        let Some((mut disk, path)) = disk("cut") else { return };
        let mut file = fs::File::create(path.join("log")).expect("it can be created");
        file.write_all(b"synced").and_then(|()| file.sync_data()).expect("it can be written");
        file.write_all(b" lost").expect("it can be written");
        fs::create_dir(path.join("folder")).expect("it can be created");
        drop(file);
        assert_eq!(fs::read(path.join("log")).expect("it is there"), b"synced lost");
        assert_eq!(disk.power_cut(None).expect("it mounts again"), 2);
        assert_eq!(fs::read(path.join("log")).expect("it was synced"), b"synced");
        assert!(!path.join("folder").exists());
        drop(disk);
        fs::remove_dir(path).expect("it is unmounted and empty");
    }

    #[test]
    fn a_full_disk_says_so_and_works_again_later() {
        let Some((disk, path)) = disk("full") else { return };
        let mut file = fs::File::create(path.join("log")).expect("it can be created");
        file.write_all(&[1; 100]).expect("there is space");
        disk.set(Trouble::Full);
        let refused = file.write_all(&[1; 10_000]).expect_err("it is full");
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        disk.set(Trouble::None);
        file.write_all(&[1; 10_000]).expect("there is space");
        drop((file, disk));
        fs::remove_dir(path).expect("it is unmounted and empty");
    }

    #[test]
    fn a_hang_holds_writes_until_it_is_over_and_reads_go_on() {
        let Some((disk, path)) = disk("hang") else { return };
        let mut file = fs::File::options().create_new(true).read(true).write(true).open(path.join("log")).expect("new");
        file.write_all(b"before").expect("it works");
        disk.set(Trouble::Hang);
        let mut other = file.try_clone().expect("it can be cloned");
        let writer = std::thread::spawn(move || other.write_all(b" after").and_then(|()| other.sync_all()));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!writer.is_finished());
        assert_eq!(fs::metadata(path.join("log")).expect("it answers").len(), 6);
        disk.set(Trouble::None);
        writer.join().expect("no panic").expect("it was only late");
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text)).expect("it can be read");
        assert_eq!(text, "before after");
        drop((file, disk));
        fs::remove_dir(path).expect("it is unmounted and empty");
    }
}
