//! From one socket to another without looking at what passes: splice(2) hands over the pages that it came in, where
//! reading and writing would copy it twice.
//!
//! Between the two lies a [`Pipe`]. Each thread keeps some that are empty. Where there is none to be had, or the system
//! does not let splice, whoever asks reads and writes instead.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::{Resource, getrlimit};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// What a pipe holds. A page takes a place of its own however little is in it, so that of small packets it is less.
const PIPE_BYTES: usize = 256 * 1024;

/// Of one thread. A system allows a user 64 MiB of pipes (pipe(7), pipe-user-pages-soft).
const IN_USE_MAX: usize = 32;
/// Empty, for the next one who needs one.
const KEPT_MAX: usize = 16;

/// After one could not be made.
const BACK_OFF: Duration = Duration::from_secs(1);

/// A socket without TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plain<'a> {
    Tcp(&'a TcpStream),
    Unix(&'a UnixStream),
}

/// Bytes on their way from one socket to another. Dropped with something in it, it is closed; empty, it is kept.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// `Some` for as long as it lives.
    ends: Option<Ends>,
    bytes: usize,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// One thread's.
#[derive(Debug, Default)]
struct Pipes {
    kept: Vec<Ends>,
    in_use: usize,
    /// None could be made, so none is tried before.
    none_until: Option<Instant>,
    /// The system does not let splice.
    is_refused: bool,
}

thread_local! {
    static PIPES: RefCell<Pipes> = RefCell::default();
}

impl Pipe {
    /// An empty one, unless too many are in use or descriptors are scarce.
    pub(crate) fn take() -> Option<Self> {
        let ends = PIPES.with_borrow_mut(Pipes::take)?;
        Some(Self { ends: Some(ends), bytes: 0 })
    }

    /// What is in it.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Moves what has come on a socket, at most `bytes_max`, into an empty pipe; how much that was, where 0 is the end
    /// of the stream.
    ///
    /// # Errors
    /// Those of the socket, or the system's that does not let splice: nothing has been taken, and reading tells which.
    pub(crate) fn poll_fill(
        &mut self,
        from: Plain<'_>,
        bytes_max: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.bytes, 0, "a full pipe and an empty socket look the same");
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(PIPE_BYTES);
        let result =
            ready!(from.poll(Interest::READABLE, cx, || move_bytes(from.as_fd(), ends.write.as_fd(), bytes_max)));
        match &result {
            Ok(moved) => self.bytes = *moved,
            Err(error) => PIPES.with_borrow_mut(|pipes| pipes.is_refused |= is_of_system(error)),
        }
        Poll::Ready(result)
    }

    /// Moves some of what is in it to a socket; how much that was.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn poll_drain(&mut self, to: Plain<'_>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        let moved = ready!(to.poll(Interest::WRITABLE, cx, || move_bytes(ends.read.as_fd(), to.as_fd(), self.bytes)))?;
        if moved == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.bytes -= moved;
        Poll::Ready(Ok(moved))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        let ends = Some(ends).filter(|_| self.bytes == 0);
        // Where the thread is at its end, so are its pipes.
        let _ = PIPES.try_with(|pipes| pipes.borrow_mut().put_back(ends));
    }
}

impl Pipes {
    fn take(&mut self) -> Option<Ends> {
        if self.is_refused || self.in_use >= IN_USE_MAX {
            return None;
        }
        let ends = self.kept.pop().or_else(|| self.make())?;
        self.in_use += 1;
        Some(ends)
    }

    fn make(&mut self) -> Option<Ends> {
        if self.none_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let ends = Ends::new();
        self.none_until = if ends.is_some() { None } else { Some(Instant::now() + BACK_OFF) };
        ends
    }

    fn put_back(&mut self, ends: Option<Ends>) {
        self.in_use = self.in_use.saturating_sub(1);
        self.kept.extend(ends.filter(|_| self.kept.len() < KEPT_MAX));
    }
}

impl Ends {
    fn new() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // The system gives the lowest that is free. Connections need theirs more.
        if write.as_raw_fd() >= descriptors_max() / 2 {
            return None;
        }
        fcntl_setpipe_size(&write, PIPE_BYTES).ok()?;
        Some(Self { read, write })
    }
}

