//! Peer URLs: binding them, and serving peers there.

use super::{Network, plain, service::PeerService, tls::Tls};
use crate::{
    pb::henge::peer::peer_server::PeerServer,
    places::{Bounds, Place, Places},
    tls::{Connection, Turn},
};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{service::Routes, transport::server::Connected};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;
/// Out of file descriptors, most likely: the loop must not spin until one is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Silence after which a peer is asked whether it lives, and the time for its answer: dead connections do not pile up.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Streams of one connection. A peer opens one on each.
const STREAMS_MAX: u32 = 16;
/// How many connections there may be to the peer URLs: as many as members make, and few of those over which nobody was let in. Members are
/// let in within milliseconds, and are few; each stranger beyond this ends another one, the oldest first.
pub(super) const PLACES: Bounds = Bounds { silent_max: 256, ..Bounds::NONE };
/// The least that a message may have; see [`serve`].
const MESSAGE_BYTES_MIN: usize = 64 << 20;

/// A bound peer URL; nobody is accepted before [`serve`].
#[derive(Debug)]
pub struct Listener {
    is_tls: bool,
    socket: TcpListener,
}

impl Listener {
    /// Binds `http://host:port` or `https://host:port`; with `share_port` other processes that say so too may listen on the same port.
    ///
    /// # Errors
    /// A text that names the URL: the port is in use, the host is unknown, the scheme is not served.
    pub async fn bind(url: &str, share_port: bool) -> Result<Listener, String> {
        let fail = |why: &dyn std::fmt::Display| format!("cannot listen on {url}: {why}");
        let (is_tls, address) = match url.split_once("://") {
            Some(("http", address)) => (false, address),
            Some(("https", address)) => (true, address),
            _ => return Err(fail(&"members listen on http or https")),
        };
        let socket = listen(address.trim_end_matches('/'), share_port).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => fail(&"the address is already in use"),
            _ => fail(&error),
        })?;
        Ok(Listener { is_tls, socket })
    }

    /// Where peers find it: with the real port if 0 was asked for.
    ///
    /// # Errors
    /// The system does not say.
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.is_tls { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.socket.local_addr()?))
    }
}

/// Listens on the first address of a name that can be bound.
async fn listen(address: &str, share_port: bool) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(share_port)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Peers that are being served.
pub struct Serving {
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<()>,
    accepting: JoinSet<()>,
}

/// Serves the peers of `network` on `listeners`, until [`Serving::stop`].
///
/// Entries of `request_bytes_max` must pass; so must those of a member whose flag says more, because a follower that refuses an entry
/// never comes further.
pub fn serve(listeners: Vec<Listener>, network: &Network, tls: &Tls, request_bytes_max: usize) -> Serving {
    let (accepted, incoming) = mpsc::channel(16);
    let places = &network.inner.places;
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept_all(listener, tls.clone(), places.clone(), accepted.clone()));
    }
    let (stop, stopped) = oneshot::channel();
    let bytes_max = request_bytes_max.saturating_mul(2).max(MESSAGE_BYTES_MIN);
    let service = PeerServer::new(PeerService { network: Arc::clone(&network.inner) });
    let peers = Routes::new(service.max_decoding_message_size(bytes_max)).into_axum_router();
    let routes = plain::beside(peers, Arc::clone(&network.inner));
    let server = tonic::transport::Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(STREAMS_MAX)
        // Wide enough that a round trip does not hold up a stream of entries.
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_routes(Routes::from(routes))
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), async {
            let _ = stopped.await; // dropped is as good as told
        });
    let server = tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "peers are not served any more");
        }
    });
    Serving { stop, server, accepting }
}

impl Serving {
    /// Accepts nobody any more and waits for those who are connected, whose streams [`Network::stop`] ends; cuts them after `patience`.
    pub async fn stop(mut self, patience: Duration) {
        self.accepting.shutdown().await;
        let _ = self.stop.send(()); // it may have ended by itself
        if tokio::time::timeout(patience, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

/// Accepts on one listener until it is aborted.
async fn accept_all(listener: Listener, tls: Tls, places: Places, accepted: mpsc::Sender<io::Result<Accepted>>) {
    let mut shaking = JoinSet::new();
    loop {
        let (stream, remote) = match listener.socket.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "rejected connection on peer endpoint");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while shaking.try_join_next().is_some() {}
        // There is always one: those who were here before give way.
        let Ok(place) = places.enter(Some(remote.ip().to_canonical())) else { continue };
        let turn = if listener.is_tls { Some(tls.enter().await) } else { None };
        let (tls, accepted) = (tls.clone(), accepted.clone());
        shaking.spawn(async move {
            let shaken = tokio::select! {
                biased;
                () = place.taken_away() => return,
                shaken = shake(stream, remote, turn, &tls) => shaken,
            };
            match shaken {
                // The server is gone only when everything stops.
                Ok(io) => drop(accepted.send(Ok(Accepted::new(io, remote, place))).await),
                Err(error) => {
                    tracing::warn!(remote_addr = %remote, %error, "rejected connection on peer endpoint");
                }
            }
        });
    }
}

/// `turn`: to shake hands at all, where TLS is spoken.
async fn shake(
    stream: TcpStream,
    remote: SocketAddr,
    turn: Option<Result<Turn, String>>,
    tls: &Tls,
) -> Result<Connection, String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    match turn {
        Some(turn) => Ok(Box::pin(tls.accept(stream, remote, turn?).await?)),
        None => Ok(Box::pin(stream)),
    }
}

/// A connection that a peer has dialled.
struct Accepted {
    io: Connection,
    from: Origin,
    /// Ready when the place is taken away; `None` once that cannot happen any more, or has happened.
    taken_away: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_over: bool,
}

/// Where a connection comes from, for those who serve its streams.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) remote: SocketAddr,
    place: Arc<Place>,
}

impl Origin {
    /// It is from somebody who belongs here.
    pub(super) fn is_let_in(&self) {
        self.place.speaks();
    }
}

impl Accepted {
    fn new(io: Connection, remote: SocketAddr, place: Place) -> Accepted {
        let place = Arc::new(place);
        let own = Arc::clone(&place);
        let taken_away = Box::pin(async move { own.taken_away().await });
        Accepted { io, from: Origin { remote, place }, taken_away: Some(taken_away), is_over: false }
    }

    /// Whether the place is taken away.
    fn poll_over(&mut self, context: &mut Context<'_>) -> bool {
        if self.from.place.is_known() {
            self.taken_away = None;
        }
        if let Some(taken_away) = &mut self.taken_away
            && taken_away.as_mut().poll(context).is_ready()
        {
            (self.taken_away, self.is_over) = (None, true);
        }
        self.is_over
    }
}

impl Connected for Accepted {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        self.from.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.poll_over(context) {
            let why = "others want the place of a connection over which nobody was let in";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        }
        self.io.as_mut().poll_read(context, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io.as_mut().poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io.as_mut().poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
