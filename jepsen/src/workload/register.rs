//! Registers: clients read, write and swap.

use super::{Boxed, Load, Nonsense, Tasks, Timed, Workload, pause};
use crate::{
    check::{
        Finding, Judgement,
        history::{self, Action, Operation, Value},
        linear::{self, Verdict},
        order,
    },
    timeline::{End, Log},
};
use henge::{
    client::{Client, Compare, Error, GetOptions, Op, PutOptions, Txn},
    pb::etcdserverpb::{RangeResponse, ResponseHeader, TxnResponse, response_op::Response},
};
use std::{
    fs,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Steps of the search for one register. A sane history needs a few for each call.
const STEPS_MAX: u64 = 50_000_000;
/// Calls on one register before the next one takes its place; the search remembers a bit for each call at each step.
const CALLS_PER_KEY: u64 = 1500;

#[derive(Debug, Default)]
struct Registers {
    operations: Log<Operation>,
    last_value: AtomicU64,
    calls: AtomicU64,
    keys: AtomicU64,
}

/// A new, empty one.
pub fn make() -> Arc<dyn Workload> {
    Arc::new(Registers::default())
}

/// What an answer said.
struct Answer {
    action: Action,
    header: Option<ResponseHeader>,
}

impl Registers {
    /// The register for the next call: one of those in use now.
    fn next_key(&self, load: &Load, chance: u64) -> usize {
        let keys = load.keys as u64;
        let turn = self.calls.fetch_add(1, Relaxed) / (CALLS_PER_KEY * keys);
        let key = turn * keys + chance % keys;
        self.keys.fetch_max(key + 1, Relaxed);
        key as usize
    }

    async fn client(self: Arc<Registers>, load: Arc<Load>, number: usize) -> Result<(), Nonsense> {
        let client = load.client(number).await?;
        let mut random = load.random.part(number as u64);
        // What this client last saw, and where: what a swap expects. Often out of date, which is wanted.
        let mut seen: Vec<(usize, Value)> = vec![(usize::MAX, None); load.keys];
        while !load.is_over() {
            let key = self.next_key(&load, random.below(u64::MAX));
            let slot = key % load.keys;
            let known = if seen[slot].0 == key { seen[slot].1 } else { None };
            let fresh = || self.last_value.fetch_add(1, Relaxed) + 1;
            let action = match random.below(4) {
                0 | 1 => Action::Read(None),
                2 => Action::Write(fresh()),
                _ => Action::Swap { from: known, to: fresh() },
            };
            if let Some(saw) = self.call(&load, &client, number, key, action).await? {
                seen[slot] = (key, saw);
            }
            pause(&mut random, 8000).await;
        }
        Ok(())
    }

    /// One call, noted. Returns what the register then held, if that is known.
    async fn call(
        &self,
        load: &Load,
        client: &Client,
        number: usize,
        key: usize,
        action: Action,
    ) -> Result<Option<Value>, Nonsense> {
        let what = match action {
            Action::Read(_) | Action::Refused { .. } => "read",
            Action::Write(_) => "write",
            Action::Swap { .. } => "swap",
        };
        let writes = action.writes().is_some();
        let Timed { called_ns, returned_ns, end, result } =
            load.call(number, what, writes, perform(load, client, key, action)).await;
        let operation =
            Operation { key, client: number, called_ns, returned_ns: Some(returned_ns), action, revision: None };
        match result {
            Ok(answer) => {
                let Answer { action, header } = answer.map_err(Nonsense)?;
                let revision = header.map(|header| header.revision);
                self.operations.add(Operation { action, revision, ..operation });
                Ok(Some(action.writes().or(action.sees().flatten())))
            }
            Err(_) => {
                // A write that may have been applied stays open for ever; a read without an answer tells nothing.
                if end == End::Unknown {
                    self.operations.add(Operation { returned_ns: None, ..operation });
                }
                Ok(None)
            }
        }
    }
}

impl Workload for Registers {
    fn start(self: Arc<Self>, load: &Arc<Load>, tasks: &mut Tasks) {
        for number in 0..load.clients {
            tasks.spawn(self.clone().client(load.clone(), number));
        }
    }

    fn finish<'a>(&'a self, load: &'a Load) -> Boxed<'a> {
        Box::pin(async move {
            let client = load.any_client().await?;
            let keys = self.keys.load(Relaxed);
            // The registers that were in use last; those before are settled.
            for key in keys.saturating_sub(load.keys as u64)..keys {
                self.call(load, &client, load.clients, key as usize, Action::Read(None)).await?;
            }
            Ok(())
        })
    }

    fn judge(&self, folder: &Path) -> io::Result<Judgement> {
        let mut operations = self.operations.all();
        operations.sort_by_key(|operation| operation.called_ns);
        write_history(&folder.join("history.txt"), &operations)?;
        let mut judgement = Judgement::default();
        let registers = history::by_key(&operations);
        judgement.note(format!("{} calls on {} registers", operations.len(), registers.len()));
        for (key, operations) in registers {
            match linear::check(&operations, STEPS_MAX) {
                Verdict::Linearizable => {}
                Verdict::Undecided => {
                    let what =
                        format!("register {key}: no verdict after {STEPS_MAX} steps ({} calls)", operations.len());
                    judgement.undecided.push(Finding::new("linearizable", what));
                }
                Verdict::Violation { stuck, explained } => {
                    let after: Vec<String> =
                        explained[explained.len().saturating_sub(10)..].iter().map(|one| format!("  {one}")).collect();
                    let what = format!("register {key}: no order explains\n  {stuck}\nafter\n{}", after.join("\n"));
                    judgement.add([Finding::new("not linearizable", what).at(stuck.called_ns)]);
                }
            }
        }
        if let Some(order::Inversion { earlier, later }) = order::check(&operations) {
            let what = format!("a later call names an older revision:\n  {earlier}\n  {later}");
            judgement.add([Finding::new("revisions not in order", what).at(later.called_ns)]);
        }
        Ok(judgement)
    }
}

fn write_history(path: &Path, history: &[Operation]) -> io::Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    writeln!(file, "# called and returned in ms since the start; ? is a call without an answer; @ is the revision")?;
    for operation in history {
        writeln!(file, "{operation}")?;
    }
    file.flush()
}

