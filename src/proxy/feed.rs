//! Keeps a copy of one range: loads it, then follows it, for as long as the ring lives.
//!
//! The load streams by, or comes in pages from an upstream that knows no streams, at the revision of a fence. Then one watch of upstream begins after it. When the stream breaks, another member
//! is asked to go on after the last revision that is here: nothing is lost and nothing comes twice, also if that member lags behind. A
//! fence says before whether upstream is still what it was. Where the history has a hole the copy ends, and another one is loaded.
//!
//! A watch of a range does not hear of other keys, so its revision would stand still while theirs go on. Whoever waits for one makes
//! the feed ask for progress: once for all who wait, and again for those who came meanwhile.

use super::{
    Source,
    copies::{Budget, Held},
    copy::{Copy, Keep, Loading, Writer},
    fence::{Fence, asks_who, header},
};
use crate::{
    client::Policy,
    mvcc::{Event, EventKind, KeyValue},
    pb::{
        etcdserverpb::{self as pb, kv_client::KvClient, watch_client::WatchClient, watch_request::RequestUnion},
        mvccpb,
    },
    types::{KeyRange, LeaseId, Revision},
    watch::{self as hub, NO_WATCHER},
};
use bytes::Bytes;
use parking_lot::RwLock;
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, metadata::MetadataValue, transport::Channel};

/// Keys of the first page; later ones follow the size of what came.
const PAGE_KEYS_FIRST: usize = 64;
const PAGE_KEYS_MAX: usize = 10_000;
/// What a page should weigh, about.
const PAGE_BYTES: usize = 1 << 20;

/// A question for progress that has no answer after this was dropped: etcd does not answer while the watch reads history.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// Pauses between questions that a lagging member answers with what is not enough.
const ASK_GAP_MIN: Duration = Duration::from_millis(1);
const ASK_GAP_MAX: Duration = Duration::from_millis(100);

/// How a feed behaves.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How much history is kept.
    pub keep: Keep,
    /// Whether to load by RangeStream where upstream has it; else in pages.
    pub streams: bool,
    /// The hub's bounds.
    pub hub: hub::Options,
    /// Longest wait for a page, or for a watch to begin.
    pub call_max: Duration,
    /// A member that does not come to what somebody waits for is left after this.
    pub lag_max: Duration,
    /// A range that was too large is looked at again after this.
    pub too_large_pause: Duration,
    /// Pauses between attempts.
    pub pauses: Policy,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            keep: Keep::default(),
            streams: true,
            hub: hub::Options::default(),
            call_max: Duration::from_secs(5),
            lag_max: Duration::from_secs(2),
            too_large_pause: Duration::from_secs(300),
            pauses: Policy::default(),
        }
    }
}

/// Keeps the copy of one range.
pub(super) struct Feed {
    pub(super) range: KeyRange,
    pub(super) source: Arc<dyn Source>,
    pub(super) fence: Fence,
    pub(super) rules: Rules,
    pub(super) budget: Arc<Budget>,
    /// Where others find the copy.
    pub(super) place: Arc<RwLock<Option<Arc<Copy>>>>,
}

/// Why a stream is no more.
#[derive(Debug)]
enum End {
    /// Another one can go on where it was.
    Lost(String),
    /// Nothing can.
    Over(String),
    /// The copy has outgrown the budget.
    TooLarge,
}

