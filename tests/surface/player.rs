//! Plays the steps of a script against a server.
//!
//! ```text
//! call KV/Put {"key": b"a"}      makes a call; b"…" are bytes, escaped as in Rust, and big(9) are nine zeros
//! open w Watch/Watch             opens a stream of the name w; `send w {…}`, `recv w 2` (that many replies), `quiet w` (none comes),
//!                                `all w 2` (in any order), `half-close w` (no more requests), `close w`
//! let x member.ID                keeps a part of the last answer: `$x` stands for it from then on, and is written in answers
//! meta token $x                  goes with all calls from then on; `meta` alone: nothing
//! await TTL=-1 Lease/L… {…}      makes a call again and again until that is in its answer
//! ```
//!
//! In answers what differs from run to run (ids of the cluster, terms, sizes, tokens) is `*`, and what etcd lists in an order of chance is
//! sorted.

use bytes::{Buf, BufMut, Bytes};
use henge::pb;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, ReflectMessage, Value};
use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{AsciiMetadataKey, MetadataMap},
    transport::Channel,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// What has not come by then does not come.
const QUIET: Duration = Duration::from_millis(300);
/// Between two calls of one that is awaited.
const PAUSE: Duration = Duration::from_millis(50);
const NOTHING: &str = "nothing";
/// Fields whose values are another server's, or another moment's.
const MASKED: &[&str] = &[
    "cluster_id",
    "member_id",
    "raft_term",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
    "dbSize",
    "token",
    "remaining_bytes",
    "blob",
    "clientURLs",
];
/// What henge knows only after its store has been flushed for the first time.
const LEFT_OUT: &str = "dbSizeInUse";
const MASKED_OF: &[(&str, &str)] =
    &[("Member", "ID"), ("StatusResponse", "version"), ("StatusResponse", "leader"), ("HashResponse", "hash")];
/// Lists without an order of their own in etcd: of what is drawn by lot (ids of members), or walked as Go walks its maps.
const SORTED: &[&str] = &["members", "alarms", "errors", "keys"];
/// Bytes that are longer are told by their number.
const BYTES_SHOWN: usize = 64;
/// Replies of one call that has many.
const REPLIES_SHOWN: usize = 20;

pub struct Player {
    runtime: Runtime,
    channel: Channel,
    pool: DescriptorPool,
    names: BTreeMap<String, String>,
    metadata: MetadataMap,
    streams: BTreeMap<String, Stream>,
    last: Option<DynamicMessage>,
}

struct Stream {
    method: MethodDescriptor,
    requests: Option<mpsc::Sender<Bytes>>,
    replies: mpsc::Receiver<Result<Bytes, Status>>,
}

impl Player {
    pub fn of(url: &str) -> Player {
        let runtime = Runtime::new().expect("a runtime");
        let channel = Channel::from_shared(url.to_owned()).expect("a URL");
        let channel = runtime.block_on(channel.connect()).expect("a connection");
        let pool = DescriptorPool::decode(pb::DESCRIPTORS).expect("descriptors");
        let (names, streams) = (BTreeMap::new(), BTreeMap::new());
        Player { runtime, channel, pool, names, metadata: MetadataMap::new(), streams, last: None }
    }

    /// Does one step, and returns what came of it, a line each. What is expected decides only for how long it is waited for.
    pub fn play(&mut self, line: &str, expected: &[String]) -> Vec<String> {
        let mut words = line.splitn(3, ' ');
        let (verb, name, rest) = (words.next().unwrap(), words.next().unwrap_or_default(), words.next().unwrap_or(""));
        match verb {
            "call" => self.call(name, rest),
            "open" => self.open(name, rest),
            "send" => self.send(name, rest),
            "recv" => self.receive_some(name, rest),
            "all" => {
                let mut replies = self.receive_some(name, rest);
                replies.sort();
                replies
            }
            "quiet" => {
                let is_silent = expected.iter().all(|line| line == NOTHING);
                vec![self.receive(name, if is_silent { QUIET } else { PATIENCE })]
            }
            "half-close" => {
                self.streams.get_mut(name).expect("a stream").requests = None;
                Vec::new()
            }
            "close" => {
                self.streams.remove(name).expect("a stream");
                Vec::new()
            }
            "let" => self.keep(name, rest),
            "meta" => self.carry(name, rest),
            "await" => self.call_until(name, rest),
            _ => panic!("no step: {line}"),
        }
    }

    fn method(&self, name: &str) -> MethodDescriptor {
        let (service, method) = name.split_once('/').expect("Service/Method");
        let services = self.pool.services().filter(|known| known.name() == service);
        let mut methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        methods.find(|known| known.name() == method).unwrap_or_else(|| panic!("no {name}"))
    }

    fn expand(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in self.names.iter().rev() {
            text = text.replace(&format!("${name}"), value);
        }
        text
    }

