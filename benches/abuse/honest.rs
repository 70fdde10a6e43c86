//! Clients that ask for little, at a steady rate, and read what they are told.

use crate::server::connect;
use hdrhistogram::Histogram;
use henge::pb::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use std::{fmt, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tonic::{Code, transport::Channel};

/// The honest clients, each with a connection of its own, made before anybody does anything bad.
pub struct Clients {
    channels: Vec<Channel>,
    pause: Duration,
}

/// What became of their requests.
pub struct Outcome {
    latency: Histogram<u64>,
    refused: u64,
    failed: u64,
}

impl Clients {
    pub async fn connect(url: &str, count: usize, rate: u32) -> Result<Clients, String> {
        let mut channels = Vec::new();
        for _ in 0..count {
            channels.push(connect(url).await?);
        }
        Ok(Clients { channels, pause: Duration::from_secs(1) / rate.max(1) })
    }

    /// All of them at work for `window`: a put and nine gets, again and again.
    pub async fn work(&self, window: Duration) -> Result<Outcome, String> {
        let end = Instant::now() + window;
        let mut working = JoinSet::new();
        for (number, channel) in self.channels.iter().enumerate() {
            // Spread over the pause, or all would come at once.
            let begin = Instant::now() + self.pause.mul_f64(number as f64 / self.channels.len() as f64);
            working.spawn(one(channel.clone(), number, begin, end, self.pause));
        }
        let mut all = Outcome::new();
        while let Some(outcome) = working.join_next().await {
            all.add(outcome.map_err(|error| error.to_string())?);
        }
        Ok(all)
    }
}

async fn one(channel: Channel, number: usize, begin: Instant, end: Instant, pause: Duration) -> Outcome {
    let mut kv = KvClient::new(channel);
    let mut outcome = Outcome::new();
    let mut ticks = interval_at(begin, pause);
    // Each request counts from the moment at which it was due: a server that stands still is not spared what would have been asked.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for turn in 0_u64.. {
        let due = ticks.tick().await;
        if due >= end {
            break;
        }
        let key = format!("honest/{number:04}");
        let answer = match turn % 10 {
            0 => {
                let put = PutRequest { key: key.into(), value: vec![b'v'; 64].into(), ..PutRequest::default() };
                kv.put(put).await.map(drop)
            }
            _ => kv.range(RangeRequest { key: key.into(), ..RangeRequest::default() }).await.map(drop),
        };
        match answer {
            Ok(()) => outcome.record(due.elapsed()),
            Err(status) if status.code() == Code::ResourceExhausted => outcome.refused += 1,
            Err(_) => outcome.failed += 1,
        }
    }
    outcome
}

impl Outcome {
    fn new() -> Outcome {
        // One microsecond to ten minutes, to three digits.
        let latency = Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are valid");
        Outcome { latency, refused: 0, failed: 0 }
    }

    fn record(&mut self, took: Duration) {
        self.latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    fn add(&mut self, other: Outcome) {
        self.latency.add(other.latency).expect("equal bounds");
        self.refused += other.refused;
        self.failed += other.failed;
    }

    fn ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }

    pub fn p99_ms(&self) -> f64 {
        self.ms(0.99)
    }

    /// A row of the table.
    pub fn row(&self, name: &str) -> String {
        format!(
            "| {name} | {:.2} | {:.2} | {:.2} | {} | {} | {} |\n",
            self.ms(0.5),
            self.p99_ms(),
            self.ms(1.0),
            self.latency.len(),
            self.refused,
            self.failed
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { latency, refused, failed } = self;
        write!(f, "p50 {:.2} ms, p99 {:.2} ms, ", self.ms(0.5), self.p99_ms())?;
        write!(f, "{} served, {refused} refused, {failed} failed", latency.len())
    }
}
