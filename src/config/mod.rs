//! The configuration: from TOML to proven values.
//!
//! ```text
//! text --document--> tree and places --shape--> raw --check--> model::Config
//!        syntax            unknown keys, types, variables   meaning, references
//! ```
//! Each step reports everything it finds and hands on what is left, so one look at the answer shows all
//! that is wrong. Only a syntax error stops at the first. Reads the one file and nothing else: whether a
//! certificate exists is for those who open it, who can make a [`Problem`] of their own and have
//! [`Loaded::locate`] find its line.

pub mod duration;
pub mod model;
pub mod rate;
pub mod size;

mod check;
mod document;
mod expand;
mod mask;
mod not_yet;
mod problem;
mod raw;
mod shape;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use expand::Env;
pub use not_yet::not_yet;
pub use problem::{Problem, Problems};

use document::Places;
use model::Config;

/// A larger file is a mistake (a log, a device), not a configuration.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Where [`locate`] looks last.
const SYSTEM_FILE: &str = "/etc/flagstone/flagstone.toml";

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// In the order of the file.
    pub warnings: Vec<Problem>,
    /// What this configuration is made of: the file itself (unless there is none), then every certificate,
    /// key and authority it names. Worth watching for changes.
    pub files: Vec<PathBuf>,
    /// As [`Problem::file`] names it.
    pub source: PathBuf,
    /// All keys with their values, defaults filled in, secrets as `***`.
    pub masked: Value,
    places: Places,
}

impl Loaded {
    /// Line and column, both from 1, of a TOML path such as `listener[0].tls.certificates[0].key`, or of
    /// the nearest thing around it. `None` without a file.
    pub fn locate_path(&self, path: &str) -> Option<(usize, usize)> {
        self.places.locate(path)
    }

    /// [`Self::locate`] for all of them.
    pub fn locate_all(&self, problems: Problems) -> Problems {
        Problems(problems.0.into_iter().map(|problem| self.locate(problem)).collect())
    }

    /// Gives a problem that names a TOML path of this configuration its file and line.
    pub fn locate(&self, problem: Problem) -> Problem {
        place(problem, &self.source, &self.places)
    }
}

/// Reads and proves a file.
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn load(file: &Path, env: Env<'_>) -> Result<Loaded, Problems> {
    let bytes = read(file).map_err(|error| {
        let message = format!("cannot read the configuration: {}", crate::error::io_reason(&error));
        Problems::from(Problem::new("", message).in_file(file))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let mut problem = Problem::new("", "not UTF-8").in_file(file).with_help("save the file as UTF-8");
        problem.line = Some(line);
        Problems::from(problem)
    })?;
    parse(&text, file, env)
}

/// The admin side as far as a file that may be full of errors tells: for finding the process that serves on with the
/// file before it. What the file does not tell is at its default.
///
/// # Errors
/// The file cannot be read, or is no TOML.
pub fn load_admin(file: &Path, env: Env<'_>) -> Result<model::Admin, Problems> {
    let unreadable = |message: String| Problems::from(Problem::new("", message).in_file(file));
    let text = read(file).and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
    let text = text.map_err(|error| unreadable(crate::error::io_reason(&error)))?;
    let (document, _) = document::read(&text).map_err(|error| unreadable(format!("not TOML: {}", error.message)))?;
    let shaped = shape::fit(&document, env);
    let raw = serde_json::from_value::<raw::File>(shaped.value).unwrap_or_default();
    Ok(check::check(&raw, file.parent().unwrap_or(Path::new("")), shaped.spoilt).config.admin)
}

/// Proves a text as if it stood in `file`, which need not exist.
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn parse(text: &str, file: &Path, env: Env<'_>) -> Result<Loaded, Problems> {
    let (document, places) = document::read(text).map_err(|error| {
        let message = format!("not TOML: {}", error.message);
        Problems::from(Problem::new("", message).in_file(file).at(error.position))
    })?;
    let shape::Shaped { value, mut problems, spoilt } = shape::fit(&document, env);
    let raw = serde_json::from_value::<raw::File>(value).unwrap_or_else(|error| {
        // The schema and the structs come from one source, so this says that they do not agree.
        problems.push(Problem::new("", format!("cannot be understood: {error}")));
        raw::File::default()
    });
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut loaded = prove(&raw, file, folder, places, problems, spoilt)?;
    loaded.files.insert(0, file.to_owned());
    Ok(loaded)
}

