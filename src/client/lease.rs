//! Leases: keys that go when nobody cares for them any more.

use super::{Client, Error, Repeat};
use crate::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    lease_client::LeaseClient,
};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::{Code, transport::Channel};

fn stub(channel: Channel) -> LeaseClient<Channel> {
    LeaseClient::new(channel).max_decoding_message_size(usize::MAX)
}

impl Client {
    /// Grants a lease of `ttl_s` seconds; `id` 0 lets the server choose. The answer holds the time it really got.
    ///
    /// # Errors
    /// What the member refuses with, or [`Error::Deadline`].
    pub async fn lease_grant(&self, ttl_s: i64, id: i64) -> Result<LeaseGrantResponse, Error> {
        // Without an id, repeating at worst leaves a lease behind that runs out; with one, it would meet its own first grant.
        let repeat = if id == 0 { Repeat::Freely } else { Repeat::IfNotApplied };
        let request = LeaseGrantRequest { ttl: ttl_s, id };
        self.call(repeat, request, async |channel, request| stub(channel).lease_grant(request).await).await
    }

    /// Ends a lease and removes its keys.
    ///
    /// # Errors
    /// As [`Client::lease_grant`].
    pub async fn lease_revoke(&self, id: i64) -> Result<LeaseRevokeResponse, Error> {
        let request = LeaseRevokeRequest { id };
        self.call(Repeat::IfNotApplied, request, async |channel, request| stub(channel).lease_revoke(request).await)
            .await
    }

    /// What is left of a lease; `ttl` is -1 if there is none such. `keys` lists what is attached.
    ///
    /// # Errors
    /// As [`Client::lease_grant`].
    pub async fn lease_time_to_live(&self, id: i64, keys: bool) -> Result<LeaseTimeToLiveResponse, Error> {
        let request = LeaseTimeToLiveRequest { id, keys };
        self.call(Repeat::Freely, request, async |channel, request| stub(channel).lease_time_to_live(request).await)
            .await
    }

    /// All leases.
    ///
    /// # Errors
    /// As [`Client::lease_grant`].
    pub async fn leases(&self) -> Result<LeaseLeasesResponse, Error> {
        let request = LeaseLeasesRequest {};
        self.call(Repeat::Freely, request, async |channel, request| stub(channel).lease_leases(request).await).await
    }

    /// Renews once. The answer's `ttl` is 0 or less if there is no such lease.
    ///
    /// # Errors
    /// As [`Client::lease_grant`].
    pub async fn lease_renew(&self, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        self.renew_within(self.options().request_timeout, id).await
    }

    async fn renew_within(&self, limit: Option<Duration>, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        let send = async |channel: Channel, request: tonic::Request<LeaseKeepAliveRequest>| {
            // A stream of one: the request's end tells the member that no more will come.
            let (metadata, extensions, message) = request.into_parts();
            let once = tonic::Request::from_parts(metadata, extensions, tokio_stream::once(message));
            let mut replies = stub(channel).lease_keep_alive(once).await?.into_inner();
            let reply = replies.message().await?;
            reply.map(tonic::Response::new).ok_or_else(|| tonic::Status::unavailable("connection closed by the member"))
        };
        self.call_within(limit, Repeat::Freely, LeaseKeepAliveRequest { id }, send).await
    }

    /// Keeps a lease alive until the [`Keeper`] is dropped.
    ///
    /// # Errors
    /// As [`Client::lease_grant`], for the first renewal; a lease that does not exist is the server's "requested lease not
    /// found".
    pub async fn lease_keeper(&self, id: i64) -> Result<Keeper, Error> {
        let asked = Instant::now();
        let first = self.lease_renew(id).await?;
        if first.ttl <= 0 {
            let text = crate::types::Error::LeaseNotFound.text().to_string();
            return Err(Error::Status { code: Code::NotFound, text });
        }
        let ttl = seconds(first.ttl);
        let (state, receiver) = watch::channel(KeeperState::Alive { renewals: 1, reply: first });
        let renewer = Renewer { client: self.clone(), id, state, asked, ttl };
        tokio::spawn(renewer.run());
        Ok(Keeper { id, state: receiver })
    }
}

