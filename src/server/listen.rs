//! Client URLs: binding them.

use super::authority::Mended;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, UnixListener, UnixStream, lookup_host},
};

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

/// Removes the file of a Unix socket when the listener goes, as etcd does.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // nobody can be told any more
    }
}

impl Listener {
    /// Binds `http://host:port` or `unix://path` (`unix://host:port` is a file of that name, as in etcd).
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
            url.split_once("://").ok_or_else(|| fail("a URL begins with http:// or unix://".into()))?;
        let socket = match scheme {
            "http" => {
                let address = rest.trim_end_matches('/');
                let listener = listen(address, share_port).await.map_err(|error| fail(explain(&error)))?;
                Socket::Tcp(listener)
            }
            "unix" => {
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
            }
            "https" | "unixs" => return Err(fail("TLS is not served by this version".into())),
            other => return Err(fail(format!("the scheme {other:?} is not served; use http or unix"))),
        };
        Ok(Listener { url: url.to_owned(), socket })
    }

    /// Where clients find it: with the real port if 0 was asked for.
    pub fn url(&self) -> String {
        match &self.socket {
            Socket::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}"),
                Err(_) => self.url.clone(),
            },
            Socket::Unix { .. } => self.url.clone(),
        }
    }

    /// The next client.
    pub(super) async fn accept(&self) -> io::Result<Connection> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::pin(Mended::new(stream)))
            }
            Socket::Unix { listener, .. } => Ok(Box::pin(Mended::new(listener.accept().await?.0))),
        }
    }
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

/// Both ways of a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}
pub(super) type Connection = Pin<Box<dyn Stream>>;
