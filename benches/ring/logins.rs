//! What logins cost a core, and what its hosts notice when the leader changes: a token is issued through the log, so every member knows it, and
//! a host should have no reason to log in again.
//!
//! ```text
//! idle → all log in, a few at once → steady → leader killed → it is back → lead moved back → all log in anew, all at once
//! ```
//!
//! While hosts log in they do not read, so what is spent is spent on logins. All the while somebody else reads ([`probe`]). CPU of the core is
//! that of the members that run: of two of three, while one is dead.

mod hosts;
mod members;
mod probe;

use crate::{
    Ring,
    processes::{Meter, Processes, Setup, flags},
    stats::{ms, percent, save},
    trust::Trust,
};
use hdrhistogram::Histogram;
use hosts::{Fleet, Met, Size};
use members::Core;
use probe::Probe;
use serde_json::{Value, json};
use std::{path::PathBuf, sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::time::{Instant, sleep};

/// What hosts may read, and trusted proxies copy.
const PREFIX: &str = "/fleet/";
/// So long without one more login, while hosts wait for one, is for ever.
const PATIENCE: Duration = Duration::from_secs(60);
/// For what has begun to be as it will be.
const SETTLED: Duration = Duration::from_secs(2);

/// The table: a head, which figure of a phase stands under it, and with how many digits.
const COLUMNS: [(&str, &str, usize); 12] = [
    ("seconds", "/s", 1),
    ("core CPU %", "/core_cpu_percent", 1),
    ("proxies CPU %", "/proxies_cpu_percent", 1),
    ("reads/s", "/reads_per_s", 0),
    ("failed", "/failed", 0),
    ("out for, ms", "/longest_outage_ms", 0),
    ("new logins", "/needed_a_new_login", 0),
    ("logins/s", "/logins_per_s", 1),
    ("core ms/login", "/core_cpu_ms_per_login", 2),
    ("read p99, ms", "/read_p50_p99_max_ms/1", 1),
    ("get p99, ms", "/other_reads_at_core_p50_p99_max_ms/1", 1),
    ("by proxy, ms", "/other_reads_at_proxies_p50_p99_max_ms/1", 1),
];

#[derive(clap::Args, Clone, Debug)]
#[command(mut_arg("voters", |arg| arg.default_value("3")), mut_arg("proxies", |arg| arg.default_value("2")))]
pub struct Args {
    /// Hosts, each with a token of its own
    #[arg(long, default_value_t = 10_000)]
    hosts: usize,
    /// Connections to each proxy that hosts use
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Seconds between two reads of one host
    #[arg(long, default_value_t = 5)]
    every: u64,
    /// Logins that are asked for at the same time, until all hosts log in anew
    #[arg(long, default_value_t = 64)]
    at_once: usize,
    /// Seconds for which each phase is looked at; longer, if hosts are still without an answer then
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Cost of a password's hash, as of the members' flag
    #[arg(long, default_value_t = 10)]
    bcrypt_cost: u32,
    /// Seconds that a token lives at a member that is not shown it. A member's own default, 300, is less than 10,000 logins take
    #[arg(long, default_value_t = 3_600)]
    token_ttl: u64,
    /// The core trusts the proxies, by certificates: they answer hosts from their copies. Else all that hosts ask passes through
    #[arg(long)]
    trusted: bool,
    /// Write the figures to this file as JSON
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    ring: Ring,
}

pub async fn run(args: Args) -> Result<(), String> {
    check(&args)?;
    let mut bench = Bench::start(args).await?;
    let outcome = bench.phases().await;
    // What was measured before something failed is worth seeing, too.
    bench.table();
    outcome?;
    let Args { ring, hosts, every, bcrypt_cost, trusted, .. } = &bench.args;
    let report = json!({
        "voters": ring.voters, "proxies": ring.proxies, "hosts": hosts, "every_s": every, "bcrypt_cost": bcrypt_cost,
        "trusted": trusted, "phases": bench.rows,
    });
    save(&report, bench.args.out.as_deref())
}

fn check(args: &Args) -> Result<(), String> {
    let Args { hosts, connections, every, at_once, seconds, ring, .. } = args;
    if [*hosts, *connections, *at_once, ring.proxies].contains(&0) || *every == 0 || *seconds == 0 {
        return Err("--hosts, --connections, --every, --at-once, --seconds and --proxies must be at least 1".to_owned());
    }
    if seconds < every {
        return Err("--seconds must be at least --every: each host is to read in each phase".to_owned());
    }
    if ring.voters < 3 {
        return Err("--voters must be at least 3: one is killed, and the others go on".to_owned());
    }
    if args.trusted && ring.etcd_bin.is_some() {
        return Err("--trusted is for a core of henge: etcd trusts no proxy".to_owned());
    }
    Ok(())
}

/// Everything that runs, and what was measured so far.
struct Bench {
    // Before the processes, so that whoever asks them ends first.
    fleet: Fleet,
    probe: Probe,
    core: Core,
    processes: Processes,
    args: Args,
    rows: Vec<Value>,
    /// CPU of a core that only the probe asks, as a share.
    idle: f64,
}

/// What a phase is compared with: how it was when it began.
struct Window {
    began: Instant,
    core: Meter,
    proxies: Meter,
}

impl Bench {
    async fn start(args: Args) -> Result<Bench, String> {
        let (cost, ttl) = (args.bcrypt_cost.to_string(), args.token_ttl.to_string());
        let setup = Setup {
            member_flags: flags(&[("bcrypt-cost", cost), ("auth-token-ttl", ttl)]),
            prefix: PREFIX.to_owned(),
            trust: args.trusted.then(|| Trust::new(args.ring.proxies)),
        };
        let processes = Processes::start_with(&args.ring, setup).await?;
        let core = Core::prepare(&processes, args.hosts).await?;
        let size = Size {
            hosts: args.hosts,
            connections_per_server: args.connections,
            every: Duration::from_secs(args.every),
            at_once: args.at_once,
        };
        let fleet = Fleet::start(&size, &processes.front())?;
        let probe = Probe::start(&processes).await?;
        sleep(SETTLED).await;
        Ok(Bench { fleet, probe, core, processes, args, rows: Vec::new(), idle: 0.0 })
    }

    async fn phases(&mut self) -> Result<(), String> {
        let Ring { voters, proxies, .. } = self.args.ring;
        println!(
            "{} hosts, {proxies} proxies, {voters} voters, bcrypt cost {}",
            self.args.hosts, self.args.bcrypt_cost
        );
        let window = self.open();
        self.close("idle", window).await?;
        self.idle = self.rows[0]["core_cpu_percent"].as_f64().unwrap_or(0.0) / 100.0;
        self.logins("all log in").await?;
        self.fleet.read();
        sleep(SETTLED.max(Duration::from_secs(self.args.every))).await;
        let window = self.open();
        self.close("steady", window).await?;
        let leader = self.put_leader_behind_hosts().await?;
        let window = self.open();
        self.processes.core[leader].kill();
        self.close("leader killed", window).await?;
        let window = self.open();
        self.processes.core[leader].start()?;
        self.core.serves(leader).await?;
        self.close("it is back", window).await?;
        let window = self.open();
        self.core.move_lead(leader).await?;
        self.close("lead moved back", window).await?;
        self.fleet.lift_bound();
        self.logins("all log in anew").await
    }

    /// Has the member lead that a proxy asks, so that its death is one for the hosts too, and not only an election.
    async fn put_leader_behind_hosts(&self) -> Result<usize, String> {
        let upstreams = self.core.upstreams().await?;
        let leader = self.core.leader().await?;
        let chosen = if upstreams.contains(&leader) { leader } else { upstreams[0] };
        if chosen != leader {
            self.core.move_lead(chosen).await?;
            sleep(SETTLED).await;
        }
        let behind = upstreams.iter().filter(|upstream| **upstream == chosen).count();
        println!("  the leader is upstream of {behind} of {} proxies", upstreams.len());
        Ok(chosen)
    }

    fn open(&self) -> Window {
        self.probe.settle(&self.processes);
        self.probe.take();
        self.fleet.sight.take();
        let (core, proxies) = (Meter::start(&self.processes.core), Meter::start(&self.processes.proxies));
        Window { began: Instant::now(), core, proxies }
    }

    /// All hosts log in once; from the order to the last token.
    async fn logins(&mut self, name: &str) -> Result<(), String> {
        let window = self.open();
        self.fleet.log_in();
        self.while_some("hosts wait for a login", || self.args.hosts - self.fleet.sight.ready.load(Relaxed)).await?;
        let (took, cpu) = (window.began.elapsed(), window.core.cpu(&self.processes.core));
        let met = self.fleet.sight.take();
        let of_logins = cpu.as_secs_f64() - self.idle * took.as_secs_f64();
        let logins = met.logins.max(1) as f64;
        let more = json!({
            "logins": met.logins, "logins_per_s": logins / took.as_secs_f64(),
            "core_cpu_ms_per_login": of_logins * 1e3 / logins, "turned_away": met.turned_away,
            "login_p50_ms": ms(&met.login_latencies, 0.5), "login_p99_ms": ms(&met.login_latencies, 0.99),
        });
        self.row(name, window, &met, more);
        Ok(())
    }

    /// Looks at a phase until its time is over, and every host has its answers.
    async fn close(&mut self, name: &str, window: Window) -> Result<(), String> {
        let (mut each_second, mut at, mut spent) = (Vec::new(), Duration::ZERO, Duration::ZERO);
        while at < Duration::from_secs(self.args.seconds) {
            sleep(Duration::from_secs(1)).await;
            let (now, cpu) = (window.began.elapsed(), window.core.cpu(&self.processes.core));
            each_second.push(percent(cpu.saturating_sub(spent), now - at).round());
            (at, spent) = (now, cpu);
        }
        self.while_some("hosts have no answer", || self.fleet.sight.away.load(Relaxed)).await?;
        let met = self.fleet.sight.take();
        let more = json!({ "core_cpu_percent_each_second": each_second });
        self.row(name, window, &met, more);
        Ok(())
    }

    /// Waits until there are no such hosts any more.
    async fn while_some(&self, what: &str, count: impl Fn() -> usize) -> Result<(), String> {
        let (mut logins, mut since) = (0, Instant::now());
        while count() > 0 {
            let now = self.fleet.sight.logins();
            if now != logins {
                (logins, since) = (now, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                let (some, refusal) = (count(), self.fleet.sight.refusal.lock().clone());
                return Err(format!(
                    "{some} {what}, and for {PATIENCE:?} nobody has logged in; last refused: {refusal}"
                ));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Notes what a phase was like, and says it.
    fn row(&mut self, name: &str, window: Window, met: &Met, more: Value) {
        let took = window.began.elapsed();
        let (core, proxies, failed) = self.probe.take();
        let latency = |of: &Histogram<u64>| (!of.is_empty()).then(|| [ms(of, 0.5), ms(of, 0.99), ms(of, 1.0)]);
        let mut row = json!({
            "phase": name, "s": took.as_secs_f64(),
            "core_cpu_percent": percent(window.core.cpu(&self.processes.core), took),
            "proxies_cpu_percent": percent(window.proxies.cpu(&self.processes.proxies), took),
            "reads": met.reads, "reads_per_s": met.reads as f64 / took.as_secs_f64(), "failed": met.failed, "hosts_with_failures": met.outages.len(),
            "longest_outage_ms": ms(&met.outages, 1.0), "needed_a_new_login": met.outdated,
            "read_p50_p99_max_ms": latency(&met.latencies),
            "other_reads": core.len() + proxies.len(), "other_reads_failed": failed,
            "other_reads_at_core_p50_p99_max_ms": latency(&core),
            "other_reads_at_proxies_p50_p99_max_ms": latency(&proxies),
        });
        if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
            row.extend(more);
        }
        println!("  {row}");
        self.rows.push(row);
    }

    fn table(&self) {
        let heads: String = COLUMNS.iter().map(|(head, ..)| format!(" {head:>13}")).collect();
        println!("{:16}{heads}", "");
        for row in &self.rows {
            let figure = |(_, figure, digits): &(&str, &str, usize)| match row.pointer(figure).and_then(Value::as_f64) {
                Some(figure) => format!(" {figure:>13.digits$}"),
                None => format!(" {:>13}", "-"),
            };
            let figures: String = COLUMNS.iter().map(figure).collect();
            println!("{:16}{figures}", row["phase"].as_str().unwrap_or_default());
        }
    }
}
