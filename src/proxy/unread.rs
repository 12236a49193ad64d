//! What becomes of a request body that the answer did not need: drained when it is small, else the connection ends.
//!
//! Either way nothing of it can be taken for the next request (CVE-2025-4366).

use std::time::Duration;

use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::listener::incoming::Incoming;

/// A larger body ends the connection instead.
pub(crate) const DRAINED_BYTES_MAX: u64 = 16 * 1024;
/// How long the rest of a small body may take. It delays the answer, and only to a client that is slow itself.
const DRAIN: Duration = Duration::from_secs(1);
/// The same of a stream whose length nobody knows: as one of gRPC, it may have no end before it is answered.
const DRAIN_STREAM: Duration = Duration::from_millis(100);

/// Reads a small body to its end; whether the connection is fit for another request.
///
/// A stream is read for its client's sake alone: many a client takes it for an error when it is reset behind its answer
/// (curl before 8). A body that waits for `100 Continue` is not asked for: the answer tells the client not to send it.
pub(super) async fn drain(mut body: Incoming, expects_continue: bool) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if expects_continue || body.size_hint().lower() > DRAINED_BYTES_MAX {
        return false;
    }
    let is_endless = matches!(body, Incoming::Stream(_)) && body.size_hint().exact().is_none();
    let draining = async {
        let mut left = DRAINED_BYTES_MAX;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        true
    };
    tokio::time::timeout(if is_endless { DRAIN_STREAM } else { DRAIN }, draining).await.unwrap_or(false)
}
