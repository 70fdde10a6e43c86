//! Renewals of all clients over few streams.
//!
//! Renewals of one lease that wait together travel as one. A renewal that is asked for while another of the same lease is on its way
//! travels again: the answer to come may be older than the question, and would promise a time to live that has begun to run before.
//! For the same reason an answer that could not be handed on in time is not handed on at all.
//!
//! ```text
//!   client streams ──▶ line (by lease) ──▶ one upstream stream      a line: what waits to be sent │ what was sent, once a lease
//! ```

use super::{Upstream, link::pause, pass::told};
use crate::{
    client,
    pb::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse, lease_client::LeaseClient},
    runtime,
    server::CallBody,
    types::{self, Sabotage},
};
use http::{HeaderMap, Request as HttpRequest, Response as HttpResponse};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, StreamingService},
};
use tonic_prost::ProstCodec;

/// Upstream streams. A stock etcd works each of them off in order, so one would make all leases wait for the slowest.
const LINES: usize = 2;
/// After a line has sent all that it had it gathers for so long: a member has to prove that it leads, with others, for one renewal as for
/// a thousand. The first after a rest goes at once.
const GATHER: Duration = Duration::from_millis(250);
/// Renewals that may wait for a line to take them in; then the streams of clients wait.
const ASKED_MAX: usize = 1_024;
/// Renewals that a line may have taken in and not answered.
const OPEN_MAX: usize = 65_536;
/// Requests, and answers, on their way between a line and its connection.
const ON_THE_WAY_MAX: usize = 256;
/// Renewals of one client that may be unanswered; then its stream waits.
const CLIENT_MAX: usize = 256;
/// Longest silence of an upstream that owes an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Longest time that an answer may lie here, behind others or because the client does not read.
const FRESH_MAX: Duration = Duration::from_secs(1);

/// An answer and when it came, or why there is none.
type Outcome = Result<(LeaseKeepAliveResponse, Instant), Status>;

struct Ask {
    id: i64,
    reply: oneshot::Sender<Outcome>,
}

/// The lines of one proxy. They end with it.
#[derive(Clone)]
pub(super) struct Renewals {
    lines: Arc<[mpsc::Sender<Ask>]>,
    /// Renewals that were answered.
    answered: Arc<AtomicU64>,
}

impl Renewals {
    /// Lines to `upstream`. Nothing is sent before somebody renews.
    pub(super) fn start(upstream: &Upstream, sabotage: Option<Sabotage>) -> Renewals {
        let answered = Arc::default();
        let line = |_| {
            let (sender, asked) = mpsc::channel(ASKED_MAX);
            let line = Line { answered: Arc::clone(&answered), sabotage, ..Line::new(upstream.clone(), asked) };
            runtime::spawn(line.run());
            sender
        };
        Renewals { lines: (0..LINES).map(line).collect(), answered }
    }

    /// How many renewals upstream has answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Whether a stream with this metadata may travel with others: it says nothing of who its client is, nor what it demands.
    pub(super) fn may_merge(&self, metadata: &HeaderMap) -> bool {
        ["token", "authorization", "hasleader"].iter().all(|name| !metadata.contains_key(*name))
    }

    /// Answers one client's stream.
    pub(super) async fn serve<R: CallBody>(
        &self,
        request: HttpRequest<R>,
        stopping: watch::Receiver<bool>,
    ) -> HttpResponse<Body> {
        let service = ClientStream { lines: Arc::clone(&self.lines), stopping };
        Grpc::new(ProstCodec::default()).streaming(service, request).await
    }
}

struct ClientStream {
    lines: Arc<[mpsc::Sender<Ask>]>,
    stopping: watch::Receiver<bool>,
}

impl StreamingService<LeaseKeepAliveRequest> for ClientStream {
    type Response = LeaseKeepAliveResponse;
    type ResponseStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<LeaseKeepAliveRequest>>) -> Self::Future {
        // In the order of the requests, as a member answers.
        let (owed, owing) = mpsc::channel(CLIENT_MAX);
        let (answers, to_client) = mpsc::channel(CLIENT_MAX);
        runtime::spawn(ask_all(request.into_inner(), Arc::clone(&self.lines), owed));
        runtime::spawn(answer_all(owing, answers, self.stopping.clone()));
        std::future::ready(Ok(Response::new(ReceiverStream::new(to_client))))
    }
}

