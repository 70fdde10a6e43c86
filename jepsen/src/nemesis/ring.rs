//! What goes wrong with proxies, and between them and what stands behind them.

use super::{
    Account,
    fault::{Link, Share},
    inject::{FLAP, SERVE_MAX, STOP_MAX, apart},
};
use crate::{
    cluster::{Cluster, network::Cuts},
    random::Random,
};
use std::{
    io,
    time::{Duration, Instant},
};

/// Kills proxies; with `wipe` what they have on disk goes as well.
///
/// # Errors
/// If the system refuses.
pub fn kill(cluster: &mut Cluster, share: Share, wipe: bool, random: &mut Random) -> io::Result<String> {
    let victims = choose(cluster, share, random);
    for at in &victims {
        let proxy = &mut cluster.proxies[*at];
        proxy.process.kill()?;
        if wipe {
            proxy.wipe()?;
        }
    }
    // Sometimes back at once, sometimes after their clients have noticed.
    if random.below(3) == 0 {
        cluster.start_proxies()?;
    }
    let what = if wipe { ", and what they had on disk is gone" } else { "" };
    Ok(format!("kill {}{what}", names(cluster, &victims)))
}

/// Pauses proxies.
///
/// # Errors
/// If the system refuses.
pub fn pause(cluster: &Cluster, share: Share, random: &mut Random) -> io::Result<String> {
    let victims = choose(cluster, share, random);
    for at in &victims {
        cluster.proxies[*at].process.pause(true)?;
    }
    Ok(format!("pause {}", names(cluster, &victims)))
}

/// Kills all proxies and starts them again where they reach no member.
///
/// # Errors
/// If the system refuses.
pub fn orphan(cluster: &mut Cluster) -> io::Result<String> {
    let hosts = Hosts::of(cluster);
    set(cluster, &apart(&hosts.members, &hosts.tiers.concat()))?;
    for proxy in &mut cluster.proxies {
        proxy.process.kill()?;
    }
    cluster.start_proxies()?;
    Ok("all proxies start without their upstream".into())
}

/// Stops and starts each proxy, and waits for each until it serves again.
///
/// # Errors
/// If the system refuses.
pub async fn roll(cluster: &mut Cluster, account: &mut Account) -> io::Result<String> {
    for at in 0..cluster.proxies.len() {
        if let Some(trouble) = cluster.proxies[at].process.stop(STOP_MAX).await? {
            account.failures.push(trouble);
        }
        cluster.start_proxies()?;
        if let Err(cause) = cluster.await_proxy(at, SERVE_MAX).await {
            account.failures.push(format!("rolling restart of proxies: {cause}"));
        }
    }
    Ok("rolling restart of proxies".into())
}

/// Cuts links of proxies to what stands behind them.
///
/// # Errors
/// If the system refuses.
pub async fn cut(cluster: &Cluster, link: Link, hold: Duration, random: &mut Random) -> io::Result<String> {
    let hosts = Hosts::of(cluster);
    if link == Link::Flapping {
        return flap(cluster, &hosts, hold, random).await;
    }
    let (cuts, what) = hosts.cuts(link, random);
    set(cluster, &cuts)?;
    Ok(what)
}

/// What is left of `hold` is spent by the caller.
async fn flap(cluster: &Cluster, hosts: &Hosts, hold: Duration, random: &mut Random) -> io::Result<String> {
    let at = random.below(cluster.proxies.len() as u64) as usize;
    let (proxy, end) = (&cluster.proxies[at], Instant::now() + hold);
    let upstream = proxy.tier.checked_sub(1).map_or(&hosts.members, |before| &hosts.tiers[before]);
    let mut flaps = 0;
    while Instant::now() + FLAP * 2 < end {
        set(cluster, &apart(&[hosts.members.len() + at], upstream))?;
        tokio::time::sleep(FLAP).await;
        set(cluster, &Cuts::new())?;
        tokio::time::sleep(FLAP / 2).await;
        flaps += 1;
    }
    Ok(format!("links of {} flapped {flaps} times", proxy.process.name))
}

fn set(cluster: &Cluster, cuts: &Cuts) -> io::Result<()> {
    let network = cluster.network.as_ref().ok_or_else(|| io::Error::other("there are no hosts to part"))?;
    network.set(cuts, 0)
}

fn choose(cluster: &Cluster, share: Share, random: &mut Random) -> Vec<usize> {
    match share {
        Share::One => vec![random.below(cluster.proxies.len() as u64) as usize],
        Share::All => (0..cluster.proxies.len()).collect(),
    }
}

