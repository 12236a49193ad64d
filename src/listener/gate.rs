//! The gate between a downstream socket and hyper.
//!
//! Every byte that hyper reads passes here first. The gate follows the framing of HTTP/1 just far enough
//! to know where heads begin, judges each head ([`super::head`]) and lets hyper see only those that have
//! exactly one reading. A head is passed on whole: hyper never forms an opinion of its own about half of one. What the
//! gate refuses, hyper never sees: to hyper the stream ends at a message boundary,
//! earlier pipelined requests are answered, and then [`super::serve`] writes the refusal itself.
//!
//! Bytes behind a request for an upgrade are held until it is answered: only a 101 makes them something
//! other than HTTP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Connection, RefusedHead, Returned};
use super::head::{self, BadHead, BodyFraming, HeadBounds};
use super::stream::Stream;
use crate::message::chunked::ChunkFollower;
use crate::pieces::poll_write_pieces;

/// Bytes held behind a request for an upgrade; more stay in the socket.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// Empty lines before a request line, in bytes; more are not from an old client but from a hostile one.
const BLANK_BYTES_MAX: usize = 16;
/// As much of HTTP/2's preface as looks like a head.
const PREFACE_LINES: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// What is kept of the first line of a refused head, for the log.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Where in the stream of messages the next byte stands.
#[derive(Debug)]
enum Place {
    Head,
    Body {
        left: u64,
    },
    Chunked(ChunkFollower),
    /// Behind a request for an upgrade that has not been answered.
    Upgrade,
}

/// Reads and writes a [`Stream`] on hyper's behalf.
#[derive(Debug)]
pub(crate) struct Gate {
    /// `None` only while being dropped.
    stream: Option<Stream>,
    connection: Arc<Connection>,
    bounds: HeadBounds,
    /// HTTP/2's preface may come in place of the first request.
    may_switch: bool,
    place: Place,
    /// Empty lines since the last message, in bytes.
    blank_bytes: usize,
    /// The beginning of a head whose end has not come.
    partial: Vec<u8>,
    /// Judged and on its way to hyper: a head that came in pieces, and what was read behind it.
    passed: Vec<u8>,
    /// Read, but not yet passed on.
    held: Vec<u8>,
}

impl Gate {
    /// `held` is what was read before.
    pub(crate) fn new(
        (stream, held): (Stream, Vec<u8>),
        connection: Arc<Connection>,
        bounds: HeadBounds,
        may_switch: bool,
    ) -> Self {
        connection.set_holding(!held.is_empty());
        Self {
            stream: Some(stream),
            connection,
            bounds,
            may_switch,
            place: Place::Head,
            blank_bytes: 0,
            partial: Vec::new(),
            passed: Vec::new(),
            held,
        }
    }

    fn stream(&mut self) -> Pin<&mut Stream> {
        Pin::new(self.stream.as_mut().expect("only drop takes the stream"))
    }

    fn is_mid_body(&self) -> bool {
        matches!(self.place, Place::Body { .. } | Place::Chunked(_))
    }

