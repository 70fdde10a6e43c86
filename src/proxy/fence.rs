//! One linearizable read of upstream for all who wait at that moment.
//!
//! The revision of its answer is the *fence*: who then waits until a copy has reached it reads what is linearizable. A caller joins only
//! a read that is sent after it came, and one read is under way at a time: so a thousand callers cost upstream about two.
//! Where many wait each time, more are let come together: in a core of five one such read costs as much as a dozen puts.
//!
//! The read is the cheapest that etcd has too: it counts one key that nobody has.

use super::{Source, age::Proofs, source::own};
use crate::{
    client::{self, retry},
    pb::etcdserverpb::{self as pb, kv_client::KvClient},
    runtime,
    server::Header,
    types::{ClusterId, Error, MemberId, Revision, Term},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tonic::{Code, Status};

/// Most callers that wait for one fence; more are told to come back.
const WAITING_MAX: usize = 200_000;

/// The next read is sent so much later than the last for each caller that the last one was for,
const REST_EACH: Duration = Duration::from_micros(50);
/// but by no more than that, however many they were.
const REST_MAX: Duration = Duration::from_millis(40);
/// A shorter rest is none: timers count milliseconds.
const REST_MIN: Duration = Duration::from_millis(1);

/// What upstream said to a linearizable read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Its header. All that was committed before [`Proof::sent_at`] is at or below its revision.
    pub header: Header,
    /// When the read was sent, since the ring began.
    pub sent_at: Duration,
}

/// Why there is no fence.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// Nothing came back in time.
    TimedOut,
    /// Upstream asks who we are: only it can tell who may read what.
    Locked,
    /// A revision that somebody has named is compacted upstream, or has not come yet.
    NotThere,
    /// Upstream said this, or the connection to it did.
    Refused(Status),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::TimedOut => f.write_str("upstream did not answer in time"),
            Refusal::NotThere => f.write_str("upstream does not have that revision"),
            Refusal::Locked => f.write_str("upstream has authentication enabled"),
            Refusal::Refused(status) => write!(f, "upstream refused: {:?}: {}", status.code(), status.message()),
        }
    }
}

/// Answered, or why not.
pub type Answer = Result<Proof, Refusal>;

/// The fence of one upstream. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Fence {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<dyn Source>,
    began: Instant,
    call_max: Duration,
    waiting: Mutex<Waiting>,
    proofs: Mutex<Proofs>,
    is_locked: AtomicBool,
    calls: AtomicU64,
}

/// Who waits for a fence.
struct Caller {
    sender: oneshot::Sender<Answer>,
    /// The revision that has to be there.
    at: Option<Revision>,
}

#[derive(Default)]
struct Waiting {
    callers: Vec<Caller>,
    /// A task is there that looks at `callers` again.
    is_running: bool,
}

impl Fence {
    /// A fence at `source`; a read may take `call_max`, over all its repeats.
    pub fn new(source: Arc<dyn Source>, call_max: Duration) -> Fence {
        Fence {
            shared: Arc::new(Shared {
                source,
                began: Instant::now(),
                call_max,
                waiting: Mutex::default(),
                proofs: Mutex::default(),
                is_locked: AtomicBool::new(false),
                calls: AtomicU64::new(0),
            }),
        }
    }

    /// Whom it asks.
    pub(super) fn source(&self) -> &Arc<dyn Source> {
        &self.shared.source
    }

    /// Now, since the ring began.
    pub fn now(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// Whether upstream has asked who we are when it was last asked for anything.
    pub fn is_locked(&self) -> bool {
        self.shared.is_locked.load(Relaxed)
    }

    /// Upstream has asked who we are, in an answer to somebody else. The next fence may find that it does so no more.
    pub(super) fn lock(&self) {
        self.shared.is_locked.store(true, Relaxed);
    }

    /// Linearizable reads that were sent upstream.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Relaxed)
    }

