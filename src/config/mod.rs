//! The configuration: from TOML to proven values.
//!
//! ```text
//! text --document--> tree and places --shape--> raw --check--> model::Config
//!        syntax            unknown keys, types, variables   meaning, references
//! ```
//! Each step reports everything it finds and hands on what is left, so one look at the answer shows all
//! that is wrong. Only a syntax error stops at the first. Reads the file, what it includes and nothing else: whether a
//! certificate exists is for those who open it, who can make a [`Problem`] of their own and have
//! [`Loaded::locate`] find its line. They can look at the [`Remains`] of a file that is refused, too.

pub mod cron;
pub mod duration;
#[path = "../error.rs"]
pub mod error;
pub mod model;
pub mod query;
pub mod rate;
pub mod regular_file;
pub mod second;
pub mod size;
pub mod zone;

mod admin;
mod check;
mod document;
mod expand;
mod mask;
mod merge;
mod problem;
mod raw;
mod schema;
mod shape;
mod sources;
mod syntax;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use admin::{FoundAdmin, find_admin};
pub use expand::Env;
pub use mask::without_user;
pub use problem::{Problem, Problems, suggest};
pub use sources::Sources;

use document::{Node, Places, is_within, place_in_file};
use model::Config;
use variables::Variables;

/// Where [`locate`] looks last.
const SYSTEM_FILE: &str = "/etc/flagstone/flagstone.toml";

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// In the order of the file.
    pub warnings: Vec<Problem>,
    /// What this configuration is made of: the file itself (unless there is none), those it includes, then every
    /// certificate, key and authority it names. Worth watching for changes.
    pub files: Vec<PathBuf>,
    /// As [`Problem::file`] names it.
    pub source: PathBuf,
    /// All keys with their values, defaults filled in, secrets as `***`.
    pub masked: Value,
    /// What it was read from; nothing where it was no file.
    pub sources: Sources,
    places: Places,
    variables: Variables,
}

impl Loaded {
    /// Line and column, both from 1, of a TOML path such as `listener[0].tls.certificates[0].key`, or of
    /// the nearest thing around it. `None` without a file.
    pub fn locate_path(&self, path: &str) -> Option<(usize, usize)> {
        self.places.locate(path)
    }

    /// [`Self::locate`] for all of them, in the order of the file.
    pub fn locate_all(&self, problems: Problems) -> Problems {
        self.in_order(problems.0.into_iter().map(|problem| self.locate(problem)).collect())
    }

    /// What has been located, in the order of the file.
    pub fn in_order(&self, mut located: Vec<Problem>) -> Problems {
        let place_of = |file: &PathBuf| self.files.iter().position(|known| known == file);
        located.sort_by_key(|problem| (place_of(&problem.file), problem.line, problem.column));
        Problems(located)
    }

    /// Gives a problem that names a TOML path of this configuration its file and line, and the value that stands there.
    pub fn locate(&self, problem: Problem) -> Problem {
        let value = problem.value.clone().or_else(|| self.value_at(&problem.path));
        place(Problem { value, ..problem }, &self.source, &self.places)
    }

