//! The sender's side.

use super::{CHUNK_BYTES, Throttle, WINDOW, beside::beside};
use crate::{
    engine::Table,
    pb::henge::peer::{Lane, SnapshotAck, SnapshotChunk, peer_client::PeerClient},
    peer::{
        Me,
        client::{Backoff, hello, introduced},
        convert::{header_to_wire, position_from_wire, rows_to_wire},
        dial::{Dialer, KeepAlive},
        tally::PeerTally,
    },
    replica::{Haste, Outgoing, Row},
    types::MemberId,
};
use bytes::Bytes;
use prost::Message as _;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// Tries in a row that bring the transfer no further, before it is given up. Raft asks for another snapshot when it still needs one.
const TRIES_MAX: u32 = 8;
/// How long the receiver may take for one step: its disk may be busy, and the last step makes everything durable.
const STEP_PATIENCE: Duration = Duration::from_secs(300);
/// A full pipe over a slow link is not a dead one.
const KEEP_ALIVE: KeepAlive = KeepAlive { interval: Duration::from_secs(5), timeout: Duration::from_secs(20) };

/// Sends one snapshot, to its end or until it is given up.
pub(in crate::peer) async fn send(
    to: MemberId,
    mut me: watch::Receiver<Option<Me>>,
    mut urls: watch::Receiver<Vec<String>>,
    dialer: Dialer,
    throttle: Arc<Throttle>,
    snapshot: Outgoing,
    tally: Arc<PeerTally>,
) {
    let Some(me) = introduced(&mut me).await else { return };
    let index = snapshot.meta.index.0;
    tracing::info!(remote_peer_id = %to, snapshot_index = index, bytes = snapshot.bytes_about, "sending database snapshot");
    let (began, under_way) = (Instant::now(), tally.sent.begin());
    let first = SnapshotChunk {
        hello: Some(hello(&me, to, Lane::Bulk)),
        header: Some(header_to_wire(&snapshot.meta, snapshot.bytes_about)),
        ..SnapshotChunk::default()
    };
    let haste = snapshot.haste.clone();
    let mut transfer = Transfer { dialer, throttle, haste, first, rows: Rows(Some(snapshot)), bytes: 0, taken: 0 };
    let (mut backoff, mut tries, mut turn) = (Backoff::default(), 0, 0);
    loop {
        let url = {
            let urls = urls.borrow_and_update();
            urls.get(turn % urls.len().max(1)).cloned().unwrap_or_default()
        };
        transfer.taken = 0;
        let failure = match transfer.attempt(&url).await {
            Ok(()) => {
                let (bytes, took) = (transfer.bytes, began.elapsed());
                tracing::info!(remote_peer_id = %to, snapshot_index = index, bytes, took = ?took, "sent database snapshot");
                under_way.done();
                return;
            }
            Err(failure) => failure,
        };
        if transfer.taken > 0 {
            tries = 0;
            backoff.reset();
        } else {
            turn += 1;
        }
        tries += 1;
        if failure.is_final || tries >= TRIES_MAX {
            tracing::warn!(remote_peer_id = %to, snapshot_index = index, error = %failure.why, "failed to send database snapshot");
            return;
        }
        tracing::info!(remote_peer_id = %to, snapshot_index = index, error = %failure.why, "a database snapshot broke off; it goes on");
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Why an attempt ended before the snapshot was complete.
struct Failure {
    why: String,
    /// Another attempt would end in the same way.
    is_final: bool,
}

impl Failure {
    fn passing(why: impl ToString) -> Failure {
        Failure { why: why.to_string(), is_final: false }
    }

    fn last(why: impl ToString) -> Failure {
        Failure { why: why.to_string(), is_final: true }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        let is_final =
            matches!(status.code(), Code::FailedPrecondition | Code::PermissionDenied | Code::InvalidArgument);
        Failure { why: status.message().to_owned(), is_final }
    }
}

struct Transfer {
    dialer: Dialer,
    throttle: Arc<Throttle>,
    haste: Haste,
    /// The message that opens each attempt.
    first: SnapshotChunk,
    rows: Rows,
    /// Bytes that all attempts have sent.
    bytes: u64,
    /// The last chunk of this attempt that the receiver has taken.
    taken: u64,
}

impl Transfer {
    /// From the row that the receiver says to the end, or to the first failure.
    async fn attempt(&mut self, url: &str) -> Result<(), Failure> {
        let channel = self.dialer.dial(url, KEEP_ALIVE).await.map_err(Failure::passing)?;
        let (chunks, body) = mpsc::channel(1);
        // There is room for one, and nobody else sends.
        let _ = chunks.try_send(self.first.clone());
        let mut client = PeerClient::new(channel);
        let answer = in_time(self.dialer.patience, client.snapshot(ReceiverStream::new(body))).await?;
        let mut acks = answer.into_inner();
        let position = ack(&mut acks).await?.position.map(position_from_wire);
        let mut position = position.transpose().map_err(Failure::last)?;
        let mut sent = 0;
        loop {
            while sent - self.taken >= WINDOW as u64 {
                self.taken = ack(&mut acks).await?.number.min(sent);
            }
            let rows = self.rows.after(position.clone()).await?;
            let is_last = rows.is_empty();
            if let Some((table, key, _)) = rows.last() {
                position = Some((*table, key.clone()));
            }
            let rows = Bytes::from(rows_to_wire(rows).encode_to_vec());
            self.throttle.take(rows.len(), self.haste.times()).await;
            self.bytes += rows.len() as u64;
            sent += 1;
            let crc = crc32c::crc32c(&rows);
            let chunk = SnapshotChunk { number: sent, crc, rows, is_last, ..SnapshotChunk::default() };
            // The stream ends early only with a status, which the acknowledgements bring.
            if chunks.send(chunk).await.is_err() || is_last {
                break;
            }
        }
        loop {
            let ack = ack(&mut acks).await?;
            self.taken = ack.number.min(sent);
            if ack.is_complete {
                return Ok(());
            }
        }
    }
}

async fn ack(acks: &mut Streaming<SnapshotAck>) -> Result<SnapshotAck, Failure> {
    let ack = in_time(STEP_PATIENCE, acks.message()).await?;
    ack.ok_or_else(|| Failure::passing("the receiver ended the stream"))
}

async fn in_time<T>(patience: Duration, step: impl Future<Output = Result<T, Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(patience, step).await {
        Ok(step) => step.map_err(Failure::from),
        Err(_) => Err(Failure::passing(format!("no answer within {patience:?}"))),
    }
}

/// The rows, which are read on threads that may block. Empty once such a thread has panicked.
struct Rows(Option<Outgoing>);

impl Rows {
    async fn after(&mut self, position: Option<(Table, Bytes)>) -> Result<Vec<Row>, Failure> {
        let outgoing = self.0.take().ok_or_else(|| Failure::last("the reader of the store panicked"))?;
        let read = move || {
            let after = position.as_ref().map(|(table, key)| (*table, key.as_ref()));
            let rows = outgoing.rows(after, CHUNK_BYTES);
            (outgoing, rows)
        };
        let (outgoing, rows) = beside(read).await?;
        self.0 = Some(outgoing);
        rows.map_err(Failure::last)
    }
}
