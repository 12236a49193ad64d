//! A file that is not to be had for the moment, as on a disk that does not answer (fcntl(2), "Leases").
//!
//! Whoever opens it waits in the kernel until this is dropped, or for the 45 seconds of `fs.lease-break-time`. Not for
//! who opens it with `O_NONBLOCK`, as Flagstone does what may be a pipe: pages are read without.

#![allow(unsafe_code, reason = "no safe interface takes a lease")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// `F_SETSIG` of fcntl(2), which libc does not name.
const F_SETSIG: libc::c_int = 10;

/// Opens by others wait as long as this lives.
#[derive(Debug)]
pub struct Stalled(File);

impl Stalled {
    /// Whether somebody waits for it.
    pub fn is_awaited(&self) -> bool {
        // SAFETY: as below. It says what the lease is to become.
        unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETLEASE) != libc::F_WRLCK }
    }
}

/// Stalls a file that nobody has open.
///
/// # Errors
/// The file system gives no leases.
pub fn stall(path: &Path) -> io::Result<Stalled> {
    let file = File::open(path)?;
    let asked = |result: libc::c_int| if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: these take a descriptor that is open and no pointers.
    unsafe {
        // The holder is told of whoever waits, by a signal that ends it unless it is one that nobody minds.
        asked(libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG))?;
        asked(libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK))?;
    }
    Ok(Stalled(file))
}
