//! Somebody else, who reads linearizably all the while: do logins, or a change of leader, hold up who has nothing to do with them?

use crate::{processes::Processes, stats::Latencies};
use hdrhistogram::Histogram;
use henge::client::{Client, GetOptions};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::interval};

/// Who that is.
pub const USER: (&str, &str) = ("honest", "a reader's");
/// What is read.
pub const KEY: &str = "/fleet/honest";
/// Reads at each server. Too few to cost anything, enough to have a 99th percentile in ten seconds.
const PER_S: u32 = 20;

/// Readers, one at each member and one at each proxy. They end with it.
pub struct Probe {
    /// Reads at members: of a busy one as well as of others.
    core: Arc<Latencies>,
    proxies: Arc<Latencies>,
    failed: Arc<AtomicU64>,
    readers: Vec<(Client, String)>,
    _tasks: JoinSet<()>,
}

impl Probe {
    pub async fn start(processes: &Processes) -> Result<Probe, String> {
        let core: Vec<&str> = processes.core.iter().map(|member| member.url.as_str()).collect();
        let (at_core, at_proxies) = (Arc::new(Latencies::default()), Arc::new(Latencies::default()));
        let failed = Arc::new(AtomicU64::new(0));
        let (mut readers, mut tasks) = (Vec::new(), JoinSet::new());
        for member in &core {
            // One whose member is away goes to another, as clients do.
            let client = processes.client(&core, USER).await?;
            tasks.spawn(read(client.clone(), Arc::clone(&at_core), Arc::clone(&failed)));
            readers.push((client, (*member).to_owned()));
        }
        for proxy in &processes.proxies {
            let client = processes.client(&[&proxy.url], USER).await?;
            tasks.spawn(read(client.clone(), Arc::clone(&at_proxies), Arc::clone(&failed)));
            readers.push((client, proxy.url.clone()));
        }
        let probe = Probe { core: at_core, proxies: at_proxies, failed, readers, _tasks: tasks };
        probe.settle(processes);
        Ok(probe)
    }

    /// Each goes back to its own server if it had to leave it, and that runs.
    pub fn settle(&self, processes: &Processes) {
        let servers = processes.core.iter().chain(&processes.proxies);
        for running in servers.filter(|server| server.pid().is_some()) {
            for (client, _) in self.readers.iter().filter(|(_, own)| *own == running.url) {
                client.endpoints().prefer(&running.url);
            }
        }
    }

    /// What reads at members and at proxies took, and how many failed, though they were repeated; begins anew.
    pub fn take(&self) -> (Histogram<u64>, Histogram<u64>, u64) {
        (self.core.take(), self.proxies.take(), self.failed.swap(0, Relaxed))
    }
}

async fn read(client: Client, latencies: Arc<Latencies>, failed: Arc<AtomicU64>) {
    // A read that is late does not excuse those that were to come after it: their time counts from when they were due.
    let mut clock = interval(Duration::from_secs(1) / PER_S);
    loop {
        let due = clock.tick().await;
        match client.get(KEY, GetOptions::default()).await {
            Ok(_) => latencies.record(0, due.elapsed()),
            Err(_) => {
                failed.fetch_add(1, Relaxed);
            }
        }
    }
}
