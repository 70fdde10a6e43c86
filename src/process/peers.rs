//! The other members: listening for them, dialling them, and asking them to be let in.

use super::{texts, wal_dir};
use crate::{
    config::{ClusterState, Config, Url, claimed_version, lead_alike, parse_url},
    membership::{Member, cluster_id, member_id},
    peer::{self, Cluster, Listener, Network, Serving, Tls, TlsSettings, ask_cluster},
    replica::{self, Handle, StartAs},
    server::Version,
    types::{ClusterId, MemberId},
};
use std::{sync::Arc, time::Duration};
use tokio::runtime::{Builder, Runtime};

/// How long streams of peers may take to end once nothing comes over them any more.
const DRAIN: Duration = Duration::from_millis(200);
/// How often those who may not have heard yet that this member was added are asked, and the pause between.
const ROUNDS: usize = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// Bound for peers, and not served yet.
pub(super) struct Bound {
    listeners: Vec<Listener>,
    thread: Thread,
}

/// The way from and to all peers.
pub(super) struct Peers {
    network: Network,
    tls: Tls,
    serving: Serving,
    _thread: Thread,
}

/// What peers say to each other has one thread of its own. There a heartbeat does not wait behind what clients ask for, and where several
/// are sent and answered at once, one wake-up serves them all: among the clients' threads each message woke two.
struct Thread(Option<Runtime>);

impl Thread {
    fn start() -> Result<Thread, String> {
        let built = Builder::new_multi_thread().worker_threads(1).thread_name("peers").enable_all().build();
        built.map(|runtime| Thread(Some(runtime))).map_err(|error| format!("cannot start the peers' thread: {error}"))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("it is taken only when it goes")
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // It may be let go within another runtime, where nobody may wait.
            runtime.shutdown_background();
        }
    }
}

impl Peers {
    /// Binds all peer URLs.
    ///
    /// # Errors
    /// A text that names the URL.
    pub(super) async fn bind(config: &Config) -> Result<Bound, String> {
        let thread = Thread::start()?;
        let (urls, share_port) = (texts(&config.listen_peer_urls), config.socket_reuse_port);
        // There, because sockets belong to the runtime on which they are made.
        let listeners = thread.runtime().spawn(async move {
            let mut listeners = Vec::new();
            for url in &urls {
                listeners.push(Listener::bind(url, share_port).await?);
            }
            Ok::<_, String>(listeners)
        });
        let listeners = listeners.await.map_err(|error| format!("cannot listen for peers: {error}"))??;
        Ok(Bound { listeners, thread })
    }

    /// The network, for the member to speak through.
    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// What a member does that has no log: it founds a cluster, unless that cluster knows it already, or joins the one that it was
    /// added to.
    ///
    /// # Errors
    /// etcd's texts: nobody answers, or they know this member otherwise than its flags do.
    pub(super) async fn start_as(&self, config: &Config) -> Result<StartAs, String> {
        let has_log = replica::has_log(&wal_dir(config)).map_err(|fault| fault.to_string())?;
        let others = config.initial_cluster.iter().filter(|(name, _)| *name != config.name);
        let mut urls = others.flat_map(|(_, urls)| texts(urls)).collect::<Vec<_>>();
        urls.sort();
        match config.initial_cluster_state {
            ClusterState::New => {
                if !has_log {
                    self.refuse_to_found_again(config, &urls).await?;
                }
                Ok(StartAs::New)
            }
            // Nobody looks at the numbers. But it must not found anything, should its log be empty.
            ClusterState::Existing if has_log => {
                let (member_id, cluster_id) = (MemberId::default(), ClusterId::default());
                Ok(StartAs::Joined { member_id, cluster_id, members: Vec::new() })
            }
            ClusterState::Existing => self.join(config, &urls).await,
        }
    }

    /// A founder that has lost its disk must not found the same cluster a second time: it has voted before, and does not know for whom.
    async fn refuse_to_found_again(&self, config: &Config, urls: &[String]) -> Result<(), String> {
        let token = &config.initial_cluster_token;
        let own = member_id(&texts(&config.initial_advertise_peer_urls), token);
        let founders = config.initial_cluster.iter().map(|(_, urls)| member_id(&texts(urls), token));
        let id = cluster_id(&founders.collect::<Vec<_>>());
        let knows_it = |cluster: Cluster| match cluster.id == id
            && cluster.members.iter().any(|member| member.id == own && !member.client_urls.is_empty())
        {
            true => Ok(()),
            false => Err("a cluster of its own".to_owned()),
        };
        match ask_cluster(urls, &self.tls, knows_it).await {
            Ok(()) => Err(format!("member {own} has already been bootstrapped")),
            Err(_) => Ok(()),
        }
    }

    async fn join(&self, config: &Config, urls: &[String]) -> Result<StartAs, String> {
        let mut failure = String::new();
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match ask_cluster(urls, &self.tls, |cluster| find_place(config, cluster)).await {
                Ok(joined) => return Ok(joined),
                Err(why) => failure = why,
            }
        }
        Err(failure)
    }

    /// Speaks for `handle` from now on, and lets peers in.
    pub(super) fn begin(&self, handle: &Handle) {
        self.network.begin(Arc::new(handle.clone()));
    }

    /// Says nothing more, and hears nothing more.
    pub(super) async fn stop(self) {
        self.network.stop();
        self.serving.stop(DRAIN).await;
    }
}

