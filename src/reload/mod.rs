//! What follows files as they change: the configuration, the maintenance flags, certificates.

pub(crate) mod certificates;
pub mod changes;
pub mod config_file;
pub mod flag_file;
mod remembered;
pub mod watch;
pub mod windows;
