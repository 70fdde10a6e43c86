//! Clients that read, write and swap registers, and note what they see.

use crate::{
    history::{Action, Operation, Recorder, Value},
    random::Random,
};
use henge::{
    client::{Client, Compare, Error, GetOptions, Op, PutOptions, Txn},
    pb::etcdserverpb::{RangeResponse, ResponseHeader, response_op::Response},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What all clients of a run share.
#[derive(Debug)]
pub struct Workload {
    /// Where they note what they see.
    pub recorder: Recorder,
    /// Tells them to end.
    pub stop: AtomicBool,
    /// How many registers there are.
    pub keys: usize,
    /// Calls that certainly did nothing.
    pub failed: AtomicU64,
    last_value: AtomicU64,
}

/// What an answer said.
struct Answer {
    action: Action,
    header: Option<ResponseHeader>,
}

/// An answer that no server may give, whatever happens to it.
#[derive(Debug)]
pub struct Nonsense(pub String);

/// Why there is no answer.
enum Failure {
    Call(Error),
    Nonsense(Nonsense),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Call(error)
    }
}

impl Workload {
    /// One with `keys` registers.
    pub fn new(keys: usize) -> Arc<Workload> {
        Arc::new(Workload {
            recorder: Recorder::new(),
            stop: AtomicBool::new(false),
            keys,
            failed: AtomicU64::new(0),
            last_value: AtomicU64::new(0),
        })
    }

    /// Runs client number `number` until it is told to stop.
    ///
    /// # Errors
    /// [`Nonsense`], for an answer that is wrong by itself.
    pub async fn run(self: Arc<Workload>, client: Client, number: usize, mut random: Random) -> Result<(), Nonsense> {
        // What this client last saw in each register: what a swap expects. Often out of date, which is wanted.
        let mut seen: Vec<Value> = vec![None; self.keys];
        while !self.stop.load(Relaxed) {
            let key = random.below(self.keys as u64) as usize;
            let action = match random.below(4) {
                0 | 1 => Action::Read(None),
                2 => Action::Write(self.fresh_value()),
                _ => Action::Swap { from: seen[key], to: self.fresh_value() },
            };
            if let Some(saw) = self.call(&client, number, key, action).await? {
                seen[key] = saw;
            }
            tokio::time::sleep(Duration::from_micros(random.below(4000))).await;
        }
        Ok(())
    }

    /// Reads every register once, as client `number`.
    ///
    /// # Errors
    /// As [`Workload::run`].
    pub async fn read_all(&self, client: &Client, number: usize) -> Result<(), Nonsense> {
        for key in 0..self.keys {
            self.call(client, number, key, Action::Read(None)).await?;
        }
        Ok(())
    }

    fn fresh_value(&self) -> u64 {
        self.last_value.fetch_add(1, Relaxed) + 1
    }

    /// One call, noted. Returns what the register then held, if that is known.
    async fn call(
        &self,
        client: &Client,
        number: usize,
        key: usize,
        action: Action,
    ) -> Result<Option<Value>, Nonsense> {
        let called_ns = self.recorder.now_ns();
        let result = perform(client, key, action).await;
        let returned_ns = Some(self.recorder.now_ns());
        let operation = Operation { key, client: number, called_ns, returned_ns, action, revision: None };
        match result {
            Ok(Answer { action, header }) => {
                let revision = header.map(|header| header.revision);
                self.recorder.add(Operation { action, revision, ..operation });
                Ok(Some(action.writes().or(action.sees().flatten())))
            }
            Err(Failure::Nonsense(nonsense)) => Err(nonsense),
            Err(Failure::Call(error)) => {
                // A write that may have been applied stays open for ever; a read without an answer tells nothing.
                if action.writes().is_some() && error.may_have_been_applied() {
                    self.recorder.add(Operation { returned_ns: None, ..operation });
                } else {
                    self.failed.fetch_add(1, Relaxed);
                }
                Ok(None)
            }
        }
    }
}

/// The register's key in the store.
fn name(key: usize) -> String {
    format!("jepsen/{key}")
}

/// The content of a register, from an answer about it.
fn content(answer: &RangeResponse) -> Result<Value, Failure> {
    let Some(kv) = answer.kvs.first() else { return Ok(None) };
    let text = String::from_utf8_lossy(&kv.value);
    text.parse().map(Some).map_err(|_| Failure::Nonsense(Nonsense(format!("a register holds {text:?}"))))
}

async fn perform(client: &Client, key: usize, action: Action) -> Result<Answer, Failure> {
    let key = name(key);
    match action {
        Action::Read(_) | Action::Refused { .. } => {
            let answer = client.get(key, GetOptions::default()).await?;
            Ok(Answer { action: Action::Read(content(&answer)?), header: answer.header })
        }
        Action::Write(value) => {
            let answer = client.put(key, value.to_string(), PutOptions::default()).await?;
            Ok(Answer { action, header: answer.header })
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
            let action = match answer.responses.first().and_then(|step| step.response.as_ref()) {
                Some(Response::ResponsePut(_)) if answer.succeeded => action,
                Some(Response::ResponseRange(read)) if !answer.succeeded => {
                    Action::Refused { from, saw: content(read)? }
                }
                other => return Err(Failure::Nonsense(Nonsense(format!("a transaction answers {other:?}")))),
            };
            Ok(Answer { action, header: answer.header })
        }
    }
}
