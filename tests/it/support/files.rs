//! A folder for one test, and the ways in which operators change files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary folder, removed with everything in it on drop.
///
/// Every method panics when the file system refuses: then the test cannot be held.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("flagstone-test-").tempdir().expect("a temporary folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of something in it, there or not.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file in place, its folders too.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.join(name);
        let folder = file.parent().expect("a file in the folder has a parent");
        done(fs::create_dir_all(folder), folder);
        done(fs::write(&file, content), &file);
        file
    }

    /// Writes beside a file and renames over it, as editors and deployment tools do.
    pub fn replace(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let beside = self.write(&format!("{name}.new"), content);
        let file = self.join(name);
        done(fs::rename(&beside, &file), &file);
        file
    }

    /// What `touch` does to a file that is not there.
    pub fn touch(&self, name: &str) -> PathBuf {
        let file = self.join(name);
        done(fs::OpenOptions::new().create(true).append(true).open(&file).map(drop), &file);
        file
    }

    pub fn remove(&self, name: &str) {
        let file = self.join(name);
        done(fs::remove_file(&file), &file);
    }

    pub fn read(&self, name: &str) -> String {
        let file = self.join(name);
        done(fs::read_to_string(&file), &file)
    }

    pub fn create_folder(&self, name: &str) -> PathBuf {
        let folder = self.join(name);
        done(fs::create_dir_all(&folder), &folder);
        folder
    }

    /// Points a symbolic link somewhere else by rename, as Kubernetes does with `..data`.
    pub fn swap_link(&self, name: &str, to: impl AsRef<Path>) -> PathBuf {
        let (link, beside) = (self.join(name), self.join(format!("{name}.new")));
        done(symlink(to, &beside), &beside);
        done(fs::rename(&beside, &link), &link);
        link
    }

    /// Makes a named pipe.
    pub fn fifo(&self, name: &str) -> PathBuf {
        let pipe = self.join(name);
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
        done(rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).map_err(Into::into), &pipe);
        pipe
    }

    /// The names in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = done(fs::read_dir(self.path()), self.path());
        let name = |name: &OsStr| name.to_string_lossy().into_owned();
        let mut names: Vec<_> = entries.flatten().map(|entry| name(&entry.file_name())).collect();
        names.sort();
        names
    }
}

fn done<T>(result: std::io::Result<T>, path: &Path) -> T {
    result.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
