//! Every reason for a member to stop.

use std::{fmt, io, path::PathBuf};

/// Why *this member* must stop. Local, never part of the replicated state.
#[derive(Debug)]
pub enum Fault {
    /// The operating system refused an operation on a file or folder.
    Io {
        /// What was being done, for example `"fdatasync"`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own answer.
        source: io::Error,
    },
    /// Bytes read back are not the bytes that were written.
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// Where in the file, in bytes from its start; `None` where the store does not tell.
        offset: Option<u64>,
        /// What is wrong and what to do.
        what: String,
    },
    /// A file or folder that this member can't use: of another engine, a newer format, another cluster, or in use.
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// The storage engine failed in its own way.
    Engine {
        /// Which engine.
        engine: &'static str,
        /// What was being done.
        doing: &'static str,
        /// The engine's own answer.
        cause: String,
    },
}

impl Fault {
    /// An [`io::Error`] with what was being done to which path.
    pub fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Fault {
        Fault::Io { doing, path: path.into(), source }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io { doing, path, source } => write!(f, "{doing} {}: {source}", path.display()),
            Fault::Damaged { path, offset: Some(offset), what } => {
                write!(f, "{} is damaged at byte {offset}: {what}", path.display())
            }
            Fault::Damaged { path, offset: None, what } => write!(f, "{} is damaged: {what}", path.display()),
            Fault::Unusable { path, what } => write!(f, "cannot use {}: {what}", path.display()),
            Fault::Engine { engine, doing, cause } => write!(f, "storage engine {engine}: {doing}: {cause}"),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Fault::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
