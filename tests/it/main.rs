//! The integration tests: one binary, one file per subject, `support` below them all.

#[macro_use]
mod support;

mod docs;
mod first_request;
mod foreign;
mod support_itself;
mod wire;
