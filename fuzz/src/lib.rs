//! What must hold for any bytes at all, one module per target. Each has a `check` that panics when it does not.
//!
//! The targets run them on nightly with coverage; `tests/it/corpus.rs` runs them on every file of `fuzz/corpus` with
//! every other test. So nothing here may depend on libfuzzer.

pub mod answer;
pub mod configuration;
pub mod connection;
pub mod flag;
pub mod forwarded;
pub mod path;
pub mod proxy_header;
mod reference;
pub mod trace_context;