/// `p1.1, p2.1`.
fn names(cluster: &Cluster, proxies: &[usize]) -> String {
    proxies.iter().map(|at| cluster.proxies[*at].process.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Who is on which host.
struct Hosts {
    members: Vec<usize>,
    tiers: Vec<Vec<usize>>,
}

impl Hosts {
    fn of(cluster: &Cluster) -> Hosts {
        let members = cluster.members.len();
        let mut tiers = Vec::new();
        for (at, proxy) in cluster.proxies.iter().enumerate() {
            tiers.resize(tiers.len().max(proxy.tier + 1), Vec::new());
            tiers[proxy.tier].push(members + at);
        }
        Hosts { members: (0..members).collect(), tiers }
    }

    /// What `link` cuts, and how that is told. Flapping is not one cut, and cuts nothing here.
    fn cuts(&self, link: Link, random: &mut Random) -> (Cuts, String) {
        let first = self.tiers.first().map_or(&[][..], Vec::as_slice);
        match link {
            Link::Core => (apart(&self.members, first), "proxies | members".into()),
            Link::CoreOneWay => {
                let deaf = random.below(2) == 0;
                let what = if deaf { "proxies hear no member" } else { "no member hears a proxy" };
                (one_way(apart(&self.members, first), first, deaf), what.into())
            }
            Link::Members => {
                let cuts = first.iter().flat_map(|proxy| {
                    // At least one is left to each, and one is missed by each.
                    let count = 1 + random.below(self.members.len() as u64 - 1) as usize;
                    let order = random.shuffled(self.members.len());
                    apart(&order[..count], &[*proxy])
                });
                (cuts.collect(), "each proxy is without some members".into())
            }
            Link::Tiers => {
                let [.., before, last] = self.tiers.as_slice() else { return (Cuts::new(), "no tiers".into()) };
                let some = &last[random.below(last.len() as u64) as usize..];
                let cuts = apart(before, some);
                match random.below(3) {
                    0 => (one_way(cuts, some, true), format!("{} of the last tier hear nobody", some.len())),
                    1 => (one_way(cuts, some, false), format!("{} of the last tier are heard by nobody", some.len())),
                    _ => (cuts, format!("{} of the last tier | tier before", some.len())),
                }
            }
            Link::Flapping => (Cuts::new(), "nothing".into()),
        }
    }
}

/// Of `cuts` only those by which `proxies` hear nobody (`deaf`), or are heard by nobody.
fn one_way(cuts: Cuts, proxies: &[usize], deaf: bool) -> Cuts {
    cuts.into_iter().filter(|(from, to)| proxies.contains(if deaf { to } else { from })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three members, and two tiers of two proxies.
    fn hosts() -> Hosts {
        Hosts { members: vec![0, 1, 2], tiers: vec![vec![3, 4], vec![5, 6]] }
    }

    fn cuts(link: Link) -> impl Iterator<Item = Cuts> {
        (0..50).map(move |seed| hosts().cuts(link, &mut Random::new(seed)).0)
    }

    #[test]
    fn the_core_is_out_of_reach_for_the_first_tier_alone() {
        let core = cuts(Link::Core).next().expect("there are fifty");
        assert_eq!(core.len(), 2 * 3 * 2);
        assert!(core.iter().all(|(from, to)| [*from, *to].iter().all(|host| *host < 5)));
    }

    #[test]
    fn one_way_is_one_way_whichever_it_is() {
        let seen: std::collections::BTreeSet<Cuts> = cuts(Link::CoreOneWay).collect();
        assert_eq!(seen.len(), 2);
        for cuts in seen {
            assert_eq!(cuts.len(), 6);
            assert!(cuts.iter().all(|(from, to)| !cuts.contains(&(*to, *from))));
        }
    }

    #[test]
    fn each_proxy_misses_some_members_and_never_all() {
        for cuts in cuts(Link::Members) {
            for proxy in [3, 4] {
                let missed = (0..3).filter(|member| cuts.contains(&(*member, proxy))).count();
                assert!((1..=2).contains(&missed), "{cuts:?}");
                assert!((0..3).all(|member| cuts.contains(&(member, proxy)) == cuts.contains(&(proxy, member))));
            }
        }
    }

    #[test]
    fn tiers_are_parted_in_one_direction_or_both_and_members_stay_in_reach() {
        let seen: std::collections::BTreeSet<Cuts> = cuts(Link::Tiers).collect();
        assert_eq!(seen.len(), 2 * 3);
        for cuts in seen {
            assert!(!cuts.is_empty());
            assert!(cuts.iter().all(|(from, to)| (*from < 5) != (*to < 5) && *from > 2 && *to > 2), "{cuts:?}");
        }
    }
}
