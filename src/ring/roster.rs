//! Who was heard of, over which line, and what of it.

use super::{
    TIER_MAX,
    news::{Told, Wants},
};
use crate::{
    pb::henge::ring::{Identity, Listed, Pace, Proxy, Reports, State},
    types::Revision,
};
use parking_lot::Mutex;
use prost::Message;
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// News that all proxies together may tell one listener in a second. With 30 µs for each that is less than 1 % of a core.
pub const NEWS_PER_S_MAX: u32 = 300;
/// The shortest time between two reports.
const INTERVAL_MIN: Duration = Duration::from_secs(2);
/// The longest.
const INTERVAL_MAX: Duration = Duration::from_secs(120);
/// Whoever has listened for less than this, or than two intervals, may not have heard of everybody.
pub const LISTENED_MIN: Duration = Duration::from_secs(15);
/// Proxies that a roster remembers at most, and bytes of what they say.
const ENTRIES_MAX: usize = 100_000;
const BYTES_MAX: usize = 64 << 20;
/// What an entry costs beside what it says.
const ENTRY_BYTES: usize = 256;
/// Streams of reports at most.
const LINES_MAX: usize = 50_000;
/// How long a proxy that is lost is remembered: somebody may ask which hosts are on old configuration.
const LOST_KEPT: Duration = Duration::from_secs(600);
/// How long it is said that not all could be remembered.
const LEFT_OUT_KEPT: Duration = Duration::from_secs(300);
/// Between two looks for what to forget.
const PRUNE_EVERY: Duration = Duration::from_secs(5);
/// How long a goal stands that not all have reached.
const GOAL_KEPT: Duration = Duration::from_secs(600);

/// Everybody is told of again after so many intervals, changed or not: numbers that are no news by themselves come along, and the bound of
/// an age does not grow beyond that.
const AGAIN_INTERVALS: u32 = 8;

/// Bounds of what one proxy may say.
const TEXT_MAX: usize = 256;
const URLS_MAX: usize = 8;
const COPIES_MAX: usize = 64;
const KEY_MAX: usize = 512;

/// Everybody who was heard of. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Roster {
    shared: Arc<Shared>,
}

struct Shared {
    began: Instant,
    inner: Mutex<Inner>,
    pace: watch::Sender<Pace>,
}

/// One stream of reports. When it is dropped, whoever was heard of over it is lost.
pub struct Line {
    roster: Roster,
    id: u64,
}

impl Drop for Line {
    fn drop(&mut self) {
        let now = self.roster.now();
        self.roster.shared.inner.lock().end(self.id, now);
    }
}

impl Line {
    /// Takes in what came.
    pub fn heard(&self, reports: Reports) {
        let now = self.roster.now();
        let mut inner = self.roster.shared.inner.lock();
        inner.heard(self.id, reports, now);
        let interval = inner.interval();
        drop(inner);
        self.roster.pace_of(interval);
    }
}

impl Roster {
    /// Of those behind `id`, a member if `tier` is 0.
    pub fn new(id: u64, tier: u32) -> Roster {
        let pace = Pace { id, tier, interval_ms: millis(INTERVAL_MIN) as u32, goal: 0 };
        let inner = Inner { own: id, ..Inner::default() };
        Roster {
            shared: Arc::new(Shared {
                began: Instant::now(),
                inner: Mutex::new(inner),
                pace: watch::Sender::new(pace),
            }),
        }
    }

