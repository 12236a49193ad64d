//! Accepts connections and spreads them over the workers.
//!
//! One task per listener accepts and hands each socket to the worker with the fewest connections, so that
//! few long-lived connections are spread as evenly as many short ones. The socket is registered with the
//! worker's own event loop only after the hand-over.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::bind::Bound;
use super::places::{Places, Taken};
use crate::error::is_shortage;
use crate::worker::{Accepted, AcceptedSocket, Seat, Workers};

/// After an accept that failed for want of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(50);
/// Descriptors that are not for clients.
const RESERVE_MIN: RawFd = 16;
const RESERVE_MAX: RawFd = 1024;
/// Between two warnings about that.
const WARN_AGAIN: Duration = Duration::from_secs(10);
/// How long the last answer of a handshake may be under way when a listener closes.
const HALF_OPEN: Duration = Duration::from_millis(100);

/// One listener's acceptor, to be run on a worker.
pub struct Acceptor {
    pub listener: Arc<str>,
    pub socket: Arc<Bound>,
    pub workers: Workers,
    pub places: Arc<Places>,
    pub stop: watch::Receiver<Stop>,
}

/// Whether an acceptor is to stop, and what becomes of what the kernel has accepted by then: closing the socket
/// would reset it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    No,
    /// It is served, unless the socket is not ours and somebody else comes for it.
    HandOver,
    /// Another acceptor has the socket.
    Leave,
}

impl Acceptor {
    /// Accepts until told to stop, on the worker `here`.
    pub(crate) async fn run(mut self, here: Arc<Seat>) {
        let mut stopping = self.stop.clone();
        let watched = tokio::select! {
            watched = self.watch() => watched,
            _ = stopping.wait_for(|stop| *stop != Stop::No) => return,
        };
        let readiness = match watched {
            Ok(readiness) => readiness,
            Err(error) => return tracing::error!(listener = &*self.listener, %error, "cannot accept connections"),
        };
        tokio::select! {
            stop = stopping.wait_for(|stop| *stop != Stop::No) => {
                if matches!(stop.as_deref(), Ok(Stop::Leave)) || !self.socket.is_ours() {
                    return;
                }
            }
            () = self.accept_all(&readiness, &here) => {}
        }
        drop(stopping);
        if let Err(error) = self.socket.shut_the_door() {
            tracing::debug!(listener = &*self.listener, %error, "connections may be reset as the listener closes");
        }
        let mut waiting = Vec::new();
        self.take_what_is_there(&readiness, &here, &mut waiting).await;
        // Handshakes that had begun.
        tokio::time::sleep(HALF_OPEN).await;
        self.take_what_is_there(&readiness, &here, &mut waiting).await;
        drop(readiness);
        let Self { listener, socket, workers, places, stop } = self;
        // In this order: whoever watches `stop` may want the address. And before anybody is waited for.
        drop((socket, stop));
        for socket in waiting {
            let taken = places.take().await;
            workers.give(Accepted { listener: Arc::clone(&listener), socket, taken }, &here);
        }
    }

    /// Has the event loop watch the socket, as soon as there is a descriptor for that.
    ///
    /// # Errors
    /// The system does not let it, whatever there is.
    async fn watch(&self) -> io::Result<AsyncFd<RawSocket>> {
        let mut warned = None;
        loop {
            match watch_readiness(&self.socket) {
                Err(error) if is_shortage(&error) => self.warn(&mut warned, &error),
                result => return result,
            }
            tokio::time::sleep(BACK_OFF).await;
        }
    }

    /// Those for whom there is no place are `waiting` for one, as they were in the kernel's queue, which closes.
    async fn take_what_is_there(
        &self,
        readiness: &AsyncFd<RawSocket>,
        here: &Arc<Seat>,
        waiting: &mut Vec<AcceptedSocket>,
    ) {
        loop {
            match readiness.get_ref().accept() {
                Ok(socket) => match self.places.try_take() {
                    Some(taken) => self.hand_over(socket, taken, here),
                    None => waiting.push(socket),
                },
                Err(error) if is_of_one_connection(&error) => {}
                // As connections end there are some again.
                Err(error) if is_shortage(&error) => tokio::time::sleep(BACK_OFF).await,
                Err(_) => return,
            }
        }
    }

