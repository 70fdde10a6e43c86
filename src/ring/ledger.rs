//! Users and permissions, for proxies that are trusted with them.
//!
//! The stream says two things: what the state is, and that it still is. A tick is answered only after the host has made sure that it knows
//! everything that anybody was told before the tick came; so who sent it knows how old its state is at most, by its own clock alone.

use crate::pb::henge::ring::{AuthNews, AuthState, AuthTick, WhoseResponse};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tonic::{Extensions, Status, Streaming, metadata::MetadataMap};

/// A stream without a tick for so long is no more, and one that takes no answer.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What somebody has to tell of users and permissions.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// Whether a call that carries this comes from a proxy that may know this, and is its own: not one that it passes on for somebody.
    ///
    /// # Errors
    /// What the caller is told.
    fn trust(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<(), Status>;
    /// A wake-up when the state changes.
    fn changed(&self) -> watch::Receiver<u64>;
    /// Another number after each change of the state, and before [`Ledger::state`] tells it.
    fn stamp(&self) -> u64;
    /// The state; none if it may not be told any more, and the stream ends.
    fn state(&self) -> Option<AuthState>;
    /// True once the state has all that anybody was told of before the call; false if that cannot be had.
    fn prove(&self) -> impl Future<Output = bool> + Send;
    /// Whose token this is.
    ///
    /// # Errors
    /// What the caller is told.
    fn whose(&self, token: String) -> impl Future<Output = Result<WhoseResponse, Status>> + Send;
}

/// A proof that is under way for a tick: whether there is one, in the end.
type Proving = Pin<Box<dyn Future<Output = Option<u64>> + Send>>;

/// Answers one stream, to its end.
pub(super) async fn tell(
    ledger: impl Ledger,
    mut ticks: Streaming<AuthTick>,
    sender: mpsc::Sender<Result<AuthNews, Status>>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut changed = ledger.changed();
    let mut said = None;
    let mut proving: Option<Proving> = None;
    loop {
        // One at a time: ticks that come meanwhile wait their turn.
        let is_free = proving.is_none();
        let proven = async {
            match &mut proving {
                Some(proving) => proving.await,
                None => std::future::pending().await,
            }
        };
        let answers = tokio::select! {
            // What has changed is told before it is said that nothing has.
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = sender.closed() => return,
            // Not before the first proof: until then this may be older than what the other end has heard elsewhere.
            change = changed.changed(), if said.is_some() => match change {
                Ok(()) => 0,
                Err(_) => return,
            },
            proven = proven => {
                proving = None;
                match proven {
                    Some(number) => number,
                    // It was not to be had: the tick stays without an answer.
                    None => continue,
                }
            }
            tick = ticks.message(), if is_free => match tick {
                Ok(Some(AuthTick { number })) => {
                    let ledger = ledger.clone();
                    proving = Some(Box::pin(async move { ledger.prove().await.then_some(number) }));
                    continue;
                }
                Ok(None) | Err(_) => return,
            },
            () = sleep(SILENCE_MAX) => return,
        };
        // The number first: what changes in between is told once more.
        let stamp = ledger.stamp();
        let state = match said == Some(stamp) {
            true => None,
            false => match ledger.state() {
                Some(state) => Some(state),
                None => return,
            },
        };
        said = Some(stamp);
        match timeout(SILENCE_MAX, sender.send(Ok(AuthNews { answers, state }))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
