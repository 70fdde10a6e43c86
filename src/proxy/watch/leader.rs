//! Whether upstream has a leader, for the streams of clients that insist on one, whoever serves their watchers.
//!
//! One stream upstream answers for all of them, and is there only while there are some: its watcher of a key that nobody writes insists on
//! a leader too, so the core cuts it off when it has been without one for too long. An upstream that cannot be reached says nothing about
//! its leader: clients stay.

use super::WatchSettings;
use crate::{
    pb::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_client::WatchClient, watch_request::RequestUnion},
    proxy::Source,
    runtime,
    types::Error,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, metadata::MetadataValue, transport::Channel};

/// Looks out for upstream's leader while anybody wants to know. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Lookout {
    source: Arc<dyn Source>,
    settings: Arc<WatchSettings>,
    under_way: Arc<Mutex<Weak<Looking>>>,
}

/// Somebody wants to know. The last one to be dropped ends the stream upstream.
pub(super) struct Looking {
    /// `None` until upstream was heard of, or could not be reached.
    is_leaderless: watch::Receiver<Option<bool>>,
    task: AbortHandle,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Looking {
    /// Whether upstream is known to have no leader. Waits for the first word of it, as long as `wait_max`: a stream must not be begun
    /// before, or a proxy that insists would take each beginning for a sign of a leader.
    pub(super) async fn is_without(&self, wait_max: Duration) -> bool {
        let mut word = self.is_leaderless.clone();
        let known = timeout(wait_max, word.wait_for(Option::is_some)).await;
        matches!(known, Ok(Ok(word)) if *word == Some(true))
    }

    /// Returns when upstream has been without a leader for [`WatchSettings::leaderless_max`].
    pub(super) fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut word = self.is_leaderless.clone();
        async move { drop(word.wait_for(|word| *word == Some(true)).await) }
    }
}

impl Lookout {
    pub(super) fn new(source: Arc<dyn Source>, settings: Arc<WatchSettings>) -> Lookout {
        Lookout { source, settings, under_way: Arc::default() }
    }

    /// Begins to look, unless somebody has.
    pub(super) fn look(&self) -> Arc<Looking> {
        let mut under_way = self.under_way.lock();
        if let Some(looking) = under_way.upgrade() {
            return looking;
        }
        let (word, is_leaderless) = watch::channel(None);
        let task = runtime::spawn(run(Arc::clone(&self.source), Arc::clone(&self.settings), word)).abort_handle();
        let looking = Arc::new(Looking { is_leaderless, task });
        *under_way = Arc::downgrade(&looking);
        looking
    }
}

async fn run(source: Arc<dyn Source>, settings: Arc<WatchSettings>, word: watch::Sender<Option<bool>>) {
    let mut pauses = settings.retry.pauses(1);
    let mut leaderless_since = None;
    // Nobody was told that there is a leader: then nobody waits for another one, as with a member that is asked for a stream meanwhile.
    let mut is_new = true;
    let mut refusals = 0;
    loop {
        let (turn, channel) = source.pick();
        let mut has_leader = false;
        let end = ask(channel, || {
            has_leader = true;
            word.send_replace(Some(false));
        })
        .await;
        source.leave(turn);
        if has_leader {
            pauses.reset();
            (leaderless_since, is_new, refusals) = (None, false, 0);
        }
        if end.message() == Error::NoLeader.text() {
            let since = *leaderless_since.get_or_insert_with(Instant::now);
            refusals += 1;
            // One member may be cut off from the others.
            let is_agreed = refusals >= source.ways();
            if is_agreed && (is_new || since.elapsed() >= settings.leaderless_max) {
                word.send_replace(Some(true));
            }
        } else {
            (leaderless_since, refusals) = (None, 0);
            // Who was told that there is none was told so by upstream; others need not wait.
            word.send_if_modified(|word| word.replace(word.unwrap_or(false)).is_none());
        }
        sleep(pauses.next()).await;
    }
}

/// Holds a stream until it ends, and says why it did. `answered` is called once there is a leader.
async fn ask(channel: Channel, answered: impl FnOnce()) -> Status {
    let (requests, receiver) = mpsc::channel(1);
    let create = WatchCreateRequest { key: Bytes::from_static(&[0]), ..WatchCreateRequest::default() };
    // There is room for it.
    let _ = requests.try_send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
    let mut request = Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let mut replies = match WatchClient::new(channel).watch(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    let mut answered = Some(answered);
    loop {
        match replies.message().await {
            Ok(Some(_)) => {
                if let Some(answered) = answered.take() {
                    answered();
                }
            }
            Ok(None) => return Status::unavailable("the stream upstream has ended"),
            Err(status) => return status,
        }
    }
}