impl Bound {
    /// Serves peers, who hear that this member is starting until [`Peers::begin`].
    ///
    /// # Errors
    /// Certificates that can't be used.
    pub(super) fn serve(self, config: &Config) -> Result<Peers, String> {
        let tls = tls(config)?;
        let entered = self.thread.runtime().enter();
        let network = Network::new(peer::Settings {
            election_timeout: config.election_timeout,
            snapshot_bytes_per_s: config.snapshot_send_bytes_per_s,
            tls: tls.clone(),
            peer_urls: texts(&config.initial_advertise_peer_urls),
            version: Version::claiming(&claimed_version()).json(),
        });
        let serving = peer::serve(self.listeners, &network, &tls, config.max_request_bytes);
        for url in &config.listen_peer_urls {
            tracing::info!(address = %url, "serving peer traffic");
        }
        drop(entered);
        Ok(Peers { network, tls, serving, _thread: self.thread })
    }
}

/// Certificates of this member, made first if it has to make them itself.
fn tls(config: &Config) -> Result<Tls, String> {
    let flags = &config.peer_tls;
    let is_self_signed = flags.auto_tls && flags.identity.is_none();
    let identity = match is_self_signed {
        true => {
            let dir = config.data_dir.join("fixtures").join("peer");
            Some(super::tls::identity(flags, &config.listen_peer_urls.iter().collect::<Vec<_>>(), &dir)?)
        }
        false => flags.identity.clone(),
    };
    Tls::new(TlsSettings {
        identity,
        client_identity: flags.client_identity.clone(),
        client_cert_auth: flags.client_cert_auth,
        trusted_ca_file: flags.trusted_ca_file.clone(),
        crl_file: flags.crl_file.clone(),
        allowed_cn: flags.cert_allowed_cn.clone(),
        allowed_hostname: flags.cert_allowed_hostname.clone(),
        skip_client_san_verification: flags.skip_client_san_verification,
        is_self_signed,
        protocol: flags.protocol.clone(),
    })
}

/// The place of this member in a cluster that it was added to: its id there, if all members are those that the flags name.
fn find_place(config: &Config, cluster: Cluster) -> Result<StartAs, String> {
    let wrong = |why: String| format!("error validating peerURLs {}: {why}", describe(&cluster));
    if cluster.members.len() != config.initial_cluster.len() {
        return Err(wrong("member count is unequal".to_owned()));
    }
    let mut own = None;
    for member in &cluster.members {
        let urls = member.peer_urls.iter().filter_map(|url| parse_url(url).ok()).collect::<Vec<Url>>();
        match config.initial_cluster.iter().find(|(_, named)| lead_alike(&urls, named)) {
            Some((name, _)) if *name == config.name => own = Some(member.id),
            Some(_) => {}
            None => {
                let (id, urls) = (member.id, member.peer_urls.join(" "));
                return Err(wrong(format!("PeerURLs: no match found for existing member ({id}, [{urls}])")));
            }
        }
    }
    let member_id = own.ok_or_else(|| wrong(format!("{:?} is not among the members", config.name)))?;
    Ok(StartAs::Joined { member_id, cluster_id: cluster.id, members: cluster.members })
}

fn describe(cluster: &Cluster) -> String {
    let member = |member: &Member| {
        let Member { id, name, client_urls, peer_urls, .. } = member;
        let (client, peer) = (client_urls.join(" "), peer_urls.join(" "));
        format!("&{{ID:{id} Name:{name} ClientURLs:[{client}] PeerURLs:[{peer}]}}")
    };
    let members = cluster.members.iter().map(member).collect::<Vec<_>>().join(" ");
    format!("{{ClusterID:{} Members:[{members}]}}", cluster.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&'static str, &str)]) -> Config {
        let settings = pairs.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        Config::from_settings(&settings, &mut Vec::new()).expect("a valid configuration")
    }

    fn member(id: u64, url: &str) -> Member {
        Member { id: MemberId(id), peer_urls: vec![url.to_owned()], ..Member::default() }
    }

    #[test]
    fn whoever_joins_has_the_id_that_the_cluster_gave_to_its_urls() {
        let config = config(&[
            ("name", "b"),
            ("initial-cluster", "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380"),
            ("initial-cluster-state", "existing"),
        ]);
        let cluster = |members| Cluster { id: ClusterId(7), member_id: MemberId(1), members };
        let both = vec![member(1, "http://10.0.0.1:2380"), member(2, "http://10.0.0.2:2380")];
        let joined = find_place(&config, cluster(both.clone()));
        let expected = StartAs::Joined { member_id: MemberId(2), cluster_id: ClusterId(7), members: both.clone() };
        assert_eq!(joined, Ok(expected));
        let early = find_place(&config, cluster(both[..1].to_vec())).unwrap_err();
        assert!(early.starts_with("error validating peerURLs {ClusterID:7 Members:[&{ID:1 Name: "), "{early}");
        assert!(early.ends_with("member count is unequal"), "{early}");
        let other = vec![both[0].clone(), member(3, "http://10.0.0.3:2380")];
        let other = find_place(&config, cluster(other)).unwrap_err();
        assert!(other.ends_with("no match found for existing member (3, [http://10.0.0.3:2380])"), "{other}");
    }
}
