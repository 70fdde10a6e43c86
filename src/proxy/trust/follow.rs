//! The stream by which upstream tells of users and permissions, and says again and again that it is all still so.

use super::{CURRENT_MAX, Ground, Trust};
use crate::{
    client::Policy,
    pb::henge::ring::{AuthNews, AuthTick, ring_client::RingClient},
};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

/// Upstream is asked this often, while something is decided here.
const TICK: Duration = Duration::from_secs(1);
/// And this often, while nothing is: so that the stream is known to live.
const IDLE_TICK: Duration = Duration::from_secs(10);
/// Between two ticks, if somebody cannot wait for the next one.
const TICK_MIN: Duration = Duration::from_millis(50);
/// An upstream that does not answer is left after this: another one has to answer before [`CURRENT_MAX`] is over.
const ANSWER_MAX: Duration = Duration::from_millis(1_400);
/// Between two attempts, if upstream does not trust this proxy.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// Largest state: about a million users.
const STATE_BYTES_MAX: usize = 64 << 20;

/// Why a stream is no more.
enum End {
    /// Upstream does not trust this proxy, or tells what cannot be decided by.
    Refused(String),
    Lost(String),
}

impl From<Status> for End {
    fn from(status: Status) -> End {
        let text = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::InvalidArgument
            | Code::OutOfRange => End::Refused(text),
            _ => End::Lost(text),
        }
    }
}

/// Follows upstream. Never returns.
pub(super) async fn follow(trust: Trust, ground: Arc<Ground>) {
    let source = Arc::clone(&trust.shared.source);
    let policy = Policy::default();
    let mut pauses = policy.pauses(source.ways());
    let mut is_told = false;
    loop {
        let (turn, channel) = source.pick();
        let began = Instant::now();
        match Stream::new(&trust, &ground).run(channel).await {
            End::Refused(why) => {
                trust.forget();
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(
                        why,
                        "upstream does not trust this proxy (its --ring-proxy-cn), so everything passes through"
                    );
                }
                sleep(REFUSED_PAUSE).await;
            }
            End::Lost(why) => {
                source.leave(turn);
                if began.elapsed() > CURRENT_MAX {
                    (pauses, is_told) = (policy.pauses(source.ways()), false);
                }
                let pause = pauses.next();
                tracing::debug!(why, ?pause, "the stream of users and roles ended");
                sleep(pause).await;
            }
        }
    }
}

/// Wakes everybody when what is known is too old to decide by. Never returns.
pub(super) async fn lapse(trust: Trust) {
    let mut proven = trust.shared.proven.subscribe();
    loop {
        let until = proven.borrow_and_update().map(|moment| moment + CURRENT_MAX);
        let has_lapsed = tokio::select! {
            biased;
            changed = proven.changed() => match changed {
                Ok(()) => false,
                Err(_) => return,
            },
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => true,
        };
        if has_lapsed {
            trust.note();
            if proven.changed().await.is_err() {
                return;
            }
        }
    }
}

/// One stream.
struct Stream<'a> {
    trust: &'a Trust,
    ground: &'a Ground,
    /// Ticks that are not answered, and when they were sent.
    sent: VecDeque<(u64, Instant)>,
    number: u64,
    /// A tick was answered on this stream: what it tells is not older than what was heard elsewhere before.
    is_proven: bool,
}

impl<'a> Stream<'a> {
    fn new(trust: &'a Trust, ground: &'a Ground) -> Stream<'a> {
        Stream { trust, ground, sent: VecDeque::new(), number: 0, is_proven: false }
    }

    async fn run(mut self, channel: Channel) -> End {
        let (ticks, requests) = mpsc::channel(4);
        let mut client = RingClient::new(channel).max_decoding_message_size(STATE_BYTES_MAX);
        let mut news = match timeout(ANSWER_MAX, client.auth(ReceiverStream::new(requests))).await {
            Ok(Ok(news)) => news.into_inner(),
            Ok(Err(status)) => return status.into(),
            Err(_) => return End::Lost("no stream in time".to_owned()),
        };
        let (mut due, mut last, mut is_wanted) = (Instant::now(), None::<Instant>, false);
        loop {
            let overdue = self.sent.front().map(|(_, sent)| *sent + ANSWER_MAX);
            tokio::select! {
                biased;
                news = news.message() => match news {
                    Ok(Some(news)) => {
                        if let Err(end) = self.take(news) {
                            return end;
                        }
                    }
                    Ok(None) => return End::Lost("it ended".to_owned()),
                    Err(status) => return status.into(),
                },
                () = sleep_until(overdue.unwrap_or(due)), if overdue.is_some() => {
                    return End::Lost("it does not answer".to_owned());
                }
                () = sleep_until(due) => {
                    let now = Instant::now();
                    due = now + TICK;
                    if std::mem::take(&mut is_wanted) || self.is_of_use() || last.is_none_or(|last| now - last >= IDLE_TICK) {
                        last = Some(now);
                        self.number += 1;
                        // The moment is before anything is sent.
                        self.sent.push_back((self.number, now));
                        if ticks.try_send(AuthTick { number: self.number }).is_err() {
                            return End::Lost("it takes no more questions".to_owned());
                        }
                    }
                }
                () = self.trust.shared.wanted.notified() => {
                    is_wanted = true;
                    due = due.min(last.map_or(due, |last| last + TICK_MIN));
                }
            }
        }
    }

    /// Whether anybody has asked for what is decided here since the last look, or holds a stream.
    fn is_of_use(&self) -> bool {
        let shared = &self.trust.shared;
        self.trust.is_guarded() && (shared.is_used.swap(false, Relaxed) || shared.changed.receiver_count() > 0)
    }

    fn take(&mut self, news: AuthNews) -> Result<(), End> {
        self.is_proven |= news.answers > 0;
        if !self.is_proven {
            return Err(End::Lost("it tells what it has not made sure of".to_owned()));
        }
        if let Some(state) = news.state {
            tracing::info!(enabled = state.enabled, revision = state.revision, "users and roles, as upstream has them");
            if !self.trust.learn(state, self.ground) {
                return Err(End::Refused("it tells of permissions that this version does not know".to_owned()));
            }
        }
        while let Some((number, sent)) = self.sent.front().copied().filter(|(number, _)| *number <= news.answers) {
            self.sent.pop_front();
            if number == news.answers {
                self.trust.prove(sent);
            }
        }
        Ok(())
    }
}
