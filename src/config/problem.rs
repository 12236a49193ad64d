//! What is wrong with a configuration, in words for whoever has to mend it.
//!
//! Other rooms make [`Problem`]s too: whoever opens a certificate names the TOML path it came from and
//! [`super::Loaded::locate`] adds the line.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::mask::without_user;

/// Longer values are cut in messages: the line number shows where the rest is.
const VALUE_CHARS_MAX: usize = 60;

/// One thing that is wrong, or (among warnings) worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named; empty = not tied to one.
    pub file: PathBuf,
    /// From 1.
    pub line: Option<usize>,
    /// From 1, in characters.
    pub column: Option<usize>,
    /// Where in the TOML: `route[0].upstream`; empty = the file as a whole.
    pub path: String,
    /// Lower case, no full stop.
    pub message: String,
    /// The offending value as written in TOML; never a secret.
    pub value: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: PathBuf::new(),
            line: None,
            column: None,
            path: path.into(),
            message: message.into(),
            value: None,
            help: None,
        }
    }

    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        self.file = file.to_owned();
        self
    }

    /// Line and column, both from 1.
    #[must_use]
    pub fn at(mut self, position: Option<(usize, usize)>) -> Self {
        self.line = position.map(|(line, _)| line);
        self.column = position.map(|(_, column)| column);
        self
    }

    /// `value` is shown in quotes, escaped and cut to a readable length; a URL without who logs in by it.
    #[must_use]
    pub fn with_text(self, value: &str) -> Self {
        let masked = without_user(value);
        let value = masked.as_deref().unwrap_or(value);
        let cut: String = value.chars().take(VALUE_CHARS_MAX).collect();
        let dots = if cut.len() < value.len() { "…" } else { "" };
        self.with_value(format!("\"{}{dots}\"", cut.escape_debug()))
    }

    /// `value` is shown as it is.
    #[must_use]
    pub fn with_value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The fields by name, absent ones as null.
    pub fn to_json(&self) -> Value {
        json!({
            "file": self.file.display().to_string(),
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "value": self.value,
            "help": self.help,
        })
    }

    /// What [`Self::to_json`] made; `None` for anything else.
    pub fn from_json(json: &Value) -> Option<Self> {
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let number = |key: &str| json[key].as_u64().and_then(|number| usize::try_from(number).ok());
        Some(Self {
            file: text("file").unwrap_or_default().into(),
            line: number("line"),
            column: number("column"),
            path: text("path").unwrap_or_default(),
            message: text("message")?,
            value: text("value"),
            help: text("help"),
        })
    }
}

/// `flagstone.toml:12:1: route[0].upstream = "ap": no upstream has this name: did you mean "app"?`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.as_os_str().is_empty() {
            write!(f, "{}", self.file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
                if let Some(column) = self.column {
                    write!(f, ":{column}")?;
                }
            }
            f.write_str(": ")?;
        }
        if !self.path.is_empty() {
            f.write_str(&self.path)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, ": {help}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong, in the order of the file; never empty when it is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// A list of [`Problem::to_json`].
    pub fn to_json(&self) -> Value {
        Value::Array(self.0.iter().map(Problem::to_json).collect())
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// One line each.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Error for Problems {}

/// From here on two words begin so much alike that one was meant for the other: `retries`, `retry`.
const ALIKE: f64 = 0.86;

/// The candidate nearest to `word`, when it is near enough to have been meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let mut typo: Option<(usize, &str)> = None;
    let mut alike: Option<(f64, &str)> = None;
    for candidate in candidates {
        let folded = candidate.to_lowercase().replace('-', "_");
        let distance = strsim::damerau_levenshtein(&word, &folded);
        let bound = (word.chars().count().max(folded.chars().count()) / 3).max(1);
        if distance <= bound && typo.is_none_or(|(best, _)| distance < best) {
            typo = Some((distance, candidate));
        }
        let likeness = strsim::jaro_winkler(&word, &folded);
        if likeness >= ALIKE && alike.is_none_or(|(best, _)| likeness > best) {
            alike = Some((likeness, candidate));
        }
    }
    typo.map(|(_, best)| best).or(alike.map(|(_, best)| best))
}

/// `did you mean "app"?`, of the candidate that was meant.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|best| format!("did you mean \"{best}\"?"))
}

/// `"a", "b" or "c"`.
pub(super) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// `did you mean "app"?`, or what there is to choose from.
pub fn suggest<'a, I>(word: &str, candidates: I) -> String
where
    I: IntoIterator<Item = &'a str> + Clone,
{
    did_you_mean(word, candidates.clone()).unwrap_or_else(|| match candidates.clone().into_iter().next() {
        None => "there is none yet".to_owned(),
        Some(_) => format!("use {}", one_of(candidates)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_plain_line() {
        let problem = Problem::new("route[0].upstreem", "unknown key")
            .in_file(Path::new("flagstone.toml"))
            .at(Some((12, 1)))
            .with_help("did you mean \"upstream\"?");
        assert_eq!(
            problem.to_string(),
            "flagstone.toml:12:1: route[0].upstreem: unknown key: did you mean \"upstream\"?"
        );
    }

    #[test]
    fn values_are_quoted_escaped_and_cut() {
        let problem = Problem::new("a", "bad").with_text(&format!("x\n{}", "y".repeat(100)));
        let shown = problem.value.unwrap();
        assert!(shown.starts_with("\"x\\ny") && shown.ends_with("…\"") && shown.chars().count() < 70, "{shown}");
    }

    #[test]
    fn a_problem_without_file_or_path_is_its_message() {
        assert_eq!(Problem::new("", "no configuration").to_string(), "no configuration");
    }

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("upstreem", ["upstream", "files"]), Some("upstream"));
        assert_eq!(nearest("path", ["host", "paths"]), Some("paths"));
        assert_eq!(nearest("retries", ["breaker", "retry"]), Some("retry"));
        assert_eq!(nearest("colour", ["host", "path"]), None);
    }

    #[test]
    fn problems_become_json() {
        let json = Problems::from(Problem::new("a.b", "bad").at(Some((1, 2)))).to_json();
        assert_eq!(json[0]["line"], 1);
        assert_eq!(json[0]["help"], Value::Null);
    }
}
