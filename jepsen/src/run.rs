//! One run: a cluster, clients, faults, and then the checks.

use crate::{
    check::{Finding, Judgement},
    cluster::{self, Cluster},
    nemesis::{self, Account, Pace, fault::Fault},
    random::Random,
    report::{Outcome, Stats, Verdict, set_gaps},
    timeline::{Clock, Log},
    workload::{self, Load, Nonsense, Tasks, Workload},
};
use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// Longest time for all members and proxies to answer, after the start and after the last fault.
const SERVICE_MAX: Duration = Duration::from_secs(40);
/// Load after the last fault, so that the report shows the recovery.
const AFTERMATH: Duration = Duration::from_secs(1);
/// Longest time for clients to end after they were told.
const END_MAX: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which workload.
    pub workload: String,
    /// Which nemesis or single fault.
    pub nemesis: String,
    /// How long faults go on.
    pub time: Duration,
    /// How fast they follow each other.
    pub pace: Pace,
    /// The cluster.
    pub cluster: cluster::Plan,
    /// Clients at the same time.
    pub clients: usize,
    /// Keys in use at the same time.
    pub keys: usize,
    /// Longest time for one call.
    pub timeout: Duration,
    /// Rules what clients and the nemesis do; how calls interleave is the machine's.
    pub seed: u64,
    /// Where logs and history go.
    pub folder: PathBuf,
    /// Read serializably, to see the checkers find it.
    pub stale_reads: bool,
    /// Keep the members' data although all checks hold.
    pub keep: bool,
}

/// What is known when the load is over and the cluster is gone.
struct Driven {
    account: Account,
    anomalies: Vec<Finding>,
    recovered: Option<Duration>,
}

/// Runs `plan`. A run that fails is an outcome too.
pub async fn run(plan: &Plan) -> Outcome {
    let mut outcome = Outcome {
        workload: plan.workload.clone(),
        nemesis: plan.nemesis.clone(),
        seed: plan.seed,
        nodes: plan.cluster.nodes,
        ring: plan.cluster.ring.to_string(),
        time_s: plan.time.as_secs(),
        verdict: Verdict::Holds,
        judgement: Judgement::default(),
        recovered_ms: None,
        stats: Stats::default(),
        episodes: Vec::new(),
        calls: Vec::new(),
    };
    match possible(plan) {
        Err(why) => outcome.verdict = Verdict::Skipped(why),
        Ok(faults) => {
            if let Err(cause) = attempt(plan, faults, &mut outcome).await {
                let kept = plan.folder.display();
                outcome.verdict = Verdict::Failed(format!("{cause} (logs and history are in {kept})"));
            }
        }
    }
    outcome
}

/// The faults that can happen in this cluster.
///
/// # Errors
/// In words, if there are none of those that were asked for.
fn possible(plan: &Plan) -> Result<Vec<Fault>, String> {
    let wanted =
        nemesis::fault::find(&plan.nemesis).ok_or_else(|| format!("there is no nemesis {:?}", plan.nemesis))?;
    let cluster = &plan.cluster;
    let tiers = if cluster.ring.is_empty() { 0 } else { cluster.ring.tiers };
    let can = |fault: &Fault| {
        fault.nodes_min() <= cluster.nodes
            && (!fault.needs_network() || !cluster.loopback)
            && (!fault.needs_disks() || cluster.disks)
            && fault.tiers_min() <= tiers
    };
    let faults: Vec<Fault> = wanted.iter().copied().filter(can).collect();
    if cluster.ring.is_empty() && workload::needs_proxies(&plan.workload) {
        return Err("it needs proxies".into());
    }
    if faults.is_empty() && !wanted.is_empty() {
        let mut why = Vec::new();
        if wanted.iter().any(|fault| fault.needs_network()) && cluster.loopback {
            why.push("hosts of their own (network namespaces) are not permitted here");
        }
        if wanted.iter().any(|fault| fault.needs_disks()) && !cluster.disks {
            why.push("there is no FUSE here");
        }
        if wanted.iter().any(|fault| fault.nodes_min() > cluster.nodes) {
            why.push("it needs more members");
        }
        if wanted.iter().any(|fault| fault.tiers_min() > tiers) {
            why.push(if cluster.ring.is_empty() { "it needs proxies" } else { "it needs more tiers of proxies" });
        }
        return Err(why.join(", "));
    }
    Ok(faults)
}

