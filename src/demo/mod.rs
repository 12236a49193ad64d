//! The demo: a sample app, a configuration that puts Flagstone in front of it, and what to try.
//!
//! | file | what it holds |
//! |---|---|
//! | `sample_app` | the app: it listens, it stops when dropped |
//! | `answers` | what the app says to each path |
//! | `echo` | its WebSocket |
//! | `guide` | the configuration file and the printed text |
//!
//! Nothing here runs the proxy; whoever starts the demo does that. Nothing here is used by `flagstone run`.

mod answers;
mod echo;
mod guide;
mod sample_app;

pub use guide::{Addresses, things_to_try, write_config};
pub use sample_app::SampleApp;
