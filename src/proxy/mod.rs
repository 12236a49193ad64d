//! The way of a request: what is decided about it, where it goes, what the client gets.
//!
//! May import whatever the engine has but its workers; of listener what a request came on and in: its connection, head
//! and body.

pub(crate) mod body;
pub(crate) mod bypass;
mod coarse_clock;
pub(crate) mod connect;
pub(crate) mod context;
pub(crate) mod cut;
pub mod decide;
pub(crate) mod files;
pub mod forward;
pub(crate) mod handle;
pub(crate) mod https;
mod limits;
mod noted;
pub mod page;
pub mod refusal;
pub(crate) mod refused;
pub(crate) mod replay;
pub mod respond;
mod stage;
mod trace;
pub(crate) mod tunnel;
pub(crate) mod unread;

/// A request's head without its body and extensions.
fn head_of<B>(request: &http::Request<B>) -> http::Request<()> {
    let mut head = http::Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}
