//! Hosts attach, get events, go on living; a proxy dies, then the core.

use crate::{
    Ring,
    hosts::{CONFIG, Fleet, Size},
    processes::{Process, Processes, channel, serves, spent},
    stats::{ms, percent, save},
};
use hdrhistogram::Histogram;
use henge::pb::etcdserverpb::{PutRequest, kv_client::KvClient};
use serde_json::{Value, json};
use std::{path::PathBuf, sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// Longest wait for all hosts to get somewhere.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Fleets to measure, one after the other, each with processes of its own
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,30000,90000")]
    hosts: Vec<usize>,
    /// Hosts that share a watch stream and a lease stream
    #[arg(long, default_value_t = 100)]
    hosts_per_stream: usize,
    /// Connections to each server that hosts use
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Time to live of the hosts' leases, in seconds; each is renewed three times in it
    #[arg(long, default_value_t = 60)]
    ttl: u64,
    /// Events for all hosts
    #[arg(long, default_value_t = 10)]
    events: usize,
    /// Puts per second to other keys in the copied range, all the time
    #[arg(long, default_value_t = 10)]
    puts: u32,
    /// Seconds for which a standing fleet is looked at
    #[arg(long, default_value_t = 20)]
    steady: u64,
    /// Kill a proxy, and then the core, under the last fleet
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    storms: bool,
    /// Write the figures to this file as JSON
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    ring: Ring,
}

impl Default for Args {
    fn default() -> Args {
        #[derive(clap::Parser)]
        struct Defaults {
            #[command(flatten)]
            args: Args,
        }
        <Defaults as clap::Parser>::parse_from(["ring"]).args
    }
}

pub async fn run(args: Args) -> Result<(), String> {
    if args.hosts.is_empty() || args.hosts_per_stream == 0 || args.connections == 0 || args.ring.voters == 0 {
        return Err("--hosts, --hosts-per-stream, --connections and --voters must be at least 1".to_owned());
    }
    let mut fleets = Vec::new();
    for (at, hosts) in args.hosts.iter().enumerate() {
        let is_last = at + 1 == args.hosts.len();
        fleets.push(fleet(&args, *hosts, args.storms && is_last).await?);
    }
    let report = json!({
        "voters": args.ring.voters, "proxies": args.ring.proxies, "ttl_s": args.ttl,
        "hosts_per_stream": args.hosts_per_stream, "puts_per_s": args.puts, "fleets": fleets,
    });
    save(&report, args.out.as_deref())
}

/// One fleet from its start to its end; its figures.
async fn fleet(args: &Args, hosts: usize, storms: bool) -> Result<Value, String> {
    let mut processes = Processes::start(&args.ring, "/fleet/").await?;
    println!("{hosts} hosts, {} proxies, {} voters", args.ring.proxies, args.ring.voters);
    let size = Size {
        hosts,
        hosts_per_stream: args.hosts_per_stream,
        connections_per_server: args.connections,
        ttl_s: args.ttl,
    };
    let empty = (spent(&processes.core), spent(&processes.proxies));
    let began = Instant::now();
    let fleet = Fleet::start(&size, &processes.front())?;
    let writes = tokio::spawn(write(processes.core[0].url.clone(), args.puts));
    let attached = all(&fleet, hosts, &processes).await;
    let after = (spent(&processes.core), spent(&processes.proxies));
    let attach = json!({
        "s": began.elapsed().as_secs_f64(),
        "core_cpu_us_per_host": (after.0.cpu - empty.0.cpu).as_micros() as f64 / hosts as f64,
    });
    println!("  attached: {attach}");
    attached?;
    let mut sent = 0;
    let events = events(args, &fleet, &processes, hosts, &mut sent).await?;
    println!("  events: {events}");
    let steady = steady(args, &fleet, &processes, hosts, empty.0.resident_bytes, empty.1.resident_bytes).await;
    println!("  standing: {steady}");
    let mut storm = Value::Null;
    if storms {
        let proxy = match processes.proxies.is_empty() {
            true => Value::Null,
            false => proxy_dies(&fleet, &mut processes, hosts, &mut sent).await?,
        };
        println!("  a proxy is killed: {proxy}");
        let core = core_dies(&fleet, &mut processes, hosts, &mut sent).await?;
        println!("  the core is killed: {core}");
        storm = json!({ "proxy": proxy, "core": core });
    }
    writes.abort();
    let sight = &fleet.sight;
    let wrong = sight.wrong.load(Relaxed);
    println!("  events missed, repeated or out of order: {wrong}; leases that lapsed: {}", sight.lapsed.load(Relaxed));
    Ok(json!({
        "hosts": hosts, "attach": attach, "events": events, "standing": steady, "storms": storm,
        "wrong_events": wrong, "lapsed_leases": sight.lapsed.load(Relaxed),
    }))
}

