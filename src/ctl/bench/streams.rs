//! Loads over streams: how long a put takes to reach all watchers, and how fast leases are renewed.

use super::{
    Load, Outcome, Shape, Workload, cpu,
    load::{Progress, Recorder},
    ops::Op,
};
use crate::{
    ctl::failure::Failure,
    pb::etcdserverpb::{
        LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, WatchCreateRequest, WatchRequest, kv_client::KvClient,
        lease_client::LeaseClient, watch_client::WatchClient, watch_request::RequestUnion,
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

fn failed(status: Status) -> Failure {
    Failure::error(crate::client::Error::from(status))
}

/// Puts go out while `watchers` on so many `streams` look on; each delivery is one measurement, from when its put was due. The value carries that time.
pub async fn fan_out(channels: &[Channel], shape: &Shape, watchers: usize, streams: usize) -> Result<Outcome, Failure> {
    let recorder = Arc::new(Recorder::new());
    let epoch = Instant::now();
    let prefix = format!("bench-watch-{:08x}/", rand::random::<u32>());
    let end = crate::client::kv::end_of_prefix(prefix.as_bytes());
    let mut readers = JoinSet::new();
    let delivered = Arc::new(AtomicU64::new(0));
    for at in 0..streams {
        let create = WatchCreateRequest { key: prefix.clone().into(), range_end: end.clone(), ..Default::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let (requests, stream) = mpsc::channel(1);
        let _ = requests.try_send(create.clone());
        let mut client = WatchClient::new(channels[at % channels.len()].clone()).max_decoding_message_size(usize::MAX);
        let mut answers = client.watch(ReceiverStream::new(stream)).await.map_err(failed)?.into_inner();
        // All must stand before the first put.
        answers.message().await.map_err(failed)?;
        for _ in 1..watchers / streams + usize::from(at < watchers % streams) {
            // Gone: the answer says why.
            let _ = requests.send(create.clone()).await;
            answers.message().await.map_err(failed)?;
        }
        let (recorder, delivered) = (recorder.clone(), delivered.clone());
        readers.spawn(async move {
            let _open = requests;
            while let Ok(Some(answer)) = answers.message().await {
                let now = epoch.elapsed();
                for event in answer.events {
                    let sent = event.kv.and_then(|kv| kv.value.get(..8)?.try_into().ok().map(u64::from_be_bytes));
                    recorder.success(at, now.saturating_sub(Duration::from_nanos(sent.unwrap_or(0))));
                    delivered.fetch_add(1, Relaxed);
                }
            }
        });
    }
    let progress = Progress::start(&recorder, shape.total * watchers as u64, Load::from_shape(shape).duration);
    let before = cpu::spent(&shape.server_pid);
    let began = Instant::now();
    let puts = put_times(channels, shape, &prefix, epoch, &recorder).await;
    // Wait for the last deliveries, as long as any still come.
    let mut seen = delivered.load(Relaxed);
    let mut last = Instant::now();
    while seen < puts * watchers as u64 && last.elapsed() < Duration::from_secs(3) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = delivered.load(Relaxed);
        if now != seen {
            (seen, last) = (now, Instant::now());
        }
    }
    let took = if seen < puts * watchers as u64 { last - began } else { began.elapsed() };
    let missing = (puts * watchers as u64).saturating_sub(seen);
    for _ in 0..missing.min(1) {
        recorder.failure(format!("{missing} events were not delivered within 3s"));
    }
    let cpu = before.and_then(|before| Some(cpu::spent(&shape.server_pid)?.saturating_sub(before)));
    progress.stop();
    Ok(recorder.finish(took, cpu))
}

/// The puts of a fan-out; how many succeeded.
async fn put_times(channels: &[Channel], shape: &Shape, prefix: &str, epoch: Instant, recorder: &Arc<Recorder>) -> u64 {
    let load = Load::from_shape(shape);
    let (next, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let keys = Workload::new(Op::Put, shape).below(prefix);
    let mut clients = JoinSet::new();
    for client in 0..load.clients {
        let (next, done, keys, load, recorder) =
            (next.clone(), done.clone(), keys.clone(), load.clone(), recorder.clone());
        let mut kv = KvClient::new(channels[client % channels.len()].clone());
        let padding = shape.val_size.saturating_sub(8);
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Relaxed);
                let now = Instant::now();
                let due =
                    if load.rate > 0.0 { began + Duration::from_secs_f64(number as f64 / load.rate) } else { now };
                let over = load.duration.is_some_and(|duration| due.max(now) >= began + duration);
                if over || (load.total > 0 && number >= load.total) {
                    return;
                }
                let started = if due > now {
                    tokio::time::sleep_until(due).await;
                    Instant::now()
                } else {
                    due
                };
                let mut value = ((started - epoch).as_nanos() as u64).to_be_bytes().to_vec();
                value.resize(8 + padding, b'x');
                let request = PutRequest { key: keys.key(number), value: value.into(), ..PutRequest::default() };
                match kv.put(request).await {
                    Ok(_) => drop(done.fetch_add(1, Relaxed)),
                    Err(status) => {
                        recorder.failure(format!("{:?}: {}", status.code(), status.message()));
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        });
    }
    clients.join_all().await;
    done.load(Relaxed)
}

/// Each client renews one lease of its own over one stream, as fast as answers come or at the given rate.
pub async fn keep_alive(channels: &[Channel], shape: &Shape, ttl: i64) -> Result<Outcome, Failure> {
    let mut streams = Vec::new();
    for client in 0..shape.clients {
        let channel = channels[client % channels.len()].clone();
        let mut leases = LeaseClient::new(channel);
        let id = leases.lease_grant(LeaseGrantRequest { ttl, id: 0 }).await.map_err(failed)?.into_inner().id;
        let (requests, stream) = mpsc::channel(1);
        let _ = requests.try_send(LeaseKeepAliveRequest { id });
        let mut answers = leases.lease_keep_alive(ReceiverStream::new(stream)).await.map_err(failed)?.into_inner();
        answers.message().await.map_err(failed)?;
        streams.push((id, requests, answers));
    }
    let recorder = Arc::new(Recorder::new());
    let load = Load::from_shape(shape);
    let progress = Progress::start(&recorder, load.total, load.duration);
    let before = cpu::spent(&load.pids);
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for (client, (id, requests, mut answers)) in streams.into_iter().enumerate() {
        let (recorder, next, load) = (recorder.clone(), next.clone(), load.clone());
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Relaxed);
                let now = Instant::now();
                let due =
                    if load.rate > 0.0 { began + Duration::from_secs_f64(number as f64 / load.rate) } else { now };
                let over = load.duration.is_some_and(|duration| due.max(now) >= began + duration);
                if over || (load.total > 0 && number >= load.total) {
                    return;
                }
                let started = if due > now {
                    tokio::time::sleep_until(due).await;
                    Instant::now()
                } else {
                    due
                };
                let sent = requests.send(LeaseKeepAliveRequest { id }).await;
                match answers.message().await {
                    Ok(Some(answer)) if answer.ttl > 0 && sent.is_ok() => recorder.success(client, started.elapsed()),
                    Ok(Some(_)) => return recorder.failure("the lease is gone".into()),
                    Ok(None) => return recorder.failure("the stream ended".into()),
                    Err(status) => return recorder.failure(format!("{:?}: {}", status.code(), status.message())),
                }
            }
        });
    }
    clients.join_all().await;
    let took = began.elapsed();
    let cpu = before.and_then(|before| Some(cpu::spent(&load.pids)?.saturating_sub(before)));
    progress.stop();
    Ok(recorder.finish(took, cpu))
}
