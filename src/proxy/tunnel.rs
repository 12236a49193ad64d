//! Upgraded connections: bytes both ways until one side is done or both are silent for too long.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::context::Context;
use crate::upstream::endpoint::Upgraded;

/// Bytes read at once, each way.
const BUFFER_BYTES: usize = 16 * 1024;

/// The upstream's half of an upgrade that both sides have agreed on.
pub(crate) struct Tunnel {
    /// Keeps the endpoint's in-flight count true for as long as the stream lives.
    pub(crate) upstream: Upgraded,
    pub(crate) idle: Duration,
    pub(crate) context: Box<Context>,
}

/// Copies until both directions have ended, one has failed, or nothing moved for `idle`.
///
/// `early` is what the client sent behind its request.
pub(crate) async fn run(mut downstream: impl AsyncRead + AsyncWrite + Unpin, early: Bytes, tunnel: Tunnel) {
    let Tunnel { mut upstream, idle, mut context } = tunnel;
    if !early.is_empty() && upstream.stream.write_all(&early).await.is_err() {
        return;
    }
    let activity = Activity::new();
    let (down_read, down_write) = tokio::io::split(&mut downstream);
    let (up_read, up_write) = tokio::io::split(&mut upstream.stream);
    let up_read = (&*upstream.early).chain(up_read);
    let received = AtomicU64::new(0);
    let sent = AtomicU64::new(0);
    let copying = async {
        tokio::try_join!(copy(down_read, up_write, &activity, &received), copy(up_read, down_write, &activity, &sent))
    };
    tokio::select! {
        // How a stream ends is between its two ends; both halves are closed below.
        _ = copying => {}
        () = context.cut() => tracing::debug!("an upgraded connection was cut by maintenance"),
        () = activity.idle(idle) => tracing::debug!("an upgraded connection was silent for too long"),
    }
    context.sent(usize::try_from(sent.load(Relaxed)).unwrap_or(usize::MAX));
}

/// Copies one direction; an end of stream is passed on as such, so that half-closed streams work.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
    bytes: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        bytes.fetch_add(read as u64, Relaxed);
        activity.note();
    }
}

/// When something last moved, in milliseconds since the start.
struct Activity {
    start: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn note(&self) {
        let now_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now_ms, Relaxed);
    }

    async fn idle(&self, limit: Duration) {
        loop {
            let seen = self.last_ms.load(Relaxed);
            tokio::time::sleep_until(self.start + Duration::from_millis(seen) + limit).await;
            if self.last_ms.load(Relaxed) == seen {
                return;
            }
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("idle", &self.idle).finish_non_exhaustive()
    }
}
