//! The limit: a server of the same RPC stack that answers at once, from memory, with what the question asks for.
//!
//! With `--synced` a write is answered once its value is on disk: one write and one fdatasync for all writes that came in meanwhile.
//! It keeps no keys, checks nothing and agrees with nobody: no server that does can cost less.

use bytes::Bytes;
use henge::pb::{
    etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest,
        LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseLeasesResponse,
        LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest,
        PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, ResponseOp, TxnRequest,
        TxnResponse, WatchRequest, WatchResponse,
        kv_server::{Kv, KvServer},
        lease_server::{Lease, LeaseServer},
        request_op::Request as Ask,
        response_op::Response as Answer,
        watch_request::RequestUnion,
        watch_server::{Watch, WatchServer},
    },
    mvccpb::{Event, KeyValue},
};
use std::{
    collections::HashMap,
    fs::File,
    io::Write as _,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Empty, Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// Answers that may wait for one stream to be sent.
const WAITING_MAX: usize = 1_024;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Address to listen on
    #[arg(long)]
    listen: std::net::SocketAddr,
    /// Bytes in each value that is read
    #[arg(long, default_value_t = 256)]
    val_size: usize,
    /// Answer writes once they are in this file, and on disk
    #[arg(long)]
    synced: Option<PathBuf>,
}

struct Limit {
    value: Bytes,
    revision: AtomicI64,
    disk: Option<mpsc::Sender<Write>>,
    streams: Mutex<Streams>,
}

/// Where events go: for each stream, its number of watches.
#[derive(Default)]
struct Streams {
    next: u64,
    open: HashMap<u64, (mpsc::Sender<Result<WatchResponse, Status>>, i64)>,
}

/// A write that waits for the disk.
type Write = (Bytes, oneshot::Sender<()>);

/// Cheap to clone; all clones are one server.
#[derive(Clone)]
struct Service(Arc<Limit>);

pub async fn run(args: Args) -> Result<(), String> {
    let disk = args.synced.map(|path| start_disk(&path)).transpose()?;
    let limit =
        Limit { value: vec![b'x'; args.val_size].into(), revision: AtomicI64::new(1), disk, streams: Mutex::default() };
    let service = Service(Arc::new(limit));
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        // As henge and etcd have it. With a bound, clients that keep to it are cut off when they are quicker than its account.
        .max_concurrent_streams(u32::MAX)
        .add_service(KvServer::new(service.clone()).max_decoding_message_size(usize::MAX))
        .add_service(WatchServer::new(service.clone()))
        .add_service(LeaseServer::new(service));
    server.serve(args.listen).await.map_err(|error| format!("cannot serve on {}: {error}", args.listen))
}

/// A thread that writes whatever waits, syncs once, and answers all of it.
fn start_disk(path: &PathBuf) -> Result<mpsc::Sender<Write>, String> {
    let fail = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    let mut file = File::create(path).map_err(fail)?;
    let (writes, mut waiting) = mpsc::channel::<Write>(65_536);
    std::thread::spawn(move || {
        let (mut batch, mut bytes) = (Vec::new(), Vec::new());
        while waiting.blocking_recv_many(&mut batch, 4_096) > 0 {
            bytes.clear();
            batch.iter().for_each(|(value, _)| bytes.extend_from_slice(value));
            if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
                // Nobody may take an unwritten value for a written one: who waits finds its answer gone.
                eprintln!("the limit server cannot write: {error}");
                return;
            }
            // A client may have left.
            for (_, done) in batch.drain(..) {
                let _ = done.send(());
            }
        }
    });
    Ok(writes)
}