    fn now(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// Whom its owner reports to; 0: to nobody yet.
    pub fn above(&self) -> u64 {
        self.shared.inner.lock().above_id
    }

    /// Whose roster it is.
    pub fn id(&self) -> u64 {
        self.shared.pace.borrow().id
    }

    /// A stream of reports begins. `None`: there are too many.
    pub fn line(&self) -> Option<Line> {
        let now = self.now();
        let id = self.shared.inner.lock().begin(now)?;
        Some(Line { roster: self.clone(), id })
    }

    /// What those behind are asked for, and a wake-up when that changes.
    pub fn pace(&self) -> watch::Receiver<Pace> {
        self.shared.pace.subscribe()
    }

    fn pace_of(&self, interval: Duration) {
        let wanted = millis(interval) as u32;
        self.shared.pace.send_if_modified(|pace| {
            // Each change is a message to everybody.
            let is_much = wanted.abs_diff(pace.interval_ms) > pace.interval_ms / 4;
            if is_much {
                pace.interval_ms = wanted;
            }
            is_much
        });
    }

    /// Upstream asks for this: those behind are not asked for more, and are that much farther from the core.
    pub fn follow(&self, above: Pace) {
        let now = self.now();
        let mut inner = self.shared.inner.lock();
        inner.above_id = above.id;
        inner.above = Duration::from_millis(u64::from(above.interval_ms)).min(INTERVAL_MAX);
        let interval = inner.interval();
        let goal = inner.aim(Revision(above.goal), now);
        drop(inner);
        self.pace_of(interval);
        self.shared.pace.send_if_modified(|pace| {
            let tier = above.tier.saturating_add(1).min(TIER_MAX);
            let is_news = pace.tier != tier || pace.goal != goal.0;
            (pace.tier, pace.goal) = (tier, goal.0);
            is_news
        });
    }

    /// Somebody waits until all copies have `goal`: whoever comes to it is to say so at once. A goal that stands and is higher, and not older
    /// than ten minutes, stays.
    pub fn aim(&self, goal: Revision) {
        let now = self.now();
        let goal = self.shared.inner.lock().aim(goal, now);
        self.shared.pace.send_if_modified(|pace| std::mem::replace(&mut pace.goal, goal.0) != goal.0);
    }

    /// Everybody, by id; and whether there were more than can be remembered.
    pub fn list(&self) -> (Vec<Listed>, bool) {
        let now = self.now();
        let mut inner = self.shared.inner.lock();
        inner.prune(now);
        let is_partial = inner.left_out_at.is_some_and(|at| now < at + LEFT_OUT_KEPT);
        (
            inner.entries.iter().map(|(id, entry)| entry.listed(*id, inner.silence(entry, now), now)).collect(),
            is_partial,
        )
    }

    /// Peer URLs of hosts that volunteer for the core, and whether anything is heard of each.
    pub fn standbys(&self) -> Vec<(String, bool)> {
        let inner = self.shared.inner.lock();
        let volunteers = inner.entries.values().filter(|entry| !entry.identity.standby_peer_url.is_empty());
        volunteers.map(|entry| (entry.identity.standby_peer_url.clone(), entry.lost.is_none())).collect()
    }

    /// For how long it has listened, and after how long it should have heard of everybody.
    pub fn listening(&self) -> (Duration, Duration) {
        (self.now(), LISTENED_MIN.max(self.shared.inner.lock().interval() * 2))
    }

    /// News of everybody since `told` was last brought up to date by this, as far as `wants` them; and who is no more.
    pub(super) fn news(&self, told: &mut Told, wants: Wants) -> (Vec<Proxy>, Vec<u64>) {
        let now = self.now();
        let mut inner = self.shared.inner.lock();
        inner.prune(now);
        told.diff(&inner.entries, wants, inner.interval() * AGAIN_INTERVALS, now)
    }
}

#[derive(Default)]
struct Inner {
    own: u64,
    next_line: u64,
    /// When anything was last heard over each.
    lines: BTreeMap<u64, Duration>,
    entries: BTreeMap<u64, Entry>,
    /// By name and URLs, to notice that a proxy has been started anew.
    places: BTreeMap<u64, u64>,
    bytes: usize,
    /// Who is upstream, and the interval that it asks for.
    above_id: u64,
    above: Duration,
    goal: Option<(Revision, Duration)>,
    left_out_at: Option<Duration>,
    pruned_at: Duration,
}

/// What is known of one proxy.
pub(super) struct Entry {
    identity: Identity,
    state: State,
    /// They count changes.
    pub(super) identity_version: u32,
    pub(super) state_version: u32,
    /// When the state came.
    came: Duration,
    line: u64,
    /// Since when nothing is heard of it.
    lost: Option<Duration>,
    bytes: usize,
}

impl Entry {
    /// Up to where all its copies are. What it does not copy is upstream's to answer, and never old.
    pub(super) fn revision(&self) -> Revision {
        reached(&self.state)
    }

