//! The operations of a load: what one client sends, and what counts as done.

use super::Shape;
use crate::{
    client::{Compare, Op as Step, Txn},
    pb::etcdserverpb::{
        LeaseGrantRequest, PutRequest, RangeRequest, kv_client::KvClient, lease_client::LeaseClient,
        response_op::Response,
    },
};
use bytes::Bytes;
use tonic::{Status, transport::Channel};

/// What a load is made of.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Put,
    Range { serializable: bool, limit: i64 },
    CompareAndSwap,
    Mixed { reads: u32 },
    Grant { ttl: i64 },
}

/// An operation with its data. The value is made once and shared by all requests.
#[derive(Clone, Debug)]
pub struct Workload {
    op: Op,
    value: Bytes,
    prefix: String,
    key_size: usize,
    key_space: u64,
    sequential: bool,
}

impl Workload {
    pub fn new(op: Op, shape: &Shape) -> Workload {
        let value: Vec<u8> = (0..shape.val_size).map(|_| rand::random_range(b'a'..=b'z')).collect();
        Workload {
            op,
            value: value.into(),
            prefix: String::new(),
            key_size: shape.key_size,
            key_space: shape.key_space,
            sequential: shape.sequential,
        }
    }

    /// The same with its keys below `prefix`.
    pub fn below(self, prefix: &str) -> Workload {
        Workload { prefix: prefix.into(), ..self }
    }

    /// The key of the `number`th operation.
    pub fn key(&self, number: u64) -> Bytes {
        let at = if self.sequential { number % self.key_space } else { rand::random_range(0..self.key_space) };
        let width = self.key_size.saturating_sub(self.prefix.len());
        format!("{}{at:0width$}", self.prefix).into()
    }

    /// Does the `number`th operation.
    pub async fn act(&self, channel: Channel, number: u64) -> Result<(), Status> {
        let key = self.key(number);
        match self.op {
            Op::Put => self.put(channel, key).await,
            Op::Range { serializable, limit } => self.range(channel, key, serializable, limit).await,
            Op::Mixed { reads } if rand::random_range(0..100) < reads => self.range(channel, key, false, 1).await,
            Op::Mixed { .. } => self.put(channel, key).await,
            Op::CompareAndSwap => self.swap(channel, key).await,
            Op::Grant { ttl } => {
                LeaseClient::new(channel).lease_grant(LeaseGrantRequest { ttl, id: 0 }).await.map(drop)
            }
        }
    }

    async fn put(&self, channel: Channel, key: Bytes) -> Result<(), Status> {
        let request = PutRequest { key, value: self.value.clone(), ..PutRequest::default() };
        KvClient::new(channel).put(request).await.map(drop)
    }

    async fn range(&self, channel: Channel, key: Bytes, serializable: bool, limit: i64) -> Result<(), Status> {
        let range_end = if limit == 1 { Bytes::new() } else { Bytes::from_static(crate::client::kv::OPEN_END) };
        let request = RangeRequest { key, range_end, limit, serializable, ..RangeRequest::default() };
        KvClient::new(channel).max_decoding_message_size(usize::MAX).range(request).await.map(drop)
    }

    /// One round of compare-and-swap: to lose the race is an answer too, and is not tried again.
    async fn swap(&self, channel: Channel, key: Bytes) -> Result<(), Status> {
        let mut client = KvClient::new(channel);
        let read = client.txn(Txn::new().then([Step::get(key.clone())]).into_request()).await?.into_inner();
        let seen = match read.responses.first().and_then(|op| op.response.as_ref()) {
            Some(Response::ResponseRange(answer)) => answer.kvs.first().map_or(0, |kv| kv.mod_revision),
            _ => return Err(Status::internal("a txn's read was not answered with a range")),
        };
        let swap = Txn::new()
            .when([Compare::mod_revision(key.clone()).equal(seen)])
            .then([Step::put(key, self.value.clone())]);
        client.txn(swap.into_request()).await.map(drop)
    }
}
