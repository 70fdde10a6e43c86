//! The side of the proxy: one stream upstream, of what it is and of what it has heard.

use super::{
    Roster, TIER_MAX,
    news::{Told, Wants},
    roster::{is_news, reached},
};
use crate::runtime;
use crate::{
    pb::henge::ring::{Identity, Pace, Proxy, Reports, State, ring_client::RingClient},
    types::Revision,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

/// Longest wait for a stream to open, or for room in it.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How long a proxy that stops waits for upstream to have heard of it.
const GOODBYE_MAX: Duration = Duration::from_millis(500);
/// Before the first stream, by chance down to nothing: proxies that start together must not all come at once.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// Between two attempts, by chance down to half of it; it doubles from failure to failure.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// An upstream that keeps no roster is asked again after this: it may be another one then.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(600);
/// Between two looks at who has come to a goal.
const GOAL_LOOK: Duration = Duration::from_millis(250);
/// How long that is looked at.
const GOAL_MAX: Duration = Duration::from_secs(600);
/// What a proxy says of itself is said again after so many intervals, changed or not.
const OWN_AGAIN_INTERVALS: u32 = 4;
/// Proxies in one message.
const NEWS_MAX: usize = 256;

/// Where reports go to now.
pub struct Target {
    /// Told to [`Site::leave`] if it fails.
    pub turn: usize,
    /// The connection.
    pub channel: Channel,
    /// Where it leads.
    pub address: String,
}

/// What a reporter asks of its proxy.
pub trait Site: Send + Sync + 'static {
    /// The address that is asked now.
    fn target(&self) -> Target;
    /// Says that the address of `turn` failed.
    fn leave(&self, turn: usize);
    /// What the proxy is, but for its tier and upstream.
    fn identity(&self) -> Identity;
    /// How it is now.
    fn state(&self) -> State;
    /// Becomes `true` when the proxy is about to end.
    fn stopping(&self) -> watch::Receiver<bool>;
    /// Somebody waits for `goal`: copies that nothing happens in are to find out how far they are.
    fn seek(&self, goal: Revision);
}

/// Reports to upstream, for ever.
pub async fn report(site: Arc<dyn Site>, roster: Roster) {
    sleep(FIRST_AFTER.mul_f64(runtime::chance(0.0..1.0))).await;
    let (mut pause, mut is_told) = (PAUSE_MIN, false);
    loop {
        let target = site.target();
        let (turn, address, began) = (target.turn, target.address.clone(), Instant::now());
        let end = Stream::new(&*site, &roster, &target.address).run(target.channel).await;
        pause = if began.elapsed() > PAUSE_MAX { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        let wait = match end {
            End::Stopping => return,
            End::Elsewhere => Duration::ZERO,
            End::Unknown => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::info!(upstream = address, "upstream keeps no list of its proxies, so this one is in none");
                }
                UNKNOWN_PAUSE
            }
            End::Lost(why) => {
                tracing::debug!(upstream = address, why, ?pause, "the stream of reports ended");
                site.leave(turn);
                pause
            }
        };
        sleep(wait.mul_f64(runtime::chance(0.5..1.0))).await;
    }
}

/// Returns when it is said, or nobody is left to say it.
async fn told(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// Why a stream is no more.
enum End {
    /// There is no more to say.
    Stopping,
    /// Other calls go elsewhere now.
    Elsewhere,
    /// Upstream does not know of reports.
    Unknown,
    Lost(String),
}

impl From<Status> for End {
    fn from(status: Status) -> End {
        match status.code() {
            Code::Unimplemented => End::Unknown,
            code => End::Lost(format!("{code:?}: {}", status.message())),
        }
    }
}

/// One stream.
struct Stream<'a> {
    site: &'a dyn Site,
    roster: &'a Roster,
    address: &'a str,
    told: Told,
    /// What was said of the proxy itself, and when.
    identity: Identity,
    own: Option<(State, Instant)>,
    pace: Pace,
    /// Who waits for what, and until when that is looked at.
    goal: Option<(Revision, Instant)>,
}

