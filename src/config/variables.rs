//! What variables hold stays out of what is told: it may be a secret that has got into the wrong key.
//!
//! Problems go into logs, events and webhooks. Their value is shown as it is written in the file, and where message or
//! remedy would repeat what a variable holds, `…` stands in its place.

use std::collections::BTreeMap;

use super::document::is_within;
use super::problem::Problem;

/// Fewer characters in a row tell nobody anything, and occur in most texts.
const PIECE_CHARS: usize = 4;

/// The texts of a file that have variables in them, by their places.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables(BTreeMap<String, Written>);

#[derive(Clone, Debug)]
struct Written {
    text: String,
    /// What the environment gave.
    held: Vec<String>,
}

impl Variables {
    pub(super) fn note(&mut self, path: &str, text: &str, held: Vec<String>) {
        self.0.insert(path.to_owned(), Written { text: text.to_owned(), held });
    }

    /// A text as it is written in the file, if it has variables in it.
    pub(super) fn written(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(|written| written.text.as_str())
    }

    /// The problem without what variables hold at its place, and its value without what they hold below it.
    pub(super) fn hide(&self, problem: Problem) -> Problem {
        if let Some(Written { text, held }) = self.0.get(&problem.path) {
            let message = without(&problem.message, held);
            let help = problem.help.as_ref().map(|help| without(help, held));
            return match problem.value.is_some() {
                true => Problem { message, help, ..problem.with_text(text) },
                false => Problem { message, help, ..problem },
            };
        }
        let Some(value) = &problem.value else { return problem };
        let below = self.0.iter().filter(|(path, _)| is_within(path, &problem.path));
        let held: Vec<String> = below.flat_map(|(_, written)| written.held.clone()).collect();
        Problem { value: Some(without(value, &held)), ..problem }
    }
}

/// The text with `…` for each part of it that is a part of what is held, in whatever case.
fn without(text: &str, held: &[String]) -> String {
    let lowered = |text: &str| text.chars().map(|char| char.to_ascii_lowercase()).collect::<Vec<_>>();
    let held: Vec<_> = held.iter().map(|value| lowered(value)).collect();
    let is_held = |piece: &[char]| held.iter().any(|value| value.windows(PIECE_CHARS).any(|own| own == piece));
    let chars = lowered(text);
    let mut is_hidden = vec![false; chars.len()];
    for (start, piece) in chars.windows(PIECE_CHARS).enumerate().filter(|(_, piece)| is_held(piece)) {
        is_hidden[start..start + piece.len()].fill(true);
    }
    let mut shown = String::with_capacity(text.len());
    for (index, char) in text.chars().enumerate() {
        match is_hidden[index] {
            false => shown.push(char),
            true if index == 0 || !is_hidden[index - 1] => shown.push('…'),
            true => {}
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_left_out_wherever_it_is_repeated() {
        let held = ["s3cret-Token".to_owned(), "abc".to_owned()];
        for (text, shown) in [
            ("\"s3cret-token\" is not a level", "\"…\" is not a level"),
            ("write \"S3CRET-TOKEN\"", "write \"…\""),
            ("cret-T and s3cre, s3c", "… and …, s3c"),
            ("s3cret-Tokens3cret-Token", "…"),
            ("write \"abc\"", "write \"abc\""),
            ("äöü s3cret-Token äöü", "äöü … äöü"),
            ("", ""),
        ] {
            assert_eq!(without(text, &held), shown);
        }
    }
}
