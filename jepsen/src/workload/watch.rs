//! Watching: clients write, remove and write in pairs, while watchers note what they are told.
//!
//! Each member has a watcher that stays and one that leaves and comes back; one more reads history again and again.

use super::{Boxed, Load, Nonsense, Tasks, Workload, pause, uneven};
use crate::{
    check::{
        Finding, Judgement,
        watch::{Event, Final, Told, Watch, check},
    },
    random::Random,
    timeline::Log,
};
use henge::{
    client::{Client, DeleteOptions, Error, GetOptions, Op, PutOptions, Txn, WatchOptions},
    pb::{
        etcdserverpb::WatchResponse,
        mvccpb::{KeyValue, event::EventType},
    },
    types::Error::NotSupportedForLearner,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const PREFIX: &str = "watch/";
/// Longest time for a watcher to learn of the last change, once all faults have ended.
const LAST_MAX: Duration = Duration::from_secs(30);
/// Between two attempts to watch at a member that has no vote yet.
const LEARNER_PAUSE: Duration = Duration::from_millis(100);
/// How far back the reader of history begins, in revisions.
const HISTORY: i64 = 1000;

#[derive(Debug, Default)]
struct Watching {
    wrote: Log<Event>,
    watches: Log<Watch>,
    last_value: AtomicU64,
    /// The newest revision that an answer named.
    newest: AtomicI64,
    /// The revision that ends all watches; 0 while it is not written yet.
    end: AtomicI64,
    last: Mutex<Final>,
    /// Watchers outlive the load: they wait for the last change.
    watchers: tokio::sync::Mutex<Tasks>,
}

/// A new, empty one.
pub fn make() -> Arc<dyn Workload> {
    Arc::new(Watching::default())
}

/// How a watcher behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Stays with one watch.
    Stays,
    /// Leaves it now and then, and goes on from where it was.
    Returns,
    /// Begins again in the past now and then.
    ReadsHistory,
}

fn number(kv: &KeyValue) -> Result<u64, Nonsense> {
    let text = String::from_utf8_lossy(&kv.value);
    text.parse().map_err(|_| Nonsense(format!("a key holds {text:?}")))
}

fn key_of(kv: &KeyValue) -> String {
    String::from_utf8_lossy(&kv.key).into_owned()
}

/// What an answer tells.
fn told(answer: WatchResponse) -> Result<Vec<Told>, Nonsense> {
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    if answer.created {
        return Ok(Vec::new());
    }
    if answer.events.is_empty() {
        return Ok(vec![Told::Progress(revision)]);
    }
    let told = answer.events.into_iter().map(|event| {
        let kv = event.kv.as_ref().ok_or_else(|| Nonsense("an event without a key".into()))?;
        let value = if event.r#type() == EventType::Delete { None } else { Some(number(kv)?) };
        Ok(Told::Event(Event { revision: kv.mod_revision, key: key_of(kv), value }))
    });
    told.collect()
}

impl Watching {
    fn fresh(&self) -> u64 {
        self.last_value.fetch_add(1, Relaxed) + 1
    }

    async fn writer(self: Arc<Watching>, load: Arc<Load>, number: usize) -> Result<(), Nonsense> {
        let client = load.client(number).await?;
        let mut random = load.random.part(number as u64);
        while !load.is_over() {
            let mut key = || format!("{PREFIX}{}", uneven(&mut random, load.keys));
            let (one, other) = (key(), key());
            match random.below(8) {
                0 => self.delete(&load, &client, number, one).await,
                1 if one != other => self.pair(&load, &client, number, [one, other]).await,
                _ => drop(self.put(&load, &client, number, one).await),
            }
            pause(&mut random, 20_000).await;
        }
        Ok(())
    }

    fn note(&self, revision: i64, changes: impl IntoIterator<Item = (String, Option<u64>)>) {
        self.newest.fetch_max(revision, Relaxed);
        for (key, value) in changes {
            self.wrote.add(Event { revision, key, value });
        }
    }

