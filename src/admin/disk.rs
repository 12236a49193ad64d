//! Changes that wait for the disk.

use http::StatusCode;

use super::view::{Problem, problem};

/// Does it beside the admin side's other work.
///
/// # Errors
/// Its own, or it panicked.
pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(problem(StatusCode::INTERNAL_SERVER_ERROR, "the change broke off; the log says why")))
}
