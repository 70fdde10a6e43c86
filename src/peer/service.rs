//! The way in: who may talk to this member, and where what they say goes.

use super::{
    Inner, Me, PROTOCOL_VERSION, convert,
    listen::Origin,
    snapshot::{self, Source},
    streams::{Kind, Place},
    tally::PeerTally,
};
use crate::{
    pb::henge::peer::{
        Ack, Batch, ClusterRequest, ClusterResponse, Hello, Lane, SnapshotAck, SnapshotChunk, peer_server::Peer,
    },
    replica::PeerMessage,
    types::MemberId,
};
use prost::Message as _;
use std::{
    future::Future,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long a stream may be open without having said who sends it.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// The entry of a refusal's metadata that tells a member that it was removed for good.
const REMOVED: &str = "henge-removed";

/// Whether a refusal says that the one who was refused has been removed from the cluster.
pub(super) fn says_removed(status: &Status) -> bool {
    status.metadata().contains_key(REMOVED)
}

/// Serves the peers of one member.
#[derive(Clone)]
pub(super) struct PeerService {
    pub(super) network: Arc<Inner>,
}

/// A sender that may talk to this member.
pub(super) struct Guest {
    pub(super) from: MemberId,
    pub(super) me: Me,
    pub(super) place: Place,
    pub(super) tally: Arc<PeerTally>,
}

type Acks<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type MessagesStream = Acks<Ack>;
    type SnapshotStream = Acks<SnapshotAck>;

    async fn messages(&self, request: Request<Streaming<Batch>>) -> Result<Response<Acks<Ack>>, Status> {
        let caller = request.extensions().get::<Origin>().cloned();
        let mut batches = request.into_inner();
        let first = first(batches.message()).await?;
        let kind = match first.hello.as_ref().map(Hello::lane) {
            Some(Lane::Bulk) => Kind::Bulk,
            _ => Kind::Urgent,
        };
        let guest = self.admit(first.hello.as_ref(), kind, caller)?;
        let (ack, acks) = mpsc::channel(2);
        // There is room for two, and nobody else sends.
        let _ = ack.try_send(Ok(Ack { version: PROTOCOL_VERSION }));
        let mut stopping = self.network.stopping.subscribe();
        tokio::spawn(async move {
            let end = tokio::select! {
                end = receive(guest, first, batches) => end,
                _ = stopping.wait_for(|stopping| *stopping) => Err(Status::unavailable("the member stops")),
            };
            if let Err(status) = end {
                let _ = ack.try_send(Err(status)); // the sender may be gone
            }
        });
        Ok(Response::new(ReceiverStream::new(acks)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<Acks<SnapshotAck>>, Status> {
        let caller = request.extensions().get::<Origin>().cloned();
        let mut chunks = request.into_inner();
        let first = first(chunks.message()).await?;
        let guest = self.admit(first.hello.as_ref(), Kind::Snapshot, caller)?;
        let header = first.header.ok_or_else(|| Status::invalid_argument("the snapshot has no header"))?;
        let meta = convert::header_from_wire(header).map_err(malformed)?;
        let (only, tally) = (Arc::clone(&self.network.arriving), Arc::clone(&guest.tally));
        let source = Source { guest, meta, only, tally };
        let (acks, answer) = mpsc::channel(snapshot::WINDOW + 2);
        let mut stopping = self.network.stopping.subscribe();
        tokio::spawn(async move {
            let end = tokio::select! {
                end = snapshot::receive(source, chunks, &acks) => end,
                _ = stopping.wait_for(|stopping| *stopping) => Err(Status::unavailable("the member stops")),
            };
            if let Err(status) = end {
                let _ = acks.send(Err(status)).await; // the sender may be gone
            }
        });
        Ok(Response::new(ReceiverStream::new(answer)))
    }

    async fn cluster(&self, _: Request<ClusterRequest>) -> Result<Response<ClusterResponse>, Status> {
        let me = self.me()?;
        let members = me.inbound.members().into_iter().map(convert::member_to_wire).collect();
        let (cluster_id, member_id) = (me.cluster_id.0, me.member_id.0);
        Ok(Response::new(ClusterResponse { cluster_id, member_id, members }))
    }
}

impl PeerService {
    fn me(&self) -> Result<Me, Status> {
        self.network.me.borrow().clone().ok_or_else(|| Status::unavailable("the member is starting, or stops"))
    }

    /// Lets in who belongs here.
    ///
    /// A sender that is not among the members is let in as long as it was not removed: we may lag behind, and it may be the newcomer
    /// who brings us the change by which it joined. Raft judges what it says, and does not count what nobody made a voter.
    fn admit(&self, hello: Option<&Hello>, kind: Kind, caller: Option<Origin>) -> Result<Guest, Status> {
        let me = self.me()?;
        let remote = caller.as_ref().map(|caller| caller.remote);
        let Some(hello) = hello else { return Err(Status::invalid_argument("the stream does not say who sends it")) };
        let from = MemberId(hello.from);
        let refuse = |status: Status| {
            self.network.refusals.log(from, remote, status.message());
            Err(status)
        };
        if hello.version == 0 {
            return refuse(Status::failed_precondition("the version of the peer protocol is missing"));
        }
        if hello.cluster_id != me.cluster_id.0 {
            let text =
                format!("cluster ID mismatch: this is {}, the sender is of {:x}", me.cluster_id, hello.cluster_id);
            return refuse(Status::failed_precondition(text));
        }
        if hello.to != me.member_id.0 {
            let text = format!("member ID mismatch: this is {}, the message is for {:x}", me.member_id, hello.to);
            return refuse(Status::failed_precondition(text));
        }
        if from == me.member_id {
            return refuse(Status::failed_precondition("the sender has the ID of this member"));
        }
        let standing = self.network.standing(from);
        if standing == Standing::Removed {
            let mut status = Status::permission_denied("the sender has been permanently removed from the cluster");
            status.metadata_mut().insert(REMOVED, tonic::metadata::MetadataValue::from_static("true"));
            return refuse(status);
        }
        match self.network.streams.enter(from, kind, standing == Standing::Unknown) {
            Some(place) => {
                caller.iter().for_each(Origin::is_let_in);
                if standing == Standing::Unknown {
                    self.network.acquaint(from, &hello.peer_urls);
                }
                Ok(Guest { from, me, place, tally: self.network.tallies.of(from) })
            }
            None => refuse(Status::resource_exhausted("too many members that nobody here knows yet")),
        }
    }
}

/// What a sender is to this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Member,
    /// Perhaps a member whose joining is not applied here yet.
    Unknown,
    Removed,
}

async fn first<T>(message: impl Future<Output = Result<Option<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(HELLO_PATIENCE, message).await {
        Ok(message) => message?.ok_or_else(|| Status::invalid_argument("the stream ended before its greeting")),
        Err(_) => Err(Status::deadline_exceeded("no greeting")),
    }
}

/// One lane of one sender, to its end.
async fn receive(mut guest: Guest, first: Batch, mut batches: Streaming<Batch>) -> Result<(), Status> {
    let mut batch = first;
    loop {
        deliver(&guest, batch)?;
        batch = tokio::select! {
            message = batches.message() => match message? {
                Some(batch) => batch,
                None => return Ok(()),
            },
            () = guest.place.ended() => return Err(Status::aborted("this stream has ended: the sender has dialled again, or left")),
        };
    }
}

fn deliver(guest: &Guest, batch: Batch) -> Result<(), Status> {
    guest.tally.received_bytes.fetch_add(batch.encoded_len() as u64, Relaxed);
    let messages = batch.messages.into_iter().filter_map(|message| convert::from_wire(message).transpose());
    let messages = messages.collect::<Result<Vec<PeerMessage>, _>>().map_err(|what| {
        guest.tally.malformed.fetch_add(1, Relaxed);
        malformed(what)
    })?;
    if !messages.is_empty() {
        guest.me.inbound.deliver(guest.from, messages);
    }
    Ok(())
}

pub(super) fn malformed(what: convert::Malformed) -> Status {
    Status::invalid_argument(what.to_string())
}
