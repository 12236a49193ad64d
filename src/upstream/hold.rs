//! Requests that wait because no endpoint can take them.
//!
//! They wait in the order they came, bounded in number and in the memory of their heads, and go on when an endpoint
//! returns or has room again, a few at a time, so that an app that has just started is not run over: [`WINDOW_MIN`] at
//! first, and one more for each that went well, as TCP begins to send (RFC 5681, section 3.1). So however slow the app
//! is, the queue comes to its end if the app can do the work at all. A request that leaves the queue in any way, its
//! client's departure included, does so in `Drop`, and hands its turn on.
//!
//! A reload that changes the upstream begins a queue, for its requests may find other endpoints than those that wait in
//! the one before. Places are the same in both where the address is: [`Queues`] lets all of them know of one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst, fence};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};

/// Requests that may wait at an upstream.
const WAITING_MAX: usize = 10_000;
/// Bytes of heads that may wait at an upstream.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Requests that have a turn at a time, when an endpoint has just returned.
const WINDOW_MIN: usize = 32;
/// How long a turn is kept at most. An app that takes longer to answer has taken the request well.
pub(crate) const TURN_MAX: Duration = Duration::from_secs(1);

/// The queue of one upstream, from one reload that changes it to the next.
#[derive(Debug)]
pub(crate) struct Hold {
    /// The length of the queue, to be read without the lock.
    waiting: AtomicUsize,
    inner: Mutex<Inner>,
    /// Told when an endpoint returns, or is known for the first time.
    news: Notify,
    queues: Arc<Queues>,
}

/// The queues of one upstream that requests may still wait in, over all reloads.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// Their length together, to be read without a lock.
    waiting: AtomicUsize,
    /// The oldest first.
    all: Mutex<Vec<Weak<Hold>>>,
}

#[derive(Debug)]
struct Inner {
    /// By ticket, so that who has to wait again keeps its place.
    queue: BTreeMap<u64, Waiter>,
    bytes: usize,
    next: u64,
    /// Turns that are out, and how many may be.
    released: usize,
    window: usize,
}

impl Default for Inner {
    fn default() -> Self {
        Self { queue: BTreeMap::new(), bytes: 0, next: 0, released: 0, window: WINDOW_MIN }
    }
}

#[derive(Debug)]
struct Waiter {
    call: oneshot::Sender<Turn>,
    bytes: usize,
}

/// A place in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// The right to try now. Dropped, it calls the next.
#[derive(Debug)]
pub(crate) struct Turn(Option<Arc<Hold>>);

/// Why the wait ended without a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GaveUp {
    /// Too many wait already.
    Full,
    Late,
}

impl Queues {
    /// Whether a request waits in any of them.
    pub(crate) fn is_anyone_waiting(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// In each, all may go on, one after another: an endpoint returned.
    pub(crate) fn release(&self) {
        self.each().iter().for_each(Hold::release);
    }

    /// In each, the next may go on: there is room for one. Whoever finds it taken goes on waiting.
    pub(crate) fn release_one(&self) {
        if self.is_anyone_waiting() {
            self.each().iter().for_each(Hold::release_one);
        }
    }

    fn each(&self) -> Vec<Arc<Hold>> {
        self.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn add(&self, hold: &Arc<Hold>) {
        let mut all = self.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(hold));
    }

    /// Every statement under this lock leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Hold>>> {
        self.all.lock()
    }
}

impl Hold {
    /// An empty queue; `previous` is the one of the same upstream before its settings changed.
    pub(crate) fn after(previous: Option<&Self>) -> Arc<Self> {
        let hold = Arc::new(Self {
            waiting: AtomicUsize::new(0),
            inner: Mutex::default(),
            news: Notify::new(),
            queues: previous.map(|previous| Arc::clone(&previous.queues)).unwrap_or_default(),
        });
        hold.queues.add(&hold);
        hold
    }

    pub(super) fn queues(&self) -> &Arc<Queues> {
        &self.queues
    }

    /// Whether a newcomer has to stand in line.
    pub(crate) fn is_anyone_waiting(&self) -> bool {
        self.waiting() > 0
    }

    /// Requests that wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Whether a request waits, or has its turn and may have to wait again.
    pub(crate) fn is_in_use(&self) -> bool {
        let inner = self.lock();
        !inner.queue.is_empty() || inner.released > 0
    }

    /// A place behind everybody who has one.
    pub(crate) fn ticket(&self) -> Ticket {
        let mut inner = self.lock();
        inner.next += 1;
        Ticket(inner.next)
    }

