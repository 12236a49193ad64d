//! Figures as people read them, and colour where a terminal shows it.

use std::io::IsTerminal;

use jiff::Timestamp;
use serde_json::Value;

/// How a word is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
    /// Beside the point.
    Faint,
}

impl Tone {
    /// `text` in its colour.
    pub(super) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "1;31",
            Self::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Whether stdout shows colours, and nobody asked for none (<https://no-color.org>).
pub(super) fn has_colours() -> bool {
    let is_unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    is_unset("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        && std::io::stdout().is_terminal()
}

/// `5m ago`, `in 3d 4h`, `now`.
pub(super) fn relative(time: Timestamp, now: Timestamp) -> String {
    match time.as_second() - now.as_second() {
        0 => "now".to_owned(),
        ahead @ 1.. => format!("in {}", span(ahead.unsigned_abs())),
        behind => format!("{} ago", span(behind.unsigned_abs())),
    }
}

/// The same of an RFC 3339 text; `-` when it is none.
pub(super) fn relative_of(time: &Value, now: Timestamp) -> String {
    let time = time.as_str().and_then(|text| text.parse().ok());
    time.map_or_else(|| "-".to_owned(), |time| relative(time, now))
}

/// The two largest units: `45s`, `5m 10s`, `3h 20m`, `12d 4h`.
pub(super) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = UNITS.iter().position(|&(unit, _)| seconds >= unit).unwrap_or(UNITS.len() - 1);
    let (unit, name) = UNITS[first];
    let mut text = format!("{}{name}", seconds / unit);
    if let Some(&(unit, name)) = UNITS.get(first + 1) {
        match seconds % UNITS[first].0 / unit {
            0 => {}
            rest => text += &format!(" {rest}{name}"),
        }
    }
    text
}

/// `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.34 ms`, `12 ms`, `1.5 s`.
pub(super) fn millis(millis: f64) -> String {
    match millis {
        ..10.0 => format!("{millis:.2} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1000.0),
    }
}

/// Nothing that a terminal would act on: names come from files and requests that others wrote.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

/// The same of a text of several lines.
pub(super) fn shown_lines(text: &str) -> String {
    text.split('\n').map(shown).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [(0, "0s"), (45, "45s"), (60, "1m"), (310, "5m 10s"), (3_600, "1h"), (12_000, "3h 20m")]
        {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(span(12 * 86_400 + 4 * 3_600 + 59 * 60), "12d 4h");
        assert_eq!(span(86_400 + 59), "1d");
    }

    #[test]
    fn times_are_told_from_now() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(relative(at(0), at(310)), "5m 10s ago");
        assert_eq!(relative(at(3_600), at(0)), "in 1h");
        assert_eq!(relative(at(5), at(5)), "now");
        assert_eq!(relative_of(&Value::Null, at(5)), "-");
    }

    #[test]
    fn numbers_are_grouped_and_times_have_units() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.344, 12.4, 1_500.0].map(millis), ["0.34 ms", "12 ms", "1.5 s"]);
    }

    #[test]
    fn a_name_cannot_write_on_the_terminal() {
        assert_eq!(shown("a\x1b[2Jb\n"), "a?[2Jb?");
        assert_eq!(shown_lines("a\x1b\n\nb\r\n"), "a?\n\nb?\n");
    }
}
