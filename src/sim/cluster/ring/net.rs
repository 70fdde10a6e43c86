//! Connections between places: bytes in order, late, held up while a link is cut, lost with the machine at the other end.
//!
//! A cut is what a firewall does: what is on its way waits, and goes on when the link works again; whoever loses patience first hangs up.
//! A process that ends takes its connections with it, and the other side is told; a machine without power just says nothing any more, until
//! it is back and somebody still speaks to the process that is gone.

use crate::{runtime::simulated::Stream, sim::Chance};
use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};

/// Where processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The edge of a member.
    Member(usize),
    /// A proxy.
    Proxy(usize),
    /// A client.
    Client(usize),
}

impl Place {
    /// What others connect to.
    pub fn authority(self) -> String {
        match self {
            Place::Member(at) => format!("10.0.0.{}:2379", at + 1),
            Place::Proxy(at) => format!("10.0.1.{}:2379", at + 1),
            Place::Client(at) => format!("10.0.2.{}:2379", at + 1),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Member(at) => write!(f, "m{}", at + 1),
            Place::Proxy(at) => write!(f, "p{}", at + 1),
            Place::Client(at) => write!(f, "c{}", at + 1),
        }
    }
}

/// Bytes that may be on their way before a writer has to wait.
const WINDOW: usize = 256 << 10;
/// Whoever gets no answer to its first packet sends it again after this.
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// All connections.
pub struct Net(Mutex<Inner>);

struct Inner {
    chance: Chance,
    /// Longest ordinary travel.
    delay_max_ms: u64,
    cut: BTreeSet<(Place, Place)>,
    /// Who accepts connections.
    listeners: BTreeMap<Place, mpsc::UnboundedSender<Stream>>,
    /// Machines without power.
    dark: BTreeSet<Place>,
    /// Who closes connections now does it without a word.
    is_silent: bool,
    wires: BTreeMap<u64, Arc<Mutex<Wire>>>,
    made: u64,
    /// Of everything that was sent, in order.
    digest: u64,
}

/// One connection; side 0 has made it.
struct Wire {
    places: [Place; 2],
    /// What each side has sent.
    ways: [Way; 2],
}

struct Way {
    /// With the time of their arrival, if that is known: not while the link is cut.
    chunks: VecDeque<(Option<Instant>, Bytes)>,
    bytes: usize,
    last: Instant,
    /// What comes after the last chunk.
    end: Option<(Option<Instant>, End)>,
    /// The writer's process has let go of it.
    is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Finished,
    Reset,
}

impl Way {
    fn new() -> Way {
        Way {
            chunks: VecDeque::new(),
            bytes: 0,
            last: Instant::now(),
            end: None,
            is_closed: false,
            reader: None,
            writer: None,
        }
    }

    fn arrival(&mut self, delay: Option<Duration>) -> Option<Instant> {
        let at = delay.map(|delay| self.last.max(Instant::now() + delay));
        self.last = at.unwrap_or(self.last);
        at
    }

