//! The client: what a program links to speak with a cluster, be it henge or etcd.
//!
//! **Promises.** A request is repeated only when repeating cannot change its meaning ([`retry`] holds the rules). A watcher
//! delivers each event once and in order across reconnects and failover, or says why it cannot. A lease keeper tells when the
//! lease may be gone, no later than its time to live after the last renewal that was confirmed.
//! **May not know** anything of the server's rooms: it builds with `--no-default-features`.
//!
//! ```text
//!   Session ── lock · election                                what is held for as long as a lease
//!   Client ── kv · lease · watch · maintenance · cluster      what a caller says
//!     └─ retry      may this call be sent again, where, when
//!         └─ endpoints   one lazy channel each; the one that answered last is asked first
//! ```
//!
//! Answers are the wire's own messages, so nothing that a member said is lost on the way.

pub mod auth;
pub mod cluster;
pub mod election;
pub mod endpoints;
pub mod error;
pub mod kv;
pub mod lease;
pub mod lock;
pub mod maintenance;
pub mod retry;
pub mod ring;
pub mod session;
mod tls;
pub mod txn;
pub mod watch;

pub use election::{Leadership, Observer};
pub use endpoints::Endpoints;
pub use error::Error;
pub use kv::{DeleteOptions, GetOptions, PutOptions};
pub use lease::{Keeper, KeeperState};
pub use lock::Lock;
pub use retry::{Policy, Repeat};
pub use session::Session;
pub use tls::TlsOptions;
pub use txn::{Compare, Op, Txn};
pub use watch::{WatchOptions, Watcher};

use std::{future::Future, sync::Arc, time::Duration};
use tonic::{Request, Response, Status, transport::Channel};

/// Metadata key by which a call says whom it is for, should proxies stand before the cluster.
pub const ASK: &str = "henge-ask";
/// Value of [`ASK`]: the core, and not a proxy on the way.
pub const ASK_CORE: &str = "core";

/// How to reach a cluster, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Longest wait for one TCP connection.
    pub connect_timeout: Duration,
    /// Longest time for one call with all its repeats. `None` waits as long as [`Policy::attempts_max`] allows.
    pub request_timeout: Option<Duration>,
    /// An idle connection is probed this often; `None` never.
    pub keepalive_time: Option<Duration>,
    /// A probe that is not answered for this long ends the connection.
    pub keepalive_timeout: Duration,
    /// When and how often to repeat.
    pub retry: Policy,
    /// How to speak TLS. If set, addresses without a scheme are `https`; `https` ones without it trust whom the system trusts.
    pub tls: Option<TlsOptions>,
    /// User and password, to log in with when they are first needed, and whenever a token has ended.
    pub user: Option<(String, String)>,
    /// A token that somebody else has signed, to be shown as it is.
    pub token: Option<String>,
    /// Larger requests about keys are not sent.
    pub send_bytes_max: usize,
    /// Larger answers about keys are refused.
    pub receive_bytes_max: usize,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            connect_timeout: Duration::from_secs(2),
            request_timeout: Some(Duration::from_secs(5)),
            keepalive_time: Some(Duration::from_secs(10)),
            keepalive_timeout: Duration::from_secs(6),
            retry: Policy::default(),
            tls: None,
            user: None,
            token: None,
            send_bytes_max: usize::MAX,
            receive_bytes_max: usize::MAX,
        }
    }
}

/// A handle to one cluster. Cheap to clone; clones share the connections.
///
/// ```no_run
/// # async fn example() -> Result<(), henge::client::Error> {
/// use henge::client::{Client, ConnectOptions, GetOptions, PutOptions};
///
/// let client = Client::connect(["127.0.0.1:2379"], ConnectOptions::default()).await?;
/// client.put("colour", "blue", PutOptions::default()).await?;
/// let answer = client.get("colour", GetOptions::default()).await?;
/// assert_eq!(answer.kvs[0].value, "blue");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoints: Endpoints,
    options: ConnectOptions,
    login: auth::Login,
}

