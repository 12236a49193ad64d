//! One endpoint: its address, what is in flight to it, and the connections kept to it.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;

use super::connect::{ConnectError, Connector};
use crate::config::model::Address;
use crate::proxy::body::RequestBody;

/// One address of an upstream.
pub struct Endpoint {
    /// As written in the file.
    pub(crate) label: Arc<str>,
    /// The `Host` for `preserve_host = false`.
    pub(crate) host: HeaderValue,
    pub(crate) weight: u32,
    pub(crate) is_backup: bool,
    /// Hash of the address, stable over restarts, for consistent hashing.
    pub(crate) key: u64,
    in_flight: AtomicU32,
    connector: Connector,
    idle_timeout: Duration,
    /// Per worker, so that no worker waits for another. Newest last.
    pools: Box<[Mutex<Vec<Idle>>]>,
    /// Each worker's share of `max_idle`.
    idle_max: usize,
}

/// A kept connection.
struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// What an [`Endpoint`] is made from.
pub(super) struct Plan {
    pub(super) connector: Connector,
    pub(super) weight: u32,
    pub(super) is_backup: bool,
    pub(super) idle_timeout: Duration,
    /// Over all workers.
    pub(super) idle_max: usize,
    pub(super) workers: usize,
}

impl Endpoint {
    pub(super) fn new(plan: Plan) -> Self {
        let label: Arc<str> = plan.connector.address.to_string().into();
        Self {
            key: stable_hash(label.as_bytes()),
            host: host_of(&plan.connector.address),
            label,
            weight: plan.weight,
            is_backup: plan.is_backup,
            in_flight: AtomicU32::new(0),
            connector: plan.connector,
            idle_timeout: plan.idle_timeout,
            pools: (0..plan.workers).map(|_| Mutex::new(Vec::new())).collect(),
            idle_max: plan.idle_max.div_ceil(plan.workers),
        }
    }

    /// Requests that have been sent and not been answered to the end.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Counts a request in for as long as the guard lives.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(self))
    }

    /// A kept connection that is ready to take a request, the most recently used first: the others may
    /// then grow old and be closed.
    pub(crate) async fn kept(&self, worker: usize) -> Option<SendRequest<RequestBody>> {
        loop {
            let idle = self.pool(worker).pop()?;
            if idle.since.elapsed() >= self.idle_timeout {
                // All below it are older still.
                self.pool(worker).clear();
                return None;
            }
            let mut sender = idle.sender;
            // The last answer may have been read a moment before hyper's own task has put itself in order.
            if sender.is_ready() || (!sender.is_closed() && sender.ready().await.is_ok()) {
                return Some(sender);
            }
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn connect(&self, limit: Duration) -> Result<SendRequest<RequestBody>, ConnectError> {
        self.connector.connect(limit).await
    }

    fn keep(&self, worker: usize, sender: SendRequest<RequestBody>) {
        if sender.is_closed() {
            return;
        }
        let mut pool = self.pool(worker);
        if pool.len() < self.idle_max {
            pool.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self, worker: usize) {
        let mut pool = self.pool(worker);
        let old = pool.iter().take_while(|idle| idle.since.elapsed() >= self.idle_timeout).count();
        pool.drain(..old);
        pool.retain(|idle| !idle.sender.is_closed());
    }

    fn pool(&self, worker: usize) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        let pool = &self.pools[worker % self.pools.len()];
        pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a request out when dropped.
pub(crate) struct InFlight(Arc<Endpoint>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A connection while a request is on it. Dropped, it is closed; given back, it may serve another.
pub(crate) struct Lease {
    in_flight: InFlight,
    sender: SendRequest<RequestBody>,
    worker: usize,
}

impl Lease {
    pub(crate) fn new(in_flight: InFlight, sender: SendRequest<RequestBody>, worker: usize) -> Self {
        Self { in_flight, sender, worker }
    }

    /// Sends one request and waits for the head of its answer.
    ///
    /// # Errors
    /// The connection broke; the error holds the request when nothing of it was sent.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        self.sender.try_send_request(request).await
    }

    /// The answer has been read to its end.
    pub(crate) fn give_back(self) {
        self.in_flight.0.keep(self.worker, self.sender);
    }
}

/// As a client of that address alone would write it; a unix socket has no name of its own.
fn host_of(address: &Address) -> HeaderValue {
    let text = match address {
        Address::Unix(_) => "localhost".to_owned(),
        address => address.to_string(),
    };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("localhost"))
}

/// FNV-1a, 64 bit: the same on every run and machine (draft-eastlake-fnv).
fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("label", &self.label)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("endpoint", &self.in_flight.0.label).finish_non_exhaustive()
    }
}