impl Feed {
    /// Never returns.
    pub(super) async fn run(self) {
        let mut pauses = self.rules.pauses.pauses(self.source.ways());
        loop {
            let mut held = self.budget.claim();
            let end = match self.load(&mut held).await {
                Ok(mut writer) => {
                    let began = Instant::now();
                    tracing::info!(range = ?self.range, revision = %writer.revision(), bytes = writer.bytes(), "a copy begins");
                    *self.place.write() = Some(Arc::clone(writer.copy()));
                    let end = self.follow(&mut writer, &mut held).await;
                    // Before the copy is over: nobody is to find it then.
                    *self.place.write() = None;
                    // One that ends at once, again and again, must not cost upstream a load each time.
                    if began.elapsed() > self.rules.call_max {
                        pauses.reset();
                    }
                    end
                }
                Err(end) => end,
            };
            drop(held);
            let pause = match end {
                End::TooLarge => {
                    tracing::warn!(
                        range = ?self.range, budget_bytes = self.budget.bytes_max(),
                        "the range does not fit into the budget of the copies, so it is passed through"
                    );
                    self.rules.too_large_pause
                }
                End::Lost(why) | End::Over(why) => {
                    let pause = pauses.next();
                    tracing::info!(range = ?self.range, why, ?pause, "a copy is to be loaded");
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn load(&self, held: &mut Held) -> Result<Writer, End> {
        let proof = self.fence.pass().await.map_err(|refusal| End::Lost(refusal.to_string()))?;
        let mut loading = Loading::new(self.range.clone(), proof);
        let mut limit = PAGE_KEYS_FIRST;
        let mut failures_left = 2 * self.source.ways();
        // A page of the past makes upstream count all that is left of the range; a stream does not.
        let mut streams = self.rules.streams;
        loop {
            let (turn, channel) = self.source.pick();
            let client = KvClient::new(channel).max_decoding_message_size(usize::MAX);
            let part = match streams {
                true => self.stream(client, &mut loading, held).await,
                false => self.page(client, &mut loading, held, &mut limit).await,
            };
            match part {
                Ok(true) => return loading.finish(self.rules.keep, self.rules.hub.clone()).map_err(fault),
                Ok(false) => {}
                Err(Part::Unknown) if streams => streams = false,
                Err(Part::Ends(End::Lost(why))) if failures_left > 0 => {
                    tracing::debug!(why, "the rest of a range is asked for again");
                    failures_left -= 1;
                    self.source.leave(turn);
                }
                Err(Part::Ends(end)) => return Err(end),
                Err(Part::Unknown) => return Err(End::Lost("upstream knows no ranges".into())),
            }
        }
    }

    /// Takes the rest of the range in as it streams by: true at the end.
    async fn stream(
        &self,
        mut client: KvClient<Channel>,
        loading: &mut Loading,
        held: &mut Held,
    ) -> Result<bool, Part> {
        let request = rest_of(loading, 0);
        let mut chunks = self.in_time(client.range_stream(request)).await?.into_inner();
        let mut is_of_cluster = false;
        while let Some(chunk) = self.in_time(chunks.message()).await? {
            let chunk = chunk.range_response.unwrap_or_default();
            if let Some(header) = header(chunk.header) {
                is_of_cluster = loading.is_of(&header);
            }
            take(loading, held, chunk.kvs)?;
        }
        // The last chunk has the header: without it something broke off.
        if is_of_cluster { Ok(true) } else { Err(Part::Ends(End::Lost("a stream without its end".into()))) }
    }

    /// Takes the next page in: true at the end.
    async fn page(
        &self,
        mut client: KvClient<Channel>,
        loading: &mut Loading,
        held: &mut Held,
        limit: &mut usize,
    ) -> Result<bool, Part> {
        let page = self.in_time(client.range(rest_of(loading, *limit))).await?.into_inner();
        if header(page.header).is_none_or(|header| !loading.is_of(&header)) {
            return Err(Part::Ends(End::Over("pages came from several clusters".into())));
        }
        let (keys, more) = (page.kvs.len(), page.more && !page.kvs.is_empty());
        let bytes = take(loading, held, page.kvs)?;
        *limit = (keys * PAGE_BYTES / bytes.max(1)).clamp(1, PAGE_KEYS_MAX);
        Ok(!more)
    }

    /// The outcome of one call, or of one step of a stream.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Part> {
        let result = tokio::time::timeout(self.rules.call_max, call).await;
        result.unwrap_or_else(|_| Err(crate::types::Error::Timeout.into())).map_err(|status| match status.code() {
            Code::Unimplemented => Part::Unknown,
            // Compacted meanwhile, or locked: begin again.
            _ if status.code() == Code::OutOfRange || asks_who(&status) => {
                Part::Ends(End::Over(status.message().to_owned()))
            }
            _ => Part::Ends(End::Lost(status.message().to_owned())),
        })
    }

    /// Brings events in until nothing can any more.
    async fn follow(&self, writer: &mut Writer, held: &mut Held) -> End {
        let mut pauses = self.rules.pauses.pauses(self.source.ways());
        let mut is_resumed = false;
        loop {
            let (began, before) = (Instant::now(), writer.revision());
            let (turn, _) = self.source.pick();
            let why = match self.one_stream(writer, held, is_resumed).await {
                Err(End::Lost(why)) => why,
                Err(end) => return end,
                Ok(never) => match never {},
            };
            is_resumed = true;
            self.source.leave(turn);
            // One that answers and hangs up at once is as bad as one that does not answer.
            if writer.revision() > before || began.elapsed() > self.rules.call_max {
                pauses.reset();
            }
            let pause = pauses.next();
            tracing::debug!(range = ?self.range, why, ?pause, "a copy has lost upstream");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = over(writer) => return End::Over("it is not upstream's history any more".into()),
            }
        }
    }

    async fn one_stream(
        &self,
        writer: &mut Writer,
        held: &mut Held,
        is_resumed: bool,
    ) -> Result<std::convert::Infallible, End> {
        if is_resumed {
            let before = writer.revision();
            let proof = self.fence.pass().await.map_err(|refusal| End::Lost(refusal.to_string()))?;
            if !writer.copy().agrees(before, &proof) {
                self.fence.forget();
                return Err(End::Over("upstream has another history: it was restored".into()));
            }
        }
        let opening = tokio::time::timeout(self.rules.call_max, self.open(writer.revision().next()));
        let (requests, mut replies) = opening.await.unwrap_or_else(|_| Err(End::Lost("no watch in time".into())))?;
        let mut wanted = writer.copy().wanted();
        let mut inbox = Inbox::default();
        let mut asking = Asking::new(Instant::now());
        let mut is_untidy = true;
        loop {
            let goal = *wanted.borrow_and_update();
            let now = Instant::now();
            let ask_at = asking
                .ask_at(now, writer.revision(), goal, self.rules.lag_max)
                .map_err(|()| End::Lost("the member lags behind".into()))?;
            let reply = tokio::select! {
                reply = replies.message() => reply,
                () = tokio::time::sleep_until(ask_at.unwrap_or(now)), if ask_at.is_some() => {
                    let union = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    asking.asked(now, goal);
                    // Full only if the connection takes nothing: then the question is lost like others, and asked again.
                    let _ = requests.try_send(pb::WatchRequest { request_union: Some(union) });
                    continue;
                }
                Ok(()) = wanted.changed() => continue,
                () = over(writer) => return Err(End::Over("it is not upstream's history any more".into())),
                () = tokio::task::yield_now(), if is_untidy => {
                    is_untidy = writer.tidy().map_err(fault)?;
                    continue;
                }
            };
            let reply = match reply {
                Ok(Some(reply)) => reply,
                Ok(None) => return Err(End::Lost("the stream ended".into())),
                Err(status) => return Err(End::Lost(format!("{:?}: {}", status.code(), status.message()))),
            };
            if header(reply.header).is_some_and(|header| !writer.heard(&header)) {
                self.fence.forget();
                return Err(End::Over("upstream is another cluster".into()));
            }
            match inbox.take(reply) {
                News::Nothing => {}
                News::Events(events) => sound(writer.events(events))?,
                News::Progress { upto, is_answer } => {
                    writer.progress(upto);
                    if is_answer {
                        asking.answered(Instant::now(), upto);
                    }
                }
                News::Compacted(at) => return Err(End::Over(format!("upstream is compacted at {at}"))),
                News::Canceled(why) => return Err(End::Lost(format!("the watch was cancelled: {why}"))),
            }
            is_untidy = true;
            if !held.resize(writer.bytes()) {
                return Err(End::TooLarge);
            }
        }
    }

    async fn open(
        &self,
        start: Revision,
    ) -> Result<(mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>), End> {
        let (key, range_end) = to_wire(&self.range);
        // What an event replaced is here already, so it need not come again.
        let create = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: start.0,
            progress_notify: true,
            fragment: true,
            ..Default::default()
        };
        let (requests, stream) = mpsc::channel(4);
        // It waits in the queue before the call: members answer the call itself only after it.
        let _ = requests.try_send(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        let mut request = Request::new(ReceiverStream::new(stream));
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let (_, channel) = self.source.pick();
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        match client.watch(request).await {
            Ok(replies) => Ok((requests, replies.into_inner())),
            Err(status) if asks_who(&status) => Err(End::Over(status.message().to_owned())),
            Err(status) => Err(End::Lost(status.message().to_owned())),
        }
    }
}

/// Why a part of a range did not come.
enum Part {
    Ends(End),
    /// Upstream does not know this call.
    Unknown,
}

impl From<End> for Part {
    fn from(end: End) -> Part {
        Part::Ends(end)
    }
}

fn rest_of(loading: &Loading, limit: usize) -> pb::RangeRequest {
    let (key, range_end) = to_wire(&loading.rest());
    pb::RangeRequest { key, range_end, limit: limit as i64, revision: loading.revision().0, ..Default::default() }
}

/// Takes keys in, if there is room; their bytes.
fn take(loading: &mut Loading, held: &mut Held, kvs: Vec<mvccpb::KeyValue>) -> Result<usize, End> {
    let kvs: Vec<KeyValue> = kvs.into_iter().map(key_value).collect();
    sound(loading.page(&kvs))?;
    if !held.resize(loading.bytes()) {
        return Err(End::TooLarge);
    }
    Ok(kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum())
}

/// Returns once the copy has ended.
fn over(writer: &Writer) -> impl Future<Output = ()> + use<> {
    let copy = Arc::clone(writer.copy());
    async move { copy.over().await }
}

fn fault(fault: crate::types::Fault) -> End {
    End::Over(format!("the copy is broken: {fault}"))
}

fn sound(result: Result<Result<(), crate::mvcc::Diverged>, crate::types::Fault>) -> Result<(), End> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(diverged)) => Err(End::Over(format!("what came does not fit: {diverged}"))),
        Err(broken) => Err(fault(broken)),
    }
}

