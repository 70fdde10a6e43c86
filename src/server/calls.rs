//! How many gRPC calls there are, what comes of them, and how large they are.
//!
//! A call pays for a few relaxed atomics: what it is called is looked up once, in a short list that begins with those that are called
//! often. Its body is looked at as it passes, a frame at a time, for where messages begin; nothing is copied. The same list says which class
//! a call is of: what has no place is refused here, before anybody looks at it.

use super::{
    Admission,
    admission::{CallPlace, Class},
    listen::Peer,
    spans::{CallSpan, Spans},
};
use crate::{
    metrics::{Histogram, Kind, Source, Text},
    types::Error,
};
use bytes::Bytes;
use http::{HeaderMap, request::Parts};
use hyper::body::{Body, Frame, SizeHint};
use std::{
    array,
    borrow::Cow,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

/// What is sent in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Unary,
    ServerStream,
    BidiStream,
}

use Class::{List, Read, Upkeep, Write};
use Shape::{BidiStream, ServerStream, Unary};

/// Always let in: what keeps a cluster and its ring together, and says how they are; and what has a bound of its own, as streams have.
const OPEN: Option<Class> = None;

/// Paths that are counted, and the class that a call is of. What is called often comes first.
const METHODS: &[(&str, Shape, Option<Class>)] = &[
    ("/etcdserverpb.KV/Put", Unary, Some(Write)),
    ("/etcdserverpb.KV/Range", Unary, Some(Read)),
    ("/etcdserverpb.KV/Txn", Unary, Some(Write)),
    ("/etcdserverpb.KV/DeleteRange", Unary, Some(Write)),
    ("/etcdserverpb.Watch/Watch", BidiStream, OPEN),
    ("/etcdserverpb.Lease/LeaseKeepAlive", BidiStream, OPEN),
    ("/etcdserverpb.Lease/LeaseGrant", Unary, Some(Upkeep)),
    ("/etcdserverpb.Lease/LeaseRevoke", Unary, Some(Upkeep)),
    ("/etcdserverpb.Lease/LeaseTimeToLive", Unary, Some(Upkeep)),
    ("/etcdserverpb.Lease/LeaseLeases", Unary, Some(Upkeep)),
    ("/etcdserverpb.KV/Compact", Unary, Some(Write)),
    ("/etcdserverpb.KV/RangeStream", ServerStream, OPEN),
    ("/etcdserverpb.Cluster/MemberList", Unary, OPEN),
    ("/etcdserverpb.Cluster/MemberAdd", Unary, OPEN),
    ("/etcdserverpb.Cluster/MemberRemove", Unary, OPEN),
    ("/etcdserverpb.Cluster/MemberUpdate", Unary, OPEN),
    ("/etcdserverpb.Cluster/MemberPromote", Unary, OPEN),
    ("/etcdserverpb.Maintenance/Alarm", Unary, Some(Upkeep)),
    ("/etcdserverpb.Maintenance/Status", Unary, OPEN),
    ("/etcdserverpb.Maintenance/Defragment", Unary, OPEN),
    ("/etcdserverpb.Maintenance/Hash", Unary, Some(List)),
    ("/etcdserverpb.Maintenance/HashKV", Unary, Some(List)),
    ("/etcdserverpb.Maintenance/Snapshot", ServerStream, OPEN),
    ("/etcdserverpb.Maintenance/MoveLeader", Unary, OPEN),
    ("/etcdserverpb.Maintenance/Downgrade", Unary, OPEN),
    ("/etcdserverpb.Auth/Authenticate", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/AuthEnable", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/AuthDisable", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/AuthStatus", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/UserAdd", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/UserGet", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/UserList", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/UserDelete", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/UserChangePassword", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/UserGrantRole", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/UserRevokeRole", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/RoleAdd", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/RoleGet", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/RoleList", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/RoleDelete", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/RoleGrantPermission", Unary, Some(Upkeep)),
    ("/etcdserverpb.Auth/RoleRevokePermission", Unary, Some(Upkeep)),
    ("/v3electionpb.Election/Campaign", Unary, OPEN),
    ("/v3electionpb.Election/Proclaim", Unary, Some(Write)),
    ("/v3electionpb.Election/Leader", Unary, Some(Read)),
    ("/v3electionpb.Election/Observe", ServerStream, OPEN),
    ("/v3electionpb.Election/Resign", Unary, Some(Write)),
    ("/v3lockpb.Lock/Lock", Unary, OPEN),
    ("/v3lockpb.Lock/Unlock", Unary, Some(Write)),
    ("/grpc.health.v1.Health/Check", Unary, OPEN),
    ("/grpc.health.v1.Health/List", Unary, OPEN),
    ("/grpc.health.v1.Health/Watch", ServerStream, OPEN),
    ("/henge.ring.Ring/Report", BidiStream, OPEN),
    ("/henge.ring.Ring/List", ServerStream, OPEN),
    ("/henge.ring.Ring/Auth", BidiStream, OPEN),
    ("/henge.ring.Ring/Whose", Unary, OPEN),
];

/// gRPC's codes by number, as Go names them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const CANCELED: usize = 1;
const UNKNOWN: usize = 2;

/// The bounds that Prometheus' library has if nobody says otherwise.
const BOUNDS_S: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counts of all calls. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Calls {
    counts: Arc<Counts>,
}

struct Counts {
    methods: Box<[Method]>,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// Whether the time of each call is measured (`--metrics extensive`).
    times: bool,
    admission: Admission,
    /// `None`: nobody wants spans.
    spans: Option<Spans>,
}

struct Method {
    started: AtomicU64,
    handled: [AtomicU64; CODES.len()],
    received: AtomicU64,
    sent: AtomicU64,
    time: Histogram,
}

impl Calls {
    /// None so far; with `times` each is measured, and with `spans` each has one. They have their places from `admission`.
    pub(super) fn new(times: bool, spans: Option<Spans>, admission: Admission) -> Calls {
        let method = |_| Method {
            started: AtomicU64::default(),
            handled: array::from_fn(|_| AtomicU64::default()),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            time: Histogram::of_seconds(BOUNDS_S),
        };
        let methods = METHODS.iter().map(method).collect();
        let counts = Counts {
            methods,
            received_bytes: AtomicU64::default(),
            sent_bytes: AtomicU64::default(),
            times,
            admission,
            spans,
        };
        Calls { counts: Arc::new(counts) }
    }

    /// Whether there are spans, which say where a call comes from.
    pub(super) fn has_spans(&self) -> bool {
        self.counts.spans.is_some()
    }

    /// A call begins, whose head this is; `None` if it is of nothing that is counted.
    pub(super) fn begin(&self, head: &Parts) -> Option<Call> {
        let method = number(head.uri.path())?;
        self.counts.methods[method].started.fetch_add(1, Relaxed);
        let began = self.counts.times.then(Instant::now);
        let span = self.counts.spans.as_ref();
        let span = span.and_then(|spans| spans.begin(METHODS[method].0, &head.headers, head.extensions.get::<Peer>()));
        let (counts, span) = (Arc::clone(&self.counts), span.map(Box::new));
        Some(Call { counts, method, began, span, messages: Messages::default(), place: None, is_over: false })
    }
}

fn number(path: &str) -> Option<usize> {
    METHODS.iter().position(|(known, ..)| *known == path)
}

/// The class of a call; `None` if it needs no place.
pub(super) fn class_of(path: &str) -> Option<Class> {
    METHODS[number(path)?].2
}

/// A call that is under way. Dropped before its end it was cancelled.
pub(crate) struct Call {
    counts: Arc<Counts>,
    method: usize,
    began: Option<Instant>,
    span: Option<Box<CallSpan>>,
    /// Of the answer.
    messages: Messages,
    /// Goes with the answer.
    place: Option<CallPlace>,
    is_over: bool,
}

impl Call {
    /// Takes the place that the call needs.
    ///
    /// # Errors
    /// [`Error::RequestTooManyRequests`]: it is to be answered by that, and by nobody else.
    pub(super) fn admit(&mut self) -> Result<(), Error> {
        if let Some(class) = METHODS[self.method].2 {
            self.place = Some(self.counts.admission.call(class)?);
        }
        Ok(())
    }

    /// What is in its answer is one message: with that its place goes.
    pub(super) fn is_unary(&self) -> bool {
        METHODS[self.method].1 == Unary
    }

    pub(super) fn take_place(&mut self) -> Option<CallPlace> {
        self.place.take()
    }

    /// The messages of its request.
    pub(super) fn request<B>(&self, body: B) -> Received<B> {
        Received { body, messages: Messages::default(), counts: Arc::clone(&self.counts), method: self.method }
    }

    /// What the header or the trailer of its answer says, if it is the end.
    pub(super) fn look(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            let code = status.to_str().ok().and_then(|code| code.parse().ok()).filter(|code| *code < CODES.len());
            self.end(code.unwrap_or(UNKNOWN), || reason(headers));
        }
    }

    fn end(&mut self, code: usize, why: impl FnOnce() -> Cow<'static, str>) {
        if !std::mem::replace(&mut self.is_over, true) {
            let method = &self.counts.methods[self.method];
            method.handled[code].fetch_add(1, Relaxed);
            if let Some(began) = self.began {
                method.time.observe(began.elapsed());
            }
            if let Some(span) = self.span.take() {
                span.end(code, why());
            }
        }
    }

    /// A part of its answer.
    pub(super) fn sent(&mut self, data: &[u8]) {
        let (messages, bytes) = self.messages.pass(data);
        self.counts.methods[self.method].sent.fetch_add(messages, Relaxed);
        self.counts.sent_bytes.fetch_add(bytes, Relaxed);
    }

    /// Its answer has ended without saying how.
    pub(super) fn broke_off(&mut self) {
        self.end(UNKNOWN, || "the answer has no end".into());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CANCELED, || "the client went away".into());
    }
}

