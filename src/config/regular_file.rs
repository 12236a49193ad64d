//! Reading what is meant to be a regular file, without waiting for anything but the disk, and replacing it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;

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

/// The first `bytes_max` bytes as text; empty where there is no file.
///
/// # Errors
/// It is there and cannot be read.
pub fn text_of(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = Vec::new();
    match open(path) {
        Ok(file) => file.take(bytes_max).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Moves one out of the way that cannot be used, for it may be wanted back, and warns of `what` that means.
///
/// # Errors
/// It cannot be moved.
pub fn set_aside(path: &Path, what: impl fmt::Display) -> io::Result<()> {
    let aside = path.with_extension("unusable");
    tracing::warn!(file = %path.display(), aside = %aside.display(), "{what}");
    fs::rename(path, aside)
}

/// Gives a file the name `to`, which nobody is to have yet.
///
/// # Errors
/// Somebody has it: `AlreadyExists`. Or it cannot be moved.
pub fn move_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Network file systems know links alone.
        Err(Errno::INVAL | Errno::NOSYS) => fs::hard_link(from, to).and_then(|()| fs::remove_file(from)),
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

/// Replaces a file, or makes it, so that a reader sees the old content or the new one, never a part; it is on disk when
/// this returns. The folder is created when missing. Made by root in a folder of somebody else, it is theirs.
///
/// # Errors
/// What creating, writing, syncing or renaming ran into; the path is then as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, |from, to| fs::rename(from, to))
}

/// As [`replace`], where nobody has the name yet.
///
/// # Errors
/// As there, and `AlreadyExists` where somebody has.
pub fn make(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, move_to_free)
}

fn put(path: &Path, bytes: &[u8], name: impl FnOnce(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
    make_folder(folder(path))?;
    let temporary = beside(path);
    let written = write_synced(&temporary, bytes).and_then(|()| name(&temporary, path));
    if written.is_err() {
        // Best effort: the error that counts is the one above.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder(path);
    Ok(())
}

/// A name in the folder of a file that nobody else uses, not even the first process of another container that shares the
/// folder. It does not grow with the file's own, which may be as long as names can be.
pub fn beside(path: &Path) -> PathBuf {
    folder(path).join(format!(".flagstone.{:016x}", fastrand::u64(..)))
}

/// The folder a path lies in; the present one for a bare name.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes what has become of the names in a file's folder last. Some file systems cannot sync a folder.
pub fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(folder(path)) {
        let _ = folder.sync_all();
    }
}

/// Makes a folder and those above it that are missing.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_folder(above)?;
    }
    match fs::create_dir(path) {
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        made => made?,
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    if let Ok(made) = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        give_to_owner_of_folder(&made, path);
    }
    Ok(())
}

/// What root makes in somebody else's folder is theirs: a process with a user of its own is to read and to remove what was
/// typed as root, whatever root's umask. By the handle, for who owns the folder may put a link in its place.
fn give_to_owner_of_folder(made: &File, path: &Path) {
    if geteuid().is_root()
        && let Ok(folder) = fs::metadata(folder(path))
        && folder.uid() != 0
    {
        // Best effort: where it is not possible, as on some network file systems, it stays root's.
        let _ = fchown(made, Some(folder.uid()), Some(folder.gid()));
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    give_to_owner_of_folder(&file, path);
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn a_file_of_the_longest_name_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("n".repeat(255));
        for content in ["one", "two"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left lying about");
    }

    /// As `sudo flagstone maintenance on` does it, where the process has a user of its own.
    #[test]
    fn what_root_makes_in_somebodys_folder_is_theirs() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let owners = |path: &Path| fs::metadata(path).map(|it| (it.uid(), it.gid())).unwrap();
        let path = folder.path().join("new/below/file");
        for somebody in [(65_534, 65_533), (65_532, 65_534)] {
            chown(folder.path(), Some(somebody.0), Some(somebody.1)).unwrap();
            replace(&path, b"text").unwrap();
            // What was there before stays whose it was, and what is made there is for them.
            assert_eq!([owners(&path), owners(folder.path().join("new").as_path())], [(65_534, 65_533); 2]);
        }
    }

    #[test]
    fn what_is_made_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        make(&path, b"one").unwrap();
        assert_eq!(make(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left lying about");
    }
}
