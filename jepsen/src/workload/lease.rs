//! Leases: clients attach a key to a lease, keep it alive for a while or not at all, and look whether it is there.

use super::{Boxed, Load, Nonsense, Tasks, Workload};
use crate::{
    check::{
        Judgement,
        lease::{Confirmed, Lease, Look, check, latest},
        ms,
    },
    random::Random,
    timeline::Log,
};
use henge::client::{Client, GetOptions, PutOptions};
use std::{
    fs,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const PREFIX: &str = "lease/";
/// What leases live, in seconds. Members may raise it.
const TTL_S: i64 = 3;
/// Longest time for all keys to go once nothing is wrong and nobody renews: the time to live starts anew with a new leader.
const GONE_MAX: Duration = Duration::from_secs(TTL_S as u64 * 2 + 10);

#[derive(Debug, Default)]
struct Leases {
    leases: Log<Lease>,
    left: Mutex<Vec<String>>,
}

/// A new one.
pub fn make() -> Arc<dyn Workload> {
    Arc::new(Leases::default())
}

fn positive(ttl_s: i64) -> Option<u64> {
    u64::try_from(ttl_s).ok().filter(|ttl| *ttl > 0)
}

impl Leases {
    async fn client(self: Arc<Leases>, load: Arc<Load>, number: usize) -> Result<(), Nonsense> {
        let client = load.client(number).await?;
        let mut random = load.random.part(number as u64);
        let mut count = 0;
        while !load.is_over() {
            count += 1;
            if let Some(lease) = live(&load, &client, number, count, &mut random).await {
                self.leases.add(lease);
            }
            tokio::time::sleep(Duration::from_millis(random.below(100))).await;
        }
        Ok(())
    }
}

/// The life of one lease; `None` if it never had a key.
async fn live(load: &Load, client: &Client, number: usize, count: u64, random: &mut Random) -> Option<Lease> {
    let grant = load.call(number, "grant", true, client.lease_grant(TTL_S, 0)).await;
    let granted = grant.result.ok()?;
    let ttl_s = positive(granted.ttl)?;
    let key = format!("{PREFIX}{number}-{count}");
    let put = client.put(key.clone(), "", PutOptions { lease: granted.id, ..PutOptions::default() });
    let attach = load.call(number, "attach", true, put).await;
    attach.result.ok()?;
    let mut lease = Lease {
        key,
        attached_ns: attach.returned_ns,
        confirmed: vec![Confirmed { called_ns: grant.called_ns, ttl_s }],
        last_try_ns: grant.returned_ns,
        looks: Vec::new(),
        revoked_ns: None,
    };
    let ttl = Duration::from_secs(ttl_s);
    // Some are abandoned at once.
    let kept = Instant::now() + ttl.mul_f64(random.below(4) as f64 * 0.8);
    let mut renewed = Instant::now();
    while Instant::now() < kept && !load.is_over() {
        if renewed.elapsed() > ttl / 3 {
            renewed = Instant::now();
            renew(load, client, number, granted.id, &mut lease).await;
        }
        look(load, client, number, &mut lease).await;
        tokio::time::sleep(Duration::from_millis(50 + random.below(150))).await;
    }
    if random.below(4) == 0 {
        lease.revoked_ns = Some(load.clock.now_ns());
        load.call(number, "revoke", true, client.lease_revoke(granted.id)).await.result.ok();
        return Some(lease);
    }
    // Watch it go.
    let start = Instant::now();
    while lease.looks.last().is_none_or(|look| look.there) && start.elapsed() < ttl * 3 && !load.is_over() {
        look(load, client, number, &mut lease).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Some(lease)
}

async fn renew(load: &Load, client: &Client, number: usize, id: i64, lease: &mut Lease) {
    let call = load.call(number, "renew", false, client.lease_renew(id)).await;
    let (called_ns, returned_ns) = (call.called_ns, call.returned_ns);
    lease.last_try_ns = returned_ns;
    match call.result.map(|answer| positive(answer.ttl)) {
        Ok(Some(ttl_s)) => lease.confirmed.push(Confirmed { called_ns, ttl_s }),
        Ok(None) => lease.looks.push(Look { called_ns, returned_ns, there: false }),
        Err(_) => {}
    }
}

async fn look(load: &Load, client: &Client, number: usize, lease: &mut Lease) {
    let get = client.get(lease.key.clone(), GetOptions { count_only: true, ..GetOptions::default() });
    let call = load.call(number, "look", false, get).await;
    if let Ok(answer) = call.result {
        let (called_ns, returned_ns) = (call.called_ns, call.returned_ns);
        lease.looks.push(Look { called_ns, returned_ns, there: answer.count > 0 });
    }
}

impl Workload for Leases {
    fn start(self: Arc<Self>, load: &Arc<Load>, tasks: &mut Tasks) {
        for number in 0..load.clients {
            tasks.spawn(self.clone().client(load.clone(), number));
        }
    }

    fn finish<'a>(&'a self, load: &'a Load) -> Boxed<'a> {
        Box::pin(async move {
            let client = load.any_client().await?;
            let start = Instant::now();
            loop {
                let read =
                    async || client.get(PREFIX, GetOptions { keys_only: true, ..GetOptions::prefix(PREFIX) }).await;
                let answer = load.insist("the final read", read).await?;
                if !answer.kvs.is_empty() && start.elapsed() < GONE_MAX {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
                let keys = answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
                *self.left.lock().expect("no thread panics while it has it") = keys.collect();
                return Ok(());
            }
        })
    }

    fn judge(&self, folder: &Path) -> io::Result<Judgement> {
        let leases = self.leases.all();
        let mut file = BufWriter::new(fs::File::create(folder.join("history.txt"))?);
        for lease in &leases {
            writeln!(file, "{lease:?}")?;
        }
        file.flush()?;
        let renewals: usize = leases.iter().map(|lease| lease.confirmed.len() - 1).sum();
        let mut judgement = Judgement::default();
        judgement.note(format!("{} leases, {renewals} renewals confirmed", leases.len()));
        judgement.note(format!("the latest one went {} after its time, faults included", ms(latest(&leases))));
        judgement.add(check(&leases, &self.left.lock().expect("no thread panics while it has it")));
        Ok(judgement)
    }
}