    /// The latest moment at which nothing after `level` had been committed, as far as anybody asked.
    pub fn current_at(&self, level: Revision) -> Option<Duration> {
        self.shared.proofs.lock().current_at(level)
    }

    /// The highest revision of upstream that was known at `moment`, since the ring began; 0: none.
    pub fn known_at(&self, moment: Duration) -> Revision {
        self.shared.proofs.lock().known_at(moment)
    }

    /// Forgets what upstream has proven: it is another history now.
    pub fn forget(&self) {
        self.shared.proofs.lock().clear();
    }

    /// What upstream is at, at some moment from now on. Ends in bounded time.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn pass(&self) -> Answer {
        self.join(None).await
    }

    /// The same, and whether upstream can still tell what there was at revision `at`, which is not below 1.
    ///
    /// # Errors
    /// [`Refusal::NotThere`] if it can't, or one of those who asked with this caller named a revision of which that is so: then only
    /// upstream itself knows.
    pub async fn pass_at(&self, at: Revision) -> Answer {
        self.join(Some(at)).await
    }

    async fn join(&self, at: Option<Revision>) -> Answer {
        let (sender, answer) = oneshot::channel();
        let is_first = {
            let mut waiting = self.shared.waiting.lock();
            if waiting.callers.len() >= WAITING_MAX {
                return Err(Refusal::Refused(Error::RequestTooManyRequests.into()));
            }
            waiting.callers.push(Caller { sender, at });
            !std::mem::replace(&mut waiting.is_running, true)
        };
        if is_first {
            runtime::spawn(run(Arc::clone(&self.shared)));
        }
        // Without an answer the runtime is about to end.
        answer.await.unwrap_or(Err(Refusal::TimedOut))
    }
}

/// Reads upstream for as long as somebody waits.
async fn run(shared: Arc<Shared>) {
    loop {
        let callers = {
            let mut waiting = shared.waiting.lock();
            waiting.callers.retain(|caller| !caller.sender.is_closed());
            if waiting.callers.is_empty() {
                // Under the lock, so that whoever comes next finds a task, or makes one.
                waiting.is_running = false;
                return;
            }
            std::mem::take(&mut waiting.callers)
        };
        let mut callers = callers;
        let next_at = Instant::now() + (REST_EACH * callers.len() as u32).min(REST_MAX);
        // The read is at the lowest revision that is named. If that one is not there, those who named none ask again.
        let lowest = callers.iter().filter_map(|caller| caller.at).min();
        let mut answer = shared.ask(lowest).await;
        if matches!(answer, Err(Refusal::NotThere)) {
            let (named, others) = callers.into_iter().partition(|caller| caller.at.is_some());
            tell(named, &answer);
            callers = others;
            if callers.is_empty() {
                continue;
            }
            answer = shared.ask(None).await;
        }
        if !matches!(answer, Err(Refusal::TimedOut | Refusal::NotThere | Refusal::Refused(_))) {
            shared.is_locked.store(answer.is_err(), Relaxed);
        }
        tell(callers, &answer);
        if next_at.saturating_duration_since(Instant::now()) >= REST_MIN {
            sleep_until(next_at).await;
        }
    }
}

fn tell(callers: Vec<Caller>, answer: &Answer) {
    // Some may have left.
    callers.into_iter().for_each(|caller| drop(caller.sender.send(answer.clone())));
}

impl Shared {
    /// One read, at a revision if that is named.
    async fn ask(&self, at: Option<Revision>) -> Answer {
        let sent_at = self.began.elapsed();
        let read = tokio::time::timeout(self.call_max, self.read(at)).await;
        let answer = read.unwrap_or(Err(Refusal::TimedOut)).map(|header| Proof { header, sent_at });
        match &answer {
            Ok(proof) => self.proofs.lock().add(proof.header.revision, sent_at),
            Err(refusal) => tracing::debug!(%refusal, "no fence"),
        }
        answer
    }

