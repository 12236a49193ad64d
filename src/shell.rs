//! What stands around the engine: commands, the admin side, reloads, upgrades, and the process as a whole.
//!
//! A package of its own so that it is built for size: no request passes through it.

pub use flagstone_config as config;
pub use flagstone_config::error;
pub use flagstone_demo as demo;
use flagstone_engine::runtime;
pub use flagstone_engine::{
    balance, breaker, listener, live, message, policy, proxy, route, shared, snapshot, telemetry, tls, upstream, worker,
};

pub mod admin;
pub mod app;
pub mod cli;
mod explain;
pub mod reload;
mod systemd;
mod upgrade;
