//! A disk in memory that behaves as badly as a real one may, and the same way again from the same seed.
//!
//! Writes are buffered until [`DiskFile::sync_data`]; creations, renames and removals until [`Disk::sync_dir`] of each folder
//! they touch. [`SimDisk::crash`] decides the fate of what is buffered: each write is lost, kept, or torn between sectors; each
//! change of a folder is lost or kept. A sector is whole: it holds all writes to it up to the last one that reached it.

use super::{Disk, DiskFile};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

#[cfg(test)]
mod tests;

const SECTOR: usize = 512;

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// An open file of [`SimDisk`]. After a crash, files opened before it refuse everything.
pub struct SimFile {
    state: Arc<Mutex<State>>,
    id: usize,
    life: u64,
}

/// What names a folder or a file; files are numbers, so that an open one survives its renaming.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

type Tree = BTreeMap<PathBuf, Node>;

#[derive(Clone)]
enum Change {
    Create(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// A change of folders, and those of them that it still waits for.
struct Pending {
    change: Change,
    unsynced: Vec<PathBuf>,
}

enum Buffered {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Default)]
struct Inode {
    /// What is on the medium.
    durable: Vec<u8>,
    /// What readers see.
    seen: Vec<u8>,
    /// From the one to the other.
    buffered: Vec<Buffered>,
}

struct State {
    random: u64,
    files: Vec<Inode>,
    durable: Tree,
    seen: Tree,
    pending: Vec<Pending>,
    /// Counts crashes.
    life: u64,
    writes: u64,
    syncs: u64,
    fail_write: Option<(u64, io::ErrorKind)>,
    fail_sync: Option<(u64, io::ErrorKind)>,
    /// Changes left until the power goes.
    halt: Option<u64>,
    slow: Duration,
    delay: Duration,
}

impl SimDisk {
    /// An empty disk with a root folder.
    pub fn new(seed: u64) -> SimDisk {
        let root = BTreeMap::from([(PathBuf::from("/"), Node::Folder)]);
        SimDisk(Arc::new(Mutex::new(State {
            random: seed,
            files: Vec::new(),
            durable: root.clone(),
            seen: root,
            pending: Vec::new(),
            life: 0,
            writes: 0,
            syncs: 0,
            fail_write: None,
            fail_sync: None,
            halt: None,
            slow: Duration::ZERO,
            delay: Duration::ZERO,
        })))
    }

    /// Loses power and comes back.
    pub fn crash(&self) {
        let mut state = self.0.lock();
        let state = &mut *state;
        state.life += 1;
        state.halt = None;
        let mut tree = std::mem::take(&mut state.durable);
        for pending in std::mem::take(&mut state.pending) {
            if pending.unsynced.is_empty() || state.below(2) == 0 {
                apply(&mut tree, pending.change);
            }
        }
        for id in 0..state.files.len() {
            let inode = std::mem::take(&mut state.files[id]);
            let durable = state.survivors(inode);
            state.files[id] = Inode { seen: durable.clone(), durable, buffered: Vec::new() };
        }
        state.durable = tree.clone();
        state.seen = tree;
    }

    /// Turns over one bit of a file, on the medium too; false if there is no such byte.
    pub fn flip(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let mut state = self.0.lock();
        let (Some(&Node::File(id)), Ok(offset)) = (state.seen.get(path), usize::try_from(offset)) else { return false };
        let inode = &mut state.files[id];
        let Some(byte) = inode.seen.get_mut(offset) else { return false };
        *byte ^= 1 << (bit % 8);
        if let Some(byte) = inode.durable.get_mut(offset) {
            *byte ^= 1 << (bit % 8);
        }
        true
    }

    /// Makes the write after the next `after` ones fail with `kind`, half of it written.
    pub fn fail_write(&self, after: u64, kind: io::ErrorKind) {
        let mut state = self.0.lock();
        state.fail_write = Some((state.writes + after, kind));
    }

    /// Makes the sync after the next `after` ones fail with `kind`. As on Linux, what it should have written then counts as
    /// clean, and a second sync would succeed: the data is lost at the next crash.
    pub fn fail_sync(&self, after: u64, kind: io::ErrorKind) {
        let mut state = self.0.lock();
        state.fail_sync = Some((state.syncs + after, kind));
    }

