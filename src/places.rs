//! Places for connections: how many there may be, from one address and altogether, and who gives way.
//!
//! **Promises.** There are never more connections than places. Who has proven to be of use (a client by a request, a peer by a greeting that was
//! accepted) keeps its place. Who has not is *silent*: when places run out the silent ones make room, first those of the address that has most
//! of them, the longest there first. So strangers who hold all places lose them as others come, and take nobody's who is known.
//! **May not know** what is spoken on a connection, or how one is closed: whoever holds a place that is taken away lets go.
//!
//! ```text
//!   accept ── enter ──▶ silent ── speaks ──▶ known ── drop ──▶
//!                │         │ taken away, when others have no room
//!                ▼         ▼
//!             refused    closed
//! ```

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    future::{Future, poll_fn},
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Refusals are told of in the log no more often than this: they come in floods.
const NEWS_EVERY: Duration = Duration::from_secs(1);

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Altogether.
    pub all_max: usize,
    /// From one address.
    pub of_address_max: usize,
    /// That are silent.
    pub silent_max: usize,
    /// How long a connection may be silent, whoever else wants its place. An address that has many is not waited for.
    pub grace: Duration,
}

impl Bounds {
    /// As good as none.
    pub const NONE: Bounds =
        Bounds { all_max: usize::MAX, of_address_max: usize::MAX, silent_max: usize::MAX, grace: Duration::ZERO };
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// There are too many connections.
    All,
    /// There are too many from this address.
    Address,
}

/// How many connections there are, and were turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// There are.
    pub all: usize,
    /// Of these, silent.
    pub silent: usize,
    /// That got no place.
    pub refused: u64,
    /// Whose place was taken away.
    pub taken_away: u64,
}

/// The places of one or more listeners. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    state: Mutex<State>,
    refused: AtomicU64,
    taken_away: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Changed under the lock alone.
    all: Arc<AtomicUsize>,
    /// Connections that came over no network have none.
    by_address: HashMap<Option<IpAddr>, Of>,
    silent: usize,
    told: Option<Instant>,
}

/// Who is there from one address.
#[derive(Debug, Default)]
struct Of {
    all: usize,
    /// By age.
    silent: BTreeMap<u64, (Instant, Arc<Notify>)>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    number: u64,
    address: Option<IpAddr>,
    taken_away: Arc<Notify>,
    is_known: AtomicBool,
}

impl Places {
    /// As many as `bounds` say.
    pub fn new(bounds: Bounds) -> Places {
        let (refused, taken_away) = (AtomicU64::default(), AtomicU64::default());
        Places(Arc::new(Shared { bounds, state: Mutex::default(), refused, taken_away }))
    }

    /// A place for a connection from `address`; if need be a silent one's.
    ///
    /// # Errors
    /// [`Full`]: the connection is to be closed.
    pub fn enter(&self, address: Option<IpAddr>) -> Result<Place, Full> {
        let Shared { bounds, state, refused, taken_away } = &*self.0;
        let state = &mut *state.lock();
        let now = Instant::now();
        if let Err(full) = state.make_room(address, bounds, now, taken_away) {
            refused.fetch_add(1, Relaxed);
            return Err(full);
        }
        let (number, notify) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        state.all.fetch_add(1, Relaxed);
        state.silent += 1;
        let of = state.by_address.entry(address).or_default();
        of.all += 1;
        of.silent.insert(number, (now, Arc::clone(&notify)));
        Ok(Place { places: self.clone(), number, address, taken_away: notify, is_known: AtomicBool::new(false) })
    }

    /// Whether a refusal of now is to be told of.
    pub fn is_news(&self) -> bool {
        let mut state = self.0.state.lock();
        let now = Instant::now();
        let is_news = state.told.is_none_or(|told| now.duration_since(told) >= NEWS_EVERY);
        if is_news {
            state.told = Some(now);
        }
        is_news
    }

    /// How many there are, and were.
    pub fn counts(&self) -> Counts {
        let Shared { state, refused, taken_away, .. } = &*self.0;
        let state = state.lock();
        let (refused, taken_away) = (refused.load(Relaxed), taken_away.load(Relaxed));
        Counts { all: state.all.load(Relaxed), silent: state.silent, refused, taken_away }
    }

    /// How many connections there are; the number goes on changing.
    pub fn all(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0.state.lock().all)
    }

    /// How many there may be.
    pub fn bounds(&self) -> Bounds {
        self.0.bounds
    }
}

impl State {
    fn make_room(
        &mut self,
        address: Option<IpAddr>,
        bounds: &Bounds,
        now: Instant,
        taken_away: &AtomicU64,
    ) -> Result<(), Full> {
        let of_address = self.by_address.get(&address).map_or(0, |of| of.all);
        if address.is_some() && of_address >= bounds.of_address_max {
            return match self.take_from(address, bounds.grace, now, taken_away) {
                true => Ok(()),
                false => Err(Full::Address),
            };
        }
        if self.all.load(Relaxed) < bounds.all_max && self.silent < bounds.silent_max {
            return Ok(());
        }
        // Full: a walk over all addresses is little beside the connection that it is for.
        let silent = |(address, of): (&Option<IpAddr>, &Of)| (of.silent.len(), *address);
        let Some((many, greedy)) = self.by_address.iter().map(silent).max() else { return Err(Full::All) };
        // Whoever has many, and more than the newcomer's, is not waited for.
        let own = self.by_address.get(&address).map_or(0, |of| of.silent.len());
        let grace = if many > 1 && many > own { Duration::ZERO } else { bounds.grace };
        if self.take_from(greedy, grace, now, taken_away) { Ok(()) } else { Err(Full::All) }
    }

