//! A snapshot file: a database, and most often its SHA-256 behind it.

use super::{Error, bucket, rows};
use crate::{
    bolt::{Bucket, ReadAt, Reader},
    mvcc::{EventKind, read_row},
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    fs::File,
    io,
    ops::ControlFlow,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Bytes of the hash.
const HASH_BYTES: u64 = 32;
/// Databases are of whole pages, and no page is smaller: what is left over is the hash. etcd's own rule.
const SECTOR_BYTES: u64 = 512;
const CHUNK_BYTES: usize = 1 << 20;

/// What is demanded of the hash at the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashCheck {
    /// It must be there, and right.
    Demand,
    /// If it is there, it must be right.
    IfThere,
    /// It is not looked at.
    Skip,
}

/// A snapshot file, or a database that was copied from a data directory.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl SnapshotFile {
    /// Opens the file and checks its hash, which reads all of it.
    ///
    /// # Errors
    /// [`Error::Unusable`] if the file can't be read, or the hash is not as `check` demands.
    pub fn open(path: &Path, check: HashCheck) -> Result<SnapshotFile, Error> {
        let refused = |error: io::Error| Error::unusable(path, error.to_string());
        let file = File::open(path).map_err(refused)?;
        let bytes = file.metadata().map_err(refused)?.len();
        let has_hash = bytes % SECTOR_BYTES == HASH_BYTES;
        let database_bytes = if has_hash { bytes - HASH_BYTES } else { bytes };
        let opened = SnapshotFile { path: path.to_owned(), file, bytes: database_bytes };
        match check {
            HashCheck::Demand if !has_hash => {
                return Err(Error::unusable(
                    path,
                    "snapshot missing hash but --skip-hash-check=false: the file was cut, or copied from a data directory",
                ));
            }
            HashCheck::Demand | HashCheck::IfThere if has_hash => opened.check_hash()?,
            _ => {}
        }
        Ok(opened)
    }

    fn check_hash(&self) -> Result<(), Error> {
        let failed = |error: io::Error| Error::unusable(&self.path, error.to_string());
        let (mut hash, mut buffer, mut offset) = (Sha256::new(), vec![0; CHUNK_BYTES], 0);
        while offset < self.bytes {
            let wanted = buffer.len().min(usize::try_from(self.bytes - offset).unwrap_or(usize::MAX));
            self.file.read_exact_at(&mut buffer[..wanted], offset).map_err(failed)?;
            hash.update(&buffer[..wanted]);
            offset += wanted as u64;
        }
        let mut expected = [0; HASH_BYTES as usize];
        self.file.read_exact_at(&mut expected, self.bytes).map_err(failed)?;
        let found = hash.finalize();
        if found[..] != expected {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let what = format!("expected sha256 {}, got {}: the file is damaged", hex(&expected), hex(&found));
            return Err(Error::unusable(&self.path, what));
        }
        Ok(())
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database in the file.
    pub(super) fn database(&self) -> Result<Database<'_>, Error> {
        let failed = |source| Error::Bolt { path: self.path.clone(), source };
        let reader = Reader::open(self).map_err(failed)?;
        let buckets = reader.buckets().map_err(failed)?;
        Ok(Database { path: &self.path, bytes: self.bytes, reader, buckets })
    }
}

impl ReadAt for SnapshotFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(rest);
        self.file.read_at(&mut buffer[..wanted], offset)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }
}

/// Who is shown key and value of one row after the other, and may refuse one.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), Error>;

/// The database of a file, open for reading; errors name the file.
pub(super) struct Database<'a> {
    path: &'a Path,
    bytes: u64,
    reader: Reader<'a, SnapshotFile>,
    buckets: Vec<Bucket>,
}

