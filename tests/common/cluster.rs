//! Several members of one cluster, each a process on loopback.

use super::{Server, free_url};
use henge::{
    client::{Client, ConnectOptions, Error},
    pb::etcdserverpb::{Member, StatusResponse},
};
use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// Longest wait for a server to serve, or for something to come true.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` sees something.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A cluster. Dropping it ends all members.
pub struct Cluster {
    /// In the order in which they were started. One that has left stays here.
    pub members: Vec<Server>,
    flags: Vec<String>,
    runtime: Runtime,
}

impl Cluster {
    /// `size` members that serve.
    pub fn start(size: usize) -> Cluster {
        Cluster::start_with(size, &[])
    }

    /// The same with more flags for all of them.
    pub fn start_with(size: usize, flags: &[&str]) -> Cluster {
        let peers = (0..size).map(|_| free_url()).collect::<Vec<_>>();
        let pairs = peers.iter().enumerate().map(|(at, peer)| format!("m{at}={peer}"));
        let initial = pairs.collect::<Vec<_>>().join(",");
        let flags = flags.iter().map(ToString::to_string).collect();
        let mut cluster = Cluster { members: Vec::new(), flags, runtime: Runtime::new().expect("a runtime") };
        for peer in peers {
            cluster.prepare(peer, &initial, "new");
        }
        for member in &mut cluster.members {
            member.spawn();
        }
        for member in &mut cluster.members {
            member.wait_until_it_serves();
        }
        cluster
    }

    fn prepare(&mut self, peer: String, initial: &str, state: &str) {
        let name = format!("m{}", self.members.len());
        let own = ["--name", &name, "--initial-cluster", initial, "--initial-cluster-state", state];
        let args = own.into_iter().chain(self.flags.iter().map(String::as_str)).collect::<Vec<_>>();
        self.members.push(Server::prepared(Some(peer), &args));
    }

    /// Where a member that is to be added will listen for the others.
    pub fn free_peer_url() -> String {
        free_url()
    }

    /// Starts a member that was added at `peer`, and gives its place in `members`. It may be a learner, so it is not waited for.
    pub fn join(&mut self, peer: &str) -> usize {
        let name = format!("m{}", self.members.len());
        // Not the linearizable list: a second voter may be what the quorum waits for.
        let known = eventually("the new member is listed", || {
            let members = self.ask(async |client| client.member_list(false).await).ok()?.members;
            members.iter().any(|member| member.peer_ur_ls.iter().any(|url| url == peer)).then_some(members)
        });
        let pairs = known.into_iter().flat_map(|member| {
            let is_new = member.peer_ur_ls.iter().any(|url| url == peer);
            let name = if is_new { name.clone() } else { member.name };
            member.peer_ur_ls.into_iter().map(move |url| format!("{name}={url}"))
        });
        let initial = pairs.collect::<Vec<_>>().join(",");
        self.prepare(peer.to_owned(), &initial, "existing");
        let at = self.members.len() - 1;
        self.members[at].spawn();
        at
    }

    /// Does something with a client of the members `of`.
    pub fn ask_of<T, F: Future<Output = Result<T, Error>>>(
        &self,
        of: &[usize],
        ask: impl FnOnce(Client) -> F,
    ) -> Result<T, Error> {
        let urls = of.iter().map(|at| self.members[*at].url().to_owned()).collect::<Vec<_>>();
        self.runtime.block_on(async {
            let options = ConnectOptions { request_timeout: Some(PATIENCE), ..ConnectOptions::default() };
            ask(Client::connect(urls, options).await?).await
        })
    }

    /// Does something with a client of all members.
    pub fn ask<T, F: Future<Output = Result<T, Error>>>(&self, ask: impl FnOnce(Client) -> F) -> Result<T, Error> {
        let all = (0..self.members.len()).collect::<Vec<_>>();
        self.ask_of(&all, ask)
    }

    /// A client of all members, for tasks on [`Cluster::runtime`].
    pub fn client(&self) -> Client {
        self.ask(async |client| Ok(client)).expect("a client")
    }

    /// Where clients of the cluster may run.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// What a member says of itself.
    pub fn status(&self, at: usize) -> Option<StatusResponse> {
        self.ask_of(&[at], async |client| {
            tokio::time::timeout(Duration::from_secs(2), client.status()).await.unwrap_or(Err(Error::Deadline))
        })
        .ok()
    }

    /// The id of a member that runs.
    pub fn id(&self, at: usize) -> u64 {
        let status = eventually("the member tells its id", || self.status(at));
        status.header.expect("a header").member_id
    }

    /// The place of the member that leads, once one of `of` knows one that is among them.
    pub fn leader(&self, of: &[usize]) -> usize {
        eventually("somebody leads", || {
            of.iter().copied().find(|at| {
                let status = self.status(*at);
                status.is_some_and(|status| status.header.is_some_and(|header| header.member_id == status.leader))
            })
        })
    }

    /// All members, as the cluster lists them.
    pub fn list(&self) -> Vec<Member> {
        self.ask(async |client| client.member_list(true).await).expect("a list").members
    }

    /// Runs `hengectl` with all members as its endpoints.
    pub fn hengectl(&self, words: &str) -> Output {
        self.hengectl_command(words).output().expect("hengectl runs")
    }

    /// The same, to be started.
    pub fn hengectl_command(&self, words: &str) -> Command {
        let endpoints = self.members.iter().map(Server::url).collect::<Vec<_>>().join(",");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hengectl"));
        command.args(words.split(' ')).env("ETCDCTL_ENDPOINTS", endpoints);
        command
    }
}
