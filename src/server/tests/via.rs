//! What stands between the clients and the member: nothing, or the proxies that `HENGE_VIA` names, from the member outwards. `proxy` is one
//! as it comes, `copy` one that copies all keys; it is waited for until it answers from its copy.

use super::*;
use crate::{
    client::ConnectOptions,
    proxy::{self, Hunger, Own, Ring, Upstream, WatchSettings},
    types::KeyRange,
};
use tonic::metadata::MetadataMap;

/// One that serves, as long as it is there.
pub(super) struct Proxy {
    _ring: Ring,
    _serving: Serving,
}

/// Puts the proxies before `world`, with what `settings` say of clients.
pub(super) async fn before(mut world: World, settings: Settings) -> World {
    let words = std::env::var("HENGE_VIA").unwrap_or_default();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let copies = match word {
            "proxy" => Vec::new(),
            "copy" => vec![KeyRange::prefix(Bytes::new())],
            other => panic!("HENGE_VIA has {other:?}, which is neither `proxy` nor `copy`"),
        };
        // Of a member that lets nobody in there is no copy.
        let is_copying = !copies.is_empty() && settings.bounds.calls_max > 0;
        let copies = proxy::Settings { ranges: copies, hunger: Some(Hunger::default()), ..proxy::Settings::default() };
        let watch = WatchSettings {
            progress_interval: settings.watch_progress_interval,
            leaderless_max: settings.leaderless_max,
            ..WatchSettings::default()
        };
        let listener = Listener::bind("http://127.0.0.1:0").await.unwrap();
        let own =
            Own { name: word.to_owned(), urls: vec![listener.url()], is_listed: false, resolver: None, standby: None };
        let upstream = Upstream::new(&[world.url], ConnectOptions::default()).unwrap();
        let ring = Ring::with(upstream, own, copies, watch).unwrap();
        world.url = listener.url();
        let serving = ring.serve(vec![listener], &ConnectionSettings::default());
        world.channel = Channel::from_shared(world.url.clone()).unwrap().connect().await.unwrap();
        world.proxies.push(Proxy { _ring: ring, _serving: serving });
        if is_copying {
            while !is_from_copy(&read_now(&world).await) {
                tokio::task::yield_now().await;
            }
        }
    }
    world
}

fn is_from_copy(said: &MetadataMap) -> bool {
    said.get("henge-served-by").is_some_and(|by| by == "copy")
}

async fn read_now(world: &World) -> MetadataMap {
    let read = pb::RangeRequest { serializable: true, ..range("k", "") };
    world.kv().range(read).await.unwrap().metadata().clone()
}
