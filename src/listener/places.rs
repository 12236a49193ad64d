//! The places under `server.max_connections`.
//!
//! Who waits for one is given that of the kept connection that has been idle for longest, as nginx does: a flood of
//! clients that keep their connections and ask for nothing shuts nobody out.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long is waited for a connection that has been asked before another one is, too: it may take a while to end.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// How many connections there may be, and those that are asked to go.
#[derive(Debug)]
pub struct Places {
    free: Semaphore,
    /// A permit for each idle connection that is to give up its place. Whoever waits first is given it first.
    wanted: Semaphore,
    /// How many wait.
    waiting: AtomicUsize,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Taken(Arc<Places>);

impl Places {
    pub fn new(count: usize) -> Self {
        Self { free: Semaphore::new(count), wanted: Semaphore::new(0), waiting: AtomicUsize::new(0) }
    }

    /// Makes so many more.
    pub fn add(&self, count: usize) {
        self.free.add_permits(count);
    }

    /// Takes away so many of those that are free, and returns how many there were.
    pub fn remove(&self, count: usize) -> usize {
        self.free.forget_permits(count)
    }

    pub(super) fn try_take(self: &Arc<Self>) -> Option<Taken> {
        self.free.try_acquire().ok()?.forget();
        Some(Taken(Arc::clone(self)))
    }

    /// Waits for one in turn, and asks idle connections for theirs meanwhile.
    ///
    /// # Cancel safety
    /// No place is lost, and nobody is asked any more.
    pub(super) async fn take(self: &Arc<Self>) -> Taken {
        if let Some(taken) = self.try_take() {
            return taken;
        }
        let asking = self.ask();
        let mut free = pin!(self.free.acquire());
        loop {
            if let Ok(permit) = timeout(ASK_AGAIN, &mut free).await {
                permit.expect("nobody closes the semaphore").forget();
                return Taken(Arc::clone(self));
            }
            asking.one_more();
        }
    }

    /// Asks one idle connection to go, for what it holds: its place, or its descriptor.
    pub(super) fn ask(&self) -> Asking<'_> {
        self.waiting.fetch_add(1, Relaxed);
        let asking = Asking(self);
        asking.one_more();
        asking
    }
}

impl Taken {
    /// Ready when an idle connection, which calls this, is to give up its place: the one that has waited for longest is
    /// asked first.
    ///
    /// # Cancel safety
    /// Another one is asked instead.
    pub(crate) async fn is_wanted(&self) {
        self.0.wanted.acquire().await.expect("nobody closes the semaphore").forget();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.free.add_permits(1);
    }
}

/// Somebody waits for what idle connections hold. When nobody does any more, nobody is asked.
pub(super) struct Asking<'a>(&'a Places);

impl Asking<'_> {
    /// Asks another one, unless as many as wait have been asked and have not heard it yet.
    pub(super) fn one_more(&self) {
        if self.0.wanted.available_permits() < self.0.waiting.load(Relaxed) {
            self.0.wanted.add_permits(1);
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Relaxed) == 1 {
            self.0.wanted.forget_permits(usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_been_idle_for_longest_gives_up_its_place() {
        let places = Arc::new(Places::new(3));
        let (first, second, busy) = (places.take().await, places.take().await, places.take().await);
        let rest = async |taken: Taken| taken.is_wanted().await;
        let (mut idle_first, mut idle_second) = (Box::pin(rest(first)), Box::pin(rest(second)));
        for idle in [&mut idle_first, &mut idle_second] {
            assert!(timeout(ASK_AGAIN, idle).await.is_err(), "nobody wants it");
        }
        let mut taking = Box::pin(places.take());
        assert!(timeout(Duration::ZERO, &mut taking).await.is_err(), "there is none");
        idle_first.await;
        let taken = taking.await;
        assert!(timeout(10 * ASK_AGAIN, &mut idle_second).await.is_err(), "nobody waits any more");
        assert!(places.try_take().is_none());
        drop((taken, busy));
        assert_eq!(places.remove(9), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_to_rest_while_somebody_waits_is_asked_at_once() {
        let places = Arc::new(Places::new(1));
        let busy = places.take().await;
        let mut taking = Box::pin(places.take());
        assert!(timeout(100 * ASK_AGAIN, &mut taking).await.is_err());
        assert_eq!(places.wanted.available_permits(), 1, "nobody was there to be asked");
        timeout(Duration::ZERO, busy.is_wanted()).await.unwrap();
        drop(taking);
        assert!(timeout(ASK_AGAIN, busy.is_wanted()).await.is_err(), "who waited has gone");
    }
}