    /// Waits for a turn until `deadline`. `bytes` is the size of what waits. `has_room` is asked once, after getting in
    /// line: whether somebody can go on right away.
    ///
    /// # Errors
    /// The queue is full, or the time is over.
    ///
    /// # Cancel safety
    /// Leaves the queue; a turn that was given already goes to the next.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        ticket: Ticket,
        bytes: usize,
        deadline: Instant,
        has_room: impl FnOnce() -> bool,
    ) -> Result<Turn, GaveUp> {
        let (call, mut turn) = oneshot::channel();
        self.enter(ticket, Waiter { call, bytes })?;
        let _seat = Seat { hold: self, ticket };
        // Who leaves an endpoint makes room first and then looks for somebody who waits: one of both sees the other.
        fence(SeqCst);
        if has_room() {
            self.release_one();
        }
        match tokio::time::timeout_at(deadline.into(), &mut turn).await {
            Ok(Ok(turn)) => Ok(turn),
            // The sender only goes with the queue.
            Ok(Err(_)) | Err(_) => Err(GaveUp::Late),
        }
    }

    /// All may go on, one after another: an endpoint returned.
    pub(crate) fn release(self: &Arc<Self>) {
        self.news.notify_waiters();
        self.lock().window = WINDOW_MIN;
        self.call(WINDOW_MIN);
    }

    /// Waits outside the queue until `is_over`, which is asked at every [`Hold::release`], or until `deadline`.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub(crate) async fn watch(&self, deadline: Instant, is_over: impl Fn() -> bool) {
        let watching = async {
            loop {
                let mut news = std::pin::pin!(self.news.notified());
                // From here on nothing is missed.
                news.as_mut().enable();
                if is_over() {
                    return;
                }
                news.await;
            }
        };
        // Whoever waits looks again by itself.
        let _ = tokio::time::timeout_at(deadline.into(), watching).await;
    }

    /// The next may go on: there is room for one.
    pub(crate) fn release_one(self: &Arc<Self>) {
        self.call(1);
    }

    fn call(self: &Arc<Self>, count_max: usize) {
        if !self.is_anyone_waiting() {
            return;
        }
        let mut called = Vec::new();
        let mut inner = self.lock();
        while inner.released < inner.window && called.len() < count_max {
            let Some((_, waiter)) = inner.queue.pop_first() else { break };
            inner.bytes -= waiter.bytes;
            inner.released += 1;
            called.push(waiter.call);
        }
        self.count(&inner);
        drop(inner);
        for call in called {
            // Who has left meanwhile drops the turn, and so calls the next.
            drop(call.send(Turn(Some(Arc::clone(self)))));
        }
    }

    fn enter(&self, ticket: Ticket, waiter: Waiter) -> Result<(), GaveUp> {
        let mut inner = self.lock();
        if inner.queue.len() >= WAITING_MAX || inner.bytes + waiter.bytes > WAITING_BYTES_MAX {
            return Err(GaveUp::Full);
        }
        inner.bytes += waiter.bytes;
        inner.queue.insert(ticket.0, waiter);
        self.count(&inner);
        Ok(())
    }

    fn leave(&self, ticket: Ticket) {
        let mut inner = self.lock();
        if let Some(waiter) = inner.queue.remove(&ticket.0) {
            inner.bytes -= waiter.bytes;
        }
        self.count(&inner);
    }

    fn count(&self, inner: &Inner) {
        let (after, before) = (inner.queue.len(), self.waiting.swap(inner.queue.len(), SeqCst));
        // Also where there are fewer: it wraps around.
        self.queues.waiting.fetch_add(after.wrapping_sub(before), SeqCst);
    }

    /// Every statement under this lock leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Turn {
    /// It was of no use, there is no room: nobody else is called for it.
    pub(crate) fn in_vain(mut self) {
        if let Some(hold) = self.0.take() {
            hold.lock().released -= 1;
        }
    }

    /// The app has answered, or has had [`TURN_MAX`]: two others are called for it.
    pub(crate) fn went_well(mut self) {
        if let Some(hold) = self.0.take() {
            let mut inner = hold.lock();
            inner.released -= 1;
            inner.window = inner.window.saturating_add(1);
            drop(inner);
            hold.call(2);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(hold) = self.0.take() {
            hold.lock().released -= 1;
            hold.release_one();
        }
    }
}

