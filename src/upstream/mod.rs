//! The upstream side: groups of endpoints, the connections kept to them, and how they are made.
//!
//! May import balance, breaker, message, secret, tls, telemetry, config, what sockets have in common (alarm, pieces,
//! pipe), and of proxy the body of a request. It knows nothing else of downstream.
//!
//! | file | what it is |
//! |---|---|
//! | `group`, `members` | a named upstream; its endpoints at one time |
//! | `endpoint`, `standing`, `pool` | one address; whether it can take requests; the connections kept to it |
//! | `lease` | a connection while a request is on it |
//! | `failures` | why it takes no connection or gives no answer, told now and then |
//! | `connect`, `stream`, `tls`, `verifier`, `hello` | making a connection |
//! | `connection`, `http1`, `http2`, `multiplex` | HTTP/1 or HTTP/2 on it; who drives it; streams that share one |
//! | `affinity` | sticky sessions |
//! | `hold` | requests that wait for an endpoint |
//! | `check`, `probe`, `verdict` | active checks, further probes, what they come to |
//! | `resolve`, `names` | name servers; following a name |

pub(crate) mod affinity;
mod check;
pub mod connect;
pub(crate) mod connection;
pub mod endpoint;
mod failures;
pub mod group;
mod hello;
pub(crate) mod hold;
mod http1;
mod http2;
pub(crate) mod lease;
mod members;
mod multiplex;
mod names;
mod pool;
pub(crate) mod probe;
mod resolve;
pub mod standing;
pub mod stream;
pub(crate) mod tls;
pub mod verdict;
mod verifier;

pub(crate) use members::Wish;
pub use resolve::Resolver;
pub use tls::UpstreamTlsError;
