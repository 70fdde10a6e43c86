//! A host that volunteers: while the core lists a member at its peer URL, it runs one.
//!
//! The member is a process of its own, of the same program, with its data in the proxy's folder. It is a part of the core, so it outlives its
//! proxy: one that is started again finds it running, or what it left.
//!
//! ```text
//!   the core lists no such member     it lists one, and it runs     it lists one, and it does not run
//!     │ nothing is here: stands by      │ fine                        │ data of that member, or none and it never started: start it
//!     │ it runs: is ended               │ another one's: is ended     │ no data, and it had started: it must not vote again. Nothing
//!     └ data: is set aside                                            └ another one's data: is set aside
//! ```

mod quarters;

use crate::{
    client::{Client, ConnectOptions, Error},
    config::StandbyFlags,
    pb::{etcdserverpb::Member, henge::ring::Duty},
    proxy::{self, Upstream},
    ring::standby_name,
};
use quarters::Quarters;
use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    process::{Child, Command},
    sync::watch,
};

/// Between two looks, by chance down to half of it. With many proxies it is longer: no more often than they report.
const PERIOD: Duration = Duration::from_secs(2);
/// After a member that ended by itself or could not be started, by chance down to half of it; doubles from failure to failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A member that has run for so long has not failed at its start.
const LASTING: Duration = Duration::from_secs(60);
/// A member that was told to end may take so long.
const END_MAX: Duration = Duration::from_secs(10);

/// How the host stands to the core.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// A member is listed here.
    Listed {
        id: u64,
        has_started: bool,
    },
    Stranger,
    /// Nobody could be asked.
    Unknown,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    /// The member `id` is started, on what it left if it left anything.
    Start {
        id: u64,
    },
    /// The member that runs is none any more.
    End,
    /// Data of a member that is none any more is in the way.
    PutAside,
    /// The data of a member is lost that had started.
    Mourn {
        id: u64,
    },
}

/// `kept`: of which member there is data. `runs`: whether a member runs here.
fn act(standing: &Standing, kept: Option<u64>, runs: bool) -> Act {
    match (standing, kept) {
        (Standing::Listed { id, .. }, Some(kept)) if *id == kept => {
            if runs {
                Act::Nothing
            } else {
                Act::Start { id: kept }
            }
        }
        (Standing::Listed { .. } | Standing::Stranger, Some(_)) => {
            if runs {
                Act::End
            } else {
                Act::PutAside
            }
        }
        // It may have voted, and would not know for whom.
        (Standing::Listed { id, has_started: true }, None) => Act::Mourn { id: *id },
        (Standing::Listed { id, has_started: false }, None) if !runs => Act::Start { id: *id },
        // What is kept here may be what a quorum waits for.
        (Standing::Unknown, Some(kept)) if !runs => Act::Start { id: kept },
        _ => Act::Nothing,
    }
}

/// A host that volunteers.
pub(super) struct Post {
    flags: StandbyFlags,
    name: String,
    peer_url: String,
    program: PathBuf,
    quarters: Quarters,
    upstream: Upstream,
    options: ConnectOptions,
    told: proxy::Standby,
    client: Option<(Vec<String>, Client)>,
    child: Option<(Child, Instant)>,
    failures: Failures,
    ending_since: Option<Instant>,
    mourned: Option<u64>,
}

impl Post {
    /// In the folder `data_dir` of the proxy `name`.
    ///
    /// # Errors
    /// The program's own file is not known.
    pub(super) fn new(
        flags: StandbyFlags,
        name: &str,
        data_dir: &Path,
        (upstream, options): (Upstream, ConnectOptions),
        told: proxy::Standby,
    ) -> Result<Post, String> {
        // Now: if another version takes its place meanwhile, that one is to run.
        let program =
            std::env::current_exe().map_err(|error| format!("cannot find the program of the member: {error}"))?;
        let peer_url = flags.peer_url.to_string();
        Ok(Post {
            name: standby_name(name, &peer_url),
            flags,
            peer_url,
            program,
            quarters: Quarters::in_dir(data_dir),
            upstream,
            options,
            told,
            client: None,
            child: None,
            failures: Failures::default(),
            ending_since: None,
            mourned: None,
        })
    }

