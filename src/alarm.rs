//! A timer that outlives what it is set for.
//!
//! Nearly everything that is waited for with a limit comes long before it. Putting a timer up and taking it down for each
//! would cost more than the rest of the wait; one that stays up, for a moment that may have passed in its importance, costs
//! a look when it goes off.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

/// At rest until it is polled.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when it is `deadline`, or later.
    pub(crate) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let due = deadline.into();
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        // An earlier moment than ours only wakes us to look again.
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// Takes the timer down.
    pub(crate) fn rest(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_when_it_is_time_whatever_it_was_set_for_before() {
        let mut alarm = Alarm::default();
        let began = tokio::time::Instant::now();
        for (set_ms, wanted_ms) in [(1000, 2000), (9000, 3000), (3500, 4000), (100, 4000)] {
            let at = |ms| (began + Duration::from_millis(ms)).into_std();
            poll_fn(|cx| Poll::Ready(alarm.poll(at(set_ms), cx))).await.is_ready();
            poll_fn(|cx| alarm.poll(at(wanted_ms), cx)).await;
            assert_eq!(began.elapsed(), Duration::from_millis(wanted_ms).max(began.elapsed()), "{set_ms} {wanted_ms}");
            assert!(began.elapsed() < Duration::from_millis(wanted_ms + 2), "{set_ms} {wanted_ms}");
        }
    }
}
