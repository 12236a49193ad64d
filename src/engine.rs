//! What a request passes through, from the socket it comes in by to the one it goes out by, and what that is kept in.
//!
//! A package of its own so that it alone is built for speed; the rooms around it are built for size.

pub use flagstone_config as config;
pub use flagstone_config::error;

mod alarm;
pub mod allocator;
pub mod balance;
pub mod breaker;
pub mod listener;
pub mod live;
pub mod message;
mod own;
mod pieces;
mod pipe;
pub mod policy;
pub mod proxy;
pub mod route;
pub mod runtime;
mod secret;
mod seldom;
pub mod shared;
mod shared_limit;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod worker;
