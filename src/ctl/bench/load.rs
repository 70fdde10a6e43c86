//! The driver: clients take operation numbers from one counter and do them, at their own pace or at a given rate.

use super::{Shape, Workload, cpu};
use crate::{
    client::endpoints::endpoint,
    ctl::{failure::Failure, global::Global},
};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tonic::transport::Channel;

/// How many, how long, how fast.
#[derive(Clone, Debug)]
pub struct Load {
    pub clients: usize,
    /// 0: only the duration ends it.
    pub total: u64,
    pub duration: Option<Duration>,
    /// Per second; 0: closed loop.
    pub rate: f64,
    pub pids: Vec<u32>,
}

impl Load {
    pub fn from_shape(shape: &Shape) -> Load {
        Load {
            clients: shape.clients,
            total: shape.total,
            duration: (shape.total == 0).then_some(shape.duration),
            rate: shape.rate,
            pids: shape.server_pid.clone(),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Microseconds, of the operations that succeeded.
    pub latency_us: Histogram<u64>,
    pub took: Duration,
    pub errors: BTreeMap<String, u64>,
    /// The servers' CPU time, where asked for.
    pub cpu: Option<Duration>,
}

/// Results from many tasks. Several histograms, so that tasks on different threads seldom wait for each other.
#[derive(Debug)]
pub struct Recorder {
    shards: Vec<Mutex<Histogram<u64>>>,
    errors: Mutex<BTreeMap<String, u64>>,
    done: AtomicU64,
}

impl Recorder {
    pub fn new() -> Recorder {
        // One microsecond to ten minutes, to three digits.
        let histogram = || Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are valid");
        let shards = (0..16).map(|_| Mutex::new(histogram())).collect();
        Recorder { shards, errors: Mutex::default(), done: AtomicU64::new(0) }
    }

    pub fn success(&self, client: usize, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.shards[client % self.shards.len()].lock().saturating_record(us.max(1));
        self.done.fetch_add(1, Relaxed);
    }

    pub fn failure(&self, text: String) {
        *self.errors.lock().entry(text).or_default() += 1;
    }

    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    pub fn finish(&self, took: Duration, cpu: Option<Duration>) -> Outcome {
        let mut latency_us = Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are valid");
        for shard in &self.shards {
            latency_us.add(&*shard.lock()).expect("equal bounds");
        }
        Outcome { latency_us, took, errors: std::mem::take(&mut *self.errors.lock()), cpu }
    }
}

/// `conns` connections, round robin over the endpoints, each of them up.
pub async fn connect(global: &Global, conns: usize) -> Result<Vec<Channel>, Failure> {
    let (endpoints, options) = (global.endpoints(), global.options()?);
    if endpoints.is_empty() {
        return Err(Failure::args("no endpoint given"));
    }
    let mut channels = Vec::with_capacity(conns);
    for address in endpoints.iter().cycle().take(conns) {
        let channel = endpoint(address, &options)?.connect().await;
        channels.push(
            channel.map_err(|error| Failure::from(error).map(|why| format!("cannot connect to {address}: {why}")))?,
        );
    }
    Ok(channels)
}

/// Runs the load over these connections to its end.
pub async fn run(load: Load, channels: Vec<Channel>, workload: Workload) -> Outcome {
    drive(load, Arc::default(), move |client, number| {
        let (channel, workload) = (channels[client % channels.len()].clone(), workload.clone());
        async move {
            let done = workload.act(channel, number).await;
            done.map_err(|status| format!("{:?}: {}", status.code(), status.message()))
        }
    })
    .await
}

/// Has each client `act` (its number, and that of the operation) again and again, to the end of the load, or until it is to `halt`: then
/// nothing new is begun.
pub async fn drive<F, Done>(load: Load, halt: Arc<AtomicBool>, act: F) -> Outcome
where
    F: Fn(usize, u64) -> Done + Send + Sync + 'static,
    Done: Future<Output = Result<(), String>> + Send,
{
    let act = Arc::new(act);
    let recorder = Arc::new(Recorder::new());
    let progress = Progress::start(&recorder, load.total, load.duration);
    let next = Arc::new(AtomicU64::new(0));
    let before = cpu::spent(&load.pids);
    let began = Instant::now();
    let until = load.duration.map(|duration| began + duration);
    let mut clients = JoinSet::new();
    for client in 0..load.clients {
        let (recorder, next, halt, act) = (recorder.clone(), next.clone(), halt.clone(), act.clone());
        let (total, rate) = (load.total, load.rate);
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Relaxed);
                let now = Instant::now();
                let due = if rate > 0.0 { began + Duration::from_secs_f64(number as f64 / rate) } else { now };
                if (total > 0 && number >= total) || until.is_some_and(|until| due >= until || now >= until) {
                    return;
                }
                let started = if due > now {
                    sleep_until(due).await;
                    // The timer's own lateness (up to 1 ms) is not the server's.
                    Instant::now()
                } else {
                    // This client is late because earlier answers were: that wait belongs to the latency.
                    due
                };
                if halt.load(Relaxed) {
                    return;
                }
                match act(client, number).await {
                    Ok(()) => recorder.success(client, started.elapsed()),
                    Err(why) => {
                        recorder.failure(why);
                        // A server that refuses at once must not be hammered.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        });
    }
    clients.join_all().await;
    let took = began.elapsed();
    let cpu = before.and_then(|before| Some(cpu::spent(&load.pids)?.saturating_sub(before)));
    progress.stop();
    recorder.finish(took, cpu)
}

/// A live line on standard error, if that is a terminal.
pub struct Progress {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl Progress {
    pub fn start(recorder: &Arc<Recorder>, total: u64, duration: Option<Duration>) -> Progress {
        let stop = Arc::new(AtomicBool::new(false));
        if !std::io::stderr().is_terminal() {
            return Progress { bar: ProgressBar::hidden(), stop };
        }
        let length = duration.map_or(total, |duration| duration.as_millis() as u64);
        let style = ProgressStyle::with_template("{bar:30} {elapsed} {msg}").expect("a constant template is valid");
        let bar = ProgressBar::new(length).with_style(style);
        let (shown, recorder, stopped) = (bar.clone(), recorder.clone(), stop.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let mut before = 0;
            while !stopped.load(Relaxed) {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let done = recorder.done();
                shown.set_position(duration.map_or(done, |_| began.elapsed().as_millis() as u64));
                shown.set_message(format!("{done} done, {}/s now", (done - before) * 2));
                before = done;
            }
        });
        Progress { bar, stop }
    }

    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        self.bar.finish_and_clear();
    }
}
