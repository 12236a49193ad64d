//! What operators see: the access log, events and webhooks, metrics and traces.
//!
//! An I/O room: it owns the threads, files and counters that observe the proxy, and decides nothing about a request.
//! May import config, what message knows of traces and of addresses as text, and, for what it sends itself (webhooks
//! and traces), how upstream finds and reaches an address, and the roots of tls. The request path pays for a handful of atomics and one
//! line formatted into its worker's own buffer; everything else happens at a scrape, a tick, or on the log's thread.

pub mod access_log;
pub mod clock;
pub mod events;
pub mod host;
pub mod machine;
pub mod metrics;
pub mod notify;
mod post;
pub mod recent;
pub mod traces;
