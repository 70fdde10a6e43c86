//! A stream over two hubs and an upstream that are played here, against the rules of one etcd stream.

mod cases;

use super::*;
use crate::{
    pb::mvccpb,
    types::{ClusterId, MemberId, Term},
};
use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message;
use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

/// The keys of all revisions from 2 on, as the core has them.
type Log = Rc<RefCell<Vec<u8>>>;

fn head(log: &Log) -> i64 {
    log.borrow().len() as i64 + 1
}

/// The revisions of `from..=upto` whose key is in `range`.
fn matching(log: &Log, range: &KeyRange, from: i64, upto: i64) -> Vec<i64> {
    (from.max(2)..=upto.min(head(log))).filter(|at| range.contains(&[log.borrow()[(at - 2) as usize]])).collect()
}

/// What a source says, on its way to the merger.
#[derive(Clone, Debug)]
enum Said {
    Created { id: i64, revision: i64 },
    Events { id: i64, revisions: Vec<i64> },
    Compacted { id: i64, oldest: i64 },
    Canceled { id: i64 },
    Quiet { id: i64, revision: i64 },
    Progress { revision: i64 },
}

/// A store with watchers: a hub, or a member upstream. It may lag behind the core.
#[derive(Default)]
struct Source {
    level: i64,
    /// Whoever needs an event below is told that it is compacted.
    oldest: i64,
    watchers: BTreeMap<i64, (KeyRange, i64)>,
    said: VecDeque<Said>,
    /// Whether it says nothing of a stream without watchers.
    is_etcds: bool,
}

impl Source {
    fn at(level: i64, oldest: i64) -> Source {
        Source { level, oldest, ..Source::default() }
    }

    fn create(&mut self, log: &Log, id: i64, range: KeyRange, start: i64) {
        self.said.push_back(Said::Created { id, revision: self.level });
        let start = if start == 0 { self.level + 1 } else { start };
        if start < self.oldest {
            return self.said.push_back(Said::Compacted { id, oldest: self.oldest });
        }
        let revisions = matching(log, &range, start, self.level);
        if !revisions.is_empty() {
            self.said.push_back(Said::Events { id, revisions });
        }
        assert!(self.watchers.insert(id, (range, start.max(self.level + 1))).is_none(), "{id} twice");
    }

    fn advance(&mut self, log: &Log, upto: i64) {
        for (id, (range, next)) in &mut self.watchers {
            let revisions = matching(log, range, *next, upto);
            if !revisions.is_empty() {
                self.said.push_back(Said::Events { id: *id, revisions });
            }
            *next = (*next).max(upto + 1);
        }
        self.level = self.level.max(upto);
    }

    fn request(&mut self, log: &Log, request: WatchRequest) {
        match request.request_union.unwrap() {
            RequestUnion::CreateRequest(create) => {
                let (id, start) = (create.watch_id, create.start_revision);
                assert_ne!(id, 0, "ids are explicit");
                assert!(create.progress_notify);
                self.create(log, id, spec(create).range, start);
            }
            RequestUnion::CancelRequest(cancel) => {
                if self.watchers.remove(&cancel.watch_id).is_some() {
                    self.said.push_back(Said::Canceled { id: cancel.watch_id });
                }
            }
            RequestUnion::ProgressRequest(_) if self.is_etcds && self.watchers.is_empty() => {}
            RequestUnion::ProgressRequest(_) => self.said.push_back(Said::Progress { revision: self.level }),
        }
    }
}

struct Played {
    log: Log,
    sources: BTreeMap<Home, Source>,
    /// The homes that serve, by the first of their two keys.
    serving: BTreeMap<u8, Home>,
    /// The stream may not be served by these.
    barred: BTreeSet<u8>,
    opened: u64,
}

impl Played {
    fn open(&mut self, first_key: u8, oldest: i64) {
        let home = Home(self.opened);
        self.opened += 1;
        self.sources.insert(home, Source::at(head(&self.log), oldest));
        self.serving.insert(first_key, home);
    }