async fn attempt(plan: &Plan, faults: Vec<Fault>, outcome: &mut Outcome) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(&plan.folder)?;
    let make = workload::find(&plan.workload).ok_or_else(|| format!("there is no workload {:?}", plan.workload))?;
    let workload = make();
    let needs_disks = faults.iter().any(|fault| fault.needs_disks());
    let cluster_plan = cluster::Plan { disks: needs_disks, ..plan.cluster.clone() };
    let mut cluster = Cluster::new(&cluster_plan, &plan.folder).await?;
    if let Err(cause) = serve(plan, &mut cluster).await {
        save_disks(&cluster, &plan.folder);
        return Err(cause);
    }
    let load = Arc::new(Load {
        clock: Clock::start(),
        calls: Log::default(),
        addresses: cluster.addresses(),
        proxies: cluster.proxy_addresses(),
        clients: plan.clients,
        keys: plan.keys,
        timeout: plan.timeout,
        random: Random::new(plan.seed),
        stale_reads: plan.stale_reads,
        stop: AtomicBool::new(false),
    });
    let names: Vec<String> = cluster.processes().map(|process| process.name.clone()).collect();
    let driven = drive(plan, &faults, &mut cluster, &workload, &load).await;
    if driven.is_err() || plan.keep {
        save_disks(&cluster, &plan.folder);
    }
    drop(cluster);
    outcome.calls = load.calls.take();
    outcome.stats = Stats::new(&outcome.calls);
    let folder = plan.folder.clone();
    let mut judgement = tokio::task::spawn_blocking(move || workload.judge(&folder)).await??;
    let Driven { account, anomalies, recovered } = driven?;
    outcome.recovered_ms = recovered.map(|recovered| recovered.as_millis() as u64);
    judgement.add(account.ended.iter().map(|ended| Finding::new("member ended by itself", ended)));
    judgement.add(account.failures.iter().map(|failure| Finding::new("operation failed", failure)));
    judgement.anomalies.extend(anomalies);
    judgement.notes.extend(account.notes);
    outcome.episodes = account.episodes;
    if let Some(median) = set_gaps(&mut outcome.episodes, &outcome.calls) {
        judgement.note(format!(
            "in half of {} faults clients were without an answer for less than {median} ms",
            outcome.episodes.len()
        ));
    }
    outcome.verdict = match &judgement {
        judgement if !judgement.anomalies.is_empty() => Verdict::Violation,
        judgement if !judgement.undecided.is_empty() => Verdict::Undecided,
        _ => Verdict::Holds,
    };
    outcome.judgement = judgement;
    if outcome.verdict == Verdict::Holds && !plan.keep {
        for name in names {
            fs::remove_dir_all(plan.folder.join(name))?;
        }
    }
    Ok(())
}

/// Starts the cluster and waits until every member and every proxy serves.
async fn serve(plan: &Plan, cluster: &mut Cluster) -> Result<(), Box<dyn Error>> {
    cluster.start_all().map_err(|cause| format!("cannot start {}: {cause}", plan.cluster.program.display()))?;
    if let Err(cause) = cluster.await_service(SERVICE_MAX).await {
        return Err(format!("the cluster did not come up: {cause} {}", cluster.take_ended().join("; ")).into());
    }
    Ok(())
}

/// Load and faults, until the cluster has had the chance to recover.
async fn drive(
    plan: &Plan,
    faults: &[Fault],
    cluster: &mut Cluster,
    workload: &Arc<dyn Workload>,
    load: &Arc<Load>,
) -> Result<Driven, Box<dyn Error>> {
    let mut tasks = Tasks::new();
    workload.clone().start(load, &mut tasks);
    // A short run has time for some faults alone: those of another workload shall be others.
    let random = Random::new(plan.seed).part(u64::MAX).named(&plan.workload);
    let mut account = nemesis::run(cluster, faults, plan.pace, plan.time, load.clock, random).await?;
    let mut anomalies = Vec::new();
    let recovered = match cluster.await_service(SERVICE_MAX).await {
        Ok(recovered) => Some(recovered),
        Err(cause) => {
            anomalies.push(Finding::new("no recovery", cause).at(load.clock.now_ns()));
            None
        }
    };
    tokio::time::sleep(AFTERMATH).await;
    load.stop.store(true, Relaxed);
    end_clients(&mut tasks, &mut anomalies).await?;
    if recovered.is_some() {
        if let Err(Nonsense(what)) = workload.finish(load).await {
            anomalies.push(Finding::new("nonsense", what));
        }
        anomalies.extend(agreement(cluster).await);
    }
    account.ended.extend(cluster.take_ended());
    Ok(Driven { account, anomalies, recovered })
}

async fn end_clients(tasks: &mut Tasks, anomalies: &mut Vec<Finding>) -> Result<(), Box<dyn Error>> {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(Nonsense(what)) = ended? {
                anomalies.push(Finding::new("nonsense", what));
            }
        }
        Ok::<(), Box<dyn Error>>(())
    };
    match tokio::time::timeout(END_MAX, all).await {
        Ok(ended) => ended,
        Err(_) => Err(format!("a client did not end within {} s", END_MAX.as_secs()).into()),
    }
}

/// Whether all members hold the same: the hash of all records at one revision.
async fn agreement(cluster: &Cluster) -> Option<Finding> {
    let mut last = String::new();
    // Members may be some entries behind each other at any moment.
    for _ in 0..50 {
        let mut hashes = Vec::new();
        let revision =
            cluster.admins[0].hash_kv(0).await.ok().and_then(|answer| answer.header).map(|header| header.revision);
        for (admin, member) in cluster.admins.iter().zip(&cluster.members) {
            match admin.hash_kv(revision.unwrap_or(0)).await {
                Ok(answer) => hashes.push((answer.hash, answer.compact_revision, member.process.name.clone())),
                Err(cause) => last = format!("{}: {cause}", member.process.name),
            }
        }
        let same = hashes.windows(2).all(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1));
        if same && hashes.len() == cluster.members.len() {
            return None;
        }
        if !same {
            let all: Vec<String> = hashes.iter().map(|(hash, _, name)| format!("{name} {hash:08x}")).collect();
            last = format!("at revision {}: {}", revision.unwrap_or(0), all.join(", "));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Some(Finding::new("members differ", format!("members do not hold the same after all faults ended: {last}")))
}

/// Copies what is on the disks next to them: a disk is gone once the run is over.
fn save_disks(cluster: &Cluster, folder: &Path) {
    for member in cluster.members.iter().filter(|_| !cluster.disks.is_empty()) {
        let to = folder.join(format!("{}-data", member.process.name));
        if let Err(cause) = copy(&member.process.data(), &to) {
            eprintln!("jepsen: {} could not be saved: {cause}", to.display());
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { copy(&entry.path(), &to)? } else { fs::copy(entry.path(), to).map(drop)? }
    }
    Ok(())
}
