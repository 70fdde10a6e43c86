//! Client URLs: binding them.

use super::{authority::Mended, identity::CommonName};
use crate::tls::{self, Connection, ServerTls, Spoken, Turn};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream, lookup_host};
use tokio_rustls::server::TlsStream;

/// Why a client URL can't be served.
#[derive(Debug)]
pub struct ListenError {
    url: String,
    why: String,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.url, self.why)
    }
}

impl std::error::Error for ListenError {}

/// A bound client URL; nothing is accepted before [`super::serve`].
#[derive(Debug)]
pub struct Listener {
    url: String,
    socket: Socket,
    speaks: Speaks,
    tls: Option<ServerTls>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Held for what it does when it goes.
        _file: SocketFile,
    },
}

/// What is spoken below HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Plain,
    Tls,
    /// The first byte of each connection tells.
    Either,
}

/// Removes the file of a Unix socket when the listener goes, as etcd does.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // nobody can be told any more
    }
}

impl Listener {
    /// Binds `http://host:port` or `unix://path` (`unix://host:port` is a file of that name, as in etcd), or `https` or `unixs`: then
    /// [`Listener::with_tls`] has to say what to show.
    ///
    /// # Errors
    /// A text that names the URL: the port is in use, the host is unknown, the scheme is not served.
    pub async fn bind(url: &str) -> Result<Listener, ListenError> {
        Listener::bind_shared(url, false).await
    }

    /// The same; with `share_port` other processes that say so too may listen on the same port (`SO_REUSEPORT`).
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub async fn bind_shared(url: &str, share_port: bool) -> Result<Listener, ListenError> {
        let fail = |why: String| ListenError { url: url.to_owned(), why };
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| fail("a URL begins with http://, https:// or unix://".into()))?;
        let speaks = match scheme {
            "http" | "unix" => Speaks::Plain,
            "https" | "unixs" => Speaks::Tls,
            other => return Err(fail(format!("the scheme {other:?} is not served; use http, https, unix or unixs"))),
        };
        let socket = if scheme.starts_with("http") {
            let address = rest.trim_end_matches('/');
            Socket::Tcp(listen(address, share_port).await.map_err(|error| fail(explain(&error)))?)
        } else {
            let path = Path::new(rest);
            // The file of a member that was killed is in the way; one that somebody serves is not ours to take.
            if UnixStream::connect(path).await.is_ok() {
                return Err(fail("another process serves it".into()));
            }
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(explain(&error))),
                _ => {}
            }
            let listener = UnixListener::bind(path).map_err(|error| fail(explain(&error)))?;
            Socket::Unix { listener, _file: SocketFile(path.to_owned()) }
        };
        Ok(Listener { url: url.to_owned(), socket, speaks, tls: None })
    }

    /// Serves plain HTTP and TLS on the same port from now on, as when a URL is given with both schemes.
    pub fn speak_both(&mut self) {
        self.speaks = Speaks::Either;
    }

    /// With this to show to whoever speaks TLS. Until then they are turned away.
    pub fn with_tls(self, tls: Option<&ServerTls>) -> Listener {
        Listener { tls: tls.cloned(), ..self }
    }

    /// Where clients find it: with the real port if 0 was asked for.
    pub fn url(&self) -> String {
        let scheme = if self.speaks == Speaks::Tls { "https" } else { "http" };
        match &self.socket {
            Socket::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("{scheme}://{address}"),
                Err(_) => self.url.clone(),
            },
            Socket::Unix { .. } => self.url.clone(),
        }
    }

    /// The next client. Nothing has been heard of it yet.
    pub(super) async fn accept(&self) -> io::Result<Arrival> {
        let stream = match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Arrived::Tcp(stream, remote)
            }
            Socket::Unix { listener, .. } => Arrived::Unix(listener.accept().await?.0),
        };
        Ok(Arrival { stream, speaks: self.speaks, tls: self.tls.clone() })
    }
}

/// A client that has connected, and not said anything.
pub(super) struct Arrival {
    stream: Arrived,
    speaks: Speaks,
    tls: Option<ServerTls>,
}

enum Arrived {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Arrival {
    /// Where it comes from.
    pub(super) fn remote(&self) -> String {
        match &self.stream {
            Arrived::Tcp(_, remote) => remote.to_string(),
            Arrived::Unix(_) => "@".to_owned(),
        }
    }

    /// The address that it comes from, if it comes over a network.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match &self.stream {
            // One that speaks IPv4 on a socket for both is the same as on one for IPv4.
            Arrived::Tcp(_, remote) => Some(remote.ip().to_canonical()),
            Arrived::Unix(_) => None,
        }
    }

    /// The same for whoever has no text in mind; `None` if it comes over a Unix socket.
    pub(super) fn peer(&self) -> Option<Peer> {
        match &self.stream {
            Arrived::Tcp(_, remote) => Some(Peer(*remote)),
            Arrived::Unix(_) => None,
        }
    }

    /// Waits until its handshake may begin; `None` where there is none.
    pub(super) async fn enter(&self) -> Option<Turn> {
        match &self.tls {
            Some(tls) if self.speaks != Speaks::Plain => Some(tls.enter().await),
            _ => None,
        }
    }

    /// The connection, once its handshake is done, and the common name of the certificate that was shown; `turn` is what
    /// [`Arrival::enter`] gave.
    ///
    /// # Errors
    /// A text: it is not let in.
    pub(super) async fn greet(self, turn: Option<Turn>) -> Result<(Connection, Caller), String> {
        if self.speaks == Speaks::Plain {
            return Ok(match self.stream {
                Arrived::Tcp(stream, _) => (Box::pin(Mended::new(stream)), Caller::default()),
                Arrived::Unix(stream) => (Box::pin(Mended::new(stream)), Caller::default()),
            });
        }
        let (Some(tls), Some(turn)) = (self.tls, turn) else {
            return Err("there is no certificate to show".to_owned());
        };
        Ok(match self.stream {
            Arrived::Tcp(stream, _) if self.speaks == Speaks::Either => match tls.accept_either(stream, turn).await? {
                Spoken::Tls(stream) => known(*stream),
                Spoken::Plain(stream) => (Box::pin(Mended::new(stream)), Caller::default()),
            },
            Arrived::Tcp(stream, _) => known(tls.accept(stream, turn).await?),
            Arrived::Unix(stream) => known(tls.accept(stream, turn).await?),
        })
    }
}

/// Where a connection comes from; in the extensions of its requests, if somebody wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// What a connection says of who is at its other end.
#[derive(Clone, Default)]
pub(super) struct Caller {
    pub(super) name: Option<CommonName>,
    pub(super) has_tls: bool,
}

fn known<S>(stream: TlsStream<S>) -> (Connection, Caller)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let name = tls::name_shown(&stream).map(|name| CommonName(name.into()));
    (Box::pin(Mended::new(stream)), Caller { name, has_tls: true })
}

/// Listens on the first address of a name that can be bound.
async fn listen(address: &str, share_port: bool) -> io::Result<TcpListener> {
    if !share_port {
        return TcpListener::bind(address).await;
    }
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is already in use".to_owned(),
        _ => error.to_string(),
    }
}
