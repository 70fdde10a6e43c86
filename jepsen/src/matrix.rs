//! The command line, and many runs one after the other.

use crate::{
    cluster::{
        self,
        proxy::{Copies, Ring},
    },
    disk, nemesis,
    nemesis::{Pace, fault::NEMESES},
    report::{self, Outcome},
    run::{self, Plan},
    workload::{self, WORKLOADS},
};
use clap::{Parser, Subcommand};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Run clusters under faults, and check what their clients saw.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "jepsen",
    version,
    after_help = "Exits with 0 if all checks hold, 1 if one does not, 2 if a run failed. `list` says what there is."
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// One workload under one nemesis
    Test {
        /// What clients do
        #[arg(long, default_value = "register")]
        workload: String,
        /// What goes wrong: a nemesis, or one fault of it
        #[arg(long, default_value = "kill")]
        nemesis: String,
        /// How long, in seconds
        #[arg(long, default_value_t = 30)]
        time: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Every workload under every nemesis, and a report
    Matrix {
        /// Only these, with commas between
        #[arg(long, value_delimiter = ',')]
        workloads: Vec<String>,
        /// Only these, with commas between
        #[arg(long, value_delimiter = ',')]
        nemeses: Vec<String>,
        /// How long each run takes, in seconds [default: 60, with --short 5]
        #[arg(long)]
        time: Option<u64>,
        /// A choice that takes a few minutes
        #[arg(long)]
        short: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Say which workloads and nemeses there are
    List,
}

#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// The server's program: henge, or any that takes etcd's flags
    #[arg(long, default_value = "target/debug/henge")]
    server_bin: PathBuf,
    /// One more flag for the server; may be given again
    #[arg(long, allow_hyphen_values = true)]
    server_arg: Vec<String>,
    /// Members [default: 5, with --short 3]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: Option<u64>,
    /// Proxies between clients and members, in each tier [default: none, or two if the run is about proxies]
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=20))]
    proxies: Option<u64>,
    /// Tiers of proxies: those of the second have those of the first behind them [default: 1, or two if the run is about proxies]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=5))]
    tiers: Option<u64>,
    /// What proxies keep copies of
    #[arg(long, value_enum, default_value = "both")]
    copies: Copies,
    /// The proxies' program [default: the server's]
    #[arg(long)]
    proxy_bin: Option<PathBuf>,
    /// One more flag for proxies; may be given again
    #[arg(long, allow_hyphen_values = true)]
    proxy_arg: Vec<String>,
    /// Clients talk to members and to every tier, and not to the last tier alone
    #[arg(long)]
    mixed: bool,
    /// Clients at the same time [default: twice the members]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    clients: Option<u64>,
    /// Keys in use at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    keys: u64,
    /// Longest time for one call, in milliseconds
    #[arg(long, default_value_t = 1500)]
    timeout_ms: u64,
    /// The members' heartbeat interval, in milliseconds; their own default if not given
    #[arg(long)]
    heartbeat_ms: Option<u64>,
    /// The members' election timeout, in milliseconds; their own default if not given
    #[arg(long)]
    election_ms: Option<u64>,
    /// Rules what clients and faults do; how calls interleave is the machine's
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Use ports of this machine instead of hosts of their own: nothing can be parted then
    #[arg(long)]
    loopback: bool,
    /// Where the report goes, with logs and histories [default: a new folder in target/jepsen]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Keep the members' data although all checks hold
    #[arg(long)]
    keep: bool,
    /// Read serializably, which registers, set and append must find: a test of the checkers
    #[arg(long)]
    stale_reads: bool,
}

/// What of the matrix `--short` runs: every workload once or twice, every nemesis once.
const SHORT: &[(&str, &str)] = &[
    ("register", "kill"),
    ("register", "partition"),
    ("set", "power"),
    ("append", "partition-leader"),
    ("append", "pause"),
    ("watch", "kill"),
    ("lock", "pause-leader"),
    ("lease", "kill-leader"),
    ("set", "disk"),
    ("register", "network"),
    ("append", "members"),
    ("register", "roll"),
    ("register", "proxy"),
    ("session", "proxy-partition"),
    ("watch", "ring"),
    ("lock", "proxy-kill-all"),
];

/// Does what the command line says. Returns the exit code.
///
/// # Errors
/// If a name is unknown, or the report cannot be written.
pub async fn main(args: &Args) -> Result<u8, Box<dyn Error>> {
    match &args.command {
        Command::List => {
            for (name, _, what) in WORKLOADS {
                println!("workload {name:<16} {what}");
            }
            for (name, faults, what) in NEMESES {
                println!("nemesis  {name:<16} {what}");
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                println!("{:25} {}", "", faults.join(" "));
            }
            Ok(0)
        }
        Command::Test { workload, nemesis, time, common } => {
            let runs = [(workload.clone(), nemesis.clone())];
            runs_of(common, &runs, Duration::from_secs(*time), false).await
        }
        Command::Matrix { workloads, nemeses, time, short, common } => {
            let wanted = |names: &[String], name: &str| names.is_empty() || names.iter().any(|one| one == name);
            let chosen: Vec<(String, String)> = if *short {
                let all =
                    SHORT.iter().filter(|(workload, nemesis)| wanted(workloads, workload) && wanted(nemeses, nemesis));
                all.map(|(workload, nemesis)| (workload.to_string(), nemesis.to_string())).collect()
            } else {
                let all: Vec<String> = NEMESES.iter().map(|(name, _, _)| name.to_string()).collect();
                let nemeses = if nemeses.is_empty() { &all } else { nemeses };
                let known = WORKLOADS.iter().map(|(name, _, _)| *name).filter(|name| wanted(workloads, name));
                let all = known.flat_map(|name| nemeses.iter().map(move |nemesis| (name, nemesis)));
                // What is about proxies alone is run where something happens to them, or where it or they were asked for.
                let was_asked_for = common.proxies.is_some() || !workloads.is_empty();
                let is_for_proxies = |name: &str| workload::needs_proxies(name) && !was_asked_for;
                let sensible = all.filter(|(name, nemesis)| !is_for_proxies(name) || needs_proxies(nemesis));
                sensible.map(|(name, nemesis)| (name.to_string(), nemesis.clone())).collect()
            };
            let time = Duration::from_secs(time.unwrap_or(if *short { 5 } else { 60 }));
            runs_of(common, &chosen, time, *short).await
        }
    }
}

