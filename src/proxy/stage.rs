//! The way of a request in stages, so that requests that came together go it together.
//!
//! The code that a request passes through is several times what the processor's cache of instructions holds (32 KiB).
//! Where sixteen streams of HTTP/2 have come at once, each would load all of it anew. So each stops at the end of a
//! stage until the others have come as far, and a stage is loaded once for all of them: with packets this is known as
//! vector processing (<https://fd.io/docs/vpp/latest/aboutvpp/scalar-vs-vector-packet-processing>).
//!
//! Requests of HTTP/1 come one at a time on a connection, and between two connections lies a turn of the event loop's
//! queue.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Version;

/// The end of a stage, for a request of this version.
pub(super) fn end(version: Version) -> StageEnd {
    StageEnd { is_due: version == Version::HTTP_2 }
}

/// Not ready the first time, but at once again.
#[derive(Debug)]
pub(super) struct StageEnd {
    is_due: bool,
}

impl Future for StageEnd {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if mem::take(&mut self.is_due) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }

    #[test]
    fn a_stream_lets_others_go_first_once() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut end = pin!(end(Version::HTTP_2));
        assert!(end.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(woken.0.load(Relaxed));
        assert!(end.poll(&mut Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn a_request_of_http1_goes_on() {
        assert!(pin!(end(Version::HTTP_11)).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
