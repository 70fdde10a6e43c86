//! A lock, as etcd's recipe has it: a key with a lease for each who wants it, and the oldest key holds it. One half of the clients does
//! that by itself, the other has the service do it. Holders read and write a guarded key on condition that their own key is still there;
//! its revision is the fencing token.
//!
//! Some holders are paused for longer than their lease lives: those must not write any more.

use super::{Boxed, Load, Nonsense, Tasks, Workload, pause};
use crate::{
    check::{
        Judgement,
        lock::{Guarded, Held, check, overlaps},
    },
    random::Random,
    timeline::Log,
};
use henge::{
    client::{Client, Compare, GetOptions, Op, PutOptions, Txn},
    pb::{
        etcdserverpb::{range_request::SortOrder, range_request::SortTarget},
        v3lockpb::{LockRequest, lock_client::LockClient},
    },
};
use std::{
    fs,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const PREFIX: &str = "lock/";
const GUARDED: &str = "guarded";
/// What leases live, in seconds. Members may raise it.
const TTL_S: i64 = 2;
/// Longest wait for the lock.
const WAIT_MAX: Duration = Duration::from_secs(8);

#[derive(Debug, Default)]
struct Lock {
    held: Log<Held>,
    guarded: Log<Guarded>,
    fenced: AtomicU64,
}

/// A new one.
pub fn make() -> Arc<dyn Workload> {
    Arc::new(Lock::default())
}

/// A place in the queue for the lock.
struct Place {
    key: String,
    token: i64,
    ttl: Duration,
}

impl Lock {
    async fn client(self: Arc<Lock>, load: Arc<Load>, number: usize) -> Result<(), Nonsense> {
        let client = load.client(number).await?;
        let mut random = load.random.part(number as u64);
        while !load.is_over() {
            self.turn(&load, &client, number, &mut random).await;
            pause(&mut random, 50_000).await;
        }
        Ok(())
    }

    /// One attempt to get the lock and to do something with it. Whatever fails ends it: the lease runs out by itself.
    async fn turn(&self, load: &Load, client: &Client, number: usize, random: &mut Random) -> Option<()> {
        let granted = load.call(number, "grant", true, client.lease_grant(TTL_S, 0)).await.result.ok()?;
        let lease = granted.id;
        let keeper = client.lease_keeper(lease).await.ok()?;
        let ttl = Duration::from_secs(u64::try_from(granted.ttl).ok()?);
        let (place, got) = if number.is_multiple_of(2) {
            let place = enqueue(load, client, number, lease, ttl).await?;
            let got = wait(load, client, number, &place).await;
            (place, got)
        } else {
            let (place, asked_ns, from_ns) = have_it(load, client, lease, ttl).await?;
            (place, Some((asked_ns, from_ns)))
        };
        if let Some((asked_ns, from_ns)) = got {
            // A stall is what a fencing token is for: nobody renews the lease meanwhile.
            let mut keeper = Some(keeper);
            for _ in 0..1 + random.below(5) {
                let stalls = random.below(12) == 0;
                if stalls {
                    keeper = None;
                }
                let stall = if stalls { place.ttl * 2 } else { Duration::from_millis(random.below(20)) };
                if self.update(load, client, number, &place, stall).await.is_none() {
                    break;
                }
            }
            drop(keeper);
            let (token, to_ns) = (place.token, load.clock.now_ns());
            self.held.add(Held { client: number, token, asked_ns, from_ns, to_ns });
        }
        load.call(number, "release", true, client.lease_revoke(lease)).await.result.ok().map(drop)
    }

    /// Reads the guarded key and writes it. `None` if the lock is lost, or may be.
    async fn update(&self, load: &Load, client: &Client, number: usize, place: &Place, stall: Duration) -> Option<()> {
        let read = client.get(GUARDED, GetOptions::default());
        let read = load.call(number, "read", false, read).await.result.ok()?;
        let read_revision = read.kvs.first().map_or(0, |kv| kv.mod_revision);
        tokio::time::sleep(stall).await;
        let mine = Compare::create_revision(place.key.clone()).equal(place.token);
        let txn = Txn::new().when([mine]).then([Op::put(GUARDED, place.token.to_string())]);
        let call = load.call(number, "write", true, client.txn(txn)).await;
        let answer = call.result.ok()?;
        if !answer.succeeded {
            self.fenced.fetch_add(1, Relaxed);
            return None;
        }
        let write_revision = answer.header.map_or(0, |header| header.revision);
        let (client, token, returned_ns) = (number, place.token, call.returned_ns);
        self.guarded.add(Guarded { client, token, read_revision, write_revision, returned_ns });
        Some(())
    }
}

/// Takes a place in the queue.
async fn enqueue(load: &Load, client: &Client, number: usize, lease: i64, ttl: Duration) -> Option<Place> {
    let key = format!("{PREFIX}{lease:x}");
    let put = client.put(key.clone(), "", PutOptions { lease, ..PutOptions::default() });
    let answer = load.call(number, "enqueue", true, put).await.result.ok()?;
    Some(Place { key, token: answer.header?.revision, ttl })
}

/// Has the service take a place and wait until it is the oldest; and when it was asked and answered that. A wait says nothing of how fast the
/// cluster answers, so it is not noted as a call.
async fn have_it(load: &Load, client: &Client, lease: i64, ttl: Duration) -> Option<(Place, u64, u64)> {
    let mut service = LockClient::new(client.endpoints().pick().1);
    let request = LockRequest { name: PREFIX.trim_end_matches('/').into(), lease };
    let asked_ns = load.clock.now_ns();
    let answer = tokio::time::timeout(WAIT_MAX, service.lock(request)).await.ok()?.ok()?;
    let from_ns = load.clock.now_ns();
    let token = answer.metadata().get("henge-create-revision")?.to_str().ok()?.parse().ok()?;
    let key = String::from_utf8(answer.into_inner().key.into()).ok()?;
    Some((Place { key, token, ttl }, asked_ns, from_ns))
}

/// Waits until `place` is the oldest. Returns when the question was asked and answered that said so; `None` if the place is lost,
/// or the wait is too long.
async fn wait(load: &Load, client: &Client, number: usize, place: &Place) -> Option<(u64, u64)> {
    let start = Instant::now();
    while start.elapsed() < WAIT_MAX && !load.is_over() {
        let options = GetOptions {
            limit: 1,
            sort_order: SortOrder::Ascend as i32,
            sort_target: SortTarget::Create as i32,
            max_create_revision: place.token,
            ..GetOptions::prefix(PREFIX)
        };
        let call = load.call(number, "wait", false, client.get(PREFIX, options)).await;
        match call.result.ok().map(|answer| answer.kvs.into_iter().next()) {
            Some(Some(kv)) if kv.key == place.key => return Some((call.called_ns, call.returned_ns)),
            Some(Some(_)) => {}
            // Not even this place is there any more: the lease has run out.
            Some(None) => return None,
            None => {}
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    None
}

impl Workload for Lock {
    fn start(self: Arc<Self>, load: &Arc<Load>, tasks: &mut Tasks) {
        for number in 0..load.clients {
            tasks.spawn(self.clone().client(load.clone(), number));
        }
    }

    fn finish<'a>(&'a self, _: &'a Load) -> Boxed<'a> {
        // Everything was said by the answers.
        Box::pin(async { Ok(()) })
    }

    fn judge(&self, folder: &Path) -> io::Result<Judgement> {
        let (held, guarded) = (self.held.all(), self.guarded.all());
        let mut file = BufWriter::new(fs::File::create(folder.join("history.txt"))?);
        for held in &held {
            writeln!(file, "{held:?}")?;
        }
        for guarded in &guarded {
            writeln!(file, "{guarded:?}")?;
        }
        file.flush()?;
        let mut judgement = Judgement::default();
        judgement.note(format!(
            "{} times held, {} guarded writes, {} refused because the lock was lost",
            held.len(),
            guarded.len(),
            self.fenced.load(Relaxed)
        ));
        let (count, shown) = overlaps(&held);
        judgement.note(format!(
            "{count} pairs of clients believed to hold the lock at once (expected): {}",
            shown.join("; ")
        ));
        judgement.add(check(&held, &guarded));
        Ok(judgement)
    }
}
