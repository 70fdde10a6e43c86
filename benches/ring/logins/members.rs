//! What root does at the core: users, keys, and who leads.

use super::{PREFIX, hosts, probe};
use crate::processes::Processes;
use henge::{
    client::{Client, Error, GetOptions, PutOptions, Txn, kv::end_of_prefix, txn::Op},
    pb::authpb::{Permission, permission::Type},
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const ROOT: (&str, &str) = ("root", "secret");
/// The role of hosts.
const READER: &str = "reader";
/// Keys that are put at once: no more than a transaction may have.
const KEYS_AT_ONCE: usize = 100;
/// Longest wait for something that takes an election.
const PATIENCE: Duration = Duration::from_secs(60);

/// The core as root sees it.
pub struct Core {
    /// Whoever can answer.
    any: Client,
    /// Each member, and each proxy, alone.
    members: Vec<Client>,
    proxies: Vec<Client>,
    ids: Vec<u64>,
}

impl Core {
    /// Puts a key for each host, makes users, and has them count.
    pub async fn prepare(processes: &Processes, hosts: usize) -> Result<Core, String> {
        let urls: Vec<&str> = processes.core.iter().map(|member| member.url.as_str()).collect();
        let any = processes.client(&urls, ROOT).await?;
        let (mut members, mut proxies, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for url in &urls {
            let member = processes.client(&[url], ROOT).await?;
            ids.push(member_id(&member).await?);
            members.push(member);
        }
        for proxy in &processes.proxies {
            proxies.push(processes.client(&[&proxy.url], ROOT).await?);
        }
        keys(&any, hosts).await.map_err(|error| format!("cannot put the hosts' keys: {error}"))?;
        users(&any).await.map_err(|error| format!("cannot make users: {error}"))?;
        let core = Core { any, members, proxies, ids };
        for member in 0..core.members.len() {
            core.serves(member).await?;
        }
        Ok(core)
    }

    /// Waits until a member answers a linearizable read.
    pub async fn serves(&self, member: usize) -> Result<(), String> {
        let began = Instant::now();
        loop {
            match self.members[member].get(probe::KEY, GetOptions::default()).await {
                Ok(_) => return Ok(()),
                Err(error) if began.elapsed() > PATIENCE => {
                    return Err(format!("member {member} does not serve: {error}"));
                }
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Who leads, as whoever answers knows.
    pub async fn leader(&self) -> Result<usize, String> {
        let began = Instant::now();
        loop {
            let leader = self.any.status().await.map_or(0, |status| status.leader);
            match self.ids.iter().position(|id| *id == leader) {
                Some(at) => return Ok(at),
                None if began.elapsed() > PATIENCE => return Err(format!("nobody leads for {PATIENCE:?}")),
                None => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Which member each proxy passes calls on to.
    pub async fn upstreams(&self) -> Result<Vec<usize>, String> {
        let mut upstreams = Vec::new();
        for proxy in &self.proxies {
            let id = member_id(proxy).await?;
            let at = self.ids.iter().position(|known| *known == id);
            upstreams.push(at.ok_or_else(|| format!("a proxy is before member {id:x}, which is none of the core"))?);
        }
        Ok(upstreams)
    }

    /// Hands the lead to a member, and waits until others know.
    pub async fn move_lead(&self, to: usize) -> Result<(), String> {
        let moved = self.any.move_leader(self.ids[to]).await;
        moved.map_err(|error| format!("the lead does not move to member {to}: {error}"))?;
        let began = Instant::now();
        while self.leader().await? != to {
            if began.elapsed() > PATIENCE {
                return Err(format!("member {to} was given the lead, and does not lead"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

async fn member_id(of: &Client) -> Result<u64, String> {
    let status =
        of.status().await.map_err(|error| format!("no status of {:?}: {error}", of.endpoints().addresses()))?;
    Ok(status.header.map_or(0, |header| header.member_id))
}

async fn keys(root: &Client, hosts: usize) -> Result<(), Error> {
    root.put(probe::KEY, "x", PutOptions::default()).await?;
    for first in (0..hosts).step_by(KEYS_AT_ONCE) {
        let some = first..(first + KEYS_AT_ONCE).min(hosts);
        root.txn(Txn::new().then(some.map(|host| Op::put(hosts::key(host), vec![b'x'; 256])))).await?;
    }
    Ok(())
}

async fn users(root: &Client) -> Result<(), Error> {
    root.role_add("root").await?;
    root.user_add(ROOT.0, ROOT.1).await?;
    root.user_grant_role(ROOT.0, "root").await?;
    root.role_add(READER).await?;
    let range_end = end_of_prefix(PREFIX.as_bytes());
    let permission = Permission { perm_type: Type::Read as i32, key: PREFIX.into(), range_end };
    root.role_grant_permission(READER, permission).await?;
    for (name, password) in [hosts::USER, probe::USER] {
        root.user_add(name, password).await?;
        root.user_grant_role(name, READER).await?;
    }
    root.auth_enable().await.map(drop)
}
