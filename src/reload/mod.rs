//! What follows files as they change: the configuration and the maintenance flags.

pub mod changes;
pub mod config_file;
pub mod flag_file;
pub mod windows;
