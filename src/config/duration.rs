//! Durations as people write them: `"250ms"`, `"10s"`, `"1h30m"`.

use std::time::Duration;

/// Ten years. Longer is a slip, and adding it to an instant could overflow.
pub const MAX: Duration = Duration::from_secs(3650 * 86_400);

/// What the schema accepts; looser than [`parse`] in the order of the parts only.
pub(super) const PATTERN: &str = "^([0-9]+(d|h|m|s|ms|us))+$";

/// Largest first: parts must come in this order.
const UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// Reads whole numbers with units `d`, `h`, `m`, `s`, `ms`, `us`, largest first, each at most once.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn parse(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err("a duration cannot be negative: write a number and a unit".to_owned());
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("a duration needs a unit: write \"{text}s\" for seconds"));
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut micros: u64 = 0;
    while !rest.is_empty() {
        let (digits, after) = split_at_first(rest, |c| !c.is_ascii_digit());
        let (unit, next) = split_at_first(after, |c| c.is_ascii_digit());
        if let ("", false, Some((next, _))) = (unit, digits.is_empty(), units.clone().next()) {
            return Err(format!(
                "not a duration: \"{digits}\" at the end lacks a unit: did you mean \"{text}{next}\"?"
            ));
        }
        // Going on where the last unit was found is what keeps parts in order and single.
        let factor = units.by_ref().find(|&&(name, _)| name == unit).map(|&(_, factor)| factor);
        let (false, Some(factor)) = (digits.is_empty(), factor) else {
            return Err(how_to_write());
        };
        micros = digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(factor))
            .and_then(|part| micros.checked_add(part))
            .ok_or_else(too_long)?;
        rest = next;
    }
    if text.is_empty() { Err(how_to_write()) } else { bounded(Duration::from_micros(micros)) }
}

/// A duration that was read in another way, if it is one that [`parse`] would take.
///
/// # Errors
/// It is longer than [`MAX`], in the same words.
pub fn bounded(duration: Duration) -> Result<Duration, String> {
    if duration > MAX { Err(too_long()) } else { Ok(duration) }
}

/// The shortest text that [`parse`] reads back, to the microsecond: `90 min` is `"1h30m"`.
pub fn format(duration: Duration) -> String {
    let mut micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if micros == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, factor) in UNITS {
        if micros >= factor {
            text.push_str(&format!("{}{name}", micros / factor));
            micros %= factor;
        }
    }
    text
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

fn how_to_write() -> String {
    "not a duration: write whole numbers with units, largest first, such as \"250ms\", \"10s\" or \"1h30m\"".to_owned()
}

fn too_long() -> String {
    "a duration is at most 10 years: write \"3650d\" or less".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spec_examples_are_read() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(parse("7us"), Ok(Duration::from_micros(7)));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in ["", "s", "10", "-5s", "5m1h", "1s1s", "1.5s", "10 s", "10S", "1w", "1h30", "99999999999999999999s"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ten_years_is_the_most() {
        assert_eq!(parse("3650d"), Ok(MAX));
        assert_eq!(parse("3650d1us"), Err(too_long()));
    }

    #[test]
    fn a_bare_number_is_told_its_unit() {
        assert!(parse("30").unwrap_err().contains("\"30s\""));
        let lacks = |text| parse(text).unwrap_err();
        assert_eq!(lacks("1h30"), "not a duration: \"30\" at the end lacks a unit: did you mean \"1h30m\"?");
        assert!(lacks("2d1h5m30").contains("\"2d1h5m30s\"") && lacks("10s500").contains("\"10s500ms\""));
        assert_eq!(lacks("7us5"), how_to_write(), "there is none below");
    }

    proptest! {
        #[test]
        fn what_is_formatted_is_read_back(micros in 0..=u64::try_from(MAX.as_micros()).unwrap()) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn whatever_is_wrong_comes_with_a_remedy(text in "\\PC*|-?[0-9]{0,25}[a-zA-Z]{0,3}(/[0-9]{1,9}[a-z]{1,2})?") {
            if let Err(error) = parse(&text) {
                prop_assert!(error.contains(": "), "{}", error);
            }
        }

        #[test]
        fn digits_and_units_never_panic(text in "([0-9]{0,22}(d|h|m|s|ms|us)?){0,8}") {
            let _ = parse(&text);
        }
    }
}
