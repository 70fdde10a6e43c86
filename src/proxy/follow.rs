//! Where the core's members are: asked now and then, and believed only as far as it could be tried.
//!
//! A member may advertise what leads nowhere from here, or to somebody else: `http://localhost:2379` leads to this proxy itself if it
//! listens there. So each address is tried, and taken only if the member that was listed for it answers.

use super::{Upstream, VIA, source::own};
use crate::{
    client::endpoints::endpoint,
    pb::etcdserverpb::{
        Member, MemberListRequest, StatusRequest, cluster_client::ClusterClient, maintenance_client::MaintenanceClient,
    },
    runtime,
    types::Term,
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

/// Between two looks, by chance down to half of it.
const INTERVAL: Duration = Duration::from_secs(30);
/// Before the first look, by chance down to nothing: proxies that start together must not all ask at once.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Addresses that are tried at most.
const ADDRESSES_MAX: usize = 64;
/// How much farther than the nearest member the one that is asked now may be, besides twice as far.
const NEAR_ENOUGH: Duration = Duration::from_millis(1);

/// Follows the members of `upstream` for as long as somebody else holds it.
pub(super) fn start(upstream: &Upstream) {
    let upstream = upstream.downgrade();
    runtime::spawn(async move {
        let mut verified = BTreeSet::new();
        let mut pause = FIRST_AFTER.mul_f64(runtime::chance(0.0..1.0));
        loop {
            sleep(pause).await;
            let Some(upstream) = Upstream::upgrade(&upstream) else { return };
            look(&upstream, &mut verified).await;
            pause = INTERVAL.mul_f64(runtime::chance(0.5..1.0));
        }
    });
}

/// What one address says of its cluster.
struct Listing {
    cluster: u64,
    member: u64,
    is_proxy: bool,
    members: Vec<Member>,
}

/// Looks once. `verified` are the addresses at which a member answered once; one that is down now is not forgotten.
async fn look(upstream: &Upstream, verified: &mut BTreeSet<String>) {
    for _ in 0..upstream.len() {
        let (turn, channel) = upstream.pick();
        match list(upstream, channel).await {
            // A proxy lists members that are its own business: whoever put this one behind it wanted a tree.
            Ok(listing) if listing.is_proxy => return,
            Ok(listing) => {
                let reached = take(upstream, &upstream.address(turn), listing, verified).await;
                return find_lead(upstream, &reached).await;
            }
            Err(error) => {
                tracing::debug!(upstream = upstream.address(turn), error, "no list of members");
                upstream.leave(turn);
            }
        }
    }
    // Nobody answers: what people named may be right again, whatever was learnt since.
    let mut all = upstream.addresses();
    all.extend(upstream.given().iter().filter(|address| !all.contains(address)).cloned().collect::<Vec<_>>());
    if let Err(error) = upstream.replace(&all, "") {
        tracing::debug!(%error, "the addresses stay");
    }
}

/// Which member leads, and in which term.
async fn leader(upstream: &Upstream) -> Option<(u64, Term)> {
    let mut client = MaintenanceClient::new(upstream.pick().1);
    let request = own(upstream, StatusRequest {});
    let answer = timeout(ANSWER_MAX, client.status(request)).await.ok()?.ok()?.into_inner();
    Some((answer.leader, Term(answer.raft_term))).filter(|(leader, _)| *leader != 0)
}

async fn list(upstream: &Upstream, channel: Channel) -> Result<Listing, String> {
    // Not linearizable: a member without a leader still knows where the others are.
    let request = own(upstream, MemberListRequest { linearizable: false });
    let mut client = ClusterClient::new(channel);
    let answer = timeout(ANSWER_MAX, client.member_list(request)).await;
    let answer = answer.map_err(|_| "no answer in time".to_owned())?.map_err(|status| status.message().to_owned())?;
    let is_proxy = answer.metadata().contains_key(VIA);
    let answer = answer.into_inner();
    let header = answer.header.unwrap_or_default();
    Ok(Listing { cluster: header.cluster_id, member: header.member_id, is_proxy, members: answer.members })
}

/// A member that answered where it was listed: how far away, at which address, and which.
type Reached = (Duration, String, u64);

/// Notes where the leader is, if it is one of `reached`.
async fn find_lead(upstream: &Upstream, reached: &[Reached]) {
    if let Some((leader, term)) = leader(upstream).await
        && let Some((_, address, _)) = reached.iter().filter(|(_, _, member)| *member == leader).min()
    {
        upstream.set_lead(term, address);
    }
}

/// Goes on with the addresses of `listing` that lead to its members; `asked` gave it. Returns those who answered.
async fn take(upstream: &Upstream, asked: &str, listing: Listing, verified: &mut BTreeSet<String>) -> Vec<Reached> {
    let serving = listing.members.iter().filter(|member| !member.name.is_empty() && !member.is_learner);
    let listed =
        serving.flat_map(|member| member.client_ur_ls.iter().map(|url| (member.id, super::upstream::spelled(url))));
    // What was to be said with TLS alone is not said without it because a member advertises that.
    let listed = listed.filter(|(_, address)| !upstream.is_secure() || address.starts_with("https://"));
    let listed = listed.take(ADDRESSES_MAX).collect::<Vec<_>>();
    let trials = listed.clone().into_iter().map(|(member, address)| {
        let (endpoint, upstream) = (endpoint(&address, upstream.options()), upstream.clone());
        runtime::spawn(async move {
            let started = Instant::now();
            let channel = timeout(ANSWER_MAX, endpoint.ok()?.connect()).await.ok()?.ok()?;
            let away = started.elapsed();
            let answer = list(&upstream, channel).await.ok()?;
            let is_it = !answer.is_proxy && (answer.cluster, answer.member) == (listing.cluster, member);
            is_it.then_some((away, address, member))
        })
    });
    let mut reached = Vec::new();
    for trial in trials.collect::<Vec<_>>() {
        reached.extend(trial.await.ok().flatten());
    }
    // Nothing that leads anywhere: the addresses that people named do.
    let Some((nearest_away, nearest, _)) = reached.iter().min().cloned() else { return reached };
    verified.extend(reached.iter().map(|(_, address, _)| address.clone()));
    verified.retain(|address| listed.iter().any(|(_, listed)| listed == address));
    let here = reached.iter().find(|(_, address, _)| address == asked);
    let stays = here.is_some_and(|(away, ..)| *away <= nearest_away * 2 + NEAR_ENOUGH);
    let preferred = if stays { asked.to_owned() } else { nearest };
    let addresses = verified.iter().cloned().collect::<Vec<_>>();
    let mut known = upstream.addresses();
    known.sort();
    if known == addresses && stays {
        return reached;
    }
    match upstream.replace(&addresses, &preferred) {
        Ok(()) => tracing::info!(?addresses, preferred, "the members of upstream"),
        Err(error) => tracing::debug!(%error, "the addresses stay"),
    }
    reached
}