    /// Follows the framing through `fresh` and says how many of its bytes hyper may see now, behind whatever is in
    /// `passed`.
    fn pass(&mut self, fresh: &[u8]) -> usize {
        let mut at = 0;
        if self.may_switch && self.is_preface(fresh) {
            self.held = std::mem::take(&mut self.partial);
            self.held.extend_from_slice(fresh);
            self.connection.switch_to_http2();
            return 0;
        }
        while at < fresh.len() {
            match &mut self.place {
                Place::Head => match self.pass_head(&fresh[at..]) {
                    Ok(Some(taken)) => {
                        self.may_switch = false;
                        at += taken;
                    }
                    Ok(None) => break,
                    Err(why) => {
                        let head = if self.partial.is_empty() { &fresh[at..] } else { &self.partial };
                        self.connection.refuse(RefusedHead { why, line: first_line(head) });
                        break;
                    }
                },
                Place::Body { left } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(fresh.len() - at);
                    at += taken;
                    *left -= taken as u64;
                    if *left == 0 {
                        self.place = Place::Head;
                    }
                }
                Place::Chunked(follower) => match follower.advance(&fresh[at..]) {
                    Ok(taken) => {
                        at += taken;
                        if follower.is_done() {
                            self.place = Place::Head;
                        }
                    }
                    Err(_) => {
                        self.connection.refuse_body();
                        break;
                    }
                },
                Place::Upgrade => {
                    self.held.extend_from_slice(&fresh[at..]);
                    break;
                }
            }
        }
        self.connection.set_partial_head(!self.partial.is_empty());
        self.connection.set_mid_body(self.is_mid_body());
        at
    }

    /// Whether what there is of the first head is HTTP/2's (RFC 9113, section 3.4), as far as its first line: what is
    /// wrong with the rest is for HTTP/2 to say.
    fn is_preface(&self, fresh: &[u8]) -> bool {
        let known = self.partial.len().min(PREFACE_LINES.len());
        let rest = &PREFACE_LINES[known..];
        self.blank_bytes == 0
            && self.partial.len() + fresh.len() >= PREFACE_LINES.len()
            && self.partial[..] == PREFACE_LINES[..known]
            && fresh.starts_with(rest)
    }

    /// Passes one head and says how many bytes of `fresh` belong to it; `None` keeps what there is of it until more
    /// comes.
    fn pass_head(&mut self, fresh: &[u8]) -> Result<Option<usize>, BadHead> {
        if self.partial.is_empty() {
            let blank = leading_blank(fresh);
            if blank > 0 {
                return self.count_blank(blank).map(|()| Some(blank));
            }
            if let Some(end) = head::find_end(fresh, 0)? {
                self.place = Self::place_behind(head::judge(&fresh[..end], &self.bounds)?);
                self.head_passed();
                return Ok(Some(end));
            }
            self.partial.extend_from_slice(fresh);
            return self.check_partial().map(|()| None);
        }
        let before = self.partial.len();
        self.partial.extend_from_slice(fresh);
        let blank = leading_blank(&self.partial);
        self.count_blank(blank)?;
        self.partial.drain(..blank);
        let scanned = before.saturating_sub(blank);
        let Some(end) = head::find_end(&self.partial, scanned)? else {
            return self.check_partial().map(|()| None);
        };
        self.place = Self::place_behind(head::judge(&self.partial[..end], &self.bounds)?);
        self.passed.extend_from_slice(&self.partial[..scanned]);
        self.partial.clear();
        self.head_passed();
        Ok(Some(end + blank - before))
    }

    fn head_passed(&mut self) {
        self.blank_bytes = 0;
        self.connection.head_passed();
    }

    fn count_blank(&mut self, bytes: usize) -> Result<(), BadHead> {
        self.blank_bytes += bytes;
        if self.blank_bytes > BLANK_BYTES_MAX {
            return Err(BadHead::Malformed("too many empty lines"));
        }
        Ok(())
    }

    fn check_partial(&self) -> Result<(), BadHead> {
        let first_line_complete =
            memchr::memchr(b'\n', &self.partial[..self.partial.len().min(self.bounds.uri_bytes_max + 64)]);
        if self.partial.len() > self.bounds.head_bytes_max
            || (first_line_complete.is_none() && self.partial.len() > self.bounds.uri_bytes_max + 64)
        {
            return Err(head::too_large(&self.partial, &self.bounds));
        }
        Ok(())
    }

    fn place_behind(framing: BodyFraming) -> Place {
        match framing {
            BodyFraming::None => Place::Head,
            BodyFraming::Length(left) => Place::Body { left },
            BodyFraming::Chunked => Place::Chunked(ChunkFollower::new()),
            BodyFraming::Upgrade => Place::Upgrade,
        }
    }

    /// Passes on what was held, now that the request before it has been answered.
    fn release_held(&mut self, buf: &mut ReadBuf<'_>) {
        let held = std::mem::take(&mut self.held);
        let offered = held.len().min(buf.remaining());
        let taken = self.pass(&held[..offered]);
        if self.passed.is_empty() {
            buf.put_slice(&held[..taken]);
        } else {
            self.passed.extend_from_slice(&held[..taken]);
        }
        // What `pass` held again comes before what did not fit.
        self.held.extend_from_slice(&held[offered..]);
        self.connection.set_holding(!self.held.is_empty());
    }

    /// Hands over as much of `passed` as fits.
    fn release_passed(&mut self, buf: &mut ReadBuf<'_>) {
        let fits = self.passed.len().min(buf.remaining());
        buf.put_slice(&self.passed[..fits]);
        self.passed.drain(..fits);
        if self.passed.is_empty() {
            // Heads that come in pieces are rare: no connection keeps memory for the next one.
            self.passed = Vec::new();
        }
    }
}

/// The first line of a head without its end, or as much of it as is worth keeping.
fn first_line(head: &[u8]) -> Box<[u8]> {
    let end = memchr::memchr2(b'\r', b'\n', head).unwrap_or(head.len());
    head[..end.min(LINE_BYTES_MAX)].into()
}

/// Empty lines before a request line are to be ignored (RFC 9112, section 2.2).
fn leading_blank(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2
}

impl AsyncRead for Gate {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.passed.is_empty() {
                this.release_passed(buf);
                return Poll::Ready(Ok(()));
            }
            if this.connection.is_refused() {
                return this.end_of_stream();
            }
            if matches!(this.place, Place::Upgrade) && this.connection.is_answered() {
                this.place = Place::Head;
            }
            let is_waiting = matches!(this.place, Place::Upgrade);
            if !this.held.is_empty() && !is_waiting {
                this.release_held(buf);
                if buf.filled().is_empty() {
                    continue;
                }
                return Poll::Ready(Ok(()));
            }
            if this.held.len() >= HELD_BYTES_MAX {
                return Poll::Pending;
            }
            let before = buf.filled().len();
            ready!(this.stream().poll_read(cx, buf))?;
            let fresh = &buf.filled()[before..];
            if fresh.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let taken = this.pass(fresh);
            this.connection.set_holding(!this.held.is_empty());
            if !this.passed.is_empty() {
                this.passed.extend_from_slice(&buf.filled()[before..before + taken]);
                buf.set_filled(before);
                continue;
            }
            buf.set_filled(before + taken);
            if taken > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Gate {
    /// The stream is over for hyper once what came before the refusal has been answered and written.
    /// `serve` wakes the connection when that is so.
    fn end_of_stream(&self) -> Poll<io::Result<()>> {
        if self.is_mid_body() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if self.connection.is_answered() && !self.connection.is_write_blocked() {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for Gate {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = this.stream().poll_write(cx, bytes);
        this.connection.wrote(bytes.len(), &result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = poll_write_pieces(this.stream(), cx, slices);
        this.connection.wrote(slices.iter().map(|slice| slice.len()).sum(), &result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream().poll_flush(cx)
    }

    /// Only flushes: `serve` says goodbye when it has the stream back, and may have more to say before.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Drop for Gate {
    /// hyper lets go of the gate in its own time; the stream goes back to `serve`.
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            let is_mid_body = self.is_mid_body();
            let held = std::mem::take(&mut self.held);
            let partial_line = first_line(&self.partial);
            self.connection.give_back(Returned { stream, held, partial_line, is_mid_body });
        }
    }
}
