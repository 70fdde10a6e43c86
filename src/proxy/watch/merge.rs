//! One stream of replies out of several: hubs of this process, and a stream upstream.
//!
//! A client's watchers have *places*: a hub here ([`Home`]) or upstream. Every place is asked with a *serial* as the watcher's id,
//! a number that this stream never gives twice, so whatever comes late for a watcher that is gone, or has moved, is known as such.
//! The ids that the client sees are given when a create is answered, in the order of requests, as etcd does. For that order a
//! create joins those that are not answered only if it goes to the same place, where creates are answered in turn; otherwise it
//! waits for them, and what comes after it waits behind it.
//!
//! Nothing in here waits or knows time: what the world says comes in by the methods, what is to be done comes out by [`Homes`],
//! [`Merger::next_upstream`] and [`Merger::pop`].

mod moves;
mod upstream;

use super::round::{Progress, Verdict};
use crate::{
    pb::etcdserverpb::{
        ResponseHeader, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
        watch_request::RequestUnion,
    },
    server::{Header, WatchReply, spec},
    types::{Error, KeyRange, Revision},
    watch::{Delivery, NO_WATCHER, WatchSpec},
};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A hub that this stream has opened, by number. Numbers are not given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Home(pub(super) u64);

/// Where a watcher is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Home(Home),
    Upstream,
}

/// The hubs of this process, as a stream uses them. Each answers in the order in which it was asked.
pub(super) trait Homes {
    /// The hub that has everything of `range` from `start` on (0: from now).
    fn find(&mut self, range: &KeyRange, start: Revision) -> Option<Home>;
    /// Whether a hub has everything of `range` from now on.
    fn has(&self, range: &KeyRange) -> bool;
    /// Whether this stream may be served by hubs what is in `range`.
    fn allows(&self, _range: &KeyRange) -> bool {
        true
    }
    /// Creates a watcher whose id is in the spec.
    fn attach(&mut self, home: Home, spec: WatchSpec) -> Result<(), Error>;
    /// Ends a watcher; that it does is not waited for.
    fn detach(&mut self, home: Home, serial: i64);
    /// Asks for `Delivery::Progress` of all watchers.
    fn ask(&mut self, home: Home);
    /// What headers say, at the hub's current revision.
    fn header(&self, home: Home) -> Header;
}

/// What upstream said makes no sense: the link is of no use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nonsense(pub(super) &'static str);

/// See the module.
pub(super) struct Merger<H> {
    pub(super) homes: H,
    /// By serial. Upstream is asked in this order.
    watchers: BTreeMap<i64, Watcher>,
    /// Serials by the client's ids.
    ids: HashMap<i64, i64>,
    next_id: i64,
    next_serial: i64,
    /// Requests that are not looked at yet.
    waiting: VecDeque<RequestUnion>,
    /// Serials of creates that are not answered, all at one place.
    pending: VecDeque<i64>,
    /// How many watchers a place has.
    crowds: BTreeMap<Place, usize>,
    progress: Progress,
    link: Link,
    /// Upstream does not take what proves whose the stream is.
    is_unproven: bool,
    out: VecDeque<(WatchReply, usize)>,
    /// The header of the last reply.
    told: Option<ResponseHeader>,
    /// Of replies from upstream in `out`.
    out_bytes: usize,
}

struct Watcher {
    /// `None` until the client was told.
    id: Option<i64>,
    /// As the client asked.
    create: WatchCreateRequest,
    range: KeyRange,
    place: Place,
    /// The first revision that the client has not seen. 0: whatever comes next, until the create is answered.
    next: i64,
    /// Its place has said that it exists.
    is_there: bool,
}

/// The stream upstream.
#[derive(Default)]
struct Link {
    is_up: bool,
    /// Serials below have been asked for on this link.
    cursor: i64,
    /// Creates that are not answered on this link, in order.
    unanswered: VecDeque<i64>,
    /// Other requests, after the creates.
    requests: VecDeque<WatchRequest>,
    /// Progress was told while creates were not answered.
    ask_again: bool,
    /// Watchers could come home if they were known to be further on.
    is_homesick: bool,
    /// Parts of a reply that is not complete. They go out together: clients put them together only if nothing stands between.
    fragments: Vec<WatchResponse>,
    /// As last heard, on whatever link.
    header: Option<ResponseHeader>,
}

impl<H: Homes> Merger<H> {
    pub(super) fn new(homes: H) -> Merger<H> {
        Merger {
            homes,
            watchers: BTreeMap::new(),
            ids: HashMap::new(),
            next_id: 0,
            next_serial: 1,
            waiting: VecDeque::new(),
            pending: VecDeque::new(),
            crowds: BTreeMap::new(),
            progress: Progress::default(),
            link: Link::default(),
            is_unproven: false,
            out: VecDeque::new(),
            told: None,
            out_bytes: 0,
        }
    }

