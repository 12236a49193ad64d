//! Listens for what an HTTP/2 endpoint says of itself: that it is there, and how many streams it takes at a time.
//!
//! Its SETTINGS come first on a connection (RFC 9113, section 3.4). Whoever does not wait for them opens streams that
//! are then refused; and whoever misses that they allow fewer later on has streams wait where nobody sees it. hyper keeps
//! what they say to itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::stream::Stream;

const HEAD_BYTES: usize = 9;
const SETTINGS: u8 = 0x4;
const ACK: u8 = 0x1;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
/// More settings than there are, several times over.
const PAYLOAD_BYTES_MAX: usize = 1024;

/// What has been heard on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Said>);

#[derive(Debug)]
struct Said {
    times: AtomicUsize,
    streams_max: AtomicUsize,
}

impl Default for Said {
    fn default() -> Self {
        Self { times: AtomicUsize::new(0), streams_max: AtomicUsize::new(usize::MAX) }
    }
}

impl Heard {
    /// How often something has come.
    pub(super) fn times(&self) -> usize {
        self.0.times.load(Relaxed)
    }

    /// How many streams it takes at a time, by what it said last. Without a word any number will do.
    pub(super) fn streams_max(&self) -> usize {
        self.0.streams_max.load(Relaxed)
    }
}

/// A stream that is listened to.
#[derive(Debug)]
pub(super) struct Hello {
    stream: Stream,
    heard: Heard,
    frames: Frames,
    /// Dropped untold when the connection could not be written to either.
    tell: Option<oneshot::Sender<Result<(), Unheard>>>,
}

/// Why there are no SETTINGS.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unheard {
    #[error("the endpoint closed the connection before its SETTINGS")]
    Closed,
    #[error("the connection broke before its SETTINGS: {0}")]
    Broken(io::ErrorKind),
    /// What came is no SETTINGS frame of a sensible size.
    #[error("the endpoint does not speak HTTP/2")]
    NotHttp2,
}

impl Unheard {
    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Closed => io::ErrorKind::UnexpectedEof,
            Self::Broken(kind) => *kind,
            Self::NotHttp2 => io::ErrorKind::Unsupported,
        }
    }
}

impl From<Unheard> for io::Error {
    fn from(why: Unheard) -> Self {
        Self::new(why.kind(), why)
    }
}

impl Hello {
    /// The receiver is told when the endpoint has said what it takes.
    pub(super) fn new(stream: Stream) -> (Self, oneshot::Receiver<Result<(), Unheard>>) {
        let (tell, told) = oneshot::channel();
        (Self { stream, heard: Heard::default(), frames: Frames::default(), tell: Some(tell) }, told)
    }

    pub(super) fn heard(&self) -> Heard {
        self.heard.clone()
    }

    fn hear(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return self.tell(Err(Unheard::Closed));
        }
        self.heard.0.times.fetch_add(1, Relaxed);
        self.frames.pass(bytes, &self.heard);
        match self.frames.place {
            Place::Lost => self.tell(Err(Unheard::NotHttp2)),
            _ if self.frames.has_settings => self.tell(Ok(())),
            _ => {}
        }
    }

    /// Once.
    fn tell(&mut self, said: Result<(), Unheard>) {
        // Nobody may want to know any more.
        let _ = self.tell.take().map(|tell| tell.send(said));
    }
}

