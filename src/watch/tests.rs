//! The hub as a whole: claims about single behaviours, and (in `random`) histories that are compared with the plain truth.

mod history;
mod limits;
mod memory;
mod random;
mod threads;

use super::{encode::tests::seen, *};
use crate::{
    engine::{Batch, Checkpoint, Engine, Memory, Size, Table},
    mvcc::Store,
    types::{Fault, LeaseId},
};
use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::atomic::AtomicBool,
    task::{Context, Poll, Wake},
};

/// The least engine that there can be.
#[derive(Default)]
struct Rows {
    rows: RwLock<BTreeMap<(Table, Bytes), Bytes>>,
    is_broken: AtomicBool,
}

impl Engine for Rows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.rows.read().get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        table: Table,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(Fault::Damaged { path: "the test".into(), offset: None, what: "broken".to_owned() });
        }
        let own = |bound: Bound<&[u8]>| bound.map(|key| (table, Bytes::copy_from_slice(key)));
        let from = if from == Bound::Unbounded { Bound::Included((table, Bytes::new())) } else { own(from) };
        let rows = self.rows.read();
        let mut rows = rows.range((from, own(to))).take_while(|((of, _), _)| *of == table);
        let _ = rows.try_for_each(|((_, key), value)| visit(key, value.clone()));
        Ok(())
    }

    fn write(&self, batch: Batch) -> Result<(), Fault> {
        let mut rows = self.rows.write();
        for (table, key, value) in batch.ops {
            match value {
                Some(value) => rows.insert((table, key), value),
                None => rows.remove(&(table, key)),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>, Fault> {
        let copy = Memory::default();
        let ops =
            self.rows.read().iter().map(|((table, key), value)| (*table, key.clone(), Some(value.clone()))).collect();
        copy.write(Batch { ops })?;
        copy.checkpoint()
    }

    fn size(&self) -> Result<Size, Fault> {
        Ok(Size::default())
    }
}

/// One write of a request.
#[derive(Clone, Debug)]
enum Write {
    Put(Bytes, Bytes),
    Delete(KeyRange),
}

fn put(key: &str, value: &str) -> Write {
    Write::Put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
}

fn delete(key: &str, end: &str) -> Write {
    Write::Delete(range(key, end))
}

fn range(key: &str, end: &str) -> KeyRange {
    KeyRange::from_wire(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(end.as_bytes()))
}

/// A store and its hub.
struct World {
    engine: Arc<Rows>,
    store: Store,
    hub: Hub,
    /// What the store has published, and the hub not yet.
    unpublished: Vec<(Revision, Vec<Event>)>,
}

impl World {
    fn new(options: Options) -> World {
        let engine = Arc::new(Rows::default());
        let mut store = Store::open(engine.clone()).unwrap();
        let hub = Hub::on_demand(store.reader(), options, store.prevs_on_demand());
        World { engine, store, hub, unpublished: Vec::new() }
    }

    /// One request: readers of the store see it, the hub does not.
    fn write_only(&mut self, writes: &[Write]) -> Revision {
        let mut batch = Batch::default();
        let mut txn = self.store.begin();
        for write in writes {
            match write {
                Write::Put(key, value) => {
                    drop(txn.put_over(key.clone(), value.clone(), LeaseId::NONE, false).unwrap());
                }
                Write::Delete(range) => drop(txn.delete_range(range).unwrap()),
            }
        }
        let (revision, events) = txn.finish(&mut batch);
        self.engine.write(batch).unwrap();
        self.store.publish();
        if !events.is_empty() {
            self.unpublished.push((revision, events));
        }
        revision
    }

    fn publish(&mut self) {
        self.hub.publish(std::mem::take(&mut self.unpublished), self.store.current());
    }

    fn write(&mut self, writes: &[Write]) -> Revision {
        let revision = self.write_only(writes);
        self.publish();
        revision
    }

    fn put(&mut self, key: &str, value: &str) -> Revision {
        self.write(&[put(key, value)])
    }

    fn compact(&mut self, at: i64) {
        let mut batch = Batch::default();
        self.store.compact(Revision(at), &mut batch).unwrap();
        self.engine.write(batch).unwrap();
    }

    fn sweep(&self) {
        while self.store.reader().compact_step(100).unwrap() {}
    }

    fn open(&self) -> Client {
        let (control, deliveries) = self.hub.open();
        Client { control, deliveries, woken: Arc::new(Woken(AtomicBool::new(true))) }
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A stream, both halves of it.
struct Client {
    control: Control,
    deliveries: Deliveries,
    woken: Arc<Woken>,
}

impl Client {
    fn create(&self, spec: WatchSpec) -> i64 {
        self.control.create(spec).unwrap()
    }

    fn poll(&mut self) -> Poll<Turn> {
        self.woken.0.store(false, Ordering::SeqCst);
        let turn = self.deliveries.poll(&mut Context::from_waker(&Arc::clone(&self.woken).into()));
        if turn.is_ready() {
            self.woken.0.store(true, Ordering::SeqCst);
        }
        turn
    }

    /// Brings what a job has found; whoever does so polls again.
    fn caught(&mut self, done: Done) {
        self.woken.0.store(true, Ordering::SeqCst);
        self.deliveries.caught(done).unwrap();
    }

    /// All replies until there are no more. Looks only if it was woken since it last found none.
    fn replies(&mut self) -> Vec<Delivery> {
        let mut replies = Vec::new();
        if !self.woken.0.load(Ordering::SeqCst) {
            return replies;
        }
        loop {
            match self.poll() {
                Poll::Ready(Turn::Deliver(delivery)) => replies.push(delivery),
                Poll::Ready(Turn::Read(job)) => self.caught(job.run()),
                Poll::Pending => return replies,
            }
        }
    }

    /// In short form, one word each.
    fn told(&mut self) -> Vec<String> {
        self.replies().iter().map(short).collect()
    }
}

/// `id` `+` created, `!` refused, `x` cancelled, `~` progress; or its events: revision, key, `=` value or `-`, `<` previous value.
fn short(delivery: &Delivery) -> String {
    let revision = delivery.revision();
    match delivery {
        Delivery::Created { id, .. } => format!("{id}+@{revision}"),
        Delivery::Refused { reason, .. } => format!("!{reason}"),
        Delivery::Canceled { id, compacted: None, .. } => format!("{id}x"),
        Delivery::Canceled { id, compacted: Some(compacted), .. } => format!("{id}x compacted {compacted}"),
        Delivery::Progress { id, .. } => format!("{}~{revision}", id.map_or("all".to_owned(), |id| id.to_string())),
        Delivery::Events { id, fragment, .. } => {
            let mut text = format!("{id}:");
            let utf8 = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            for event in seen(delivery) {
                assert!(event.revision <= revision.0, "the header is at or above its events");
                text += &format!(" {}{}", event.revision, utf8(&event.key));
                text += &event.value.map_or("-".to_owned(), |value| format!("={}", utf8(&value)));
                text += &event.prev.map_or(String::new(), |prev| format!("<{}", utf8(&prev)));
            }
            if *fragment { text + " …" } else { text }
        }
    }
}

fn spec(key: &str, end: &str) -> WatchSpec {
    WatchSpec {
        id: None,
        range: range(key, end),
        start: Revision(0),
        no_put: false,
        no_delete: false,
        prev_kv: false,
        fragment: false,
        progress_notify: false,
    }
}

fn from(start: i64) -> WatchSpec {
    WatchSpec { start: Revision(start), ..spec("\0", "\0") }
}

fn world() -> World {
    World::new(Options::default())
}

#[test]
fn a_watcher_sees_its_keys_from_now_on() {
    let mut world = world();
    world.put("a", "0");
    let mut client = world.open();
    client.create(spec("a", ""));
    client.create(spec("b", "d"));
    world.put("a", "1");
    world.write(&[put("b", "1"), put("c", "2"), put("d", "3"), delete("a", "")]);
    assert_eq!(client.told(), ["0+@2", "1+@2", "0: 3a=1 4a-", "1: 4b=1 4c=2"]);
    assert!(!client.woken.0.load(Ordering::SeqCst));
    world.put("x", "");
    assert!(!client.woken.0.load(Ordering::SeqCst), "what nobody wants wakes nobody");
}

#[test]
fn trap_3_created_comes_before_events_and_a_refusal_is_one_reply() {
    let mut world = world();
    world.put("a", "0");
    let mut client = world.open();
    client.create(WatchSpec { id: Some(7), ..from(1) });
    world.put("a", "1");
    let refused = [
        (WatchSpec { id: Some(7), ..from(0) }, "mvcc: duplicate watch ID provided on the WatchStream"),
        (spec("b", "a"), "mvcc: watcher range is empty"),
        (spec("b", "b"), "mvcc: watcher range is empty"),
        (from(-1), "etcdserver: mvcc: required revision has been compacted"),
    ];
    for (spec, _) in &refused {
        client.control.create(spec.clone()).unwrap_err();
    }
    let told = client.told();
    assert_eq!(told[0], "7+@2");
    let refusals: Vec<_> = refused.iter().map(|(_, reason)| format!("!{reason}")).collect();
    assert_eq!(told[1..5], refusals);
    assert_eq!(told[5..], ["7: 2a=0 3a=1"]);
    assert_eq!(world.hub.counts(), Counts { streams: 1, watchers: 1, behind: 0 });
}

#[test]
fn trap_8_and_15220_progress_never_overtakes_events() {
    let mut world = world();
    let mut client = world.open();
    client.create(spec("a", ""));
    client.told();
    world.put("a", "1");
    client.control.request_progress();
    assert_eq!(client.told(), ["0: 2a=1", "all~2"]);

    // The store is ahead of the hub: the reply waits for what is between.
    world.write_only(&[put("a", "2")]);
    client.control.request_progress();
    assert_eq!(client.told(), [""; 0]);
    world.publish();
    assert_eq!(client.told(), ["0: 3a=2", "all~3"]);

    // A watcher that reads history holds it back too.
    client.create(from(1));
    client.control.request_progress();
    assert_eq!(client.told(), ["1+@3", "1: 2a=1 3a=2", "all~3"]);
}

#[test]
fn a_stream_without_watchers_has_caught_up() {
    let mut world = world();
    world.put("a", "1");
    let mut client = world.open();
    client.control.request_progress();
    client.control.request_progress();
    assert_eq!(client.told(), ["all~2", "all~2"], "a reply for each request");
}

#[test]
fn trap_14_id_0_is_the_next_that_is_free() {
    let world = world();
    let mut client = world.open();
    assert_eq!(client.create(WatchSpec { id: Some(1), ..from(0) }), 1);
    assert_eq!([client.create(from(0)), client.create(from(0)), client.create(from(0))], [0, 2, 3]);
    assert!(client.control.cancel(2));
    assert_eq!(client.create(from(0)), 4, "an id is not handed out again by itself");
    assert_eq!(client.create(WatchSpec { id: Some(2), ..from(0) }), 2, "but may be asked for");
    assert_eq!(client.told(), ["1+@1", "0+@1", "2+@1", "3+@1", "2x", "4+@1", "2+@1"]);
}

#[test]
fn etcd_17247_a_revision_is_one_reply_with_each_event_once() {
    let mut world = world();
    let mut clients: Vec<Client> = (0..3).map(|_| world.open()).collect();
    for client in &clients {
        client.create(WatchSpec { prev_kv: true, ..spec("a", "c") });
        client.create(spec("a", ""));
    }
    world.write(&[put("a", "1"), put("b", "1"), put("c", "1")]);
    world.write(&[put("a", "2"), delete("b", "")]);
    for client in &mut clients {
        let mut told = client.told();
        told.sort_unstable();
        assert_eq!(told, ["0+@1", "0: 2a=1 2b=1 3a=2<1 3b-<1", "1+@1", "1: 2a=1 3a=2"]);
    }
}

#[test]
fn a_cancelled_watcher_is_silent_and_unknown_ids_are_ignored() {
    let mut world = world();
    let mut client = world.open();
    client.create(spec("a", ""));
    client.create(from(1));
    world.put("a", "1");
    assert!(client.control.cancel(0));
    assert!(!client.control.cancel(0));
    assert!(!client.control.cancel(99));
    world.put("a", "2");
    assert_eq!(client.told(), ["0+@1", "1+@1", "0: 2a=1", "0x", "1: 2a=1 3a=2"]);

    // Cancelled while it reads history, and its id taken by another.
    client.create(WatchSpec { id: Some(9), ..from(1) });
    let Poll::Ready(Turn::Read(job)) = client.poll() else { panic!("there is history to read") };
    client.control.cancel(9);
    client.create(WatchSpec { id: Some(9), ..spec("b", "") });
    client.caught(job.run());
    world.put("b", "1");
    let told = client.told();
    assert_eq!(told[..3], ["9+@3", "9x", "9+@3"]);
    assert!(told.len() == 5 && told.contains(&"9: 4b=1".to_owned()), "{told:?}");
}

#[test]
fn a_quiet_watcher_that_asked_is_told_of_progress_once_an_interval() {
    let mut world = world();
    let mut client = world.open();
    client.create(WatchSpec { progress_notify: true, ..spec("a", "") });
    client.create(WatchSpec { progress_notify: true, ..spec("b", "") });
    client.create(spec("a", ""));
    client.told();
    world.put("a", "1");
    assert_eq!(client.told(), ["0: 2a=1", "2: 2a=1"]);
    client.deliveries.tick();
    assert_eq!(client.poll_all(), ["1~2"]);
    client.deliveries.tick();
    let mut told = client.poll_all();
    told.sort_unstable();
    assert_eq!(told, ["0~2", "1~2"]);
    client.control.cancel(0);
    client.control.cancel(1);
    client.deliveries.tick();
    assert_eq!(client.poll_all(), ["0x", "1x"]);
}

impl Client {
    /// As `told`, without having been woken: whoever ticks also polls.
    fn poll_all(&mut self) -> Vec<String> {
        self.woken.0.store(true, Ordering::SeqCst);
        self.told()
    }
}

#[test]
fn a_stream_that_ends_takes_its_watchers_along() {
    let mut world = world();
    world.put("a", "1");
    let Client { control, deliveries, .. } = {
        let client = world.open();
        for number in 0..1_000 {
            client.create(spec(&format!("k{number}"), ""));
            client.create(from(1 + number % 2 * 10));
        }
        client
    };
    assert_eq!(world.hub.counts(), Counts { streams: 1, watchers: 2_000, behind: 500 });
    drop(deliveries);
    assert_eq!(world.hub.counts(), Counts::default());
    assert_eq!(control.create(from(0)), Err(crate::types::Error::Canceled));
    world.put("k1", "1");
    let state = world.hub.shared.state.lock();
    assert_eq!((state.watchers.len(), state.waiting.len()), (0, 0));
}

#[test]
fn a_fault_of_the_store_is_reported() {
    let mut world = world();
    world.put("a", "1");
    let mut client = world.open();
    client.create(from(1));
    world.engine.is_broken.store(true, Ordering::Relaxed);
    let Poll::Ready(Turn::Read(job)) = client.poll() else { panic!("there is history to read") };
    client.deliveries.caught(job.run()).unwrap_err();
}
