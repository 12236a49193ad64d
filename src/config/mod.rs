//! The configuration: from TOML to proven values.

pub mod model;