/// Takes the request out of the queue, however its wait ends.
struct Seat<'a> {
    hold: &'a Hold,
    ticket: Ticket,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.hold.leave(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    async fn queue_of(hold: &Arc<Hold>, count: usize) -> (tokio::task::JoinSet<()>, Arc<Mutex<Vec<usize>>>) {
        let (mut tasks, order) = (tokio::task::JoinSet::new(), Arc::new(Mutex::new(Vec::new())));
        for number in 0..count {
            let (hold, order) = (Arc::clone(hold), Arc::clone(&order));
            let ticket = hold.ticket();
            tasks.spawn(async move {
                let turn = hold.wait(ticket, 10, in_a_minute(), || false).await.unwrap();
                order.lock().push(number);
                tokio::task::yield_now().await;
                drop(turn);
            });
        }
        while hold.waiting() < count {
            tokio::task::yield_now().await;
        }
        (tasks, order)
    }

    #[tokio::test]
    async fn they_go_on_in_the_order_they_came() {
        let hold = Hold::after(None);
        let (tasks, order) = queue_of(&hold, 200).await;
        hold.release();
        tasks.join_all().await;
        assert_eq!(*order.lock(), (0..200).collect::<Vec<_>>());
        let inner = hold.lock();
        assert_eq!((inner.queue.len(), inner.bytes, inner.released), (0, 0, 0));
    }

    #[tokio::test]
    async fn an_endpoint_that_returns_is_sent_a_few_at_first_whatever_it_took_before() {
        let hold = Hold::after(None);
        hold.lock().window = 2 * WINDOW_MIN;
        let (_tasks, _) = queue_of(&hold, 3 * WINDOW_MIN).await;
        hold.release();
        hold.release();
        assert_eq!((hold.lock().released, hold.waiting()), (WINDOW_MIN, 2 * WINDOW_MIN));
    }

    #[tokio::test]
    async fn two_are_called_for_a_turn_that_went_well() {
        let hold = Hold::after(None);
        let turn = hold.wait(hold.ticket(), 0, in_a_minute(), || true).await.unwrap();
        hold.lock().window = 1;
        let (_tasks, _) = queue_of(&hold, 3).await;
        turn.went_well();
        let inner = hold.lock();
        assert_eq!((inner.released, inner.window, inner.queue.len()), (2, 2, 1));
    }

    #[tokio::test]
    async fn who_leaves_is_forgotten_and_hands_the_turn_on() {
        let hold = Hold::after(None);
        let (mut tasks, order) = queue_of(&hold, 40).await;
        // The turns are given, and their owners are gone before they see them.
        hold.release();
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        assert_eq!(hold.waiting(), 0);
        assert_eq!(hold.lock().released, 0);
        assert!(order.lock().is_empty());
    }

    #[tokio::test]
    async fn a_turn_in_vain_calls_nobody_and_keeps_the_place() {
        let hold = Hold::after(None);
        let first = hold.ticket();
        let (tasks, order) = {
            let waiting = hold.wait(first, 0, in_a_minute(), || true);
            waiting.await.unwrap().in_vain();
            queue_of(&hold, 3).await
        };
        assert_eq!(hold.waiting(), 3);
        let again = hold.wait(first, 0, in_a_minute(), || true).await.unwrap();
        assert!(order.lock().is_empty(), "the first in line was not the first to go");
        drop(again);
        tasks.join_all().await;
    }

    #[tokio::test]
    async fn queues_before_and_after_a_reload_share_what_gets_free() {
        let before = Hold::after(None);
        let (older, older_order) = queue_of(&before, 2).await;
        let after = Hold::after(Some(&before));
        let (newer, newer_order) = queue_of(&after, 1).await;
        let unrelated = Hold::after(None);
        let queues = Arc::clone(after.queues());
        assert!(queues.is_anyone_waiting() && !unrelated.queues().is_anyone_waiting());
        unrelated.queues().release();
        assert_eq!((before.waiting(), after.waiting()), (2, 1));
        queues.release_one();
        // The turn goes from one to the next.
        older.join_all().await;
        newer.join_all().await;
        assert_eq!((older_order.lock().len(), newer_order.lock().len()), (2, 1));
        assert!(!queues.is_anyone_waiting());
        drop(before);
        let third = Hold::after(Some(&after));
        assert_eq!((queues.each().len(), third.waiting()), (2, 0), "one that is gone is forgotten");
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_deadline_or_in_a_full_queue() {
        let hold = Hold::after(None);
        let late = hold.wait(hold.ticket(), 0, Instant::now(), || false).await;
        assert_eq!(late.unwrap_err(), GaveUp::Late);
        let full = hold.wait(hold.ticket(), WAITING_BYTES_MAX + 1, in_a_minute(), || false).await;
        assert_eq!(full.unwrap_err(), GaveUp::Full);
        assert_eq!(hold.waiting(), 0);
    }

    #[test]
    fn as_many_wait_as_may_and_their_heads_are_as_large_as_they_may_be() {
        let hold = Hold::after(None);
        let enter = |bytes| {
            let ticket = hold.ticket();
            hold.enter(ticket, Waiter { call: oneshot::channel().0, bytes }).map(|()| ticket)
        };
        let whole = enter(WAITING_BYTES_MAX).unwrap();
        assert_eq!(enter(1), Err(GaveUp::Full));
        hold.leave(whole);
        for _ in 0..WAITING_MAX {
            enter(1).unwrap();
        }
        assert_eq!(enter(0), Err(GaveUp::Full));
    }
}