/// When to ask for progress: one question at a time, which also answers those who come before its reply.
struct Asking {
    /// When it was sent, and what for.
    under_way: Option<(Instant, Revision)>,
    not_before: Option<Instant>,
    gap: Duration,
    level: Revision,
    /// Since when somebody has waited while the level stood still.
    still_since: Instant,
}

impl Asking {
    fn new(now: Instant) -> Asking {
        Asking { under_way: None, not_before: None, gap: ASK_GAP_MIN, level: Revision(0), still_since: now }
    }

    /// When to ask, if somebody waits for a `goal` above the `level`; `Err` if somebody has done so for `lag_max` in vain.
    fn ask_at(
        &mut self,
        now: Instant,
        level: Revision,
        goal: Revision,
        lag_max: Duration,
    ) -> Result<Option<Instant>, ()> {
        if level != self.level || goal <= level {
            (self.level, self.still_since) = (level, now);
        }
        if now - self.still_since > lag_max {
            return Err(());
        }
        let at = match self.under_way {
            Some((asked, _)) => asked + ASK_AGAIN,
            None => self.not_before.unwrap_or(now),
        };
        Ok((goal > level).then_some(at))
    }

    fn asked(&mut self, now: Instant, goal: Revision) {
        (self.under_way, self.not_before) = (Some((now, goal)), None);
    }

