//! A cluster of real processes, each on a host of its own, with everything that a nemesis can get hold of.
//!
//! It knows the server only by etcd's flags and API, so any server that takes those can be tried. Dropping a cluster removes
//! all that it made: processes, disks, hosts.

pub mod member;
pub mod network;

use crate::disk::{Disk, Trouble};
use henge::client::{Client, ConnectOptions, Error as ClientError, GetOptions};
use member::{Bootstrap, Member};
use network::Network;
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
}

/// A cluster. The order of fields is the order in which they end: processes, what they use, where they are.
#[derive(Debug)]
pub struct Cluster {
    /// The members, in the order of their addresses.
    pub members: Vec<Member>,
    /// The members' disks, or none at all.
    pub disks: Vec<Disk>,
    /// The members' hosts, if they have any.
    pub network: Option<Network>,
    /// Asks each member alone.
    pub admins: Vec<Client>,
    bootstrap: Bootstrap,
}

impl Cluster {
    /// A cluster whose files are in `folder`. Not started yet.
    ///
    /// # Errors
    /// If hosts or disks are wanted and cannot be made, or there is no free port.
    pub async fn new(plan: &Plan, folder: &Path) -> io::Result<Cluster> {
        let network = if plan.loopback { None } else { Some(Network::new(plan.nodes)?) };
        let ports = if plan.loopback { free_ports(plan.nodes * 2)? } else { Vec::new() };
        let mut members = Vec::new();
        let mut disks = Vec::new();
        for at in 0..plan.nodes {
            let (client, peer) = match &network {
                Some(network) => (format!("{}:2379", network.address(at)), format!("{}:2380", network.address(at))),
                None => (format!("127.0.0.1:{}", ports[at * 2]), format!("127.0.0.1:{}", ports[at * 2 + 1])),
            };
            let member = Member {
                name: format!("m{}", at + 1),
                program: fs::canonicalize(&plan.program).unwrap_or_else(|_| plan.program.clone()),
                enter: network.as_ref().map(|network| network.enter(at)).unwrap_or_default(),
                extra: plan.extra.clone(),
                folder: folder.join(format!("m{}", at + 1)),
                client_url: format!("http://{client}"),
                peer_url: format!("http://{peer}"),
                child: None,
            };
            fs::create_dir_all(&member.folder)?;
            if plan.disks {
                disks.push(Disk::mount(&member.data())?);
            }
            members.push(member);
        }
        let cluster: Vec<String> =
            members.iter().map(|member| format!("{}={}", member.name, member.peer_url)).collect();
        let token = format!("jepsen-{}", std::process::id());
        let bootstrap = Bootstrap { cluster: cluster.join(","), exists: false, token };
        let mut admins = Vec::new();
        for member in &members {
            admins.push(connect([&member.client_url], Duration::from_secs(1)).await.map_err(io::Error::other)?);
        }
        Ok(Cluster { members, disks, network, admins, bootstrap })
    }

    /// Where clients find the members.
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client_url.clone()).collect()
    }

    /// Starts all members that do not run.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start_all(&mut self) -> io::Result<()> {
        for member in self.members.iter_mut().filter(|member| member.child.is_none()) {
            member.start(&self.bootstrap)?;
        }
        Ok(())
    }

    /// Kills `at`. Its disk must not hold it up, so that is well again afterwards.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self, at: usize) -> io::Result<()> {
        if let Some(disk) = self.disks.get(at) {
            disk.set(Trouble::None);
        }
        self.members[at].kill().map(drop)
    }

    /// Starts `at` with an empty disk, as a member that the cluster was told of.
    ///
    /// # Errors
    /// If its data cannot be removed, or it cannot be started.
    pub fn start_empty(&mut self, at: usize) -> io::Result<()> {
        let data = self.members[at].data().join("member");
        if data.exists() {
            fs::remove_dir_all(data)?;
        }
        let bootstrap = Bootstrap { exists: true, ..self.bootstrap.clone() };
        self.members[at].start(&bootstrap)
    }

    /// Undoes all that a nemesis did: hosts hear each other, disks work, nobody is paused, everybody runs. Returns how
    /// members had ended by themselves.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn heal(&mut self) -> io::Result<Vec<String>> {
        if let Some(network) = &self.network {
            network.set(&network::Cuts::new(), 0)?;
            for at in 0..self.members.len() {
                network.limit(at, None)?;
            }
        }
        for disk in &self.disks {
            disk.set(Trouble::None);
        }
        let ended = self.take_ended();
        for member in &self.members {
            // One that does not run is not paused either.
            let _ = member.pause(false);
        }
        self.start_all()?;
        Ok(ended)
    }

    /// How members have ended by themselves since the last time, with their last lines.
    pub fn take_ended(&mut self) -> Vec<String> {
        let ended = self.members.iter_mut().filter_map(|member| {
            let status = member.take_end()?;
            Some(format!("{} ({status}): {}", member.name, member.last_words()))
        });
        ended.collect()
    }

    /// Waits until each member answers a linearizable read. Returns how long that took.
    ///
    /// # Errors
    /// In words, who does not answer within `limit`.
    pub async fn await_service(&self, limit: Duration) -> Result<Duration, String> {
        let start = Instant::now();
        for at in 0..self.members.len() {
            self.await_member(at, limit.saturating_sub(start.elapsed())).await?;
        }
        Ok(start.elapsed())
    }

    /// Waits until `at` answers a linearizable read.
    ///
    /// # Errors
    /// In words, why it does not within `limit`.
    pub async fn await_member(&self, at: usize, limit: Duration) -> Result<(), String> {
        let start = Instant::now();
        while let Err(cause) = self.admins[at].get("jepsen", GetOptions::default()).await {
            if start.elapsed() > limit {
                let name = &self.members[at].name;
                return Err(format!("{name} does not answer after {} s without faults: {cause}", limit.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
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
