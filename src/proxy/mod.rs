//! The way of a request: what is decided about it, where it goes, what the client gets.
//!
//! May import whatever the engine has but its workers; of listener what a request came on and in: its connection, head
//! and body.
//!
//! | file | what it is |
//! |---|---|
//! | `handle` | the way itself, top to bottom: begin here |
//! | `context`, `noted`, `trace` | what is known of a request until its answer's last byte |
//! | `decide` | what becomes of it, up to its limits; `explain` and every `[[test]]` ask the same |
//! | `https`, `bypass` | sending it on to https; who sees the app in maintenance |
//! | `limits` | asking its route's limits |
//! | `forward` | to an endpoint and back: attempts, waiting, failures |
//! | `files`, `respond` | answers from a folder; redirects, fixed ones, and the last touches to all |
//! | `refusal`, `page` | the table of refusals; what people read of them |
//! | `refused` | what is refused before it is a request |
//! | `body`, `replay`, `unread` | bodies both ways; kept for a further try; left by whoever answered |
//! | `connect`, `tunnel` | an upgrade on a stream of HTTP/2; bytes both ways behind an upgrade |
//! | `waiting` | what ends the wait for a turn or an endpoint |
//! | `cut` | maintenance that ends what is in flight |
//! | `stage`, `coarse_clock` | what makes it cheaper |

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
mod waiting;

/// A request's head without its body and extensions.
fn head_of<B>(request: &http::Request<B>) -> http::Request<()> {
    let mut head = http::Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}
