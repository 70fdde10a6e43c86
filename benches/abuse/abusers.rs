//! Clients that take what they can get.

use crate::server::connect;
use bytes::Buf;
use henge::pb::etcdserverpb::{
    PutRequest, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, kv_client::KvClient,
    watch_client::WatchClient, watch_request::RequestUnion,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use tonic_prost::ProstCodec;

/// What an abuser does.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Watches everything, writes, and reads no event
    UnreadWatches,
    /// Asks for all keys, sorted or not, again and again
    GiantRanges,
    /// Connects as fast as it can
    ConnectionFloods,
    /// Connects and says nothing, or half a greeting
    HalfOpen,
    /// Asks for much and reads nothing of the answer
    SlowReaders,
}

/// What is abused.
pub struct Target {
    pub url: String,
    pub address: String,
    /// Below `data/`.
    pub keys: u64,
}

/// Pause after a refusal: an abuser is rude, and no fool.
const PAUSE: Duration = Duration::from_millis(20);
/// Streams and connections that one abuser holds.
const HELD_MAX: usize = 50;

impl Kind {
    pub const ALL: [Kind; 5] =
        [Kind::UnreadWatches, Kind::GiantRanges, Kind::ConnectionFloods, Kind::HalfOpen, Kind::SlowReaders];

    pub fn name(self) -> &'static str {
        match self {
            Kind::UnreadWatches => "unread watches",
            Kind::GiantRanges => "giant ranges",
            Kind::ConnectionFloods => "connection floods",
            Kind::HalfOpen => "half-open connections",
            Kind::SlowReaders => "slow readers",
        }
    }
}

/// Abuse under way.
pub struct Abuse {
    tasks: JoinSet<()>,
    counts: Counts,
}

type Counts = Arc<BTreeMap<(Kind, bool), AtomicU64>>;

/// What one abuser tells of its deeds.
#[derive(Clone)]
struct Deeds(Kind, Counts);

impl Deeds {
    fn note<T, E>(&self, result: &Result<T, E>) {
        self.1[&(self.0, result.is_ok())].fetch_add(1, Relaxed);
    }
}

