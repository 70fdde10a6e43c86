//! bbolt's file format: reading a database, and writing one in bulk.
//!
//! **Promises.** A file from [`Writer`] passes bbolt's own check and can be opened by it for reading and writing. [`Reader`] checks
//! every page before it looks inside: damage gives an [`Error`] with an offset, never a panic, no page is believed to be larger than
//! the file, and no walk reads more than the file has. Both work with a few pages in memory, however large the database is.
//! **May not know** what the buckets mean, or where the bytes are: they come through [`ReadAt`], [`std::io::Write`] and [`std::io::Seek`].
//!
//! ```text
//!   0 meta | 1 meta | 2 … leaf and branch pages, in the order in which they were filled … | root leaf | freelist (empty)
//!
//!   page    id 8 | flags 2 | count 2 | overflow 4 | elements, 16 bytes each | keys and values
//!   leaf    flags 4 | position 4 | key length 4 | value length 4       flags 1: the value is a bucket
//!   branch  position 4 | key length 4 | page 8                         positions count from the element
//!   bucket  root page 8 | sequence 8 [| page]                          root 0: the whole bucket follows as one page
//!   meta    magic 4 | version 4 | page size 4 | flags 4 | root bucket 16 | freelist 8 | pages 8 | transaction 8 | FNV-1a 8
//! ```
//! Numbers are little endian. (bbolt writes those of its machine; nobody runs etcd on a big-endian one and moves the file.)

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod page;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Bucket, ReadAt, Reader, Visit};
pub use write::Writer;

use std::io;

/// Size of the pages that [`Writer`] writes, in bytes.
pub const PAGE_BYTES: usize = 4_096;
/// Most bytes of a key, as in bbolt.
pub const KEY_BYTES_MAX: usize = 32_768;

/// Why a database could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The medium failed.
    #[error("at byte {offset}: {source}")]
    Io {
        /// Where in the file.
        offset: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is no bbolt database, or one of another version.
    #[error("{0}")]
    Foreign(String),
    /// Bytes of the file are not what bbolt wrote.
    #[error("at byte {offset}: {what}")]
    Damaged {
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// What was to be written can't be in a database: a key that is empty, too long, or out of order.
    #[error("cannot write the key {key}: {what}")]
    Refused {
        /// The key, readable.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The result of reading or writing a database.
pub type Result<T> = std::result::Result<T, Error>;