    fn serving(&self, range: &KeyRange) -> Option<Home> {
        self.covering(range).filter(|first| !self.barred.contains(first)).map(|first| self.serving[&first])
    }

    fn covering(&self, range: &KeyRange) -> Option<u8> {
        let covers = |first: u8| match range {
            KeyRange::One(key) => (first..first + 2).contains(&key[0]),
            KeyRange::Span { start, end } => start[0] >= first && end[..] <= [first + 2][..],
            KeyRange::From(_) => false,
        };
        self.serving.keys().copied().find(|first| covers(*first))
    }
}

impl Homes for Played {
    fn has(&self, range: &KeyRange) -> bool {
        self.serving(range).is_some()
    }

    fn allows(&self, range: &KeyRange) -> bool {
        self.covering(range).is_none_or(|first| !self.barred.contains(&first))
    }

    fn find(&mut self, range: &KeyRange, start: Revision) -> Option<Home> {
        let home = self.serving(range)?;
        (start.0 == 0 || start.0 >= self.sources[&home].oldest).then_some(home)
    }

    fn attach(&mut self, home: Home, spec: WatchSpec) -> Result<(), Error> {
        let source = self.sources.get_mut(&home).unwrap();
        source.create(&self.log, spec.id.unwrap(), spec.range, spec.start.0);
        Ok(())
    }

    fn detach(&mut self, home: Home, serial: i64) {
        self.sources.get_mut(&home).unwrap().watchers.remove(&serial);
    }

    fn ask(&mut self, home: Home) {
        let source = self.sources.get_mut(&home).unwrap();
        source.said.push_back(Said::Progress { revision: source.level });
    }

    fn header(&self, home: Home) -> Header {
        let revision = Revision(self.sources[&home].level);
        Header { cluster_id: ClusterId(1), member_id: MemberId(2), revision, term: Term(3) }
    }
}

fn event(log: &Log, revision: i64) -> mvccpb::Event {
    let key = Bytes::from(vec![log.borrow()[(revision - 2) as usize]]);
    let kv = mvccpb::KeyValue { key, mod_revision: revision, ..Default::default() };
    mvccpb::Event { kv: Some(kv), ..Default::default() }
}

fn as_delivery(log: &Log, said: Said, level: i64) -> Delivery {
    let revision = Revision(level);
    match said {
        Said::Created { id, revision } => Delivery::Created { id, revision: Revision(revision) },
        Said::Events { id, revisions } => {
            let encoded = |at: &i64| {
                let mut out = BytesMut::new();
                out.put_u8(11 << 3 | 2);
                event(log, *at).encode_length_delimited(&mut out).unwrap();
                out.freeze()
            };
            let last = Revision(*revisions.last().unwrap());
            Delivery::Events { id, revision, last, events: revisions.iter().map(encoded).collect(), fragment: false }
        }
        Said::Compacted { id, oldest } => {
            Delivery::Canceled { id, revision, compacted: Some(Revision(oldest)), reason: None }
        }
        Said::Canceled { id } => Delivery::Canceled { id, revision, compacted: None, reason: None },
        Said::Quiet { id, revision } => Delivery::Progress { id: Some(id), revision: Revision(revision) },
        Said::Progress { revision } => Delivery::Progress { id: None, revision: Revision(revision) },
    }
}

fn as_reply(log: &Log, said: Said, level: i64) -> WatchResponse {
    let header = |revision| Some(ResponseHeader { cluster_id: 1, member_id: 9, revision, raft_term: 3 });
    let empty = WatchResponse { header: header(level), ..Default::default() };
    match said {
        Said::Created { id, revision } => {
            WatchResponse { header: header(revision), watch_id: id, created: true, ..empty }
        }
        Said::Events { id, revisions } => {
            WatchResponse { watch_id: id, events: revisions.iter().map(|at| event(log, *at)).collect(), ..empty }
        }
        Said::Compacted { id, oldest } => {
            WatchResponse { watch_id: id, canceled: true, compact_revision: oldest, ..empty }
        }
        Said::Canceled { id } => WatchResponse { watch_id: id, canceled: true, ..empty },
        Said::Quiet { id, revision } => WatchResponse { header: header(revision), watch_id: id, ..empty },
        Said::Progress { revision } => WatchResponse { header: header(revision), watch_id: NO_WATCHER, ..empty },
    }
}

