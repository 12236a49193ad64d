//! One look at the flag files: what is there, and what it says. Never waits for anything but the disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::path::Path;

use jiff::Timestamp;

use crate::config::regular_file;
use crate::error::io_reason;
use crate::policy::maintenance::Flag;

/// Read at most; a longer flag is cut there, with a warning.
pub const FLAG_BYTES_MAX: u64 = 64 * 1024;
/// Files looked at in the routes' folder; further ones count as absent, with a warning.
pub const ROUTE_FLAGS_MAX: usize = 1024;

/// What a look at one flag's path found.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    Absent,
    Present(Found),
    /// A link to nothing: there, so maintenance is on, but a flag read before may still hold.
    Dangling(Found),
    /// Nobody can tell: the folder cannot be searched, or the disk fails.
    Unknown(String),
}

/// A flag that is there.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) flag: Flag,
    /// When the file was last written; of the link itself where nothing else is known.
    pub(super) modified: Timestamp,
    /// A regular file without a byte in it.
    pub(super) is_empty: bool,
    pub(super) warning: Option<String>,
}

/// What a look at the routes' folder found, by the route's name.
pub(super) enum Folder {
    Looks { looks: BTreeMap<String, Look>, warning: Option<String> },
    Unknown(String),
}

/// Looks at one flag. Being there is what `lstat` says, so nothing that can be put at the path is missed.
pub(super) fn look(path: &Path) -> Look {
    let link = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if is_absence(&error) => return Look::Absent,
        Err(error) => {
            return Look::Unknown(format!("cannot tell whether {} exists: {}", path.display(), io_reason(&error)));
        }
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        // A file that went away since is absent; a link whose target did is dangling.
        Err(error) if is_absence(&error) && !link.is_symlink() => return Look::Absent,
        Err(error) => {
            let warning = format!("{} is a link that leads nowhere: {}", path.display(), io_reason(&error));
            return Look::Dangling(bare(&link, warning));
        }
    };
    if !metadata.is_file() {
        // Opening could block (a FIFO) or have effects (a device), and there is nothing to read.
        return Look::Present(bare(&metadata, format!("{} is not a regular file", path.display())));
    }
    match read(path) {
        Ok((bytes, metadata)) => Look::Present(parse(path, &bytes, &metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !link.is_symlink() => Look::Absent,
        Err(error) => {
            Look::Present(bare(&metadata, format!("{} cannot be read: {}", path.display(), io_reason(&error))))
        }
    }
}

/// Looks at every `ROUTE.flag` of a folder; a folder that is missing holds none.
pub(super) fn look_in(folder: &Path) -> Folder {
    let unknown =
        |error: io::Error| Folder::Unknown(format!("cannot list {}: {}", folder.display(), io_reason(&error)));
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => {
            return Folder::Looks { looks: BTreeMap::new(), warning: None };
        }
        Err(error) => return unknown(error),
    };
    let (mut looks, mut warning) = (BTreeMap::new(), None);
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return unknown(error),
        };
        let name = entry.file_name();
        let Some(route) = route_of(&name) else {
            continue;
        };
        if looks.len() == ROUTE_FLAGS_MAX {
            warning = Some(format!("{} holds more than {ROUTE_FLAGS_MAX} flags", folder.display()));
            break;
        }
        looks.insert(route.to_owned(), look(&entry.path()));
    }
    Folder::Looks { looks, warning }
}

/// `api.flag` is the route `api`'s; dot files (temporary ones among them) are nobody's.
fn route_of(name: &OsStr) -> Option<&str> {
    let route = name.to_str()?.strip_suffix(".flag")?;
    (!route.is_empty() && !route.starts_with('.')).then_some(route)
}

fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    // A FIFO may have taken the file's place since it was looked at.
    let file = regular_file::open_at_once(path)?;
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    if metadata.is_file() {
        file.take(FLAG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    }
    Ok((bytes, metadata))
}

fn parse(path: &Path, bytes: &[u8], metadata: &Metadata) -> Found {
    let kept = &bytes[..bytes.len().min(FLAG_BYTES_MAX as usize)];
    let (flag, warning) = Flag::parse(kept);
    let mut warning = warning.map(|warning| format!("{}: {warning}", path.display()));
    if kept.len() < bytes.len() {
        let long = format!("{} is longer than {FLAG_BYTES_MAX} bytes and was cut there", path.display());
        warning = Some(warning.map_or(long.clone(), |warning| format!("{warning}; {long}")));
    }
    Found { flag, modified: modified(metadata), is_empty: bytes.is_empty(), warning }
}

fn bare(metadata: &Metadata, warning: String) -> Found {
    Found { flag: Flag::default(), modified: modified(metadata), is_empty: false, warning: Some(warning) }
}

fn modified(metadata: &Metadata) -> Timestamp {
    let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    modified.unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `NotADirectory`: a parent is a file, so nothing can be below it.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
