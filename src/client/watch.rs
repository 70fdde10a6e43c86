//! Watching: every change of a range, once, in order, for as long as somebody listens.
//!
//! A [`Watcher`] has a stream and a task of its own. The task remembers the next revision it owes; when the stream breaks it
//! opens another one from there, at another endpoint, and drops what it had already handed on.

use super::{
    Client, Error,
    auth::{LOGINS_MAX, Shown},
    retry::{ask_another, transport},
};
use crate::pb::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
    watch_create_request::FilterType, watch_request::RequestUnion,
};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming, metadata::MetadataValue};

/// What to watch besides one key from now on.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// As in [`super::GetOptions::range_end`].
    pub range_end: Bytes,
    /// The first revision wanted; 0: whatever comes next.
    pub start_revision: i64,
    /// Events carry what was there before, where history still has it.
    pub prev_kv: bool,
    /// Say from time to time that nothing happened, and up to which revision.
    pub progress_notify: bool,
    /// Leave out puts.
    pub no_put: bool,
    /// Leave out deletes.
    pub no_delete: bool,
    /// Let the member split large answers; they are put together again here.
    pub fragment: bool,
    /// Leave a member that has lost its leader instead of waiting with it.
    pub require_leader: bool,
}

impl Default for WatchOptions {
    fn default() -> WatchOptions {
        WatchOptions {
            range_end: Bytes::new(),
            start_revision: 0,
            prev_kv: false,
            progress_notify: false,
            no_put: false,
            no_delete: false,
            fragment: true,
            require_leader: true,
        }
    }
}

impl WatchOptions {
    /// Every key that starts with `prefix`; see [`super::GetOptions::prefix`].
    pub fn prefix(prefix: impl AsRef<[u8]>) -> WatchOptions {
        WatchOptions { range_end: super::kv::end_of_prefix(prefix.as_ref()), ..WatchOptions::default() }
    }
}

/// A running watch. Dropping it ends it.
///
/// ```no_run
/// # async fn example(client: henge::client::Client) -> Result<(), henge::client::Error> {
/// use henge::client::WatchOptions;
/// let mut watcher = client.watch("jobs/", WatchOptions::prefix("jobs/"));
/// while let Some(answer) = watcher.next().await {
///     for event in answer?.events {
///         println!("{:?}", event.kv);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Watcher {
    answers: mpsc::Receiver<Result<WatchResponse, Error>>,
    progress: mpsc::Sender<()>,
}

impl Watcher {
    /// The next answer: created (the first time only), events of whole revisions, or progress (no events). An error is the
    /// last item; losing a connection is none. Where a member ended the watch, its own answer (`canceled`) comes before the error.
    pub async fn next(&mut self) -> Option<Result<WatchResponse, Error>> {
        self.answers.recv().await
    }

    /// Asks for a progress answer. Asking again before it came is the same question.
    pub fn request_progress(&self) {
        let _ = self.progress.try_send(());
    }
}

impl Client {
    /// Watches `key`, or the range that `options` spans from it.
    pub fn watch(&self, key: impl Into<Bytes>, options: WatchOptions) -> Watcher {
        // A slow listener fills this, then the connection's window: the member sees it, nothing here grows.
        let (sender, answers) = mpsc::channel(16);
        let (progress, asked) = mpsc::channel(1);
        let resume = Resume::new(options.start_revision);
        let (client, key, shown) = (self.clone(), key.into(), Shown::default());
        let task = Task { client, key, options, sender, asked, resume, shown, logins: 0 };
        tokio::spawn(task.run());
        Watcher { answers, progress }
    }
}

/// What this watch has seen, apart from any connection.
#[derive(Debug)]
struct Resume {
    /// The first revision still owed; 0 until the first member has said where "now" is.
    next: i64,
    created: bool,
    fragments: Vec<WatchResponse>,
}

impl Resume {
    fn new(start: i64) -> Resume {
        Resume { next: start, created: false, fragments: Vec::new() }
    }

    /// A new stream begins: half an answer from the old one will come again as a whole.
    fn reconnect(&mut self) {
        self.fragments.clear();
    }

    /// Takes one answer in; what it gives goes to the listener.
    fn take(&mut self, answer: WatchResponse) -> Result<Option<WatchResponse>, Error> {
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        if answer.canceled {
            return Err(match answer.compact_revision {
                0 => Error::WatchCanceled(answer.cancel_reason),
                compact_revision => Error::Compacted { compact_revision },
            });
        }
        if answer.created {
            if self.next == 0 {
                self.next = revision + 1;
            }
            // Only the first is news; the others belong to reconnects.
            return Ok((!std::mem::replace(&mut self.created, true)).then_some(answer));
        }
        if answer.fragment {
            self.fragments.push(answer);
            return Ok(None);
        }
        let mut whole = self.join(answer);
        if whole.events.is_empty() {
            // A watcher's own progress says that nothing up to here is owed. The answer to a question (id -1) is handed on but
            // not relied on: etcd before 3.5.8 could send it ahead of events.
            if whole.watch_id >= 0 {
                self.next = self.next.max(revision + 1);
            }
            return Ok(Some(whole));
        }
        let of = |event: &crate::pb::mvccpb::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        whole.events.retain(|event| of(event) >= self.next);
        let Some(last) = whole.events.last().map(of) else { return Ok(None) };
        self.next = last + 1;
        Ok(Some(whole))
    }

