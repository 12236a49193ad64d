//! Writing a message in pieces to a socket.

mod queue;
mod spare;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncWrite, ReadBuf};

pub(crate) use self::queue::Queue;
pub(crate) use self::spare::Text;

/// Up to here a copy costs less than what `writev` does beyond `send`.
const COPIED_BYTES_MAX: usize = 4096;

/// Writes `slices`, as [`AsyncWrite::poll_write_vectored`] does. A head and its small body go out by one plain `send`:
/// `writev` takes a longer way through the kernel, by the layer of files.
///
/// # Errors
/// Those of the socket.
pub(crate) fn poll_write_pieces(
    socket: Pin<&mut impl AsyncWrite>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [one] = slices {
        return socket.poll_write(cx, one);
    }
    if slices.iter().map(|slice| slice.len()).sum::<usize>() > COPIED_BYTES_MAX {
        return socket.poll_write_vectored(cx, slices);
    }
    let mut space = [MaybeUninit::uninit(); COPIED_BYTES_MAX];
    let mut whole = ReadBuf::uninit(&mut space);
    slices.iter().for_each(|slice| whole.put_slice(slice));
    socket.poll_write(cx, whole.filled())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// What arrives of pieces of these sizes, each of a letter of its own.
    async fn written(sizes: &[usize]) -> (usize, Vec<u8>) {
        let (mut socket, mut peer) = tokio::net::UnixStream::pair().unwrap();
        let pieces: Vec<Vec<u8>> = sizes.iter().zip(b'a'..).map(|(&size, letter)| vec![letter; size]).collect();
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let count = poll_fn(|cx| poll_write_pieces(Pin::new(&mut socket), cx, &slices)).await.unwrap();
        drop(socket);
        let mut arrived = Vec::new();
        peer.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, pieces.concat()[..count]);
        (count, arrived)
    }

    #[tokio::test]
    async fn pieces_arrive_in_order_whatever_their_size() {
        for sizes in [&[5][..], &[150, 1024], &[150, COPIED_BYTES_MAX - 150], &[150, 8000, 1], &[0, 0], &[0, 7, 0]] {
            assert_eq!(written(sizes).await.0, sizes.iter().sum::<usize>(), "{sizes:?}");
        }
    }
}
