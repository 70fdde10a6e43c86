//! make-mirror: keeps the keys of one cluster in another, for as long as it runs.
//!
//! First everything as of one revision, in steps; then every change from there on, each revision in a transaction of its own. Leases and
//! revisions are not carried over: the mirror has its own.

use super::{failure::Failure, global::Global, password, system};
use crate::{
    client::{Client, ConnectOptions, DeleteOptions, GetOptions, Op, TlsOptions, Txn, WatchOptions, kv::OPEN_END},
    go,
    pb::mvccpb::{Event, KeyValue, event::EventType},
};
use bytes::Bytes;
use clap::ArgAction;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal as _,
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::time::{Interval, interval_at};

/// Keys in one step of the first pass.
const STEP_KEYS: i64 = 1_000;
/// Bytes in one transaction of the first pass: well below what a member takes.
const TXN_BYTES: usize = 512 << 10;
/// Between two lines that tell how many keys were mirrored so far.
const REPORT: Duration = Duration::from_secs(30);
/// One call may take so long at least: thousands of keys are no short command.
const CALL: Duration = Duration::from_secs(60);
/// How often a write is repeated of which nobody knows whether it has happened.
const REPEATS_MAX: usize = 5;

/// Keeps a mirror.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Endpoint of the destination cluster
    #[arg(value_name = "DESTINATION")]
    destination: Vec<String>,
    /// Mirror keys with this prefix alone
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// Mirror changes from this revision on; without it everything that is there comes first
    #[arg(long, default_value_t = 0, value_parser = go::int)]
    rev: i64,
    /// Most operations in one transaction at the destination
    #[arg(long, default_value_t = 128, value_parser = txn_ops)]
    max_txn_ops: u32,
    /// Prefix at the destination, in place of --prefix
    #[arg(long, default_value = "", hide_default_value = true)]
    dest_prefix: String,
    /// No prefix at the destination: what follows --prefix is the key
    #[arg(long)]
    no_dest_prefix: bool,
    /// Client certificate for the destination
    #[arg(long, default_value = "", hide_default_value = true)]
    dest_cert: String,
    /// Key of that certificate
    #[arg(long, default_value = "", hide_default_value = true)]
    dest_key: String,
    /// CA bundle to verify the destination with
    #[arg(long, default_value = "", hide_default_value = true)]
    dest_cacert: String,
    /// Disable transport security for a destination without a scheme, unless a certificate is given
    #[arg(long, num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = go::boolean,
        default_value = "true", default_missing_value = "true")]
    dest_insecure_transport: bool,
    /// User and password at the destination as name[:password]; without a password it is asked for
    #[arg(long, default_value = "", hide_default_value = true)]
    dest_user: String,
    /// Password at the destination; then --dest-user is the name alone
    #[arg(long, default_value = "", hide_default_value = true)]
    dest_password: String,
}

impl Args {
    /// How to connect to the destination: as to the source, but for certificates and users.
    fn options(&self, of_source: ConnectOptions) -> Result<ConnectOptions, Failure> {
        let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        if self.dest_cert.is_empty() != self.dest_key.is_empty() {
            let (key, cert) = (&self.dest_key, &self.dest_cert);
            return Err(Failure::args(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")));
        }
        let tls = TlsOptions {
            identity: path(&self.dest_cert).zip(path(&self.dest_key)),
            trusted_ca_file: path(&self.dest_cacert),
            ..TlsOptions::default()
        };
        let tls = (tls != TlsOptions::default() || !self.dest_insecure_transport).then_some(tls);
        Ok(ConnectOptions { tls, user: self.login()?, token: None, ..of_source })
    }

    fn login(&self) -> Result<Option<(String, String)>, Failure> {
        let own = |(name, password): (&str, &str)| Some((name.to_owned(), password.to_owned()));
        Ok(match (self.dest_user.as_str(), self.dest_password.as_str()) {
            ("", _) => None,
            (user, "") => match user.split_once(':') {
                Some(both) => own(both),
                None => {
                    let typed = password::ask("Destination Password: ");
                    let password = typed.map_err(|error| Failure::error(system::cause(&error)))?;
                    own((user, &password))
                }
            },
            both => own(both),
        })
    }

    /// What the keys of the mirror begin with in place of the prefix.
    fn renaming(&self) -> Result<Renaming, Failure> {
        let to = match (self.no_dest_prefix, self.dest_prefix.as_str()) {
            (true, "") => "",
            (true, _) => {
                let text = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
                return Err(Failure::args(text));
            }
            (false, "") => &self.prefix,
            (false, prefix) => prefix,
        };
        Ok(Renaming { from: self.prefix.clone(), to: to.to_owned() })
    }
}

/// At least one: with none nothing could be written.
fn txn_ops(text: &str) -> Result<u32, String> {
    let ops = u32::try_from(go::uint(text)?).unwrap_or(u32::MAX);
    if ops > 0 { Ok(ops) } else { Err("it must be 1 or more".to_owned()) }
}

pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let [destination] = &args.destination[..] else {
        return Err(Failure::args("make-mirror takes one destination argument"));
    };
    let renaming = args.renaming()?;
    let calls = ConnectOptions { request_timeout: Some(global.command_timeout.max(CALL)), ..global.connection() };
    // As in etcdctl the passwords are asked for in this order.
    let destination = Client::connect([destination], args.options(calls.clone())?).await?;
    let destination = global.logged_in(destination).await?;
    let calls = ConnectOptions { user: global.options()?.user, ..calls };
    let source = global.logged_in(Client::connect(global.endpoints(), calls).await?).await?;
    let mut mirror = Mirror {
        source,
        destination,
        renaming,
        ops_max: args.max_txn_ops as usize,
        mirrored: 0,
        progress: Progress::start(),
    };
    let next = if args.rev > 1 { args.rev } else { mirror.copy().await? + 1 };
    mirror.follow(next).await
}

/// Keys below one prefix, as they are named below another.
#[derive(Debug)]
struct Renaming {
    from: String,
    to: String,
}

impl Renaming {
    fn key(&self, key: &[u8]) -> Bytes {
        let rest = key.strip_prefix(self.from.as_bytes()).unwrap_or(key);
        [self.to.as_bytes(), rest].concat().into()
    }

