//! Makes one fault happen and holds it. Undoing it is the cluster's business: [`Cluster::heal`].

use super::{
    Account,
    fault::{Fault, Shape, Target},
    replace, ring,
};
use crate::{
    cluster::{Cluster, network::Cuts},
    disk::Trouble,
    random::Random,
};
use std::{
    io,
    time::{Duration, Instant},
};

/// How long a sync takes on a slow disk.
const SLOW_SYNC: Duration = Duration::from_millis(150);
/// A flapping link is down so long, and up for half of it.
pub const FLAP: Duration = Duration::from_millis(300);
/// Longest time for a member to stop when it is asked to.
pub const STOP_MAX: Duration = Duration::from_secs(5);
/// Longest time for a member to serve after a start, with nothing else wrong.
pub const SERVE_MAX: Duration = Duration::from_secs(20);

/// Makes `fault` happen for `hold`. Returns what happened, in words.
///
/// # Errors
/// If the system refuses.
pub async fn inject(
    cluster: &mut Cluster,
    fault: Fault,
    hold: Duration,
    random: &mut Random,
    account: &mut Account,
) -> io::Result<String> {
    let what = match fault {
        Fault::Kill(target) => {
            let victims = choose(cluster, target, random).await;
            for at in &victims {
                cluster.kill(*at)?;
            }
            // Sometimes back at once, sometimes after everybody has noticed.
            if random.below(4) == 0 {
                cluster.start_all()?;
            }
            format!("kill {}", names(&victims))
        }
        Fault::Pause(target) => {
            let victims = choose(cluster, target, random).await;
            for at in &victims {
                cluster.members[*at].process.pause(true)?;
            }
            format!("pause {}", names(&victims))
        }
        Fault::Partition(shape) => partition(cluster, shape, hold, random).await?,
        Fault::Network => {
            let (loss, rate) = (2 + random.below(10) as u8, 500 + random.below(4000) as u32);
            if let Some(network) = &cluster.network {
                network.set(&Cuts::new(), loss)?;
                for at in 0..cluster.members.len() + cluster.proxies.len() {
                    network.limit(at, Some(rate))?;
                }
            }
            format!("network loses {loss} %, {rate} kbit/s a host")
        }
        Fault::DiskFull(target) => disk(cluster, target, Trouble::Full, "full disk", random).await,
        Fault::DiskSlow(target) => disk(cluster, target, Trouble::SlowSync(SLOW_SYNC), "slow disk", random).await,
        Fault::DiskHang(target) => disk(cluster, target, Trouble::Hang, "hanging disk", random).await,
        Fault::Power(target) => power(cluster, target, random).await?,
        Fault::Roll => return roll(cluster, account).await,
        Fault::Replace => {
            let started = Instant::now();
            let what = replace::replace(cluster, random, account).await?;
            tokio::time::sleep(hold.saturating_sub(started.elapsed())).await;
            return Ok(what);
        }
        Fault::ProxyKill(share) => ring::kill(cluster, share, false, random)?,
        Fault::ProxyWipe(share) => ring::kill(cluster, share, true, random)?,
        Fault::ProxyPause(share) => ring::pause(cluster, share, random)?,
        Fault::ProxyCut(link) => ring::cut(cluster, link, hold, random).await?,
        Fault::ProxyOrphan => ring::orphan(cluster)?,
        Fault::ProxyRoll => return ring::roll(cluster, account).await,
    };
    tokio::time::sleep(hold).await;
    Ok(what)
}

/// `m1, m3`.
fn names(members: &[usize]) -> String {
    members.iter().map(|at| format!("m{}", at + 1)).collect::<Vec<_>>().join(", ")
}

async fn choose(cluster: &Cluster, target: Target, random: &mut Random) -> Vec<usize> {
    let nodes = cluster.members.len();
    let mut order = random.shuffled(nodes);
    let count = match target {
        Target::One => 1,
        Target::Leader => return vec![cluster.leader().await.unwrap_or(order[0])],
        Target::Minority => (nodes - 1) / 2,
        Target::Majority => nodes / 2 + 1,
        Target::All => nodes,
    };
    // A single member has no minority; something should happen all the same.
    order.truncate(count.max(1));
    order.sort_unstable();
    order
}

async fn disk(cluster: &Cluster, target: Target, trouble: Trouble, what: &str, random: &mut Random) -> String {
    let victims = choose(cluster, target, random).await;
    for at in &victims {
        cluster.disks[*at].set(trouble);
    }
    format!("{what} at {}", names(&victims))
}

async fn power(cluster: &mut Cluster, target: Target, random: &mut Random) -> io::Result<String> {
    let victims = choose(cluster, target, random).await;
    for at in &victims {
        cluster.kill(*at)?;
    }
    let torn = random.below(2) == 0;
    let mut lost = 0;
    for at in &victims {
        lost += cluster.disks[*at].power_cut(torn.then_some(&mut *random))?;
    }
    if random.below(2) == 0 {
        cluster.start_all()?;
    }
    let how = if torn { ", some of it torn" } else { "" };
    Ok(format!("power cut at {}: {lost} files and folders lost unsynced changes{how}", names(&victims)))
}

