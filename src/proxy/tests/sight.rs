//! What a proxy shows of itself, and who sees it.

use super::{
    super::*,
    front::{all_keys, proxy_listed, proxy_of, tiers},
};
use crate::{
    client::{Client, ConnectOptions, GetOptions, WatchOptions},
    pb::{
        etcdserverpb::{MemberListRequest, cluster_client::ClusterClient},
        henge::ring::{Identity, Listed, Source},
    },
    server::tests::{http, world},
};
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for what takes a few reports.
const PATIENCE: Duration = Duration::from_secs(20);

async fn client(url: &str) -> Client {
    Client::connect([url], ConnectOptions::default()).await.unwrap()
}

/// Waits for a list that `is_it`.
async fn until(url: &str, is_it: impl Fn(&[Listed]) -> bool) -> (Source, Vec<Listed>) {
    let client = client(url).await;
    let wait = async {
        loop {
            let (source, listed) = client.ring(false, 0).await.unwrap();
            if is_it(&listed) {
                return (source, listed);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("such a list in time")
}

fn identity(listed: &Listed) -> Identity {
    listed.proxy.clone().unwrap().identity.unwrap()
}

#[tokio::test]
async fn a_member_sees_the_whole_tree_below_it_and_a_proxy_sees_its_own() {
    let (world, near, far) = tiers().await;
    let has_both = |all: &[Listed]| {
        let tiers = all.iter().map(|one| identity(one).tier).collect::<Vec<_>>();
        let copies = all.iter().map(|one| one.proxy.clone().unwrap().state.unwrap().copies.len()).sum::<usize>();
        tiers.contains(&1) && tiers.contains(&2) && copies == 1
    };
    let (source, all) = until(&world.url, has_both).await;
    assert!(!source.is_proxy && source.id == crate::server::tests::ME.0);
    assert_eq!(all.len(), 2);
    let of = |url: &String| all.iter().find(|one| identity(one).urls.contains(url)).unwrap();
    let (of_near, of_far) = (of(&near.url), of(&far.url));
    assert_eq!((identity(of_near).tier, identity(of_near).upstream_id), (1, source.id));
    assert_eq!((identity(of_far).tier, identity(of_far).upstream_id), (2, of_near.proxy.as_ref().unwrap().id));
    assert_eq!(identity(of_far).upstream, near.url);
    let copy = of_far.proxy.as_ref().unwrap().state.as_ref().unwrap().copies[0].clone();
    assert_eq!((&copy.key[..], &copy.range_end[..], copy.lag), (&[0][..], &[0][..], 0));
    assert!(copy.revision > 0);

    let (source, all) = until(&near.url, has_both).await;
    assert!(source.is_proxy && all.len() == 2);
    let (_, all) = until(&far.url, |all| all.len() == 1).await;
    assert_eq!(identity(&all[0]).tier, 2);
    // The question can be passed on to the core.
    let (source, _) = client(&far.url).await.ring(true, 0).await.unwrap();
    assert!(!source.is_proxy);

    // Who leaves in order is gone, for all above it.
    far.ring.stop();
    until(&world.url, |all| all.len() == 1).await;
}

#[tokio::test]
async fn who_is_gone_without_a_word_is_lost_for_all_above_it() {
    let (world, _near, far) = tiers().await;
    let is_there = |all: &[Listed]| all.len() == 2;
    until(&world.url, is_there).await;
    let id = far.ring.shared.sight.roster().id();
    drop(far);
    let is_lost = |all: &[Listed]| {
        let lost = all.iter().filter_map(|one| one.proxy.as_ref()).filter(|proxy| proxy.is_lost);
        lost.map(|proxy| proxy.id).eq([id])
    };
    until(&world.url, is_lost).await;
}

#[tokio::test]
async fn clients_watchers_and_reads_are_counted() {
    let (_world, _near, far) = tiers().await;
    let client = client(&far.url).await;
    let mut watcher = client.watch("a", WatchOptions::default());
    assert!(watcher.next().await.unwrap().unwrap().created);
    // The copy begins when it begins; until then reads pass through.
    let state = async || client.ring(false, 0).await.unwrap().1[0].proxy.clone().unwrap().state.unwrap();
    timeout(PATIENCE, async {
        while state().await.hits == 0 {
            client.get("a", GetOptions::default()).await.unwrap();
        }
    })
    .await
    .unwrap();
    let now = state().await;
    // The connection of the test's own, and that of the client.
    assert_eq!((now.clients, now.watches), (2, 1));
    assert_eq!((now.hits, now.copies[0].hits), (1, 1));
    assert!(now.fences > 0 && now.bytes > 0);
    let (status, text) = http(&far.url, "GET", "/proxy/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("\nhenge_proxy_watchers 1\n"), "{text}");
    drop(watcher);
    timeout(PATIENCE, async {
        while state().await.watches != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the watcher is gone");
}

#[tokio::test]
async fn a_proxy_that_was_told_its_address_lists_itself_and_shows_the_core_to_who_asks_for_it() {
    let world = world().await;
    let listener = Listener::bind("http://127.0.0.1:0").await.unwrap();
    let proxy = proxy_listed(listener, &world.url, all_keys(), true).await;
    let behind = proxy_of(&proxy.url, Settings::default()).await;
    for channel in [&proxy.channel, &behind.channel] {
        let request = MemberListRequest { linearizable: true };
        let answer = ClusterClient::new(channel.clone()).member_list(request).await.unwrap();
        assert!(answer.metadata().contains_key(VIA));
        let members = answer.into_inner().members;
        assert_eq!(members.len(), 1);
        assert_eq!(
            (members[0].id, &members[0].name[..], &members[0].client_ur_ls),
            (0, "proxy", &vec![proxy.url.clone()])
        );
    }
    let direct = client(&world.url).await.member_list(true).await.unwrap().members;
    for url in [&proxy.url, &behind.url] {
        let client = client(url).await;
        assert_eq!(client.member_list(true).await.unwrap().members, direct, "the core's");
        client.sync_endpoints().await.unwrap();
        assert_eq!(
            client.endpoints().addresses(),
            std::slice::from_ref(&proxy.url),
            "a client that follows the list stays"
        );
    }
}