impl Client {
    /// Prepares connections to `endpoints` (`host:port`, `http://host:port` or `https://host:port`). Nothing is sent before the first call, so a
    /// cluster that is down shows there.
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`] for an address that cannot be one, [`Error::Tls`] for files that cannot be used.
    pub async fn connect<I, S>(endpoints: I, options: ConnectOptions) -> Result<Client, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let endpoints = Endpoints::new(endpoints, &options)?;
        Ok(Client { shared: Arc::new(Shared { endpoints, options, login: auth::Login::default() }) })
    }

    /// The addresses this client knows, and a channel to each.
    pub fn endpoints(&self) -> &Endpoints {
        &self.shared.endpoints
    }

    /// Asks the cluster for its members and goes on with their addresses instead of those that were given. Members that have not started,
    /// and learners, are left out. A proxy that was told its own addresses answers with these.
    ///
    /// # Errors
    /// As [`Client::member_list`]; [`Error::InvalidEndpoint`] if a member advertises what cannot be reached from here. Then the addresses stay as they are.
    pub async fn sync_endpoints(&self) -> Result<(), Error> {
        let members = self.listed(true, false).await?.members;
        let serving = members.into_iter().filter(|member| !member.name.is_empty() && !member.is_learner);
        let addresses = serving.flat_map(|member| member.client_ur_ls).collect::<Vec<_>>();
        self.endpoints().replace(&addresses, self.options())
    }

    /// What [`Client::connect`] was told.
    pub fn options(&self) -> &ConnectOptions {
        &self.shared.options
    }

    /// One unary call: picks an endpoint, waits, and repeats within the policy where `repeat` and the failure allow it.
    pub(crate) async fn call<T, R, F, Fut>(&self, repeat: Repeat, message: T, send: F) -> Result<R, Error>
    where
        T: Clone,
        F: Fn(Channel, Request<T>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.call_within(self.shared.options.request_timeout, repeat, message, send).await
    }

    /// As [`Client::call`], with a time limit of its own (defragmentation takes longer than a put).
    pub(crate) async fn call_within<T, R, F, Fut>(
        &self,
        limit: Option<Duration>,
        repeat: Repeat,
        message: T,
        send: F,
    ) -> Result<R, Error>
    where
        T: Clone,
        F: Fn(Channel, Request<T>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let attempts = self.attempts(repeat, message, send, limit.is_some());
        match limit {
            // A timer counts in milliseconds, and would let through what is quick.
            Some(limit) if limit < Duration::from_millis(1) => Err(Error::Deadline),
            // The local clock decides: a member that hangs, or that is not there, must not hold the caller.
            Some(limit) => tokio::time::timeout(limit, attempts).await.unwrap_or_else(|_| {
                let endpoints = self.endpoints();
                endpoints.leave(endpoints.pick().0);
                Err(Error::Deadline)
            }),
            None => attempts.await,
        }
    }

    async fn attempts<T, R, F, Fut>(&self, repeat: Repeat, message: T, send: F, timed: bool) -> Result<R, Error>
    where
        T: Clone,
        F: Fn(Channel, Request<T>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let Shared { endpoints, options, .. } = &*self.shared;
        let mut pause = options.retry.pauses(endpoints.len());
        let (mut attempt, mut wrong_members, mut strangers, mut logins) = (0, 0, 0, 0);
        loop {
            let (at, channel) = endpoints.pick();
            let error = match self.shared.proof(&channel).await {
                Ok(shown) => {
                    let mut request = Request::new(message.clone());
                    shown.put(&mut request);
                    let error = match send(channel, request).await {
                        Ok(response) => return Ok(response.into_inner()),
                        Err(status) => Error::from(status),
                    };
                    if logins < auth::LOGINS_MAX && self.shared.is_outdated(&shown, &error).await {
                        logins += 1;
                        continue;
                    }
                    error
                }
                Err(error) => error,
            };
            attempt += 1;
            // With a time limit the limit ends the repeats; without one the count must.
            let spent = !timed && attempt >= options.retry.attempts_max;
            let elsewhere = repeat != Repeat::Never && retry::ask_another(&error);
            wrong_members += usize::from(elsewhere);
            strangers += usize::from(matches!(error, Error::Tls(_)));
            // Once each of them has said so, it is the answer.
            let goes_on = match (&error, elsewhere) {
                (Error::Tls(_), _) => strangers < endpoints.len() && repeat.allows(&error),
                (_, true) => wrong_members < endpoints.len(),
                (_, false) => repeat.allows(&error),
            };
            if spent || !goes_on {
                return Err(error);
            }
            tracing::debug!(endpoint = endpoints.address(at), attempt, %error, "repeating a call");
            endpoints.leave(at);
            tokio::time::sleep(pause.next()).await;
        }
    }
}

#[cfg(all(test, feature = "server"))]
mod tests;
