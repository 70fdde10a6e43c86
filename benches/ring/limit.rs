//! A server that does nothing but speak the protocol: it answers every read at once, from memory, with the same key.

use bytes::Bytes;
use henge::pb::{
    etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
        RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, TxnRequest, TxnResponse,
        kv_server::{Kv, KvServer},
    },
    mvccpb::KeyValue,
};
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Address to listen on
    #[arg(long)]
    listen: std::net::SocketAddr,
    /// Bytes in each value
    #[arg(long, default_value_t = 256)]
    val_size: usize,
}

struct Limit {
    value: Bytes,
}

pub async fn run(args: Args) -> Result<(), String> {
    let service = KvServer::new(Limit { value: vec![b'x'; args.val_size].into() });
    let server = tonic::transport::Server::builder().tcp_nodelay(true).add_service(service);
    server.serve(args.listen).await.map_err(|error| format!("cannot serve on {}: {error}", args.listen))
}

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 1, member_id: 1, revision: 1, raft_term: 1 })
}

#[tonic::async_trait]
impl Kv for Limit {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let kv = KeyValue {
            key: request.into_inner().key,
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            value: self.value.clone(),
            lease: 0,
        };
        Ok(Response::new(RangeResponse { header: header(), kvs: vec![kv], more: false, count: 1 }))
    }

    type RangeStreamStream = Empty<Result<RangeStreamResponse, Status>>;

    async fn range_stream(&self, _: Request<RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("the limit server answers Range and Put alone"))
    }

    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Ok(Response::new(PutResponse { header: header(), prev_kv: None }))
    }

    async fn delete_range(&self, _: Request<DeleteRangeRequest>) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("the limit server answers Range and Put alone"))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Err(Status::unimplemented("the limit server answers Range and Put alone"))
    }

    async fn compact(&self, _: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("the limit server answers Range and Put alone"))
    }
}