/// Begins with `count` abusers, as many of each of `kinds`.
pub fn begin(target: &Arc<Target>, kinds: &[Kind], count: usize) -> Abuse {
    let all = kinds.iter().flat_map(|kind| [(*kind, true), (*kind, false)]);
    let counts: Counts = Arc::new(all.map(|which| (which, AtomicU64::default())).collect());
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let kind = kinds[number % kinds.len()];
        let (target, deeds) = (Arc::clone(target), Deeds(kind, Arc::clone(&counts)));
        tasks.spawn(async move {
            loop {
                // Whatever ends it, it begins anew.
                match kind {
                    Kind::UnreadWatches => unread_watches(&target, &deeds, number).await,
                    Kind::GiantRanges => giant_ranges(&target, &deeds, number).await,
                    Kind::ConnectionFloods => connection_flood(&target, &deeds).await,
                    Kind::HalfOpen => half_open(&target, &deeds).await,
                    Kind::SlowReaders => slow_reader(&target, &deeds).await,
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    Abuse { tasks, counts }
}

impl Abuse {
    /// Ends all of it, and says what was done.
    pub async fn end(mut self) -> Vec<(String, u64)> {
        self.tasks.shutdown().await;
        let told = |(kind, is_ok): &(Kind, bool)| format!("{}, {}", kind.name(), if *is_ok { "served" } else { "not" });
        self.counts.iter().map(|(which, count)| (told(which), count.load(Relaxed))).collect()
    }
}

fn all(target: &Target) -> RangeRequest {
    let limit = i64::try_from(target.keys).unwrap_or(i64::MAX);
    RangeRequest { key: "data/".into(), range_end: "data0".into(), limit, ..RangeRequest::default() }
}

async fn unread_watches(target: &Target, deeds: &Deeds, number: usize) {
    let Ok(channel) = connect(&target.url).await else { return };
    let mut held = Vec::new();
    for _ in 0..HELD_MAX {
        let create = WatchCreateRequest { key: "data/".into(), range_end: "data0".into(), ..Default::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = tokio_stream::iter([request]);
        let opened = WatchClient::new(channel.clone()).watch(requests).await;
        deeds.note(&opened);
        held.extend(opened);
    }
    // Something has to happen for there to be something unread.
    let mut kv = KvClient::new(channel);
    for turn in 0_u64.. {
        let key = format!("data/{:08}", (number as u64 * 31 + turn) % target.keys.max(1)).into();
        let put = PutRequest { key, value: vec![b'w'; 16 << 10].into(), ..PutRequest::default() };
        if kv.put(put).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(PAUSE * 5).await;
    }
    drop(held);
}

async fn giant_ranges(target: &Target, deeds: &Deeds, number: usize) {
    let Ok(channel) = connect(&target.url).await else { return };
    for turn in number.. {
        // By modification and descending, by value, and as they come.
        let (sort_order, sort_target) = [(0, 0), (2, 3), (1, 4)][turn % 3];
        // More than may be had at once, and about as much as may.
        let limit = target.keys as i64 / [1, 5][turn / 3 % 2];
        let request = RangeRequest { sort_order, sort_target, limit, ..all(target) };
        let answer = unread(channel.clone(), request).await;
        let read = match answer {
            Ok(mut answer) => answer.message().await,
            Err(refusal) => Err(refusal),
        };
        deeds.note(&read);
        if read.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn connection_flood(target: &Target, deeds: &Deeds) {
    let mut held = Vec::new();
    loop {
        let opened = TcpStream::connect(&target.address).await;
        deeds.note(&opened);
        held.extend(opened);
        if held.len() >= HELD_MAX {
            held.clear();
        }
        tokio::time::sleep(PAUSE / 4).await;
    }
}

/// Half of what HTTP/2 begins with.
const HALF: &[u8] = b"PRI * HTTP/2.0\r\n\r";

async fn half_open(target: &Target, deeds: &Deeds) {
    let mut held = Vec::new();
    for number in 0..HELD_MAX {
        let Ok(mut stream) = TcpStream::connect(&target.address).await else { return };
        let said = if number % 2 == 0 { Ok(()) } else { stream.write_all(HALF).await };
        deeds.note(&said);
        held.push(stream);
    }
    // Until the server has enough of it.
    for mut stream in held {
        let _ = timeout(Duration::from_secs(60), stream.read(&mut [0; 1])).await;
    }
}

async fn slow_reader(target: &Target, deeds: &Deeds) {
    let Ok(channel) = connect(&target.url).await else { return };
    let mut held = Vec::new();
    for _ in 0..HELD_MAX {
        let limit = (target.keys as i64 / 10).max(1);
        let answer = unread(channel.clone(), RangeRequest { limit, ..all(target) }).await;
        deeds.note(&answer);
        match answer {
            Ok(answer) => held.push(answer),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
}

/// Asks for a range. The answer is read when it is asked for, and thrown away unseen.
async fn unread(channel: Channel, request: RangeRequest) -> Result<Streaming<()>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    Ok(grpc.server_streaming(Request::new(request), path, Unseen).await?.into_inner())
}

/// Writes requests and does not look at answers: an abuser's time is dear.
#[derive(Clone, Copy, Default)]
struct Unseen;

impl Codec for Unseen {
    type Encode = RangeRequest;
    type Decode = ();
    type Encoder = <ProstCodec<RangeRequest, RangeResponse> as Codec>::Encoder;
    type Decoder = Unseen;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<RangeRequest, RangeResponse>::default().encoder()
    }

    fn decoder(&mut self) -> Unseen {
        Unseen
    }
}

impl Decoder for Unseen {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        message.advance(message.remaining());
        Ok(Some(()))
    }
}