/// Stops and starts each member, the leader last, and waits for each until it serves again.
async fn roll(cluster: &mut Cluster, account: &mut Account) -> io::Result<String> {
    let mut order: Vec<usize> = (0..cluster.members.len()).collect();
    let leader = cluster.leader().await;
    order.sort_by_key(|at| Some(*at) == leader);
    for at in &order {
        if let Some(trouble) = cluster.members[*at].process.stop(STOP_MAX).await? {
            account.notes.push(trouble);
        }
        cluster.start_all()?;
        if let Err(cause) = cluster.await_member(*at, SERVE_MAX).await {
            account.failures.push(format!("rolling restart: {cause}"));
        }
    }
    Ok(format!("rolling restart {}", names(&order)))
}

async fn partition(cluster: &Cluster, shape: Shape, hold: Duration, random: &mut Random) -> io::Result<String> {
    let Some(network) = &cluster.network else { return Err(io::Error::other("there are no hosts to part")) };
    let nodes = cluster.members.len();
    let order = random.shuffled(nodes);
    let leader = cluster.leader().await.unwrap_or(order[0]);
    match shape {
        Shape::Halves => {
            let (small, large) = order.split_at(nodes / 2);
            network.set(&apart(small, large), 0)?;
            Ok(format!("partition {} | {}", names(small), names(large)))
        }
        Shape::Leader => {
            network.set(&alone(leader, nodes), 0)?;
            Ok(format!("partition {} | rest", names(&[leader])))
        }
        Shape::Ring => {
            network.set(&ring(&order), 0)?;
            Ok(format!("majorities ring {}", names(&order)))
        }
        Shape::OneWay => {
            let deaf = random.below(2) == 0;
            let others = (0..nodes).filter(|at| *at != leader);
            let cuts = others.map(|at| if deaf { (at, leader) } else { (leader, at) }).collect();
            network.set(&cuts, 0)?;
            Ok(format!("{} {}", names(&[leader]), if deaf { "hears nobody" } else { "is heard by nobody" }))
        }
        Shape::Bridge => {
            let (between, rest) = order.split_first().expect("a cluster has members");
            let (one, other) = rest.split_at(rest.len() / 2);
            network.set(&apart(one, other), 0)?;
            Ok(format!("partition {} | {} with {} between", names(one), names(other), names(&[*between])))
        }
        Shape::Flapping => {
            let end = Instant::now() + hold;
            let mut flaps = 0;
            // What is left of the hold is spent by the caller.
            while Instant::now() + FLAP * 2 < end {
                network.set(&alone(leader, nodes), 0)?;
                tokio::time::sleep(FLAP).await;
                network.set(&Cuts::new(), 0)?;
                tokio::time::sleep(FLAP / 2).await;
                flaps += 1;
            }
            Ok(format!("links of {} flapped {flaps} times", names(&[leader])))
        }
    }
}

/// No host of one group hears one of the other.
pub fn apart(one: &[usize], other: &[usize]) -> Cuts {
    one.iter().flat_map(|a| other.iter().flat_map(move |b| [(*a, *b), (*b, *a)])).collect()
}

fn alone(member: usize, nodes: usize) -> Cuts {
    let others: Vec<usize> = (0..nodes).filter(|at| *at != member).collect();
    apart(&[member], &others)
}

/// Members in a ring, each of which hears only its nearest neighbours, just enough for a majority with itself.
fn ring(order: &[usize]) -> Cuts {
    let nodes = order.len();
    let reach = (nodes / 2).div_ceil(2);
    let mut cuts = Cuts::new();
    for one in 0..nodes {
        for other in 0..nodes {
            let distance = one.abs_diff(other);
            if distance.min(nodes - distance) > reach {
                cuts.insert((order[one], order[other]));
            }
        }
    }
    // In a ring of three everybody hears everybody; one link less makes each pair see a different world.
    if cuts.is_empty() && nodes >= 3 {
        cuts = apart(&order[..1], &order[1..2]);
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(cuts: &Cuts, nodes: usize, member: usize) -> Vec<usize> {
        (0..nodes).filter(|from| !cuts.contains(&(*from, member))).collect()
    }

    #[test]
    fn in_the_ring_everybody_hears_a_majority_and_no_two_the_same() {
        let order = [0, 1, 2, 3, 4];
        let cuts = ring(&order);
        let worlds: Vec<Vec<usize>> = order.iter().map(|at| hears(&cuts, 5, *at)).collect();
        assert!(worlds.iter().all(|world| world.len() == 3));
        assert!((0..5).all(|a| (0..a).all(|b| worlds[a] != worlds[b])));
        let cuts = ring(&[0, 1, 2]);
        assert!((0..3).all(|at| hears(&cuts, 3, at).len() >= 2) && !cuts.is_empty());
    }

    #[test]
    fn groups_are_apart_in_both_directions_and_whole_inside() {
        let cuts = apart(&[0, 1], &[2]);
        assert_eq!(hears(&cuts, 3, 0), [0, 1]);
        assert_eq!(hears(&cuts, 3, 2), [2]);
        assert_eq!(hears(&alone(1, 3), 3, 1), [1]);
    }
}