    /// The answer came. One that is not enough for those who waited when it was asked is of a member that lags: it gets time.
    fn answered(&mut self, now: Instant, upto: Revision) {
        let is_enough = self.under_way.take().is_none_or(|(_, goal)| upto >= goal);
        self.gap = if is_enough { ASK_GAP_MIN } else { (self.gap * 2).min(ASK_GAP_MAX) };
        self.not_before = (!is_enough).then_some(now + self.gap);
    }
}

/// What a reply means for the copy.
#[derive(Debug, PartialEq)]
enum News {
    Nothing,
    /// Whole revisions.
    Events(Vec<(Revision, Vec<Event>)>),
    /// Nothing at or below will follow. `is_answer`: somebody had asked.
    Progress {
        upto: Revision,
        is_answer: bool,
    },
    Compacted(Revision),
    Canceled(String),
}

/// Puts fragments together: the revision that one ends with may go on in the next.
#[derive(Default)]
struct Inbox {
    unfinished: Vec<Event>,
}

impl Inbox {
    fn take(&mut self, reply: pb::WatchResponse) -> News {
        if reply.canceled {
            return match reply.compact_revision {
                0 => News::Canceled(reply.cancel_reason),
                at => News::Compacted(Revision(at)),
            };
        }
        if reply.created {
            return News::Nothing;
        }
        if reply.events.is_empty() && !self.unfinished.is_empty() && reply.watch_id == NO_WATCHER {
            // Between two fragments: the revision that is on its way may be below.
            return News::Nothing;
        }
        if reply.events.is_empty() && !reply.fragment && self.unfinished.is_empty() {
            let upto = Revision(reply.header.map_or(0, |header| header.revision));
            return News::Progress { upto, is_answer: reply.watch_id == NO_WATCHER };
        }
        let mut whole = std::mem::take(&mut self.unfinished);
        whole.extend(reply.events.into_iter().map(event));
        if reply.fragment {
            let last = whole.last().map(|event| event.kv.mod_revision);
            let from = whole.iter().position(|event| Some(event.kv.mod_revision) == last).unwrap_or(whole.len());
            self.unfinished = whole.split_off(from);
        }
        if whole.is_empty() { News::Nothing } else { News::Events(by_revision(whole)) }
    }
}

fn by_revision(events: Vec<Event>) -> Vec<(Revision, Vec<Event>)> {
    let mut all: Vec<(Revision, Vec<Event>)> = Vec::new();
    for event in events {
        match all.last_mut() {
            Some((revision, same)) if *revision == event.kv.mod_revision => same.push(event),
            _ => all.push((event.kv.mod_revision, vec![event])),
        }
    }
    all
}

