//! The rest of an idle connection: its buffer and its future are let go of, and only the socket waits. The first
//! bytes that come begin a new round of HTTP, as if the connection had just been accepted.
//!
//! Most kept connections of a site are idle at any moment, so what one of them holds while it waits decides how many a
//! small container can keep.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, sleep, sleep_until};

use super::stream::Stream;
use crate::worker::{Drain, Place};

/// What is read to begin with; as much as most heads are long. It lies on the stack, and only for the read.
pub(super) const FIRST_BYTES: usize = 2048;

/// What ended it.
#[derive(Debug)]
pub(super) enum Woken {
    /// The client sends again.
    Bytes(Vec<u8>),
    /// Its time is over, the client has closed, a drain has waited for long enough, or another client waits for its
    /// place: nothing is owed to anyone.
    Over,
    /// The socket failed.
    Broken(io::Error),
}

/// Waits for the client's next bytes until `until`.
///
/// # Cancel safety
/// Nothing that was read is lost: a read ends the wait.
pub(super) async fn rest(stream: &mut Stream, until: Instant, place: &Place) -> Woken {
    let mut drained = pin!(async {
        // A drain has the task woken.
        let begun = poll_fn(|_| match place.drain() {
            Drain::Begun { idle } => Poll::Ready(idle),
            Drain::No => Poll::Pending,
        });
        sleep(begun.await).await;
    });
    let mut timeout = pin!(sleep_until(until));
    tokio::select! {
        biased;
        // First: what has come by now is served, whatever else has happened.
        read = first_bytes(stream) => match read {
            Ok(bytes) if bytes.is_empty() => Woken::Over,
            Ok(bytes) => Woken::Bytes(bytes),
            Err(error) => Woken::Broken(error),
        },
        () = &mut drained => Woken::Over,
        () = &mut timeout => Woken::Over,
        () = place.is_wanted() => Woken::Over,
    }
}

async fn first_bytes(stream: &mut Stream) -> io::Result<Vec<u8>> {
    poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); FIRST_BYTES];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
        Ok(buf.filled().to_vec()).into()
    })
    .await
}
