//! A timer that outlives what it is set for.
//!
//! Nearly everything that is waited for with a limit comes long before it. Putting a timer up and taking it down for
//! each would cost more than the rest of the wait; one that stays up, for a moment that may have passed in its
//! importance, costs a look when it goes off. Nor is it told anew whom to wake as long as that is the same task.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::{Sleep, sleep_until};

/// At rest until it is polled.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Timer>>>);

pin_project! {
    #[derive(Debug)]
    struct Timer {
        #[pin]
        sleep: Sleep,
        // Whom it wakes when it goes off.
        wakes: Option<Waker>,
    }
}

impl Alarm {
    /// Ready when it is `deadline`, or later.
    #[inline]
    pub(crate) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let due = deadline.into();
        if let Some(timer) = self.0.as_mut().filter(|timer| timer.sleep.deadline() > due) {
            timer.as_mut().reset(due);
        }
        self.poll_put_off(|| deadline, cx)
    }

    /// The same for one deadline that is only ever put off: it is asked for no more often than the timer goes off.
    #[inline]
    pub(crate) fn poll_put_off(&mut self, deadline: impl Fn() -> Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.as_ref().is_some_and(|timer| timer.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.set(&deadline, cx)
    }

    fn set(&mut self, deadline: &dyn Fn() -> Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer =
            self.0.get_or_insert_with(|| Box::pin(Timer { sleep: sleep_until(deadline().into()), wakes: None }));
        while timer.as_mut().poll(cx).is_ready() {
            // An earlier moment than ours only wakes us to look again.
            let due = deadline().into();
            if timer.sleep.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// Takes the timer down.
    pub(crate) fn rest(&mut self) {
        self.0 = None;
    }
}

impl Timer {
    /// Nothing has to be done for it to.
    #[inline]
    fn will_wake(&self, waker: &Waker) -> bool {
        self.wakes.as_ref().is_some_and(|wakes| wakes.will_wake(waker)) && !self.sleep.is_elapsed()
    }

    fn reset(self: Pin<&mut Self>, deadline: tokio::time::Instant) {
        let timer = self.project();
        timer.sleep.reset(deadline);
        *timer.wakes = None;
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.project();
        if !coop::has_budget_remaining() {
            // Then it only has the task polled again, and a task that has used up its turn each time would never hear.
            *timer.wakes = None;
            if timer.sleep.deadline() <= tokio::time::Instant::now() {
                return Poll::Ready(());
            }
            return timer.sleep.poll(cx);
        }
        let ready = timer.sleep.poll(cx);
        *timer.wakes = ready.is_pending().then(|| cx.waker().clone());
        ready
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;
    use std::task::Wake;
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    /// Another task than the test's.
    #[derive(Default)]
    struct Other {
        is_woken: AtomicBool,
    }

    impl Wake for Other {
        fn wake(self: Arc<Self>) {
            self.is_woken.store(true, Relaxed);
        }
    }

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

    #[tokio::test(start_paused = true)]
    async fn put_off_whenever_something_moves_it_counts_from_what_moved_last() {
        let (mut alarm, began) = (Alarm::default(), tokio::time::Instant::now());
        let in_ten = || (tokio::time::Instant::now() + Duration::from_secs(10)).into_std();
        let mut deadline = in_ten();
        for pause_s in [6, 9] {
            tokio::select! {
                () = poll_fn(|cx| alarm.poll_put_off(|| deadline, cx)) => panic!("something has just moved"),
                () = sleep(Duration::from_secs(pause_s)) => deadline = in_ten(),
            }
        }
        poll_fn(|cx| alarm.poll_put_off(|| deadline, cx)).await;
        assert_eq!(began.elapsed().as_secs(), 6 + 9 + 10);
    }

    #[tokio::test(start_paused = true)]
    async fn it_wakes_the_task_that_asked_last() {
        let deadline = (tokio::time::Instant::now() + Duration::from_secs(1)).into_std();
        let mut alarm = Alarm::default();
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(deadline, cx))).await.is_pending());
        let other = Arc::new(Other::default());
        let waker = Waker::from(Arc::clone(&other));
        let mut poll = || alarm.poll(deadline, &mut Context::from_waker(&waker));
        assert!(poll().is_pending() && poll().is_pending());
        sleep(Duration::from_secs(2)).await;
        assert!(other.is_woken.load(Relaxed) && poll().is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_also_when_it_was_set_by_a_task_that_had_used_up_its_turn() {
        let deadline = (tokio::time::Instant::now() + Duration::from_secs(1)).into_std();
        let mut alarm = Alarm::default();
        let mut has_waited = false;
        poll_fn(|cx| {
            while !has_waited && coop::has_budget_remaining() {
                let _ = pin!(coop::consume_budget()).poll(cx);
            }
            has_waited = true;
            alarm.poll(deadline, cx)
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_for_a_task_that_uses_up_every_turn() {
        let mut alarm = Alarm::default();
        let deadline = (tokio::time::Instant::now() + Duration::from_secs(1)).into_std();
        let mut poll = async || {
            poll_fn(|cx| {
                while coop::has_budget_remaining() {
                    let _ = pin!(coop::consume_budget()).poll(cx);
                }
                Poll::Ready(alarm.poll(deadline, cx))
            })
            .await
        };
        assert!(poll().await.is_pending());
        sleep(Duration::from_secs(2)).await;
        assert!(poll().await.is_ready());
    }
}