    /// The next reply to the client.
    pub(super) fn pop(&mut self) -> Option<WatchReply> {
        let (answer, bytes) = self.out.pop_front()?;
        self.out_bytes -= bytes;
        if self.out.is_empty() {
            // An idle stream keeps no memory for busy times.
            self.out = VecDeque::new();
        }
        Some(answer)
    }

    /// Whether there is a reply to the client.
    pub(super) fn has_reply(&self) -> bool {
        !self.out.is_empty()
    }

    /// What has come from upstream and is not sent, in bytes.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.out_bytes
    }

    /// What is held because of requests that were made: nobody should make more while this is large.
    pub(super) fn held_requests(&self) -> usize {
        self.waiting.len() + self.out.len() + self.link.requests.len()
    }

    /// Whether a link upstream is of use.
    pub(super) fn needs_link(&self) -> bool {
        self.crowds.contains_key(&Place::Upstream) || self.awaits_upstream_progress()
    }

    /// Whether there is something to do for whoever keeps the link.
    pub(super) fn wants_link(&self) -> bool {
        if !self.link.is_up {
            return self.needs_link();
        }
        self.link.cursor < self.next_serial || !self.link.requests.is_empty()
    }

    /// Takes a request of the client.
    pub(super) fn request(&mut self, request: WatchRequest) {
        match request.request_union {
            // Who exists ends at once, whatever waits upstream.
            Some(RequestUnion::CancelRequest(cancel)) if self.cancel(cancel.watch_id) => {}
            Some(request) => {
                self.waiting.push_back(request);
                self.advance();
            }
            // Of a client that is newer than we are.
            None => {}
        }
    }

    /// Takes what the hub `home` has for a watcher, or for all.
    pub(super) fn delivered(&mut self, home: Home, delivery: Delivery) {
        let revision = delivery.revision();
        match delivery {
            Delivery::Created { id: serial, .. } => {
                if let Some(id) = self.created(serial, revision.0) {
                    self.tell(home, Delivery::Created { id, revision });
                }
                self.advance();
            }
            Delivery::Events { id: serial, last, events, fragment, .. } => {
                let Some(watcher) = self.watchers.get_mut(&serial) else { return };
                let Some(id) = watcher.id else { return };
                if !fragment {
                    watcher.next = last.next().0;
                }
                self.tell(home, Delivery::Events { id, revision, last, events, fragment });
            }
            // The hub's history does not reach back: upstream's may, or it says so itself.
            Delivery::Canceled { id: serial, compacted: Some(_), .. } => {
                if let Some(watcher) = self.take_out(serial) {
                    self.settle(Watcher { place: Place::Upstream, ..watcher });
                }
            }
            // Each was answered when it was asked for.
            Delivery::Canceled { compacted: None, .. } | Delivery::Refused { .. } => {}
            Delivery::Progress { id: Some(serial), .. } => {
                let Some(watcher) = self.watchers.get_mut(&serial) else { return };
                watcher.next = watcher.next.max(revision.next().0);
                if let Some(id) = watcher.id {
                    self.tell(home, Delivery::Progress { id: Some(id), revision });
                }
            }
            Delivery::Progress { id: None, .. } => self.hub_is_at(home, revision),
        }
    }

    /// Looks at requests in their order, as far as that goes.
    fn advance(&mut self) {
        while let Some(request) = self.waiting.pop_front() {
            if let Some(too_early) = self.take(request) {
                self.waiting.push_front(too_early);
                return;
            }
        }
        self.waiting = VecDeque::new();
    }

    /// Gives the request back if it has to wait.
    fn take(&mut self, request: RequestUnion) -> Option<RequestUnion> {
        match request {
            RequestUnion::CreateRequest(create) => return self.create(create).map(RequestUnion::CreateRequest),
            // Unknown ids are ignored, but for those that are about to be.
            RequestUnion::CancelRequest(cancel) if !self.cancel(cancel.watch_id) && !self.pending.is_empty() => {
                return Some(RequestUnion::CancelRequest(cancel));
            }
            RequestUnion::CancelRequest(_) => {}
            RequestUnion::ProgressRequest(progress) => {
                if !self.pending.is_empty() {
                    return Some(RequestUnion::ProgressRequest(progress));
                }
                self.progress.want();
                self.begin_round();
            }
        }
        None
    }

    fn create(&mut self, create: WatchCreateRequest) -> Option<WatchCreateRequest> {
        let range = spec(create.clone()).range;
        let place = self.place_for(&range, create.start_revision);
        if let Some(last) = self.pending.back() {
            // An id of the client's choice may be one that those before it will get.
            if create.watch_id != 0 || self.watchers[last].place != place {
                return Some(create);
            }
        }
        if create.watch_id != 0
            && let Some(holder) = self.ids.get(&create.watch_id)
        {
            self.refuse(self.watchers[holder].place, Error::WatchIdInUse.text());
            return None;
        }
        let next = create.start_revision;
        let watcher = Watcher { id: None, create, range, place, next, is_there: false };
        match self.attach(watcher) {
            Ok(serial) => self.pending.push_back(serial),
            // Its turn to be refused has not come.
            Err((watcher, _)) if !self.pending.is_empty() => return Some(watcher.create),
            Err((_, error)) => self.refuse(place, error.text()),
        }
        None
    }

    /// Which place has everything from `start` on. What is wrong with a request upstream says best.
    fn place_for(&mut self, range: &KeyRange, start: i64) -> Place {
        if start < 0 || range.is_empty() {
            return Place::Upstream;
        }
        self.homes.find(range, Revision(start)).map_or(Place::Upstream, Place::Home)
    }

    /// Puts a watcher that the client knows where it belongs; upstream if its hub does not take it.
    fn settle(&mut self, watcher: Watcher) {
        if let Err((watcher, _)) = self.attach(watcher) {
            let _ = self.attach(Watcher { place: Place::Upstream, ..*watcher });
        }
    }

    fn attach(&mut self, mut watcher: Watcher) -> Result<i64, (Box<Watcher>, Error)> {
        let (serial, place) = (self.next_serial, watcher.place);
        watcher.is_there = false;
        if let Place::Home(home) = place {
            let spec = WatchSpec { id: Some(serial), start: Revision(watcher.next), ..spec(watcher.create.clone()) };
            if let Err(error) = self.homes.attach(home, spec) {
                return Err((Box::new(watcher), error));
            }
        }
        self.next_serial += 1;
        if let Some(id) = watcher.id {
            self.ids.insert(id, serial);
        }
        self.watchers.insert(serial, watcher);
        *self.crowds.entry(place).or_default() += 1;
        if self.progress.gained(place) {
            self.ask(place);
        }
        self.ask_nobody_upstream();
        Ok(serial)
    }

    /// If all watchers are of hubs, their answers are enough. One of etcd upstream would not come: it says nothing of a stream without watchers.
    fn ask_nobody_upstream(&mut self) {
        // A stream that is about to end has watchers of the client's that are nowhere: nothing may be said of them.
        let is_of_hubs = !self.crowds.is_empty() && !self.crowds.contains_key(&Place::Upstream) && !self.is_unproven;
        if is_of_hubs && self.awaits_upstream_progress() {
            let verdict = self.progress.lost(Place::Upstream);
            self.act_on(Place::Upstream, verdict);
        }
    }

    /// Removes a watcher from here; its place is not told.
    fn take_out(&mut self, serial: i64) -> Option<Watcher> {
        let watcher = self.watchers.remove(&serial)?;
        if let Some(id) = watcher.id {
            self.ids.remove(&id);
        }
        self.link.fragments.retain(|part| part.watch_id != serial);
        let crowd = self.crowds.get_mut(&watcher.place).expect("each watcher is counted");
        *crowd -= 1;
        if *crowd == 0 {
            self.crowds.remove(&watcher.place);
        }
        Some(watcher)
    }

    /// A place that answers no more has creates to answer: for the client nothing has happened, so they are requests again.
    fn take_back_creates(&mut self, place: Place) {
        if self.pending.front().is_none_or(|serial| self.watchers[serial].place != place) {
            return;
        }
        while let Some(serial) = self.pending.pop_back() {
            let watcher = self.take_out(serial).expect("a create that is not answered has a watcher");
            self.waiting.push_front(RequestUnion::CreateRequest(watcher.create));
        }
    }

    /// A place has said that a watcher exists; returns its id if the client does not know yet.
    fn created(&mut self, serial: i64, revision: i64) -> Option<i64> {
        let watcher = self.watchers.get_mut(&serial)?;
        watcher.is_there = true;
        if watcher.id.is_some() {
            return None;
        }
        let head = self.pending.pop_front();
        assert_eq!(head, Some(serial), "a place answers creates in the order in which it was asked");
        if watcher.next == 0 {
            watcher.next = revision + 1;
        }
        let id = if watcher.create.watch_id != 0 { watcher.create.watch_id } else { self.free_id() };
        self.watchers.get_mut(&serial).expect("it was there").id = Some(id);
        self.ids.insert(id, serial);
        Some(id)
    }

    /// As etcd chooses.
    fn free_id(&mut self) -> i64 {
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn cancel(&mut self, id: i64) -> bool {
        let Some(serial) = self.ids.get(&id).copied() else { return false };
        let Some(Watcher { place, .. }) = self.withdraw(serial) else { return false };
        self.say(WatchResponse { header: self.header(place), watch_id: id, canceled: true, ..Default::default() });
        self.ask_nobody_upstream();
        true
    }

    /// How many watchers there are.
    pub(super) fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Removes a watcher from here and from its place.
    fn withdraw(&mut self, serial: i64) -> Option<Watcher> {
        let watcher = self.take_out(serial)?;
        match watcher.place {
            Place::Home(home) => self.homes.detach(home, serial),
            Place::Upstream if self.link.is_up && serial < self.link.cursor => {
                let cancel = WatchCancelRequest { watch_id: serial };
                self.link.requests.push_back(as_request(RequestUnion::CancelRequest(cancel)));
            }
            Place::Upstream => {}
        }
        Some(watcher)
    }

    fn refuse(&mut self, place: Place, reason: &str) {
        self.say(WatchResponse {
            header: self.header(place),
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..Default::default()
        });
    }

    fn header(&self, place: Place) -> Option<ResponseHeader> {
        match place {
            Place::Home(home) => self.homes.header(home).to_wire(),
            // Whoever went there from a hub may be gone before upstream has said a word.
            Place::Upstream => self.link.header.or(self.told),
        }
    }

    /// Lets out a reply of a hub.
    fn tell(&mut self, home: Home, delivery: Delivery) {
        let header = self.homes.header(home).at(delivery.revision());
        self.told = header.to_wire();
        self.out.push_back((WatchReply::Made { header, delivery }, 0));
    }

    /// Lets out a reply that is made here, or upstream.
    fn say(&mut self, reply: WatchResponse) {
        let bytes = bytes(&reply);
        self.told = reply.header.or(self.told);
        self.out_bytes += bytes;
        self.out.push_back((WatchReply::Passed(reply), bytes));
    }

    fn begin_round(&mut self) {
        for place in self.progress.begin(self.crowds.keys().copied()) {
            self.ask(place);
        }
    }

    fn ask(&mut self, place: Place) {
        match place {
            Place::Home(home) => {
                self.progress.hub_was_asked(place);
                self.homes.ask(home);
            }
            // A new link asks by itself.
            Place::Upstream if self.link.is_up => self.link.requests.push_back(progress_request()),
            Place::Upstream => {}
        }
    }

    fn hub_is_at(&mut self, home: Home, revision: Revision) {
        let place = Place::Home(home);
        // Those who are not there yet may need what is before.
        let theirs = |watcher: &&mut Watcher| watcher.place == place && watcher.is_there;
        for watcher in self.watchers.values_mut().filter(theirs) {
            watcher.next = watcher.next.max(revision.next().0);
        }
        if self.progress.hub_has_answered(place) {
            let header = self.homes.header(home).at(revision).to_wire();
            let verdict = self.progress.answered(place, header.unwrap_or_default());
            self.act_on(place, verdict);
        }
    }

    fn act_on(&mut self, place: Place, verdict: Verdict) {
        match verdict {
            Verdict::Again => self.ask(place),
            Verdict::Done(answers, header) => {
                for _ in 0..answers {
                    self.say(WatchResponse { header: Some(header), watch_id: NO_WATCHER, ..Default::default() });
                }
                self.begin_round();
            }
            Verdict::Nothing => self.begin_round(),
        }
    }
}

/// About what a reply takes in memory.
fn bytes(reply: &WatchResponse) -> usize {
    let kv = |kv: &crate::pb::mvccpb::KeyValue| kv.key.len() + kv.value.len();
    let event = |event: &crate::pb::mvccpb::Event| {
        EVENT_OVERHEAD + event.kv.as_ref().map_or(0, kv) + event.prev_kv.as_ref().map_or(0, kv)
    };
    REPLY_OVERHEAD + reply.events.iter().map(event).sum::<usize>()
}

const EVENT_OVERHEAD: usize = 200;
const REPLY_OVERHEAD: usize = 200;

fn as_request(request: RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(request) }
}

fn progress_request() -> WatchRequest {
    as_request(RequestUnion::ProgressRequest(WatchProgressRequest {}))
}

#[cfg(test)]
mod tests;
