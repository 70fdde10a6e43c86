//! Which store is in a folder, and opening it.

use super::{
    Engine, Memory, Result, Size,
    overlay::{Bounds, Overlay},
    redb::Redb,
    sled::Sled,
};
use crate::{
    io::{Disk, DiskFile, real::RealDisk},
    types::Fault,
};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Names the store in a folder and the form of its rows; written before the store itself.
const FORMAT_FILE: &str = "FORMAT";
/// The form of rows that this version reads and writes.
const FORMAT_VERSION: u32 = 1;
/// A flush is due when so much is waiting.
const WAKE_BYTES: usize = 8 << 20;
/// A write waits while more than this is waiting.
const WAIT_BYTES: usize = 64 << 20;
/// A store may stay locked for a moment after it was closed: sled's threads end later, and a process that is just being started
/// has inherited what its parent had open.
const UNLOCK_WAIT: Duration = Duration::from_secs(2);

/// A storage engine, as `--storage-engine` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The default.
    #[default]
    Redb,
    /// Experimental.
    Sled,
    /// Keeps nothing: for tests.
    Memory,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Redb => "redb",
            Kind::Sled => "sled",
            Kind::Memory => "memory",
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Kind, String> {
        match text {
            "redb" => Ok(Kind::Redb),
            "sled" => Ok(Kind::Sled),
            "memory" => Ok(Kind::Memory),
            other => Err(format!("there is no storage engine {other:?}; choose redb or sled")),
        }
    }
}

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Most bytes of pages that the store keeps in memory.
    pub cache_bytes: usize,
    /// Reads and checks the whole store first, where the store can.
    pub check_integrity: bool,
    /// Called when much is waiting to be flushed. Must not block.
    pub wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Options {
        Options { cache_bytes: 128 << 20, check_integrity: false, wake: None }
    }
}

/// Opens the store in `dir`, which is made (mode 0700) if it is missing.
///
/// # Errors
/// [`Fault::Unusable`] if `dir` holds another engine's store, or one of a newer version; [`Fault::Io`], [`Fault::Damaged`] and
/// [`Fault::Engine`] from disk and store.
pub fn open(kind: Kind, dir: &Path, options: Options) -> Result<Arc<dyn Engine>> {
    let disk = RealDisk::default();
    disk.create_dir(dir).map_err(|source| Fault::io("create", dir, source))?;
    match found(&disk, dir)? {
        Some(there) if there != kind => {
            return Err(Fault::Unusable {
                path: dir.to_owned(),
                what: format!(
                    "it holds a {there} store, but {kind} was asked for; start with --storage-engine {there}, or with an empty folder"
                ),
            });
        }
        Some(_) => {}
        None if kind == Kind::Memory => {}
        None => announce(&disk, dir, kind)?,
    }
    let bounds = Bounds { wake_bytes: WAKE_BYTES, wait_bytes: WAIT_BYTES, wake: options.wake };
    Ok(match kind {
        Kind::Redb => {
            let path = dir.join("store.redb");
            let store = unlocked(&path, || Redb::open(&path, options.cache_bytes, options.check_integrity))?;
            Arc::new(Overlay::new("redb", store, bounds))
        }
        Kind::Sled => {
            let path = dir.join("sled");
            let store = unlocked(&path, || Sled::open(&path, options.cache_bytes))?;
            Arc::new(Overlay::new("sled", store, bounds))
        }
        Kind::Memory => Arc::new(Memory::default()),
    })
}

/// Gives the free space of the store in `dir` back to the file system, and tells its size before and after. Nobody may have it open. sled
/// does that by itself, all the time.
///
/// # Errors
/// As [`open`]; [`Fault::Unusable`] if there is no store.
pub fn defragment(dir: &Path) -> Result<(Size, Size)> {
    let kind = found(&RealDisk::default(), dir)?
        .ok_or_else(|| Fault::Unusable { path: dir.to_owned(), what: "there is no store in it".to_owned() })?;
    let size = || open(kind, dir, Options::default())?.size();
    let before = size()?;
    if kind == Kind::Redb {
        let (path, cache_bytes) = (dir.join("store.redb"), Options::default().cache_bytes);
        unlocked(&path, || Redb::open(&path, cache_bytes, false))?.compact()?;
    }
    Ok((before, size()?))
}

/// Opens again and again while another holds the lock, which `open` tells by `None`.
fn unlocked<S>(path: &Path, open: impl Fn() -> Result<Option<S>>) -> Result<S> {
    let deadline = Instant::now() + UNLOCK_WAIT;
    loop {
        if let Some(store) = open()? {
            return Ok(store);
        }
        if Instant::now() >= deadline {
            return Err(Fault::Unusable { path: path.to_owned(), what: "another process has it open".to_owned() });
        }
        thread::sleep(UNLOCK_WAIT / 100);
    }
}

/// Whose store is in `dir`; `None` if it is empty.
fn found(disk: &RealDisk, dir: &Path) -> Result<Option<Kind>> {
    let path = dir.join(FORMAT_FILE);
    let unusable = |what: String| Fault::Unusable { path: path.clone(), what };
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text).map(Some).map_err(unusable),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let files = disk.list(dir).map_err(|source| Fault::io("list", dir, source))?;
            match files.iter().find(|file| **file != draft(dir)) {
                None => Ok(None),
                Some(file) => Err(Fault::Unusable {
                    path: dir.to_owned(),
                    what: format!("there is {} but no {FORMAT_FILE} file that says whose it is", file.display()),
                }),
            }
        }
        Err(source) => Err(Fault::io("read", path, source)),
    }
}

/// The file's text: `henge store`, an engine, a version.
fn parse(text: &str) -> std::result::Result<Kind, String> {
    let words = text.split_whitespace().collect::<Vec<_>>();
    let ["henge", "store", engine, version] = words[..] else {
        return Err("it does not say which store this folder holds".to_owned());
    };
    let version: u32 = version.parse().map_err(|_| format!("{version:?} is not a version"))?;
    if version > FORMAT_VERSION {
        return Err(format!(
            "the store has format {version}, this version of henge reads formats up to {FORMAT_VERSION}; start a newer henge"
        ));
    }
    engine.parse()
}

fn draft(dir: &Path) -> PathBuf {
    dir.join("FORMAT.tmp")
}

/// Writes the file, whole or not at all.
fn announce(disk: &RealDisk, dir: &Path, kind: Kind) -> Result<()> {
    let (draft, path) = (draft(dir), dir.join(FORMAT_FILE));
    let write = || {
        // One that a crash left behind.
        match disk.remove(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = disk.create(&draft)?;
        file.write_at(0, format!("henge store {kind} {FORMAT_VERSION}\n").as_bytes())?;
        file.sync_data()?;
        disk.rename(&draft, &path)?;
        disk.sync_dir(dir)
    };
    write().map_err(|source| Fault::io("write", &path, source))
}
