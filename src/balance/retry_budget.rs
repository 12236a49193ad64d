//! How many of the requests on their way may be further tries, so that retries do not finish off an upstream that
//! stumbles. No tokens and no time: it counts what is in flight (as Envoy's retry budget does).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// However little is going on, so many retries are allowed.
const RETRIES_MIN: usize = 3;

/// One per upstream, shared by all workers. It costs nothing until a request asks for a further try.
#[derive(Debug)]
pub struct RetryBudget {
    /// Of 1.
    share: f64,
    retries: AtomicUsize,
}

/// A further try on its way; it ends when this is dropped.
#[must_use = "a try is on its way for as long as this is held"]
#[derive(Debug)]
pub struct Retry(Arc<RetryBudget>);

impl RetryBudget {
    /// `share`: 0 to 1, of live requests.
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self { share, retries: AtomicUsize::new(0) }
    }

    /// Asks for one further try while `live` requests are on their way; `None` when the budget is used up.
    pub fn take(self: &Arc<Self>, live: usize) -> Option<Retry> {
        let limit = ((live as f64 * self.share) as usize).max(RETRIES_MIN);
        let taken = self.retries.fetch_update(Relaxed, Relaxed, |retries| (retries < limit).then_some(retries + 1));
        taken.is_ok().then(|| Retry(Arc::clone(self)))
    }
}

impl Drop for Retry {
    fn drop(&mut self) {
        self.0.retries.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_retries_are_always_allowed() {
        let budget = Arc::new(RetryBudget::new(0.0));
        let retries: Vec<_> = std::iter::from_fn(|| budget.take(1)).collect();
        assert_eq!(retries.len(), 3);
    }

    #[test]
    fn retries_are_a_share_of_live_requests() {
        let budget = Arc::new(RetryBudget::new(0.2));
        let retries: Vec<_> = std::iter::from_fn(|| budget.take(104)).collect();
        assert_eq!(retries.len(), 20);
    }

    #[test]
    fn a_finished_try_returns_to_the_budget() {
        let budget = Arc::new(RetryBudget::new(0.0));
        let mut retries: Vec<_> = std::iter::from_fn(|| budget.take(1)).collect();
        assert!(budget.take(1).is_none());
        retries.pop();
        assert!(budget.take(1).is_some());
        drop(retries);
        assert_eq!(budget.retries.load(Relaxed), 0);
    }
}