/// How a kept lease is.
#[derive(Clone, Debug, PartialEq)]
pub enum KeeperState {
    /// Renewed this often; the last answer.
    Alive {
        /// Renewals confirmed so far.
        renewals: u64,
        /// The last of them.
        reply: LeaseKeepAliveResponse,
    },
    /// The member says that the lease is gone.
    Gone,
    /// Nobody confirmed a renewal for a whole time to live: it may be gone, so act as if it were.
    Expired,
}

/// Keeps one lease alive, a third of its time to live apart. Dropping it stops the renewals and lets the lease run out.
///
/// ```no_run
/// # async fn example(client: henge::client::Client) -> Result<(), henge::client::Error> {
/// let lease = client.lease_grant(10, 0).await?.id;
/// let mut keeper = client.lease_keeper(lease).await?;
/// tokio::select! {
///     why = keeper.lost() => eprintln!("stop working, the lease is lost: {why:?}"),
///     _ = async { /* work */ } => {}
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Keeper {
    id: i64,
    state: watch::Receiver<KeeperState>,
}

impl Keeper {
    /// The lease.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// How it is now.
    pub fn state(&self) -> KeeperState {
        self.state.borrow().clone()
    }

    /// Waits for the next renewal or for the end; `None` once the end has been told.
    pub async fn next(&mut self) -> Option<KeeperState> {
        self.state.changed().await.ok()?;
        Some(self.state.borrow_and_update().clone())
    }

    /// Waits until the lease is lost, and says how.
    pub async fn lost(&mut self) -> KeeperState {
        let end = self.state.wait_for(|state| !matches!(state, KeeperState::Alive { .. })).await;
        // The renewer only ends without a verdict when its runtime stops; then nobody renews any more.
        end.map_or(KeeperState::Expired, |state| state.clone())
    }
}

struct Renewer {
    client: Client,
    id: i64,
    state: watch::Sender<KeeperState>,
    /// When the last confirmed renewal was asked for. The lease's time counts from here: the member began to count later.
    asked: Instant,
    ttl: Duration,
}

impl Renewer {
    async fn run(mut self) {
        let mut pauses = self.client.options().retry.pauses(1);
        let mut wake = self.asked + self.ttl / 3;
        for renewals in 2.. {
            let reply = loop {
                tokio::select! {
                    biased;
                    // Nobody listens: the keeper was dropped.
                    () = self.state.closed() => return,
                    () = sleep_until(wake) => {}
                }
                let asked = Instant::now();
                let expires = self.asked + self.ttl;
                let left = expires.saturating_duration_since(asked);
                if left.is_zero() {
                    self.state.send_replace(KeeperState::Expired);
                    return;
                }
                // A member that hangs gets a third of the time, so that there is time to ask another one.
                match self.client.renew_within(Some(left.min(self.ttl / 3)), self.id).await {
                    Ok(reply) => break (asked, reply),
                    Err(error) => tracing::debug!(lease = self.id, %error, "a renewal failed"),
                }
                wake = (Instant::now() + pauses.next()).min(expires);
            };
            let (asked, reply) = reply;
            if reply.ttl <= 0 {
                self.state.send_replace(KeeperState::Gone);
                return;
            }
            (self.asked, self.ttl) = (asked, seconds(reply.ttl));
            wake = asked + self.ttl / 3;
            pauses.reset();
            self.state.send_replace(KeeperState::Alive { renewals, reply });
        }
    }
}

/// A time to live as a duration. Bounded, since the wire's largest (9e9 s) would overflow a point in time.
fn seconds(ttl_s: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl_s).unwrap_or(0).min(86_400 * 365))
}
