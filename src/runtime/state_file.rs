//! One JSON file in the state folder: versioned, replaced whole, on disk before a change is said to be made.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value, json};

use super::{ChangeError, Unreadable};
use crate::config::regular_file;
use crate::error::io_reason;

/// What this build writes. A file of a later version is set aside, not overwritten.
const VERSION: u64 = 1;
/// Far above what the bounds of its users allow.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where something is kept; nowhere by default, as for a mere check of a configuration.
#[derive(Debug, Default)]
pub(super) struct StateFile {
    path: Option<PathBuf>,
    /// It is another process's. Held for the whole of a change.
    is_only_read: Mutex<bool>,
    /// As [`Self::is_replaced`] found it last.
    seen: Mutex<Option<Stamp>>,
}

/// What is kept in such a file, and can go on from what another process has left there.
pub(super) trait Kept {
    fn file(&self) -> &StateFile;

    /// From now on what the file holds is in force.
    ///
    /// # Errors
    /// As [`Access::read`]; then all stays as it was.
    fn adopt(&self, file: &Access<'_>) -> Result<(), Unreadable>;

    /// Adopts what another process has left in the file, if it has changed it; whether it has.
    ///
    /// # Errors
    /// As [`Self::adopt`].
    fn follow(&self) -> Result<bool, Unreadable> {
        let is_changed = self.file().is_replaced();
        if is_changed {
            self.adopt(&self.file().access())?;
        }
        Ok(is_changed)
    }
}

/// What tells a file from the one that took its place: every change makes a new one.
type Stamp = (u64, u64, i64, i64);

/// The file while nobody else in this process changes it.
pub(super) struct Access<'a> {
    path: Option<&'a Path>,
    is_only_read: MutexGuard<'a, bool>,
}

impl StateFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path: Some(path), ..Self::default() }
    }

    /// For who only reads: the file stays as it is, whatever is in it.
    pub(super) fn to_look_at(path: PathBuf) -> Self {
        Self { path: Some(path), is_only_read: Mutex::new(true), ..Self::default() }
    }

    /// For a change, which waits for the disk. Who looks at what is kept in it needs another lock.
    pub(super) fn access(&self) -> Access<'_> {
        let is_only_read = self.is_only_read.lock();
        Access { path: self.path.as_deref(), is_only_read }
    }

    /// Leaves it to another process. What is being written is waited for.
    pub(super) fn hand_over(&self) {
        *self.access().is_only_read = true;
    }

    /// Whether another file is there than at the last time that this was asked.
    pub(super) fn is_replaced(&self) -> bool {
        let file = self.path.as_ref().and_then(|path| fs::metadata(path).ok());
        let stamp = file.map(|file| (file.dev(), file.ino(), file.mtime(), file.mtime_nsec()));
        std::mem::replace(&mut *self.seen.lock(), stamp) != stamp
    }

    /// Takes it from another process, to be read again.
    pub(super) fn take_over(&self) -> Access<'_> {
        let mut held = self.access();
        *held.is_only_read = false;
        held
    }
}

