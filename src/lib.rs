//! Flagstone, a sidecar reverse proxy.

pub mod balance;
pub mod breaker;
pub mod cli;
pub mod config;
pub mod demo;
pub mod message;
pub mod policy;
pub mod proxy;
pub mod reload;
pub mod route;
pub mod telemetry;