/// The frames that pass, of which only SETTINGS are looked into.
#[derive(Debug, Default)]
struct Frames {
    place: Place,
    /// Of a head, or of the payload of SETTINGS, what has come.
    kept: Vec<u8>,
    has_settings: bool,
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Head,
    /// In SETTINGS of so many bytes.
    Settings(usize),
    /// In another frame, of which so many bytes are left.
    Other(usize),
    /// Those are no frames.
    Lost,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8], heard: &Heard) {
        while !bytes.is_empty() {
            let wanted = match self.place {
                Place::Head => HEAD_BYTES - self.kept.len(),
                Place::Settings(length) => length - self.kept.len(),
                Place::Other(left) => left,
                Place::Lost => return,
            };
            let (piece, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            match self.place {
                Place::Other(left) => self.place = Place::after(left - piece.len()),
                _ => {
                    self.kept.extend_from_slice(piece);
                    if piece.len() == wanted {
                        self.take_kept(heard);
                    }
                }
            }
        }
    }

    /// A head, or all SETTINGS of one frame.
    fn take_kept(&mut self, heard: &Heard) {
        if let Place::Head = self.place {
            let head = &self.kept;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let is_settings = head[3] == SETTINGS && head[4] & ACK == 0;
            self.place = match is_settings && length <= PAYLOAD_BYTES_MAX {
                true => Place::Settings(length),
                false if !self.has_settings => Place::Lost,
                false => Place::after(length),
            };
            self.kept.clear();
            if self.place != Place::Settings(0) {
                return;
            }
        }
        let mut said = self.kept.chunks_exact(6).filter(|setting| setting[..2] == MAX_CONCURRENT_STREAMS.to_be_bytes());
        if let Some([.., a, b, c, d]) = said.next_back() {
            heard.0.streams_max.store(u32::from_be_bytes([*a, *b, *c, *d]) as usize, Relaxed);
        }
        self.kept.clear();
        (self.place, self.has_settings) = (Place::Head, true);
    }
}

impl Place {
    /// Behind the head of a frame that is passed over, or somewhere in it.
    fn after(left: usize) -> Self {
        if left == 0 { Self::Head } else { Self::Other(left) }
    }
}

impl AsyncRead for Hello {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf)).inspect_err(|error| {
            this.tell(Err(Unheard::Broken(error.kind())));
        })?;
        this.hear(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Hello {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: [u8; 21] = [0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 100];

    #[test]
    fn the_number_is_read_when_the_frame_is_whole() {
        for cut in 0..=FIRST.len() {
            let (mut frames, heard) = (Frames::default(), Heard::default());
            frames.pass(&FIRST[..cut], &heard);
            assert_eq!(frames.has_settings, cut == FIRST.len(), "{cut}");
            frames.pass(&FIRST[cut..], &heard);
            assert_eq!((frames.has_settings, heard.streams_max()), (true, 100), "{cut}");
        }
        let (mut frames, heard) = (Frames::default(), Heard::default());
        frames.pass(&[0, 0, 0, 4, 0, 0, 0, 0, 0], &heard);
        assert_eq!((frames.has_settings, heard.streams_max()), (true, usize::MAX));
        for other in
            [&b"HTTP/1.1 400 Bad Request\r\n"[..], &[0, 0, 0, 4, 1, 0, 0, 0, 0], &[0, 0x40, 0, 4, 0, 0, 0, 0, 0]]
        {
            let mut frames = Frames::default();
            frames.pass(other, &heard);
            assert_eq!((frames.place, frames.has_settings), (Place::Lost, false));
        }
    }

    #[test]
    fn what_it_says_last_holds_however_the_bytes_come() {
        let frames = [
            &FIRST[..],
            // An acknowledgement, DATA that looks like SETTINGS, and an empty frame.
            &[0, 0, 0, 4, 1, 0, 0, 0, 0],
            &[0, 0, 15, 0, 0, 0, 0, 0, 1, 0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9],
            &[0, 0, 0, 0, 1, 0, 0, 0, 1],
            &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1],
            // Another setting, and no word of that one.
            &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 7],
        ]
        .concat();
        for size in 1..=frames.len() {
            let (mut passing, heard) = (Frames::default(), Heard::default());
            frames.chunks(size).for_each(|bytes| passing.pass(bytes, &heard));
            assert_eq!((heard.streams_max(), passing.place), (1, Place::Head), "{size}");
        }
    }
}