/// What a header or a trailer says to the client beside the code.
fn reason(headers: &HeaderMap) -> Cow<'static, str> {
    tonic::Status::from_header_map(headers).map_or(Cow::Borrowed(""), |status| status.message().to_owned().into())
}

/// Where messages begin and end in what passes.
#[derive(Default)]
struct Messages {
    /// What has come of the five bytes before a message: whether it is compressed, and its length.
    prefix: [u8; 5],
    seen: usize,
    /// What is missing of the message.
    left: usize,
}

impl Messages {
    /// How many messages have ended, and how many bytes of messages there were.
    fn pass(&mut self, mut data: &[u8]) -> (u64, u64) {
        let (mut ended, mut bytes) = (0, 0);
        while !data.is_empty() {
            if self.seen < self.prefix.len() {
                let part = data.len().min(self.prefix.len() - self.seen);
                self.prefix[self.seen..self.seen + part].copy_from_slice(&data[..part]);
                (self.seen, data) = (self.seen + part, &data[part..]);
                if self.seen < self.prefix.len() {
                    break;
                }
                let [_, a, b, c, d] = self.prefix;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
            }
            let part = data.len().min(self.left);
            (self.left, data, bytes) = (self.left - part, &data[part..], bytes + part as u64);
            if self.left == 0 {
                (self.seen, ended) = (0, ended + 1);
            }
        }
        (ended, bytes)
    }
}