impl Database<'_> {
    /// Calls `visit` for each row of a bucket, in order, until it fails. A bucket that is not there is empty.
    pub(super) fn scan(&self, name: &[u8], visit: Visit<'_>) -> Result<(), Error> {
        let Some(bucket) = self.buckets.iter().find(|bucket| bucket.name == name) else { return Ok(()) };
        self.scan_bucket(bucket, visit)
    }

    fn scan_bucket(&self, bucket: &Bucket, visit: Visit<'_>) -> Result<(), Error> {
        let mut failed = None;
        let scanned = self.reader.scan(bucket, &mut |key, value| match visit(key, value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        scanned.map_err(|source| Error::Bolt { path: self.path.to_owned(), source })?;
        failed.map_or(Ok(()), Err)
    }

    /// A row that is not what its bucket should hold.
    pub(super) fn wrong_row(&self, bucket: &[u8], key: &[u8], what: &str) -> Error {
        let (bucket, key) = (bucket.escape_ascii(), key.escape_ascii());
        Error::unusable(self.path, format!("row {key} of bucket {bucket} {what}"))
    }

    /// Refuses files that are bbolt databases of something else.
    pub(super) fn check_is_etcds(&self) -> Result<(), Error> {
        let has = |name: &[u8]| self.buckets.iter().any(|bucket| bucket.name == name);
        match has(bucket::KEY) && has(bucket::META) {
            true => Ok(()),
            false => Err(Error::unusable(self.path, "this database is not etcd's: it has no bucket of keys")),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn path(&self) -> &Path {
        self.path
    }
}

/// What is in a snapshot file, in the numbers of `etcdutl snapshot status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// CRC32C over all buckets: names, keys and values.
    pub hash: u32,
    /// Revision of the last row.
    pub revision: i64,
    /// Keys that are there at that revision.
    pub total_keys: usize,
    /// Bytes of the database, without the SHA-256.
    pub total_bytes: u64,
    /// Version of the storage; empty in files of etcd before 3.6.
    pub version: String,
}

/// Reads all of a snapshot file: every page, every row, and the hash if it is there.
///
/// # Errors
/// [`Error::Unusable`] and [`Error::Bolt`] with what is wrong and where.
pub fn status(path: &Path) -> Result<Status, Error> {
    let file = SnapshotFile::open(path, HashCheck::IfThere)?;
    let database = file.database()?;
    let mut status = Status { total_bytes: database.reader.database_bytes(), ..Status::default() };
    let mut keys = HashSet::<Box<[u8]>>::new();
    for bucket in &database.buckets {
        status.hash = crc32c::crc32c_append(status.hash, &bucket.name);
        database.scan_bucket(bucket, &mut |key, value| {
            status.hash = crc32c::crc32c_append(crc32c::crc32c_append(status.hash, key), value);
            match &bucket.name[..] {
                bucket::KEY => count_row(&database, &mut status, &mut keys, key, value)?,
                bucket::META if key == b"storageVersion" => {
                    status.version = String::from_utf8_lossy(value).into_owned();
                }
                _ => {}
            }
            Ok(())
        })?;
    }
    status.total_keys = keys.len();
    Ok(status)
}

fn count_row(
    database: &Database<'_>,
    status: &mut Status,
    keys: &mut HashSet<Box<[u8]>>,
    key: &[u8],
    value: &[u8],
) -> Result<(), Error> {
    // What a restore with a revision bump leaves: etcd counts it as the key "".
    if value.is_empty() {
        let main = rows::parse_revision(key);
        status.revision = main.ok_or_else(|| database.wrong_row(bucket::KEY, key, "is no revision"))?;
        keys.insert(Box::default());
        return Ok(());
    }
    let row = read_row(key, &Bytes::copy_from_slice(value));
    let (revision, kind, kv) =
        row.ok_or_else(|| database.wrong_row(bucket::KEY, key, "is no version of a key, or that of another revision"))?;
    status.revision = revision.0;
    match kind {
        EventKind::Put => drop(keys.insert(Box::from(&*kv.key))),
        EventKind::Delete => drop(keys.remove(&*kv.key)),
    }
    Ok(())
}