    fn message(&self, kind: MessageDescriptor, text: &str) -> Bytes {
        let json = json(&self.expand(text));
        let mut reader = serde_json::Deserializer::from_str(&json);
        let message = DynamicMessage::deserialize(kind, &mut reader);
        message.unwrap_or_else(|error| panic!("{text}: {error}")).encode_to_vec().into()
    }

    fn request<T>(&self, content: T) -> Request<T> {
        let mut request = Request::new(content);
        *request.metadata_mut() = self.metadata.clone();
        request
    }

    /// Begins a call.
    fn begin(
        &self,
        method: &MethodDescriptor,
        requests: mpsc::Receiver<Bytes>,
    ) -> mpsc::Receiver<Result<Bytes, Status>> {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let request = self.request(ReceiverStream::new(requests));
        let (sender, replies) = mpsc::channel(1_000);
        self.runtime.spawn(async move {
            client.ready().await.expect("a connection");
            let path = path.parse().expect("a path");
            let answer = client.streaming(request, path, Raw).await;
            let mut replies: Streaming<Bytes> = match answer {
                Ok(answer) => answer.into_inner(),
                Err(status) => {
                    // Nobody waits for it if the stream was closed; likewise below.
                    let _ = sender.send(Err(status)).await;
                    return;
                }
            };
            loop {
                let reply = match replies.message().await {
                    Ok(None) => return,
                    Ok(Some(reply)) => Ok(reply),
                    Err(status) => Err(status),
                };
                let is_last = reply.is_err();
                tokio::select! {
                    sent = sender.send(reply) => if sent.is_err() || is_last { return },
                    () = sender.closed() => return,
                }
            }
        });
        replies
    }

    fn call(&mut self, name: &str, text: &str) -> Vec<String> {
        let method = self.method(name);
        let (requests, receiver) = mpsc::channel(1);
        requests.try_send(self.message(method.input(), text)).expect("room for one");
        drop(requests);
        let mut replies = self.begin(&method, receiver);
        let mut answers = Vec::new();
        self.last = None;
        while let Some(reply) =
            self.runtime.block_on(async { timeout(PATIENCE, replies.recv()).await }).expect("in time")
        {
            answers.push(self.shown(&method, reply));
            if answers.len() == REPLIES_SHOWN {
                break;
            }
        }
        answers
    }

