//! A cluster of real processes, each on a host of its own, with everything that a nemesis can get hold of; and proxies before it.
//!
//! It knows the server only by etcd's flags and API, so any server that takes those can be tried. Dropping a cluster removes
//! all that it made: processes, disks, hosts.

pub mod member;
pub mod network;
pub mod process;
pub mod proxy;

use crate::disk::{Disk, Trouble};
use henge::client::{Client, ConnectOptions, Error as ClientError, GetOptions};
use member::{Bootstrap, Member};
use network::Network;
use process::Process;
use proxy::{Proxy, Ring};
use std::{
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How to build a cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server's program.
    pub program: PathBuf,
    /// Members.
    pub nodes: usize,
    /// Flags for the server besides those that make the cluster.
    pub extra: Vec<String>,
    /// Use this machine's own address and ports instead of hosts of their own.
    pub loopback: bool,
    /// Give each member a disk that fails on command.
    pub disks: bool,
    /// What stands between members and clients.
    pub ring: Ring,
}

/// A cluster. The order of fields is the order in which they end: processes, what they use, where they are.
#[derive(Debug)]
pub struct Cluster {
    /// The proxies, tier by tier, in the order of their addresses, which follow those of the members.
    pub proxies: Vec<Proxy>,
    /// The members, in the order of their addresses.
    pub members: Vec<Member>,
    /// The members' disks, or none at all.
    pub disks: Vec<Disk>,
    /// The hosts, if there are any: the members', then the proxies'.
    pub network: Option<Network>,
    /// Asks each member alone.
    pub admins: Vec<Client>,
    /// Asks each proxy alone.
    proxy_admins: Vec<Client>,
    bootstrap: Bootstrap,
    is_mixed: bool,
}

impl Cluster {
    /// A cluster whose files are in `folder`. Not started yet.
    ///
    /// # Errors
    /// If hosts or disks are wanted and cannot be made, or there is no free port.
    pub async fn new(plan: &Plan, folder: &Path) -> io::Result<Cluster> {
        let places = Places::new(plan)?;
        let mut members = Vec::new();
        let mut disks = Vec::new();
        for at in 0..plan.nodes {
            let (client, peer) = places.of_member(at);
            let process = places.process(&plan.program, format!("m{}", at + 1), at, folder)?;
            if plan.disks {
                disks.push(Disk::mount(&process.data())?);
            }
            members.push(Member { process, extra: plan.extra.clone(), client_url: client, peer_url: peer });
        }
        let proxies = proxies(plan, &places, &members, folder)?;
        let cluster: Vec<String> =
            members.iter().map(|member| format!("{}={}", member.process.name, member.peer_url)).collect();
        let token = format!("jepsen-{}", std::process::id());
        let bootstrap = Bootstrap { cluster: cluster.join(","), exists: false, token };
        let admins = one_each(members.iter().map(|member| &member.client_url)).await?;
        let proxy_admins = one_each(proxies.iter().map(|proxy| &proxy.url)).await?;
        let is_mixed = plan.ring.is_mixed;
        Ok(Cluster { proxies, members, disks, network: places.network, admins, proxy_admins, bootstrap, is_mixed })
    }

    /// Where clients find the cluster.
    pub fn addresses(&self) -> Vec<String> {
        let last = self.proxies.iter().map(|proxy| proxy.tier).max();
        let proxies = self.proxies.iter().filter(|proxy| self.is_mixed || Some(proxy.tier) == last);
        let members = self.members.iter().filter(|_| self.is_mixed || self.proxies.is_empty());
        proxies.map(|proxy| proxy.url.clone()).chain(members.map(|member| member.client_url.clone())).collect()
    }

    /// Where the proxies are, tier by tier.
    pub fn proxy_addresses(&self) -> Vec<String> {
        self.proxies.iter().map(|proxy| proxy.url.clone()).collect()
    }

