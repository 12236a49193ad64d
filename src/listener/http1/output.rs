//! What is on its way to a client: the head of an answer, and pieces of its body.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

use crate::listener::connection::Connection;
use crate::listener::stream::Stream;
use crate::pieces::poll_write_pieces;

/// What is gathered before it is written, in bytes and in pieces.
const GATHERED_BYTES: usize = 64 * 1024;
const GATHERED_PIECES: usize = 24;
/// A head that was larger leaves no room behind.
const HEAD_BYTES_KEPT: usize = 8 * 1024;

/// Framing of a chunk: a few bytes that are not worth an allocation.
const MARK_BYTES: usize = 22;

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    Mark { bytes: [u8; MARK_BYTES], at: u8, end: u8 },
}

impl Piece {
    fn rest(&self) -> &[u8] {
        match self {
            Self::Data(bytes) => bytes,
            Self::Mark { bytes, at, end } => &bytes[usize::from(*at)..usize::from(*end)],
        }
    }

    /// Lets go of `written` bytes that are there.
    fn advance(&mut self, written: usize) {
        match self {
            Self::Data(bytes) => bytes.advance(written),
            Self::Mark { at, .. } => *at += written as u8,
        }
    }
}

/// Bytes to be written, in their order.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Comes before all pieces: a head is begun only when nothing of the last answer is left.
    head: Vec<u8>,
    head_written: usize,
    pieces: VecDeque<Piece>,
    /// In `pieces`.
    bytes: usize,
}

impl Output {
    /// To write a head to, behind what is there.
    pub(super) fn head(&mut self) -> &mut Vec<u8> {
        &mut self.head
    }

    pub(super) fn push(&mut self, data: Bytes) {
        self.bytes += data.len();
        self.pieces.push_back(Piece::Data(data));
    }

    /// `marks` is short, and all of it is copied.
    pub(super) fn push_mark(&mut self, marks: &[&[u8]]) {
        let (mut bytes, mut end) = ([0; MARK_BYTES], 0);
        for mark in marks {
            bytes[end..end + mark.len()].copy_from_slice(mark);
            end += mark.len();
        }
        self.bytes += end;
        self.pieces.push_back(Piece::Mark { bytes, at: 0, end: end as u8 });
    }

    /// Whether more may be gathered before it is written.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < GATHERED_BYTES && self.pieces.len() < GATHERED_PIECES
    }

    /// Everything that is left.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        let rests = self.pieces.iter().map(Piece::rest);
        let left = std::iter::once(&self.head[self.head_written..]).chain(rests);
        left.map(String::from_utf8_lossy).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.pieces.is_empty()
    }

    /// Writes everything, and notes how that went.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn poll_flush(
        &mut self,
        stream: &mut Stream,
        connection: &Connection,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); GATHERED_PIECES + 4];
            let rests = self.pieces.iter().map(Piece::rest);
            let mut count = 0;
            for rest in std::iter::once(&self.head[self.head_written..]).chain(rests).filter(|rest| !rest.is_empty()) {
                if count < slices.len() {
                    slices[count] = IoSlice::new(rest);
                    count += 1;
                }
            }
            let slices = &slices[..count];
            let result = poll_write_pieces(Pin::new(stream), cx, slices);
            connection.wrote(slices.iter().map(|slice| slice.len()).sum(), &result);
            match ready!(result)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.advance(written),
            }
        }
        Pin::new(stream).poll_flush(cx)
    }

    fn advance(&mut self, mut written: usize) {
        let of_head = written.min(self.head.len() - self.head_written);
        self.head_written += of_head;
        written -= of_head;
        if self.head_written == self.head.len() {
            self.head.clear();
            self.head.shrink_to(HEAD_BYTES_KEPT);
            self.head_written = 0;
        }
        self.bytes -= written;
        while let Some(piece) = self.pieces.front_mut() {
            let there = piece.rest().len();
            if written < there {
                return piece.advance(written);
            }
            written -= there;
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_goes_in_order_whatever_the_steps() {
        for step in 1..40 {
            let mut output = Output::default();
            output.head().extend_from_slice(b"head;");
            output.push_mark(&[b"5", b"\r\n"]);
            output.push(Bytes::from_static(b"piece"));
            output.push_mark(&[b"\r\n"]);
            let (mut seen, whole) = (Vec::new(), b"head;5\r\npiece\r\n");
            while !output.is_empty() {
                let left = output.text();
                let written = step.min(left.len());
                seen.extend_from_slice(&left.as_bytes()[..written]);
                output.advance(written);
            }
            assert_eq!((seen.as_slice(), output.bytes), (whole.as_slice(), 0), "{step}");
        }
    }

    #[test]
    fn there_is_room_up_to_a_bound() {
        let mut output = Output::default();
        output.push(Bytes::from(vec![0; GATHERED_BYTES - 1]));
        assert!(output.has_room());
        output.push(Bytes::from_static(b"x"));
        assert!(!output.has_room());
    }
}
