//! The stream upstream: opened when it is of use, kept for as long as the client listens, and made again elsewhere when lost.

use super::{Locals, WatchSettings, session::Session};
use crate::{
    pb::etcdserverpb::{WatchRequest, watch_client::WatchClient},
    proxy::Source,
    types::Error,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status,
    metadata::{MetadataMap, MetadataValue},
    transport::Channel,
};

/// Keeps a stream upstream for a client's stream.
pub(super) struct Link<L> {
    pub(super) session: Arc<Session<L>>,
    pub(super) source: Arc<dyn Source>,
    pub(super) metadata: MetadataMap,
    pub(super) settings: Arc<WatchSettings>,
}

/// Why a stream upstream is no more.
enum End {
    /// The client does not read: what is in flight must not hold up others on the same connection.
    Slow,
    /// The client has to begin another stream.
    Unproven,
    Lost(Status),
}

/// How long a client may leave its bound exceeded before its stream upstream is given up.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often upstream is asked again how far it is.
const ASK_EVERY: Duration = Duration::from_secs(1);

impl<L: Locals> Link<L> {
    /// Runs until it is aborted, or upstream refuses for good: then the client's stream ends with that.
    pub(super) async fn run(self) {
        let mut pauses = self.settings.retry.pauses(1);
        loop {
            self.session.needs_link().await;
            let (turn, channel) = self.source.pick();
            self.session.with(|merger| merger.link_up());
            let mut has_replied = false;
            let end = self.converse(channel, &mut has_replied).await;
            self.session.with(|merger| merger.link_down());
            if has_replied {
                pauses.reset();
            }
            let status = match end {
                End::Lost(status) => status,
                End::Slow => continue,
                // As if its connection had broken, which clients know how to take.
                End::Unproven => {
                    let text = "henge proxy: upstream has to be asked again, and does not take the token any more";
                    return self.session.fail(Status::unavailable(text));
                }
            };
            self.source.leave(turn);
            if is_lasting(&status) {
                return self.session.fail(status);
            }
            tracing::debug!(%status, "a watch stream upstream is made again");
            sleep(pauses.next()).await;
        }
    }

    /// Serves from one stream until that ends.
    async fn converse(&self, channel: Channel, has_replied: &mut bool) -> End {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        // Both at once: members answer the call itself only with the reply to the first request.
        tokio::select! {
            biased;
            end = self.receive(channel, requests, has_replied) => end,
            () = self.send(sender) => End::Lost(Status::unavailable("the stream upstream takes no more requests")),
        }
    }

    async fn receive(&self, channel: Channel, requests: mpsc::Receiver<WatchRequest>, has_replied: &mut bool) -> End {
        let mut request = Request::new(ReceiverStream::new(requests));
        *request.metadata_mut() = self.metadata.clone();
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        // What the core can make this process can take.
        let mut stub = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut replies = match stub.watch(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return End::Lost(status),
        };
        loop {
            let reply = match replies.message().await {
                Ok(Some(reply)) => reply,
                Ok(None) => return End::Lost(Status::unavailable("the stream upstream has ended")),
                Err(status) => return End::Lost(status),
            };
            *has_replied = true;
            if let Err(nonsense) = self.session.with(|merger| merger.replied(reply)) {
                tracing::warn!(reason = nonsense.0, "upstream breaks the rules of a watch stream");
                return End::Lost(Status::unavailable(nonsense.0));
            }
            if self.session.with(|merger| merger.is_unproven()) {
                return End::Unproven;
            }
            if self.session.is_full() && timeout(PATIENCE, self.session.has_drained()).await.is_err() {
                return End::Slow;
            }
        }
    }

    async fn send(&self, sender: mpsc::Sender<WatchRequest>) {
        loop {
            while let Some(request) = self.session.with(|merger| merger.next_upstream()) {
                if sender.send(request).await.is_err() {
                    return;
                }
            }
            if timeout(ASK_EVERY, self.session.link_has_news()).await.is_err() {
                self.session.with(|merger| merger.ask_upstream_again());
            }
        }
    }
}

/// Requests that wait for the connection to take them.
const REQUESTS_MAX: usize = 16;

/// Whether another endpoint, or the same one later, would say the same.
fn is_lasting(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::ResourceExhausted => false,
        // A connection that broke shows as one of these, without any of etcd's texts.
        Code::Unknown | Code::Internal => status.message().starts_with("etcdserver: "),
        // A learner; others serve.
        Code::FailedPrecondition => status.message() != Error::NotSupportedForLearner.text(),
        _ => true,
    }
}
