//! The Election service: one leader at a time, for as long as a lease, and whoever wants to know who it is.

use super::{
    Backend, Header,
    contest::{Contests, Observer, Wish, guarded, prefix_of},
};
use crate::{
    auth::Author,
    machine::{DeleteRange, Op, Put, Reply},
    pb::v3electionpb::{self as pb, election_server::Election},
    runtime,
    types::{Error, KeyRange, LeaseId, Revision},
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// The Election service.
pub struct ElectionService<B> {
    contests: Contests<B>,
}

impl<B: Backend> ElectionService<B> {
    /// The service that holds its contests here.
    pub(super) fn new(contests: Contests<B>) -> ElectionService<B> {
        ElectionService { contests }
    }

    /// Does something to a leader's key, if it still is that leader's: whether it was, and the header.
    async fn as_leader(
        &self,
        (call, bytes): (&'static str, usize),
        caller: &Author,
        leader: &pb::LeaderKey,
        op: Op,
    ) -> Result<(bool, Header), Error> {
        if leader.key.is_empty() {
            return Err(Error::EmptyKey);
        }
        let command = guarded(&leader.key, Revision(leader.rev), op);
        match self.contests.edge.propose(call, bytes, caller, command).await? {
            (Reply::Txn(reply), header) => Ok((reply.succeeded, header)),
            (other, _) => unreachable!("a transaction is answered as a transaction: {other:?}"),
        }
    }
}

#[tonic::async_trait]
impl<B: Backend> Election for ElectionService<B> {
    type ObserveStream = ReceiverStream<Result<pb::LeaderResponse, Status>>;

    /// Returns once the caller leads. `leader.rev` of the answer is the create revision of its key, which is the fencing token (see
    /// `contest`).
    async fn campaign(&self, request: Request<pb::CampaignRequest>) -> Result<Response<pb::CampaignResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let edge = &self.contests.edge;
        let caller = edge.enter(&metadata, &extensions, false).await?;
        let wish = Wish {
            call: "Campaign",
            bytes: request.encoded_len(),
            name: request.name.clone(),
            lease: LeaseId(request.lease),
            value: Some(request.value),
            lost: Error::ElectionNotLeader,
        };
        let won = self.contests.contend(caller, edge.stream_end(&metadata), wish).await?;
        let leader = pb::LeaderKey { name: request.name, key: won.key, rev: won.created.0, lease: won.lease.0 };
        Ok(Response::new(pb::CampaignResponse { header: won.header.to_wire(), leader: Some(leader) }))
    }

    async fn proclaim(&self, request: Request<pb::ProclaimRequest>) -> Result<Response<pb::ProclaimResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.contests.edge.enter(&metadata, &extensions, false).await?;
        let bytes = request.encoded_len();
        let leader = request.leader.ok_or(Error::MissingLeaderKey)?;
        let put = Put {
            key: leader.key.clone(),
            value: request.value,
            lease: LeaseId(leader.lease),
            // etcd would make a lease for one who names none, and the key would end with that.
            ignore_lease: leader.lease == 0,
            ..Put::default()
        };
        // Revision 0 is that of a key that is not there, and nobody's.
        if leader.rev <= 0 && !leader.key.is_empty() {
            return Err(Error::ElectionNotLeader.into());
        }
        match self.as_leader(("Proclaim", bytes), &caller, &leader, Op::Put(put)).await? {
            (true, header) => Ok(Response::new(pb::ProclaimResponse { header: header.to_wire() })),
            (false, _) => Err(Error::ElectionNotLeader.into()),
        }
    }

    async fn leader(&self, request: Request<pb::LeaderRequest>) -> Result<Response<pb::LeaderResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.contests.edge.enter(&metadata, &extensions, false).await?;
        match self.contests.leader(&caller, &prefix_of(&request.name), false).await? {
            (Some(kv), header) => Ok(Response::new(pb::LeaderResponse { header: header.to_wire(), kv: Some(kv) })),
            (None, _) => Err(Error::ElectionNoLeader.into()),
        }
    }

    async fn observe(&self, request: Request<pb::LeaderRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let edge = &self.contests.edge;
        let caller = edge.enter(&metadata, &extensions, false).await?;
        let mut end = edge.stream_end(&metadata);
        let permit = self.contests.admit()?;
        // What a slow client does not take waits in the hub, which has a bound of its own.
        let (sender, receiver) = mpsc::channel(1);
        let prefix = prefix_of(&request.name);
        let observer = Observer { contests: self.contests.clone(), caller, prefix, sender };
        runtime::spawn(async move {
            let over = tokio::select! {
                biased;
                () = observer.sender.closed() => return,
                error = end.reached() => error,
                error = observer.run() => error,
            };
            let _ = observer.sender.send(Err(over.into())).await; // the client may have left
            drop(permit);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    /// Whoever leads no more has nothing to resign, and is told so by nothing, as in etcd.
    async fn resign(&self, request: Request<pb::ResignRequest>) -> Result<Response<pb::ResignResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.contests.edge.enter(&metadata, &extensions, false).await?;
        let bytes = request.encoded_len();
        let leader = request.leader.ok_or(Error::MissingLeaderKey)?;
        let delete = DeleteRange { range: KeyRange::One(leader.key.clone()), prev_kv: false };
        let (_, header) = self.as_leader(("Resign", bytes), &caller, &leader, Op::DeleteRange(delete)).await?;
        Ok(Response::new(pb::ResignResponse { header: header.to_wire() }))
    }
}
