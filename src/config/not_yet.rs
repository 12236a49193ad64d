//! Keys that are read and proven but do nothing so far. A row goes when its behaviour comes.

use super::model::Config;
use super::problem::Problem;

/// Key, whether it is away from its default, and what happens instead.
type Row = (&'static str, fn(&Config) -> bool, &'static str);

const ROWS: &[Row] = &[];

/// One warning for every such key that is set away from its default; without file and line, which
/// [`super::Loaded::locate`] adds.
pub fn not_yet(config: &Config) -> Vec<Problem> {
    let set = ROWS.iter().filter(|(_, is_set, _)| is_set(config));
    set.map(|(key, _, sentence)| Problem::new(*key, "not yet active").with_help(*sentence)).collect()
}

/// Every row as a key of the reference file.
#[cfg(test)]
pub(super) fn keys() -> Vec<String> {
    ROWS.iter().map(|row| row.0.to_owned()).collect()
}
