//! ring: which proxies there are, and how far each has come.
//!
//! Each proxy reports to one member, or to a proxy that does. So all members are asked, and what they say is put together.

mod wait;

use super::{
    failure::Failure,
    global::Global,
    output::{Answer, RingList},
};
use crate::{
    client::{Client, Error},
    pb::henge::ring::{Listed, Source},
};
use std::collections::BTreeMap;
use tokio::task::JoinSet;
use tonic::Code;

/// What to list, or to wait for.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to list.
#[derive(clap::Args, Debug)]
struct List {
    /// Only proxies that lag behind, or that are lost
    #[arg(long)]
    behind: bool,
    /// A line for each copy of each proxy
    #[arg(long)]
    copies: bool,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Waits until a revision has reached all copies of all proxies, or of a share of them
    Wait(wait::Args),
}

pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    match args.command {
        Some(Command::Wait(args)) => wait::run(global, args).await,
        None => list(global, args.list).await,
    }
}

async fn list(global: &Global, args: List) -> Result<(), Failure> {
    let printer = global.printer()?;
    let seen = look(global, 0).await?;
    seen.notes.iter().for_each(|note| eprintln!("{note}"));
    let mut proxies = seen.proxies;
    if args.behind {
        proxies.retain(is_behind);
    }
    printer.print(&Answer::Ring(RingList { proxies, by_copy: args.copies }))
}

/// What all who could be asked know together.
struct Seen {
    /// Furthest behind first.
    proxies: Vec<Listed>,
    /// Whether all who answered have listened for long enough to know of everybody.
    is_settled: bool,
    /// Whether all answered.
    is_whole: bool,
    /// What people should know about the list.
    notes: Vec<String>,
}

/// Asks everybody. `goal`: proxies that come to this revision are to say so at once; 0: none.
async fn look(global: &Global, goal: i64) -> Result<Seen, Failure> {
    let mut found = Found::default();
    let given = global.endpoints();
    found.ask(global, &given, false, goal).await?;
    let members = members(global, &mut found).await?;
    let new: Vec<String> = members.into_iter().filter(|url| !given.iter().any(|known| is_same(known, url))).collect();
    found.ask(global, &new, false, goal).await?;
    if !found.has_member() && found.sources.values().any(|source| source.is_proxy) {
        // Members that cannot be reached from here, perhaps: a proxy can ask the one that it reports to.
        found.ask(global, &given, true, goal).await?;
    }
    found.finish()
}

/// Where the members of the core are to be asked.
async fn members(global: &Global, found: &mut Found) -> Result<Vec<String>, Failure> {
    match global.client().await?.member_list(false).await {
        Ok(answer) => Ok(answer.members.into_iter().flat_map(|member| member.client_ur_ls).collect()),
        Err(error) => {
            found.notes.push(format!("The members of the core are not known: {error}"));
            Ok(Vec::new())
        }
    }
}

fn is_same(one: &str, other: &str) -> bool {
    let bare = |url: &str| url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    bare(one) == bare(other)
}

#[derive(Default)]
struct Found {
    /// By id.
    sources: BTreeMap<u64, Source>,
    proxies: BTreeMap<u64, Listed>,
    /// Endpoints that keep no list.
    strangers: Vec<String>,
    failures: Vec<(String, Error)>,
    notes: Vec<String>,
}

