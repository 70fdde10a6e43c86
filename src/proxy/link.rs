//! One HTTP/2 connection to one address: made when it is needed, shared by all calls, made again after a loss.
//!
//! However many calls wait, one attempt is under way. After a failure there is a pause before the next one, so a core that is away costs
//! a few attempts a second. A call whose last hope this is waits for the end of the pause, which is short: no call fails because of an
//! attempt that was over before it came, so a core that is back is found at once.

use crate::{
    runtime,
    tls::{self, ClientTls, Http},
};
use http::uri::Authority;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::body::Body;

/// Longest wait for a connection.
pub(super) const DIAL_MAX: Duration = Duration::from_millis(1_500);
/// The first pause after a failure; it doubles from failure to failure.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause: how late a core that is back can be found.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A connection that lasted no longer was no success: somebody accepts and hangs up.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// What one stream may have under way. Small, because that much of it is kept for each client that does not read.
const STREAM_WINDOW: u32 = 256 << 10;
/// What all streams together may have under way. So large that clients that do not read can't hold up those that do.
const CONNECTION_WINDOW: u32 = 1 << 30;
/// A connection with calls on it is probed this often; etcd's servers hang up on who asks more often than every 5 s.
const PROBE_INTERVAL: Duration = Duration::from_secs(6);
/// A probe that is not answered for this long ends the connection, and all calls on it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

pub(super) type Sender = http2::SendRequest<Body>;
type Dialled = Result<Sender, Arc<str>>;

/// A connection to one address. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    authority: Authority,
    tls: Option<ClientTls>,
    state: Mutex<State>,
}

enum State {
    /// No connection; none is attempted before `until`. `failures` in a row brought it here.
    Away { failures: u32, until: Instant, why: Arc<str> },
    /// An attempt is under way; the outcome will stand there.
    Dialling(watch::Receiver<Option<Dialled>>),
    /// A connection, unless it ended since it was last looked at. `failures` in a row came before it.
    Up { sender: Sender, since: Instant, failures: u32 },
}

enum Now {
    Up(Sender),
    Away { until: Instant, why: Arc<str> },
    Wait(watch::Receiver<Option<Dialled>>),
}

impl Link {
    /// A link to `authority`, with TLS if `tls` says how; nothing happens before somebody asks for it.
    pub(super) fn new(authority: Authority, tls: Option<ClientTls>) -> Link {
        let state = State::Away { failures: 0, until: Instant::now(), why: Arc::from("nobody has asked yet") };
        Link { shared: Arc::new(Shared { authority, tls, state: Mutex::new(state) }) }
    }

    /// Where it leads to: host and port.
    pub(super) fn authority(&self) -> &Authority {
        &self.shared.authority
    }

    /// How TLS is spoken there, if it is.
    pub(super) fn tls(&self) -> Option<&ClientTls> {
        self.shared.tls.as_ref()
    }

    /// What it leads to, as a URL.
    pub(super) fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.shared.authority)
    }

    /// Something that sends requests over the connection, within [`DIAL_MAX`], and a pause ([`PAUSE_MAX`]) more if `patient`.
    ///
    /// # Errors
    /// Why there is no connection. Nothing was sent.
    pub(super) async fn sender(&self, patient: bool) -> Result<Sender, Arc<str>> {
        let mut now = self.now();
        if let Now::Away { until, .. } = now
            && patient
        {
            sleep_until(until).await;
            now = self.now();
        }
        let mut outcome = match now {
            Now::Up(sender) => return Ok(sender),
            Now::Away { why, .. } => return Err(why),
            Now::Wait(outcome) => outcome,
        };
        let dialled = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        dialled.unwrap_or_else(|| Err(Arc::from("the attempt was given up")))
    }

    /// How it stands; begins an attempt if it is time for one.
    fn now(&self) -> Now {
        let mut state = self.shared.state.lock();
        if let State::Up { sender, since, failures } = &*state
            && sender.is_closed()
        {
            let failures = if since.elapsed() < SETTLED_AFTER { failures + 1 } else { 0 };
            let why = Arc::from("the connection was lost");
            *state = State::Away { failures, until: Instant::now() + pause(failures), why };
        }
        let failures = match &*state {
            State::Up { sender, .. } => return Now::Up(sender.clone()),
            State::Dialling(outcome) => return Now::Wait(outcome.clone()),
            State::Away { until, why, .. } if Instant::now() < *until => {
                return Now::Away { until: *until, why: Arc::clone(why) };
            }
            State::Away { failures, .. } => *failures,
        };
        let (done, outcome) = watch::channel(None);
        // A task of its own: a caller that goes away must not take the attempt from the others.
        runtime::spawn(dial(Arc::clone(&self.shared), failures, done));
        *state = State::Dialling(outcome.clone());
        Now::Wait(outcome)
    }
}

