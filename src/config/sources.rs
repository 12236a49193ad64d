//! The files that a configuration is made of: the file itself, and those that its `include` names.
//!
//! Reading is all that happens here; what it comes to is the business of [`super::load`]. Two readings are equal when
//! the same files hold the same bytes and the same is wrong with the others, which is what the watcher asks.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::document::{self, Node};
use super::error::io_reason;
use super::expand::{Env, expand};
use super::problem::Problem;
use super::regular_file;

/// A larger file is a mistake (a log, a device), not a configuration.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// More included files than this are a mistake too (a pattern that leads into a tree of something else).
const FILES_MAX: usize = 1000;

/// What makes a pattern of a name.
const SPECIAL: [char; 3] = ['*', '?', '['];

/// One reading of all the files.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file itself first, unless it could not be read; then each included one, once, in the order of the patterns
    /// and of their names.
    pub(super) files: Vec<SourceFile>,
    /// Folders in which a further file would belong to it.
    pub folders: Vec<PathBuf>,
    /// What is wrong with the reading, with its file.
    pub(super) problems: Vec<Problem>,
    /// What is worth knowing of it.
    pub(super) warnings: Vec<Problem>,
}

/// A file and what was in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl PartialEq for Sources {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files && self.problems == other.problems
    }
}

impl Sources {
    /// Reads `file` and what it includes. Never fails: what could not be read is told with the rest. `file` may be a
    /// pipe, as a shell makes one (`-c <(…)`).
    pub fn read(file: &Path, env: Env<'_>) -> Self {
        Self::read_by(read_to_end, file, env)
    }

    /// [`Self::read`] in a process that serves: a pipe gives what it holds but once, and may be waited for.
    pub fn read_again(file: &Path, env: Env<'_>) -> Self {
        Self::read_by(read_regular, file, env)
    }

    fn read_by(read: fn(&Path) -> io::Result<Vec<u8>>, file: &Path, env: Env<'_>) -> Self {
        let mut sources = Self::default();
        if let Err(error) = sources.take(file, read) {
            let message = format!("cannot read the configuration: {}", io_reason(&error));
            sources.problems.push(Problem::new("", message).in_file(file));
        }
        let Some(main) = sources.files.first() else { return sources };
        // What is no TOML includes nothing; whoever parses it says so.
        let document = std::str::from_utf8(&main.bytes).ok().and_then(|text| document::read(text).ok());
        let Some((Node::Table(entries), places)) = document else { return sources };
        let Some((_, Node::List(patterns))) = entries.iter().find(|(key, _)| key == "include") else { return sources };
        let mut seen: BTreeSet<PathBuf> = file.canonicalize().into_iter().collect();
        for (index, pattern) in patterns.iter().enumerate() {
            // Whatever else stands there is refused by its type.
            let Node::Text(pattern) = pattern else { continue };
            // One that does not expand is told with the other texts of the file.
            let Ok(expanded) = expand(pattern, env) else { continue };
            let at = format!("include[{index}]");
            let problem = |message: String| {
                let position = places.locate(&at);
                Problem::new(at.as_str(), message).in_file(file).at(position).with_text(pattern)
            };
            match included(&expanded.text, file.parent().unwrap_or(Path::new(""))) {
                Err((message, help)) => sources.problems.push(problem(message).with_help(help)),
                Ok((folder, found)) => {
                    sources.folders.extend(folder);
                    if found.is_empty() {
                        let help = "files that come later are taken in as they come";
                        sources.warnings.push(problem("matches no file".to_owned()).with_help(help));
                    }
                    let fresh = |path: &PathBuf| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone()));
                    for path in found.into_iter().filter(fresh) {
                        sources.include(&path, problem);
                    }
                }
            }
        }
        sources
    }

    /// The file itself could not be read.
    pub fn are_gone(&self) -> bool {
        self.files.is_empty()
    }

    /// Why the file itself could not be read, if so.
    pub fn main_problem(&self) -> Option<&Problem> {
        self.problems.first().filter(|_| self.are_gone())
    }

    /// The included files in which there is nothing.
    pub fn empty_ones(&self) -> impl Iterator<Item = &Path> {
        let included = self.files.iter().skip(1);
        included.filter(|file| file.bytes.is_empty()).map(|file| file.path.as_path())
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    fn include(&mut self, path: &Path, problem: impl Fn(String) -> Problem) {
        match self.take(path, read_regular) {
            // Perhaps it is about to be written, and its routes are away meanwhile.
            Ok(0) => {
                let help = "what comes into it later is taken in as it comes";
                self.warnings.push(problem(format!("{} is empty", path.display())).with_help(help));
            }
            Ok(_) => {}
            Err(error) => {
                let message = format!("cannot read {}: {}", path.display(), io_reason(&error));
                self.problems.push(problem(message).with_help("name a file that this user may read"));
            }
        }
    }

    /// Its length in bytes.
    fn take(&mut self, path: &Path, read: fn(&Path) -> io::Result<Vec<u8>>) -> io::Result<usize> {
        let bytes = read(path)?;
        let length = bytes.len();
        self.files.push(SourceFile { path: path.to_owned(), bytes });
        Ok(length)
    }
}

