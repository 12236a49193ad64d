//! The open file or stream that takes the lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::AccessLogTarget;
use crate::config::regular_file;

/// Owner writes, group reads: lines hold addresses and URLs.
const MODE: u32 = 0o640;

#[derive(Debug)]
pub(super) struct Sink {
    file: File,
}

/// What became of one attempt to write.
#[derive(Debug)]
pub(super) enum Progress {
    /// So many bytes were taken.
    Wrote(usize),
    /// Nothing now; the same bytes may be taken later (a full disk or pipe).
    Later(io::Error),
    /// Nobody will ever read this again (a closed pipe).
    Gone(io::Error),
}

impl Sink {
    /// `None` when the target is `off`.
    pub(super) fn open(target: &AccessLogTarget) -> io::Result<Option<Self>> {
        // Duplicates of the standard streams: closing one must not close the process's own.
        let file = match target {
            AccessLogTarget::Off => return Ok(None),
            AccessLogTarget::Stdout => io::stdout().as_fd().try_clone_to_owned()?.into(),
            AccessLogTarget::Stderr => io::stderr().as_fd().try_clone_to_owned()?.into(),
            AccessLogTarget::File(path) => open_file(path)?,
        };
        Ok(Some(Self { file }))
    }

    /// Whether it could be opened, as far as that can be seen without making it.
    pub(super) fn could_open(target: &AccessLogTarget) -> io::Result<()> {
        let AccessLogTarget::File(path) = target else { return Ok(()) };
        let asked = match path.is_dir() {
            true => Err(Errno::ISDIR),
            false if path.metadata().is_ok_and(|it| it.file_type().is_socket()) => Err(Errno::NXIO),
            false if path.exists() => access(path, Access::WRITE_OK),
            false => access(regular_file::folder(path), Access::WRITE_OK | Access::EXEC_OK),
        };
        asked.map_err(|error| explain(path, &error.into()))
    }

    /// Whether it is a pipe with a name: it can be opened only while somebody reads it. Whether somebody does shows only
    /// when it is opened, and to close it again would be the end for whoever does.
    pub(super) fn is_pipe(target: &AccessLogTarget) -> bool {
        let AccessLogTarget::File(path) = target else { return false };
        // Where /dev/stdout is a pipe, that has no path.
        path.canonicalize().and_then(|path| path.metadata()).is_ok_and(|it| it.file_type().is_fifo())
    }

    /// One `write(2)`, repeated only when a signal cut it short.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Progress {
        loop {
            match self.file.write(bytes) {
                Ok(0) => return Progress::Later(io::ErrorKind::WriteZero.into()),
                Ok(count) => return Progress::Wrote(count),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::BrokenPipe => return Progress::Gone(error),
                    _ => return Progress::Later(error),
                },
            }
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    // Non-blocking matters for a FIFO only: without a reader its open would hang, and so would the start.
    let nonblocking = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(nonblocking.bits() as i32)
        .open(path)
        .map_err(|error| explain(path, &error))
}

/// The same error in words that need no path beside them.
fn explain(path: &Path, error: &io::Error) -> io::Error {
    let message = match Errno::from_io_error(error) {
        Some(Errno::NOENT) => format!("the folder {} does not exist", regular_file::folder(path).display()),
        // As /dev/stdout may be, where systemd takes what is written there.
        Some(Errno::NXIO) => "it is a socket, or a pipe that nobody reads".to_owned(),
        _ => crate::error::io_reason(error),
    };
    io::Error::new(error.kind(), message)
}
