//! Writing and removing a flag file, for whoever does it from inside: the command line, the admin side,
//! a window.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::maintenance::Flag;

/// Writes a flag file so that a reader sees the old one, the new one or none, never a part; it is on disk
/// when this returns. The folder is created when missing.
///
/// # Errors
/// What creating, writing, syncing or renaming ran into; the path is then as it was.
pub fn write_flag(path: &Path, flag: &Flag) -> io::Result<()> {
    write_atomically(path, flag.to_toml().as_bytes())
}

/// The same for any file.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder(path);
    fs::create_dir_all(folder)?;
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?.to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.{}", process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: the error that counts is the one above.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder(folder);
    Ok(())
}

/// Removes whatever stands at a flag's path: `false` when nothing did. A link is removed, not its target; a
/// folder only when it is empty.
///
/// # Errors
/// What removing ran into.
pub fn remove_flag(path: &Path) -> io::Result<bool> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => {
            sync_folder(folder(path));
            Ok(true)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The folder a path lies in; the present one for a bare name.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A file of that name can only be left from a crash of a process with our id.
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            OpenOptions::new().write(true).create_new(true).open(path)?
        }
        opened => opened?,
    };
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the rename itself last. Some file systems cannot sync a folder; the flag works there all the same.
fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}