    /// # Cancel safety
    /// A connection is accepted and handed over without a pause in between.
    async fn accept_all(&mut self, readiness: &AsyncFd<RawSocket>, here: &Arc<Seat>) {
        let mut warned: Option<Instant> = None;
        let (mut ceiling, mut highest) = (descriptor_ceiling(), 0);
        loop {
            match self.accept(readiness).await {
                Ok((socket, taken)) => {
                    // The system gives the lowest that is free, so all below are taken.
                    let number = socket.as_fd().as_raw_fd();
                    self.hand_over(socket, taken, here);
                    if number > highest {
                        // Whoever is at it may have set another limit since (prlimit(1)).
                        (ceiling, highest) = (descriptor_ceiling(), number);
                    }
                    if number >= ceiling {
                        self.warn(&mut warned, &"most file descriptors are taken, see LimitNOFILE= or ulimit -n");
                        self.room_below(ceiling).await;
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    highest = 0;
                    self.warn(&mut warned, &error);
                    let _asking = self.places.ask();
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// A connection and its place. At the bound, connections wait in the kernel's queue; a listener to which nobody comes
    /// takes no place from the others.
    ///
    /// # Errors
    /// The system gives none.
    async fn accept(&self, readiness: &AsyncFd<RawSocket>) -> io::Result<(AcceptedSocket, Taken)> {
        loop {
            let mut guard = readiness.readable().await?;
            let taken = self.places.take().await;
            if let Ok(accepted) = guard.try_io(|socket| socket.get_ref().accept()) {
                return accepted.map(|socket| (socket, taken));
            }
        }
    }

    /// Waits until a descriptor below `ceiling` is free, and asks idle connections for theirs meanwhile.
    async fn room_below(&self, ceiling: RawFd) {
        let asking = self.places.ask();
        loop {
            // One that is asked goes at once, or takes a while.
            let mut pause = Duration::from_millis(1);
            while pause < BACK_OFF {
                tokio::time::sleep(pause).await;
                if has_room_below(ceiling) {
                    return;
                }
                pause *= 2;
            }
            asking.one_more();
        }
    }

    fn warn(&self, warned: &mut Option<Instant>, error: &dyn std::fmt::Display) {
        if warned.is_none_or(|at| at.elapsed() >= WARN_AGAIN) {
            *warned = Some(Instant::now());
            tracing::warn!(listener = &*self.listener, %error, "cannot accept connections at the moment");
        }
    }

    fn hand_over(&self, socket: AcceptedSocket, taken: Taken, here: &Arc<Seat>) {
        self.workers.give(Accepted { listener: Arc::clone(&self.listener), socket, taken }, here);
    }
}

/// The number from which on descriptors are left to the admin side, to connections with apps, and to files: an eighth.
fn descriptor_ceiling() -> RawFd {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| RawFd::try_from(limit).ok()).unwrap_or(RawFd::MAX);
    limit - (limit / 8).clamp(RESERVE_MIN, RESERVE_MAX)
}

/// Whether a descriptor below `ceiling` is free.
fn has_room_below(ceiling: RawFd) -> bool {
    match rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 0) {
        Ok(free) => free.as_raw_fd() < ceiling,
        // With stderr closed there is nothing to try it with: the next accept will tell.
        Err(error) => error == rustix::io::Errno::BADF,
    }
}

#[allow(unsafe_code, reason = "tokio offers no safe way to watch a socket without wrapping what it accepts")]
fn watch_readiness(socket: &Arc<Bound>) -> io::Result<AsyncFd<RawSocket>> {
    // A descriptor of its own: an event loop takes each only once, and after a change of name two acceptors may have
    // the same socket on the same worker for a moment.
    let watched = socket.as_fd().try_clone_to_owned()?;
    let socket = RawSocket { bound: Arc::clone(socket), watched };
    // SAFETY: the descriptor belongs to `socket`, which the AsyncFd owns and nothing can close or exchange: it is the
    // same open one for as long as the AsyncFd lives.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(Into::into)
}

/// The client went away before it was accepted; the listener is fine (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

struct RawSocket {
    bound: Arc<Bound>,
    watched: OwnedFd,
}

impl AsRawFd for RawSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.as_fd()
    }
}

impl RawSocket {
    /// One connection, not blocking, and without Nagle's delay where its listener is: it takes after that (tcp(7)).
    fn accept(&self) -> io::Result<AcceptedSocket> {
        let (socket, peer) = acceptfrom_with(&*self.bound, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        match &*self.bound {
            Bound::Tcp(..) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                Ok(AcceptedSocket::Tcp(socket.into(), peer.ok_or(io::ErrorKind::ConnectionAborted)?))
            }
            Bound::Unix(..) => Ok(AcceptedSocket::Unix(socket.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Address;
    use crate::listener::bind::{Families, bind};

    #[test]
    fn an_accepted_connection_neither_blocks_nor_waits_to_fill_its_segments() {
        let bound = Arc::new(bind(&Address::Socket(([127, 0, 0, 1], 0).into()), Families::Any).unwrap());
        let Address::Socket(address) = bound.address().unwrap() else { panic!("it has an address") };
        let client = std::net::TcpStream::connect(address).unwrap();
        let watched = bound.as_fd().try_clone_to_owned().unwrap();
        let AcceptedSocket::Tcp(socket, peer) = (RawSocket { bound, watched }).accept().unwrap() else {
            panic!("it came by TCP")
        };
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(socket.nodelay().unwrap());
        let nothing_yet = io::Read::read(&mut &socket, &mut [0]).unwrap_err();
        assert_eq!(nothing_yet.kind(), io::ErrorKind::WouldBlock);
    }
}
