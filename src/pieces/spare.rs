//! Room to write messages in, which all connections of a thread share: a message is mostly sent as soon as it is written, so
//! one buffer does for all of them. It stays in the processor's cache, as one for each connection would not, and none of them
//! holds on to any.

use std::cell::Cell;

/// What most heads take, with what fits behind them. To grow up to that step by step costs more than to begin with it.
const BYTES_MIN: usize = 2 * 1024;
/// What is larger than this is not kept: a record of TLS and its framing.
const BYTES_MAX: usize = 17 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty buffer, to be given back once what is written to it has been sent.
pub(crate) fn take() -> Vec<u8> {
    let mut buffer = SPARE.take();
    if buffer.capacity() == 0 {
        buffer.reserve(BYTES_MIN);
    }
    buffer
}

/// Keeps `buffer` for the next one who needs some room. Of two the larger is kept.
pub(crate) fn give_back(mut buffer: Vec<u8>) {
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
    fn of_two_the_larger_is_kept_within_bounds() {
        give_back(Vec::with_capacity(BYTES_MAX));
        give_back(Vec::with_capacity(BYTES_MIN));
        give_back(Vec::with_capacity(BYTES_MAX + 1));
        assert_eq!(take().capacity(), BYTES_MAX);
    }
}