    /// Looks after the member until `stopping`; then leaves it to itself. `interval`: how often the core likes to be asked.
    pub(super) async fn hold(mut self, interval: impl Fn() -> Duration, mut stopping: watch::Receiver<bool>) {
        loop {
            self.look().await;
            let pause = PERIOD.max(interval()).mul_f64(rand::random_range(0.5..1.0));
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => break,
                status = ended(&mut self.child) => self.note_end(status),
                () = tokio::time::sleep(pause) => {}
            }
        }
        if self.runs() {
            let pid = self.pid();
            tracing::warn!(
                pid,
                "the proxy ends, and the member of this host goes on; `hengectl member remove` ends it"
            );
        }
    }

    async fn look(&mut self) {
        let (kept, runs) = (self.quarters.kept(), self.runs());
        let (standing, members) = self.ask(kept, runs).await;
        match act(&standing, kept, runs) {
            Act::Nothing => self.ending_since = None,
            Act::Start { id } => self.start(id, &members),
            Act::End => self.end(),
            Act::PutAside => self.quarters.put_aside().await,
            Act::Mourn { id } if self.mourned != Some(id) => {
                self.mourned = Some(id);
                tracing::error!(
                    member = format!("{id:x}"),
                    "the data of this host's member is lost, so it must not go on; the core replaces it, or `hengectl member remove` removes it"
                );
            }
            Act::Mourn { .. } => {}
        }
        self.told.set_duty(match (&standing, self.runs()) {
            (Standing::Listed { .. } | Standing::Unknown, true) => Duty::Serves,
            (Standing::Listed { .. }, false) => Duty::Fails,
            (Standing::Unknown, false) if kept.is_some() => Duty::Fails,
            _ => Duty::StandsBy,
        });
    }

    fn runs(&self) -> bool {
        self.child.is_some() || self.quarters.is_in_use()
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().map_or_else(|| self.quarters.pid(), |(child, _)| child.id())
    }

    /// How the host stands to the core, and all members. Whoever answers may say what it knows, as long as all is as it should be; before
    /// anything is done the leader is asked.
    async fn ask(&mut self, kept: Option<u64>, runs: bool) -> (Standing, Vec<Member>) {
        let seen = self.see(false).await;
        match act(&seen.0, kept, runs) {
            Act::Nothing => seen,
            _ => self.see(true).await,
        }
    }

    async fn see(&mut self, linearizable: bool) -> (Standing, Vec<Member>) {
        let members = match self.list(linearizable).await {
            Ok(members) => members,
            Err(error) => {
                tracing::debug!(%error, "the core cannot be asked for its members");
                return (Standing::Unknown, Vec::new());
            }
        };
        let own = members.iter().find(|member| member.peer_ur_ls.contains(&self.peer_url));
        let standing = match own {
            Some(own) => Standing::Listed { id: own.id, has_started: !own.name.is_empty() },
            None => Standing::Stranger,
        };
        (standing, members)
    }

    async fn list(&mut self, linearizable: bool) -> Result<Vec<Member>, Error> {
        let addresses = self.upstream.addresses();
        let client = match &self.client {
            Some((known, client)) if *known == addresses => client.clone(),
            _ => {
                let client = Client::connect(&addresses, self.options.clone()).await?;
                self.client.insert((addresses, client)).1.clone()
            }
        };
        Ok(client.member_list(linearizable).await?.members)
    }

    fn start(&mut self, id: u64, members: &[Member]) {
        if !self.failures.may_start(Instant::now()) {
            return;
        }
        match self.quarters.prepare(id).and_then(|()| self.command(members).spawn().map_err(|error| error.to_string()))
        {
            Ok(child) => {
                let pid = child.id();
                tracing::warn!(member = format!("{id:x}"), pid, "the core has asked for this host: its member starts");
                self.quarters.note_pid(pid);
                self.told.count_start();
                self.child = Some((child, Instant::now()));
            }
            Err(error) => {
                tracing::error!(error, "the member of this host cannot be started");
                self.failures.note(Instant::now());
            }
        }
    }

    fn command(&self, members: &[Member]) -> Command {
        // What the others are called does not matter; it must tell them apart.
        let name_of = |member: &Member| match member.peer_ur_ls.contains(&self.peer_url) {
            true => self.name.clone(),
            false => format!("{:x}", member.id),
        };
        let pairs =
            members.iter().flat_map(|member| member.peer_ur_ls.iter().map(|url| format!("{}={url}", name_of(member))));
        let mut initial = pairs.collect::<Vec<_>>().join(",");
        if initial.is_empty() {
            // It has a log, which knows better.
            initial = format!("{}={}", self.name, self.peer_url);
        }
        let mut command = Command::new(&self.program);
        command.args(self.flags.words(&self.name, &initial)).arg("--data-dir").arg(self.quarters.dir());
        // What is meant for another member beside the proxy.
        for (name, _) in std::env::vars_os() {
            let is_members =
                name.to_str().is_some_and(|name| name.starts_with("ETCD_") && !name.starts_with("ETCD_HENGE_"));
            if is_members {
                command.env_remove(name);
            }
        }
        // A group of its own: what ends the proxy at a terminal is not meant for the member.
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        command
    }

    fn note_end(&mut self, status: std::io::Result<ExitStatus>) {
        let ran = self.child.take().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        match status {
            Ok(status) => tracing::warn!(%status, ?ran, "the member of this host has ended"),
            Err(error) => tracing::error!(%error, "the member of this host cannot be waited for"),
        }
        if ran >= LASTING {
            self.failures = Failures::default();
        }
        self.failures.note(Instant::now());
    }

    /// It ends by itself when it hears that it was removed; but it may hang, or be cut off.
    fn end(&mut self) {
        let now = Instant::now();
        let is_late = self.ending_since.is_some_and(|since| now.duration_since(since) >= END_MAX);
        if self.ending_since.is_some() && !is_late {
            return;
        }
        self.ending_since.get_or_insert(now);
        let signal = if is_late { rustix::process::Signal::KILL } else { rustix::process::Signal::TERM };
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        match pid {
            Some(pid) => {
                tracing::warn!(
                    pid = pid.as_raw_nonzero().get(),
                    ?signal,
                    "the core has removed the member of this host: it is ended"
                );
                if let Err(error) = rustix::process::kill_process(pid, signal) {
                    tracing::warn!(%error, "the member cannot be told to end");
                }
            }
            None => tracing::warn!(
                "the core has removed the member of this host, whose process is not known: end it by hand"
            ),
        }
    }
}