    async fn put(&self, load: &Load, client: &Client, number: usize, key: String) -> Option<i64> {
        let value = self.fresh();
        let put = client.put(key.clone(), value.to_string(), PutOptions::default());
        let revision = load.call(number, "put", true, put).await.result.ok()?.header?.revision;
        self.note(revision, [(key, Some(value))]);
        Some(revision)
    }

    async fn pair(&self, load: &Load, client: &Client, number: usize, keys: [String; 2]) {
        let pairs = keys.map(|key| (key, self.fresh()));
        let txn = Txn::new().then(pairs.iter().map(|(key, value)| Op::put(key.clone(), value.to_string())));
        if let Ok(answer) = load.call(number, "txn", true, client.txn(txn)).await.result {
            let revision = answer.header.map_or(0, |header| header.revision);
            self.note(revision, pairs.map(|(key, value)| (key, Some(value))));
        }
    }

    async fn delete(&self, load: &Load, client: &Client, number: usize, key: String) {
        let delete = client.delete(key.clone(), DeleteOptions::default());
        if let Ok(answer) = load.call(number, "delete", true, delete).await.result {
            let changed = (answer.deleted > 0).then_some((key, None));
            self.note(answer.header.map_or(0, |header| header.revision), changed);
        }
    }

    async fn watcher(
        self: Arc<Watching>,
        load: Arc<Load>,
        client: usize,
        habit: Habit,
        mut random: Random,
    ) -> Result<(), Nonsense> {
        let name = format!("watcher {client} that {habit:?}");
        let client = load.client(client).await?;
        let mut watch = Watch { name, from: 1, upto: 0, told: Vec::new() };
        let mut next = 1;
        loop {
            let leaves = Duration::from_millis(500 + random.below(1500));
            let leaves = (habit != Habit::Stays).then(|| Instant::now() + leaves);
            let is_last = self.listen(&load, &client, &mut watch, &mut next, leaves, &mut random).await?;
            if is_last || habit == Habit::ReadsHistory {
                watch.upto = next - 1;
                let from = (self.newest.load(Relaxed) - HISTORY).max(1);
                let again = Watch { name: watch.name.clone(), from, upto: 0, told: Vec::new() };
                self.watches.add(std::mem::replace(&mut watch, again));
                next = from;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Notes what one watch tells from revision `next` on, until it `leaves` or has seen the last change. Returns whether it has.
    async fn listen(
        &self,
        load: &Load,
        client: &Client,
        watch: &mut Watch,
        next: &mut i64,
        leaves: Option<Instant>,
        random: &mut Random,
    ) -> Result<bool, Nonsense> {
        let from = |start_revision| {
            let options = WatchOptions { start_revision, progress_notify: true, ..WatchOptions::prefix(PREFIX) };
            client.watch(PREFIX, options)
        };
        let mut stream = from(*next);
        let mut ended: Option<Instant> = None;
        loop {
            let answer = tokio::time::timeout(Duration::from_millis(100), stream.next()).await;
            match answer {
                Ok(Some(Ok(answer))) => {
                    for told in told(answer)? {
                        if let Told::Event(event) = &told {
                            *next = (*next).max(event.revision + 1);
                        }
                        watch.told.push(told);
                    }
                }
                // A member that came back as a learner serves watchers when it has a vote again.
                Ok(Some(Err(cause))) if cause.is(&NotSupportedForLearner) => {
                    tokio::time::sleep(LEARNER_PAUSE).await;
                    stream = from(*next);
                }
                Ok(Some(Err(cause))) => return Err(Nonsense(format!("{} was ended: {cause}", watch.name))),
                Ok(None) => return Err(Nonsense(format!("{} was ended without a reason", watch.name))),
                Err(_) => {}
            }
            if random.below(20) == 0 {
                stream.request_progress();
            }
            let end = self.end.load(Relaxed);
            if end > 0 {
                if *next > end {
                    return Ok(true);
                }
                let since = *ended.get_or_insert_with(Instant::now);
                if since.elapsed() > LAST_MAX {
                    // What it was not told of will show as missing.
                    *next = end + 1;
                    return Ok(true);
                }
            } else if load.is_over() {
                continue;
            } else if leaves.is_some_and(|leaves| Instant::now() > leaves) {
                return Ok(false);
            }
        }
    }
}

impl Workload for Watching {
    fn start(self: Arc<Self>, load: &Arc<Load>, tasks: &mut Tasks) {
        for number in 0..load.clients {
            tasks.spawn(self.clone().writer(load.clone(), number));
        }
        let mut watchers = self.watchers.try_lock().expect("nobody else has it before the start");
        let members = load.addresses.len();
        let habits =
            (0..members * 2).map(|at| (at % members, if at < members { Habit::Stays } else { Habit::Returns }));
        for (at, (client, habit)) in habits.chain([(members, Habit::Stays), (members, Habit::ReadsHistory)]).enumerate()
        {
            let random = load.random.part(2000 + at as u64);
            watchers.spawn(self.clone().watcher(load.clone(), client, habit, random));
        }
    }

    fn finish<'a>(&'a self, load: &'a Load) -> Boxed<'a> {
        Box::pin(async move {
            let client = load.any_client().await?;
            let end = load
                .insist("the last write", async || {
                    let put = self.put(load, &client, load.clients, format!("{PREFIX}end")).await;
                    put.ok_or_else(|| Error::Unreachable("see the timeline".into()))
                })
                .await?;
            let read = async || client.get(PREFIX, GetOptions { revision: end, ..GetOptions::prefix(PREFIX) }).await;
            let answer = load.insist("the final read", read).await?;
            let mut keys = BTreeMap::new();
            for kv in &answer.kvs {
                keys.insert(key_of(kv), (number(kv)?, kv.mod_revision));
            }
            *self.last.lock().expect("no thread panics while it has it") = Final { revision: end, keys };
            self.end.store(end, Relaxed);
            let mut watchers = self.watchers.lock().await;
            while let Some(ended) = watchers.join_next().await {
                ended.map_err(|cause| Nonsense(cause.to_string()))??;
            }
            Ok(())
        })
    }

    fn judge(&self, folder: &Path) -> io::Result<Judgement> {
        let (watches, wrote) = (self.watches.all(), self.wrote.all());
        let mut file = BufWriter::new(fs::File::create(folder.join("history.txt"))?);
        for event in &wrote {
            writeln!(file, "wrote {event:?}")?;
        }
        for watch in &watches {
            writeln!(file, "{} from {} up to {}", watch.name, watch.from, watch.upto)?;
            for told in &watch.told {
                writeln!(file, "  {told:?}")?;
            }
        }
        file.flush()?;
        let told: usize = watches.iter().map(|watch| watch.told.len()).sum();
        let progress =
            watches.iter().flat_map(|watch| &watch.told).filter(|told| matches!(told, Told::Progress(_))).count();
        let mut judgement = Judgement::default();
        judgement.note(format!(
            "{} changes acknowledged; {} watches were told {told} things, {progress} of them progress",
            wrote.len(),
            watches.len()
        ));
        let last = self.last.lock().expect("no thread panics while it has it").clone();
        if last.revision == 0 {
            return Ok(judgement);
        }
        let tried = (1..=self.last_value.load(Relaxed)).collect();
        let mut findings = check(&watches, &wrote, &tried, &last);
        findings.sort_by(|one, other| one.kind.cmp(&other.kind));
        for kind in findings.chunk_by(|one, other| one.kind == other.kind) {
            judgement.add(kind.iter().map(Finding::clone));
        }
        Ok(judgement)
    }
}
