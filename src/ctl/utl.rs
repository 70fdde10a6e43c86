//! What is done with files, without a server: `etcdutl`'s part of the program.

use super::{
    failure::Failure,
    global::Global,
    output::{Answer, SnapshotStatus},
};
use crate::backup;
use std::path::Path;

/// Tells what is in a snapshot file.
pub fn status(global: &Global, path: &Path) -> Result<(), Failure> {
    let backup::Status { hash, revision, total_keys, total_bytes, version } =
        backup::status(path).map_err(Failure::error)?;
    let answer = SnapshotStatus { hash, revision, total_keys, total_bytes, version };
    global.printer()?.print(&Answer::Snapshot(answer))
}
