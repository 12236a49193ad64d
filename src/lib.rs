//! Flagstone, a sidecar reverse proxy.

pub mod balance;
pub mod breaker;
pub mod config;
pub mod message;
pub mod policy;
pub mod route;
