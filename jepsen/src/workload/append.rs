//! Lists: clients run transactions of several appends and reads.
//!
//! A list is a key whose value is its elements with spaces between. A transaction reads the lists that it appends to, and then
//! commits everything in one step of the server, on condition that none of these has changed. All that it reads comes from that
//! one step.

use super::{Boxed, Load, Nonsense, Tasks, Workload, pause};
use crate::{
    check::{
        Finding, Judgement,
        append::{Step, Txn, check},
    },
    random::Random,
    timeline::{End, Log},
};
use henge::{
    client::{self, Client, Compare, Error, GetOptions, Op},
    pb::etcdserverpb::{RangeResponse, TxnResponse, response_op::Response},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A list gets this many elements before another takes its place: answers stay small.
const ELEMENTS_PER_KEY: u64 = 200;
/// Tries of a transaction whose lists change under it.
const TRIES_MAX: usize = 4;

#[derive(Debug, Default)]
struct Lists {
    txns: Log<Txn>,
    last: AtomicU64,
    keys: AtomicU64,
}

/// A new, empty one.
pub fn make() -> Arc<dyn Workload> {
    Arc::new(Lists::default())
}

fn name(key: u64) -> String {
    format!("list/{key}")
}

fn elements(read: &RangeResponse) -> Result<Vec<u64>, String> {
    let Some(kv) = read.kvs.first() else { return Ok(Vec::new()) };
    let text = String::from_utf8_lossy(&kv.value);
    text.split(' ').map(|one| one.parse().map_err(|_| format!("a list holds {text:?}"))).collect()
}

fn read_answers(answer: &TxnResponse) -> impl Iterator<Item = &RangeResponse> {
    answer.responses.iter().filter_map(|step| match &step.response {
        Some(Response::ResponseRange(read)) => Some(read),
        _ => None,
    })
}

/// How a transaction went: committed with these steps, or refused because its lists changed.
type Outcome = Result<Option<Vec<Step>>, String>;

impl Lists {
    fn steps(&self, load: &Load, random: &mut Random) -> Vec<Step> {
        let keys = load.keys as u64;
        let mut appended = BTreeSet::new();
        let steps = (0..1 + random.below(4)).map(|_| {
            let turn = self.last.load(Relaxed) / (ELEMENTS_PER_KEY * keys);
            let key = turn * keys + random.below(keys);
            self.keys.fetch_max(key + 1, Relaxed);
            // The server takes one put of a key in a transaction.
            if random.below(2) == 0 && appended.insert(key) {
                Step::Append { key, element: self.last.fetch_add(1, Relaxed) + 1 }
            } else {
                Step::Read { key, saw: None }
            }
        });
        steps.collect()
    }

    async fn client(self: Arc<Lists>, load: Arc<Load>, number: usize) -> Result<(), Nonsense> {
        let client = load.client(number).await?;
        let mut random = load.random.part(number as u64);
        while !load.is_over() {
            let steps = self.steps(&load, &mut random);
            self.txn(&load, &client, number, steps).await?;
            pause(&mut random, 8000).await;
        }
        Ok(())
    }

    /// Runs one transaction and notes it.
    async fn txn(&self, load: &Load, client: &Client, number: usize, steps: Vec<Step>) -> Result<(), Nonsense> {
        let writes = steps.iter().any(|step| matches!(step, Step::Append { .. }));
        let what = if writes { "append" } else { "read" };
        let call = load.call(number, what, writes, run(load, client, &steps)).await;
        let (called_ns, returned_ns) = (call.called_ns, call.returned_ns);
        let (end, steps) = match call.result {
            Err(_) => (call.end, steps),
            Ok(outcome) => match outcome.map_err(Nonsense)? {
                Some(done) => (End::Ok, done),
                None => (End::Failed, steps),
            },
        };
        // What failed and appended nothing tells nothing.
        if end == End::Ok || writes {
            self.txns.add(Txn { client: number, called_ns, returned_ns, end, steps });
        }
        Ok(())
    }
}

/// Reads the lists to append to, then commits; again if they have changed meanwhile.
///
/// An error of the first read is one before anything was proposed; it must not look as if something may have happened.
async fn run(load: &Load, client: &Client, steps: &[Step]) -> Result<Outcome, Error> {
    let appends: BTreeSet<u64> =
        steps.iter().filter_map(|step| if let Step::Append { key, .. } = step { Some(*key) } else { None }).collect();
    for _ in 0..TRIES_MAX {
        let mut lists: BTreeMap<u64, (i64, String)> = BTreeMap::new();
        if !appends.is_empty() {
            let reads = client::Txn::new().then(appends.iter().map(|key| Op::get(name(*key))));
            let answer = client.txn(reads).await.map_err(|cause| Error::Unreachable(cause.to_string()))?;
            for (key, read) in appends.iter().zip(read_answers(&answer)) {
                let kv = read.kvs.first();
                let text = kv.map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).unwrap_or_default();
                lists.insert(*key, (kv.map_or(0, |kv| kv.mod_revision), text));
            }
        }
        let unchanged = lists
            .iter()
            .map(|(key, (revision, _))| Compare::mod_revision(name(*key)).equal(*revision))
            .collect::<Vec<_>>();
        let ops: Vec<Op> = steps
            .iter()
            .map(|step| match step {
                Step::Read { key, .. } => {
                    Op::get_with(name(*key), GetOptions { serializable: load.stale_reads, ..GetOptions::default() })
                }
                Step::Append { key, element } => {
                    let before = lists.get(key).map_or("", |(_, text)| text);
                    let space = if before.is_empty() { "" } else { " " };
                    Op::put(name(*key), format!("{before}{space}{element}"))
                }
            })
            .collect();
        let answer = client.txn(client::Txn::new().when(unchanged).then(ops)).await?;
        if answer.succeeded {
            return Ok(committed(steps, &answer).map(Some));
        }
    }
    Ok(Ok(None))
}

