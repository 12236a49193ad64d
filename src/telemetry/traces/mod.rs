//! Traces: what became of recorded requests, on its way to a collector by OTLP.
//!
//! Nobody waits for a collector. A request that is recorded leaves what is known of it in a bounded queue, a push under
//! a lock that nobody holds for longer than that; where the queue is full it is counted as dropped. Everything else,
//! from spans to bytes to the network, happens on the housekeeping thread.
//!
//! | file | what it is |
//! |---|---|
//! | `span` | spans and their attributes, as OpenTelemetry's semantic conventions for HTTP have them |
//! | `resource` | who sends them, and what the environment adds |
//! | `export` | batches, failures, the last one |

mod export;
mod resource;
mod span;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Version};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::export::Exporter;
use crate::message::trace_context::TraceContext;
use crate::telemetry::metrics::Metrics;

/// Recorded requests that wait to be exported; further ones are dropped. As OpenTelemetry's own exporters have it.
const QUEUE_MAX: usize = 2048;
/// Tries at endpoints that are recorded of one request.
const ATTEMPTS_MAX: usize = 16;

/// How a try ended that the request's client gave up, or spoilt.
pub(crate) const CANCELLED: &str = "cancelled";

/// Of a path, a query or an agent.
const TEXT_BYTES_MAX: usize = 1024;

/// What is kept of a text from outside: its beginning, copied, so that no head waits whole in the queue, or among events.
pub fn shortened(text: &str) -> String {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text[..end.unwrap_or(0)].to_owned()
}

/// A recorded request that is over. Its texts are [`shortened`].
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its own span.
    pub(crate) context: TraceContext,
    /// The span that it came from; `None` = the trace began here.
    pub(crate) parent: Option<u64>,
    /// As it came.
    pub(crate) tracestate: Option<String>,
    pub(crate) began: SystemTime,
    /// The same moment, by the clock of its attempts.
    pub(crate) began_at: Instant,
    pub(crate) duration: Duration,
    pub(crate) method: Method,
    pub(crate) scheme: &'static str,
    /// Normalised.
    pub(crate) path: String,
    /// As the client sent it, secrets and all.
    pub(crate) query: Option<String>,
    /// Empty = the request names none.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) client: IpAddr,
    /// `None` on a unix socket.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) version: Version,
    pub(crate) user_agent: Option<String>,
    pub(crate) request_id: String,
    /// `None` = the client left before there was one.
    pub(crate) status: Option<u16>,
    pub(crate) body_bytes: u64,
    pub(crate) route: Option<Arc<str>>,
    /// The path of the route that matched, in the file's words.
    pub(crate) pattern: Option<String>,
    pub(crate) reason: Option<&'static str>,
    pub(crate) decided_by: Option<Arc<str>>,
    pub(crate) upstream: Option<Arc<str>>,
    pub(crate) attempts: Attempts,
}

impl Finished {
    /// How many spans it makes.
    fn span_count(&self) -> usize {
        1 + self.attempts.kept.len()
    }
}

/// The tries at endpoints of one request, in order.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    kept: Vec<Attempt>,
    count: usize,
}

/// One try at one endpoint.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// What the app is told as its parent.
    pub(crate) span_id: u64,
    pub(crate) upstream: Arc<str>,
    pub(crate) endpoint: Arc<str>,
    /// Path and query, as the app is asked for them.
    pub(crate) target: String,
    pub(crate) is_tls: bool,
    pub(crate) is_http2: bool,
    pub(crate) began: Instant,
    /// `None` = still going on.
    pub(crate) end: Option<AttemptEnd>,
}

/// How a try ended.
#[derive(Debug)]
pub(crate) struct AttemptEnd {
    pub(crate) after: Duration,
    /// The status of the answer, or what went wrong.
    pub(crate) outcome: Result<u16, &'static str>,
}

impl Attempts {
    /// Whether it is kept.
    pub(crate) fn begin(&mut self, attempt: Attempt) -> bool {
        self.count += 1;
        let is_kept = self.kept.len() < ATTEMPTS_MAX;
        if is_kept {
            self.kept.push(attempt);
        }
        is_kept
    }

    /// Of the one that began last; `now` is when.
    pub(crate) fn end(&mut self, outcome: Result<u16, &'static str>, now: Instant) {
        if let Some(last) = self.kept.last_mut().filter(|_| self.count <= ATTEMPTS_MAX) {
            last.end = Some(AttemptEnd { after: now.saturating_duration_since(last.began), outcome });
        }
    }
}

/// What waits to be exported. Shared by all workers and generations.
#[derive(Debug)]
pub struct Traces {
    queue: Mutex<VecDeque<Box<Finished>>>,
    /// The queue is half full: do not wait for the next tick.
    half_full: Notify,
    dropped: AtomicU64,
    metrics: Metrics,
}

impl Traces {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { queue: Mutex::default(), half_full: Notify::new(), dropped: AtomicU64::new(0), metrics }
    }

    /// Takes a request that is over, or counts its spans as dropped.
    pub(crate) fn push(&self, finished: Box<Finished>) {
        let mut queue = self.queue.lock();
        if queue.len() >= QUEUE_MAX {
            drop(queue);
            return self.drop_spans(finished.span_count());
        }
        queue.push_back(finished);
        let is_half_full = queue.len() == QUEUE_MAX / 2;
        drop(queue);
        if is_half_full {
            self.half_full.notify_one();
        }
    }

    /// The oldest, at most `max`.
    fn take(&self, max: usize) -> VecDeque<Box<Finished>> {
        let mut queue = self.queue.lock();
        let count = max.min(queue.len());
        let later = queue.split_off(count);
        std::mem::replace(&mut *queue, later)
    }

    /// Spans lost since the start of the process.
    fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn drop_spans(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Relaxed);
        self.metrics.spans_dropped(count as u64);
    }

    fn export_spans(&self, count: usize) {
        self.metrics.spans_exported(count as u64);
    }
}