/// The configuration of `run --listen ADDR --upstream ADDR [--flag FILE]`: one route `all` to one upstream
/// `app`, everything else at its default. `flag` starts at the process's folder, as a path on a command
/// line does, not at the state folder.
///
/// # Errors
/// What is wrong, with `--listen` and `--upstream` for the TOML path.
pub fn quick(listen: &str, upstream: &str, flag: Option<&str>, env: Env<'_>) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let mut expand = |option: &str, text: &str| match expand::expand(text, env) {
        Ok(expanded) => expanded.text,
        Err((message, help)) => {
            problems.push(Problem::new(option, message).with_help(help));
            String::new()
        }
    };
    let (listen, upstream) = (expand("--listen", listen), expand("--upstream", upstream));
    let flag = flag.map(|flag| expand("--flag", flag));
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let raw = raw::File::quick(listen, upstream);
    let loaded = prove(&raw, Path::new(""), Path::new(""), Places::default(), problems, [].into());
    let mut loaded = loaded.map_err(|Problems(problems)| Problems(problems.into_iter().map(as_option).collect()))?;
    if let Some(flag) = flag.filter(|flag| !flag.is_empty()) {
        loaded.config.maintenance.flag = std::path::absolute(&flag).unwrap_or_else(|_| PathBuf::from(flag));
        loaded.masked["maintenance"]["flag"] = loaded.config.maintenance.flag.display().to_string().into();
    }
    Ok(loaded)
}

/// The file to use: `explicit` (`-c`), else `$FLAGSTONE_CONFIG`, else `./flagstone.toml`, else
/// `/etc/flagstone/flagstone.toml`. The first two need not exist: [`load`] says so by name.
///
/// # Errors
/// The places looked at, when there is no file at any.
pub fn locate(explicit: Option<&Path>, env: Env<'_>) -> Result<PathBuf, Problems> {
    if let Some(file) = find(explicit, env) {
        return Ok(file);
    }
    let problem = Problem::new("", "there is no configuration file").with_help(format!(
        "looked at $FLAGSTONE_CONFIG (not set), ./flagstone.toml and {SYSTEM_FILE}; name one with -c FILE, or do without: run --listen ADDR --upstream ADDR"
    ));
    Err(problem.into())
}

/// [`locate`] for those who can do without a file.
pub fn find(explicit: Option<&Path>, env: Env<'_>) -> Option<PathBuf> {
    let named = || env("FLAGSTONE_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from);
    let lying_there = || ["flagstone.toml", SYSTEM_FILE].map(PathBuf::from).into_iter().find(|file| file.exists());
    explicit.map(Path::to_owned).or_else(named).or_else(lying_there)
}

/// The JSON Schema (draft 2020-12) of the file, with descriptions, defaults, patterns and ranges.
pub fn schema() -> Value {
    shape::schema()
}

fn prove(
    raw: &raw::File,
    file: &Path,
    folder: &Path,
    places: Places,
    mut problems: Vec<Problem>,
    spoilt: std::collections::BTreeSet<String>,
) -> Result<Loaded, Problems> {
    let checked = check::check(raw, folder, spoilt);
    problems.extend(checked.problems);
    if !problems.is_empty() {
        return Err(Problems(in_order(problems, file, &places)));
    }
    let mut warnings = checked.warnings;
    warnings.extend(not_yet(&checked.config));
    Ok(Loaded {
        config: checked.config,
        warnings: in_order(warnings, file, &places),
        files: checked.files,
        source: file.to_owned(),
        masked: mask::masked(raw),
        places,
    })
}

fn in_order(problems: Vec<Problem>, file: &Path, places: &Places) -> Vec<Problem> {
    let mut placed: Vec<Problem> = problems.into_iter().map(|problem| place(problem, file, places)).collect();
    placed.sort_by_key(|problem| (problem.line, problem.column));
    placed
}

fn place(problem: Problem, file: &Path, places: &Places) -> Problem {
    let position = places.locate(&problem.path);
    problem.in_file(file).at(position)
}

/// Whoever typed options has not seen any TOML.
fn as_option(mut problem: Problem) -> Problem {
    if problem.path.starts_with("listener[0]") {
        problem.path = "--listen".to_owned();
    } else if problem.path.starts_with("upstream.app") {
        problem.path = "--upstream".to_owned();
    }
    problem
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= FILE_BYTES_MAX => Ok(bytes),
        _ => Err(io::Error::other("it is larger than 16 MiB")),
    }
}