    /// Starts all members and proxies that do not run.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start_all(&mut self) -> io::Result<()> {
        for member in self.members.iter_mut().filter(|member| member.process.child.is_none()) {
            member.start(&self.bootstrap)?;
        }
        self.start_proxies()
    }

    /// Starts all proxies that do not run.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start_proxies(&mut self) -> io::Result<()> {
        self.proxies.iter_mut().filter(|proxy| proxy.process.child.is_none()).try_for_each(Proxy::start)
    }

    /// Kills `at`. Its disk must not hold it up, so that is well again afterwards.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self, at: usize) -> io::Result<()> {
        if let Some(disk) = self.disks.get(at) {
            disk.set(Trouble::None);
        }
        self.members[at].process.kill().map(drop)
    }

    /// Starts `at` with an empty disk, as a member that the cluster was told of.
    ///
    /// # Errors
    /// If its data cannot be removed, or it cannot be started.
    pub fn start_empty(&mut self, at: usize) -> io::Result<()> {
        let data = self.members[at].process.data().join("member");
        if data.exists() {
            fs::remove_dir_all(data)?;
        }
        let bootstrap = Bootstrap { exists: true, ..self.bootstrap.clone() };
        self.members[at].start(&bootstrap)
    }

    /// Undoes all that a nemesis did: hosts hear each other, disks work, nobody is paused, everybody runs. Returns how
    /// members and proxies had ended by themselves.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn heal(&mut self) -> io::Result<Vec<String>> {
        if let Some(network) = &self.network {
            network.set(&network::Cuts::new(), 0)?;
            for at in 0..self.members.len() + self.proxies.len() {
                network.limit(at, None)?;
            }
        }
        for disk in &self.disks {
            disk.set(Trouble::None);
        }
        let ended = self.take_ended();
        for process in self.processes() {
            // One that does not run is not paused either.
            let _ = process.pause(false);
        }
        self.start_all()?;
        Ok(ended)
    }

    /// The processes of members, then of proxies.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let members = self.members.iter_mut().map(|member| &mut member.process);
        members.chain(self.proxies.iter_mut().map(|proxy| &mut proxy.process))
    }

    /// How members and proxies have ended by themselves since the last time, with their last lines.
    pub fn take_ended(&mut self) -> Vec<String> {
        let ended = self.processes().filter_map(|process| {
            let status = process.take_end()?;
            Some(format!("{} ({status}): {}", process.name, process.last_words()))
        });
        ended.collect()
    }

    /// Waits until each member and each proxy answers a linearizable read. Returns how long that took.
    ///
    /// # Errors
    /// In words, who does not answer within `limit`.
    pub async fn await_service(&self, limit: Duration) -> Result<Duration, String> {
        let start = Instant::now();
        for at in 0..self.members.len() {
            self.await_member(at, limit.saturating_sub(start.elapsed())).await?;
        }
        for at in 0..self.proxies.len() {
            self.await_proxy(at, limit.saturating_sub(start.elapsed())).await?;
        }
        Ok(start.elapsed())
    }

    /// Waits until member `at` answers a linearizable read.
    ///
    /// # Errors
    /// In words, why it does not within `limit`.
    pub async fn await_member(&self, at: usize, limit: Duration) -> Result<(), String> {
        await_answer(&self.admins[at], &self.members[at].process.name, limit).await
    }

    /// Waits until proxy `at` answers a linearizable read.
    ///
    /// # Errors
    /// In words, why it does not within `limit`.
    pub async fn await_proxy(&self, at: usize, limit: Duration) -> Result<(), String> {
        await_answer(&self.proxy_admins[at], &self.proxies[at].process.name, limit).await
    }

    /// Who leads, as the member with the newest term says.
    pub async fn leader(&self) -> Option<usize> {
        let mut ids = Vec::new();
        let mut newest = (0, 0);
        for admin in &self.admins {
            let status = tokio::time::timeout(Duration::from_millis(300), admin.status()).await;
            let Ok(Ok(status)) = status else {
                ids.push(0);
                continue;
            };
            ids.push(status.header.as_ref().map_or(0, |header| header.member_id));
            if status.leader != 0 && status.raft_term >= newest.0 {
                newest = (status.raft_term, status.leader);
            }
        }
        ids.iter().position(|id| *id != 0 && *id == newest.1)
    }

    /// The ids of the members, as far as they answer.
    pub async fn id(&self, at: usize) -> Option<u64> {
        let status = self.admins[at].status().await.ok()?;
        status.header.map(|header| header.member_id)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A process that waits for its disk cannot end.
        for disk in &self.disks {
            disk.set(Trouble::None);
        }
    }
}

