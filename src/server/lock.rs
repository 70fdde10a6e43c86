//! The Lock service: one holder at a time, for as long as a lease.

use super::{
    Backend,
    contest::{Contests, Wish},
};
use crate::{
    machine::{Command, DeleteRange},
    pb::v3lockpb::{self as pb, lock_server::Lock},
    types::{Error, KeyRange, LeaseId},
};
use prost::Message;
use tonic::{Request, Response, Status, metadata::MetadataValue};

/// Metadata of the answer to `Lock`: the create revision of the key, which is the fencing token. henge's own; etcd leaves it to the
/// client to read the key.
const CREATE_REVISION: &str = "henge-create-revision";

/// The Lock service.
pub struct LockService<B> {
    contests: Contests<B>,
}

impl<B: Backend> LockService<B> {
    /// The service that holds its contests here.
    pub(super) fn new(contests: Contests<B>) -> LockService<B> {
        LockService { contests }
    }
}

#[tonic::async_trait]
impl<B: Backend> Lock for LockService<B> {
    /// Returns once the lock is the caller's. It is lost when the lease ends or the key is deleted, whether or not anybody
    /// notices: what must be done by the holder alone is guarded by the key's create revision (see `contest`).
    async fn lock(&self, request: Request<pb::LockRequest>) -> Result<Response<pb::LockResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let edge = &self.contests.edge;
        let caller = edge.enter(&metadata, &extensions, false).await?;
        let wish = Wish {
            call: "Lock",
            bytes: request.encoded_len(),
            name: request.name,
            lease: LeaseId(request.lease),
            value: None,
            lost: Error::SessionExpired,
        };
        let won = self.contests.contend(caller, edge.stream_end(&metadata), wish).await?;
        let mut response = Response::new(pb::LockResponse { header: won.header.to_wire(), key: won.key });
        response.metadata_mut().insert(CREATE_REVISION, MetadataValue::from(won.created.0));
        Ok(response)
    }

    /// Deletes the key, whoever put it: as in etcd, nothing is compared.
    async fn unlock(&self, request: Request<pb::UnlockRequest>) -> Result<Response<pb::UnlockResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let edge = &self.contests.edge;
        let caller = edge.enter(&metadata, &extensions, false).await?;
        if request.key.is_empty() {
            return Err(Error::EmptyKey.into());
        }
        let bytes = request.encoded_len();
        let command = Command::DeleteRange(DeleteRange { range: KeyRange::One(request.key), prev_kv: false });
        let (_, header) = edge.propose("Unlock", bytes, &caller, command).await?;
        Ok(Response::new(pb::UnlockResponse { header: header.to_wire() }))
    }
}
