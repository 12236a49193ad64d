//! The command line.

pub mod maintenance;
