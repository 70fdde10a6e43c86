//! The snapshot stream: the whole store as a file of etcd's.
//!
//! The file is made first, in a temporary file without a name: its first pages say where the last ones are. So the store is held in its
//! state for as long as a disk takes and not a client, and the file is gone when the stream ends, whichever side ends it.

use super::{Backend, Edge};
use crate::{
    backup::{self, STORAGE_VERSION},
    engine::Checkpoint,
    pb::etcdserverpb as pb,
    types::Error,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
    time::Instant,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Bytes of one message, as in etcd.
const CHUNK_BYTES: usize = 32 << 10;
/// Messages that wait for the network.
const CHUNKS_WAITING_MAX: usize = 8;
/// Snapshots that are made or sent at one time: each takes the space of the store.
const STREAMS_MAX: usize = 4;

/// What [`Snapshots::stream`] returns.
pub(super) type SnapshotStream = ReceiverStream<Result<pb::SnapshotResponse, Status>>;

/// Snapshots on their way.
pub(super) struct Snapshots {
    permits: Arc<Semaphore>,
}

impl Default for Snapshots {
    fn default() -> Snapshots {
        Snapshots { permits: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }
}

impl Snapshots {
    /// Begins one. What goes wrong later ends the stream.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`] while too many are under way.
    pub(super) fn stream<B: Backend>(&self, edge: &Edge<B>) -> Result<SnapshotStream, Error> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| Error::RequestTooManyRequests)?;
        let (chunks, stream) = mpsc::channel(CHUNKS_WAITING_MAX);
        let backend = edge.backend.clone();
        let sender = Sender {
            header: backend.header().to_wire(),
            spool_dir: edge.settings.spool_dir.clone(),
            stopping: backend.stopping(),
            chunks,
            _permit: permit,
        };
        tokio::spawn(async move {
            match backend.checkpoint().await {
                Ok(checkpoint) => {
                    let refuse = move |fault| backend.report(fault);
                    tokio::task::spawn_blocking(move || sender.run(checkpoint, refuse));
                }
                Err(error) => drop(sender.chunks.send(Err(error.into())).await),
            }
        });
        Ok(ReceiverStream::new(stream))
    }
}

/// Makes one snapshot and sends it, on a thread where it may block.
struct Sender {
    header: Option<pb::ResponseHeader>,
    spool_dir: std::path::PathBuf,
    stopping: watch::Receiver<bool>,
    chunks: mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
    _permit: OwnedSemaphorePermit,
}

impl Sender {
    fn run(self, checkpoint: Box<dyn Checkpoint>, report: impl Fn(crate::types::Fault) -> Error) {
        let began = Instant::now();
        let made = make(&*checkpoint, &self.spool_dir);
        // The store may go on before the first byte is sent.
        drop(checkpoint);
        let sent = match made {
            Ok((file, bytes)) => {
                tracing::info!(total_bytes = bytes, took = ?began.elapsed(), "sending database snapshot to client");
                self.send(file, bytes)
            }
            Err(backup::Error::Store(fault)) => Err(report(fault).into()),
            Err(error) => {
                tracing::warn!(%error, "failed to make a snapshot");
                Err(Status::resource_exhausted(format!("henge: no room to make the snapshot: {error}")))
            }
        };
        if let Err(status) = sent {
            let _ = self.chunks.blocking_send(Err(status));
        }
    }

    /// Sends the file, and its hash. `Ok` also if the client has gone.
    fn send(&self, mut file: File, bytes: u64) -> Result<(), Status> {
        let mut hash = Sha256::new();
        let mut left = bytes;
        while left > 0 {
            if *self.stopping.borrow() {
                return Err(Error::Stopped.into());
            }
            let wanted = CHUNK_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX));
            let mut chunk = vec![0; wanted];
            file.read_exact(&mut chunk).map_err(|error| Status::internal(format!("henge: the snapshot: {error}")))?;
            hash.update(&chunk);
            left -= wanted as u64;
            if !self.send_chunk(chunk, left) {
                return Ok(());
            }
        }
        self.send_chunk(hash.finalize().to_vec(), 0);
        Ok(())
    }

    /// Whether somebody still listens.
    fn send_chunk(&self, blob: Vec<u8>, remaining_bytes: u64) -> bool {
        let response = pb::SnapshotResponse {
            header: self.header,
            remaining_bytes,
            blob: Bytes::from(blob),
            version: STORAGE_VERSION.to_owned(),
        };
        self.chunks.blocking_send(Ok(response)).is_ok()
    }
}

/// A file without a name, which ends with its last handle, even if that is by kill -9.
fn make(checkpoint: &dyn Checkpoint, dir: &Path) -> Result<(File, u64), backup::Error> {
    let failed = |source: io::Error| backup::Error::Unusable { path: dir.to_owned(), what: source.to_string() };
    let mut file = tempfile::tempfile_in(dir).map_err(failed)?;
    let bytes = backup::export(checkpoint, &mut file, dir)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok((file, bytes))
}
