//! `flagstone check`: everything that can be found wrong without serving.
//!
//! Made for a terminal, for a pre-commit hook and for CI: every error at once, exit code 0 or 1, and with
//! `--format json` one object on stdout whatever came of it.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{FileArgument, complain, print};
use crate::app::{App, TestResult};
use crate::config::model::Config;
use crate::config::{Loaded, Problem, Problems};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: FileArgument,
    /// How to tell
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One line for each problem, on stderr
    Text,
    /// One object, on stdout
    Json,
}

/// What there is to tell of a file.
#[derive(Default)]
struct Report {
    /// As it was named; `None` = there is none.
    file: Option<PathBuf>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    tests: Vec<TestResult>,
    /// Of a file that can be read.
    config: Option<Config>,
    /// The line of each test.
    test_lines: Vec<Option<usize>>,
}

/// Exit code 0 when the file could be served as it is and its tests pass, 1 with every error otherwise.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let report = Report::of(&arguments.file);
    let text = match arguments.json || arguments.format == Format::Json {
        false => report.tell(),
        true => format!("{:#}\n", report.to_json()),
    };
    print(text, if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Report {
    fn of(file: &FileArgument) -> Self {
        let named = file.locate().ok();
        match file.load_to_build() {
            Err(Problems(errors)) => Self { file: named, errors, ..Self::default() },
            Ok((loaded, file)) => Self::of_loaded(loaded, file),
        }
    }

    fn of_loaded(loaded: Loaded, file: PathBuf) -> Self {
        let mut report = Self { file: Some(file), warnings: loaded.warnings.clone(), ..Self::default() };
        match App::check(&loaded) {
            Err(Problems(errors)) => report.errors = errors,
            Ok(checked) => {
                let failures = checked.tests.iter().flat_map(TestResult::problems).collect();
                report.errors = loaded.locate_all(Problems(failures)).0;
                report.warnings.extend(checked.warnings.0);
                let line = |test: &TestResult| loaded.locate_path(&test.path).map(|(line, _)| line);
                report.test_lines = checked.tests.iter().map(line).collect();
                report.tests = checked.tests;
            }
        }
        report.config = Some(loaded.config);
        report
    }

    /// Prints what is wrong, and returns what is to be said of a file that is not.
    fn tell(&self) -> String {
        for warning in &self.warnings {
            complain(format_args!("warning: {warning}"));
        }
        for error in &self.errors {
            complain(error);
        }
        let passed = self.tests.iter().filter(|test| test.passed()).count();
        if passed < self.tests.len() {
            complain(format_args!("{} of {} failed", self.tests.len() - passed, counted(self.tests.len(), "test")));
        }
        let (Some(config), Some(file), true) = (&self.config, &self.file, self.errors.is_empty()) else {
            return String::new();
        };
        let tests = match passed {
            0 => String::new(),
            passed => format!("; {} passed", counted(passed, "test")),
        };
        format!(
            "{} is valid: {}, {}, {}, {}{tests}\n",
            file.display(),
            counted(config.listeners.len(), "listener"),
            counted(config.routes.len(), "route"),
            counted(config.upstreams.len(), "upstream"),
            counted(config.limits.len(), "limit"),
        )
    }

    fn to_json(&self) -> Value {
        let list = |problems: &[Problem]| problems.iter().map(Problem::to_json).collect::<Vec<_>>();
        let tests = self.tests.iter().zip(&self.test_lines).map(|(test, line)| {
            let mut test = test.to_json();
            test["line"] = (*line).into();
            test
        });
        json!({
            "file": self.file.as_ref().map(|file| file.display().to_string()),
            "valid": self.errors.is_empty(),
            "errors": list(&self.errors),
            "warnings": list(&self.warnings),
            "tests": tests.collect::<Vec<_>>(),
            "summary": self.config.as_ref().map(|config| json!({
                "listeners": config.listeners.len(),
                "routes": config.routes.len(),
                "upstreams": config.upstreams.len(),
                "limits": config.limits.len(),
            })),
        })
    }
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}
