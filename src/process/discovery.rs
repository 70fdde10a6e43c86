//! The members to bootstrap with, from DNS.

use crate::{
    config::{Config, DiscoverySrv, Url},
    dns::Dns,
};
use std::{collections::HashSet, net::SocketAddr};

/// Services and the scheme of the URLs that they stand for, as etcd has them.
const SERVICES: [(&str, &str); 2] = [("etcd-server-ssl", "https"), ("etcd-server", "http")];

/// Asks DNS for the founders, if `config` says so and this member has no data yet.
///
/// # Errors
/// All that is wrong, with what DNS said and what it means for this member.
pub(super) async fn complete(config: Config) -> Result<Config, String> {
    match &config.discovery_srv {
        Some(srv) if !config.is_founded() => {
            let initial_cluster = initial_cluster(&config, srv, &Dns::system()?).await?;
            let config = Config { initial_cluster, ..config };
            let mistakes = config.bootstrap_mistakes();
            if mistakes.is_empty() { Ok(config) } else { Err(mistakes.join("; ")) }
        }
        _ => Ok(config),
    }
}

/// The founders by DNS. The record that leads to this member's own peer URL gets its name, all others get numbers.
async fn initial_cluster(config: &Config, srv: &DiscoverySrv, dns: &Dns) -> Result<Vec<(String, Vec<Url>)>, String> {
    let failed = |why: &str| format!("error setting up initial cluster: {why}");
    let mut own = Vec::new();
    for url in &config.initial_advertise_peer_urls {
        let places = places(&url.address).await.map_err(|error| failed(&format!("lookup {}: {error}", url.address)))?;
        own.push((url, places));
    }
    let (mut found, mut complaints) = (Vec::new(), Vec::new());
    for (service, scheme) in SERVICES {
        let service = if srv.name.is_empty() { service.to_owned() } else { format!("{service}-{}", srv.name) };
        match offered(&own, &service, scheme, &srv.domain, dns).await {
            Ok(urls) => found.extend(urls),
            Err(why) => complaints.push(format!("error querying DNS SRV records for _{service} {why}")),
        }
    }
    let members = named(&config.name, found);
    if members.is_empty() {
        return Err(failed(&complaints.join(", ")));
    }
    for complaint in complaints {
        tracing::warn!(error = complaint, "failed to resolve during SRV discovery");
    }
    match members.iter().any(|(name, _)| *name == config.name) {
        true => Ok(members),
        false => Err(failed(&format!("cannot find local etcd member {:?} in SRV records", config.name))),
    }
}

/// The URLs of the targets of one service, each with whether it is this member's.
async fn offered(
    own: &[(&Url, HashSet<SocketAddr>)],
    service: &str,
    scheme: &str,
    domain: &str,
    dns: &Dns,
) -> Result<Vec<(bool, Url)>, String> {
    let mut urls = Vec::new();
    for target in dns.srv(service, domain).await? {
        let url = Url { scheme: scheme.to_owned(), address: target.to_string() };
        // A host that is not known yet can still be a member: only whose it is can't be told.
        let there = places(&url.address).await.unwrap_or_default();
        match own.iter().find(|(_, places)| !places.is_disjoint(&there)) {
            Some((expected, _)) if expected.scheme != scheme => {
                return Err(format!(
                    "bootstrap at {url} from DNS for {service} has scheme mismatch with expected peer {expected}"
                ));
            }
            mine => urls.push((mine.is_some(), url)),
        }
    }
    Ok(urls)
}

/// Gives names: the own one, or the next number. All URLs of this member are under one name.
fn named(name: &str, found: Vec<(bool, Url)>) -> Vec<(String, Vec<Url>)> {
    let mut members = Vec::<(String, Vec<Url>)>::new();
    let mut others = 0;
    for (is_own, url) in found {
        let name = if is_own { name.to_owned() } else { format!("{others}") };
        others += u32::from(!is_own);
        tracing::info!(node = %format!("{name}={url}"), "got bootstrap from DNS for etcd-server");
        match members.iter_mut().find(|(known, _)| *known == name) {
            Some((_, urls)) => urls.push(url),
            None => members.push((name, vec![url])),
        }
    }
    members
}