    fn op(&self, event: &Event) -> Option<Op> {
        let kv = event.kv.as_ref()?;
        Some(match event.r#type() {
            EventType::Put => self.put(kv),
            EventType::Delete => Op::delete(self.key(&kv.key)),
        })
    }

    fn put(&self, kv: &KeyValue) -> Op {
        Op::put(self.key(&kv.key), kv.value.clone())
    }
}

struct Mirror {
    source: Client,
    destination: Client,
    renaming: Renaming,
    ops_max: usize,
    mirrored: u64,
    progress: Progress,
}

impl Mirror {
    /// Copies all keys as of now, and tells as of which revision that is.
    async fn copy(&mut self) -> Result<i64, Failure> {
        let prefix = Bytes::from(self.renaming.from.clone());
        let range_end = DeleteOptions::prefix(&prefix).range_end;
        let mut key = if prefix.is_empty() { Bytes::from_static(OPEN_END) } else { prefix };
        let mut revision = 0;
        loop {
            let step = GetOptions { range_end: range_end.clone(), limit: STEP_KEYS, revision, ..GetOptions::default() };
            let answer = self.source.get(key, step).await?;
            if revision == 0 {
                // All later steps are as of this one, whatever is written meanwhile.
                revision = answer.header.map_or(0, |header| header.revision);
                self.progress.expect(answer.count);
            }
            for batch in batches(&answer.kvs, self.ops_max) {
                let puts = batch.iter().map(|kv| self.renaming.put(kv)).collect();
                self.write(puts).await?;
            }
            match answer.kvs.last() {
                Some(last) if answer.more => key = [&last.key[..], b"\0"].concat().into(),
                _ => return Ok(revision),
            }
        }
    }

    /// Repeats every change from revision `next` on.
    async fn follow(&mut self, next: i64) -> Result<(), Failure> {
        let prefix = Bytes::from(self.renaming.from.clone());
        let options = WatchOptions { start_revision: next, ..WatchOptions::prefix(&prefix) };
        let key = if prefix.is_empty() { Bytes::from_static(OPEN_END) } else { prefix };
        let mut watcher = self.source.watch(key, options);
        loop {
            let answer = tokio::select! {
                answer = watcher.next() => answer,
                () = self.progress.due() => {
                    self.progress.report(self.mirrored);
                    continue;
                }
            };
            let Some(answer) = answer else { return Err(Failure::error("the watch of the source ended")) };
            let revision_of = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            for change in answer?.events.chunk_by(|one, next| revision_of(one) == revision_of(next)) {
                for part in change.chunks(self.ops_max) {
                    let ops = part.iter().filter_map(|event| self.renaming.op(event)).collect();
                    self.write(ops).await?;
                }
                self.progress.reached(change.first().map_or(0, revision_of));
            }
        }
    }

    /// Writes at the destination. To write the same once more does no harm here.
    async fn write(&mut self, ops: Vec<Op>) -> Result<(), Failure> {
        let mut repeats = 0;
        loop {
            match self.destination.txn(Txn::new().then(ops.clone())).await {
                Ok(_) => break,
                Err(error) if error.may_have_been_applied() && repeats < REPEATS_MAX => repeats += 1,
                Err(error) => return Err(error.into()),
            }
        }
        self.mirrored += ops.len() as u64;
        self.progress.done(self.mirrored);
        Ok(())
    }
}