impl Found {
    /// Asks `endpoints`, all at once.
    async fn ask(&mut self, global: &Global, endpoints: &[String], of_core: bool, goal: i64) -> Result<(), Failure> {
        let mut asked = JoinSet::new();
        for endpoint in endpoints {
            let (client, endpoint): (Client, _) = (global.client_of(endpoint).await?, endpoint.clone());
            asked.spawn(async move { (endpoint, client.ring(of_core, goal).await) });
        }
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok((_, Ok((source, proxies)))) => self.take(source, proxies),
                Ok((endpoint, Err(error))) if error.code() == Some(Code::Unimplemented) => {
                    self.strangers.push(endpoint)
                }
                Ok((endpoint, Err(error))) => self.failures.push((endpoint, error)),
                Err(error) => return Err(Failure::error(error)),
            }
        }
        Ok(())
    }

    fn take(&mut self, source: Source, proxies: Vec<Listed>) {
        self.sources.insert(source.id, source);
        for listed in proxies {
            let Some(proxy) = &listed.proxy else { continue };
            let known = self.proxies.get(&proxy.id);
            // Two may know it, if it has changed sides, or if one of them is on the way to the other.
            if known.is_none_or(|known| freshness(&listed) < freshness(known)) {
                self.proxies.insert(proxy.id, listed);
            }
        }
    }

    fn has_member(&self) -> bool {
        self.sources.values().any(|source| !source.is_proxy)
    }

    fn finish(self) -> Result<Seen, Failure> {
        let Found { sources, proxies, strangers, failures, mut notes } = self;
        if sources.is_empty() {
            return Err(match (strangers.first(), failures.into_iter().next()) {
                (Some(stranger), _) => Failure::unsupported(format!(
                    "{stranger} keeps no list of proxies, as etcd does not; a henge proxy does: give its URL with --endpoints to see it and those behind it"
                )),
                (None, Some((endpoint, error))) => Failure::from(error).map(|text| format!("{endpoint}: {text}")),
                (None, None) => Failure::args("no endpoint given"),
            });
        }
        if !strangers.is_empty() {
            notes.push(format!(
                "{} keeps no list of proxies, as etcd does not: only what the proxies asked know of is shown",
                strangers.join(", ")
            ));
        }
        for (endpoint, error) in &failures {
            notes.push(format!("{endpoint} cannot be asked ({error}): proxies that it alone knows are missing"));
        }
        let is_settled = sources.values().all(|source| source.listening_ms >= source.settled_ms);
        if !is_settled {
            notes
                .push("Some of those asked have listened for a few seconds only: there may be more proxies".to_owned());
        }
        if sources.values().any(|source| source.is_partial) {
            notes.push("There are more proxies than one of those asked can remember".to_owned());
        }
        notes.extend(healing(sources.values()));
        let mut proxies: Vec<Listed> = proxies.into_values().collect();
        proxies.sort_by_cached_key(order);
        Ok(Seen { proxies, is_settled, is_whole: failures.is_empty(), notes })
    }
}

/// What the members say of the healing of the core, if they heal it.
fn healing<'a>(sources: impl Iterator<Item = &'a Source>) -> Vec<String> {
    let (healers, others): (Vec<_>, Vec<_>) =
        sources.filter(|source| !source.is_proxy).partition(|source| source.healing.is_some());
    let news = healers.iter().filter_map(|source| source.healing.as_ref());
    let leaders = news.filter(|healing| !healing.doing.is_empty());
    let mut notes =
        leaders.map(|leader| format!("A core of {}: {}", leader.core_size, leader.doing)).collect::<Vec<_>>();
    if !healers.is_empty() && !others.is_empty() {
        let ids = others.iter().map(|source| format!("{:x}", source.id)).collect::<Vec<_>>().join(", ");
        notes.push(format!("The core does not heal itself while one of these leads, which have no --core-size: {ids}"));
    }
    notes
}

/// Smaller is better: who is heard of, and who was lately.
fn freshness(listed: &Listed) -> (bool, u64) {
    let (is_lost, told_ms) = listed
        .proxy
        .as_ref()
        .map_or((true, 0), |proxy| (proxy.is_lost, proxy.state.as_ref().map_or(u64::MAX, |state| state.told_ms)));
    (is_lost, told_ms)
}

/// Furthest behind first, then lost ones, then the oldest, then by name.
fn order(listed: &Listed) -> impl Ord + use<> {
    let proxy = listed.proxy.clone().unwrap_or_default();
    let name = proxy.identity.map_or(String::new(), |identity| identity.name);
    let state = proxy.state.unwrap_or_default();
    let lag = state.copies.iter().map(|copy| copy.lag).max().unwrap_or(0);
    let age_ms = state.copies.iter().map(|copy| copy.age_ms).max().unwrap_or(0);
    // Ages of what is fresh differ by chance only.
    let age_min = age_ms / 60_000;
    (std::cmp::Reverse((lag, proxy.is_lost, age_min)), name, proxy.id)
}

/// Whether a proxy is known to lack something, or nobody knows.
fn is_behind(listed: &Listed) -> bool {
    listed.proxy.as_ref().is_some_and(|proxy| {
        let state = proxy.state.as_ref();
        proxy.is_lost || state.is_some_and(|state| state.copies.iter().any(|copy| copy.lag > 0))
    })
}

#[cfg(test)]
mod tests;
