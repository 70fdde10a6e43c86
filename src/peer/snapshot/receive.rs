//! The receiver's side.

use super::beside::beside;
use crate::{
    pb::henge::peer::{Rows, SnapshotAck, SnapshotChunk},
    peer::{
        Arriving,
        convert::{position_to_wire, rows_from_wire},
        service::{Guest, malformed},
        tally::PeerTally,
    },
    replica::Row,
    types::{Error, Fault, SnapshotMeta},
};
use prost::Message as _;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, mpsc},
    time::Instant,
};
use tonic::{Status, Streaming};

/// How long a snapshot waits for one before it that has to end.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

/// A snapshot on offer.
pub(in crate::peer) struct Source {
    pub(in crate::peer) guest: Guest,
    pub(in crate::peer) meta: SnapshotMeta,
    /// One snapshot arrives at a time, whoever sends it.
    pub(in crate::peer) only: Arc<Mutex<()>>,
    pub(in crate::peer) tally: Arc<PeerTally>,
}

type Acks = mpsc::Sender<Result<SnapshotAck, Status>>;

/// Takes a snapshot in, until it is complete or something goes wrong: then what is good of it stays for the next attempt.
pub(in crate::peer) async fn receive(
    source: Source,
    chunks: Streaming<SnapshotChunk>,
    acks: &Acks,
) -> Result<(), Status> {
    let Source { mut guest, meta, only, tally } = source;
    let (from, inbound) = (guest.from, Arc::clone(&guest.me.inbound));
    let index = meta.index.0;
    let (began, under_way) = (Instant::now(), tally.received.begin());
    let work = async {
        let turn = tokio::time::timeout(TURN_PATIENCE, only.lock_owned()).await;
        let turn = turn.map_err(|_| Status::unavailable("another snapshot is arriving"))?;
        let open = move || inbound.receive_snapshot(from, meta);
        let arriving = beside(open).await?.map_err(unwanted)?;
        let bytes = take_in(Arrival { arriving, _turn: turn }, chunks, acks).await?;
        let took = began.elapsed();
        tracing::info!(remote_peer_id = %from, snapshot_index = index, bytes, took = ?took, "received and saved database snapshot");
        Ok(())
    };
    let end = tokio::select! {
        end = work => end,
        () = guest.place.ended() => Err(Status::aborted("the sender has dialled again, or left")),
    };
    match &end {
        Ok(()) => under_way.done(),
        Err(status) => {
            tracing::warn!(remote_peer_id = %from, snapshot_index = index, error = status.message(), "a database snapshot broke off");
        }
    }
    end
}

/// A snapshot under way and its turn, which must not pass to the next one while a thread still writes this one.
struct Arrival {
    arriving: Box<dyn Arriving>,
    _turn: OwnedMutexGuard<()>,
}

impl Arrival {
    async fn write(mut self, rows: Vec<Row>) -> Result<Arrival, Status> {
        let write = move || self.arriving.write(rows).map(|()| self);
        beside(write).await?.map_err(fault)
    }

    async fn finish(self) -> Result<(), Status> {
        // Nothing is left of it, and the next attempt would bring the same rows.
        let finish = move || self.arriving.finish();
        beside(finish).await?.map_err(|fault| Status::failed_precondition(fault.to_string()))
    }
}

/// How many bytes of rows came.
async fn take_in(mut arrival: Arrival, mut chunks: Streaming<SnapshotChunk>, acks: &Acks) -> Result<u64, Status> {
    let position = arrival.arriving.position().map(position_to_wire);
    tell(acks, SnapshotAck { position, ..SnapshotAck::default() }).await?;
    let (mut number, mut bytes) = (0, 0);
    loop {
        let ended = || Status::aborted("the stream ended before the snapshot");
        let chunk = chunks.message().await?.ok_or_else(ended)?;
        number += 1;
        if chunk.number != number {
            return Err(Status::data_loss(format!("chunk {} came where {number} was due", chunk.number)));
        }
        if crc32c::crc32c(&chunk.rows) != chunk.crc {
            return Err(Status::data_loss(format!("chunk {number} is damaged")));
        }
        bytes += chunk.rows.len() as u64;
        let rows = Rows::decode(chunk.rows).map_err(|error| Status::data_loss(error.to_string()))?;
        let rows = rows_from_wire(rows).map_err(malformed)?;
        if !rows.is_empty() {
            arrival = arrival.write(rows).await?;
        }
        if chunk.is_last {
            arrival.finish().await?;
            tell(acks, SnapshotAck { number, is_complete: true, ..SnapshotAck::default() }).await?;
            return Ok(bytes);
        }
        tell(acks, SnapshotAck { number, ..SnapshotAck::default() }).await?;
    }
}

async fn tell(acks: &Acks, ack: SnapshotAck) -> Result<(), Status> {
    acks.send(Ok(ack)).await.map_err(|_| Status::cancelled("the sender is gone"))
}

/// Why the member does not take a snapshot: never, or not now.
fn unwanted(error: Error) -> Status {
    match error {
        Error::Invalid(why) => Status::failed_precondition(why),
        busy => Status::unavailable(busy.to_string()),
    }
}

/// What this member's own disk did to it. The member stops for its own reasons; the sender may try again.
fn fault(fault: Fault) -> Status {
    Status::unavailable(format!("the receiver cannot keep it: {fault}"))
}
