//! What the bootstrap flags say together: who founds the cluster, and whether this member is one of them.

use super::{
    Config,
    value::{Url, url},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, ToSocketAddrs},
};

/// Whether this member founds a cluster, or joins one. Matters only while it has no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// It founds one, together with all others of `initial-cluster`.
    New,
    /// It was added to one that runs already.
    Existing,
}

/// Where members, or what stands behind a proxy, are named in DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySrv {
    /// Domain that has the SRV records.
    pub domain: String,
    /// Suffix of the service's name; may be empty.
    pub name: String,
}

/// Reads `name=url,name=url,…`. A name that comes again adds a URL to its member.
///
/// # Errors
/// etcd's sentence about the first thing that is wrong.
pub fn initial_cluster(text: &str) -> Result<Vec<(String, Vec<Url>)>, String> {
    let mut members: Vec<(String, Vec<Url>)> = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, address) = pair.split_once('=').unwrap_or((pair, ""));
        if address.is_empty() {
            return Err(format!("empty URL given for {name:?}"));
        }
        let url = url(address.trim())?;
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url),
            None => members.push((name.to_owned(), vec![url])),
        }
    }
    Ok(members)
}

impl Config {
    /// Whether this member has data already. Then the bootstrap flags are history, and nobody looks at them again.
    pub fn is_founded(&self) -> bool {
        let wal = self.wal_dir.clone().unwrap_or_else(|| self.data_dir.join("member").join("wal"));
        std::fs::read_dir(wal).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// What is wrong with founding or joining a cluster with `initial_cluster`. To be asked again when it came from DNS.
    pub fn bootstrap_mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        match self.initial_cluster.iter().find(|(name, _)| *name == self.name) {
            None => {
                let name = &self.name;
                mistakes.push(format!("couldn't find local name {name:?} in the initial cluster configuration"));
            }
            // Whoever joins has told the cluster its URLs before; they need not be said twice.
            Some((_, urls)) if self.initial_cluster_state == ClusterState::New => {
                mistakes.extend(self.advertised_otherwise(urls));
            }
            Some(_) => {}
        }
        let mut seen = BTreeSet::new();
        if !self.initial_cluster.iter().flat_map(|(_, urls)| urls).all(|url| seen.insert(url)) {
            mistakes.push(format!("initial cluster {} has duplicate url", self.initial_cluster_text()));
        }
        mistakes
    }

    /// `initial_cluster` as a flag's text, sorted by name.
    fn initial_cluster_text(&self) -> String {
        let sorted = self.initial_cluster.iter().map(|(name, urls)| (name, urls)).collect::<BTreeMap<_, _>>();
        let pairs = sorted.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
        pairs.collect::<Vec<_>>().join(",")
    }

    /// How `listed`, this member's URLs in the initial cluster, differ from those that it advertises.
    fn advertised_otherwise(&self, listed: &[Url]) -> Option<String> {
        let listed = listed.iter().collect::<BTreeSet<_>>();
        let advertised = self.initial_advertise_peer_urls.iter().collect::<BTreeSet<_>>();
        if listed == advertised || resolve_alike(&listed, &advertised) {
            return None;
        }
        let name = &self.name;
        let join = |urls: &mut dyn Iterator<Item = String>| urls.collect::<Vec<_>>().join(",");
        let missing = join(&mut listed.difference(&advertised).map(|url| format!("{name}={url}")));
        if !missing.is_empty() {
            let advertised = join(&mut advertised.iter().map(ToString::to_string));
            return Some(format!(
                "--initial-cluster has {missing} but missing from --initial-advertise-peer-urls={advertised}"
            ));
        }
        let missing = join(&mut advertised.difference(&listed).map(ToString::to_string));
        let listed = join(&mut listed.iter().map(|url| format!("{name}={url}")));
        Some(format!("--initial-advertise-peer-urls has {missing} but missing from --initial-cluster={listed}"))
    }
}

/// Whether two lists of URLs lead to the same places. Asks the resolver if they are not the same to the letter.
pub fn lead_alike(some: &[Url], others: &[Url]) -> bool {
    let (some, others) = (some.iter().collect::<BTreeSet<_>>(), others.iter().collect::<BTreeSet<_>>());
    some == others || resolve_alike(&some, &others)
}

/// Whether each URL has a counterpart of the same scheme that leads to the same place: `localhost` is `127.0.0.1`.
fn resolve_alike(listed: &BTreeSet<&Url>, advertised: &BTreeSet<&Url>) -> bool {
    let places = |urls: &BTreeSet<&Url>| urls.iter().map(|url| places_of(url)).collect::<Vec<_>>();
    let (listed, mut advertised) = (places(listed), places(advertised));
    listed.len() == advertised.len()
        && listed.iter().all(|one| {
            let same = |other: &BTreeSet<(String, SocketAddr)>| !one.is_disjoint(other);
            advertised.iter().position(same).map(|at| advertised.swap_remove(at)).is_some()
        })
}

