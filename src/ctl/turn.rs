//! lock and elect: hold something until a signal, or while a command runs.
//!
//! As in etcdctl both contend by themselves, by keys and watches, so they work against whatever serves these; what they take excludes those who
//! use the services, too.

use super::{failure::Failure, global::Global, output::Answer, system};
use crate::{
    client::{Client, Error, GetOptions, Lock, Session},
    go,
};
use bytes::Bytes;
use clap::Args;
use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    process::Stdio,
};
use tokio::{
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
};

/// Acquires a named lock, and holds it until a signal, or while a command runs.
///
/// The command has in its environment ETCD_LOCK_KEY, the key that holds the lock, and ETCD_LOCK_REV, the revision at which it was had; and
/// HENGE_LOCK_FENCE, the fencing token: the create revision of that key, which is higher for each later holder. A lock can be lost without
/// anybody noticing, if its holder is paused for longer than the session's time to live. Changes that only its holder may make
/// belong in a transaction that compares: c("the key") = "the token". Other stores should refuse what comes with a lower token than they
/// have seen.
#[derive(Args, Debug)]
pub struct LockArgs {
    /// The name of the lock, and after it a command to run with its arguments (those that begin with `-` after a `--`)
    #[arg(value_name = "LOCKNAME [EXEC-COMMAND ARG1 ARG2 ...]")]
    words: Vec<OsString>,
    /// Timeout for session, in seconds
    #[arg(long, default_value_t = 10, value_parser = go::int)]
    ttl: i64,
}

/// Observes and participates in leader election
#[derive(Args, Debug)]
pub struct ElectArgs {
    /// The name of the election, and what to proclaim when elected
    #[arg(value_name = "ELECTION-NAME [PROPOSAL]")]
    words: Vec<OsString>,
    /// Observation mode: shows each leader
    #[arg(short, long)]
    listen: bool,
}

/// etcd's for a session that says nothing else, in seconds.
const SESSION_TTL_S: i64 = 60;

pub async fn lock(global: &Global, args: LockArgs) -> Result<(), Failure> {
    let mut words = args.words.into_iter();
    let Some(name) = words.next() else {
        return Err(Failure::args("lock takes a lock name argument and an optional command to execute"));
    };
    let command = words.collect::<Vec<_>>();
    let ttl_s = if args.ttl > 0 { args.ttl } else { SESSION_TTL_S };
    let (client, mut stop) = (global.client().await?, Stop::new()?);
    let session = client.session(ttl_s).await.map_err(Failure::error)?;
    let held = hold_lock(global, &client, &session, &mut stop, name.as_bytes(), &command).await;
    ended(session, held).await
}

async fn hold_lock(
    global: &Global,
    client: &Client,
    session: &Session,
    stop: &mut Stop,
    name: &[u8],
    command: &[OsString],
) -> Result<(), Failure> {
    let lock = stop.or(session.lock(name)).await?.map_err(|error| match error {
        Error::SessionExpired => Failure::error(format!("mutex: {error}")),
        error => Failure::error(error),
    })?;
    if let Some((program, arguments)) = command.split_first() {
        let ran = run(&lock, program, arguments).await;
        let unlocked = lock.unlock().await;
        ran?;
        unlocked.map_err(Failure::error)?;
        return Ok(());
    }
    let key = stop.or(client.get(lock.key().clone(), GetOptions::default())).await?.map_err(Failure::error)?;
    if key.kvs.is_empty() {
        return Err(Failure::error("lock lost on init"));
    }
    global.printer()?.print(&Answer::Get(key))?;
    tokio::select! {
        () = stop.told() => lock.unlock().await.map(drop).map_err(Failure::error),
        _ = lock.lost() => Err(Failure::error("session expired")),
    }
}

/// Runs a command to its end, whatever signals come meanwhile, and fails as it fails.
async fn run(lock: &Lock, program: &OsString, arguments: &[OsString]) -> Result<(), Failure> {
    let key = OsString::from_vec(lock.key().to_vec());
    let mut child = Command::new(program);
    child.args(arguments).env("ETCD_LOCK_KEY", key).env("ETCD_LOCK_REV", lock.header().revision.to_string());
    child.env("HENGE_LOCK_FENCE", lock.fence().to_string()).stdin(Stdio::null());
    let status = child.status().await.map_err(|error| Failure::error(system::not_started(program, &error)))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::of_child(u8::try_from(code).unwrap_or(u8::MAX), system::ended(status))),
        None => Err(Failure::of_child(u8::MAX, system::ended(status))),
    }
}

pub async fn elect(global: &Global, args: ElectArgs) -> Result<(), Failure> {
    match (args.words.as_slice(), args.listen) {
        ([_], false) => Err(Failure::args("no proposal argument but -l not set")),
        ([name], true) => observe(global, name.as_bytes()).await,
        ([_, _], true) => Err(Failure::args("proposal given but -l is set")),
        ([name, proposal], false) => {
            let (client, mut stop) = (global.client().await?, Stop::new()?);
            let session = client.session(SESSION_TTL_S).await.map_err(Failure::error)?;
            let proposal = Bytes::copy_from_slice(proposal.as_bytes());
            let led = lead(global, &client, &session, &mut stop, name.as_bytes(), proposal).await;
            ended(session, led).await
        }
        _ => Err(Failure::args("elect takes one election name argument and an optional proposal argument")),
    }
}

async fn lead(
    global: &Global,
    client: &Client,
    session: &Session,
    stop: &mut Stop,
    name: &[u8],
    proposal: Bytes,
) -> Result<(), Failure> {
    let leadership = stop.or(session.campaign(name, proposal)).await?.map_err(|error| match error {
        Error::SessionExpired => Failure::error("elect: session expired"),
        error => Failure::error(error),
    })?;
    let key = stop.or(client.get(leadership.key().clone(), GetOptions::default())).await?.map_err(Failure::error)?;
    global.printer()?.print(&Answer::Get(key))?;
    tokio::select! {
        () = stop.told() => leadership.resign().await.map(drop).map_err(Failure::error),
        _ = leadership.lost() => Err(Failure::error("elect: session expired")),
    }
}

async fn observe(global: &Global, name: &[u8]) -> Result<(), Failure> {
    let (printer, client, mut stop) = (global.printer()?, global.client().await?, Stop::new()?);
    let mut observer = client.observe(name);
    loop {
        tokio::select! {
            () = stop.told() => return Ok(()),
            leader = observer.next() => match leader {
                Ok(leader) => printer.print(&Answer::Get(leader))?,
                Err(error) => return Err(Failure::error(format!("elect: observer lost ({error})"))),
            }
        }
    }
}

/// Ends the session, so that nothing waits for its time to live; what went before decides how the program ends.
async fn ended(session: Session, how: Result<(), Failure>) -> Result<(), Failure> {
    if let Err(error) = session.end().await {
        tracing::debug!(%error, "the lease is left to run out");
    }
    how
}

/// SIGINT and SIGTERM, which end things in order.
struct Stop {
    signals: [Signal; 2],
    is_told: bool,
}

impl Stop {
    fn new() -> Result<Stop, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::io(format!("cannot listen to signals: {error}")));
        Ok(Stop { signals: [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?], is_told: false })
    }

    /// Returns once one has come.
    async fn told(&mut self) {
        let [interrupt, terminate] = &mut self.signals;
        if !self.is_told {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        self.is_told = true;
    }

    /// Waits for something, unless a signal comes first.
    async fn or<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.told() => Err(Failure::error("context canceled")),
            done = what => Ok(done),
        }
    }
}
