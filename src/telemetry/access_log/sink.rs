//! The open file or stream that takes the lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::AccessLogTarget;
use crate::config::regular_file;

/// Owner writes, group reads: lines hold addresses and URLs.
const MODE: u32 = 0o640;

/// What a pipe takes in one piece, whoever else writes to it: `PIPE_BUF`, pipe(7). So does a stream socket.
const PIECE_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    /// Takes a write of any length in one piece, unless it is full.
    is_regular: bool,
    /// A regular file with a name: another process or log may write to it as well, and it stays as this one leaves it.
    is_shared: bool,
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
        let file: File = match target {
            AccessLogTarget::Off => return Ok(None),
            AccessLogTarget::Stdout => io::stdout().as_fd().try_clone_to_owned()?.into(),
            AccessLogTarget::Stderr => io::stderr().as_fd().try_clone_to_owned()?.into(),
            AccessLogTarget::File(path) => open_file(path)?,
        };
        let is_regular = file.metadata().is_ok_and(|it| it.is_file());
        let is_shared = is_regular && matches!(target, AccessLogTarget::File(_));
        Ok(Some(Self { file, is_regular, is_shared }))
    }

    /// Whether both write to one file.
    pub(super) fn is_that_of(&self, other: &Self) -> bool {
        let identity = |sink: &Self| sink.file.metadata().map(|it| (it.dev(), it.ino()));
        self.is_shared && other.is_shared && matches!((identity(self), identity(other)), (Ok(a), Ok(b)) if a == b)
    }

    /// Whether the file ends where this sink has written last. Not so where another writes to it too, or has truncated it.
    pub(super) fn ends_here(&mut self) -> bool {
        // Behind each write the position of a file that is appended to is its end.
        let ends = |file: &mut File| Ok::<_, io::Error>(file.stream_position()? == file.metadata()?.len());
        !self.is_shared || ends(&mut self.file).unwrap_or(true)
    }

    /// Whether the file's last line has no end. False where that cannot be told.
    pub(super) fn ends_in_part(&self) -> bool {
        let last = || {
            // The handle is for writing alone, and the file may have another name by now.
            let file = File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
            let mut last = [b'\n'];
            if let Some(at) = file.metadata()?.len().checked_sub(1) {
                file.read_at(&mut last, at)?;
            }
            Ok::<_, io::Error>(last[0])
        };
        self.is_shared && last().is_ok_and(|last| last != b'\n')
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
        let piece = if self.is_regular { bytes } else { piece_of(bytes) };
        loop {
            match self.file.write(piece) {
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

/// Whole lines that stay whole: stdout and stderr may be one pipe, which events are written to as well, and which an
/// upgrade's other process has, too. Of a line that is longer nobody can say so.
fn piece_of(bytes: &[u8]) -> &[u8] {
    if bytes.len() <= PIECE_MAX {
        return bytes;
    }
    let newline = memchr::memrchr(b'\n', &bytes[..PIECE_MAX]).or_else(|| memchr::memchr(b'\n', bytes));
    newline.map_or(bytes, |newline| &bytes[..=newline])
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes_each: usize, count: usize) -> Vec<u8> {
        [vec![b'x'; bytes_each - 1], vec![b'\n']].concat().repeat(count)
    }

    #[test]
    fn a_pipe_is_given_whole_lines_that_it_takes_in_one_piece() {
        assert_eq!(piece_of(&lines(100, 3)).len(), 300);
        assert_eq!(piece_of(&lines(100, 300)).len(), 4000);
        assert_eq!(piece_of(&lines(4096, 3)).len(), 4096);
        assert_eq!(piece_of(&lines(5000, 3)).len(), 5000, "a longer line goes by itself");
        assert_eq!(piece_of(&[lines(100, 1), lines(5000, 1)].concat()).len(), 100);
    }

    #[test]
    fn a_regular_file_is_given_all_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let target = AccessLogTarget::File(folder.path().join("access.log"));
        let mut sink = Sink::open(&target).unwrap().unwrap();
        assert!(matches!(sink.write(&lines(100, 300)), Progress::Wrote(30_000)));
    }
}