fn decoded(answer: WatchReply) -> WatchResponse {
    match answer {
        WatchReply::Made { header, delivery } => {
            let mut out = Vec::new();
            delivery.encode(header.to_wire(), &mut out);
            WatchResponse::decode(&out[..]).unwrap()
        }
        WatchReply::Passed(reply) => reply,
    }
}

/// A watcher, as the client has it.
#[derive(Debug)]
struct Held {
    range: KeyRange,
    /// No event below is to come.
    next: i64,
    /// The same by events alone: what is told of a whole stream no watcher relies on when it resumes upstream.
    by_events: i64,
}

/// Everything around a merger, and a client that checks what it is told.
struct World {
    log: Log,
    merger: Merger<Played>,
    upstream: Option<Source>,
    compacted: i64,
    creates: VecDeque<WatchCreateRequest>,
    held: BTreeMap<i64, Held>,
    next_id: i64,
    /// Cancels that are not answered, and progress.
    cancels: Vec<i64>,
    asked: usize,
    is_etcds: bool,
}

impl World {
    fn new() -> World {
        let log = Log::default();
        let (sources, serving, barred) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut homes = Played { log: log.clone(), sources, serving, barred, opened: 0 };
        homes.open(b'a', 1);
        homes.open(b'c', 1);
        World {
            merger: Merger::new(homes),
            log,
            upstream: None,
            compacted: 1,
            creates: VecDeque::new(),
            held: BTreeMap::new(),
            next_id: 0,
            cancels: Vec::new(),
            asked: 0,
            is_etcds: false,
        }
    }

    fn put(&mut self, key: u8) {
        self.log.borrow_mut().push(key);
    }

    fn create(&mut self, key: u8, end: u8, start: i64, id: i64) {
        let range_end = if end == 0 { Bytes::new() } else { vec![end].into() };
        let create = WatchCreateRequest {
            key: vec![key].into(),
            range_end,
            start_revision: start,
            watch_id: id,
            ..Default::default()
        };
        self.creates.push_back(create.clone());
        self.merger.request(as_request(RequestUnion::CreateRequest(create)));
        self.read();
    }