    /// As it is to be told at `now`.
    pub(super) fn proxy(&self, id: u64, has_identity: bool, now: Duration) -> Proxy {
        let since = millis(now.saturating_sub(self.came));
        let mut state = self.state.clone();
        state.told_ms = state.told_ms.saturating_add(since);
        // All of it is a bound, and what has passed since belongs to it.
        state.copies.iter_mut().for_each(|copy| copy.age_ms = copy.age_ms.saturating_add(since));
        let identity = has_identity.then(|| self.identity.clone());
        Proxy { id, identity, state: Some(state), is_lost: self.lost.is_some() }
    }

    fn listed(&self, id: u64, silence: Duration, now: Duration) -> Listed {
        Listed { proxy: Some(self.proxy(id, true, now)), heard_ms: millis(silence) }
    }
}

/// Up to where all copies of a proxy in this state are.
pub(super) fn reached(state: &State) -> Revision {
    Revision(state.copies.iter().map(|copy| copy.revision).min().unwrap_or(i64::MAX))
}

impl Inner {
    fn begin(&mut self, now: Duration) -> Option<u64> {
        if self.lines.len() >= LINES_MAX {
            return None;
        }
        let id = self.next_line;
        self.next_line += 1;
        self.lines.insert(id, now);
        Some(id)
    }

    fn end(&mut self, line: u64, now: Duration) {
        self.lines.remove(&line);
        for entry in self.entries.values_mut().filter(|entry| entry.line == line && entry.lost.is_none()) {
            entry.lost = Some(now);
            entry.state_version += 1;
        }
        self.prune(now);
    }

    fn heard(&mut self, line: u64, reports: Reports, now: Duration) {
        if let Some(heard) = self.lines.get_mut(&line) {
            *heard = now;
        }
        for proxy in reports.news {
            self.news(line, proxy, now);
        }
        for id in reports.gone {
            // Somebody else may have it now.
            if self.entries.get(&id).is_some_and(|entry| entry.line == line) {
                self.remove(id);
            }
        }
        self.prune(now);
    }

    fn news(&mut self, line: u64, proxy: Proxy, now: Duration) {
        // Its own, come round in a circle.
        if proxy.id == self.own {
            return;
        }
        match self.entries.get_mut(&proxy.id) {
            // The old line of one that has come back over another says that it is lost there.
            Some(entry) if proxy.is_lost && entry.line != line && entry.lost.is_none() => return,
            Some(entry) => {
                entry.line = line;
                if proxy.is_lost != entry.lost.is_some() {
                    entry.lost = proxy.is_lost.then_some(now);
                    entry.state_version += 1;
                }
            }
            None => {
                // Without its name it is of no use; that comes again.
                let (Some(identity), Some(state)) = (proxy.identity, proxy.state) else { return };
                return self.add(proxy.id, line, identity, state, proxy.is_lost, now);
            }
        }
        let Some(entry) = self.entries.get_mut(&proxy.id) else { return };
        if let Some(identity) = proxy.identity.map(bounded_identity)
            && identity != entry.identity
        {
            let (left, found) = (place(&entry.identity), place(&identity));
            if self.places.get(&left) == Some(&proxy.id) {
                self.places.remove(&left);
            }
            self.places.insert(found, proxy.id);
            entry.identity = identity;
            entry.identity_version += 1;
        }
        if let Some(state) = proxy.state.map(bounded_state) {
            if is_news(&entry.state, &state) {
                entry.state_version += 1;
            }
            (entry.state, entry.came) = (state, now);
        }
        let before = std::mem::replace(&mut entry.bytes, weight(&entry.identity, &entry.state));
        self.bytes = self.bytes - before + entry.bytes;
        if self.bytes > BYTES_MAX {
            self.left_out_at = Some(now);
            self.remove(proxy.id);
        }
    }

