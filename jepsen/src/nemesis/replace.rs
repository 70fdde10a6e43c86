//! A member leaves for good and comes back with an empty disk: removed, added as a learner, caught up, promoted.

use super::Account;
use crate::{cluster::Cluster, random::Random};
use henge::pb::etcdserverpb::{
    MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest, cluster_client::ClusterClient,
};
use std::{
    io,
    time::{Duration, Instant},
};

/// What a step does, and how the members refuse it once it is done.
type Step = (&'static str, &'static str);

const REMOVE: Step = ("remove it", "etcdserver: member not found");
const ADD: Step = ("add it as a learner", "etcdserver: Peer URLs already exists");
const PROMOTE: Step = ("promote it", "etcdserver: can only promote a learner member");

type Admin = ClusterClient<tonic::transport::Channel>;

/// Longest time for one step. Members refuse changes for some seconds after a fault.
const STEP_MAX: Duration = Duration::from_secs(30);
/// Longest time for one call.
const CALL_MAX: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(200);

/// Replaces one member. Returns what happened, in words; a change that is not made in time goes to `account`.
///
/// # Errors
/// If the system refuses.
pub async fn replace(cluster: &mut Cluster, random: &mut Random, account: &mut Account) -> io::Result<String> {
    let victim = random.below(cluster.members.len() as u64) as usize;
    let name = cluster.members[victim].process.name.clone();
    let Some(id) = cluster.id(victim).await else {
        return Ok(format!("{name} was to be replaced but does not answer"));
    };
    let mut what = format!("replace {name}");
    let removed = step(cluster, victim, REMOVE, async |mut admin: Admin| {
        admin.member_remove(MemberRemoveRequest { id }).await.map(drop)
    });
    if let Err(cause) = removed.await {
        account.failures.push(format!("{name}: {cause}"));
        return Ok(what);
    }
    // It may have ended by itself: it was told that it is removed.
    cluster.kill(victim)?;
    let peer_url = cluster.members[victim].peer_url.clone();
    let added = step(cluster, victim, ADD, async |mut admin: Admin| {
        let request = MemberAddRequest { peer_ur_ls: vec![peer_url.clone()], is_learner: true };
        admin.member_add(request).await.map(drop)
    });
    if let Err(cause) = added.await {
        account.failures.push(format!("{name}: {cause}"));
    }
    cluster.start_empty(victim)?;
    let started = Instant::now();
    let promoted = match new_id(cluster, victim, &peer_url).await {
        Err(cause) => Err(cause),
        Ok(id) => {
            let ask = async |mut admin: Admin| admin.member_promote(MemberPromoteRequest { id }).await.map(drop);
            step(cluster, victim, PROMOTE, ask).await
        }
    };
    match promoted {
        Err(cause) => account.failures.push(format!("{name}: {cause}")),
        Ok(()) => what.push_str(&format!(": a voter again {} ms after its start", started.elapsed().as_millis())),
    }
    Ok(what)
}

/// Asks one member after the other, all but the one it is about, until one of them has done it.
///
/// # Errors
/// The last refusal, in words, once [`STEP_MAX`] is over.
async fn step(
    cluster: &Cluster,
    victim: usize,
    (what, done): Step,
    ask: impl AsyncFn(Admin) -> Result<(), tonic::Status>,
) -> Result<(), String> {
    let start = Instant::now();
    let mut last = String::new();
    for at in (0..cluster.admins.len()).cycle().filter(|at| *at != victim) {
        let (_, channel) = cluster.admins[at].endpoints().pick();
        match tokio::time::timeout(CALL_MAX, ask(ClusterClient::new(channel))).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(status)) => {
                // At a later try this is the trace of an earlier one whose answer was lost.
                if !last.is_empty() && status.message() == done {
                    return Ok(());
                }
                last = status.message().to_string();
            }
            Err(_) => last = "no answer".into(),
        }
        if start.elapsed() > STEP_MAX {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("could not {what} within {} s: {last}", STEP_MAX.as_secs()))
}

/// The id that the cluster gave to the member at `peer_url`.
async fn new_id(cluster: &Cluster, victim: usize, peer_url: &str) -> Result<u64, String> {
    let start = Instant::now();
    while start.elapsed() < STEP_MAX {
        for (_, admin) in cluster.admins.iter().enumerate().filter(|(at, _)| *at != victim) {
            let Ok(list) = admin.member_list(true).await else { continue };
            let found = list.members.iter().find(|member| member.peer_ur_ls.iter().any(|url| url == peer_url));
            if let Some(member) = found {
                return Ok(member.id);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err("the cluster does not list the new member".into())
}
