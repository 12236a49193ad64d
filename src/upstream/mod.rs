//! The upstream side: groups of endpoints, the connections kept to them, and how they are made.
//!
//! May import balance, breaker, config::model, hyper, tokio and rustls. Knows nothing of downstream.

pub mod connect;
pub mod endpoint;
pub mod group;
mod resolve;
pub mod stream;
pub(crate) mod tls;

pub use resolve::Resolver;
pub use tls::UpstreamTlsError;
