//! Requests that wait here, for their turn at a limit or for an endpoint. What is switched against one meanwhile holds
//! at once: its feature, maintenance, a block.
//!
//! Whoever switches wakes all that wait (`Shared::switched`), and each of them looks. Who does not wait pays nothing.

use std::pin::pin;

use super::context::Context;
use super::decide::Verdict;

/// Waits for `done`, or until the request may not go on any more. Whether it may is asked before and behind the wait,
/// too.
///
/// # Errors
/// What has been switched against it.
///
/// # Cancel safety
/// That of `done`, which is dropped as well where the request may not go on.
pub(super) async fn unless_turned_away<T>(
    context: &Context,
    done: impl Future<Output = T>,
) -> Result<T, Verdict<'static>> {
    let mut done = pin!(done);
    loop {
        let mut news = pin!(context.snapshot.shared.switched.notified());
        // From here on nothing is missed.
        news.as_mut().enable();
        if let Some(verdict) = context.turned_away() {
            return Err(verdict);
        }
        tokio::select! {
            biased;
            () = news => {}
            output = &mut done => return context.turned_away().map_or(Ok(output), Err),
        }
    }
}
