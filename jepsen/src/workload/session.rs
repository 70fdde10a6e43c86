//! Sessions: each client asks now this proxy, now that one, and brings the newest revision that it has seen.
//!
//! Some reads ask for an answer of a certain age, some for one of now. Writes go the same ways, and are part of what was seen.

use super::{Boxed, Load, Nonsense, RARE, Tasks, Workload, pause, uneven};
use crate::{
    check::{
        Finding, Judgement,
        session::{Look, Wish, Wrote, check, show},
    },
    cluster,
    random::Random,
    timeline::{End, Log},
};
use henge::{
    client::{Client, DeleteOptions, Error, GetOptions, PutOptions},
    pb::etcdserverpb::{RangeResponse, kv_client::KvClient},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};
use tonic::{Request, metadata::MetadataValue};

const PREFIX: &str = "session/";
/// Metadata of a call: what its client has seen.
const MIN_REVISION: &str = "henge-min-revision";
/// Metadata of a call: how old the answer may be.
const MAX_AGE: &str = "henge-max-age";
/// Metadata of an answer: how old it is at most, in milliseconds.
const AGE: &str = "henge-age-ms";
/// Ages that are asked for: what a copy always has, what it has if nothing is wrong, and what it hardly ever has.
const AGES_MS: [u64; 4] = [5, 100, 1000, 10_000];

#[derive(Debug, Default)]
struct Sessions {
    wrote: Log<Wrote>,
    looks: Log<Look>,
    /// Keys that were removed, perhaps.
    open: Log<String>,
    /// Refusals that no proxy may give.
    refusals: Log<Finding>,
    last_value: AtomicU64,
    /// Answers from a copy.
    copied: AtomicU64,
    /// The newest revision that an answer named.
    newest: AtomicI64,
}

/// A new, empty one.
pub fn make() -> Arc<dyn Workload> {
    Arc::new(Sessions::default())
}

/// One client, with a way to each proxy.
struct Session {
    number: usize,
    proxies: Vec<Client>,
    /// Proxies, and members if clients talk to these.
    writers: Vec<Client>,
    seen: i64,
}

fn keys(load: &Load) -> impl Iterator<Item = String> {
    (0..load.keys * RARE).map(|key| format!("{PREFIX}{key}"))
}

fn one_of<'a, T>(all: &'a [T], random: &mut Random) -> &'a T {
    &all[random.below(all.len() as u64) as usize]
}

/// What was there, by key.
fn found(answer: &RangeResponse) -> Result<BTreeMap<String, (u64, i64)>, Nonsense> {
    let pair = |kv: &henge::pb::mvccpb::KeyValue| {
        let (key, text) = (String::from_utf8_lossy(&kv.key).into_owned(), String::from_utf8_lossy(&kv.value));
        let value = text.parse().map_err(|_| Nonsense(format!("{key} holds {text:?}")))?;
        Ok((key, (value, kv.mod_revision)))
    };
    answer.kvs.iter().map(pair).collect()
}

impl Session {
    async fn new(load: &Load, number: usize) -> Result<Session, Nonsense> {
        let mut ways = [Vec::new(), Vec::new()];
        for (way, addresses) in ways.iter_mut().zip([&load.proxies, &load.addresses]) {
            for address in addresses {
                let client = cluster::connect([address], load.timeout).await;
                way.push(client.map_err(|cause| Nonsense(cause.to_string()))?);
            }
        }
        let [proxies, writers] = ways;
        Ok(Session { number, proxies, writers, seen: 0 })
    }
}

