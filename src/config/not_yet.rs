//! Keys that are read and proven but do nothing so far. A row goes when its behaviour comes.

use super::document::Path;
use super::model::{Config, Upstream};
use super::problem::Problem;

/// Key below its table, whether it is away from its default, and what happens instead.
type Row<T> = (&'static str, fn(&T) -> bool, &'static str);

const UPSTREAM: &[Row<Upstream>] =
    &[("affinity", |upstream| upstream.affinity_cookie.is_some(), "sessions do not stick")];

const WHOLE: &[Row<Config>] = &[
    ("host", |config| config.host != super::check::default_host(), "the machine is not looked at"),
    ("test", |config| !config.tests.is_empty(), "tests are not run"),
];

/// One warning for every such key that is set away from its default; without file and line, which
/// [`super::Loaded::locate`] adds.
pub fn not_yet(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let root = Path::root();
    for (name, upstream) in &config.upstreams {
        rows(UPSTREAM, upstream, root.key("upstream").key(name).as_str(), &mut problems);
    }
    rows(WHOLE, config, "", &mut problems);
    problems
}

fn rows<T>(rows: &[Row<T>], value: &T, below: &str, problems: &mut Vec<Problem>) {
    for (key, is_set, sentence) in rows {
        if is_set(value) {
            let dot = if below.is_empty() { "" } else { "." };
            let problem = Problem::new(format!("{below}{dot}{key}"), "not yet active");
            problems.push(problem.with_help(*sentence));
        }
    }
}

/// Every row as a key of the reference file: `upstream.*.hold`.
#[cfg(test)]
pub(super) fn keys() -> Vec<String> {
    let below = |prefix: &str, key: &str| format!("{prefix}{key}");
    let mut keys: Vec<String> = UPSTREAM.iter().map(|row| below("upstream.*.", row.0)).collect();
    keys.extend(WHOLE.iter().map(|row| row.0.to_owned()));
    keys
}
