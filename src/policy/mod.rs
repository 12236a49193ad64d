//! What may pass: client address, access lists, limits, maintenance. Pure: `now` is an argument.

pub mod access;
pub mod block_list;
pub mod client_ip;
pub mod limit;
pub mod maintenance;
pub mod window;