    /// Cuts the power after the next `changes` operations that change something: all after them fail until
    /// [`SimDisk::crash`]. With each number in turn, a test visits every moment at which a crash can come.
    pub fn halt_after(&self, changes: u64) {
        self.0.lock().halt = Some(changes);
    }

    /// From now on each write and each sync takes this long. Nothing waits: see [`SimDisk::take_delay`].
    pub fn slow(&self, each: Duration) {
        self.0.lock().slow = each;
    }

    /// The time that operations have taken since the last call.
    pub fn take_delay(&self) -> Duration {
        std::mem::take(&mut self.0.lock().delay)
    }

    /// How many writes and syncs of files there have been.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.writes, state.syncs)
    }

    /// A disk of its own with the same content, buffers and luck.
    pub fn fork(&self, seed: u64) -> SimDisk {
        let state = self.0.lock();
        let files = state.files.iter().map(Inode::copy).collect();
        let pending = state
            .pending
            .iter()
            .map(|pending| Pending { change: pending.change.clone(), unsynced: pending.unsynced.clone() })
            .collect();
        let (durable, seen) = (state.durable.clone(), state.seen.clone());
        SimDisk(Arc::new(Mutex::new(State { random: seed, files, durable, seen, pending, ..*state })))
    }
}

impl State {
    /// Called before each change.
    fn power(&mut self) -> io::Result<()> {
        match &mut self.halt {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// What of one file reaches the medium.
    fn survivors(&mut self, inode: Inode) -> Vec<u8> {
        let mut file = inode.durable;
        let mut writes: Vec<(usize, Vec<u8>)> = Vec::new();
        for buffered in inode.buffered {
            match buffered {
                Buffered::Write(offset, data) => writes.push((offset, data)),
                Buffered::Len(len) => {
                    self.settle(&mut file, std::mem::take(&mut writes));
                    // A lost length takes with it all that came after.
                    if self.below(2) == 0 {
                        return file;
                    }
                    file.resize(len, 0);
                }
            }
        }
        self.settle(&mut file, writes);
        file
    }

    fn settle(&mut self, file: &mut Vec<u8>, writes: Vec<(usize, Vec<u8>)>) {
        // Sector by sector: the number of writes that it has seen.
        let mut reached: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, (offset, data)) in writes.iter().enumerate() {
            let fate = self.below(3);
            for sector in sectors(*offset, data.len()) {
                if fate == 0 || fate == 1 && self.below(2) == 0 {
                    reached.insert(sector, at + 1);
                }
            }
        }
        for (sector, count) in reached {
            let sector = sector * SECTOR..(sector + 1) * SECTOR;
            for (offset, data) in &writes[..count] {
                let from = sector.start.max(*offset);
                let to = sector.end.min(offset + data.len());
                if from < to {
                    put(file, from, &data[from - offset..to - offset]);
                }
            }
        }
    }

    /// splitmix64: any seed will do, 0 as well.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.seen.get(path) {
            Some(&Node::File(id)) => Ok(id),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn folder(&self, path: &Path) -> io::Result<()> {
        match self.seen.get(path) {
            Some(Node::Folder) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: Change, folders: Vec<PathBuf>) {
        apply(&mut self.seen, change.clone());
        self.pending.push(Pending { change, unsynced: folders });
    }
}

impl Inode {
    fn copy(&self) -> Inode {
        let buffered = self
            .buffered
            .iter()
            .map(|buffered| match buffered {
                Buffered::Write(offset, data) => Buffered::Write(*offset, data.clone()),
                Buffered::Len(len) => Buffered::Len(*len),
            })
            .collect();
        Inode { durable: self.durable.clone(), seen: self.seen.clone(), buffered }
    }
}

fn sectors(offset: usize, len: usize) -> Range<usize> {
    offset / SECTOR..(offset + len).div_ceil(SECTOR)
}

fn put(file: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(data);
}

/// A change whose premise was itself lost does nothing.
fn apply(tree: &mut Tree, change: Change) {
    match change {
        Change::Create(path, node) => {
            if tree.get(&parent(&path)) == Some(&Node::Folder) {
                tree.insert(path, node);
            }
        }
        Change::Remove(path) => {
            tree.remove(&path);
        }
        Change::Rename(from, to) => {
            let moved: Vec<PathBuf> = tree.keys().filter(|path| path.starts_with(&from)).cloned().collect();
            for path in moved {
                let node = tree.remove(&path).expect("listed just now");
                let below = path.strip_prefix(&from).expect("filtered just now");
                // Joining an empty path would add a slash.
                let path = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                tree.insert(path, node);
            }
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).into()
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        let mut state = self.0.lock();
        state.power()?;
        state.folder(&parent(path))?;
        if state.seen.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.files.len();
        state.files.push(Inode::default());
        state.change(Change::Create(path.into(), Node::File(id)), vec![parent(path)]);
        Ok(SimFile { state: self.0.clone(), id, life: state.life })
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let state = self.0.lock();
        Ok(SimFile { state: self.0.clone(), id: state.file(path)?, life: state.life })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.power()?;
        if !state.seen.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.folder(&parent(to))?;
        let occupied = state.seen.keys().any(|path| path != to && path.starts_with(to));
        if occupied {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let mut folders = vec![parent(from), parent(to)];
        folders.dedup();
        state.change(Change::Rename(from.into(), to.into()), folders);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.power()?;
        state.file(path)?;
        state.change(Change::Remove(path.into()), vec![parent(path)]);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.0.lock();
        state.folder(dir)?;
        Ok(state.seen.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.power()?;
        let missing: Vec<PathBuf> =
            dir.ancestors().take_while(|path| !state.seen.contains_key(*path)).map(Path::to_path_buf).collect();
        for path in missing.into_iter().rev() {
            let parent = parent(&path);
            state.change(Change::Create(path, Node::Folder), vec![parent]);
        }
        state.folder(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.power()?;
        state.folder(dir)?;
        for pending in &mut state.pending {
            pending.unsynced.retain(|folder| folder != dir);
        }
        // Only a prefix can be settled: a later change may build on an earlier one.
        let settled = state.pending.iter().take_while(|pending| pending.unsynced.is_empty()).count();
        let changes: Vec<Change> = state.pending.drain(..settled).map(|pending| pending.change).collect();
        for change in changes {
            apply(&mut state.durable, change);
        }
        Ok(())
    }
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, usize) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        if state.life != self.life {
            return Err(io::Error::other("opened before the crash"));
        }
        act(&mut state, self.id)
    }

    fn resize(&self, id: usize, state: &mut State, len: u64) -> io::Result<()> {
        state.power()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        state.files[id].seen.resize(len, 0);
        state.files[id].buffered.push(Buffered::Len(len));
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|state, id| {
            state.power()?;
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            let failure = state.fail_write.filter(|&(at, _)| at == state.writes);
            state.writes += 1;
            state.delay += state.slow;
            let data = if failure.is_some() { &data[..data.len() / 2] } else { data };
            put(&mut state.files[id].seen, offset, data);
            state.files[id].buffered.push(Buffered::Write(offset, data.to_vec()));
            failure.map_or(Ok(()), |(_, kind)| Err(kind.into()))
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|state, id| {
            let seen = &state.files[id].seen;
            let start = usize::try_from(offset).map_err(io::Error::other)?.min(seen.len());
            let count = buffer.len().min(seen.len() - start);
            buffer[..count].copy_from_slice(&seen[start..start + count]);
            Ok(count)
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state, id| Ok(state.files[id].seen.len() as u64))
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        self.with(
            |state, id| {
                if state.files[id].seen.len() as u64 >= len { Ok(()) } else { self.resize(id, state, len) }
            },
        )
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.with(|state, id| self.resize(id, state, len))
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.with(|state, id| {
            state.power()?;
            let failure = state.fail_sync.filter(|&(at, _)| at == state.syncs);
            state.syncs += 1;
            state.delay += state.slow;
            let inode = &mut state.files[id];
            let buffered = std::mem::take(&mut inode.buffered);
            if let Some((_, kind)) = failure {
                return Err(kind.into());
            }
            for buffered in buffered {
                match buffered {
                    Buffered::Write(offset, data) => put(&mut inode.durable, offset, &data),
                    Buffered::Len(len) => inode.durable.resize(len, 0),
                }
            }
            Ok(())
        })
    }
}
