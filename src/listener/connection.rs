//! What is known of one downstream connection, shared by who serves it and its requests.
//!
//! All of it is touched from one worker's thread; the atomics are for `Send`, not for ordering.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;

use crate::message::forwarded;
use crate::message::host::{Host, HostError};
use crate::own::Own;
use crate::tls::Peer;

/// One downstream connection.
#[derive(Debug)]
pub struct Connection {
    /// Index of the worker that serves it.
    pub(crate) worker: usize,
    /// The peer's address; `None` for a unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// Its address, in canonical form; loopback for a unix socket, whose peer is on this machine.
    pub(crate) peer_ip: IpAddr,
    /// The same as apps are told it, made once.
    peer_text: HeaderValue,
    /// The name of the listener it came in by.
    pub(crate) listener: Arc<str>,
    /// What the handshake told; `None` without TLS.
    pub(crate) tls: Option<Box<Peer>>,
    heads_passed: Own,
    heads_answered: Own,
    has_partial_head: AtomicBool,
    has_more: AtomicBool,
    is_mid_body: AtomicBool,
    /// Request bodies that somebody is still reading.
    bodies_open: Own,
    is_write_blocked: AtomicBool,
    write_progress: AtomicBool,
    /// Of the route whose answer is on its way, in milliseconds; 0 = of no route.
    patience_ms: AtomicU64,
    ends_in_reset: AtomicBool,
    is_leaving: AtomicBool,
    is_closing: AtomicBool,
    /// A `Host` that came on it, and what it names.
    named: OnceLock<(Box<[u8]>, Host)>,
}

/// A request body that somebody reads.
#[derive(Debug)]
pub(crate) struct OpenBody(Arc<Connection>);

impl Drop for OpenBody {
    fn drop(&mut self) {
        self.0.bodies_open.sub(1);
    }
}

/// What a connection is waiting for, and so which timeout applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// For the first request, or for the rest of a head.
    Head,
    /// For another request.
    Idle,
    /// For us.
    Busy,
    /// For the client to read.
    WriteBlocked,
}

