//! Replacing the running binary without dropping a connection.
//!
//! ```text
//! the process that serves                      the new one
//! starts the program, passes its sockets  ──▶  reads the configuration, builds everything, binds what it did not get
//!                                         ◀──  Built
//! State: buckets, breakers, endpoints     ──▶  goes on where they stood, accepts
//!                                         ◀──  Serving
//! looks for a while whether it stays up
//! Committed                               ──▶  tells systemd that it is there
//! accepts no more, drains, ends
//! ```
//! Until it says Committed, the old process accepts as if nothing had happened: whatever goes wrong with the new one,
//! nothing was lost. When the old one dies instead, the new one serves on with what it has.
//!
//! Listening sockets travel by systemd's convention (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`, sd_listen_fds(3)),
//! so that the same code takes those of a `.socket` unit. Beside them travels one end of a socket pair for the words
//! above, named by [`CHANNEL`].

pub(crate) mod channel;
pub(crate) mod inherited;
mod spawn;
pub(crate) mod state;
mod successor;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(crate) use channel::Passed;
pub(crate) use inherited::Inheritance;
pub(crate) use successor::{Offer, UpgradeError, Upgraded, run};

/// The environment variable with the number of the channel's descriptor.
const CHANNEL: &str = "FLAGSTONE_HANDOVER";

/// In a listener's place for the socket of a unit that no listener has at the moment: none has such a name.
pub(crate) const SPARE: &str = "";

/// How to start this program anew. Found once, at the start: later the file may be another, which is the point.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Notes where the program of this process is. To be called at the start, by whoever may be replaced later.
pub(crate) fn note_program() {
    if let Some(program) = program() {
        let _ = PROGRAM.set(program);
    }
}

/// By the name it was called with, so that a link swapped since then is followed; by what the system knows where that
/// name leads elsewhere.
fn program() -> Option<PathBuf> {
    let running = std::env::current_exe().ok();
    let is_running = |path: &PathBuf| match &running {
        Some(running) => same_file(path, running),
        // Nobody can tell without /proc.
        None => path.is_file(),
    };
    let name = PathBuf::from(std::env::args_os().next()?);
    let called = match name.components().count() {
        0 | 1 if !name.is_absolute() => {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&folders).map(|folder| folder.join(&name)).find(is_running)
        }
        _ => std::path::absolute(&name).ok().filter(is_running),
    };
    called.or(running)
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}
