//! Clients that put a whole URL where HTTP/2 wants a host.
//!
//! etcd's own client up to 3.4 sends its endpoint as `:authority`, scheme and all, when it asks one member for its status. Servers
//! in Go do not look; the library below resets the stream. Nobody here needs the authority, so its `://` becomes `..B` on the way in:
//! a host name of the same length, in the same number of bits when Huffman coded, so nothing else in the frame changes, and both
//! ends' tables of seen headers stay alike.
//!
//! Only the first request of a connection is looked at; the later ones refer to what it said. A connection that does not say what it speaks
//! is not waited for: until then the library below has no deadline.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Longest wait for the bytes that tell HTTP/1 from HTTP/2.
const SILENCE_MAX: Duration = Duration::from_secs(30);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_LEN: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Of `:authority` in HPACK's static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;

/// A connection whose first request gets an authority that can be parsed.
pub(super) struct Mended<S> {
    stream: S,
    scan: Scan,
    /// Until it is known what is spoken.
    silence: Option<Pin<Box<Sleep>>>,
}

impl<S> Mended<S> {
    pub(super) fn new(stream: S) -> Mended<S> {
        Mended { stream, scan: Scan::Preface(0), silence: Some(Box::pin(sleep(SILENCE_MAX))) }
    }
}

/// How far the start of the connection has been read.
enum Scan {
    /// So many bytes of the preface.
    Preface(usize),
    /// Between frames, with the first bytes of the next one's header.
    Frame(Vec<u8>),
    /// So many more bytes of a frame that is of no interest.
    Skip(usize),
    /// The first request is past, or this is not HTTP/2.
    Done,
}

impl Scan {
    /// Looks at what has just arrived. A request that arrives in pieces is left as it is.
    fn look(&mut self, mut arrived: &mut [u8]) {
        while !arrived.is_empty() {
            match self {
                Scan::Done => return,
                Scan::Preface(seen) => {
                    let part = (PREFACE.len() - *seen).min(arrived.len());
                    if arrived[..part] != PREFACE[*seen..*seen + part] {
                        *self = Scan::Done;
                        return;
                    }
                    *seen += part;
                    if *seen == PREFACE.len() {
                        *self = Scan::Frame(Vec::with_capacity(FRAME_HEADER_LEN));
                    }
                    arrived = &mut arrived[part..];
                }
                Scan::Skip(left) => {
                    let part = (*left).min(arrived.len());
                    *left -= part;
                    if *left == 0 {
                        *self = Scan::Frame(Vec::with_capacity(FRAME_HEADER_LEN));
                    }
                    arrived = &mut arrived[part..];
                }
                Scan::Frame(header) => {
                    let part = (FRAME_HEADER_LEN - header.len()).min(arrived.len());
                    header.extend_from_slice(&arrived[..part]);
                    arrived = &mut arrived[part..];
                    if header.len() < FRAME_HEADER_LEN {
                        return;
                    }
                    let len = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
                    if header[3] != HEADERS {
                        *self = if len == 0 { Scan::Frame(Vec::new()) } else { Scan::Skip(len) };
                        continue;
                    }
                    let flags = header[4];
                    *self = Scan::Done;
                    if let Some(payload) = arrived.get_mut(..len) {
                        mend_headers(flags, payload);
                    }
                }
            }
        }
    }
}

/// Finds the authority in the payload of a HEADERS frame. `None` if there is none, or the payload is malformed.
fn mend_headers(flags: u8, payload: &mut [u8]) -> Option<()> {
    let mut at = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    loop {
        let kind = *payload.get(at)?;
        let (prefix_bits, is_literal) = match kind {
            0x80.. => (7, false),
            0x40..=0x7f => (6, true),
            0x20..=0x3f => (5, false),
            _ => (4, true),
        };
        let name = integer(payload, &mut at, prefix_bits)?;
        if !is_literal {
            continue;
        }
        if name == 0 {
            string(payload, &mut at)?;
        }
        let value = string(payload, &mut at)?;
        if name == AUTHORITY {
            mend(value.huffman, payload.get_mut(value.start..at)?);
            return Some(());
        }
    }
}