impl Access<'_> {
    /// The object in the file; `None` when there is no file or none that can be used.
    ///
    /// # Errors
    /// It may well be sound, but not be read here and now. It stays where it is.
    pub(super) fn read(&self) -> Result<Option<Map<String, Value>>, Unreadable> {
        let Some(path) = self.path else { return Ok(None) };
        let text = match text_of(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_of_another_kind(&error) => Err(io_reason(&error)),
            Err(error) => return Err(Unreadable { file: path.display().to_string(), reason: io_reason(&error) }),
        };
        Ok(match text.and_then(|text| parse(&text)) {
            Ok(object) => Some(object),
            Err(_) if *self.is_only_read => None,
            Err(reason) => {
                // Where it cannot be moved it will be replaced by the next change, as it would have been anyway.
                let _ = regular_file::set_aside(path, format_args!("runtime state is lost: {reason}"));
                None
            }
        })
    }

    /// What the object `table` of the file holds by name, the first `max` of it. What `parse` finds nothing in is left out
    /// and told of by `what`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn entries<T>(
        &self,
        table: &str,
        max: usize,
        parse: impl Fn(&Value) -> Option<T>,
        what: &str,
    ) -> Result<BTreeMap<String, T>, Unreadable> {
        let object = self.read()?.unwrap_or_default();
        let (mut entries, mut unusable) = (BTreeMap::new(), Vec::new());
        for (name, value) in object.get(table).and_then(Value::as_object).into_iter().flatten().take(max) {
            match parse(value) {
                Some(entry) => {
                    entries.insert(name.clone(), entry);
                }
                None => unusable.push(json!({ name: value })),
            }
        }
        self.warn(&unusable.iter().collect::<Vec<_>>(), what);
        Ok(entries)
    }

    /// Tells of parts that cannot be used, unless that is for another process to tell.
    pub(super) fn warn(&self, parts: &[&Value], what: &str) {
        let (Some(first), Some(path), false) = (parts.first(), self.path, *self.is_only_read) else { return };
        tracing::warn!(file = %path.display(), count = parts.len(), %first, "{what}");
    }

    /// Replaces the file. A reader sees the old content or the new one.
    pub(super) fn write(&self, mut object: Map<String, Value>) -> Result<(), ChangeError> {
        let Some(path) = self.path else { return Ok(()) };
        if *self.is_only_read {
            return Err(ChangeError::HandedOver);
        }
        object.insert("version".into(), VERSION.into());
        regular_file::replace(path, Value::Object(object).to_string().as_bytes())
            .map_err(|error| ChangeError::Write { file: path.display().to_string(), reason: io_reason(&error) })
    }
}

/// The text of a file, if it is not far too long.
fn text_of(path: &Path) -> io::Result<Result<Vec<u8>, String>> {
    let mut text = Vec::new();
    regular_file::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut text)?;
    Ok(if text.len() as u64 > BYTES_MAX { Err("it is too large".to_owned()) } else { Ok(text) })
}

/// A folder, or whatever else can never be read as a file. Of anything else the system says why, by number.
fn is_of_another_kind(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::IsADirectory || error.raw_os_error().is_none()
}

fn parse(text: &[u8]) -> Result<Map<String, Value>, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let Value::Object(object) = value else { return Err("it holds no object".to_owned()) };
    match object.get("version").and_then(Value::as_u64) {
        Some(VERSION) => Ok(object),
        Some(version) => Err(format!("it is of version {version}, this build knows {VERSION}")),
        None => Err("it has no version".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_versioned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let file = StateFile::at(path.clone());
        assert_eq!(file.access().read().unwrap(), None);
        file.access().write(Map::from_iter([("a".into(), 1.into())])).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"a":1,"version":1}"#);
        assert_eq!(file.access().read().unwrap().unwrap()["a"], 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left lying about");
    }

    #[test]
    fn what_cannot_be_used_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{", "[]", "{}", r#"{"version":2}"#] {
            let path = folder.path().join("a.json");
            fs::write(&path, text).unwrap();
            assert_eq!(StateFile::at(path.clone()).access().read().unwrap(), None, "{text}");
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(folder.path().join("a.unusable")).unwrap(), text);
        }
        let pipe = folder.path().join("pipe.json");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        assert_eq!(StateFile::at(pipe.clone()).access().read().unwrap(), None, "nothing is waited for");
        assert!(!pipe.exists());
    }

    #[test]
    fn what_may_be_sound_stays_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        // Of all that keeps a file from being read, this stops root too.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        for file in [StateFile::at(path.clone()), StateFile::to_look_at(path.clone())] {
            let error = file.access().read().unwrap_err();
            let text = format!("{} cannot be read: ", path.display());
            assert!(error.to_string().starts_with(&text), "{error}");
        }
        assert!(path.is_symlink());
    }

    #[test]
    fn a_folder_that_is_gone_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/flagstone/a.json");
        StateFile::at(path.clone()).access().write(Map::from_iter([("a".into(), 1.into())])).unwrap();
        assert_eq!(StateFile::at(path).access().read().unwrap().unwrap()["a"], 1);
    }

    #[test]
    fn a_change_that_cannot_be_kept_is_an_error() {
        let file = StateFile::at("/proc/flagstone/a.json".into());
        let error = file.access().write(Map::new()).unwrap_err();
        assert!(error.to_string().starts_with("/proc/flagstone/a.json cannot be written: "), "{error}");
    }
}