/// The register's key in the store.
fn name(key: usize) -> String {
    format!("jepsen/{key}")
}

/// The content of a register, from an answer about it.
fn content(answer: &RangeResponse) -> Result<Value, String> {
    let Some(kv) = answer.kvs.first() else { return Ok(None) };
    let text = String::from_utf8_lossy(&kv.value);
    text.parse().map(Some).map_err(|_| format!("a register holds {text:?}"))
}

/// Makes the call; what comes back inside is the answer, or what is wrong with it in itself.
async fn perform(load: &Load, client: &Client, key: usize, action: Action) -> Result<Result<Answer, String>, Error> {
    let key = name(key);
    match action {
        Action::Read(_) | Action::Refused { .. } => {
            let answer =
                client.get(key, GetOptions { serializable: load.stale_reads, ..GetOptions::default() }).await?;
            let read = content(&answer);
            Ok(read.map(|read| Answer { action: Action::Read(read), header: answer.header }))
        }
        Action::Write(value) => {
            let answer = client.put(key, value.to_string(), PutOptions::default()).await?;
            Ok(Ok(Answer { action, header: answer.header }))
        }
        Action::Swap { from, to } => {
            let expected = match from {
                Some(from) => Compare::value(key.clone()).equal(from.to_string()),
                None => Compare::create_revision(key.clone()).equal(0),
            };
            // What made it fail is read in the same step, so that a refusal tells as much as a read.
            let txn =
                Txn::new().when([expected]).then([Op::put(key.clone(), to.to_string())]).otherwise([Op::get(key)]);
            let answer = client.txn(txn).await?;
            Ok(swapped(from, to, &answer).map(|action| Answer { action, header: answer.header }))
        }
    }
}

/// What a swap did, from its answer.
fn swapped(from: Value, to: u64, answer: &TxnResponse) -> Result<Action, String> {
    match answer.responses.first().and_then(|step| step.response.as_ref()) {
        Some(Response::ResponsePut(_)) if answer.succeeded => Ok(Action::Swap { from, to }),
        Some(Response::ResponseRange(read)) if !answer.succeeded => Ok(Action::Refused { from, saw: content(read)? }),
        other => Err(format!("a transaction answers {other:?}")),
    }
}
