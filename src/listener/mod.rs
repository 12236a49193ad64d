//! The downstream side: bind, accept, judge heads, serve.
//!
//! May import live, snapshot, worker, proxy, tls, config, message and what sockets have in common (alarm, pieces,
//! pipe). What a request means is not decided here.

pub mod accept;
pub mod bind;
pub mod connection;
mod date;
pub mod head;
mod http1;
pub(crate) mod http2;
pub(crate) mod incoming;
pub mod places;
mod proxy_header;
mod rest;
pub(crate) mod roll;
pub(crate) mod serve;
pub(crate) mod stream;
mod timer;
