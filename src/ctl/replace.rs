//! member replace: a new member for an old one, without a moment in which the cluster could lose its quorum.
//!
//! ```text
//!   add NEW as a learner ─▶ it is started ─▶ it catches up ─▶ it gets a vote ─▶ OLD hands the lead over, and is removed
//! ```
//! Nothing is remembered between runs: where the work stands is read off the list of members, before each step anew. So it can be
//! interrupted anywhere and run again, and what somebody else did meanwhile counts too.

use super::{failure::Failure, global::Global, lead, member};
use crate::{
    client::{Client, Error},
    pb::etcdserverpb::Member,
    types::Error as Refusal,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};
use tokio::net::{TcpStream, lookup_host};

/// Between two looks at something that takes its time.
const PAUSE: Duration = Duration::from_millis(250);

/// What to replace by what.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Id of the member that goes
    old_id: String,
    /// Peer URL of the member that comes
    new_url: String,
    /// Name of the member that comes (default: made of the old one's)
    #[arg(long)]
    name: Option<String>,
    /// How long to wait for the new member to start, and then to catch up
    #[arg(long, default_value = "1h", value_parser = crate::go::duration)]
    wait: Duration,
    /// Do not try whether the host of the new member can be reached from here
    #[arg(long)]
    skip_preflight: bool,
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
enum Step<'a> {
    /// The new one is no member yet.
    Add { old: &'a Member },
    /// It has never started.
    Start { new: &'a Member },
    /// It has no vote, and the old one has.
    Promote { new: &'a Member },
    /// Both are there; the old one can go.
    Remove { new: &'a Member, old: &'a Member },
    /// Only the new one is there.
    Done { new: &'a Member },
}

fn next_step<'a>(members: &'a [Member], old_id: u64, new_url: &str) -> Result<Step<'a>, Failure> {
    let old = members.iter().find(|member| member.id == old_id);
    let new = members.iter().find(|member| member.peer_ur_ls.iter().any(|url| url == new_url));
    match (old, new) {
        (None, None) => Err(Failure::error(format!("member {old_id:x} is not in the cluster"))),
        (Some(old), Some(new)) if old.id == new.id => Err(Failure::error(format!(
            "member {old_id:x} is itself reached at {new_url}: a member cannot be replaced by another one at its own URL; remove it, then add it anew"
        ))),
        (Some(old), None) => Ok(Step::Add { old }),
        (_, Some(new)) if new.name.is_empty() => Ok(Step::Start { new }),
        (Some(old), Some(new)) if new.is_learner && !old.is_learner => Ok(Step::Promote { new }),
        (Some(old), Some(new)) => Ok(Step::Remove { new, old }),
        (None, Some(new)) => Ok(Step::Done { new }),
    }
}

pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let old_id = member::id(&args.old_id)
        .map_err(|failure| failure.map(|why| format!("bad member ID arg ({why}), expecting ID in Hex")))?;
    let new_url = match &member::given_urls(&args.new_url)?[..] {
        [url] => url.clone(),
        _ => return Err(Failure::args("one URL is needed; more can be given with member update afterwards")),
    };
    let client = global.client().await?;
    loop {
        let members = client.member_list(true).await?.members;
        know_all(&client, global, &members);
        match next_step(&members, old_id, &new_url)? {
            Step::Add { old } => {
                if !args.skip_preflight {
                    preflight(global, &new_url).await?;
                }
                let id = client.member_add_as_learner([new_url.clone()]).await?.member.map_or(0, |member| member.id);
                println!("Member {id:x} added as learner, to replace {}", named(old));
            }
            Step::Start { new } => {
                let name = args.name.clone().unwrap_or_else(|| free_name(&members, old_id));
                println!("Start the new member with:\n\n{}", member::how_to_start(&name, new.id, &new_url, &members));
                wait_until_started(&client, new.id, args.wait).await?;
            }
            Step::Promote { new } => {
                promote(global, &client, new, args.wait).await?;
                println!("Member {} has caught up and has a vote", named(new));
            }
            Step::Remove { new, old } => {
                hand_over(global, &client, old, new).await?;
                match client.member_remove(old.id).await {
                    // The answer may get lost with the member that gave it; the list will tell.
                    Ok(_) | Err(Error::Unreachable(_)) => println!("Member {} removed", named(old)),
                    Err(error) if error.may_have_been_applied() || error.is(&Refusal::MemberNotFound) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Step::Done { new } => {
                println!("Member {} has taken the place of {old_id:x}", named(new));
                if new.is_learner {
                    println!("It is a learner; `hengectl member promote {:x}` gives it a vote", new.id);
                }
                return Ok(());
            }
        }
    }
}

fn named(member: &Member) -> String {
    format!("{:x} ({})", member.id, if member.name.is_empty() { "unstarted" } else { &member.name })
}

/// From here on the members are asked as well, wherever the given endpoints lead: the old one is about to go.
fn know_all(client: &Client, global: &Global, members: &[Member]) {
    let mut all = global.endpoints();
    let voters = members.iter().filter(|member| !member.is_learner);
    for url in voters.flat_map(|member| &member.client_ur_ls) {
        if !all.iter().any(|known| known == url || *known == *url.trim_start_matches("http://")) {
            all.push(url.clone());
        }
    }
    if let Err(error) = client.endpoints().replace(&all, client.options()) {
        tracing::debug!(%error, "a member advertises what cannot be asked from here");
    }
}

/// A name that no member has: the old one's with the next free number.
fn free_name(members: &[Member], old_id: u64) -> String {
    let old = members.iter().find(|member| member.id == old_id).map_or("member", |member| &member.name);
    let stem = match old.rsplit_once('-') {
        Some((stem, number)) if number.parse::<u32>().is_ok() => stem,
        _ => old,
    };
    let names = (2..).map(|number| format!("{stem}-{number}"));
    let mut free = names.filter(|name| !members.iter().any(|member| member.name == *name));
    free.next().expect("there are more numbers than members")
}

/// Whether the new member's host answers. That nobody listens there yet is as it should be.
async fn preflight(global: &Global, url: &str) -> Result<(), Failure> {
    let Some(("http" | "https", address)) = url.split_once("://") else { return Ok(()) };
    let unreachable = |why: String| {
        Failure::connection(format!(
            "{url} cannot be reached from here: {why} (--skip-preflight, if only the members can reach it)"
        ))
    };
    let mut places = lookup_host(address).await.map_err(|error| unreachable(error.to_string()))?;
    let place = places.next().ok_or_else(|| unreachable("its host has no address".to_owned()))?;
    match tokio::time::timeout(global.connection().connect_timeout, TcpStream::connect(place)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable("no answer".to_owned())),
    }
}

/// Waits until member `id` has started, shows how far it is behind, and gives it a vote.
pub async fn promote_when_ready(global: &Global, client: &Client, id: u64, wait: Duration) -> Result<(), Failure> {
    let new = wait_until_started(client, id, wait).await?;
    promote(global, client, &new, wait).await?;
    println!("Member {} has caught up and has a vote", named(&new));
    Ok(())
}

/// Waits until member `id` has told its name, which it does when it starts.
async fn wait_until_started(client: &Client, id: u64, wait: Duration) -> Result<Member, Failure> {
    let deadline = Instant::now() + wait;
    let bar = bar("{spinner} waiting for the new member to start, {elapsed}");
    loop {
        let members = client.member_list(true).await?.members;
        match members.into_iter().find(|member| member.id == id) {
            Some(member) if !member.name.is_empty() => return Ok(member),
            Some(_) => {}
            None => return Err(Failure::error(format!("member {id:x} was removed meanwhile"))),
        }
        if Instant::now() >= deadline {
            return Err(Failure::interrupted(format!("member {id:x} has not started; run this again to go on")));
        }
        bar.tick();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Gives `new` a vote as soon as it has caught up.
async fn promote(global: &Global, client: &Client, new: &Member, wait: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + wait;
    let bar = bar("catching up {bar:30} {pos}/{len} entries, {elapsed}");
    loop {
        let goal = client.status().await?.raft_index;
        let there = applied(global, new).await;
        bar.set_length(goal);
        bar.set_position(there.unwrap_or(0));
        // A member that cannot be asked from here may be ready all the same: the leader knows.
        if there.is_none_or(|there| there >= goal - goal / 10) {
            match client.member_promote(new.id).await {
                Ok(_) => return Ok(()),
                // Somebody else did, or --auto-promote of the server.
                Err(error) if error.is(&Refusal::MemberNotLearner) => return Ok(()),
                Err(error) if error.is(&Refusal::LearnerNotReady) || error.is(&Refusal::Unhealthy) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if Instant::now() >= deadline {
            let what = format!("member {:x} has not caught up; run this again to go on", new.id);
            return Err(Failure::interrupted(what));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How far a member is, if it can be asked.
async fn applied(global: &Global, member: &Member) -> Option<u64> {
    let client = Client::connect(&member.client_ur_ls, global.options().ok()?).await.ok()?;
    Some(client.status().await.ok()?.raft_applied_index)
}

/// A leader that is removed leaves the cluster without one for an election timeout; one that hands over before does not.
async fn hand_over(global: &Global, client: &Client, old: &Member, new: &Member) -> Result<(), Failure> {
    if client.status().await?.leader != old.id || new.is_learner {
        return Ok(());
    }
    let moved = match lead::leader(global, &old.client_ur_ls).await {
        Ok((leader, _)) => leader.move_leader(new.id).await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    match moved {
        Ok(_) => println!("Member {} leads now", named(new)),
        // It is removed as it is, then.
        Err(failure) => eprintln!("The lead is not handed over first: {}", failure.text()),
    }
    Ok(())
}

/// A bar on a terminal, nothing elsewhere.
fn bar(template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).expect("a constant template is valid");
    ProgressBar::new(0).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: u64 = 1;
    const URL: &str = "http://new:1";

    fn member(id: u64, name: &str, url: &str, is_learner: bool) -> Member {
        Member { id, name: name.into(), peer_ur_ls: vec![url.into()], is_learner, ..Member::default() }
    }

    /// The name of the next step for a cluster of these.
    fn step(members: &[Member]) -> String {
        match next_step(members, OLD, URL) {
            Ok(step) => format!("{step:?}").split(' ').next().unwrap_or_default().to_owned(),
            Err(failure) => failure.text().to_owned(),
        }
    }

    #[test]
    fn where_it_stands_is_read_off_the_members() {
        let old = || member(OLD, "a", "http://old:1", false);
        let new = |name, is_learner| member(2, name, URL, is_learner);
        assert_eq!(step(&[old()]), "Add");
        assert_eq!(step(&[old(), new("", true)]), "Start");
        assert_eq!(step(&[old(), new("b", true)]), "Promote");
        assert_eq!(step(&[old(), new("b", false)]), "Remove");
        assert_eq!(step(&[new("b", false)]), "Done");
        assert_eq!(step(&[new("", true)]), "Start", "the old one is gone already; the new one is still waited for");
    }

    #[test]
    fn a_learner_is_replaced_by_a_learner() {
        let old = member(OLD, "a", "http://old:1", true);
        assert_eq!(step(&[old, member(2, "b", URL, true)]), "Remove");
        assert_eq!(step(&[member(2, "b", URL, true)]), "Done", "it is not promoted behind anybody's back");
    }

    #[test]
    fn what_cannot_be_replaced_is_said() {
        assert_eq!(step(&[member(7, "x", "http://x:1", false)]), "member 1 is not in the cluster");
        assert!(step(&[member(OLD, "a", URL, false)]).starts_with("member 1 is itself reached at http://new:1"));
    }

    #[test]
    fn the_new_name_is_the_next_free_one() {
        let members = [member(OLD, "a", "x", false), member(2, "a-2", "y", false), member(3, "b-7", "z", false)];
        assert_eq!(free_name(&members, OLD), "a-3");
        assert_eq!(free_name(&members, 3), "b-2");
    }
}