    /// What stands at a path, secrets masked and variables by their names, as far as it fits into a line.
    fn value_at(&self, path: &str) -> Option<String> {
        let pieces = path.split(['.', '[']).map(|piece| piece.strip_suffix(']').unwrap_or(piece));
        let value = pieces.filter(|piece| !piece.is_empty()).try_fold(&self.masked, |value, piece| match value {
            Value::Array(items) => items.get(piece.parse::<usize>().ok()?),
            Value::Object(keys) => keys.get(piece),
            _ => None,
        })?;
        let quoted = |text: &str| Problem::new("", "").with_text(text).value;
        match (self.variables.written(path), value) {
            // A part of a secret may be written beside the variable.
            (_, Value::String(text)) if mask::is_masked(text) => quoted(text),
            (Some(text), _) => quoted(text),
            (None, Value::String(text)) => quoted(text),
            (None, Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
            (None, Value::Null | Value::Array(_) | Value::Object(_)) => None,
        }
    }
}

/// What is left of a file with errors, for finding what else is wrong with it: a stand-in is in the place of whatever
/// was refused.
#[derive(Clone, Debug)]
pub struct Remains {
    pub loaded: Loaded,
    /// TOML paths of what was refused or left out.
    refused: BTreeSet<String>,
}

impl Remains {
    /// Whether anything was refused at this TOML path, around it or below it.
    pub fn is_refused(&self, path: &str) -> bool {
        self.refused.iter().any(|refused| is_within(path, refused) || is_within(refused, path))
    }
}

/// Reads and proves a file, with those it includes.
///
/// # Errors
/// Everything that is wrong, in the order of the files.
pub fn load(file: &Path, env: Env<'_>) -> Result<Loaded, Problems> {
    load_from(&Sources::read(file, env), file, env)
}

/// [`load`], of files that have been read. `file` is the first of them.
///
/// # Errors
/// As [`load`].
pub fn load_from(sources: &Sources, file: &Path, env: Env<'_>) -> Result<Loaded, Problems> {
    proven(sources, file, env)?.into_result()
}

/// What is left of files that [`load_from`] refuses; `None` when one of them is no TOML.
pub fn remains(sources: &Sources, file: &Path, env: Env<'_>) -> Option<Remains> {
    let Proven { loaded, problems, mut spoilt } = proven(sources, file, env).ok()?;
    spoilt.extend(problems.into_iter().map(|problem| problem.path));
    Some(Remains { loaded, refused: spoilt })
}

fn proven(sources: &Sources, file: &Path, env: Env<'_>) -> Result<Proven, Problems> {
    let (document, places, mut problems) = joined(sources);
    let Some(document) = document else { return Err(Problems(problems)) };
    problems.extend(sources.problems.iter().cloned());
    let mut proven = prove_document(&document, file, places, problems, env);
    let loaded = &mut proven.loaded;
    loaded.warnings.splice(0..0, sources.warnings.iter().cloned());
    loaded.files.splice(0..0, sources.paths().map(Path::to_owned));
    loaded.sources = sources.clone();
    Ok(proven)
}

/// All files as one document; `None` when one of them is no TOML, for then nothing can be said of the whole.
fn joined(sources: &Sources) -> (Option<Node>, Places, Vec<Problem>) {
    let mut problems: Vec<Problem> = Vec::new();
    let mut parts = Vec::new();
    for source in &sources.files {
        match text(&source.bytes, &source.path).and_then(|text| parsed(text, &source.path)) {
            Ok(part) => parts.push(part),
            Err(Problems(found)) => problems.extend(found),
        }
    }
    if !problems.is_empty() || parts.is_empty() {
        problems.extend(sources.problems.iter().cloned());
        return (None, Places::default(), problems);
    }
    let mut parts = parts.into_iter();
    let mut whole = parts.next().expect("there is one");
    for part in parts {
        problems.extend(merge::merge(&mut whole, part));
    }
    (Some(whole.0), whole.1, problems)
}

fn text<'b>(bytes: &'b [u8], file: &Path) -> Result<&'b str, Problems> {
    std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        let mut problem = Problem::new("", "not UTF-8").in_file(file).with_help("save the file as UTF-8");
        problem.line = Some(line);
        problem.into()
    })
}

fn parsed(text: &str, file: &Path) -> Result<(Node, Places), Problems> {
    let (document, places) = document::read(text).map_err(|error| {
        let message = format!("not TOML: {}", error.message);
        let mut problem = Problem::new("", message).in_file(file).at(error.position);
        problem.help = error.position.and_then(|position| syntax::remedy(text, position, &error.message));
        Problems::from(problem)
    })?;
    Ok((document, places.in_file(file)))
}

/// Proves a text as if it stood in `file`, which need not exist. Nothing is read, so nothing is included.
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn parse(text: &str, file: &Path, env: Env<'_>) -> Result<Loaded, Problems> {
    let (document, places) = parsed(text, file)?;
    let mut loaded = prove_document(&document, file, places, Vec::new(), env).into_result()?;
    loaded.files.insert(0, file.to_owned());
    Ok(loaded)
}

fn prove_document(document: &Node, file: &Path, places: Places, mut problems: Vec<Problem>, env: Env<'_>) -> Proven {
    let shape::Shaped { value, problems: misshapen, spoilt, variables } = shape::fit(document, env);
    problems.extend(misshapen);
    let raw = serde_json::from_value::<raw::File>(value).unwrap_or_else(|error| {
        // The schema and the structs come from one source, so this says that they do not agree.
        problems.push(Problem::new("", format!("cannot be understood: {error}")));
        raw::File::default()
    });
    prove(&raw, file, Origin { places, variables }, problems, spoilt)
}

