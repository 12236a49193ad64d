//! The downstream side: bind, accept, judge heads, serve.
//!
//! May import live, snapshot, worker, proxy, tls, config, message, of policy the names of its fields, and what sockets
//! have in common (alarm, pieces, pipe). What a request means is not decided here.
//!
//! | file | what it is |
//! |---|---|
//! | `bind`, `accept`, `places` | a socket that is listened on; its connections, spread over the workers; how many there may be |
//! | `serve` | one connection, from its handshake to its goodbye: begin here |
//! | `stream`, `proxy_header` | its bytes, with TLS or without; for whom a load balancer speaks |
//! | `http1`, `http2` | requests and answers on it |
//! | `head` | a head of HTTP/1 that has one reading |
//! | `connection` | what its requests share |
//! | `incoming` | a request's body |
//! | `timer`, `rest`, `roll` | how long it may take; an idle one; news for all of them |
//! | `date` | the value of `Date` |

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
