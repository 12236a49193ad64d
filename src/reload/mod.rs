//! What follows files as they change.

pub mod flag_file;