/// Where processes run.
struct Places {
    network: Option<Network>,
    /// Without hosts: two for each member, one for each proxy.
    ports: Vec<u16>,
    members: usize,
}

impl Places {
    fn new(plan: &Plan) -> io::Result<Places> {
        let (members, proxies) = (plan.nodes, plan.ring.len());
        let network = if plan.loopback { None } else { Some(Network::new(members + proxies)?) };
        let ports = if plan.loopback { free_ports(members * 2 + proxies)? } else { Vec::new() };
        Ok(Places { network, ports, members })
    }

    /// Where clients and peers find member `at`.
    fn of_member(&self, at: usize) -> (String, String) {
        match &self.network {
            Some(network) => {
                let host = network.address(at);
                (format!("http://{host}:2379"), format!("http://{host}:2380"))
            }
            None => {
                let (client, peer) = (self.ports[at * 2], self.ports[at * 2 + 1]);
                (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"))
            }
        }
    }

    /// Where clients find proxy `at`.
    fn of_proxy(&self, at: usize) -> String {
        match &self.network {
            Some(network) => format!("http://{}:23790", network.address(self.members + at)),
            None => format!("http://127.0.0.1:{}", self.ports[self.members * 2 + at]),
        }
    }

    /// The process called `name` on `host`, with a folder of its own in `folder`.
    fn process(&self, program: &Path, name: String, host: usize, folder: &Path) -> io::Result<Process> {
        let process = Process {
            program: fs::canonicalize(program).unwrap_or_else(|_| program.to_path_buf()),
            enter: self.network.as_ref().map(|network| network.enter(host)).unwrap_or_default(),
            folder: folder.join(&name),
            name,
            child: None,
        };
        fs::create_dir_all(&process.folder)?;
        Ok(process)
    }
}

/// The proxies of `plan`: each has all of the tier before it upstream, those of the first tier all members.
fn proxies(plan: &Plan, places: &Places, members: &[Member], folder: &Path) -> io::Result<Vec<Proxy>> {
    let ring = &plan.ring;
    let mut upstream: Vec<String> = members.iter().map(|member| member.client_url.clone()).collect();
    let mut all = Vec::new();
    for tier in 0..ring.tiers {
        let before = all.len();
        for at in 0..ring.proxies {
            let (name, number) = (format!("p{}.{}", tier + 1, at + 1), before + at);
            let process = places.process(&ring.program, name, plan.nodes + number, folder)?;
            all.push(Proxy::new(ring, process, places.of_proxy(number), (tier, at), &upstream));
        }
        upstream = all[before..].iter().map(|proxy| proxy.url.clone()).collect();
    }
    Ok(all)
}

/// A client for each of `addresses` alone.
async fn one_each<'a>(addresses: impl Iterator<Item = &'a String>) -> io::Result<Vec<Client>> {
    let mut admins = Vec::new();
    for address in addresses {
        admins.push(connect([address], Duration::from_secs(1)).await.map_err(io::Error::other)?);
    }
    Ok(admins)
}

async fn await_answer(admin: &Client, name: &str, limit: Duration) -> Result<(), String> {
    let start = Instant::now();
    while let Err(cause) = admin.get("jepsen", GetOptions::default()).await {
        if start.elapsed() > limit {
            return Err(format!("{name} does not answer after {} s without faults: {cause}", limit.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A client for `addresses` whose calls take at most `timeout`.
///
/// # Errors
/// If an address cannot be one.
pub async fn connect<I, S>(addresses: I, timeout: Duration) -> Result<Client, ClientError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<str>,
{
    let options = ConnectOptions {
        connect_timeout: Duration::from_millis(500).min(timeout),
        request_timeout: Some(timeout),
        // A paused member keeps its connections; streams must notice.
        keepalive_time: Some(Duration::from_secs(2)),
        keepalive_timeout: Duration::from_secs(1),
        ..ConnectOptions::default()
    };
    Client::connect(addresses, options).await
}

/// Ports from below the range that the system hands to clients: while a server is down, a client that connects to a port
/// of that range could meet itself there.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    // Runs beside each other look in different places.
    let base = 20_000 + (std::process::id() % 5000) as u16;
    let free: Vec<u16> =
        (base..base + 2000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect();
    if free.len() < count {
        return Err(io::Error::other("too few free ports"));
    }
    Ok(free)
}
