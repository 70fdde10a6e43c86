//! The last word of a server that hangs up.
//!
//! In TLS 1.3 who dials is done before the server has looked at its certificate. If it is refused, the alert that says why arrives while
//! the first request is being written; whoever writes on sees a broken pipe, and nobody would ever know why.

use super::client::ClientTls;
use crate::runtime;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

/// A connection that says why it ended.
pub(super) struct Heed {
    stream: TlsStream<runtime::Stream>,
    address: String,
    tls: ClientTls,
}

impl Heed {
    pub(super) fn new(stream: TlsStream<runtime::Stream>, address: String, tls: ClientTls) -> Heed {
        Heed { stream, address, tls }
    }

    /// An alert becomes a text that people understand; other errors stay what they are.
    fn explained(&self, error: io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::InvalidData => io::Error::new(error.kind(), self.tls.explain(&self.address, &error)),
            _ => error,
        }
    }

    /// What the server said before it hung up, if writing failed with `error`.
    fn why(&mut self, context: &mut Context<'_>, error: io::Error) -> io::Error {
        // What it said before may be data; an end of the connection comes after at most what it had sent.
        let mut scrap = [0; 1024];
        for _ in 0..64 {
            let mut buffer = ReadBuf::new(&mut scrap);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Err(said)) if said.kind() == io::ErrorKind::InvalidData => return self.explained(said),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                _ => break,
            }
        }
        error
    }
}

impl AsyncRead for Heed {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buf));
        Poll::Ready(read.map_err(|error| self.explained(error)))
    }
}

impl AsyncWrite for Heed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, buf));
        Poll::Ready(written.map_err(|error| self.why(context, error)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        Poll::Ready(flushed.map_err(|error| self.why(context, error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, bufs));
        Poll::Ready(written.map_err(|error| self.why(context, error)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
