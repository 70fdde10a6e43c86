//! Random histories against the plain truth: the list of all events, looked through for each watcher.

use super::*;
use crate::watch::encode::tests::Seen;
use proptest::{prelude::*, sample::Index as Pick};
use std::collections::VecDeque;

#[derive(Clone, Debug)]
enum Step {
    /// A request; the hub hears of it only with `Publish`.
    Write(Vec<(bool, u8, u8)>),
    Publish,
    /// The hub is not told what happened, as after a snapshot.
    Miss,
    Create {
        stream: Pick,
        id: Option<i64>,
        keys: (u8, u8, u8),
        start: i64,
        bits: u8,
    },
    Cancel {
        stream: Pick,
        watcher: Pick,
    },
    AskProgress(Pick),
    Tick(Pick),
    /// Looks at a stream at most so many times.
    Poll {
        stream: Pick,
        times: u8,
    },
    /// Runs the job that the stream was given, without bringing what it has found.
    Run(Pick),
    Bring(Pick),
    Compact(Pick),
    Sweep,
    Reopen(Pick),
}

fn step() -> impl Strategy<Value = Step> {
    let pick = any::<Pick>;
    let write = prop::collection::vec((prop::bool::weighted(0.7), 0..6_u8, 0..6_u8), 1..4);
    prop_oneof![
        6 => write.prop_map(Step::Write),
        4 => Just(Step::Publish),
        1 => Just(Step::Miss),
        4 => (pick(), prop::option::weighted(0.2, 0..5_i64), (0..3_u8, 0..6_u8, 0..7_u8), -12..8_i64, any::<u8>())
            .prop_map(|(stream, id, keys, start, bits)| Step::Create { stream, id, keys, start, bits }),
        1 => (pick(), pick()).prop_map(|(stream, watcher)| Step::Cancel { stream, watcher }),
        1 => pick().prop_map(Step::AskProgress),
        1 => pick().prop_map(Step::Tick),
        6 => (pick(), 1..12_u8).prop_map(|(stream, times)| Step::Poll { stream, times }),
        3 => pick().prop_map(Step::Run),
        3 => pick().prop_map(Step::Bring),
        1 => pick().prop_map(Step::Compact),
        1 => Just(Step::Sweep),
        1 => pick().prop_map(Step::Reopen),
    ]
}

fn key(number: u8) -> Bytes {
    Bytes::copy_from_slice(&[b'a' + number])
}

/// What a stream should say, and what it has said.
struct Checked {
    client: Client,
    /// Replies to creates and cancels that must still come, in this order.
    controls: VecDeque<Control>,
    watchers: BTreeMap<i64, Expected>,
    job: Option<Job>,
    done: Option<Done>,
    asked: usize,
    /// What progress has promised.
    promised: i64,
    /// Revision below which a fragment is still open, with what came of it.
    fragment: Option<(i64, i64)>,
}

enum Control {
    Created(i64, Expected),
    Refused,
    Canceled(i64),
}

#[derive(Clone)]
struct Expected {
    spec: WatchSpec,
    /// Events up to here have come.
    upto: i64,
    /// Events of the revision after `upto` that have come: in fragments.
    part: usize,
}

struct Truth {
    world: World,
    log: Vec<Seen>,
    values: BTreeMap<Bytes, Bytes>,
}

impl Truth {
    fn write(&mut self, writes: &[(bool, u8, u8)]) {
        let mut written = Vec::new();
        let revision = self.world.store.current().0 + 1;
        let before = self.log.len();
        for (is_put, number, other) in writes {
            // A key is written once in a request, as the real checks see to.
            if written.contains(number) {
                continue;
            }
            let key = key(*number);
            if *is_put {
                let value = Bytes::from(format!("{}", revision * 10 + i64::from(*other)).repeat(*other as usize * 4));
                let prev = self.values.insert(key.clone(), value.clone());
                self.log.push(Seen { revision, key: key.clone(), value: Some(value), prev });
            } else if let Some(prev) = self.values.remove(&key) {
                self.log.push(Seen { revision, key, value: None, prev: Some(prev) });
            }
            written.push(*number);
        }
        let requests: Vec<Write> = self.log[before..]
            .iter()
            .map(|seen| match &seen.value {
                Some(value) => Write::Put(seen.key.clone(), value.clone()),
                None => Write::Delete(KeyRange::One(seen.key.clone())),
            })
            .collect();
        self.world.write_only(&requests);
    }

