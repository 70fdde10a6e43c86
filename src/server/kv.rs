//! The KV service: ranges, puts, deletes, transactions, compaction.

use super::{
    Backend, Edge, Listed, Ticket,
    admission::{Class, Tab},
    check, convert,
};
use crate::{
    auth::Author,
    machine::{Command, Op, Reply, Txn, View},
    pb::etcdserverpb::{self as pb, kv_server::Kv},
    runtime,
    types::{Error, KeyRange, Revision},
};
use bytes::Bytes;
use prost::Message;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// The KV service.
pub struct KvService<B> {
    edge: Edge<B>,
}

impl<B: Backend> KvService<B> {
    /// The service on this edge.
    pub fn new(edge: Edge<B>) -> KvService<B> {
        KvService { edge }
    }
}

#[tonic::async_trait]
impl<B: Backend> Kv for KvService<B> {
    type RangeStreamStream = Chunks;

    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, request.serializable).await?;
        let checked = check::range(request)?;
        self.edge.pace(&caller, || vec![checked.query.range.clone()])?;

        let trace = self.edge.trace("Range");
        let key = checked.query.range.start().clone();
        let allowed = |view: &View| view.authorize_read(&caller, &checked.query.range);
        let read = |ticket| self.edge.backend.list(checked.query.clone(), checked.serializable, ticket, &trace);
        let result = self.edge.read(checked.serializable, allowed, || self.edge.admission.reading(read)).await;
        trace.done(&key, &result);
        let (result, ticket) = result?;
        let header = self.edge.backend.header().at(result.revision()).to_wire();
        Ok(match result {
            Listed::Keys(result) => ticket.answers(convert::range(header, result)).await?,
            Listed::Rows(rows) => ticket.answers_with_rows(header, rows)?,
        })
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        // As every stream: not on a learner, not even serializable.
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        let checked = check::range_stream(request)?;
        let allowed = |view: &View| view.authorize_read(&caller, &checked.query.range);
        self.edge.permit(checked.serializable, allowed).await?;
        self.edge.pace(&caller, || vec![checked.query.range.clone()])?;
        let mut end = self.edge.stream_end(&metadata);

        // One chunk waits for a slow client, no more; the walk stands still meanwhile.
        let (sender, receiver) = mpsc::channel(1);
        let edge = self.edge.clone();
        let open = edge.admission.stream(Class::List)?;
        let tab = Tab::current();
        runtime::spawn(async move {
            let _open = open;
            let walk = walk(&edge, &caller, checked, tab, &sender);
            let stopped = tokio::select! {
                biased;
                result = walk => result.err(),
                error = end.reached() => Some(error),
                // It may be waiting for room, which nobody wants any more.
                () = sender.closed() => None,
            };
            if let Some(error) = stopped {
                let _ = sender.send(Err(error.into())).await; // the client may have left
            }
        });
        Ok(Response::new(Chunks { receiver, under_way: None }))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        let bytes = request.encoded_len();
        let put = check::put(request)?;
        self.edge.pace(&caller, || vec![KeyRange::One(put.key.clone())])?;

        let (reply, header) = self.edge.propose("Put", bytes, &caller, Command::Put(put)).await?;
        let Reply::Put { prev } = reply else { unreachable!("a put is answered as a put: {reply:?}") };
        Ok(Response::new(pb::PutResponse { header: header.to_wire(), prev_kv: prev.map(convert::kv) }))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        let bytes = request.encoded_len();
        let delete = check::delete_range(request)?;
        self.edge.pace(&caller, || vec![delete.range.clone()])?;

        let command = Command::DeleteRange(delete);
        let (reply, header) = self.edge.propose("DeleteRange", bytes, &caller, command).await?;
        let Reply::DeleteRange { deleted, prevs } = reply else {
            unreachable!("a delete is answered as a delete: {reply:?}")
        };
        let prev_kvs = convert::kvs(prevs);
        Ok(Response::new(pb::DeleteRangeResponse { header: header.to_wire(), deleted, prev_kvs }))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        let checked = check::txn(request, &self.edge.settings.limits)?;
        self.edge.pace(&caller, || ranges_of(&checked.txn))?;
        if checked.txn.is_read_only() {
            let trace = self.edge.trace("Txn");
            let allowed = |view: &View| view.authorize_txn(&caller, &checked.txn);
            let read = |ticket| self.edge.backend.txn_read(&checked.txn, checked.serializable, ticket, &trace);
            let result = self.edge.read(checked.serializable, allowed, || self.edge.admission.reading(read)).await;
            trace.done(&[], &result);
            let (reply, revision, ticket) = result?;
            let header = self.edge.backend.header().at(revision);
            return Ok(ticket.answers(convert::txn(header, reply)).await?);
        }
        let (reply, header) = self.edge.propose("Txn", checked.bytes, &caller, Command::Txn(checked.txn)).await?;
        let Reply::Txn(reply) = reply else { unreachable!("a transaction is answered as a transaction: {reply:?}") };
        Ok(Response::new(convert::txn(header, reply)))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let caller = self.edge.enter(&metadata, &extensions, false).await?;
        let revision = Revision(request.revision);
        let command = Command::Compact { revision, physical: request.physical };
        let (_, header) = self.edge.propose("Compact", request.encoded_len(), &caller, command).await?;
        if request.physical {
            self.edge.backend.compacted(revision).await?;
        }
        Ok(Response::new(pb::CompactionResponse { header: header.to_wire() }))
    }
}

