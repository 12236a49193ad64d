//! Upgraded connections: bytes both ways until one side is done or both are silent for too long.
//!
//! A silent one holds no buffer: what is read lies on the stack, and only what the other side does not take at once is
//! kept. Nothing more is read before it is gone.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::coarse_clock::{self, Anchor};
use super::context::Context;
use crate::alarm::Alarm;
use crate::upstream::lease::Upgraded;

/// Bytes read at once, each way.
const READ_BYTES: usize = 16 * 1024;
/// Reads of one way before the other has its turn: a task may do so many things before it has to wait, and one way that
/// never runs dry would do all of them.
const READS_MAX: usize = 16;

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
    let (mut up, mut down) = (Flow::new(early), Flow::new(mem::take(&mut upstream.early)));
    let (began, mut alarm) = (Anchor::now(), Alarm::default());
    let mut moved = began.coarse;
    poll_fn(|cx| {
        let ends =
            (up.poll(&mut downstream, &mut upstream.stream, cx), down.poll(&mut upstream.stream, &mut downstream, cx));
        let received = up.take_passed();
        let sent = down.take_passed();
        context.sent(sent);
        if received + sent > 0 {
            moved = coarse_clock::now();
        }
        match ends {
            // How a stream ends is between its two ends; both halves are closed below.
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            (Poll::Pending, _) | (_, Poll::Pending) => {}
        }
        if context.is_cut() {
            tracing::debug!("an upgraded connection was cut by maintenance");
            context.reason = Some("maintenance");
            return Poll::Ready(());
        }
        ready!(alarm.poll_put_off(|| began.instant(moved) + idle, cx));
        tracing::debug!("an upgraded connection was silent for too long");
        Poll::Ready(())
    })
    .await;
}

/// One direction.
struct Flow {
    /// Read, and not taken by the other side yet.
    kept: Bytes,
    /// What the other side has taken since that was last asked.
    passed: usize,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// One side has ended it, the other is being told.
    Ending,
    Ended,
}

impl Flow {
    /// `early` has been read before.
    fn new(early: Bytes) -> Self {
        // Of nothing, it may still hold the buffer that a head came in.
        let kept = if early.is_empty() { Bytes::new() } else { early };
        Self { kept, passed: 0, stage: Stage::Open }
    }

    fn take_passed(&mut self) -> usize {
        mem::take(&mut self.passed)
    }

    /// Passes on what there is. Ready when `from` has ended and `to` has been told so: half-closed streams work.
    // One function for both directions would cost an echo 150 instructions.
    #[inline(always)]
    fn poll(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        cx: &mut task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut reads_left = READS_MAX;
        while self.stage == Stage::Open {
            if reads_left == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            reads_left -= 1;
            if !self.kept.is_empty() {
                ready!(self.poll_pass_kept(to, cx))?;
            }
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                self.stage = Stage::Ending;
                break;
            }
            let taken = match poll_write(to, read.filled(), cx)? {
                Poll::Ready(taken) => taken,
                Poll::Pending => 0,
            };
            self.passed += taken;
            if taken < read.filled().len() {
                self.kept = Bytes::copy_from_slice(&read.filled()[taken..]);
            }
        }
        if self.stage == Stage::Ending {
            ready!(Pin::new(to).poll_shutdown(cx))?;
            self.stage = Stage::Ended;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_pass_kept(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        cx: &mut task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let taken = ready!(poll_write(to, &self.kept, cx))?;
            self.kept.advance(taken);
            self.passed += taken;
        }
        self.kept = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

/// Writes some of `bytes`, which are not none.
fn poll_write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], cx: &mut task::Context<'_>) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        taken => Poll::Ready(Ok(taken)),
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("idle", &self.idle).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, repeat, sink};

    use super::*;

    fn poll_once<T>(poll: impl FnOnce(&mut task::Context<'_>) -> T) -> T {
        poll(&mut task::Context::from_waker(task::Waker::noop()))
    }

    #[tokio::test]
    async fn what_is_not_taken_is_kept_and_nothing_more_is_read() {
        let (mut client, mut from) = duplex(64 * 1024);
        let (mut to, mut app) = duplex(10);
        let sent: Vec<u8> = (0..40_000_u32).map(|byte| byte as u8).collect();
        client.write_all(&sent).await.unwrap();
        let mut flow = Flow::new(Bytes::from_static(b"early"));
        for _ in 0..3 {
            assert!(poll_once(|cx| flow.poll(&mut from, &mut to, cx)).is_pending());
            assert_eq!(flow.kept.len(), 5 + READ_BYTES - 10);
        }
        assert_eq!(flow.take_passed(), 10);
        drop(client);
        let flowing = poll_fn(|cx| flow.poll(&mut from, &mut to, cx));
        let mut received = Vec::new();
        let (ended, _) = tokio::join!(flowing, app.read_to_end(&mut received));
        ended.unwrap();
        assert_eq!(flow.take_passed(), 5 + sent.len() - 10);
        assert!(received == [b"early", &*sent].concat());
    }

    #[tokio::test]
    async fn one_that_takes_nothing_any_more_ends_it() {
        let (mut client, mut from) = duplex(10);
        let (mut to, app) = duplex(10);
        client.write_all(b"word").await.unwrap();
        drop(app);
        let ended = poll_once(|cx| Flow::new(Bytes::new()).poll(&mut from, &mut to, cx));
        assert!(matches!(ended, Poll::Ready(Err(_))));
    }

    #[tokio::test]
    async fn one_way_that_never_runs_dry_leaves_the_other_its_turn() {
        let (mut app, mut from) = duplex(10);
        let (mut to, mut client) = duplex(10);
        app.write_all(b"word").await.unwrap();
        let (mut up, mut down) = (Flow::new(Bytes::new()), Flow::new(Bytes::new()));
        poll_fn(|cx| {
            assert!(up.poll(&mut repeat(0), &mut sink(), cx).is_pending());
            assert!(down.poll(&mut from, &mut to, cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(down.take_passed(), 4);
        let mut word = [0; 4];
        client.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"word");
    }
}