/// Runs of keys that fit into one transaction each: at least one key, at most `ops_max`, and not too many bytes.
fn batches(kvs: &[KeyValue], ops_max: usize) -> Vec<&[KeyValue]> {
    let (mut batches, mut rest) = (Vec::new(), kvs);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take(ops_max).take_while(|kv| {
            bytes += kv.key.len() + kv.value.len();
            bytes <= TXN_BYTES
        });
        let (batch, more) = rest.split_at(fit.count().max(1));
        batches.push(batch);
        rest = more;
    }
    batches
}

/// How far it has come: a number from time to time, as etcdctl prints it; on a terminal a line that lives.
struct Progress {
    bar: ProgressBar,
    reports: Interval,
}

impl Progress {
    fn start() -> Progress {
        let reports = interval_at((Instant::now() + REPORT).into(), REPORT);
        if !std::io::stderr().is_terminal() {
            return Progress { bar: ProgressBar::hidden(), reports };
        }
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} keys {per_sec} {msg}");
        Progress { bar: ProgressBar::new(0).with_style(style.expect("a constant template is valid")), reports }
    }

    /// So many keys are to be copied.
    fn expect(&self, keys: i64) {
        self.bar.set_length(u64::try_from(keys).unwrap_or(0));
    }

    fn done(&self, mirrored: u64) {
        self.bar.set_position(mirrored);
    }

    /// The copy is complete; from now on changes are counted.
    fn reached(&self, revision: i64) {
        self.bar.set_length(self.bar.position());
        self.bar.set_message(format!("up to revision {revision}"));
    }

    async fn due(&mut self) {
        self.reports.tick().await;
    }

    fn report(&self, mirrored: u64) {
        self.bar.suspend(|| println!("{mirrored}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        args: Args,
    }

    fn args(flags: &[&str]) -> Args {
        Flags::parse_from(["make-mirror", "a:1"].iter().chain(flags)).args
    }

    #[test]
    fn keys_change_their_prefix_and_nothing_else() {
        let key = |flags: &[&str], key: &str| args(flags).renaming().map(|renaming| renaming.key(key.as_bytes()));
        let own = |text: &'static str| Ok(Bytes::from(text));
        assert_eq!(key(&[], "a/b"), own("a/b"));
        assert_eq!(key(&["--prefix=a/"], "a/a/b"), own("a/a/b"));
        assert_eq!(key(&["--prefix=a/", "--dest-prefix=z"], "a/a/b"), own("za/b"));
        assert_eq!(key(&["--prefix=a/", "--no-dest-prefix"], "a/a/b"), own("a/b"));
        assert_eq!(key(&["--dest-prefix=z/"], "a"), own("z/a"));
        assert!(key(&["--dest-prefix=z/", "--no-dest-prefix"], "a").is_err());
    }

    #[test]
    fn the_destination_has_certificates_and_users_of_its_own() {
        let source = ConnectOptions { user: Some(("a".into(), "b".into())), ..ConnectOptions::default() };
        let options = |flags: &[&str]| args(flags).options(source.clone()).expect("flags that fit");
        assert_eq!((options(&[]).tls, options(&[]).user), (None, None));
        assert_eq!(options(&["--dest-insecure-transport=false"]).tls, Some(TlsOptions::default()));
        let trusted_ca_file = Some("ca.pem".into());
        assert_eq!(
            options(&["--dest-cacert=ca.pem"]).tls,
            Some(TlsOptions { trusted_ca_file, ..TlsOptions::default() })
        );
        let user = |flags| options(flags).user;
        assert_eq!(user(&["--dest-user=r:p:q"]), Some(("r".into(), "p:q".into())));
        assert_eq!(user(&["--dest-user=r:p", "--dest-password=q"]), Some(("r:p".into(), "q".into())));
        assert!(args(&["--dest-cert=a"]).options(source).is_err());
    }

    #[test]
    fn a_batch_is_bounded_in_keys_and_bytes_and_never_empty() {
        let kv = |bytes: usize| KeyValue { key: "k".into(), value: vec![0; bytes].into(), ..KeyValue::default() };
        let sizes = |kvs: &[KeyValue]| batches(kvs, 3).iter().map(|batch| batch.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&vec![kv(1); 7]), [3, 3, 1]);
        assert_eq!(sizes(&[kv(TXN_BYTES), kv(1), kv(TXN_BYTES / 2), kv(TXN_BYTES)]), [1, 2, 1]);
    }
}