/// Waits until all hosts watch and have their lease.
async fn all(fleet: &Fleet, hosts: usize, processes: &Processes) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let (watching, leased) = (fleet.sight.watching.load(Relaxed), fleet.sight.leased.load(Relaxed));
        if watching >= hosts && leased >= hosts {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let up = processes.core.iter().chain(&processes.proxies).filter_map(Process::pid).count();
            return Err(format!(
                "after {PATIENCE:?} {watching} of {hosts} hosts watch, {leased} have a lease; {up} processes"
            ));
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Sends the next event by any member that takes it, and waits until all hosts have seen it; how long that took.
async fn event(fleet: &Fleet, processes: &Processes, hosts: usize, sent: &mut usize) -> Result<Duration, String> {
    *sent += 1;
    let began = Instant::now();
    fleet.sight.sending(*sent);
    let mut members = processes.core.iter().map(|member| member.url.as_str()).cycle();
    loop {
        let mut kv = KvClient::new(channel(members.next().unwrap_or_default())?);
        let put = PutRequest { key: CONFIG.into(), value: sent.to_string().into(), ..PutRequest::default() };
        // Where the outcome is unknown it is sent again: hosts count that as an event that came twice.
        match kv.put(put).await {
            Ok(_) => break,
            Err(status) if began.elapsed() > PATIENCE => return Err(status.message().to_owned()),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
    while fleet.sight.seen(*sent) < hosts {
        if began.elapsed() > PATIENCE {
            return Err(format!("event {sent} has reached {} of {hosts} hosts", fleet.sight.seen(*sent)));
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(began.elapsed())
}

async fn events(
    args: &Args,
    fleet: &Fleet,
    processes: &Processes,
    hosts: usize,
    sent: &mut usize,
) -> Result<Value, String> {
    fleet.sight.latencies.take();
    let mut last = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are valid");
    let before = spent(&processes.core).cpu;
    for _ in 0..args.events {
        let took = event(fleet, processes, hosts, sent).await?;
        last.saturating_record(took.as_micros() as u64);
        sleep(Duration::from_millis(500)).await;
    }
    let cpu = spent(&processes.core).cpu - before;
    let each = fleet.sight.latencies.take();
    Ok(json!({
        "p50_ms": ms(&each, 0.5), "p99_ms": ms(&each, 0.99), "max_ms": ms(&each, 1.0),
        "last_host_median_ms": ms(&last, 0.5),
        "core_cpu_us_per_delivery": cpu.as_micros() as f64 / each.len().max(1) as f64,
    }))
}

/// What a standing fleet costs.
async fn steady(args: &Args, fleet: &Fleet, processes: &Processes, hosts: usize, core: u64, proxies: u64) -> Value {
    sleep(Duration::from_secs(2)).await;
    let (began, renewed) = (Instant::now(), fleet.sight.renewed.load(Relaxed));
    let before = (spent(&processes.core).cpu, spent(&processes.proxies).cpu);
    sleep(Duration::from_secs(args.steady)).await;
    let after = (spent(&processes.core), spent(&processes.proxies));
    let took = began.elapsed();
    let per_host = |bytes: u64, empty: u64| bytes.saturating_sub(empty) / hosts as u64;
    json!({
        "core_cpu_percent": percent(after.0.cpu - before.0, took),
        "proxies_cpu_percent": percent(after.1.cpu - before.1, took),
        "renewals_per_s": (fleet.sight.renewed.load(Relaxed) - renewed) as f64 / took.as_secs_f64(),
        "core_resident_bytes": after.0.resident_bytes, "core_bytes_per_host": per_host(after.0.resident_bytes, core),
        "proxies_resident_bytes": after.1.resident_bytes, "proxies_bytes_per_host": per_host(after.1.resident_bytes, proxies),
    })
}

/// One proxy is killed and started again at once.
async fn proxy_dies(fleet: &Fleet, processes: &mut Processes, hosts: usize, sent: &mut usize) -> Result<Value, String> {
    let before = spent(&processes.core).cpu;
    let began = Instant::now();
    processes.proxies[0].kill();
    // Until its hosts have noticed there is nothing to wait for.
    while fleet.sight.watching.load(Relaxed) == hosts && began.elapsed() < PATIENCE {
        sleep(Duration::from_millis(1)).await;
    }
    processes.proxies[0].start()?;
    all(fleet, hosts, processes).await?;
    let back = began.elapsed();
    let reached = event(fleet, processes, hosts, sent).await?;
    let core_cpu = spent(&processes.core).cpu - before;
    Ok(json!({
        "all_hosts_back_s": back.as_secs_f64(), "next_event_reaches_all_ms": reached.as_secs_f64() * 1e3,
        "core_cpu_s": core_cpu.as_secs_f64(),
    }))
}

/// All members are killed and started again at once.
async fn core_dies(fleet: &Fleet, processes: &mut Processes, hosts: usize, sent: &mut usize) -> Result<Value, String> {
    let began = Instant::now();
    processes.core.iter_mut().for_each(Process::kill);
    for member in &mut processes.core {
        member.start()?;
    }
    serves(&processes.core[0].url).await?;
    let serves = began.elapsed();
    event(fleet, processes, hosts, sent).await?;
    let reached = began.elapsed();
    all(fleet, hosts, processes).await?;
    let back = began.elapsed();
    sleep(Duration::from_secs(10).saturating_sub(back)).await;
    Ok(json!({
        "core_serves_s": serves.as_secs_f64(), "an_event_has_reached_all_s": reached.as_secs_f64(),
        "all_hosts_back_s": back.as_secs_f64(), "core_cpu_s_in_10_s": spent(&processes.core).cpu.as_secs_f64(),
    }))
}

/// Writes to keys that nobody watches, in the range that proxies copy.
async fn write(url: String, per_s: u32) {
    let Ok(channel) = channel(&url) else { return };
    if per_s == 0 {
        return;
    }
    let mut clock = interval(Duration::from_secs(1) / per_s);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in 0_u64.. {
        clock.tick().await;
        let key = format!("/fleet/hosts/{:05}", number % 10_000);
        let put = PutRequest { key: key.into(), value: vec![b'x'; 256].into(), ..PutRequest::default() };
        // While the core is away nothing is written.
        let _ = KvClient::new(channel.clone()).put(put).await;
    }
}
