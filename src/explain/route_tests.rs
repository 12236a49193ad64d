//! The configuration's own `[[test]]`s: requests, and where they must go.
//!
//! They prove the file, not the moment: maintenance, block lists, overrides and breakers of a running process make no
//! difference, so that a reload in the middle of an incident is not refused for it.

use http::{HeaderMap, Uri};
use serde_json::{Value, json};

use super::{Explanation, Hypothetical, Moment, explain};
use crate::config::model::RouteTest;
use crate::config::query::redacted;
use crate::config::{Problem, without_user};
use crate::snapshot::Snapshot;

/// What came of one test.
#[derive(Clone, Debug)]
pub struct TestResult {
    pub name: String,
    /// Where it stands: `test[0]`.
    pub path: String,
    /// One for each thing that is not as expected; none = it passed.
    pub differences: Vec<Difference>,
}

/// Something that is not as a test says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Of `expect`: `route`.
    pub key: &'static str,
    pub expected: String,
    pub got: String,
    /// What becomes of the request.
    why: String,
}

/// Runs all tests of a generation.
pub(crate) fn run(snapshot: &Snapshot) -> Vec<TestResult> {
    let tests = snapshot.config.tests.iter().enumerate();
    tests
        .map(|(index, test)| TestResult {
            name: test.name.clone(),
            path: format!("test[{index}]"),
            differences: differences(test, &explain(&hypothetical(test), snapshot, Moment::UNDISTURBED)),
        })
        .collect()
}

/// What is wrong with a generation by its own tests; not yet located in the file.
pub(crate) fn failures(snapshot: &Snapshot) -> Vec<Problem> {
    run(snapshot).iter().flat_map(TestResult::problems).collect()
}

impl TestResult {
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }

    /// One for each difference, without file and line.
    pub fn problems(&self) -> Vec<Problem> {
        let problem = |difference: &Difference| {
            let Difference { key, expected, got, why } = difference;
            let path = format!("{}.expect.{key}", self.path);
            let message = format!("test \"{}\" failed: expected {expected}, got {got}", self.name.escape_debug());
            Problem::new(path, message).with_value(expected.clone()).with_help(why.clone())
        };
        self.differences.iter().map(problem).collect()
    }

    pub fn to_json(&self) -> Value {
        let differences = self.differences.iter().map(|difference| {
            let Difference { key, expected, got, why } = difference;
            json!({ "key": key, "expected": expected, "got": got, "why": why })
        });
        json!({
            "name": self.name,
            "path": self.path,
            "passed": self.passed(),
            "differences": differences.collect::<Vec<_>>(),
        })
    }
}

fn hypothetical(test: &RouteTest) -> Hypothetical {
    let headers: HeaderMap = test.headers.iter().cloned().collect();
    Hypothetical { method: test.method.clone(), url: test.url.clone(), ip: test.ip, headers }
}

fn differences(test: &RouteTest, explained: &Explanation) -> Vec<Difference> {
    let (expect, outcome) = (&test.expect, &explained.outcome);
    let url = test.url.to_string();
    let url = without_user(&url).unwrap_or(url);
    let why = without_secrets(format!("{} {url} is {}", test.method, outcome.says), &test.url);
    let mut found = Vec::new();
    let mut compare = |key, expected: Option<String>, got: String| {
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            found.push(Difference { key, expected, got, why: why.clone() });
        }
    };
    let named = |name: &str| format!("{name:?}");
    let or_none = |name: &Option<String>| name.as_deref().map_or_else(|| "none".to_owned(), named);
    compare("route", expect.route.as_deref().map(named), or_none(&explained.route));
    compare("upstream", expect.upstream.as_deref().map(named), or_none(&outcome.upstream));
    let status = outcome.status.map_or_else(|| "the app's own".to_owned(), |status| status.as_u16().to_string());
    compare("status", expect.status.map(|status| status.as_u16().to_string()), status);
    compare("limits", expect.limits.as_deref().map(sorted), sorted(&outcome.limits));
    found
}

/// A difference is told in the log, in events and by webhooks. What was asked for may be in the text more than once.
fn without_secrets(text: String, url: &Uri) -> String {
    match url.query() {
        Some(query) if !query.is_empty() => text.replace(query, &redacted(query)),
        _ => text,
    }
}

/// The order in which limits are named says nothing.
fn sorted(names: &[String]) -> String {
    let mut names: Vec<&String> = names.iter().collect();
    names.sort();
    format!("{names:?}")
}
