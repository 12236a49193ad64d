//! The route room: which value belongs to a host, a path and a method.
//!
//! [`Table`] is the router, generic over what it finds. [`PathSet`] answers whether a path is covered by any of
//! many patterns (exempt paths, paths under maintenance). Neither decodes anything: what arrives here is a host
//! in lower case without its port and a path that has been normalised once, before.
//!
//! May import `std`, `http` types and small value crates; never another room.

mod host;
mod path;
mod table;
mod tree;

pub use host::{HostPattern, HostPatternError};
pub use path::{PathPattern, PathPatternError, PathSet};
pub use table::{AddError, Found, Table, takes};
