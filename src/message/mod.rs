//! The message room: what a request or response head says, and what of it may travel on.
//!
//! Functions over `http` types, nothing else: no clock, no I/O, no state. Each file is one subject:
//!
//! | file | subject | source |
//! |---|---|---|
//! | [`host`] | the one host a request is for | RFC 9112, 3.2; RFC 9113, 8.3.1 |
//! | [`path`] | the one path that is matched and forwarded | RFC 3986, 6.2.2 |
//! | [`hop_by_hop`] | headers that end here, upgrades | RFC 9110, 7.6.1 and 7.8 |
//! | [`forwarded`] | headers that tell the upstream about the client | RFC 7239, nginx |
//! | [`cookie`] | cookies of a request | RFC 6265, 5.4 |
//! | [`trace_context`] | the trace a request belongs to | W3C Trace Context |
//! | [`answer`] | the head of what an app answers, and its framing | RFC 9112, 4 to 6 |
//! | `field_line` | one line of a head | RFC 9112, 5 |
//! | `body` | the body of a message, off the front of what is read | RFC 9112, 6 and 7 |
//! | `chunked` | where chunks and their body end | RFC 9112, 7.1 |
//! | `trailers` | fields behind a body in chunks | RFC 9110, 6.5 |
//! | `hexadecimal` | numbers in hexadecimal | |
//! | [`negotiate`] | the kind and language of an answer made here | RFC 9110, 12.5; RFC 4647 |
//!
//! The order that keeps clients from meddling: `hop_by_hop::strip_request`, then `forwarded::replace`. What the
//! proxy sets is set last, so nothing a client writes can remove it.
//!
//! May import `std`, `http` types, httparse and small value crates; never another room.

pub mod answer;
mod body;
pub(crate) mod chunked;
pub mod cookie;
pub(crate) mod field_line;
pub mod forwarded;
pub(crate) mod hexadecimal;
pub mod hop_by_hop;
pub mod host;
pub mod ip_text;
pub mod negotiate;
pub mod path;
pub mod proxy_protocol;
pub mod trace_context;
pub(crate) mod trailers;