impl Limit {
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { cluster_id: 1, member_id: 1, revision: self.revision.load(Relaxed), raft_term: 1 })
    }

    fn kv(&self, key: Bytes) -> KeyValue {
        let value = self.value.clone();
        KeyValue { key, create_revision: 1, mod_revision: 1, version: 1, value, lease: 0 }
    }

    fn range(&self, request: RangeRequest) -> RangeResponse {
        let count = if request.range_end.is_empty() { 1 } else { request.limit.max(1) };
        let kvs = (0..count).map(|_| self.kv(request.key.clone())).collect();
        RangeResponse { header: self.header(), kvs, more: false, count }
    }

    async fn write(&self, value: Bytes) -> Result<(), Status> {
        self.revision.fetch_add(1, Relaxed);
        let Some(disk) = &self.disk else { return Ok(()) };
        let (done, answer) = oneshot::channel();
        let gone = |_| Status::unavailable("the disk is gone");
        disk.send((value, done)).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))
    }

    /// Tells every watch, whatever it is for.
    async fn publish(&self, key: Bytes, value: Bytes) {
        let open = self.streams.lock().unwrap_or_else(|broken| broken.into_inner()).open.clone();
        if open.is_empty() {
            return;
        }
        let kv = KeyValue { value, ..self.kv(key) };
        let event = Event { r#type: 0, kv: Some(kv), prev_kv: None };
        for (stream, watches) in open.into_values() {
            for watch_id in 0..watches {
                let events = vec![event.clone()];
                let answer = WatchResponse { header: self.header(), watch_id, events, ..WatchResponse::default() };
                // The client may have left.
                let _ = stream.send(Ok(answer)).await;
            }
        }
    }
}

fn unserved<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the limit server answers only what the benchmark asks"))
}

#[tonic::async_trait]
impl Kv for Service {
    type RangeStreamStream = Empty<Result<RangeStreamResponse, Status>>;

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        Ok(Response::new(self.0.range(request.into_inner())))
    }

    async fn range_stream(&self, _: Request<RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        unserved()
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let PutRequest { key, value, .. } = request.into_inner();
        self.0.write(value.clone()).await?;
        self.0.publish(key, value).await;
        Ok(Response::new(PutResponse { header: self.0.header(), prev_kv: None }))
    }

    async fn delete_range(&self, _: Request<DeleteRangeRequest>) -> Result<Response<DeleteRangeResponse>, Status> {
        unserved()
    }

    /// As if every comparison held.
    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let mut responses = Vec::new();
        for op in request.into_inner().success {
            let response = match op.request {
                Some(Ask::RequestRange(range)) => Answer::ResponseRange(self.0.range(range)),
                Some(Ask::RequestPut(put)) => {
                    self.0.write(put.value).await?;
                    Answer::ResponsePut(PutResponse { header: self.0.header(), prev_kv: None })
                }
                _ => return unserved(),
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(Response::new(TxnResponse { header: self.0.header(), succeeded: true, responses }))
    }

    async fn compact(&self, _: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        unserved()
    }
}

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, stream) = mpsc::channel(WAITING_MAX);
        let limit = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut requests = request.into_inner();
            let lock = || limit.streams.lock().unwrap_or_else(|broken| broken.into_inner());
            let number = {
                let mut streams = lock();
                streams.next += 1;
                streams.next
            };
            let mut watches = 0;
            while let Ok(Some(request)) = requests.message().await {
                if !matches!(request.request_union, Some(RequestUnion::CreateRequest(_))) {
                    continue;
                }
                let created =
                    WatchResponse { header: limit.header(), watch_id: watches, created: true, ..Default::default() };
                watches += 1;
                lock().open.insert(number, (answers.clone(), watches));
                if answers.send(Ok(created)).await.is_err() {
                    break;
                }
            }
            lock().open.remove(&number);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl Lease for Service {
    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let ttl = request.into_inner().ttl;
        // About what a lease takes in a log.
        self.0.write(Bytes::from_static(&[0; 32])).await?;
        let id = self.0.revision.load(Relaxed);
        Ok(Response::new(LeaseGrantResponse { header: self.0.header(), id, ttl, error: String::new() }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let limit = Arc::clone(&self.0);
        let answers = request.into_inner().map(move |request| {
            request.map(|asked| LeaseKeepAliveResponse { header: limit.header(), id: asked.id, ttl: 60 })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_revoke(&self, _: Request<LeaseRevokeRequest>) -> Result<Response<LeaseRevokeResponse>, Status> {
        unserved()
    }

    async fn lease_time_to_live(
        &self,
        _: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        unserved()
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Result<Response<LeaseLeasesResponse>, Status> {
        unserved()
    }
}