/// Reads `keys` at one proxy: one key alone, or all that there are.
async fn read(
    load: &Load,
    proxy: &Client,
    keys: &[String],
    wish: Wish,
    seen: i64,
) -> Result<(RangeResponse, Option<u64>), Error> {
    let (key, options) = match keys {
        [key] => (key.as_str(), GetOptions::default()),
        _ => (PREFIX, GetOptions::prefix(PREFIX)),
    };
    let request = GetOptions { serializable: wish == Wish::Seen, ..options }.request(key.to_string());
    let mut request = Request::new(request);
    request.set_timeout(load.timeout);
    // Without what it has seen, a session does go back: what `--stale-reads` is for.
    if wish != Wish::Now && !load.stale_reads {
        request.metadata_mut().insert(MIN_REVISION, MetadataValue::from(seen));
    }
    if let Wish::Age(max_ms) = wish {
        let age = format!("{max_ms}ms").parse().expect("digits and letters");
        request.metadata_mut().insert(MAX_AGE, age);
    }
    let (_, channel) = proxy.endpoints().pick();
    let mut stub = KvClient::new(channel);
    let answer = tokio::time::timeout(load.timeout, stub.range(request)).await.map_err(|_| Error::Deadline)??;
    let age = answer.metadata().get(AGE).and_then(|age| age.to_str().ok()?.parse().ok());
    Ok((answer.into_inner(), age))
}

impl Sessions {
    async fn client(self: Arc<Sessions>, load: Arc<Load>, number: usize) -> Result<(), Nonsense> {
        let mut session = Session::new(&load, number).await?;
        let mut random = load.random.part(number as u64);
        let keys: Vec<String> = keys(&load).collect();
        while !load.is_over() {
            // Somebody new, who has seen nothing yet, is content with what a proxy finds on its disk.
            if random.below(16) == 0 {
                session.seen = 0;
            }
            let key = &keys[uneven(&mut random, load.keys) as usize];
            match random.below(16) {
                0 => self.delete(&load, &mut session, key.clone(), &mut random).await,
                1..4 => self.put(&load, &mut session, key.clone(), &mut random).await,
                _ => {
                    let wish = match random.below(8) {
                        0 => Wish::Now,
                        1 | 2 => Wish::Age(*one_of(&AGES_MS, &mut random)),
                        _ => Wish::Seen,
                    };
                    let keys = if random.below(2) == 0 { &keys[..] } else { std::slice::from_ref(key) };
                    self.look(&load, &mut session, keys, wish, &mut random).await?;
                }
            }
            pause(&mut random, 8000).await;
        }
        Ok(())
    }

    async fn look(
        &self,
        load: &Load,
        session: &mut Session,
        keys: &[String],
        wish: Wish,
        random: &mut Random,
    ) -> Result<(), Nonsense> {
        let at = random.below(session.proxies.len() as u64) as usize;
        let seen = session.seen;
        let what = match wish {
            Wish::Seen => "read",
            Wish::Age(_) => "read of an age",
            Wish::Now => "read now",
        };
        let call = load.call(session.number, what, false, read(load, &session.proxies[at], keys, wish, seen)).await;
        let place = load.proxies[at].clone();
        match call.result {
            Ok((answer, age_ms)) => {
                let revision = answer.header.as_ref().map_or(0, |header| header.revision);
                session.seen = seen.max(revision);
                self.copied.fetch_add(u64::from(age_ms.is_some()), Relaxed);
                self.newest.fetch_max(revision, Relaxed);
                self.looks.add(Look {
                    session: session.number,
                    place,
                    called_ns: call.called_ns,
                    returned_ns: call.returned_ns,
                    keys: keys.to_vec(),
                    wish,
                    seen,
                    revision,
                    age_ms,
                    found: found(&answer)?,
                });
            }
            // The revision was seen, so it is there: only an upstream that is behind can say otherwise.
            Err(cause) if cause.is(&henge::types::Error::FutureRev) => {
                let what = format!("{place} says of revision {seen}, which was seen, that it is yet to come");
                self.refusals.add(Finding::new("session refused", what).at(call.called_ns));
            }
            Err(_) => {}
        }
        Ok(())
    }

