//! What operators see: the access log, the events and the metrics.
//!
//! An I/O room: it owns the threads, files and counters that observe the proxy. It decides nothing about a
//! request and imports only [`crate::config::model`], and the message room's trace context. The request path pays for a handful of atomics and one
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
