//! What happened, one log line each: the closed set of docs/logs-and-metrics.md, and the log lines around it.
//!
//! [`Event`] is the set, with its exact messages; [`EventLog`] logs events, keeps the last thousand and hands them
//! to whoever listens; [`init`] sets up how every line looks; [`Sampler`] thins out the events that a flood of
//! requests would repeat. None of it is the access log, and nothing here is called for an ordinary request.

mod event;
mod format;
mod log;
mod sampler;
mod setup;

pub use self::event::{Event, Level, Value};
pub use self::log::{EventLog, RECENT, Record};
pub use self::sampler::Sampler;
pub use self::setup::{InitError, LogGuard, LossWatch, follow, init};

#[cfg(test)]
pub(crate) mod tests;
