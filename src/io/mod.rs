//! The few operations on disk, clock and randomness that the rest needs, as small traits.
//!
//! **Promises.** What a trait here does not offer, the lower rooms do not do: that is why `sim` can run them from a seed.
//! **May not know** what the bytes mean.

pub mod real;
pub mod sim_disk;

use std::{io, path::Path, path::PathBuf, time::Duration};

/// A file system, as far as the log needs one. Paths are as given; nothing is relative to a hidden folder.
pub trait Disk: Clone + Send + 'static {
    /// An open file. Dropping it closes it without a sync.
    type File: DiskFile;

    /// Creates `path` for reading and writing; fails if it exists.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens `path` for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Renames within one file system, replacing `to`. Durable only after [`Disk::sync_dir`] of both folders.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. It may take its time, to spare others that write: a crash may leave the file's beginning.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names in a folder, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Creates a folder and its parents, with mode 0700.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file of a [`Disk`].
#[allow(clippy::len_without_is_empty, reason = "a preallocated file is never empty, and nobody asks")]
pub trait DiskFile: Send + 'static {
    /// Writes all of `data` at `offset`, in one system call where possible.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reserves space up to `len` bytes and makes the file that long, filled with zeros.
    fn allocate(&mut self, len: u64) -> io::Result<()>;
    /// Cuts or extends the file to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Returns once everything written to this file so far is on the medium (`fdatasync`).
    fn sync_data(&mut self) -> io::Result<()>;
}

/// Time that never goes back.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed point in the past.
    fn now(&self) -> Duration;
}

/// Where chance comes from. Implementations may be seeded.
pub trait Rng: Send + 'static {
    /// The next 64 bits.
    fn next_u64(&mut self) -> u64;

    /// A number of `0..bound`; `bound` must not be 0.
    fn below(&mut self, bound: u64) -> u64 {
        // The modulo bias is below 2^-32 for the small bounds that are used here.
        self.next_u64() % bound
    }
}