    /// One read of the member that leads. `None`: it is not known, or did not answer with a header; others may.
    async fn read_of_lead(&self, at: Option<Revision>) -> Option<Result<Header, Refusal>> {
        let mut client = KvClient::new(self.source.lead()?);
        self.calls.fetch_add(1, Relaxed);
        let attempt_max = self.call_max / (self.source.ways() + 1).clamp(2, 4) as u32;
        let reply = tokio::time::timeout(attempt_max, client.range(own(&*self.source, request(at)))).await;
        let answer = match reply {
            Ok(Ok(reply)) => header(reply.into_inner().header).map(Ok),
            Ok(Err(status)) => upstreams_word(&status, at).map(Err),
            Err(_) => None,
        };
        match &answer {
            Some(Ok(header)) => self.source.heard(header.term),
            Some(Err(_)) => {}
            None => self.source.lost_lead(),
        }
        answer
    }

    /// One read: of the leader, if that is known, and else of as many addresses as there are, if need be.
    async fn read(&self, at: Option<Revision>) -> Result<Header, Refusal> {
        if let Some(answer) = self.read_of_lead(at).await {
            return answer;
        }
        let ways = self.source.ways();
        // One that hangs must not take the time of the others.
        let attempt_max = self.call_max / ways.clamp(1, 3) as u32;
        let mut left = ways;
        loop {
            let (turn, channel) = self.source.pick();
            self.calls.fetch_add(1, Relaxed);
            left -= 1;
            let mut client = KvClient::new(channel);
            let status = match tokio::time::timeout(attempt_max, client.range(own(&*self.source, request(at)))).await {
                Ok(Ok(reply)) => return header(reply.into_inner().header).ok_or_else(nothing),
                Ok(Err(status)) => status,
                Err(_) => Error::Timeout.into(),
            };
            if let Some(refusal) = upstreams_word(&status, at) {
                return Err(refusal);
            }
            let error = client::Error::from(status.clone());
            let elsewhere = retry::Repeat::Freely.allows(&error) || retry::ask_another(&error);
            if elsewhere {
                self.source.leave(turn);
            }
            if !elsewhere || left == 0 {
                // What a broken connection says of itself is no word of upstream's, nor one that clients know how to take.
                let is_own = status.code() == Code::Unavailable && status.message().starts_with("etcdserver: ");
                let is_lost = elsewhere && !is_own && !retry::ask_another(&error);
                let status = if is_lost { Error::TimeoutDueToConnectionLost.into() } else { status };
                return Err(Refusal::Refused(status));
            }
        }
    }
}

/// What any member would say.
fn upstreams_word(status: &Status, at: Option<Revision>) -> Option<Refusal> {
    match status.code() {
        _ if asks_who(status) => Some(Refusal::Locked),
        Code::OutOfRange if at.is_some() => Some(Refusal::NotThere),
        _ => None,
    }
}

fn request(at: Option<Revision>) -> pb::RangeRequest {
    let revision = at.unwrap_or_default().0;
    pb::RangeRequest { key: Bytes::from_static(&[0]), count_only: true, limit: 1, revision, ..Default::default() }
}

fn nothing() -> Refusal {
    Refusal::Refused(Status::internal("upstream answered without a header"))
}

/// A header in our words; `None` if it is none.
pub(super) fn header(header: Option<pb::ResponseHeader>) -> Option<Header> {
    let header = header.filter(|header| header.revision > 0)?;
    Some(Header {
        cluster_id: ClusterId(header.cluster_id),
        member_id: MemberId(header.member_id),
        revision: Revision(header.revision),
        term: Term(header.raft_term),
    })
}

/// Whether a watch was ended because upstream wants to know who asks: it says so in the words of a call that was refused.
pub(super) fn ended_by_asking_who(reason: &str) -> bool {
    [Error::UserEmpty, Error::PermissionDenied, Error::InvalidAuthToken]
        .iter()
        .any(|error| reason.ends_with(error.text()))
}

/// Whether upstream wants to know who asks, which only a caller of ours can say.
pub(super) fn asks_who(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
        || status.message() == Error::UserEmpty.text()
}