impl Plain<'_> {
    /// Ready with what `act` says as soon as that is not that it would block.
    fn poll<T>(
        self,
        interest: Interest,
        cx: &mut Context<'_>,
        mut act: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(match self {
                Self::Tcp(socket) if interest.is_readable() => socket.poll_read_ready(cx),
                Self::Tcp(socket) => socket.poll_write_ready(cx),
                Self::Unix(socket) if interest.is_readable() => socket.poll_read_ready(cx),
                Self::Unix(socket) => socket.poll_write_ready(cx),
            })?;
            let result = match self {
                Self::Tcp(socket) => socket.try_io(interest, &mut act),
                Self::Unix(socket) => socket.try_io(interest, &mut act),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsFd for Plain<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// One of the two is a pipe.
fn move_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes_max: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    let moved = rustix::io::retry_on_intr(|| splice(from, None, to, None, bytes_max, flags))?;
    Ok(moved)
}

/// Whether it would be the same with any other socket: a sandbox does not know splice, or forbids it.
fn is_of_system(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP].contains(&errno))
}

fn descriptors_max() -> RawFd {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| RawFd::try_from(limit).ok()).unwrap_or(RawFd::MAX)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// As at the beginning: this thread may have run other tests.
    fn forget() {
        PIPES.take();
    }

    async fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    /// An app that has sent `bytes`, the socket to it, and an empty pipe.
    async fn sent(bytes: &[u8]) -> (TcpStream, TcpStream, Pipe) {
        forget();
        let (mut app, from_app) = tcp().await;
        app.write_all(bytes).await.unwrap();
        (app, from_app, Pipe::take().unwrap())
    }

    /// Moves everything from one to the other, to the end of the stream.
    async fn pass(from: Plain<'_>, to: Plain<'_>) -> io::Result<()> {
        loop {
            let mut pipe = Pipe::take().unwrap();
            if poll_fn(|cx| pipe.poll_fill(from, u64::MAX, cx)).await? == 0 {
                return Ok(());
            }
            while pipe.bytes() > 0 {
                poll_fn(|cx| pipe.poll_drain(to, cx)).await?;
            }
        }
    }

    fn is_kept(count: usize) -> bool {
        PIPES.with_borrow(|pipes| (pipes.kept.len(), pipes.in_use) == (count, 0))
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_between_sockets_of_either_kind() {
        forget();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number / 7) as u8).collect();
        let (mut app, from_app) = tcp().await;
        let (to_unix, from_unix) = UnixStream::pair().unwrap();
        let (to_client, mut client) = tcp().await;
        let mut arrived = Vec::new();
        let app = async {
            app.write_all(&sent).await.unwrap();
            drop(app);
        };
        let first = async {
            pass(Plain::Tcp(&from_app), Plain::Unix(&to_unix)).await.unwrap();
            drop(to_unix);
        };
        let second = async {
            pass(Plain::Unix(&from_unix), Plain::Tcp(&to_client)).await.unwrap();
            drop(to_client);
        };
        let _ = tokio::join!(app, first, second, client.read_to_end(&mut arrived));
        assert!(arrived == sent, "{} of {} bytes", arrived.len(), sent.len());
        assert!(is_kept(2));
    }

    #[tokio::test]
    async fn no_more_is_taken_than_is_asked_for() {
        let (_app, from_app, mut pipe) = sent(b"one answer, and the next").await;
        assert_eq!(poll_fn(|cx| pipe.poll_fill(Plain::Tcp(&from_app), 10, cx)).await.unwrap(), 10);
        let mut left = [0; 100];
        let read = from_app.try_read(&mut left).unwrap();
        assert_eq!(&left[..read], b", and the next");
    }

    #[tokio::test]
    async fn one_that_is_not_empty_is_closed_and_an_empty_one_kept() {
        let (_app, from_app, mut pipe) = sent(b"lost").await;
        poll_fn(|cx| pipe.poll_fill(Plain::Tcp(&from_app), 10, cx)).await.unwrap();
        drop(pipe);
        assert!(is_kept(0));
        drop(Pipe::take().unwrap());
        assert!(is_kept(1));
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        forget();
        let taken: Vec<Option<Pipe>> = (0..=IN_USE_MAX).map(|_| Pipe::take()).collect();
        assert_eq!(taken.iter().flatten().count(), IN_USE_MAX);
        drop(taken);
        assert!(is_kept(KEPT_MAX));
        assert!(Pipe::take().is_some());
    }

    #[tokio::test]
    async fn where_the_system_refuses_nothing_is_taken_and_no_pipe_is_given_again() {
        let (_app, from_app, mut pipe) = sent(b"kept").await;
        // Where neither is a pipe the system's answer is that of one that knows no splice.
        let (read, write) = std::os::unix::net::UnixStream::pair().unwrap();
        pipe.ends = Some(Ends { read: read.into(), write: write.into() });
        let error = poll_fn(|cx| pipe.poll_fill(Plain::Tcp(&from_app), 10, cx)).await.unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::INVAL));
        assert!(Pipe::take().is_none());
        let mut left = [0; 100];
        assert_eq!(from_app.try_read(&mut left).unwrap(), 4);
    }
}