    /// Takes the place of the silent connection from `address` that has been there longest, if that is long enough.
    fn take_from(&mut self, address: Option<IpAddr>, grace: Duration, now: Instant, taken_away: &AtomicU64) -> bool {
        let Some(of) = self.by_address.get_mut(&address) else { return false };
        let Some(oldest) = of.silent.first_entry() else { return false };
        if now.duration_since(oldest.get().0) < grace {
            return false;
        }
        oldest.remove().1.notify_one();
        taken_away.fetch_add(1, Relaxed);
        self.silent -= 1;
        self.leave(address);
        true
    }

    /// One connection from `address` less.
    fn leave(&mut self, address: Option<IpAddr>) {
        self.all.fetch_sub(1, Relaxed);
        if let Some(of) = self.by_address.get_mut(&address) {
            of.all -= 1;
            if of.all == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    /// Whether it was silent until now.
    fn is_silent_no_more(&mut self, address: Option<IpAddr>, number: u64) -> bool {
        let was = self.by_address.get_mut(&address).is_some_and(|of| of.silent.remove(&number).is_some());
        self.silent -= usize::from(was);
        was
    }
}

impl Place {
    /// The connection is of use: it keeps its place from now on. Cheap to say again and again.
    pub fn speaks(&self) {
        if self.is_known.load(Relaxed) {
            return;
        }
        // One whose place was taken away a moment ago stays on that way.
        let was_silent = self.places.0.state.lock().is_silent_no_more(self.address, self.number);
        self.is_known.store(was_silent, Relaxed);
    }

    /// Whether it keeps its place.
    pub fn is_known(&self) -> bool {
        self.is_known.load(Relaxed)
    }

    /// Waits until it is taken away. Whoever keeps it can ask again and again without a lock.
    pub async fn taken_away(&self) {
        let mut taken_away = pin!(self.taken_away.notified());
        poll_fn(|context| match self.is_known() {
            true => Poll::Pending,
            false => taken_away.as_mut().poll(context),
        })
        .await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.0.state.lock();
        // Whose place was taken away has left already.
        if self.is_known.load(Relaxed) || state.is_silent_no_more(self.address, self.number) {
            state.leave(self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    fn places(all_max: usize, of_address_max: usize, silent_max: usize, grace: Duration) -> Places {
        Places::new(Bounds { all_max, of_address_max, silent_max, grace })
    }

    fn from(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn is_taken_away(place: &Place) -> bool {
        use std::task::{Context, Waker};
        pin!(place.taken_away()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_known_keep_their_places_and_the_silent_lose_them() {
        let places = places(3, usize::MAX, usize::MAX, Duration::ZERO);
        let known = places.enter(from(1)).unwrap();
        known.speaks();
        let silent = places.enter(from(2)).unwrap();
        let other = places.enter(from(3)).unwrap();
        other.speaks();
        let newcomer = places.enter(from(4)).unwrap();
        assert!(is_taken_away(&silent) && !is_taken_away(&known) && !is_taken_away(&other));
        newcomer.speaks();
        assert_eq!(places.enter(from(5)).unwrap_err(), Full::All);
        // Too late.
        silent.speaks();
        drop(silent);
        assert_eq!(places.counts(), Counts { all: 3, silent: 0, refused: 1, taken_away: 1 });
        drop((known, other, newcomer));
        assert_eq!(places.counts().all, 0);
        assert!(places.0.state.lock().by_address.is_empty());
    }

    #[test]
    fn the_address_with_most_silent_ones_gives_way_and_is_not_waited_for() {
        let places = places(4, usize::MAX, usize::MAX, LONG);
        let honest = places.enter(from(1)).unwrap();
        let greedy = [2, 2, 2].map(|last| places.enter(from(last)).unwrap());
        assert_eq!(places.enter(from(2)).unwrap_err(), Full::All, "it would have to wait for its own");
        let newcomer = places.enter(from(3)).unwrap();
        assert!(is_taken_away(&greedy[0]) && !is_taken_away(&greedy[1]) && !is_taken_away(&honest));
        assert!(!is_taken_away(&newcomer));
    }

    #[test]
    fn where_each_has_one_the_grace_holds() {
        let places = places(2, usize::MAX, usize::MAX, LONG);
        let _two = [1, 2].map(|last| places.enter(from(last)).unwrap());
        assert_eq!(places.enter(from(3)).unwrap_err(), Full::All);
        assert!(places.is_news() && !places.is_news());
    }

    #[test]
    fn an_address_has_no_more_than_its_own_places() {
        let places = places(10, 2, usize::MAX, Duration::ZERO);
        let first = places.enter(from(1)).unwrap();
        let second = places.enter(from(1)).unwrap();
        let third = places.enter(from(1)).unwrap();
        assert!(is_taken_away(&first), "its own silent one goes");
        second.speaks();
        third.speaks();
        assert_eq!(places.enter(from(1)).unwrap_err(), Full::Address);
        assert!(places.enter(from(2)).is_ok() && places.enter(None).is_ok());
        drop(second);
        assert!(places.enter(from(1)).is_ok());
    }

    #[test]
    fn the_silent_have_a_bound_of_their_own() {
        let places = places(10, usize::MAX, 2, Duration::ZERO);
        let all = [1, 1, 1].map(|last| places.enter(from(last)).unwrap());
        assert!(is_taken_away(&all[0]));
        all[1].speaks();
        let _more = places.enter(from(1)).unwrap();
        assert!(!is_taken_away(&all[2]));
        assert_eq!((places.counts().all, places.counts().silent), (3, 2));
    }
}