    fn join(&mut self, last: WatchResponse) -> WatchResponse {
        if self.fragments.is_empty() {
            return last;
        }
        let mut whole = WatchResponse { events: Vec::new(), ..last.clone() };
        for part in self.fragments.drain(..).chain([last]) {
            whole.events.extend(part.events);
        }
        whole
    }
}

struct Task {
    client: Client,
    key: Bytes,
    options: WatchOptions,
    sender: mpsc::Sender<Result<WatchResponse, Error>>,
    asked: mpsc::Receiver<()>,
    resume: Resume,
    /// Who the present stream is for.
    shown: Shown,
    /// Times that a token was found to have ended since anything came.
    logins: usize,
}

impl Task {
    async fn run(mut self) {
        let client = self.client.clone();
        let mut pauses = client.options().retry.pauses(client.endpoints().len());
        let mut strangers = 0;
        loop {
            let (at, _) = client.endpoints().pick();
            let sender = self.sender.clone();
            let before = self.resume.next;
            let end = tokio::select! {
                biased;
                () = sender.closed() => return,
                end = self.one_stream() => end,
            };
            let end = match end {
                Err(error) if self.logs_in_again(&error).await => Ok(()),
                end => end,
            };
            strangers += usize::from(matches!(end, Err(Error::Tls(_))));
            match end {
                // A watch that has begun outlives certificates that are put right later.
                Err(error @ Error::Tls(_)) if !self.resume.created && strangers >= client.endpoints().len() => {
                    let _ = self.sender.send(Err(error)).await;
                    return;
                }
                Err(error) if lasting(&error) && !(ask_another(&error) && client.endpoints().len() > 1) => {
                    let _ = self.sender.send(Err(error)).await;
                    return;
                }
                Err(error) => tracing::debug!(endpoint = client.endpoints().address(at), %error, "a watch reconnects"),
                Ok(()) => {}
            }
            client.endpoints().leave(at);
            self.resume.reconnect();
            if self.resume.next != before {
                self.logins = 0;
                pauses.reset();
            }
            tokio::select! {
                biased;
                () = sender.closed() => return,
                () = tokio::time::sleep(pauses.next()) => {}
            }
        }
    }

    /// Serves the watch from one stream until that ends.
    async fn one_stream(&mut self) -> Result<(), Error> {
        let (requests, mut answers) = self.open_stream().await?;
        loop {
            let answer = tokio::select! {
                // Answers that never stop do not keep a question waiting.
                biased;
                Some(()) = self.asked.recv() => {
                    let union = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    let _ = requests.send(WatchRequest { request_union: Some(union) }).await;
                    continue;
                }
                answer = answers.message() => answer?,
            };
            let Some(answer) = answer else { return Ok(()) };
            let canceled = answer.canceled.then(|| answer.clone());
            let news = match self.resume.take(answer) {
                Ok(Some(news)) => news,
                Ok(None) => continue,
                // The next stream begins with another token.
                Err(error) if self.logs_in_again(&error).await => return Ok(()),
                Err(error) => {
                    let _ = self.sender.send(Ok(canceled.unwrap_or_default())).await;
                    return Err(error);
                }
            };
            if self.sender.send(Ok(news)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Whether a stream that ended so is worth another one, with another token.
    async fn logs_in_again(&mut self, error: &Error) -> bool {
        let is_worth_it = self.logins < LOGINS_MAX && self.client.shared.is_outdated(&self.shown, error).await;
        self.logins += usize::from(is_worth_it);
        is_worth_it
    }

    async fn open_stream(&mut self) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>), Error> {
        let (_, channel) = self.client.endpoints().pick();
        self.shown = self.client.shared.proof(&channel).await?;
        let (requests, stream) = mpsc::channel(4);
        // The create request waits in the queue before the call: members answer the call itself only after it.
        let _ = requests.try_send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(self.create())) });
        let mut request = Request::new(ReceiverStream::new(stream));
        self.shown.put(&mut request);
        if self.options.require_leader {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        let mut stub = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        // The connection itself has its time limit; a member that accepts and then stays silent is ended by keep-alive.
        let answers = stub.watch(request).await?.into_inner();
        Ok((requests, answers))
    }

    fn create(&self) -> WatchCreateRequest {
        let options = &self.options;
        let filters = [(options.no_put, FilterType::Noput), (options.no_delete, FilterType::Nodelete)];
        WatchCreateRequest {
            key: self.key.clone(),
            range_end: options.range_end.clone(),
            start_revision: self.resume.next,
            progress_notify: options.progress_notify,
            filters: filters.into_iter().filter(|(on, _)| *on).map(|(_, filter)| filter as i32).collect(),
            prev_kv: options.prev_kv,
            watch_id: 0,
            fragment: options.fragment,
        }
    }
}

/// Whether another member would say the same.
fn lasting(error: &Error) -> bool {
    match error {
        Error::Status { code: Code::Unavailable, .. } | Error::Unreachable(_) | Error::Tls(_) => false,
        Error::Status { code: Code::Unknown | Code::Internal | Code::Cancelled, text } => {
            text.starts_with("etcdserver: ") || !(transport(text) || text.is_empty())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests;
