//! The integration tests: one binary, one file per subject, `support` below them all.

#[macro_use]
mod support;

mod bodies;
mod docs;
mod early_answers;
mod first_request;
mod foreign;
mod http1;
mod support_itself;
mod upgrades;
mod wire;
