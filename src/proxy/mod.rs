//! The ring: a process on a host that serves the whole API, with a core or another proxy behind it.
//!
//! **Promises.** What the proxy does not answer itself passes through undecoded: every call that the core knows, its exact errors, the
//! client's identity. A call is sent once; it goes to another member only if it certainly never left. A core that is away is told within
//! seconds, with what was tried; nothing hangs, and nothing spins. What a copy answers is what upstream would answer: a linearizable read is
//! preceded by one of upstream, no copy goes back, and each answer says how old it may be. A renewal is never answered with an older
//! renewal's answer, so no time to live is stretched. **May not know** how a command is replicated, or what a call means that passes.
//!
//! ```text
//!   clients ══▶ front ─┬─ pass ────────▶ link ══▶ core, or another proxy      what passes: one connection to each address
//!                      ├─ leases ──────▶ a few streams                        renewals of all clients
//!                      ├─ local ─ kv ──▶ fence │ copy ◀─ feed ◀══ one watch   reads of what is copied
//!                      ├─ watch ───────▶ hub of a copy, or a stream           watchers, of both kinds on one stream
//!                      └─ /health, gateway           upstream: which address; follow: where the members are
//! ```
//!
//! What is copied: ranges that somebody named, and those that `demand` finds asked for often, which `tend` begins and drops. `shelf` is where
//! copies lie on disk. Each answer that is given here has passed `permit`; `trust` is what it knows of users, where upstream trusts the proxy.
//!
//! `tcp` is the lesser sibling (`henge gateway`): it carries bytes, and knows nothing of HTTP.

mod age;
mod budget;
mod copies;
mod copy;
mod demand;
mod feed;
mod fence;
mod follow;
mod front;
mod kv;
mod leases;
mod link;
mod local;
mod locals;
mod members;
mod metrics;
mod pass;
mod permit;
mod place;
mod ranges;
mod register;
mod shelf;
mod sight;
mod source;
pub mod tcp;
mod tend;
mod trust;
mod upstream;
mod watch;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use shelf::fuzz;

pub use copies::{Copies, Settings};
pub use copy::{Copy, Keep};
pub use demand::Hunger;
pub use feed::Rules;
pub use permit::Caller;
pub use register::Resolver;
pub use shelf::Shelf;
pub use sight::{Own, Standby};
pub use source::Source;
pub use trust::Trusted;
pub use upstream::Upstream;
pub use watch::WatchSettings;

use crate::runtime;
use crate::{
    gateway::Access,
    ring,
    server::{self, ConnectionSettings, Listener, Serving},
};
use http::HeaderValue;
use leases::Renewals;
use pass::Passage;
use sight::Sight;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch as signal, task::AbortHandle};
use watch::ProxyWatch;

/// The metadata by which the answer to a member list tells that a proxy gave it, and which.
const VIA: &str = "henge-via";

/// One proxy. Cheap to clone.
#[derive(Clone)]
pub struct Ring {
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Upstream,
    copies: Copies,
    passage: Passage,
    renewals: Renewals,
    /// What [`VIA`] says: where clients reach this proxy.
    via: HeaderValue,
    watch: ProxyWatch<Copies>,
    sight: Sight,
    /// They tell others of this proxy.
    telling: Vec<AbortHandle>,
    stopping: signal::Sender<bool>,
    /// Upstream has been told that this proxy leaves, or will not be.
    has_left: signal::Receiver<bool>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.telling.iter().for_each(AbortHandle::abort);
    }
}

impl Ring {
    /// A proxy of `upstream` that is known as `own`. It begins to follow the members of `upstream`, to copy what `settings` names, and
    /// to tell of itself.
    ///
    /// # Errors
    /// A sentence, if a URL of `own` can't stand in a header.
    pub fn new(upstream: Upstream, own: Own, settings: Settings) -> Result<Ring, String> {
        Ring::with(upstream, own, settings, WatchSettings::default())
    }

