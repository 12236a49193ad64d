//! The request path.

pub mod page;