fn places_of(url: &Url) -> BTreeSet<(String, SocketAddr)> {
    let addresses = url.address.to_socket_addrs().into_iter().flatten();
    addresses.map(|address| (url.scheme.clone(), address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&'static str, &str)]) -> Result<Config, Vec<String>> {
        let settings = pairs.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        Config::from_settings(&settings, &mut Vec::new())
    }

    fn mistakes(pairs: &[(&'static str, &str)]) -> Vec<String> {
        config(pairs).err().unwrap_or_default()
    }

    const A: (&str, &str) = ("initial-advertise-peer-urls", "http://10.0.0.1:2380");

    #[test]
    fn a_name_may_repeat_and_the_order_of_the_flag_stays() {
        let cluster = initial_cluster("b=http://b:1,a=http://a:1,b=http://b:2").unwrap();
        let url = |text| url(text).unwrap();
        let expected =
            [("b".into(), vec![url("http://b:1"), url("http://b:2")]), ("a".into(), vec![url("http://a:1")])];
        assert_eq!(cluster, expected);
        assert_eq!(initial_cluster("a=").unwrap_err(), "empty URL given for \"a\"");
        assert!(initial_cluster("a=nonsense").is_err());
    }

    #[test]
    fn without_the_flag_a_member_is_alone() {
        let config = config(&[("name", "a"), A]).unwrap();
        assert_eq!(config.initial_cluster, [("a".to_owned(), config.initial_advertise_peer_urls.clone())]);
        assert!(config.strict_reconfig_check && !config.force_new_cluster && !config.auto_promote);
        assert_eq!((config.max_learners, config.initial_cluster_state), (1, ClusterState::New));
    }

    #[test]
    fn a_founder_is_listed_as_it_is_advertised() {
        let three = "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380";
        assert_eq!(
            mistakes(&[
                ("name", "b"),
                ("initial-cluster", three),
                ("initial-advertise-peer-urls", "http://10.0.0.2:2380")
            ]),
            [""; 0]
        );
        assert_eq!(
            mistakes(&[("name", "x"), ("initial-cluster", three), A]),
            ["couldn't find local name \"x\" in the initial cluster configuration"]
        );
        assert_eq!(
            mistakes(&[("name", "b"), ("initial-cluster", three), A]),
            [
                "--initial-cluster has b=http://10.0.0.2:2380 but missing from --initial-advertise-peer-urls=http://10.0.0.1:2380"
            ]
        );
        let two = "http://10.0.0.1:2380,http://10.0.0.9:2380";
        assert_eq!(
            mistakes(&[("name", "a"), ("initial-cluster", three), ("initial-advertise-peer-urls", two)]),
            [
                "--initial-advertise-peer-urls has http://10.0.0.9:2380 but missing from --initial-cluster=a=http://10.0.0.1:2380"
            ]
        );
    }

    #[test]
    fn whoever_joins_must_be_listed_but_not_advertised_alike() {
        let join = |name| {
            mistakes(&[("name", name), ("initial-cluster", "a=http://a:1"), ("initial-cluster-state", "existing"), A])
        };
        assert_eq!(join("a"), [""; 0]);
        assert_eq!(join("b").len(), 1);
    }

    #[test]
    fn two_names_of_one_place_are_one_url() {
        let settings = [("initial-cluster", "default=http://127.0.0.1:2380")];
        assert_eq!(mistakes(&settings), [""; 0], "localhost is advertised by default");
    }

    #[test]
    fn a_url_has_one_member() {
        let cluster = "b=http://10.0.0.1:2380,a=http://10.0.0.1:2380";
        assert_eq!(
            mistakes(&[("name", "a"), ("initial-cluster", cluster), A]),
            ["initial cluster a=http://10.0.0.1:2380,b=http://10.0.0.1:2380 has duplicate url"]
        );
    }

    #[test]
    fn there_is_one_way_to_bootstrap() {
        let found = mistakes(&[("initial-cluster", "default=http://localhost:2380"), ("discovery-srv", "example.com")]);
        assert!(found[0].starts_with("multiple discovery or bootstrap flags are set."), "{found:?}");
        let config = config(&[("discovery-srv", "example.com"), ("discovery-srv-name", "blue")]).unwrap();
        assert_eq!(config.discovery_srv, Some(DiscoverySrv { domain: "example.com".into(), name: "blue".into() }));
        assert!(config.initial_cluster.is_empty(), "it is not known before DNS has been asked");
    }

    #[test]
    fn once_there_is_data_the_bootstrap_flags_are_history() {
        let dir = tempfile::tempdir().unwrap();
        let settings = [("data-dir", dir.path().to_str().unwrap()), ("initial-cluster", "x=http://10.0.0.1:2380")];
        assert_eq!(mistakes(&settings).len(), 1);
        std::fs::create_dir_all(dir.path().join("member/wal")).unwrap();
        assert_eq!(mistakes(&settings).len(), 1, "a folder without a log is no data");
        std::fs::write(dir.path().join("member/wal/0.wal"), "").unwrap();
        assert_eq!(mistakes(&settings), [""; 0]);
    }
}
