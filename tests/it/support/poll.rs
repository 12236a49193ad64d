//! Waiting for a condition: the only place in the tests that sleeps.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// Asks until `condition` holds; `false` when it still does not at the deadline.
#[must_use = "assert it"]
pub async fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    eventually_async(deadline, async || condition()).await
}

/// The same for a question that takes an `.await`.
#[must_use = "assert it"]
pub async fn eventually_async(deadline: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition().await {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