    fn add(&mut self, id: u64, line: u64, identity: Identity, state: State, is_lost: bool, now: Duration) {
        let (identity, state) = (bounded_identity(identity), bounded_state(state));
        let bytes = weight(&identity, &state);
        let place = place(&identity);
        let before = self.places.get(&place).copied();
        if let Some(before) = before
            && self.entries.get(&before).is_some_and(|entry| entry.lost.is_some())
        {
            self.remove(before);
        }
        if self.entries.len() >= ENTRIES_MAX || self.bytes + bytes > BYTES_MAX {
            self.left_out_at = Some(now);
            return;
        }
        self.bytes += bytes;
        self.places.insert(place, id);
        let lost = is_lost.then_some(now);
        let entry = Entry { identity, state, identity_version: 1, state_version: 1, came: now, line, lost, bytes };
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.bytes -= entry.bytes;
        let place = place(&entry.identity);
        if self.places.get(&place) == Some(&id) {
            self.places.remove(&place);
        }
    }

    /// Forgets who has been lost for long.
    fn prune(&mut self, now: Duration) {
        if now < self.pruned_at + PRUNE_EVERY {
            return;
        }
        self.pruned_at = now;
        let is_over = |entry: &Entry| entry.lost.is_some_and(|lost| now >= lost + LOST_KEPT);
        let over: Vec<u64> = self.entries.iter().filter(|(_, entry)| is_over(entry)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.remove(id));
    }

    /// How long nothing has been heard of an entry.
    fn silence(&self, entry: &Entry, now: Duration) -> Duration {
        let heard = entry.lost.or_else(|| self.lines.get(&entry.line).copied()).unwrap_or(entry.came);
        now.saturating_sub(heard)
    }

    /// The time between two reports of each, so that all together keep to the bound.
    fn interval(&self) -> Duration {
        let own = Duration::from_secs(self.entries.len() as u64) / NEWS_PER_S_MAX;
        own.max(self.above).clamp(INTERVAL_MIN, INTERVAL_MAX)
    }

    fn aim(&mut self, goal: Revision, now: Duration) -> Revision {
        let standing = self.goal.filter(|(_, since)| now < *since + GOAL_KEPT).map(|(goal, _)| goal);
        if goal > standing.unwrap_or_default() {
            self.goal = Some((goal, now));
        } else if standing.is_none() {
            self.goal = None;
        }
        self.goal.map_or(Revision(0), |(goal, _)| goal)
    }
}

/// Whether those farther up should hear of it: some numbers change all the time, and travel with others.
pub(super) fn is_news(old: &State, new: &State) -> bool {
    let counts = |state: &State| (state.clients, state.watches, state.copies.len(), state.duty);
    let same = |(old, new): (&crate::pb::henge::ring::Copy, &crate::pb::henge::ring::Copy)| {
        (&old.key, &old.range_end, old.revision, old.lag) == (&new.key, &new.range_end, new.revision, new.lag)
    };
    counts(old) != counts(new) || !old.copies.iter().zip(&new.copies).all(same)
}

fn place(identity: &Identity) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&identity.name, &identity.urls).hash(&mut hasher);
    hasher.finish()
}

fn weight(identity: &Identity, state: &State) -> usize {
    ENTRY_BYTES + identity.encoded_len() + state.encoded_len() + state.copies.len() * 96
}

fn bounded_identity(mut identity: Identity) -> Identity {
    let cut = |text: &mut String| text.truncate(text.floor_char_boundary(TEXT_MAX));
    identity.urls.truncate(URLS_MAX);
    identity.urls.iter_mut().for_each(cut);
    [&mut identity.name, &mut identity.version, &mut identity.upstream].into_iter().for_each(cut);
    if identity.standby_peer_url.len() > TEXT_MAX {
        // One that is cut would be another one.
        identity.standby_peer_url.clear();
    }
    identity
}

fn bounded_state(mut state: State) -> State {
    let before = state.copies.len();
    // A key that is cut would be another one.
    state.copies.retain(|copy| copy.key.len() <= KEY_MAX && copy.range_end.len() <= KEY_MAX);
    state.copies.truncate(COPIES_MAX);
    state.copies_left_out = state.copies_left_out.saturating_add((before - state.copies.len()) as u32);
    for copy in &mut state.copies {
        // What is kept must not hold the whole message that it came in.
        copy.key = bytes::Bytes::copy_from_slice(&copy.key);
        copy.range_end = bytes::Bytes::copy_from_slice(&copy.range_end);
    }
    state
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