    /// The same, with settings of the watch service.
    ///
    /// # Errors
    /// As [`Ring::new`].
    pub fn with(upstream: Upstream, own: Own, settings: Settings, watch: WatchSettings) -> Result<Ring, String> {
        let via = HeaderValue::from_str(&own.urls.join(","))
            .map_err(|_| format!("{:?} has characters that no URL may have", own.urls))?;
        follow::start(&upstream);
        let stopping = signal::Sender::new(false);
        let source: Arc<dyn Source> = Arc::new(upstream.clone());
        let sabotage = settings.sabotage;
        let copies = Copies::start(Arc::clone(&source), settings);
        let renewals = Renewals::start(&upstream, sabotage);
        let watch = ProxyWatch::new(copies.clone(), source, watch, stopping.subscribe());
        let sight =
            Sight::new(own, upstream.clone(), copies.clone(), renewals.clone(), watch.clone(), stopping.subscribe());
        let (left, has_left) = signal::channel(false);
        let report = ring::report(Arc::new(sight.clone()), sight.roster().clone());
        let reporting = runtime::spawn(async move {
            report.await;
            left.send_replace(true);
        });
        let mut telling = vec![reporting.abort_handle()];
        if let Some(resolver) = sight.own().resolver.clone() {
            let registering = register::keep(upstream.clone(), sight.own().clone(), resolver, stopping.subscribe());
            telling.push(runtime::spawn(registering).abort_handle());
        }
        let shared = Shared {
            passage: Passage::new(upstream.clone(), stopping.subscribe()),
            renewals,
            watch,
            sight,
            telling,
            copies,
            upstream,
            via,
            stopping,
            has_left,
        };
        Ok(Ring { shared: Arc::new(shared) })
    }

    /// Serves gRPC and HTTP on `listeners`, the API as JSON too.
    pub fn serve(&self, listeners: Vec<Listener>, settings: &ConnectionSettings) -> Serving {
        self.serve_to(listeners, true, Access::default(), settings)
    }

    /// The same, with the JSON gateway only if `serves_json`, and plain HTTP for those whom `access` lets in.
    pub fn serve_to(
        &self,
        listeners: Vec<Listener>,
        serves_json: bool,
        access: Access,
        settings: &ConnectionSettings,
    ) -> Serving {
        let front = front::Front::of_all(self.clone(), serves_json, access);
        let serving = server::serve_front(listeners, front, settings);
        self.shared.sight.add_connections(serving.connections());
        serving
    }

    /// Serves health and what else upstream says over HTTP.
    pub fn serve_http(&self, listeners: Vec<Listener>, settings: &ConnectionSettings) -> Serving {
        server::serve_front(listeners, front::Front::of_health(self.clone()), settings)
    }

    /// Time between two reports to upstream: who asks it something now and then does well to ask no more often, for all proxies do.
    pub fn report_interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.shared.sight.roster().pace().borrow().interval_ms))
    }

    /// What answers its connections: for the simulator, which accepts them itself.
    #[cfg(test)]
    pub(crate) fn front(&self) -> impl server::Front + use<> {
        front::Front::of_all(self.clone(), true, Access::default())
    }

    /// Ends streams that would never end by themselves. Say this before [`Serving::stop`], which waits for what is under way.
    pub fn stop(&self) {
        self.shared.stopping.send_replace(true);
    }

    /// Returns once upstream has heard that this proxy leaves, or can't hear it: who leaves in order is not listed as lost. After [`Ring::stop`].
    pub async fn left(&self) {
        let mut has_left = self.shared.has_left.clone();
        let _ = tokio::time::timeout(LEAVE_MAX, has_left.wait_for(|left| *left)).await;
    }
}

/// Longest wait for a goodbye, also if there is nobody who could be told.
const LEAVE_MAX: Duration = Duration::from_millis(600);

#[cfg(test)]
mod tests;