    fn cancel(&mut self, id: i64) {
        self.cancels.push(id);
        self.merger.request(as_request(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id })));
        self.read();
    }

    fn progress(&mut self) {
        self.asked += 1;
        self.merger.request(progress_request());
        self.read();
    }

    fn level_homes(&mut self, first_key: u8) {
        let homes = &mut self.merger.homes;
        let home = homes.serving[&first_key];
        homes.sources.get_mut(&home).unwrap().advance(&self.log, head(&self.log));
    }

    /// Lets a home say one thing; returns whether it had one.
    fn deliver(&mut self, first_key: u8) -> bool {
        let homes = &mut self.merger.homes;
        let home = homes.serving[&first_key];
        let source = homes.sources.get_mut(&home).unwrap();
        let level = source.level;
        let Some(said) = source.said.pop_front() else { return false };
        self.merger.delivered(home, as_delivery(&self.log, said, level));
        self.read();
        true
    }

    fn end_home(&mut self, first_key: u8, oldest: i64) {
        let old = self.merger.homes.serving[&first_key];
        self.merger.homes.open(first_key, oldest);
        self.merger.home_ended(old);
        self.read();
    }

    /// From now on the stream may be served by a home no more, or again.
    fn turn_permission(&mut self, first_key: u8) {
        let barred = &mut self.merger.homes.barred;
        if !barred.remove(&first_key) {
            barred.insert(first_key);
        }
        self.merger.reconsider();
        self.read();
    }

    /// Sends one request upstream; returns whether there was one.
    fn send(&mut self) -> bool {
        let Some(upstream) = &mut self.upstream else { return false };
        let Some(request) = self.merger.next_upstream() else { return false };
        upstream.request(&self.log, request);
        true
    }

    fn hear(&mut self) -> bool {
        let Some(upstream) = &mut self.upstream else { return false };
        let level = upstream.level;
        let Some(said) = upstream.said.pop_front() else { return false };
        self.merger.replied(as_reply(&self.log, said, level)).expect("upstream makes sense");
        self.read();
        true
    }

    fn link_up(&mut self, lag: i64) {
        if self.upstream.is_none() && self.merger.needs_link() {
            let level = (head(&self.log) - lag).max(self.compacted);
            self.upstream = Some(Source { is_etcds: self.is_etcds, ..Source::at(level, self.compacted) });
            self.merger.link_up();
        }
    }

    fn link_down(&mut self) {
        if self.upstream.take().is_some() {
            self.merger.link_down();
            self.read();
        }
    }

    fn read(&mut self) {
        while let Some(answer) = self.merger.pop() {
            self.check(decoded(answer));
        }
        assert_eq!(self.merger.backlog_bytes(), 0);
    }

    fn check(&mut self, reply: WatchResponse) {
        let header = reply.header.expect("each reply has a header");
        let id = reply.watch_id;
        if reply.created {
            return self.check_created(&reply, header.revision);
        }
        if reply.canceled {
            let held = self.held.remove(&id).expect("who is cancelled was there");
            match self.cancels.iter().position(|cancelled| *cancelled == id) {
                Some(at) if reply.compact_revision == 0 => drop(self.cancels.remove(at)),
                _ => assert!(held.by_events < reply.compact_revision, "{held:?} lost nothing: {reply:?}"),
            }
        } else if id == NO_WATCHER {
            self.asked = self.asked.checked_sub(1).expect("each request has one answer");
            for held in self.held.values_mut() {
                let missed = matching(&self.log, &held.range, held.next, header.revision);
                assert_eq!(missed, [0; 0], "progress {} is ahead of {held:?}", header.revision);
                held.next = held.next.max(header.revision + 1);
            }
        } else {
            let held = self.held.get_mut(&id).expect("events come for those who are there");
            assert!(!reply.events.is_empty(), "nobody asked for {reply:?}");
            for event in &reply.events {
                let at = event.kv.as_ref().unwrap().mod_revision;
                assert_eq!(matching(&self.log, &held.range, held.next, at), [at], "{held:?} has each once, in order");
                (held.next, held.by_events) = (at + 1, at + 1);
            }
        }
    }

    fn check_created(&mut self, reply: &WatchResponse, revision: i64) {
        let create = self.creates.pop_front().expect("each create has one answer");
        let wanted = create.watch_id;
        let start = create.start_revision;
        if reply.canceled {
            assert!(self.held.contains_key(&wanted), "{create:?} was refused");
            assert_eq!((reply.watch_id, &reply.cancel_reason[..]), (NO_WATCHER, Error::WatchIdInUse.text()));
            return;
        }
        if wanted == 0 {
            while self.held.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            assert_eq!(reply.watch_id, self.next_id, "as etcd would choose");
            self.next_id += 1;
        } else {
            assert_eq!(reply.watch_id, wanted);
        }
        let next = if start == 0 { revision + 1 } else { start };
        let known = self.held.insert(reply.watch_id, Held { range: spec(create).range, next, by_events: next });
        assert!(known.is_none(), "ids are unique");
    }

    /// Lets everything come to rest with nothing in the way; then nobody may lack anything.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.link_up(0);
            for key in [b'a', b'c'] {
                self.level_homes(key);
            }
            if let Some(upstream) = &mut self.upstream {
                upstream.advance(&self.log, head(&self.log));
            }
            let said = [self.deliver(b'a'), self.deliver(b'c'), self.send(), self.hear()];
            if said == [false; 4] {
                // As whoever keeps the link does, with time.
                self.merger.ask_upstream_again();
                if !self.send() || !self.hear() {
                    break;
                }
            }
        }
        assert_eq!(self.creates.len(), 0, "everything is answered");
        assert!(self.asked == 0 || self.is_etcds && self.held.is_empty(), "{} requests for progress", self.asked);
        for held in self.held.values() {
            assert_eq!(matching(&self.log, &held.range, held.next, head(&self.log)), [0; 0], "{held:?} lacks nothing");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Create { key: u8, end: u8, start: u8, id: i64 },
    Cancel(i64),
    Progress,
    Level(bool),
    Deliver(bool),
    End(bool, u8),
    LinkUp(u8),
    LinkDown,
    LevelUpstream,
    Send,
    Hear,
    Compact,
    Probe,
    TurnPermission(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || b'a'..=b'f';
    let end = prop_oneof![Just(0), Just(b'd'), Just(b'e'), Just(b'g'), Just(b'c')];
    let id = prop_oneof![4 => Just(0), 1 => 1..5_i64];
    let step = prop_oneof![
        6 => key().prop_map(Step::Put),
        5 => (key(), end, 0..12_u8, id).prop_map(|(key, end, start, id)| Step::Create { key, end, start, id }),
        2 => (0..6_i64).prop_map(Step::Cancel),
        2 => Just(Step::Progress),
        3 => any::<bool>().prop_map(Step::Level),
        8 => any::<bool>().prop_map(Step::Deliver),
        1 => (any::<bool>(), 0..6_u8).prop_map(|(which, back)| Step::End(which, back)),
        3 => (0..6_u8).prop_map(Step::LinkUp),
        1 => Just(Step::LinkDown),
        3 => Just(Step::LevelUpstream),
        6 => Just(Step::Send),
        8 => Just(Step::Hear),
        1 => Just(Step::Compact),
        1 => Just(Step::Probe),
        1 => any::<bool>().prop_map(Step::TurnPermission),
    ];
    prop::collection::vec(step, 1..120)
}

impl World {
    fn run(&mut self, step: Step) {
        let which = |first: bool| if first { b'a' } else { b'c' };
        match step {
            Step::Put(key) => self.put(key),
            Step::Create { key, end, start, id } => {
                let end = if end > key { end } else { 0 };
                // A few from the past or the future, most from now.
                let start = if start < 6 { 0 } else { (head(&self.log) + 3 - i64::from(start % 6) * 2).max(1) };
                self.create(key, end, start, id);
            }
            Step::Cancel(id) => {
                // To whom it applies is clear only if nobody is about to get an id.
                if self.held.contains_key(&id) && self.creates.is_empty() {
                    self.cancel(id);
                }
            }
            Step::Progress => self.progress(),
            Step::Level(first) => self.level_homes(which(first)),
            Step::Deliver(first) => drop(self.deliver(which(first))),
            Step::End(first, back) => self.end_home(which(first), (head(&self.log) - i64::from(back)).max(1)),
            Step::LinkUp(lag) => self.link_up(i64::from(lag)),
            Step::LinkDown => self.link_down(),
            Step::LevelUpstream => {
                if let Some(upstream) = &mut self.upstream {
                    upstream.advance(&self.log, head(&self.log));
                    let revision = upstream.level;
                    let quiet = upstream.watchers.keys().map(|id| Said::Quiet { id: *id, revision });
                    upstream.said.extend(quiet.collect::<Vec<_>>());
                }
            }
            Step::Send => drop(self.send()),
            Step::Hear => drop(self.hear()),
            Step::TurnPermission(first) => self.turn_permission(which(first)),
            Step::Compact => {
                self.compacted = head(&self.log);
                if let Some(upstream) = &mut self.upstream {
                    upstream.advance(&self.log, head(&self.log));
                    upstream.oldest = self.compacted;
                }
            }
            Step::Probe => {
                self.merger.come_home();
                self.merger.probe();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn a_stream_of_several_parts_is_as_one_of_etcd(steps in steps(), is_etcds: bool) {
        let mut world = World { is_etcds, ..World::new() };
        steps.into_iter().for_each(|step| world.run(step));
        world.settle();
    }
}
