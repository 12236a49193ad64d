//! What is on its way to a socket, in its order: the head of a message and what fits behind it as one text, then larger
//! pieces of its body as they are.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

use super::{COPIED_BYTES_MAX, Text, poll_write_pieces};

/// What is gathered before it is written: that much of a body is read ahead of whoever gets it.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
const GATHERED_PIECES_MAX: usize = 24;
/// What is small is copied behind a text up to this length.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// The framing of a chunk: a few bytes that are not worth an allocation.
const MARK_BYTES_MAX: usize = 18;

#[derive(Debug, Default)]
pub(crate) struct Queue {
    text: Text,
    pieces: VecDeque<Piece>,
    /// All of them together.
    pieces_bytes: usize,
}

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    Mark { bytes: [u8; MARK_BYTES_MAX], at: u8, end: u8 },
}

impl Queue {
    /// To write a head to. Whatever was pushed before has been written, but for another head.
    pub(crate) fn head(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.pieces.is_empty());
        self.text.room()
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        if self.has_copied(&data) || data.is_empty() {
            return;
        }
        self.pieces_bytes += data.len();
        self.pieces.push_back(Piece::Data(data));
    }

    /// One chunk of a body (RFC 9112, section 7.1). Nothing would be the last one.
    pub(crate) fn push_chunk(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.push_mark(&chunk_size(data.len()));
            self.push(data);
            self.push_mark(b"\r\n");
        }
    }

    /// The end of a body in chunks. `trailers` are whole lines.
    pub(crate) fn push_last_chunk(&mut self, trailers: Vec<u8>) {
        self.push_mark(b"0\r\n");
        self.push(trailers.into());
        self.push_mark(b"\r\n");
    }

    fn push_mark(&mut self, mark: &[u8]) {
        if self.has_copied(mark) {
            return;
        }
        let mut bytes = [0; MARK_BYTES_MAX];
        bytes[..mark.len()].copy_from_slice(mark);
        self.pieces_bytes += mark.len();
        self.pieces.push_back(Piece::Mark { bytes, at: 0, end: mark.len() as u8 });
    }

    /// Copies what is small behind the text, if that is the end of what is there.
    fn has_copied(&mut self, data: &[u8]) -> bool {
        let is_small = data.len() <= COPIED_BYTES_MAX && self.text.len() + data.len() <= TEXT_BYTES_MAX;
        let fits = self.pieces.is_empty() && is_small;
        if fits {
            self.text.room().extend_from_slice(data);
        }
        fits
    }

    /// Whether more may be gathered before it is written.
    pub(crate) fn has_room(&self) -> bool {
        self.len() < GATHERED_BYTES_MAX && self.pieces.len() < GATHERED_PIECES_MAX
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        self.text.rest().len() + self.pieces_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that is left.
    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        let rests = self.pieces.iter().map(Piece::rest);
        std::iter::once(self.text.rest()).chain(rests).map(String::from_utf8_lossy).collect()
    }

    /// Writes once; how much, which is something.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn poll_write(
        &mut self,
        socket: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let text = self.text.rest();
        let written = if self.pieces.is_empty() {
            ready!(socket.poll_write(cx, text))?
        } else {
            let rests = self.pieces.iter().map(Piece::rest);
            let rests = Some(text).filter(|text| !text.is_empty()).into_iter().chain(rests);
            let slices: SmallVec<[IoSlice<'_>; GATHERED_PIECES_MAX + 4]> = rests.map(IoSlice::new).collect();
            ready!(poll_write_pieces(socket, cx, &slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, written: usize) {
        let of_text = written.min(self.text.rest().len());
        self.text.advance(of_text);
        let mut left = written - of_text;
        self.pieces_bytes -= left;
        while let Some(piece) = self.pieces.front_mut() {
            let there = piece.rest().len();
            if left < there {
                return piece.advance(left);
            }
            left -= there;
            self.pieces.pop_front();
        }
    }

    /// Lets go of its room for pieces; it is empty.
    pub(crate) fn doze(&mut self) {
        *self = Self::default();
    }
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

/// The line before a chunk of so many bytes.
fn chunk_size(bytes: usize) -> SmallVec<[u8; MARK_BYTES_MAX]> {
    let digits = (usize::BITS - bytes.leading_zeros()).div_ceil(4).max(1);
    let digit = |place| b"0123456789abcdef"[bytes >> (4 * place) & 0xf];
    (0..digits).rev().map(digit).chain(*b"\r\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(byte: u8) -> Bytes {
        Bytes::from(vec![byte; COPIED_BYTES_MAX + 1])
    }

    #[test]
    fn what_is_written_goes_in_order_whatever_the_steps() {
        for step in (1..40).chain([4095, 4096, 4097, 9000]) {
            let mut queue = Queue::default();
            queue.head().extend_from_slice(b"head;");
            queue.push(Bytes::from_static(b"small;"));
            queue.push_chunk(large(b'x'));
            queue.push_chunk(Bytes::from_static(b"piece"));
            queue.push_chunk(Bytes::new());
            queue.push_last_chunk(b"a: b\r\n".to_vec());
            let whole =
                format!("head;small;1001\r\n{}\r\n5\r\npiece\r\n0\r\na: b\r\n\r\n", "x".repeat(COPIED_BYTES_MAX + 1));
            let mut seen = String::new();
            while !queue.is_empty() {
                let left = queue.text();
                assert_eq!(left.len(), queue.len());
                let written = step.min(left.len());
                seen.push_str(&left[..written]);
                queue.advance(written);
            }
            assert_eq!((seen, queue.text.len()), (whole, 0), "{step}");
        }
    }

    #[test]
    fn what_is_small_is_copied_and_what_is_large_is_not() {
        let mut queue = Queue::default();
        queue.push(Bytes::from_static(b"small"));
        assert!(queue.pieces.is_empty());
        queue.push(large(b'x'));
        queue.push(Bytes::from_static(b"small"));
        assert_eq!((queue.text.len(), queue.pieces.len()), (5, 2));
        queue.push(Bytes::new());
        assert_eq!(queue.pieces.len(), 2);
    }

    #[test]
    fn a_small_body_is_copied_behind_a_large_head_that_leaves_room() {
        for (head_bytes, is_copied) in [(5_000, true), (TEXT_BYTES_MAX - 5, true), (TEXT_BYTES_MAX - 4, false)] {
            let mut queue = Queue::default();
            queue.head().resize(head_bytes, b'x');
            queue.push(Bytes::from_static(b"small"));
            assert_eq!(queue.pieces.is_empty(), is_copied, "{head_bytes}");
        }
    }

    #[test]
    fn there_is_room_up_to_a_bound() {
        let mut queue = Queue::default();
        queue.push(Bytes::from(vec![0; GATHERED_BYTES_MAX - 1]));
        assert!(queue.has_room());
        queue.push(Bytes::from_static(b"x"));
        assert!(!queue.has_room());
        let mut queue = Queue::default();
        for _ in 0..GATHERED_PIECES_MAX {
            assert!(queue.has_room());
            queue.push_mark(b"x");
            queue.text.room().resize(COPIED_BYTES_MAX, 0);
        }
        assert!(queue.len() < GATHERED_BYTES_MAX);
    }

    #[test]
    fn what_has_been_written_leaves_no_room_behind() {
        let mut queue = Queue::default();
        queue.head().extend_from_slice(b"head");
        queue.advance(3);
        assert_eq!(queue.text(), "d");
        queue.advance(1);
        assert_eq!((queue.len(), queue.text.len()), (0, 0));
    }

    #[test]
    fn sizes_are_written_in_hexadecimal() {
        for number in [0, 9, 10, 15, 16, 255, 4096, 163_840, usize::MAX] {
            assert_eq!(&*chunk_size(number), format!("{number:x}\r\n").as_bytes());
        }
    }
}
