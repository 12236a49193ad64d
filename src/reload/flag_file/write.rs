//! Writing and removing a flag file, for whoever does it from inside: the command line, the admin side,
//! a window.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::look_at;
use super::read::{self, Look};
use crate::config::{regular_file, second};
use crate::policy::maintenance::Flag;

/// Writes a flag file so that a reader sees the old one, the new one or none, never a part; it is on disk
/// when this returns. The folder is created when missing.
///
/// # Errors
/// What creating, writing, syncing or renaming ran into; the path is then as it was.
pub fn write_flag(path: &Path, flag: &Flag) -> io::Result<()> {
    regular_file::replace(path, flag.to_toml().as_bytes())
}

/// As [`write_flag`], where there is none yet.
///
/// # Errors
/// As there, and `AlreadyExists` where there is one.
pub(in crate::reload) fn make_flag(path: &Path, flag: &Flag) -> io::Result<()> {
    regular_file::make(path, flag.to_toml().as_bytes())
}

/// Writes a flag that began when the one that is there did: changing what it says does not begin a new maintenance.
/// With none there it begins `now`, unless it says otherwise. What was written.
///
/// # Errors
/// As [`write_flag`].
pub fn begin_or_change(path: &Path, flag: Flag, now: Timestamp) -> io::Result<Flag> {
    let begun = look_at(path).ok().flatten().map(|active| active.since);
    let flag = Flag { started_at: flag.started_at.or(begun).or(Some(second::floor(now))), ..flag };
    write_flag(path, &flag).map(|()| flag)
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
            regular_file::sync_folder(path);
            Ok(true)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a flag that is over, by what `is_over` says of a look at it, and nothing else: somebody may have put another
/// one in its place since it was looked at last, which stays. What is there now.
///
/// # Errors
/// What removing ran into.
pub(super) fn remove_over(path: &Path, is_over: impl Fn(&Look) -> bool) -> io::Result<Look> {
    let there = read::look(path);
    if !is_over(&there) {
        return Ok(there);
    }
    // Nobody writes under this name: what is looked at there is what is removed.
    let taken = regular_file::beside(path);
    match fs::rename(path, &taken) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Look::Absent);
        }
        moved => moved?,
    }
    if is_over(&read::look(&taken)) {
        remove_flag(&taken)?;
    } else if let Err(error) = regular_file::move_to_free(&taken, path) {
        // It has been followed by another one, or cannot go back without a risk for that.
        match error.kind() {
            io::ErrorKind::AlreadyExists => drop(remove_flag(&taken)?),
            _ => fs::rename(&taken, path)?,
        }
    }
    Ok(read::look(path))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Removes the flag `path` as over, while `put` puts others in its place: at the first look, at the second.
    fn removed_while(path: &Path, put: &[&dyn Fn()]) -> Look {
        let looks = Cell::new(0);
        let is_over = |_: &Look| {
            let number = looks.replace(looks.get() + 1);
            put.get(number).inspect(|put| put());
            number == 0 || put.is_empty()
        };
        remove_over(path, is_over).unwrap()
    }

    #[test]
    fn what_takes_the_place_of_a_flag_that_is_over_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("maintenance.flag");
        let (one, two) =
            (|| regular_file::replace(&path, b"one").unwrap(), || regular_file::replace(&path, b"two").unwrap());
        let put: [&[&dyn Fn()]; 2] = [&[&one], &[&one, &two]];
        for (put, last) in put.into_iter().zip(["one", "two"]) {
            fs::write(&path, "over").unwrap();
            assert!(matches!(removed_while(&path, put), Look::Present(_)));
            assert_eq!(fs::read_to_string(&path).unwrap(), last);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left lying about");
        }
    }

    #[test]
    fn a_link_or_a_folder_that_takes_the_place_of_a_flag_that_is_over_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("maintenance.flag");
        fs::write(folder.path().join("target"), "x").unwrap();
        let taken_by = |put: &dyn Fn(&Path)| {
            fs::write(&path, "over").unwrap();
            let put = || {
                fs::remove_file(&path).unwrap();
                put(&path);
            };
            removed_while(&path, &[&put])
        };
        assert!(matches!(taken_by(&|path| symlink("target", path).unwrap()), Look::Present(_)));
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("target"));
        assert!(matches!(taken_by(&|path| symlink("nowhere", path).unwrap()), Look::Dangling(_)));
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("nowhere"));
        fs::remove_file(&path).unwrap();
        assert!(matches!(taken_by(&|path| fs::create_dir(path).unwrap()), Look::Present(_)));
        assert!(path.is_dir());
    }

    #[test]
    fn of_a_link_that_is_over_the_link_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("maintenance.flag"), folder.path().join("target"));
        fs::write(&target, "over").unwrap();
        symlink("target", &path).unwrap();
        assert_eq!(removed_while(&path, &[]), Look::Absent);
        symlink("nowhere", &path).unwrap();
        assert_eq!(removed_while(&path, &[]), Look::Absent);
        assert!(fs::symlink_metadata(&path).is_err() && target.exists());
        assert_eq!(removed_while(&path, &[]), Look::Absent, "it has gone already");
    }
}