/// An integer (RFC 7541, section 5.1). Those of more than four bytes have no place in a first request.
fn integer(payload: &[u8], at: &mut usize, prefix_bits: u32) -> Option<usize> {
    let most = (1 << prefix_bits) - 1;
    let mut value = usize::from(*payload.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = *payload.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

struct Value {
    huffman: bool,
    start: usize,
}

/// Steps over a string (RFC 7541, section 5.2).
fn string(payload: &[u8], at: &mut usize) -> Option<Value> {
    let huffman = payload.get(*at)? & 0x80 != 0;
    let len = integer(payload, at, 7)?;
    let start = *at;
    *at = start.checked_add(len).filter(|end| *end <= payload.len())?;
    Some(Value { huffman, start })
}

/// A start of a string, and what to put there: left-aligned bits.
struct Patch {
    bits: u32,
    from: u64,
    to: u64,
}

/// A code and its length in bits.
type Symbol = (u64, u32);

const fn align(symbols: &[Symbol]) -> (u64, u32) {
    let (mut bits, mut len, mut at) = (0, 0, 0);
    while at < symbols.len() {
        bits = bits << symbols[at].1 | symbols[at].0;
        len += symbols[at].1;
        at += 1;
    }
    (bits << (64 - len), len)
}

const fn patch(from: &[Symbol], to: &[Symbol]) -> Patch {
    let ((from, bits), (to, to_bits)) = (align(from), align(to));
    assert!(bits == to_bits, "a patch changes no length");
    Patch { bits, from, to }
}

// Huffman codes (RFC 7541, appendix B).
const H: Symbol = (0b10_0111, 6);
const T: Symbol = (0b0_1001, 5);
const P: Symbol = (0b10_1011, 6);
const S: Symbol = (0b0_1000, 5);
const COLON: Symbol = (0b101_1100, 7);
const SLASH: Symbol = (0b01_1000, 6);
const DOT: Symbol = (0b01_0111, 6);
const B: Symbol = (0b101_1101, 7);

const HUFFMAN: [Patch; 2] = [
    patch(&[H, T, T, P, COLON, SLASH, SLASH], &[H, T, T, P, DOT, DOT, B]),
    patch(&[H, T, T, P, S, COLON, SLASH, SLASH], &[H, T, T, P, S, DOT, DOT, B]),
];
const PLAIN: [Patch; 2] = [
    Patch { bits: 56, from: u64::from_be_bytes(*b"http://\0"), to: u64::from_be_bytes(*b"http..B\0") },
    Patch { bits: 64, from: u64::from_be_bytes(*b"https://"), to: u64::from_be_bytes(*b"https..B") },
];

fn mend(huffman: bool, value: &mut [u8]) {
    let mut head = [0; 8];
    let len = value.len().min(head.len());
    head[..len].copy_from_slice(&value[..len]);
    let bits = u64::from_be_bytes(head);
    for Patch { bits: len_bits, from, to } in if huffman { &HUFFMAN } else { &PLAIN } {
        let mask = u64::MAX << (64 - len_bits);
        if bits & mask == *from {
            value[..len].copy_from_slice(&(bits & !mask | to).to_be_bytes()[..len]);
            return;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending()
            && let Some(silence) = &mut self.silence
        {
            ready!(silence.as_mut().poll(context));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request in time")));
        }
        ready!(read)?;
        if !matches!(self.scan, Scan::Done) {
            self.scan.look(&mut buffer.filled_mut()[before..]);
        }
        if !matches!(self.scan, Scan::Preface(_)) {
            self.silence = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A connection's first bytes: preface, empty settings, a request with this header block.
    fn opening(block: &[u8]) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), HEADERS, 4, 0, 0, 0, 1]);
        bytes.extend(block);
        bytes
    }

    /// `:method POST`, then the authority.
    fn block(huffman: bool, authority: &[u8]) -> Vec<u8> {
        let len = u8::try_from(authority.len()).unwrap() | if huffman { 0x80 } else { 0 };
        [&[0x83, 0x41, len][..], authority].concat()
    }

    #[test]
    fn a_scheme_becomes_a_part_of_the_name() {
        for (from, to) in [
            ("http://127.0.0.1:2379", "http..B127.0.0.1:2379"),
            ("https://db:1", "https..Bdb:1"),
            ("db:2379", "db:2379"),
        ] {
            let mut bytes = opening(&block(false, from.as_bytes()));
            Scan::Preface(0).look(&mut bytes);
            assert_eq!(bytes, opening(&block(false, to.as_bytes())), "{from}");
        }
    }

    #[test]
    fn the_same_in_huffman_code() {
        // "http://1" and "http..B1": the last seven bits are the digit (5) and padding.
        let from = [0b1001_1101, 0b0010_1001, 0b1010_1110, 0b1110_0011, 0b0000_1100, 0b0000_0111];
        let to = [0b1001_1101, 0b0010_1001, 0b1010_1101, 0b0111_0101, 0b1110_1110, 0b1000_0111];
        let mut bytes = opening(&block(true, &from));
        Scan::Preface(0).look(&mut bytes);
        let found = &bytes[bytes.len() - 6..];
        assert_eq!(found, to, "{found:?}");
    }

    #[test]
    fn the_preface_may_come_in_pieces() {
        let mut bytes = opening(&block(false, b"http://a"));
        let expected = opening(&block(false, b"http..Ba"));
        let mut scan = Scan::Preface(0);
        let request = bytes.len() - 11 - FRAME_HEADER_LEN;
        for byte in &mut bytes[..request] {
            scan.look(std::slice::from_mut(byte));
        }
        scan.look(&mut bytes[request..]);
        assert_eq!(bytes, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_say_what_it_speaks_is_not_waited_for() {
        for (said, is_cut) in
            [(&b""[..], true), (b"P", true), (b"PRI * HTTP/2.0", true), (b"POST ", false), (PREFACE, false)]
        {
            let (mut client, server) = tokio::io::duplex(64);
            let mut server = Mended::new(server);
            client.write_all(said).await.unwrap();
            let mut heard = Vec::new();
            let reading = tokio::time::timeout(SILENCE_MAX * 2, server.read_to_end(&mut heard)).await;
            let cut = matches!(reading, Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut);
            assert_eq!((cut, heard.as_slice()), (is_cut, said));
        }
    }

    #[test]
    fn nothing_else_is_touched() {
        let mut one = b"GET / HTTP/1.1\r\nhost: http://a\r\n\r\n".to_vec();
        let before = one.clone();
        Scan::Preface(0).look(&mut one);
        assert_eq!(one, before);
        // Later requests, and blocks that end too early.
        for block in [&[0x83, 0x41, 0x20, b'h'][..], &[0x41], &[]] {
            let mut bytes = opening(block);
            let before = bytes.clone();
            Scan::Preface(0).look(&mut bytes);
            assert_eq!(bytes, before);
        }
    }
}
