//! Reading what is meant to be a regular file, without waiting for anything but the disk.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Opens it for reading.
///
/// # Errors
/// It cannot be opened, or it is a pipe, a socket or a device.
pub fn open(path: &Path) -> io::Result<File> {
    let file = open_at_once(path)?;
    let metadata = file.metadata()?;
    // Reading a folder says what it is.
    match metadata.is_file() || metadata.is_dir() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file but a pipe, a socket or a device")),
    }
}

/// Moves one out of the way that cannot be used, for it may be wanted back, and warns of `what` that means.
///
/// # Errors
/// It cannot be moved.
pub fn set_aside(path: &Path, what: impl fmt::Display) -> io::Result<()> {
    let aside = path.with_extension("unusable");
    tracing::warn!(file = %path.display(), aside = %aside.display(), "{what}");
    std::fs::rename(path, aside)
}

/// Gives a file the name `to`, which nobody is to have yet.
///
/// # Errors
/// Somebody has it: `AlreadyExists`. Or it cannot be moved.
pub fn move_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Network file systems know links alone.
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::hard_link(from, to).and_then(|()| std::fs::remove_file(from)),
        moved => Ok(moved?),
    }
}

/// Opens whatever is there: a pipe that nobody writes to, too, which would be waited for otherwise.
///
/// # Errors
/// It cannot be opened.
pub fn open_at_once(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}
