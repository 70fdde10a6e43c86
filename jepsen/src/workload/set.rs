//! A set: clients add elements, one key each; readers bound to members read all of it now and then.

use super::{Boxed, Load, Nonsense, Tasks, Workload, pause};
use crate::{
    check::{
        Finding, Judgement,
        set::{Add, Read, check},
    },
    timeline::{End, Log},
};
use henge::{
    client::{Client, Error, GetOptions, PutOptions},
    pb::etcdserverpb::RangeResponse,
};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

const PREFIX: &str = "set/";

#[derive(Debug, Default)]
struct Set {
    adds: Log<Add>,
    reads: Log<Read>,
    last: AtomicU64,
}

/// A new, empty one.
pub fn make() -> Arc<dyn Workload> {
    Arc::new(Set::default())
}

async fn read(load: &Load, client: &Client) -> Result<RangeResponse, Error> {
    client
        .get(PREFIX, GetOptions { keys_only: true, serializable: load.stale_reads, ..GetOptions::prefix(PREFIX) })
        .await
}

fn elements(answer: &RangeResponse) -> Result<BTreeSet<u64>, Nonsense> {
    let element = |key: &[u8]| {
        let text = String::from_utf8_lossy(key);
        let number = text.strip_prefix(PREFIX).and_then(|number| number.parse().ok());
        number.ok_or_else(|| Nonsense(format!("the set holds {text:?}")))
    };
    answer.kvs.iter().map(|kv| element(&kv.key)).collect()
}

impl Set {
    async fn adder(self: Arc<Set>, load: Arc<Load>, number: usize) -> Result<(), Nonsense> {
        let client = load.client(number).await?;
        let mut random = load.random.part(number as u64);
        while !load.is_over() {
            let element = self.last.fetch_add(1, Relaxed) + 1;
            let put = client.put(format!("{PREFIX}{element}"), "", PutOptions::default());
            let call = load.call(number, "add", true, put).await;
            self.adds.add(Add { element, called_ns: call.called_ns, returned_ns: call.returned_ns, end: call.end });
            pause(&mut random, 30_000).await;
        }
        Ok(())
    }

    async fn reader(self: Arc<Set>, load: Arc<Load>, member: usize) -> Result<(), Nonsense> {
        let client = load.client(member).await?;
        let mut random = load.random.part(1000 + member as u64);
        while !load.is_over() {
            self.read(&load, &client, load.clients + member).await?;
            tokio::time::sleep(Duration::from_millis(400 + random.below(800))).await;
        }
        Ok(())
    }

    async fn read(&self, load: &Load, client: &Client, number: usize) -> Result<(), Nonsense> {
        let call = load.call(number, "read", false, read(load, client)).await;
        if let Ok(answer) = call.result {
            let (called_ns, returned_ns) = (call.called_ns, call.returned_ns);
            self.reads.add(Read { called_ns, returned_ns, elements: elements(&answer)? });
        }
        Ok(())
    }
}

impl Workload for Set {
    fn start(self: Arc<Self>, load: &Arc<Load>, tasks: &mut Tasks) {
        for number in 0..load.clients {
            tasks.spawn(self.clone().adder(load.clone(), number));
        }
        for member in 0..load.addresses.len() {
            tasks.spawn(self.clone().reader(load.clone(), member));
        }
    }

    fn finish<'a>(&'a self, load: &'a Load) -> Boxed<'a> {
        Box::pin(async move {
            // Each member's view of the end.
            for member in 0..load.addresses.len() {
                let client = load.client(member).await?;
                let called_ns = load.clock.now_ns();
                let answer = load.insist("the final read", || read(load, &client)).await?;
                self.reads.add(Read { called_ns, returned_ns: load.clock.now_ns(), elements: elements(&answer)? });
            }
            Ok(())
        })
    }

    fn judge(&self, folder: &Path) -> io::Result<Judgement> {
        let (adds, reads) = (self.adds.all(), self.reads.all());
        let mut file = BufWriter::new(fs::File::create(folder.join("history.txt"))?);
        for Add { element, called_ns, returned_ns, end } in &adds {
            writeln!(file, "add {element} {called_ns} {returned_ns} {end:?}")?;
        }
        for Read { called_ns, returned_ns, elements } in &reads {
            writeln!(file, "read {called_ns} {returned_ns} {} elements", elements.len())?;
        }
        file.flush()?;
        let mut judgement = Judgement::default();
        let last = reads.iter().max_by_key(|read| read.called_ns).map(|read| read.elements.clone()).unwrap_or_default();
        let late = adds.iter().filter(|add| add.end == End::Unknown && last.contains(&add.element)).count();
        let of = |end: End| adds.iter().filter(|add| add.end == end).count();
        let (added, open) = (of(End::Ok), of(End::Unknown));
        judgement.note(format!(
            "{added} elements added; of {open} without an answer {late} are there; {} reads",
            reads.len()
        ));
        let mut findings = check(&adds, &reads);
        findings.sort_by(|one, other| one.kind.cmp(&other.kind));
        for kind in findings.chunk_by(|one, other| one.kind == other.kind) {
            judgement.add(kind.iter().map(Finding::clone));
        }
        Ok(judgement)
    }
}
