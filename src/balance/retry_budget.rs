//! How many of the requests on their way may be further tries, so that retries do not finish off an upstream that
//! stumbles. No tokens and no time: it counts what is in flight (as Envoy's retry budget does).

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// However little is going on, so many retries are allowed.
const RETRIES_MIN: usize = 3;

/// One per upstream, shared by all workers.
#[derive(Debug)]
pub struct RetryBudget {
    /// Of 1.
    share: f64,
    live: AtomicUsize,
    retries: AtomicUsize,
}

/// A live request, from before its first try until its answer is through. `B` is `&RetryBudget` or
/// `Arc<RetryBudget>`.
#[must_use = "a request is live for as long as this is held"]
#[derive(Debug)]
pub struct Live<B: Deref<Target = RetryBudget>>(B);

/// A further try on its way; it ends when this is dropped.
#[must_use = "a try is on its way for as long as this is held"]
#[derive(Debug)]
pub struct Retry<B: Deref<Target = RetryBudget>>(B);

impl RetryBudget {
    /// `share`: 0 to 1, of live requests.
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self { share, live: AtomicUsize::new(0), retries: AtomicUsize::new(0) }
    }

    /// Retries that may be on their way now.
    #[must_use]
    pub fn limit(&self) -> usize {
        let live = self.live.load(Relaxed) as f64;
        ((live * self.share) as usize).max(RETRIES_MIN)
    }

    /// Requests and retries in flight.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        (self.live.load(Relaxed), self.retries.load(Relaxed))
    }
}

impl<B: Deref<Target = RetryBudget>> Live<B> {
    pub fn new(budget: B) -> Self {
        budget.live.fetch_add(1, Relaxed);
        Self(budget)
    }
}

impl<B: Deref<Target = RetryBudget> + Clone> Live<B> {
    /// Asks for one further try of this request; `None` when the budget is used up.
    pub fn retry(&self) -> Option<Retry<B>> {
        let limit = self.0.limit();
        let taken = self.0.retries.fetch_update(Relaxed, Relaxed, |retries| (retries < limit).then_some(retries + 1));
        taken.is_ok().then(|| Retry(self.0.clone()))
    }
}

impl<B: Deref<Target = RetryBudget>> Drop for Live<B> {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Relaxed);
    }
}

impl<B: Deref<Target = RetryBudget>> Drop for Retry<B> {
    fn drop(&mut self) {
        self.0.retries.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn three_retries_are_always_allowed() {
        let budget = RetryBudget::new(0.0);
        let live = Live::new(&budget);
        let retries: Vec<_> = std::iter::from_fn(|| live.retry()).collect();
        assert_eq!(retries.len(), 3);
    }

    #[test]
    fn retries_are_a_share_of_live_requests() {
        let budget = RetryBudget::new(0.2);
        let live: Vec<_> = (0..104).map(|_| Live::new(&budget)).collect();
        let retries: Vec<_> = std::iter::from_fn(|| live[0].retry()).collect();
        assert_eq!((retries.len(), budget.in_flight()), (20, (104, 20)));
    }

    #[test]
    fn a_finished_try_returns_to_the_budget() {
        let budget = Arc::new(RetryBudget::new(0.0));
        let live = Live::new(Arc::clone(&budget));
        let mut retries: Vec<_> = std::iter::from_fn(|| live.retry()).collect();
        assert!(live.retry().is_none());
        retries.pop();
        assert!(live.retry().is_some());
        drop((live, retries));
        assert_eq!(budget.in_flight(), (0, 0));
    }
}