async fn dial(shared: Arc<Shared>, failures: u32, done: watch::Sender<Option<Dialled>>) {
    let attempt = tokio::time::timeout(DIAL_MAX, connect(&shared.authority, shared.tls.as_ref())).await;
    let dialled = attempt.unwrap_or_else(|_| Err(format!("no connection within {} ms", DIAL_MAX.as_millis())));
    let dialled = dialled.map_err(Arc::<str>::from);
    *shared.state.lock() = match &dialled {
        Ok(sender) => State::Up { sender: sender.clone(), since: Instant::now(), failures },
        Err(why) => {
            tracing::debug!(upstream = %shared.authority, error = %why, "no connection to upstream");
            let failures = failures.saturating_add(1);
            State::Away { failures, until: Instant::now() + pause(failures), why: Arc::clone(why) }
        }
    };
    done.send_replace(Some(dialled));
}

async fn connect(authority: &Authority, tls: Option<&ClientTls>) -> Result<Sender, String> {
    let stream = tls::dial(authority.as_str(), tls, Http::Two).await.map_err(|error| error.to_string())?;
    let (sender, connection) = http2::Builder::new(runtime::Executor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(1 << 20)
        .max_frame_size(64 << 10)
        .keep_alive_interval(PROBE_INTERVAL)
        .keep_alive_timeout(PROBE_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let authority = authority.clone();
    runtime::spawn(async move {
        // Ends when nobody can send any more and the last call is over, or with the connection. Whoever has a call on it is told.
        if let Err(error) = connection.await {
            tracing::debug!(upstream = %authority, %error, "connection to upstream ended");
        }
    });
    Ok(sender)
}

/// The pause after so many failures in a row: between half of it and all of it by chance, so that proxies that lost one core together
/// do not return together.
pub(super) fn pause(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let full = PAUSE_MIN.saturating_mul(1 << (failures - 1).min(10)).min(PAUSE_MAX);
    full.mul_f64(runtime::chance(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_no_further() {
        assert_eq!(pause(0), Duration::ZERO);
        assert!(pause(1) >= PAUSE_MIN / 2 && pause(1) < PAUSE_MIN);
        for failures in [6, 20, u32::MAX] {
            assert!(pause(failures) >= PAUSE_MAX / 2 && pause(failures) < PAUSE_MAX);
        }
    }

    #[tokio::test]
    async fn a_thousand_calls_to_nobody_are_one_attempt_and_the_next_fails_at_once() {
        // Bound and dropped: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let link = Link::new(format!("127.0.0.1:{port}").parse().unwrap(), None);
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let link = link.clone();
            calls.spawn(async move { link.sender(false).await.err() });
        }
        let first = calls.join_next().await.unwrap().unwrap().expect("nobody listens");
        while let Some(why) = calls.join_next().await {
            assert_eq!(why.unwrap().as_deref(), Some(&*first));
        }
        let failures = || match &*link.shared.state.lock() {
            State::Away { failures, .. } => *failures,
            _ => 0,
        };
        // Calls that came after the first pause may have made another attempt, no more.
        assert!((1..=2).contains(&failures()), "{} attempts", failures());
    }

    #[tokio::test]
    async fn who_is_patient_sees_an_attempt_that_was_made_after_it_came() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let link = Link::new(address.to_string().parse().unwrap(), None);
        for _ in 0..8 {
            assert!(link.sender(true).await.is_err(), "nobody listens");
        }
        let _listener = tokio::net::TcpListener::bind(address).await.unwrap();
        assert!(link.sender(false).await.is_err(), "it is paused");
        assert!(link.sender(true).await.is_ok(), "somebody listens");
        assert!(link.sender(false).await.is_ok(), "the connection is shared");
    }
}
