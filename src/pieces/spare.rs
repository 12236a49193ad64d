//! Room to write messages in, which all connections of a thread share: a message is mostly sent as soon as it is
//! written, so one buffer does for all of them. It stays in the processor's cache, as one for each connection would
//! not, and none of them holds on to any.

use std::cell::Cell;
use std::mem;

/// What most heads take, with what fits behind them. To grow up to that step by step costs more than to begin with it.
const BYTES_MIN: usize = 2 * 1024;
/// What is larger than this is not kept: a record of TLS and its framing.
const BYTES_MAX: usize = 17 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A text on its way to a socket. It has the thread's buffer for as long as something is in it.
#[derive(Debug, Default)]
pub(crate) struct Text {
    bytes: Vec<u8>,
    /// So much of it has been written to the socket.
    written: usize,
}

impl Text {
    /// To append to; what has been written of it is still there.
    pub(crate) fn room(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = take();
        }
        &mut self.bytes
    }

    /// What is left.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// All of it, with what has been written.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// So much more has been written; once that is all, the buffer is given back.
    pub(crate) fn advance(&mut self, written: usize) {
        self.written += written;
        if self.written == self.bytes.len() {
            give_back(mem::take(self).bytes);
        }
    }
}

/// An empty buffer, to be given back once what is written to it has been sent.
fn take() -> Vec<u8> {
    let mut buffer = SPARE.take();
    if buffer.capacity() == 0 {
        buffer.reserve(BYTES_MIN);
    }
    buffer
}

/// Keeps `buffer` for the next one who needs some room. Of two the larger is kept.
fn give_back(mut buffer: Vec<u8>) {
    let kept = SPARE.take();
    if buffer.capacity() > BYTES_MAX || kept.capacity() > buffer.capacity() {
        SPARE.set(kept);
    } else {
        buffer.clear();
        SPARE.set(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_used_again() {
        let mut buffer = take();
        assert!(buffer.is_empty() && buffer.capacity() >= BYTES_MIN);
        buffer.extend_from_slice(b"a message");
        let place = buffer.as_ptr();
        give_back(buffer);
        let again = take();
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), place);
        let other = take();
        assert_ne!(other.as_ptr(), place, "it is lent to one at a time");
    }

    #[test]
    fn a_text_holds_a_buffer_until_it_is_written() {
        let mut text = Text::default();
        text.room().extend_from_slice(b"text");
        text.advance(3);
        assert_eq!((text.rest(), text.len()), (&b"t"[..], 4));
        text.advance(1);
        assert_eq!((text.len(), text.bytes.capacity()), (0, 0));
    }

    #[test]
    fn of_two_the_larger_is_kept_within_bounds() {
        give_back(Vec::with_capacity(BYTES_MAX));
        give_back(Vec::with_capacity(BYTES_MIN));
        give_back(Vec::with_capacity(BYTES_MAX + 1));
        assert_eq!(take().capacity(), BYTES_MAX);
    }
}