/// Reads a range in steps at one pinned revision. The last chunk has header, count and more, so that merging all chunks gives
/// what `Range` would have answered.
async fn walk<B: Backend>(
    edge: &Edge<B>,
    caller: &Author,
    checked: check::CheckedRange,
    tab: Option<Arc<Tab>>,
    sender: &mpsc::Sender<Result<Chunk, Status>>,
) -> Result<(), Error> {
    let check::CheckedRange { query, serializable } = checked;
    let backend = &edge.backend;
    let whole = query.range.clone();
    let allowed = |view: &View| view.authorize_read(caller, &whole);
    let pinned = edge.read(serializable, allowed, || backend.pin(&whole, query.revision, serializable)).await?;
    let count = pinned.reader.count(&pinned.pin, &query.range);
    let mut left = if query.limit > 0 { query.limit } else { i64::MAX };
    let more = count > left;
    let mut rest = Some(query.range).filter(|_| !query.count_only);
    let (mut response, mut ticket) = (pb::RangeResponse::default(), None);
    while let Some(range) = rest.take().filter(|_| left > 0) {
        let keys_max = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_KEYS_MAX);
        let bytes_max = edge.settings.limits.request_bytes_max;
        // A stream of chunks is slowed down where a whole range would be refused.
        ticket = Some(edge.admission.list_when_there_is_room(tab.clone(), bytes_max).await?);
        let chunk = pinned.reader.chunk(&pinned.pin, &range, keys_max, bytes_max);
        let chunk = chunk.map_err(|fault| backend.report(fault))?;
        left -= chunk.kvs.len() as i64;
        response.kvs = convert::kvs(chunk.kvs);
        if query.keys_only {
            response.kvs.iter_mut().for_each(|kv| (kv.value, kv.lease) = (Bytes::new(), 0));
        }
        rest = chunk.rest.filter(|_| left > 0);
        // It may have been taken away since the last one.
        allowed(edge.view())?;
        if rest.is_some() {
            let full = pb::RangeStreamResponse { range_response: Some(std::mem::take(&mut response)) };
            if sender.send(Ok((full, ticket.take()))).await.is_err() {
                return Ok(()); // the client left
            }
        }
    }
    let last = pb::RangeResponse { header: backend.header().to_wire(), count, more, ..response };
    let _ = sender.send(Ok((pb::RangeStreamResponse { range_response: Some(last) }, ticket))).await;
    Ok(())
}

/// A part of a range, and the room that it takes.
type Chunk = (pb::RangeStreamResponse, Option<Ticket>);

/// The parts of a range, each made when the one before it is about to be sent.
pub struct Chunks {
    receiver: mpsc::Receiver<Result<Chunk, Status>>,
    /// Held until the client has room for the next one.
    under_way: Option<Ticket>,
}

impl Stream for Chunks {
    type Item = Result<pb::RangeStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.under_way = None;
        let chunk = ready!(self.receiver.poll_recv(context));
        Poll::Ready(chunk.map(|chunk| {
            let (response, mut ticket) = chunk?;
            if let Some(ticket) = &mut ticket {
                ticket.is_offered(response.encoded_len());
            }
            self.under_way = ticket;
            Ok(response)
        }))
    }
}

/// What a transaction may read or write.
fn ranges_of(txn: &Txn) -> Vec<KeyRange> {
    let of = |op: &Op| match op {
        Op::Range(query) => vec![query.range.clone()],
        Op::Put(put) => vec![KeyRange::One(put.key.clone())],
        Op::DeleteRange(delete) => vec![delete.range.clone()],
        Op::Txn(nested) => ranges_of(nested),
    };
    txn.success.iter().chain(&txn.failure).flat_map(of).collect()
}

/// Small keys must not make one step long: other calls run on the same threads.
const CHUNK_KEYS_MAX: usize = 8_192;
