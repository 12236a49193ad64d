//! The integration tests: one binary, one file per subject, `support` below them all.

#[macro_use]
mod support;

mod bad_upstreams;
mod bodies;
mod bounds;
mod departures;
mod docs;
mod early_answers;
mod first_request;
mod foreign;
mod forwarding;
mod http1;
mod support_itself;
mod timeouts;
mod upgrades;
mod wire;