/// The configuration of `run --listen ADDR --upstream ADDR [--flag FILE]`: one route `all` to one upstream
/// `app`, everything else at its default. `flag` starts at the process's folder, as a path on a command
/// line does, not at the state folder.
///
/// # Errors
/// What is wrong, with `--listen`, `--upstream` and `--flag` for the TOML path.
pub fn quick(listen: &str, upstream: &str, flag: Option<&str>, env: Env<'_>) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let mut variables = Variables::default();
    let mut expand = |option: &str, path: &str, text: &str| match expand::expand(text, env) {
        Ok(expanded) => {
            variables.note(path, text, expanded.held);
            expanded.text
        }
        Err((message, help)) => {
            problems.push(Problem::new(option, message).with_help(help));
            String::new()
        }
    };
    let listen = expand("--listen", "listener[0].address", listen);
    let upstream = expand("--upstream", "upstream.app.endpoints[0]", upstream);
    let flag = flag.map(|flag| expand("--flag", "maintenance.flag", flag));
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let flag = flag.filter(|flag| !flag.is_empty());
    let flag = flag.map(|flag| std::path::absolute(&flag).unwrap_or_else(|_| PathBuf::from(flag)));
    let mut raw = raw::File::quick(listen, upstream);
    if let Some(flag) = &flag {
        raw.maintenance.flag = flag.display().to_string();
    }
    let origin = Origin { places: Places::default(), variables };
    let proven = prove(&raw, Path::new(""), origin, problems, [].into());
    let loaded = proven.into_result();
    let mut loaded = loaded.map_err(|Problems(problems)| Problems(problems.into_iter().map(as_option).collect()))?;
    if let Some(flag) = flag {
        // The process's folder may have a name that is no text.
        loaded.config.maintenance.flag = flag;
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
    schema::schema()
}

/// A configuration, proven or not.
struct Proven {
    loaded: Loaded,
    /// In the order of the file.
    problems: Vec<Problem>,
    spoilt: BTreeSet<String>,
}

impl Proven {
    fn into_result(self) -> Result<Loaded, Problems> {
        if self.problems.is_empty() { Ok(self.loaded) } else { Err(Problems(self.problems)) }
    }
}

/// How a configuration is written.
struct Origin {
    places: Places,
    variables: Variables,
}

fn prove(raw: &raw::File, file: &Path, origin: Origin, mut problems: Vec<Problem>, spoilt: BTreeSet<String>) -> Proven {
    let Origin { places, variables } = origin;
    let folder = file.parent().unwrap_or(Path::new(""));
    let checked = check::check(raw, folder, spoilt.clone(), &places);
    let told = |found: Vec<Problem>| -> Vec<Problem> {
        let placed = found.into_iter().map(|it| Problem { path: place_in_file(&it.path, &spoilt), ..it });
        placed.map(|problem| variables.hide(problem)).collect()
    };
    problems.extend(told(checked.problems));
    let warnings = in_order(told(checked.warnings), file, &places);
    Proven {
        problems: in_order(problems, file, &places),
        spoilt,
        loaded: Loaded {
            config: checked.config,
            warnings,
            files: checked.files,
            source: file.to_owned(),
            masked: mask::masked(raw),
            sources: Sources::default(),
            places,
            variables,
        },
    }
}

fn in_order(problems: Vec<Problem>, file: &Path, places: &Places) -> Vec<Problem> {
    let mut placed: Vec<Problem> = problems.into_iter().map(|problem| place(problem, file, places)).collect();
    placed.sort_by_key(|problem| (places.file_index(&problem.file), problem.line, problem.column));
    placed
}

fn place(problem: Problem, file: &Path, places: &Places) -> Problem {
    let problem = places.place(problem);
    if problem.file.as_os_str().is_empty() { problem.in_file(file) } else { problem }
}

/// Whoever typed options has not seen any TOML.
fn as_option(mut problem: Problem) -> Problem {
    if problem.path.starts_with("listener[0]") {
        problem.path = "--listen".to_owned();
    } else if problem.path.starts_with("upstream.app") {
        problem.path = "--upstream".to_owned();
    } else if problem.path == "maintenance.flag" {
        problem.path = "--flag".to_owned();
    }
    problem
}
