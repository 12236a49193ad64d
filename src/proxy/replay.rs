//! A request body that can be sent twice: what has flowed is kept, up to a bound, while the first try streams it.
//!
//! Beyond the bound, or where it comes in crumbs, everything kept is let go and the body flows on: it can then be sent
//! once only. A further try begins with what is kept and goes on with what still comes; the try before it gets an error
//! if it still reads, so two never share what the client sends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use super::body::{BodyError, RequestBody};

/// Each piece costs a place of this order beside its bytes, and holds on to what was read with it: a body in smaller ones
/// on average would cost many times its bound.
const PIECE_BYTES: usize = 64;
/// So few are kept of any size.
const PIECES_MIN: usize = 16;

/// The client's side of a body that is kept.
#[derive(Debug)]
pub(crate) struct Replay(Arc<Mutex<Source>>);

#[derive(Debug)]
struct Source {
    body: RequestBody,
    kept: VecDeque<Bytes>,
    kept_bytes: usize,
    bytes_max: usize,
    /// More flowed than may be kept.
    is_over: bool,
    /// The body, or its end, has failed: it never comes again.
    has_failed: bool,
    /// The try that may read.
    current: u32,
}

/// One try's view of the body.
#[derive(Debug)]
pub(crate) struct Tap {
    source: Arc<Mutex<Source>>,
    number: u32,
    /// Pieces of `kept` it has had.
    had: usize,
}

impl Replay {
    /// Keeps up to `bytes_max` of `body`.
    pub(super) fn new(body: RequestBody, bytes_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Source {
            body,
            kept: VecDeque::new(),
            kept_bytes: 0,
            bytes_max,
            is_over: false,
            has_failed: false,
            current: 0,
        })))
    }

    /// The body for the first try.
    pub(super) fn first(&self) -> RequestBody {
        RequestBody::Kept(Tap { source: Arc::clone(&self.0), number: 0, had: 0 })
    }

    /// Whether the body can be had again, as things stand.
    pub(super) fn is_at_hand(&self) -> bool {
        self.0.lock().is_at_hand()
    }

    /// The body for a further try, from its beginning; `None` when it cannot be had again.
    pub(super) fn again(&self) -> Option<RequestBody> {
        let mut source = self.0.lock();
        if !source.is_at_hand() {
            return None;
        }
        source.current += 1;
        source.body.moves_again();
        Some(RequestBody::Kept(Tap { source: Arc::clone(&self.0), number: source.current, had: 0 }))
    }
}

impl Tap {
    pub(super) fn poll_frame(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut source = self.source.lock();
        if source.current != self.number {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(piece) = source.kept.get(self.had) {
            let piece = piece.clone();
            self.had += 1;
            source.body.moves_again();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let frame = Pin::new(&mut source.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(data) => {
                    source.keep(data);
                    self.had = source.kept.len();
                }
                // Trailers are not kept: a body with trailers goes out once.
                None => source.let_go(),
            },
            Poll::Ready(Some(Err(_))) => source.has_failed = true,
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let source = self.source.lock();
        self.had >= source.kept.len() && source.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let source = self.source.lock();
        let kept: u64 = source.kept.iter().skip(self.had).map(|piece| piece.len() as u64).sum();
        let rest = source.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + kept);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept);
        }
        hint
    }
}

impl Source {
    fn is_at_hand(&self) -> bool {
        !self.is_over && !self.has_failed
    }

    fn keep(&mut self, data: &Bytes) {
        if self.is_over {
            return;
        }
        self.kept_bytes += data.len();
        let pieces_max = PIECES_MIN + self.bytes_max / PIECE_BYTES;
        if self.kept_bytes > self.bytes_max || self.kept.len() >= pieces_max {
            return self.let_go();
        }
        self.kept.push_back(data.clone());
    }

    fn let_go(&mut self) {
        self.is_over = true;
        self.kept = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a body of so many pieces can be had again, and how many of them are kept.
    fn kept(bytes_max: usize, pieces: usize, bytes_each: usize) -> (bool, usize) {
        let replay = Replay::new(RequestBody::Empty, bytes_max);
        (0..pieces).for_each(|_| replay.0.lock().keep(&Bytes::from(vec![0; bytes_each])));
        (replay.is_at_hand(), replay.0.lock().kept.len())
    }

    #[test]
    fn a_body_is_kept_up_to_its_bound() {
        assert_eq!(kept(1000, 10, 100), (true, 10));
        assert_eq!(kept(1000, 11, 100), (false, 0));
        assert_eq!(kept(0, 0, 0), (true, 0));
        assert_eq!(kept(0, 1, 1), (false, 0));
    }

    #[test]
    fn a_body_in_crumbs_does_not_cost_many_times_its_bound() {
        assert_eq!(kept(64 * 1024, 1024, 64), (true, 1024));
        assert_eq!(kept(64 * 1024, 1040, 1), (true, 1040));
        assert_eq!(kept(64 * 1024, 1041, 1), (false, 0));
        assert_eq!(kept(10, 10, 1), (true, 10));
    }
}