/// An event in our words. One about no key fits nowhere, and the copy will say so.
fn event(event: mvccpb::Event) -> Event {
    let deletes = event.r#type() == mvccpb::event::EventType::Delete;
    let kv = key_value(event.kv.unwrap_or_default());
    let kv = match deletes {
        true => KeyValue { key: kv.key, mod_revision: kv.mod_revision, ..KeyValue::default() },
        false => kv,
    };
    Event { kind: if deletes { EventKind::Delete } else { EventKind::Put }, kv, prev: None }
}

fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        version: kv.version,
        lease: LeaseId(kv.lease),
    }
}

/// A range in etcd's two fields.
pub(super) fn to_wire(range: &KeyRange) -> (Bytes, Bytes) {
    const ZERO: Bytes = Bytes::from_static(&[0]);
    match range {
        KeyRange::One(key) => (key.clone(), Bytes::new()),
        KeyRange::Span { start, end } => (start.clone(), end.clone()),
        KeyRange::From(start) => (if start.is_empty() { ZERO } else { start.clone() }, ZERO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, revision: i64) -> mvccpb::Event {
        let kv = mvccpb::KeyValue { key: key.into(), mod_revision: revision, ..Default::default() };
        mvccpb::Event { kv: Some(kv), ..Default::default() }
    }

    fn reply(fragment: bool, events: &[(&'static str, i64)]) -> pb::WatchResponse {
        let events = events.iter().map(|(key, revision)| put(key, *revision)).collect();
        pb::WatchResponse { fragment, events, ..Default::default() }
    }

    fn revisions(news: News) -> Vec<(i64, usize)> {
        match news {
            News::Events(all) => all.iter().map(|(revision, events)| (revision.0, events.len())).collect(),
            News::Nothing => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_revision_that_fragments_cut_comes_whole() {
        let mut inbox = Inbox::default();
        assert_eq!(revisions(inbox.take(reply(true, &[("a", 5), ("b", 6)]))), [(5, 1)]);
        assert_eq!(revisions(inbox.take(reply(true, &[("c", 6)]))), []);
        assert_eq!(revisions(inbox.take(reply(true, &[("d", 6), ("e", 7)]))), [(6, 3)]);
        assert_eq!(revisions(inbox.take(reply(false, &[]))), [(7, 1)]);
        assert_eq!(revisions(inbox.take(reply(false, &[("f", 8), ("g", 8)]))), [(8, 2)]);
    }

    #[test]
    fn replies_without_events_tell_how_far_upstream_is() {
        let header = |revision| Some(pb::ResponseHeader { revision, ..Default::default() });
        let mut inbox = Inbox::default();
        let created = pb::WatchResponse { created: true, header: header(9), ..Default::default() };
        assert_eq!(inbox.take(created), News::Nothing);
        for (watch_id, is_answer) in [(0, false), (NO_WATCHER, true)] {
            let progress = pb::WatchResponse { watch_id, header: header(9), ..Default::default() };
            assert_eq!(inbox.take(progress), News::Progress { upto: Revision(9), is_answer });
        }
        let compacted = pb::WatchResponse { canceled: true, compact_revision: 7, ..Default::default() };
        assert_eq!(inbox.take(compacted), News::Compacted(Revision(7)));
    }

    #[test]
    fn one_question_is_under_way_and_those_who_come_later_wait_for_the_next() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let second = Duration::from_secs(1);
        let mut asking = Asking::new(start);
        let at = |asking: &mut Asking, now, level, goal| asking.ask_at(now, Revision(level), Revision(goal), second);
        assert_eq!(at(&mut asking, start, 5, 5), Ok(None));
        assert_eq!(at(&mut asking, ms(1), 5, 7), Ok(Some(ms(1))));
        asking.asked(ms(1), Revision(7));
        // Another comes, for more: not before the answer, or before that must be lost.
        assert_eq!(at(&mut asking, ms(2), 5, 9), Ok(Some(ms(1) + ASK_AGAIN)));
        asking.answered(ms(3), Revision(8));
        assert_eq!(at(&mut asking, ms(3), 8, 9), Ok(Some(ms(3))), "it was enough for the question");
        asking.asked(ms(3), Revision(9));
        asking.answered(ms(4), Revision(8));
        assert_eq!(at(&mut asking, ms(4), 8, 9), Ok(Some(ms(6))), "a member that lags gets time");
        assert_eq!(at(&mut asking, ms(1_003), 8, 9), Ok(Some(ms(6))));
        assert_eq!(at(&mut asking, ms(1_004), 8, 9), Err(()), "but not for ever");
        assert_eq!(at(&mut asking, ms(1_005), 9, 10), Ok(Some(ms(6))), "as long as it goes on");
    }
}