/// Returns when the member has ended; never without one.
async fn ended(child: &mut Option<(Child, Instant)>) -> std::io::Result<ExitStatus> {
    match child {
        Some((child, _)) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// How often in a row a member ended soon, and when the next one may be started.
#[derive(Default)]
struct Failures {
    count: u32,
    not_before: Option<Instant>,
}

impl Failures {
    fn may_start(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    fn note(&mut self, now: Instant) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.count.min(16)).min(PAUSE_MAX);
        self.count += 1;
        self.not_before = Some(now + pause.mul_f64(rand::random_range(0.5..1.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEVEN: Standing = Standing::Listed { id: 7, has_started: true };
    const NEW: Standing = Standing::Listed { id: 7, has_started: false };

    #[test]
    fn a_member_runs_while_the_core_lists_it() {
        assert_eq!(act(&Standing::Stranger, None, false), Act::Nothing, "it stands by");
        assert_eq!(act(&NEW, None, false), Act::Start { id: 7 });
        assert_eq!(act(&NEW, Some(7), true), Act::Nothing);
        assert_eq!(act(&NEW, Some(7), false), Act::Start { id: 7 }, "it has not come far");
        assert_eq!(act(&SEVEN, Some(7), false), Act::Start { id: 7 });
        assert_eq!(act(&Standing::Stranger, Some(7), true), Act::End);
        assert_eq!(act(&Standing::Stranger, Some(7), false), Act::PutAside);
    }

    #[test]
    fn what_cannot_be_asked_is_taken_to_be_as_it_was() {
        assert_eq!(act(&Standing::Unknown, Some(7), false), Act::Start { id: 7 }, "a quorum may wait for it");
        assert_eq!(act(&Standing::Unknown, Some(7), true), Act::Nothing);
        assert_eq!(act(&Standing::Unknown, None, false), Act::Nothing);
    }

    #[test]
    fn nobody_votes_for_a_member_whose_data_is_lost() {
        assert_eq!(act(&SEVEN, None, false), Act::Mourn { id: 7 });
    }

    #[test]
    fn what_another_member_left_here_is_not_mistaken_for_this_ones() {
        assert_eq!(act(&NEW, Some(6), false), Act::PutAside);
        assert_eq!(act(&NEW, Some(6), true), Act::End);
        assert_eq!(act(&SEVEN, Some(6), false), Act::PutAside);
    }

    #[test]
    fn who_fails_at_its_start_is_started_less_and_less_often() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        assert!(failures.may_start(now));
        failures.note(now);
        assert!(!failures.may_start(now + PAUSE_MIN / 3) && failures.may_start(now + PAUSE_MIN));
        (0..40).for_each(|_| failures.note(now));
        assert!(!failures.may_start(now + PAUSE_MAX / 3) && failures.may_start(now + PAUSE_MAX));
    }
}
