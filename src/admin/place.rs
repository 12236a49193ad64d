//! Where the admin side listens: a reload may move it.
//!
//! One place after the other serves. The one that is left closes each connection after the answer that it owes, and
//! takes no further request: what the new place asks for (a token, say) may be less than the old one needs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::model::Address;
use crate::listener::bind::Bound;
use crate::worker::Drain;

/// See the module docs.
#[derive(Debug)]
pub(crate) struct Place {
    /// As configured; `None` = there is no admin side.
    pub(crate) configured: Option<Address>,
    /// `None` once its end has begun.
    socket: Mutex<Option<Arc<Bound>>>,
    /// Its socket is open for whoever accepts there, too.
    is_accepting: AtomicBool,
    closing: watch::Sender<Drain>,
    is_left: AtomicBool,
    is_done: AtomicBool,
}

impl Place {
    /// A place that has not served yet.
    pub(crate) fn new(configured: Option<Address>, socket: Option<Bound>) -> Self {
        Self {
            configured,
            socket: Mutex::new(socket.map(Arc::new)),
            is_accepting: AtomicBool::new(false),
            closing: watch::Sender::new(Drain::No),
            is_left: AtomicBool::new(false),
            is_done: AtomicBool::new(false),
        }
    }

    /// Where it accepts, if it does.
    pub(crate) fn socket(&self) -> Option<Arc<Bound>> {
        self.socket.lock().clone()
    }

    /// The same for whoever accepts there, and tells when it does so no more.
    pub(super) fn accept(&self) -> Option<Arc<Bound>> {
        let socket = self.socket.lock();
        self.is_accepting.store(socket.is_some(), Relaxed);
        socket.clone()
    }

    pub(super) fn stopped(&self) {
        self.is_accepting.store(false, Release);
    }

    /// Whether its end has come so far that the address is free.
    pub(crate) fn is_free(&self) -> bool {
        self.socket().is_none() && !self.is_accepting.load(Acquire)
    }

    /// Begins its end: the address will be free, and connections without a request stay for `idle` longer.
    pub(crate) fn close(&self, idle: Duration) {
        self.socket.lock().take();
        self.closing.send_replace(Drain::Begun { idle });
    }

    /// From now on nothing is asked here any more. Before the settings of the next place count.
    pub(crate) fn leave(&self) {
        self.is_left.store(true, Relaxed);
    }

    pub(crate) fn is_left(&self) -> bool {
        self.is_left.load(Relaxed)
    }

    /// Whether it has answered all it was asked.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done.load(Relaxed)
    }

    pub(super) fn done(&self) {
        self.is_done.store(true, Relaxed);
    }

    pub(super) fn closing(&self) -> watch::Receiver<Drain> {
        self.closing.subscribe()
    }

    /// Ready when it has been left for so long that nothing is worth waiting for.
    pub(super) async fn is_forgotten(&self, patience: Duration) {
        let mut closing = self.closing.subscribe();
        // The sender lives as long as `self`.
        let _ = closing.wait_for(|drain| drain.has_begun() && self.is_left()).await;
        tokio::time::sleep(patience).await;
    }
}