    /// Calls again and again until `text` is in the answer.
    fn call_until(&mut self, text: &str, call: &str) -> Vec<String> {
        let (name, request) = call.split_once(' ').expect("a call and its request");
        let begun = Instant::now();
        loop {
            let answers = self.call(name, request);
            if answers.iter().any(|answer| answer.contains(text)) || begun.elapsed() > PATIENCE {
                return answers;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn open(&mut self, name: &str, call: &str) -> Vec<String> {
        let method = self.method(call);
        let (requests, receiver) = mpsc::channel(16);
        let replies = self.begin(&method, receiver);
        self.streams.insert(name.to_owned(), Stream { method, requests: Some(requests), replies });
        Vec::new()
    }

    fn send(&mut self, name: &str, text: &str) -> Vec<String> {
        let message = self.message(self.streams[name].method.input(), text);
        let requests = self.streams[name].requests.as_ref().expect("it is open");
        match requests.blocking_send(message) {
            Ok(()) => Vec::new(),
            Err(_) => vec!["the stream is over".to_owned()],
        }
    }

    fn receive_some(&mut self, name: &str, count: &str) -> Vec<String> {
        let count = if count.is_empty() { 1 } else { count.parse().expect("a number") };
        (0..count).map(|_| self.receive(name, PATIENCE)).collect()
    }

    fn receive(&mut self, name: &str, patience: Duration) -> String {
        let stream = self.streams.get_mut(name).expect("a stream");
        let method = stream.method.clone();
        match self.runtime.block_on(async { timeout(patience, stream.replies.recv()).await }) {
            Ok(Some(reply)) => self.shown(&method, reply),
            Ok(None) => "the end".to_owned(),
            Err(_) => NOTHING.to_owned(),
        }
    }

    fn keep(&mut self, name: &str, path: &str) -> Vec<String> {
        let Some(last) = self.last.clone() else { return vec!["no answer".to_owned()] };
        let mut value = Value::Message(last);
        for part in path.split('.') {
            value = match value {
                Value::Message(message) => message.get_field_by_name(part).expect("a field").into_owned(),
                Value::List(mut list) => list.swap_remove(part.parse().expect("a place in the list")),
                other => panic!("no part {part} of {other:?}"),
            };
        }
        let text = match value {
            Value::String(text) => text,
            Value::I64(number) => number.to_string(),
            Value::U64(number) => number.to_string(),
            other => panic!("{path} is {other:?}"),
        };
        self.names.insert(name.to_owned(), text);
        Vec::new()
    }

    fn carry(&mut self, name: &str, value: &str) -> Vec<String> {
        self.metadata = MetadataMap::new();
        if !name.is_empty() {
            let name: AsciiMetadataKey = name.parse().expect("a name");
            self.metadata.insert(name, self.expand(value).parse().expect("a value"));
        }
        Vec::new()
    }

    /// An answer as a line; the last one can be kept parts of.
    fn shown(&mut self, method: &MethodDescriptor, reply: Result<Bytes, Status>) -> String {
        let bytes = match reply {
            Ok(bytes) => bytes,
            Err(status) => return format!("{:?} {:?}", status.code(), self.named(status.message())),
        };
        let message = DynamicMessage::decode(method.output(), bytes).expect("a message of its kind");
        let mut text = String::new();
        show(&message, &mut text);
        self.last = Some(message);
        self.named(&text)
    }

    /// With `$name` for what is kept under it, if it is long enough to be nothing else.
    fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in self.names.iter().filter(|(_, value)| value.len() > 6) {
            text = text.replace(value.as_str(), &format!("${name}"));
            if let Ok(id) = value.parse::<u64>() {
                text = text.replace(&format!("{id:x}"), &format!("${name}"));
            }
        }
        text
    }
}

fn show(message: &DynamicMessage, out: &mut String) {
    out.push('{');
    let fields = message.fields().filter(|(field, _)| field.name() != LEFT_OUT);
    for (number, (field, value)) in fields.enumerate() {
        if number > 0 {
            out.push(' ');
        }
        write!(out, "{}=", field.name()).unwrap();
        let of = message.descriptor();
        let is_masked = MASKED.contains(&field.name()) || MASKED_OF.contains(&(of.name(), field.name()));
        // What is left of a lease, unless there is none.
        let is_left = of.name() == "LeaseTimeToLiveResponse" && field.name() == "TTL" && value.as_i64() > Some(0);
        match is_masked || is_left {
            // Of these it counts whether they are there.
            true => out.push('*'),
            false => show_value(field.name(), &field.kind(), value, out),
        }
    }
    out.push('}');
}

fn text_of(name: &str, kind: &Kind, value: &Value) -> String {
    let mut text = String::new();
    show_value(name, kind, value, &mut text);
    text
}

fn show_value(name: &str, kind: &Kind, value: &Value, out: &mut String) {
    match value {
        Value::Message(message) => show(message, out),
        Value::List(list) => {
            let mut texts: Vec<_> = list.iter().map(|value| text_of(name, kind, value)).collect();
            if SORTED.contains(&name) {
                texts.sort();
            }
            write!(out, "[{}]", texts.join(" ")).unwrap();
        }
        Value::Bytes(bytes) if bytes.len() > BYTES_SHOWN => write!(out, "({} bytes)", bytes.len()).unwrap(),
        Value::Bytes(bytes) => write!(out, "\"{}\"", bytes.escape_ascii()).unwrap(),
        // The texts of alarms, where each build of etcd has one space or two, by chance.
        Value::String(text) if name == "errors" => write!(out, "{:?}", text.replace("  ", " ")).unwrap(),
        Value::String(text) => write!(out, "{text:?}").unwrap(),
        Value::EnumNumber(number) => match kind.as_enum().and_then(|kind| kind.get_value(*number)) {
            Some(known) => out.push_str(known.name()),
            None => write!(out, "{number}").unwrap(),
        },
        Value::Bool(value) => write!(out, "{value}").unwrap(),
        Value::I32(number) => write!(out, "{number}").unwrap(),
        Value::I64(number) => write!(out, "{number}").unwrap(),
        Value::U32(number) => write!(out, "{number}").unwrap(),
        Value::U64(number) => write!(out, "{number}").unwrap(),
        other => panic!("etcd's messages have no {other:?}"),
    }
}

/// JSON, from a text with `b"…"` and `big(…)` in it.
fn json(text: &str) -> String {
    let (mut json, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("b\"").into_iter().chain(rest.find("big(")).min() {
        json.push_str(&rest[..at]);
        let (bytes, after) = match rest[at..].strip_prefix("big(") {
            Some(number) => {
                let (number, after) = number.split_once(')').expect("a closing bracket");
                (vec![0; number.parse().expect("a number")], after)
            }
            None => unescaped(&rest[at + 2..]),
        };
        write!(json, "\"{}\"", base64(&bytes)).unwrap();
        rest = after;
    }
    json + rest
}

/// The bytes up to the closing quote, and what is behind it.
fn unescaped(text: &str) -> (Vec<u8>, &str) {
    let mut bytes = Vec::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (bytes, &text[at + 1..]),
            '\\' => match characters.next().expect("something is escaped").1 {
                '0' => bytes.push(0),
                'x' => {
                    let digits = &text[at + 2..at + 4];
                    bytes.push(u8::from_str_radix(digits, 16).expect("two digits"));
                    characters.nth(1);
                }
                other => bytes.push(other as u8),
            },
            other => bytes.push(other as u8),
        }
    }
    panic!("no closing quote: {text}");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