/// The folder to look for further files in, and the files there are, sorted.
type Included = (Option<PathBuf>, Vec<PathBuf>);

fn included(pattern: &str, folder: &Path) -> Result<Included, (String, String)> {
    if pattern.is_empty() || pattern.contains("**") {
        let message = if pattern.is_empty() { "is empty" } else { "\"**\" would lead anywhere" };
        return Err((message.to_owned(), "write a file, or a pattern such as \"routes/*.toml\"".to_owned()));
    }
    if !pattern.contains(SPECIAL) {
        // A file that is named must be there: reading it says so if it is not.
        return Ok((None, vec![folder.join(pattern)]));
    }
    let bad = |error: String| (error, "write a pattern such as \"routes/*.toml\"".to_owned());
    let home = folder.to_str().ok_or_else(|| bad("is in a folder whose name is not UTF-8".to_owned()))?;
    // What is special in a pattern is nothing special in the name of the folder that it starts at.
    let whole = Path::new(&glob::Pattern::escape(home)).join(pattern);
    let text = whole.to_str().expect("both are UTF-8");
    // An editor's hidden files are not meant.
    let options =
        glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let paths = glob::glob_with(text, options).map_err(|error| bad(format!("not a pattern: {}", error.msg)))?;
    // Folders that cannot be looked into hold nothing for us; the file system's own words come when a file is read.
    let found = paths.filter_map(Result::ok).filter(|path| !path.is_dir()).take(FILES_MAX + 1);
    let mut found: Vec<PathBuf> = found.collect();
    if found.len() > FILES_MAX {
        return Err(bad(format!("matches more than {FILES_MAX} files")));
    }
    found.sort();
    let above = Path::new(pattern).parent().into_iter().flat_map(Path::components);
    let fixed: PathBuf = above.take_while(|part| !part.as_os_str().to_string_lossy().contains(SPECIAL)).collect();
    Ok((Some(folder.join(fixed).components().collect()), found))
}

fn read_regular(file: &Path) -> io::Result<Vec<u8>> {
    bounded(regular_file::open(file)?)
}

/// Waits for who writes to a pipe, though not for somebody to come and do so.
fn read_to_end(path: &Path) -> io::Result<Vec<u8>> {
    let file = regular_file::open_at_once(path)?;
    if file.metadata()?.is_file() {
        return bounded(file);
    }
    rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
    let bytes = bounded(file)?;
    if bytes.is_empty() {
        return Err(io::Error::other("it is not a regular file, and nothing came out of it"));
    }
    Ok(bytes)
}

fn bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= FILE_BYTES_MAX => Ok(bytes),
        _ => Err(io::Error::other("it is larger than 16 MiB")),
    }
}
