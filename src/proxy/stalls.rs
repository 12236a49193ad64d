//! Ends HTTP/2 streams whose client does not take its answer.
//!
//! A client that opens no window leaves nothing to be polled but the window: the answer's body is not asked for more, so
//! no timer in it runs. This one runs beside the stream's task. A body says when it has handed over bytes and when it is
//! asked for more; in between the client is to blame.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// What a body and the task of its stream know of each other. Both live on one worker's thread.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Odd while what was handed over has not been taken.
    beats: AtomicU64,
}

impl Pulse {
    /// Bytes were handed over.
    pub(crate) fn gave(&self) {
        self.beats.store(self.beats.load(Relaxed) | 1, Relaxed);
    }

    /// More is asked for.
    pub(crate) fn is_asked(&self) {
        self.beats.store((self.beats.load(Relaxed) | 1) + 1, Relaxed);
    }
}

/// Runs a stream's task to its end, or until its client has taken nothing for `patience`: then the stream is reset.
pub(crate) async fn unless_stalled(task: impl Future<Output = ()>, pulse: Arc<Pulse>, patience: Duration) {
    let mut task = pin!(task);
    let mut watch = Watch { pulse, patience, seen: 0, sleep: None };
    std::future::poll_fn(|cx| if task.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { watch.poll(cx) }).await;
}

struct Watch {
    pulse: Arc<Pulse>,
    patience: Duration,
    seen: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let beats = self.pulse.beats.load(Relaxed);
        if beats & 1 == 0 {
            self.seen = beats;
            return Poll::Pending;
        }
        let deadline = || Instant::now() + self.patience;
        let sleep = match &mut self.sleep {
            None => self.sleep.insert(Box::pin(tokio::time::sleep_until(deadline()))),
            Some(sleep) => {
                if self.seen != beats {
                    sleep.as_mut().reset(deadline());
                }
                sleep
            }
        };
        self.seen = beats;
        let stalled = sleep.as_mut().poll(cx);
        if stalled.is_ready() {
            tracing::debug!("a client took nothing of its answer for too long");
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up() {
        let pulse = Arc::new(Pulse::default());
        pulse.gave();
        let began = Instant::now();
        unless_stalled(std::future::pending(), Arc::clone(&pulse), Duration::from_secs(60)).await;
        assert_eq!(began.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_something_now_and_then_is_not() {
        let pulse = Arc::new(Pulse::default());
        let body = Arc::clone(&pulse);
        let task = async move {
            for _ in 0..10 {
                body.is_asked();
                body.gave();
                tokio::time::sleep(Duration::from_secs(50)).await;
            }
            body.is_asked();
            // For the app we may have to wait longer.
            tokio::time::sleep(Duration::from_secs(500)).await;
        };
        let began = Instant::now();
        unless_stalled(task, pulse, Duration::from_secs(60)).await;
        assert_eq!(began.elapsed().as_secs(), 1_000);
    }
}