/// Hands a client's requests to the lines, until there are no more or nobody answers any more.
async fn ask_all(
    mut requests: Streaming<LeaseKeepAliveRequest>,
    lines: Arc<[mpsc::Sender<Ask>]>,
    owed: mpsc::Sender<oneshot::Receiver<Outcome>>,
) {
    loop {
        let message = tokio::select! {
            biased;
            () = owed.closed() => return,
            message = requests.message() => message,
        };
        // A client that breaks off in the middle hears no more; a half-closed one gets what it is owed.
        let Ok(Some(LeaseKeepAliveRequest { id })) = message else { return };
        let (reply, outcome) = oneshot::channel();
        let line = &lines[id.unsigned_abs() as usize % lines.len()];
        if line.send(Ask { id, reply }).await.is_err() || owed.send(outcome).await.is_err() {
            return;
        }
    }
}

async fn answer_all(
    mut owing: mpsc::Receiver<oneshot::Receiver<Outcome>>,
    answers: mpsc::Sender<Result<LeaseKeepAliveResponse, Status>>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let answer = tokio::select! {
            biased;
            () = answers.closed() => return,
            () = told(&mut stopping) => Err(types::Error::Stopped.into()),
            outcome = owing.recv() => match outcome {
                Some(outcome) => outcome.await.unwrap_or_else(|_| Err(types::Error::Stopped.into())),
                None => return,
            },
        };
        // Room first: what was fresh may not be any more once there is some.
        let Ok(room) = answers.reserve().await else { return };
        match answer {
            Ok((answer, came)) if came.elapsed() <= FRESH_MAX => room.send(Ok(answer)),
            Ok(_) => {
                return room
                    .send(Err(Status::unavailable("henge proxy: the renewal was answered too long ago to tell")));
            }
            Err(status) => return room.send(Err(status)),
        }
    }
}

/// Who waits for one lease.
#[derive(Default)]
struct Waiting {
    /// Asked before the renewal on its way was sent: its answer is theirs.
    sent: Vec<oneshot::Sender<Outcome>>,
    /// Asked after that.
    next: Vec<oneshot::Sender<Outcome>>,
}

/// One upstream stream, and whoever waits for it.
struct Line {
    upstream: Upstream,
    asked: mpsc::Receiver<Ask>,
    waiting: HashMap<i64, Waiting>,
    /// Leases to renew, each once.
    to_send: VecDeque<i64>,
    /// Asks that are in `waiting`.
    open: usize,
    /// Nothing is sent before that.
    send_from: Instant,
    stream: Option<Stream>,
    failures: u32,
    /// Renewals that were answered, of all lines.
    answered: Arc<AtomicU64>,
    /// No stream is opened before that.
    not_before: Instant,
    /// [`ANSWER_MAX`], but for tests.
    answer_max: Duration,
    sabotage: Option<Sabotage>,
}

/// An open stream, or one that opens: a member sends nothing, not even headers, before its first answer.
struct Stream {
    turn: usize,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: mpsc::Receiver<Result<LeaseKeepAliveResponse, Status>>,
    reader: JoinHandle<()>,
    /// Renewals that were sent and not answered.
    owed: usize,
    /// When the upstream last answered, or began to owe.
    heard: Instant,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

enum Event {
    Asked(Ask),
    /// The proxy is gone.
    Gone,
    MayOpen,
    MaySend(mpsc::OwnedPermit<LeaseKeepAliveRequest>),
    Answered(LeaseKeepAliveResponse),
    Lost(Status),
}

impl Line {
    fn new(upstream: Upstream, asked: mpsc::Receiver<Ask>) -> Line {
        Line {
            upstream,
            asked,
            waiting: HashMap::new(),
            to_send: VecDeque::new(),
            open: 0,
            send_from: Instant::now(),
            stream: None,
            failures: 0,
            answered: Arc::default(),
            not_before: Instant::now(),
            answer_max: ANSWER_MAX,
            sabotage: None,
        }
    }

    async fn run(mut self) {
        loop {
            match self.next().await {
                Event::Asked(ask) => self.take(ask),
                Event::Gone => return,
                Event::MayOpen => self.stream = Some(open(&self.upstream)),
                Event::MaySend(permit) => self.send(permit),
                Event::Answered(answer) => self.answer(answer),
                Event::Lost(status) => self.lose(&status),
            }
        }
    }