impl Connection {
    pub(crate) fn new(worker: usize, peer: Option<SocketAddr>, listener: Arc<str>, tls: Option<Box<Peer>>) -> Self {
        let peer_ip = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip().to_canonical());
        Self {
            worker,
            peer,
            peer_ip,
            peer_text: forwarded::ip_value(peer_ip),
            listener,
            tls,
            heads_passed: Own::new(),
            heads_answered: Own::new(),
            has_partial_head: AtomicBool::new(false),
            has_more: AtomicBool::new(false),
            is_mid_body: AtomicBool::new(false),
            bodies_open: Own::new(),
            is_write_blocked: AtomicBool::new(false),
            write_progress: AtomicBool::new(false),
            patience_ms: AtomicU64::new(0),
            ends_in_reset: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            named: OnceLock::new(),
        }
    }

    /// Whether a client's address is more than what stands for the peer of a unix socket.
    pub(crate) fn is_named(&self, client_ip: IpAddr) -> bool {
        self.peer.is_some() || client_ip != self.peer_ip
    }

    /// The text of a client's address: mostly that of the peer.
    pub(crate) fn client_text(&self, client_ip: IpAddr) -> HeaderValue {
        if client_ip == self.peer_ip { self.peer_text.clone() } else { forwarded::ip_value(client_ip) }
    }

    /// What the value of a `Host` names. Most requests of a connection have the same one, which is read once; of those
    /// that have but one request it is not kept.
    ///
    /// # Errors
    /// It is no host.
    pub(crate) fn host_of(&self, text: &[u8]) -> Result<Host, HostError> {
        if let Some((_, host)) = self.named.get().filter(|(known, _)| **known == *text) {
            return Ok(host.clone());
        }
        let host = Host::parse(text)?;
        if self.requests() > 1 {
            self.named.get_or_init(|| (text.into(), host.clone()));
        }
        Ok(host)
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn phase(&self) -> Phase {
        if self.is_write_blocked() {
            Phase::WriteBlocked
        } else if !self.is_answered() {
            Phase::Busy
        } else if self.has_partial_head.load(Relaxed) || self.heads_passed.get() == 0 {
            Phase::Head
        } else {
            Phase::Idle
        }
    }

    /// The same of HTTP/2, where a head may be owed while other streams are being served.
    pub(super) fn phase_of_streams(&self) -> Phase {
        if !self.is_write_blocked() && self.has_partial_head() { Phase::Head } else { self.phase() }
    }

    pub(crate) fn has_partial_head(&self) -> bool {
        self.has_partial_head.load(Relaxed)
    }

    pub(super) fn set_partial_head(&self, partial: bool) {
        self.has_partial_head.store(partial, Relaxed);
    }

    /// Notes a request of which there is all but perhaps some of the body, and whether another has begun to come behind
    /// it.
    pub(super) fn head_passed(&self, has_more: bool) {
        self.heads_passed.add(1);
        self.has_more.store(has_more, Relaxed);
    }

    /// Counts one request as answered, to the last byte of its body.
    pub(crate) fn head_answered(&self) {
        self.heads_answered.add(1);
    }

    /// Requests seen so far.
    pub(crate) fn requests(&self) -> u64 {
        self.heads_passed.get()
    }

    /// Whether every request has been answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.heads_answered.get() >= self.heads_passed.get()
    }

    pub(super) fn set_mid_body(&self, mid_body: bool) {
        self.is_mid_body.store(mid_body, Relaxed);
    }

    /// Counts a request body as being read for as long as the guard lives.
    pub(crate) fn open_body(self: &Arc<Self>) -> OpenBody {
        self.bodies_open.add(1);
        OpenBody(Arc::clone(self))
    }

    /// Whether nothing of HTTP would be lost if an idle connection let go of it. An answer may be complete while the
    /// request's body is still on its way to the app.
    pub(super) fn may_rest(&self) -> bool {
        !self.is_mid_body.load(Relaxed) && self.bodies_open.get() == 0
    }

    /// Notes what came of a write of `offered` bytes: whether the client holds us up, and whether it took some.
    pub(super) fn wrote(&self, offered: usize, result: &Poll<io::Result<usize>>) {
        let (blocked, progress) = match result {
            Poll::Ready(Ok(written)) => (*written < offered, true),
            Poll::Ready(Err(_)) => (false, false),
            Poll::Pending => (true, false),
        };
        self.set_write_blocked(blocked);
        if progress {
            self.write_progress.store(true, Relaxed);
        }
    }

    /// Notes whether the client holds us up.
    pub(super) fn set_write_blocked(&self, blocked: bool) {
        self.is_write_blocked.store(blocked, Relaxed);
    }

    pub(crate) fn is_write_blocked(&self) -> bool {
        self.is_write_blocked.load(Relaxed)
    }

    /// Whether bytes were written since this was last asked.
    pub(crate) fn take_write_progress(&self) -> bool {
        self.write_progress.swap(false, Relaxed)
    }

    /// Notes how long the client may take nothing of the answer that begins.
    pub(super) fn set_patience(&self, patience: Option<Duration>) {
        let ms = patience.map_or(0, |patience| u64::try_from(patience.as_millis()).unwrap_or(u64::MAX).max(1));
        self.patience_ms.store(ms, Relaxed);
    }

    /// `None` where its route says nothing of that.
    pub(super) fn patience(&self) -> Option<Duration> {
        Some(self.patience_ms.load(Relaxed)).filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    /// An answer broke off whose end only the end of the connection would have told.
    pub(crate) fn end_in_reset(&self) {
        self.ends_in_reset.store(true, Relaxed);
    }

    pub(super) fn ends_in_reset(&self) -> bool {
        self.ends_in_reset.load(Relaxed)
    }

    /// From now on an answer says that it is the last one, unless the client has asked for more already.
    pub(super) fn leave(&self) {
        self.is_leaving.store(true, Relaxed);
    }

    /// Whether the request at hand is to be the last one.
    pub(crate) fn is_last(&self) -> bool {
        self.is_leaving.load(Relaxed) && !self.has_more.load(Relaxed)
    }

    /// From now on it waits for no other request.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_for_the_host_that_it_names_itself() {
        let connection = Connection::new(0, None, "a".into(), None);
        for text in ["a.example", "A.example:81", "b.example", "A.example:81", "a.example:81", "a.example"] {
            connection.head_passed(false);
            assert_eq!(connection.host_of(text.as_bytes()), Host::parse(text.as_bytes()));
        }
        assert_eq!(connection.host_of(b"user@a.example"), Err(HostError::UserInfo));
        assert_eq!(&*connection.named.get().unwrap().0, b"A.example:81", "of the first request it is not kept");
    }
}