/// The steps with what the answer says.
fn committed(steps: &[Step], answer: &TxnResponse) -> Result<Vec<Step>, String> {
    if answer.responses.len() != steps.len() {
        return Err(format!("{} steps have {} answers", steps.len(), answer.responses.len()));
    }
    let pair = |(step, answer): (&Step, Option<&Response>)| match (step, answer) {
        (Step::Append { .. }, Some(Response::ResponsePut(_))) => Ok(step.clone()),
        (Step::Read { key, .. }, Some(Response::ResponseRange(read))) => {
            Ok(Step::Read { key: *key, saw: Some(elements(read)?) })
        }
        other => Err(format!("a step and its answer do not match: {other:?}")),
    };
    steps.iter().zip(answer.responses.iter().map(|one| one.response.as_ref())).map(pair).collect()
}

impl Workload for Lists {
    fn start(self: Arc<Self>, load: &Arc<Load>, tasks: &mut Tasks) {
        for number in 0..load.clients {
            tasks.spawn(self.clone().client(load.clone(), number));
        }
    }

    fn finish<'a>(&'a self, load: &'a Load) -> Boxed<'a> {
        Box::pin(async move {
            let client = load.any_client().await?;
            for key in 0..self.keys.load(Relaxed) {
                let steps = [Step::Read { key, saw: None }];
                let called_ns = load.clock.now_ns();
                let outcome = load.insist("the final read", || run(load, &client, &steps)).await?;
                if let Some(steps) = outcome.map_err(Nonsense)? {
                    let returned_ns = load.clock.now_ns();
                    self.txns.add(Txn { client: load.clients, called_ns, returned_ns, end: End::Ok, steps });
                }
            }
            Ok(())
        })
    }

    fn judge(&self, folder: &Path) -> io::Result<Judgement> {
        let mut txns = self.txns.all();
        txns.sort_by_key(|txn| txn.called_ns);
        let mut file = BufWriter::new(fs::File::create(folder.join("history.txt"))?);
        for txn in &txns {
            writeln!(file, "{txn}")?;
        }
        file.flush()?;
        let of = |end: End| txns.iter().filter(|txn| txn.end == end).count();
        let mut judgement = Judgement::default();
        judgement.note(format!(
            "{} transactions committed, {} refused, {} without an answer, on {} lists",
            of(End::Ok),
            of(End::Failed),
            of(End::Unknown),
            self.keys.load(Relaxed)
        ));
        let mut findings = check(&txns);
        findings.sort_by(|one, other| one.kind.cmp(&other.kind));
        for kind in findings.chunk_by(|one, other| one.kind == other.kind) {
            judgement.add(kind.iter().map(Finding::clone));
        }
        Ok(judgement)
    }
}