    async fn next(&mut self) -> Event {
        let wants_to_send = !self.to_send.is_empty();
        let has_room = self.open < OPEN_MAX;
        let asked = async {
            match self.asked.recv().await {
                Some(ask) => Event::Asked(ask),
                None => Event::Gone,
            }
        };
        let Some(stream) = &mut self.stream else {
            return tokio::select! {
                biased;
                () = sleep_until(self.not_before), if wants_to_send => Event::MayOpen,
                event = asked, if has_room => event,
            };
        };
        let (requests, send_from) = (stream.requests.clone(), self.send_from);
        let permit = async move {
            sleep_until(send_from).await;
            requests.reserve_owned().await
        };
        tokio::select! {
            // Answers first: who waits must not wait for who comes.
            biased;
            answer = stream.answers.recv() => match answer {
                Some(Ok(answer)) => Event::Answered(answer),
                Some(Err(status)) => Event::Lost(status),
                None => Event::Lost(Status::unavailable("henge proxy: the upstream ended the stream")),
            },
            () = sleep_until(stream.heard + self.answer_max), if stream.owed > 0 => {
                let address = self.upstream.address(stream.turn);
                Event::Lost(Status::unavailable(format!("henge proxy: {address} does not answer renewals")))
            }
            // Once the reader is gone there is no room any more, and it has said why.
            Ok(permit) = permit, if wants_to_send => Event::MaySend(permit),
            event = asked, if has_room => event,
        }
    }

    fn take(&mut self, Ask { id, reply }: Ask) {
        let waiting = self.waiting.entry(id).or_default();
        if waiting.sent.is_empty() && waiting.next.is_empty() {
            self.to_send.push_back(id);
        }
        waiting.next.push(reply);
        self.open += 1;
    }

    fn send(&mut self, permit: mpsc::OwnedPermit<LeaseKeepAliveRequest>) {
        let (Some(id), Some(stream)) = (self.to_send.pop_front(), &mut self.stream) else { return };
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        if self.to_send.is_empty() {
            self.send_from = Instant::now() + GATHER;
        }
        waiting.sent = std::mem::take(&mut waiting.next);
        if stream.owed == 0 {
            stream.heard = Instant::now();
        }
        stream.owed += 1;
        permit.send(LeaseKeepAliveRequest { id });
    }

    fn answer(&mut self, answer: LeaseKeepAliveResponse) {
        self.failures = 0;
        let came = Instant::now();
        if let Some(stream) = &mut self.stream {
            stream.heard = came;
            stream.owed = stream.owed.saturating_sub(1);
        }
        let id = answer.id;
        let Some(waiting) = self.waiting.get_mut(&id).filter(|waiting| !waiting.sent.is_empty()) else {
            tracing::debug!(lease = id, "an answer that nobody waits for");
            return;
        };
        if Sabotage::ShareOlderRenewal.is(self.sabotage) {
            waiting.sent.append(&mut waiting.next);
        }
        self.open -= waiting.sent.len();
        self.answered.fetch_add(waiting.sent.len() as u64, Relaxed);
        for reply in waiting.sent.drain(..) {
            // Who has gone away needs no answer.
            let _ = reply.send(Ok((answer, came)));
        }
        if waiting.next.is_empty() {
            self.waiting.remove(&id);
        } else {
            self.to_send.push_back(id);
        }
    }

    /// The stream is no more: all who wait are told so. Nobody knows which of their renewals took place.
    fn lose(&mut self, status: &Status) {
        if let Some(stream) = self.stream.take() {
            self.upstream.leave(stream.turn);
        }
        tracing::debug!(error = status.message(), waiting = self.open, "a stream of renewals ended");
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + pause(self.failures);
        self.to_send.clear();
        self.open = 0;
        for (_, waiting) in self.waiting.drain() {
            for reply in waiting.sent.into_iter().chain(waiting.next) {
                let _ = reply.send(Err(status.clone()));
            }
        }
    }
}

/// Begins a stream at the upstream that is asked now.
fn open(upstream: &Upstream) -> Stream {
    let (turn, channel) = upstream.pick();
    let address = upstream.address(turn);
    let (requests, to_upstream) = mpsc::channel(ON_THE_WAY_MAX);
    let (sender, answers) = mpsc::channel(ON_THE_WAY_MAX);
    let reader = runtime::spawn(async move {
        let told = |status: Status| match client::Error::from(status.clone()) {
            client::Error::Unreachable(why) | client::Error::Tls(why) => {
                Status::unavailable(format!("henge proxy: no upstream could be reached: {address} ({why})"))
            }
            client::Error::Status { text, .. } if client::retry::transport(&text) => {
                Status::unavailable(format!("henge proxy: the connection to {address} was lost ({text})"))
            }
            _ => status,
        };
        let opened = LeaseClient::new(channel).lease_keep_alive(ReceiverStream::new(to_upstream)).await;
        let mut stream = match opened {
            Ok(response) => response.into_inner(),
            // Nobody listens once the line has given up.
            Err(status) => return drop(sender.send(Err(told(status))).await),
        };
        while let Some(answer) = stream.message().await.transpose() {
            let failed = answer.is_err();
            if sender.send(answer.map_err(&told)).await.is_err() || failed {
                return;
            }
        }
    });
    Stream { turn, requests, answers, reader, owed: 0, heard: Instant::now() }
}

#[cfg(test)]
mod tests;