/// The body of a request, whose messages are counted.
pub(super) struct Received<B> {
    body: B,
    messages: Messages,
    counts: Arc<Counts>,
    method: usize,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Received<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let (messages, bytes) = this.messages.pass(data);
            this.counts.methods[this.method].received.fetch_add(messages, Relaxed);
            this.counts.received_bytes.fetch_add(bytes, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Source for Calls {
    fn write(&self, text: &mut Text) {
        let counts = &*self.counts;
        let help = "The total number of bytes received from grpc clients.";
        text.counter("etcd_network_client_grpc_received_bytes_total", help, &counts.received_bytes);
        let help = "The total number of bytes sent to grpc clients.";
        text.counter("etcd_network_client_grpc_sent_bytes_total", help, &counts.sent_bytes);
        let all = || METHODS.iter().zip(&counts.methods);
        // Dashboards add up all that there is under etcd's names: what members and proxies tell each other is no client's doing.
        let methods = || all().filter(|(method, _)| !is_own(method)).map(|(method, counts)| (labels(*method), counts));
        let help = "Total number of RPCs started on the server.";
        let mut family = text.family("grpc_server_started_total", Kind::Counter, help);
        methods().for_each(|(labels, method)| family.sample(&labels, &method.started));
        let help = "Total number of RPCs completed on the server, regardless of success or failure.";
        let mut family = text.family("grpc_server_handled_total", Kind::Counter, help);
        for ([name, service, shape], method) in methods() {
            for (code, count) in CODES.iter().zip(&method.handled) {
                family.sample(&[("grpc_code", *code), name, service, shape], count);
            }
        }
        let help = "Total number of RPC stream messages received on the server.";
        let mut family = text.family("grpc_server_msg_received_total", Kind::Counter, help);
        methods().for_each(|(labels, method)| family.sample(&labels, &method.received));
        let help = "Total number of gRPC stream messages sent by the server.";
        let mut family = text.family("grpc_server_msg_sent_total", Kind::Counter, help);
        methods().for_each(|(labels, method)| family.sample(&labels, &method.sent));
        if counts.times {
            let help = "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.";
            let mut family = text.family("grpc_server_handling_seconds", Kind::Histogram, help);
            methods().for_each(|(labels, method)| family.histogram(&labels, &method.time));
        }
        let help = "Calls of proxies that report, or ask who is there.";
        let mut family = text.family("henge_ring_calls_total", Kind::Counter, help);
        for (method, counts) in all().filter(|(method, _)| is_own(method)) {
            let [(_, call), ..] = labels(*method);
            family.sample(&[("call", call)], &counts.started);
        }
    }
}

/// Whether a call is of henge's own protocol.
fn is_own((path, ..): &(&str, Shape, Option<Class>)) -> bool {
    path.starts_with("/henge.")
}

fn labels((path, shape, _): (&'static str, Shape, Option<Class>)) -> [(&'static str, &'static str); 3] {
    let (service, method) = path[1..].split_once('/').unwrap_or((path, ""));
    let shape = match shape {
        Unary => "unary",
        ServerStream => "server_stream",
        BidiStream => "bidi_stream",
    };
    [("grpc_method", method), ("grpc_service", service), ("grpc_type", shape)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Bounds;
    use std::collections::BTreeSet;

    /// What a file in `proto/` says: each call, and what is streamed.
    fn declared(proto: &str) -> Vec<(String, Shape)> {
        let (mut package, mut service, mut found) = ("", "", Vec::new());
        for line in proto.lines().map(str::trim) {
            let words = line.split([' ', '(', ')', ';', '{']).filter(|word| !word.is_empty()).collect::<Vec<_>>();
            match words[..] {
                ["package", name] => package = name,
                ["service", name, ..] => service = name,
                ["rpc", name, ref rest @ ..] => {
                    let returns = rest.iter().position(|word| *word == "returns").expect("a call returns");
                    let streams = |words: &[&str]| words.contains(&"stream");
                    let shape = match (streams(&rest[..returns]), streams(&rest[returns..])) {
                        (false, false) => Unary,
                        (false, true) => ServerStream,
                        (true, _) => BidiStream,
                    };
                    found.push((format!("/{package}.{service}/{name}"), shape));
                }
                _ => {}
            }
        }
        found
    }

    #[test]
    fn every_call_that_is_served_is_counted() {
        let files = [
            include_str!("../../proto/etcd/rpc.proto"),
            include_str!("../../proto/etcd/election.proto"),
            include_str!("../../proto/etcd/lock.proto"),
            include_str!("../../proto/grpc/health.proto"),
            include_str!("../../proto/henge/ring.proto"),
        ];
        let declared = files.iter().flat_map(|file| declared(file)).collect::<Vec<_>>();
        assert!(declared.len() > 45, "{declared:?}");
        let counted = METHODS.iter().map(|(path, shape, _)| ((*path).to_owned(), *shape)).collect::<Vec<_>>();
        let names = |all: &[(String, Shape)]| {
            all.iter().map(|(path, shape)| format!("{path} {shape:?}")).collect::<BTreeSet<_>>()
        };
        assert_eq!(names(&counted), names(&declared));
        assert_eq!(counted.len(), declared.len(), "one is there twice");
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let wire = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[1, 0, 0, 1, 4], &[7; 260]].concat();
        for step in 1..wire.len() {
            let mut messages = Messages::default();
            let sums = wire.chunks(step).map(|part| messages.pass(part));
            let sum = sums.fold((0, 0), |sum, (ended, bytes)| (sum.0 + ended, sum.1 + bytes));
            assert_eq!(sum, (3, 263), "in steps of {step}");
        }
    }

    #[test]
    fn a_call_ends_once_and_without_an_end_it_was_cancelled() {
        let calls = Calls::new(false, None, Admission::new(Bounds::within(1 << 30)));
        let begin = |path: &str| calls.begin(&http::Request::builder().uri(path).body(()).unwrap().into_parts().0);
        let mut call = begin("/etcdserverpb.KV/Put").unwrap();
        let mut trailers = HeaderMap::new();
        call.look(&trailers);
        trailers.insert("grpc-status", "14".parse().unwrap());
        call.look(&trailers);
        drop(call);
        drop(begin("/etcdserverpb.KV/Put"));
        let handled = &calls.counts.methods[0].handled;
        let counts = handled.iter().map(|count| count.load(Relaxed)).collect::<Vec<_>>();
        let expected = (0..CODES.len()).map(|code| u64::from(code == 14 || code == CANCELED)).collect::<Vec<_>>();
        assert_eq!(counts, expected);
        assert!(begin("/etcdserverpb.KV/Nothing").is_none());
    }
}
