//! Buffers to read answers into, which all connections of a thread share: a connection has one only while some of an
//! answer is in it. So what most answers are read into stays in the processor's cache, as a buffer for each connection
//! would not.
//!
//! What has been read is handed on without a copy, and keeps its buffer from being used again until it has been sent.
//! So they are used in turn, the one first that was given back first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use bytes::BytesMut;

/// What most answers fit into.
pub(super) const BYTES: usize = 8 * 1024;
/// Of one thread: more are needed only where the answers of so many streams of HTTP/2 wait to be sent together.
const KEPT_MAX: usize = 32;

thread_local! {
    /// The next one, where it was taken in vain.
    static NEXT: Cell<Option<BytesMut>> = const { Cell::new(None) };
    /// In the order in which they were given back.
    static KEPT: RefCell<VecDeque<BytesMut>> = const { RefCell::new(VecDeque::new()) };
}

/// An empty buffer of [`BYTES`].
pub(super) fn take() -> BytesMut {
    NEXT.take().or_else(reclaim).unwrap_or_else(|| BytesMut::with_capacity(BYTES))
}

fn reclaim() -> Option<BytesMut> {
    KEPT.with_borrow_mut(|kept| {
        let mut buffer = kept.pop_front()?;
        if buffer.try_reclaim(BYTES) {
            // One that has grown meanwhile is not worth keeping.
            return Some(buffer).filter(|buffer| buffer.capacity() == BYTES);
        }
        // Some of what was in it has not been sent yet.
        kept.push_back(buffer);
        None
    })
}

/// Takes one back that nothing is in. What was in it may be on its way still.
pub(super) fn give_back(buffer: BytesMut) {
    debug_assert!(buffer.is_empty());
    match buffer.capacity() {
        // Nothing has been read into it.
        BYTES => NEXT.set(Some(buffer)),
        1..BYTES => KEPT.with_borrow_mut(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push_back(buffer);
            }
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_into(buffer: &mut BytesMut) -> bytes::Bytes {
        buffer.extend_from_slice(b"an answer");
        buffer.split().freeze()
    }

    #[test]
    fn what_is_given_back_is_used_again_from_its_beginning() {
        let mut buffer = take();
        let place = buffer.as_ptr();
        drop(read_into(&mut buffer));
        give_back(buffer);
        let again = take();
        assert_eq!((again.as_ptr(), again.capacity()), (place, BYTES));
    }

    #[test]
    fn what_is_still_to_be_sent_stays_as_it_is() {
        let mut buffer = take();
        let unsent = read_into(&mut buffer);
        give_back(buffer);
        let mut other = take();
        other.extend_from_slice(&[0; BYTES]);
        assert_eq!(unsent, "an answer");
        let place = unsent.as_ptr();
        drop(unsent);
        assert_eq!(take().as_ptr(), place, "it has had its turn, and has another");
    }

    #[test]
    fn they_are_used_in_turn_unless_taken_in_vain() {
        let (mut one, mut other) = (take(), take());
        let places = [one.as_ptr(), other.as_ptr()];
        drop((read_into(&mut one), read_into(&mut other)));
        give_back(one);
        give_back(other);
        give_back(take());
        assert_eq!([take().as_ptr(), take().as_ptr()], places);
    }

    #[test]
    fn one_that_has_grown_is_not_used_again() {
        let mut buffer = take();
        buffer.reserve(2 * BYTES);
        give_back(buffer);
        assert_eq!(take().capacity(), BYTES);
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut all: Vec<BytesMut> = (0..2 * KEPT_MAX).map(|_| take()).collect();
        all.iter_mut().for_each(|buffer| drop(read_into(buffer)));
        all.into_iter().for_each(give_back);
        KEPT.with_borrow(|kept| assert_eq!(kept.len(), KEPT_MAX));
    }
}