    async fn put(&self, load: &Load, session: &mut Session, key: String, random: &mut Random) {
        let value = self.last_value.fetch_add(1, Relaxed) + 1;
        let writer = one_of(&session.writers, random);
        let put = writer.put(key.clone(), value.to_string(), PutOptions::default());
        let call = load.call(session.number, "put", true, put).await;
        let Ok(answer) = call.result else { return };
        let revision = answer.header.map_or(0, |header| header.revision);
        self.wrote(session, key, Some(value), revision, call.returned_ns);
    }

    async fn delete(&self, load: &Load, session: &mut Session, key: String, random: &mut Random) {
        let delete = one_of(&session.writers, random).delete(key.clone(), DeleteOptions::default());
        let call = load.call(session.number, "delete", true, delete).await;
        match call.result {
            Ok(answer) => {
                let revision = answer.header.map_or(0, |header| header.revision);
                if answer.deleted > 0 {
                    self.wrote(session, key, None, revision, call.returned_ns);
                }
                session.seen = session.seen.max(revision);
            }
            Err(_) if call.end == End::Unknown => self.open.add(key),
            Err(_) => {}
        }
    }

    fn wrote(&self, session: &mut Session, key: String, value: Option<u64>, revision: i64, returned_ns: u64) {
        session.seen = session.seen.max(revision);
        self.newest.fetch_max(revision, Relaxed);
        self.wrote.add(Wrote { session: session.number, key, value, revision, returned_ns });
    }
}

impl Workload for Sessions {
    fn start(self: Arc<Self>, load: &Arc<Load>, tasks: &mut Tasks) {
        for number in 0..load.clients {
            tasks.spawn(self.clone().client(load.clone(), number));
        }
    }

    fn finish<'a>(&'a self, load: &'a Load) -> Boxed<'a> {
        Box::pin(async move {
            // Without being told what is new, each proxy has to come to it by itself once nothing is wrong.
            let end = self.newest.load(Relaxed);
            let keys: Vec<String> = keys(load).collect();
            let session = Session::new(load, load.clients).await?;
            for (proxy, place) in session.proxies.iter().zip(&load.proxies) {
                let called_ns = load.clock.now_ns();
                let level = async || {
                    let (answer, age_ms) = read(load, proxy, &keys, Wish::Seen, 0).await?;
                    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
                    let behind = || Error::Unreachable(format!("{place} is at revision {revision} of {end}"));
                    if revision < end { Err(behind()) } else { Ok((answer, revision, age_ms)) }
                };
                let (answer, revision, age_ms) = load.insist("the final read", level).await?;
                self.looks.add(Look {
                    session: load.clients,
                    place: place.clone(),
                    // Of the last of several attempts nobody knows when it began.
                    called_ns,
                    returned_ns: load.clock.now_ns(),
                    keys: keys.clone(),
                    wish: Wish::Seen,
                    seen: 0,
                    revision,
                    age_ms,
                    found: found(&answer)?,
                });
            }
            Ok(())
        })
    }

    fn judge(&self, folder: &Path) -> io::Result<Judgement> {
        let (wrote, looks) = (self.wrote.all(), self.looks.all());
        let mut file = BufWriter::new(fs::File::create(folder.join("history.txt"))?);
        for one in &wrote {
            writeln!(file, "{one:?}")?;
        }
        for look in &looks {
            writeln!(file, "{}", show(look))?;
        }
        file.flush()?;
        let mut judgement = Judgement::default();
        judgement.note(format!(
            "{} writes acknowledged, {} reads, {} of them told their age",
            wrote.len(),
            looks.len(),
            self.copied.load(Relaxed)
        ));
        let tried = (1..=self.last_value.load(Relaxed)).collect();
        let mut findings = check(&wrote, &looks, &tried, &self.open.all().into_iter().collect());
        findings.extend(self.refusals.all());
        findings.sort_by(|one, other| one.kind.cmp(&other.kind));
        for kind in findings.chunk_by(|one, other| one.kind == other.kind) {
            judgement.add(kind.iter().map(Finding::clone));
        }
        Ok(judgement)
    }
}