async fn runs_of(
    common: &Common,
    runs: &[(String, String)],
    time: Duration,
    short: bool,
) -> Result<u8, Box<dyn Error>> {
    for (workload, nemesis) in runs {
        workload::find(workload)
            .ok_or_else(|| format!("there is no workload {workload:?}; `list` says which there are"))?;
        nemesis::fault::find(nemesis)
            .ok_or_else(|| format!("there is no nemesis {nemesis:?}; `list` says which there are"))?;
    }
    let folder = folder(common)?;
    disk::remove_leftovers();
    let base = base(common, time, short, &folder);
    let title = format!("{} members of {}, {}", base.cluster.nodes, base.cluster.program.display(), base.cluster.ring);
    let start = Instant::now();
    let mut outcomes: Vec<Outcome> = Vec::new();
    for (at, (workload, nemesis)) in runs.iter().enumerate() {
        let mut plan = Plan {
            workload: workload.clone(),
            nemesis: nemesis.clone(),
            folder: folder.join(format!("{workload}-{nemesis}")),
            ..base.clone()
        };
        if common.proxies.is_none() && (workload::needs_proxies(workload) || needs_proxies(nemesis)) {
            let ring = &mut plan.cluster.ring;
            *ring = Ring { proxies: 2, tiers: common.tiers.unwrap_or(2) as usize, ..ring.clone() };
        }
        eprintln!("{workload} under {nemesis} ...");
        let outcome = run::run(&plan).await;
        println!("[{:>2}/{} {:>4} s] {outcome}", at + 1, runs.len(), start.elapsed().as_secs());
        outcomes.push(outcome);
        report::write(&folder, &title, &outcomes)?;
    }
    println!("report: {}", folder.join("report.html").display());
    Ok(outcomes.iter().map(|outcome| outcome.verdict.code()).max().unwrap_or(0))
}

fn folder(common: &Common) -> Result<PathBuf, Box<dyn Error>> {
    let unique = || {
        let seconds = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        PathBuf::from(format!("target/jepsen/{seconds}-{}", std::process::id()))
    };
    let folder = common.out.clone().unwrap_or_else(unique);
    fs::create_dir_all(&folder)?;
    // The data of an earlier run would look like a violation.
    if fs::read_dir(&folder)?.next().is_some() {
        return Err(format!("{} is not empty", folder.display()).into());
    }
    Ok(fs::canonicalize(folder)?)
}

/// The plan of a run, but for its workload and nemesis.
fn base(common: &Common, time: Duration, short: bool, folder: &Path) -> Plan {
    let nodes = common.nodes.unwrap_or(if short { 3 } else { 5 }) as usize;
    let loopback =
        common.loopback || cannot("give members hosts of their own", cluster::network::Network::new(1).map(drop));
    let disks = !cannot("mount FUSE", disk::Disk::mount(&folder.join("probe")).map(drop));
    // It is empty; if it is not there, that is as good.
    let _ = fs::remove_dir(folder.join("probe"));
    let mut extra = common.server_arg.clone();
    for (flag, ms) in [("--heartbeat-interval", common.heartbeat_ms), ("--election-timeout", common.election_ms)] {
        extra.extend(ms.map(|ms| format!("{flag}={ms}")));
    }
    let unhurried = Pace { min: Duration::from_millis(2500), spread: Duration::from_millis(4000) };
    let hurried = Pace { min: Duration::from_millis(900), spread: Duration::from_millis(600) };
    Plan {
        workload: String::new(),
        nemesis: String::new(),
        time,
        pace: if time < Duration::from_secs(20) { hurried } else { unhurried },
        cluster: cluster::Plan {
            program: common.server_bin.clone(),
            nodes,
            extra,
            loopback,
            disks,
            ring: ring(common),
        },
        clients: common.clients.map_or(nodes * 2, |clients| clients as usize),
        keys: common.keys as usize,
        timeout: Duration::from_millis(common.timeout_ms),
        seed: common.seed,
        folder: folder.to_path_buf(),
        keep: common.keep,
        stale_reads: common.stale_reads,
    }
}

/// The proxies that were asked for.
fn ring(common: &Common) -> Ring {
    Ring {
        program: common.proxy_bin.as_ref().unwrap_or(&common.server_bin).clone(),
        proxies: common.proxies.unwrap_or(0) as usize,
        tiers: common.tiers.unwrap_or(1) as usize,
        copies: common.copies,
        extra: common.proxy_arg.clone(),
        is_mixed: common.mixed,
    }
}

/// Whether `nemesis` does something to proxies.
fn needs_proxies(nemesis: &str) -> bool {
    nemesis::fault::find(nemesis).unwrap_or_default().iter().any(|fault| fault.tiers_min() > 0)
}

/// Whether something is impossible here, which is said.
fn cannot(what: &str, tried: std::io::Result<()>) -> bool {
    tried.inspect_err(|cause| eprintln!("jepsen: cannot {what}, so some nemeses are skipped: {cause}")).is_err()
}