impl<'a> Stream<'a> {
    fn new(site: &'a dyn Site, roster: &'a Roster, address: &'a str) -> Stream<'a> {
        Stream {
            site,
            roster,
            address,
            told: Told::default(),
            identity: Identity::default(),
            own: None,
            pace: Pace::default(),
            goal: None,
        }
    }

    /// Reports until the stream ends.
    async fn run(mut self, channel: Channel) -> End {
        let (sender, reports) = mpsc::channel(2);
        let mut client = RingClient::new(channel);
        let mut paces = match timeout(CALL_MAX, client.report(ReceiverStream::new(reports))).await {
            Ok(Ok(paces)) => paces.into_inner(),
            Ok(Err(status)) => return status.into(),
            Err(_) => return End::Lost("no stream in time".to_owned()),
        };
        match timeout(CALL_MAX, paces.message()).await {
            Ok(Ok(Some(pace))) => self.take(pace),
            Ok(Ok(None)) => return End::Lost("it ended at once".to_owned()),
            Ok(Err(status)) => return status.into(),
            Err(_) => return End::Lost("no word in time".to_owned()),
        }
        self.talk(sender, paces).await
    }

    async fn talk(&mut self, sender: mpsc::Sender<Reports>, mut paces: Streaming<Pace>) -> End {
        // At once, so that it is known.
        let mut due = Instant::now();
        let mut stopping = self.site.stopping();
        loop {
            let look_at = self.goal.map(|_| Instant::now() + self.goal_look());
            let wants = tokio::select! {
                biased;
                () = told(&mut stopping) => {
                    // Who leaves in order is not lost. If there is no room, it is.
                    let _ = sender.try_send(Reports { news: Vec::new(), gone: vec![self.roster.id()] });
                    drop(sender);
                    // Upstream ends the stream once it has read to the end.
                    let _ = timeout(GOODBYE_MAX, async { while let Ok(Some(_)) = paces.message().await {} }).await;
                    return End::Stopping;
                }
                pace = paces.message() => match pace {
                    Ok(Some(pace)) => {
                        self.take(pace);
                        due = due.min(Instant::now() + self.interval());
                        continue;
                    }
                    Ok(None) => return End::Lost("upstream ended it".to_owned()),
                    Err(status) => return status.into(),
                },
                () = sleep_until(due) => {
                    // A little apart from the others, whatever they began with.
                    due = Instant::now() + self.interval().mul_f64(runtime::chance(0.9..1.0));
                    Wants::All
                }
                () = sleep_until(look_at.unwrap_or(due)), if look_at.is_some() => match self.goal {
                    Some((goal, until)) if Instant::now() < until => Wants::Reached(goal),
                    _ => {
                        self.goal = None;
                        continue;
                    }
                },
            };
            if self.site.target().address != self.address {
                return End::Elsewhere;
            }
            for reports in self.reports(wants) {
                match timeout(CALL_MAX, sender.send(reports)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return End::Lost("upstream ended it".to_owned()),
                    Err(_) => return End::Lost("upstream takes nothing".to_owned()),
                }
            }
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.pace.interval_ms))
            .clamp(Duration::from_millis(100), Duration::from_secs(600))
    }

    /// Where many listen to one goal they do not all speak at once.
    fn goal_look(&self) -> Duration {
        GOAL_LOOK.max(self.interval() / 8).mul_f64(runtime::chance(0.5..1.0))
    }

    fn take(&mut self, pace: Pace) {
        self.roster.follow(pace);
        let goal = Revision(pace.goal);
        if goal > Revision(0) && pace.goal != self.pace.goal {
            self.site.seek(goal);
            self.goal = Some((goal, Instant::now() + GOAL_MAX));
        }
        self.pace = pace;
    }

    /// What is to be said now. All: at least that all is as it was.
    fn reports(&mut self, wants: Wants) -> Vec<Reports> {
        let (mut news, gone) = self.roster.news(&mut self.told, wants);
        news.extend(self.own(wants));
        if news.is_empty() && gone.is_empty() {
            return if wants == Wants::All { vec![Reports::default()] } else { Vec::new() };
        }
        let mut reports: Vec<Reports> = Vec::with_capacity(news.len() / NEWS_MAX + 1);
        let mut news = news.into_iter().peekable();
        while news.peek().is_some() {
            reports.push(Reports { news: news.by_ref().take(NEWS_MAX).collect(), gone: Vec::new() });
        }
        match reports.last_mut() {
            Some(last) => last.gone = gone,
            None => reports.push(Reports { news: Vec::new(), gone }),
        }
        reports
    }

    /// What there is to say of the proxy itself.
    fn own(&mut self, wants: Wants) -> Option<Proxy> {
        let state = self.site.state();
        let (before, at) = self.own.as_ref().map_or((None, None), |(state, at)| (Some(state), Some(*at)));
        let tier = (self.pace.tier + 1).min(TIER_MAX);
        let identity =
            Identity { tier, upstream: self.address.to_owned(), upstream_id: self.pace.id, ..self.site.identity() };
        let is_due = match wants {
            Wants::Reached(goal) => before.is_some_and(|before| reached(before) < goal) && reached(&state) >= goal,
            Wants::All => {
                let again = at.is_none_or(|at| at.elapsed() >= self.interval() * OWN_AGAIN_INTERVALS);
                again || identity != self.identity || before.is_none_or(|before| is_news(before, &state))
            }
        };
        if !is_due {
            return None;
        }
        let is_named = identity != self.identity;
        self.identity = identity.clone();
        self.own = Some((state.clone(), Instant::now()));
        Some(Proxy { id: self.roster.id(), identity: is_named.then_some(identity), state: Some(state), is_lost: false })
    }
}