async fn places(address: &str) -> std::io::Result<HashSet<SocketAddr>> {
    Ok(tokio::net::lookup_host(address).await?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::tests::example;

    fn config(pairs: &[(&'static str, &str)]) -> Config {
        let settings = pairs.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        Config::from_settings(&settings, &mut Vec::new()).expect("sound settings")
    }

    fn me(url: &str) -> Config {
        config(&[("name", "me"), ("initial-advertise-peer-urls", url), ("discovery-srv", "example.com")])
    }

    fn texts(members: Vec<(String, Vec<Url>)>) -> Vec<String> {
        members.into_iter().map(|(name, urls)| format!("{name}={}", urls[0])).collect()
    }

    async fn ask(config: &Config, dns: &Dns) -> Result<Vec<String>, String> {
        let srv = config.discovery_srv.clone().expect("discovery");
        initial_cluster(config, &srv, dns).await.map(texts)
    }

    #[tokio::test]
    async fn the_own_record_has_the_own_name_and_others_have_numbers() {
        let dns = example(&[
            ("etcd-server", 0, 3, 2380, "localhost."),
            ("etcd-server", 0, 2, 2381, "localhost."),
            ("etcd-server", 0, 1, 2382, "localhost."),
        ])
        .await;
        let config = me("http://127.0.0.1:2381");
        let found = ask(&config, &dns).await.unwrap();
        assert_eq!(found, ["0=http://localhost:2380", "me=http://localhost:2381", "1=http://localhost:2382"]);
        let config = Config {
            initial_cluster: vec![("me".into(), vec![Url { scheme: "http".into(), address: "localhost:2381".into() }])],
            ..config
        };
        assert_eq!(config.bootstrap_mistakes(), [""; 0], "a name that leads to the own address is the own address");
    }

    #[tokio::test]
    async fn whoever_is_not_listed_is_told_so() {
        let dns = example(&[("etcd-server", 0, 0, 2380, "localhost.")]).await;
        let missing = ask(&me("http://127.0.0.1:9"), &dns).await.unwrap_err();
        assert_eq!(missing, "error setting up initial cluster: cannot find local etcd member \"me\" in SRV records");
    }

    #[tokio::test]
    async fn the_service_says_the_scheme() {
        let dns = example(&[("etcd-server-ssl", 0, 0, 2380, "localhost.")]).await;
        assert_eq!(ask(&me("https://127.0.0.1:2380"), &dns).await.unwrap(), ["me=https://localhost:2380"]);
        let mismatch = ask(&me("http://127.0.0.1:2380"), &dns).await.unwrap_err();
        assert!(mismatch.contains("scheme mismatch with expected peer http://127.0.0.1:2380"), "{mismatch}");
    }

    #[tokio::test]
    async fn clusters_under_one_domain_are_kept_apart_by_name() {
        let dns =
            example(&[("etcd-server-blue", 0, 0, 2380, "localhost."), ("etcd-server", 0, 0, 9, "localhost.")]).await;
        let blue = config(&[
            ("name", "me"),
            ("initial-advertise-peer-urls", "http://127.0.0.1:2380"),
            ("discovery-srv", "example.com"),
            ("discovery-srv-name", "blue"),
        ]);
        assert_eq!(ask(&blue, &dns).await.unwrap(), ["me=http://localhost:2380"]);
        let none = ask(&me("http://127.0.0.1:2380"), &example(&[]).await).await.unwrap_err();
        assert!(none.contains("_etcd-server-ssl lookup ") && none.contains("_etcd-server lookup "), "{none}");
    }
}