    /// What a watcher should see of the revisions after `upto`.
    fn wanted<'a>(&'a self, expected: &'a Expected) -> impl Iterator<Item = &'a Seen> {
        let spec = &expected.spec;
        self.log.iter().filter(move |seen| {
            let is_filtered = if seen.value.is_some() { spec.no_put } else { spec.no_delete };
            seen.revision > expected.upto && spec.range.contains(&seen.key) && !is_filtered
        })
    }
}

impl Checked {
    fn new(world: &World) -> Checked {
        Checked {
            client: world.open(),
            controls: VecDeque::new(),
            watchers: BTreeMap::new(),
            job: None,
            done: None,
            asked: 0,
            promised: 0,
            fragment: None,
        }
    }

    fn create(&mut self, truth: &Truth, mut spec: WatchSpec) {
        let current = truth.world.store.current().0;
        let used: Vec<i64> = self.ids();
        match self.client.control.create(spec.clone()) {
            Ok(id) => {
                assert!(spec.id.is_none_or(|wanted| wanted == id));
                // After a compaction an id may be free again before we hear of it.
                assert!(!used.contains(&id) || truth.world.store.compacted().0 > 0);
                if spec.start.0 == 0 {
                    spec.start = Revision(current + 1);
                }
                let expected = Expected { upto: spec.start.0 - 1, spec, part: 0 };
                self.controls.push_back(Control::Created(id, expected));
            }
            Err(_) => {
                let is_taken = spec.id.is_some_and(|id| used.contains(&id));
                assert!(is_taken || spec.range.is_empty() || spec.start.0 < 0);
                self.controls.push_back(Control::Refused);
            }
        }
    }