    fn end(&mut self, end: End, delay: Option<Duration>) {
        if self.end.is_some_and(|(_, known)| known == End::Reset || end == End::Finished) {
            return;
        }
        if end == End::Reset {
            self.chunks.clear();
            self.bytes = 0;
        }
        let at = self.arrival(delay);
        self.end = Some((at, end));
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    /// What was held up goes on.
    fn go_on(&mut self, delay: Duration) {
        let at = self.last.max(Instant::now() + delay);
        let held_up = self.chunks.iter_mut().map(|(at, _)| at).chain(self.end.iter_mut().map(|(at, _)| at));
        for arrival in held_up.filter(|arrival| arrival.is_none()) {
            *arrival = Some(at);
            self.last = at;
        }
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn is_reset(&self) -> bool {
        matches!(self.end, Some((Some(at), End::Reset)) if at <= Instant::now())
    }
}

impl Inner {
    /// How long something takes from one place to another; `None`: it does not arrive before the link works again.
    fn delay(&mut self, from: Place, to: Place) -> Option<Duration> {
        let ms = self.chance.between(0, self.delay_max_ms);
        (!self.cut.contains(&(from, to))).then(|| Duration::from_millis(ms))
    }
}

impl Net {
    /// Without connections, and nobody listens.
    pub fn new(chance: Chance, delay_max_ms: u64) -> Arc<Net> {
        Arc::new(Net(Mutex::new(Inner {
            chance,
            delay_max_ms,
            cut: BTreeSet::new(),
            listeners: BTreeMap::new(),
            dark: BTreeSet::new(),
            is_silent: false,
            wires: BTreeMap::new(),
            made: 0,
            digest: 0,
        })))
    }

    /// Connections to `place`, from now on.
    pub fn listen(&self, place: Place) -> mpsc::UnboundedReceiver<Stream> {
        // Each is a handshake that has happened; they are as many as dialers that wait.
        let (sender, accepted) = mpsc::unbounded_channel();
        let mut inner = self.0.lock();
        inner.listeners.insert(place, sender);
        inner.dark.remove(&place);
        accepted
    }

    /// Nobody listens at `place` any more, and `end` ends the connections of its process.
    pub fn close(&self, place: Place, is_silent: bool, end: impl FnOnce()) {
        {
            let mut inner = self.0.lock();
            inner.listeners.remove(&place);
            inner.is_silent = is_silent;
            if is_silent {
                inner.dark.insert(place);
            }
        }
        end();
        self.0.lock().is_silent = false;
    }

    /// Travel takes up to so long from now on.
    pub fn be_slow(&self, delay_max_ms: u64) {
        self.0.lock().delay_max_ms = delay_max_ms;
    }

    /// Cuts a link, in one direction.
    pub fn cut(&self, from: Place, to: Place) {
        self.0.lock().cut.insert((from, to));
    }

    /// Whether any link is cut.
    pub fn is_cut(&self) -> bool {
        !self.0.lock().cut.is_empty()
    }

    /// All links work.
    pub fn heal(&self) {
        let mut inner = self.0.lock();
        inner.cut.clear();
        let wires = inner.wires.values().cloned().collect::<Vec<_>>();
        for wire in wires {
            let mut wire = wire.lock();
            for side in 0..2 {
                let delay = inner.delay(wire.places[side], wire.places[1 - side]);
                wire.ways[side].go_on(delay.unwrap_or_default());
            }
        }
    }

    /// Some middlebox forgets the connections between two places.
    pub fn reset(&self, one: Place, other: Place) {
        let inner = self.0.lock();
        for wire in inner.wires.values() {
            let mut wire = wire.lock();
            if wire.places == [one, other] || wire.places == [other, one] {
                wire.ways.iter_mut().for_each(|way| way.end(End::Reset, Some(Duration::ZERO)));
            }
        }
    }

    /// How many connections there were, and what they carried.
    pub fn digest(&self) -> (u64, u64) {
        let inner = self.0.lock();
        (inner.made, inner.digest)
    }

    /// A connection from `from` to whoever listens at `authority`.
    pub async fn connect(self: Arc<Net>, from: Place, authority: String) -> io::Result<Stream> {
        let to = loop {
            match self.knock(from, &authority) {
                Knock::Silence => sleep(SYN_AGAIN).await,
                Knock::Refused(delay) => {
                    sleep(delay).await;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Knock::Open(to, delay) => {
                    sleep(delay).await;
                    break to;
                }
            }
        };
        let mut inner = self.0.lock();
        // It may have gone meanwhile.
        let Some(listener) = inner.listeners.get(&to).cloned() else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        inner.made += 1;
        let number = inner.made;
        let wire = Arc::new(Mutex::new(Wire { places: [from, to], ways: [Way::new(), Way::new()] }));
        inner.wires.insert(number, Arc::clone(&wire));
        drop(inner);
        let side = |side| Socket { net: Arc::clone(&self), number, wire: Arc::clone(&wire), side, timer: None };
        if let Err(unheard) = listener.send(Box::pin(side(1))) {
            drop(unheard);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(Box::pin(side(0)))
    }

    fn knock(&self, from: Place, authority: &str) -> Knock {
        let mut inner = self.0.lock();
        let to = inner.listeners.keys().copied().find(|place| place.authority() == authority);
        let Some(to) = to else {
            let is_dark = inner.dark.iter().any(|place| place.authority() == authority);
            let delay = Duration::from_millis(inner.delay_max_ms);
            return if is_dark { Knock::Silence } else { Knock::Refused(delay) };
        };
        match (inner.delay(from, to), inner.delay(to, from)) {
            (Some(there), Some(back)) => Knock::Open(to, there + back),
            _ => Knock::Silence,
        }
    }
}

fn digest(before: u64, who: u64, bytes: &[u8]) -> u64 {
    let mix = |digest: u64, part: u64| (digest ^ part).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
    bytes.iter().fold(mix(before, who), |digest, byte| mix(digest, u64::from(*byte)))
}

enum Knock {
    Silence,
    Refused(Duration),
    Open(Place, Duration),
}

/// One side of a connection.
struct Socket {
    net: Arc<Net>,
    number: u64,
    wire: Arc<Mutex<Wire>>,
    side: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let arrival = {
                let mut wire = self.wire.lock();
                let way = &mut wire.ways[1 - self.side];
                let now = Instant::now();
                match (way.chunks.front_mut(), way.end) {
                    (Some((Some(at), chunk)), _) if *at <= now => {
                        let length = chunk.len().min(out.remaining());
                        out.put_slice(&chunk[..length]);
                        chunk.advance(length);
                        if chunk.is_empty() {
                            way.chunks.pop_front();
                        }
                        way.bytes -= length;
                        way.writer.take().into_iter().for_each(Waker::wake);
                        return Poll::Ready(Ok(()));
                    }
                    (None, Some((Some(at), end))) if at <= now => {
                        return Poll::Ready(match end {
                            End::Finished => Ok(()),
                            End::Reset => Err(io::ErrorKind::ConnectionReset.into()),
                        });
                    }
                    (front, end) => {
                        let arrival = front.map_or(end.and_then(|(at, _)| at), |(at, _)| *at);
                        way.reader = Some(context.waker().clone());
                        arrival
                    }
                }
            };
            let Some(arrival) = arrival else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(Duration::ZERO)));
            if timer.deadline() != arrival {
                timer.as_mut().reset(arrival);
            }
            ready!(timer.as_mut().poll(context));
            self.timer = None;
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.net.0.lock();
        let mut wire = self.wire.lock();
        let (from, to) = (wire.places[self.side], wire.places[1 - self.side]);
        if wire.ways[1 - self.side].is_reset() || wire.ways[self.side].is_reset() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let is_gone = wire.ways[1 - self.side].is_closed;
        if is_gone {
            // Whoever is there now knows nothing of this connection, and says so.
            let is_heard = !inner.dark.contains(&to) && !inner.cut.contains(&(from, to));
            if is_heard {
                let delay = inner.delay(to, from);
                wire.ways[1 - self.side].end(End::Reset, delay);
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        let way = &mut wire.ways[self.side];
        if way.bytes >= WINDOW {
            way.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let arrival = way.arrival(inner.delay(from, to));
        inner.digest = digest(inner.digest, self.number << 1 | self.side as u64, bytes);
        way.bytes += bytes.len();
        way.chunks.push_back((arrival, Bytes::copy_from_slice(bytes)));
        way.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.net.0.lock();
        let mut wire = self.wire.lock();
        let (from, to) = (wire.places[self.side], wire.places[1 - self.side]);
        let delay = inner.delay(from, to);
        wire.ways[self.side].end(End::Finished, delay);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut inner = self.net.0.lock();
        let mut wire = self.wire.lock();
        let (from, to) = (wire.places[self.side], wire.places[1 - self.side]);
        if !inner.is_silent {
            let delay = inner.delay(from, to);
            wire.ways[self.side].end(End::Finished, delay);
        }
        wire.ways[self.side].is_closed = true;
        // The other one may wait for room.
        wire.ways[1 - self.side].writer.take().into_iter().for_each(Waker::wake);
        if wire.ways.iter().all(|way| way.is_closed) {
            inner.wires.remove(&self.number);
        }
    }
}