    /// Ids of watchers that the hub should have.
    fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = self.watchers.keys().copied().collect();
        for control in &self.controls {
            match control {
                Control::Created(id, _) => ids.push(*id),
                Control::Canceled(id) => ids.retain(|other| other != id),
                Control::Refused => {}
            }
        }
        ids
    }

    fn cancel(&mut self, watcher: Pick) {
        let ids = self.ids();
        if !ids.is_empty() {
            let id = ids[watcher.index(ids.len())];
            // It may have been ended by a compaction that we have not heard of.
            if self.client.control.cancel(id) {
                self.controls.push_back(Control::Canceled(id));
            }
        }
    }

    /// Looks once; `false` if there is nothing.
    fn poll(&mut self, truth: &Truth) -> bool {
        let may_have_more = self.client.woken.0.load(Ordering::SeqCst) || self.job.is_some() || self.done.is_some();
        let turn = self.client.poll();
        assert!(may_have_more || turn.is_pending(), "it was not woken, but there is something");
        match turn {
            Poll::Ready(Turn::Deliver(delivery)) => self.check(truth, &delivery),
            Poll::Ready(Turn::Read(job)) => {
                assert!(self.job.is_none() && self.done.is_none(), "one job at a time");
                self.job = Some(job);
            }
            Poll::Pending => return false,
        }
        true
    }

    fn check(&mut self, truth: &Truth, delivery: &Delivery) {
        assert!(delivery.revision() <= truth.world.store.current());
        if let Some((id, _)) = self.fragment {
            assert!(matches!(delivery, Delivery::Events { id: other, .. } if *other == id), "the rest comes next");
        }
        match delivery {
            Delivery::Created { id, .. } => {
                let Some(Control::Created(expected_id, expected)) = self.controls.pop_front() else {
                    panic!("{delivery:?}")
                };
                assert_eq!(*id, expected_id);
                assert!(self.watchers.insert(*id, expected).is_none());
            }
            Delivery::Refused { .. } => assert!(matches!(self.controls.pop_front(), Some(Control::Refused))),
            Delivery::Canceled { id, compacted: None, .. } => {
                assert!(matches!(self.controls.pop_front(), Some(Control::Canceled(expected)) if expected == *id));
                self.watchers.remove(id).expect("it was there");
            }
            Delivery::Canceled { id, compacted: Some(compacted), .. } => {
                let expected = self.watchers.remove(id).expect("it was there");
                assert!(*compacted <= truth.world.store.compacted());
                assert!(expected.part == 0, "not in the middle of a revision");
                assert!(expected.upto + 1 < compacted.0, "it could have gone on");
            }
            Delivery::Progress { id, revision } => {
                assert!(id.is_none_or(|id| self.watchers[&id].spec.progress_notify));
                for (watcher, expected) in &self.watchers {
                    let owed = truth.wanted(expected).next();
                    assert!(
                        owed.is_none_or(|seen| seen.revision > revision.0),
                        "{watcher} is owed {owed:?} at {revision}"
                    );
                    let speaks_for = id.is_none_or(|id| id == *watcher);
                    assert!(!speaks_for || expected.spec.start.0 <= revision.0 + 1, "{watcher} has not begun");
                }
                assert!(revision.0 >= self.promised, "progress goes forward");
                self.promised = revision.0;
                if id.is_none() {
                    self.asked = self.asked.checked_sub(1).expect("one reply for each request");
                }
            }
            Delivery::Events { id, fragment, .. } => self.check_events(truth, *id, *fragment, &seen(delivery)),
        }
    }

    fn check_events(&mut self, truth: &Truth, id: i64, fragment: bool, events: &[Seen]) {
        let compacted = truth.world.store.compacted().0;
        let expected = self.watchers.get_mut(&id).expect("created comes before events, and nothing after cancelled");
        assert!(!events.is_empty());
        let wanted: Vec<Seen> = truth.wanted(expected).skip(expected.part).cloned().collect();
        for (event, wanted) in events.iter().zip(&wanted) {
            assert_eq!((event.revision, &event.key, &event.value), (wanted.revision, &wanted.key, &wanted.value));
            if expected.spec.prev_kv {
                let is_gone = event.prev.is_none() && compacted >= event.revision;
                assert!(event.prev == wanted.prev || is_gone, "{event:?} instead of {wanted:?}");
            } else {
                assert_eq!(event.prev, None);
            }
        }
        assert!(events.len() <= wanted.len(), "{id} got what does not exist");
        let last = events[events.len() - 1].revision;
        if fragment {
            assert!(expected.spec.fragment);
            expected.part += events.len();
            if events[0].revision != last {
                expected.part = events.iter().filter(|event| event.revision == last).count();
                expected.upto = last - 1;
            }
            self.fragment = Some((id, last));
        } else {
            let next = wanted.get(events.len()).map_or(i64::MAX, |seen| seen.revision);
            assert!(next > last, "{id} got a part of revision {last}");
            (expected.upto, expected.part) = (last, 0);
            self.fragment = None;
        }
    }

    fn run(&mut self) {
        if let Some(job) = self.job.take() {
            self.done = Some(job.run());
        }
    }

    fn bring(&mut self) {
        if let Some(done) = self.done.take() {
            self.client.caught(done);
        }
    }

    /// Does all that is to be done.
    fn settle(&mut self, truth: &Truth) {
        loop {
            self.run();
            self.bring();
            if !self.poll(truth) && self.job.is_none() {
                return;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, max_shrink_iters: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn every_watcher_sees_the_log_or_is_told_that_it_is_gone(
        steps in prop::collection::vec(step(), 1..120),
        stream_bytes_max in 0..3_000_usize,
        history_bytes_max in 1..400_usize,
        near_revisions in 0..9_i64,
    ) {
        let options =
            Options { stream_bytes_max, history_bytes_max, near_revisions, reply_bytes_max: 150, ..Options::default() };
        let mut truth = Truth { world: World::new(options), log: Vec::new(), values: BTreeMap::new() };
        let mut streams: Vec<Checked> = (0..3).map(|_| Checked::new(&truth.world)).collect();
        for step in steps {
            match step {
                Step::Write(writes) => truth.write(&writes),
                Step::Publish => truth.world.publish(),
                Step::Miss => {
                    // Now and then only the first of them are missing.
                    let missing = truth.world.unpublished.len().div_ceil(2);
                    truth.world.unpublished.drain(..missing);
                    truth.world.publish();
                }
                Step::Create { stream, id, keys: (kind, first, end), start, bits } => {
                    let range = match kind {
                        0 => KeyRange::One(key(first)),
                        1 => KeyRange::Span { start: key(first), end: key(end) },
                        _ => KeyRange::From(key(first)),
                    };
                    let current = truth.world.store.current().0;
                    let start = if start == 0 { 0 } else { (current + start).max(-1) };
                    let bit = |at: u8| bits >> at & 1 == 1;
                    let spec = WatchSpec {
                        id,
                        range,
                        start: Revision(start),
                        no_put: bit(0) && bit(1),
                        no_delete: bit(2) && bit(3),
                        prev_kv: bit(4),
                        fragment: bit(5),
                        progress_notify: bit(6),
                    };
                    let at = stream.index(streams.len());
                    streams[at].create(&truth, spec);
                }
                Step::Cancel { stream, watcher } => { let at = stream.index(3); streams[at].cancel(watcher) }
                Step::AskProgress(stream) => {
                    let stream = &mut streams[stream.index(3)];
                    stream.asked += 1;
                    stream.client.control.request_progress();
                }
                Step::Tick(stream) => {
                    let client = &mut streams[stream.index(3)].client;
                    client.deliveries.tick();
                    // Whoever ticks also polls.
                    client.woken.0.store(true, Ordering::SeqCst);
                }
                Step::Poll { stream, times } => {
                    let stream = &mut streams[stream.index(3)];
                    for _ in 0..times {
                        if !stream.poll(&truth) {
                            break;
                        }
                    }
                }
                Step::Run(stream) => streams[stream.index(3)].run(),
                Step::Bring(stream) => streams[stream.index(3)].bring(),
                Step::Compact(at) => {
                    let (compacted, current) = (truth.world.store.compacted().0, truth.world.store.current().0);
                    if compacted < current {
                        let at = compacted + 1 + at.index((current - compacted) as usize) as i64;
                        truth.world.compact(at);
                    }
                }
                Step::Sweep => truth.world.sweep(),
                Step::Reopen(stream) => streams[stream.index(3)] = Checked::new(&truth.world),
            }
        }
        truth.world.publish();
        for stream in &mut streams {
            stream.settle(&truth);
            prop_assert!(stream.controls.is_empty(), "all is answered");
            let current = truth.world.store.current().0;
            let mut is_waiting = false;
            for (id, expected) in &stream.watchers {
                let owed = truth.wanted(expected).next();
                prop_assert!(owed.is_none(), "{id} is owed {owed:?}");
                is_waiting |= expected.spec.start.0 > current + 1;
            }
            prop_assert!(stream.asked == 0 || is_waiting, "progress is owed");
            prop_assert_eq!(stream.client.deliveries.held_bytes(), 0);
        }
        let watchers = streams.iter().map(|stream| stream.watchers.len()).sum();
        prop_assert_eq!(truth.world.hub.counts(), Counts { streams: 3, watchers, behind: 0 });
    }
}
