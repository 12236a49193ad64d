//! Rates as people write them: `"100/1m"` is a hundred in a minute.

use std::num::NonZeroU32;

use super::duration;
use super::model::Rate;

/// What the schema accepts.
pub const PATTERN: &str = "^[0-9]+/([0-9]+(d|h|m|s|ms|us))+$";

/// Reads `COUNT/DURATION`, both above zero, and no faster than one in a nanosecond.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn parse(text: &str) -> Result<Rate, String> {
    let Some((count, period)) = text.split_once('/') else {
        return Err(how_to_write());
    };
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(how_to_write());
    }
    let count: u32 =
        count.parse().map_err(|_| format!("a rate's count is at most {}: write a smaller one", u32::MAX))?;
    let Some(count) = NonZeroU32::new(count) else {
        return Err(
            "a rate of 0 would let nothing pass: to refuse everyone use deny, to stop limiting take the limit out"
                .to_owned(),
        );
    };
    if ["d", "h", "m", "s", "ms", "us"].contains(&period) {
        return Err(format!("the period needs a number: write \"{count}/1{period}\""));
    }
    let period = duration::parse(period).map_err(|error| format!("after the slash: {error}"))?;
    if period.is_zero() {
        return Err("a rate's period is above zero: write \"100/1m\"".to_owned());
    }
    match period.as_nanos() >= u128::from(count.get()) {
        true => Ok(Rate { count, period }),
        false => Err("a rate is at most one in a nanosecond: write a smaller count or a longer period".to_owned()),
    }
}

fn how_to_write() -> String {
    "not a rate: write a count, a slash and a duration, such as \"100/1m\"".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_hundred_in_a_minute() {
        let rate = parse("100/1m").unwrap();
        assert_eq!((rate.count.get(), rate.period), (100, Duration::from_secs(60)));
    }

    #[test]
    fn what_is_not_a_rate_is_refused() {
        for text in [
            "",
            "100",
            "0/1m",
            "100/0s",
            "/1m",
            "100/",
            "-1/1m",
            "+1/1m",
            "1.5/1s",
            "100/m",
            "5000000000/1m",
            "2000/1us",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_period_without_number_is_told_so() {
        assert!(parse("10/s").unwrap_err().contains("\"10/1s\""));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(count in 1..=u32::MAX, micros in 5_000_000..1_000_000_000_000_u64) {
            let count = NonZeroU32::new(count).unwrap();
            let rate = Rate { count, period: Duration::from_micros(micros) };
            prop_assert_eq!(parse(&rate.to_string()), Ok(rate));
        }

        #[test]
        fn whatever_is_wrong_comes_with_a_remedy(text in "\\PC*|-?[0-9]{0,25}[a-zA-Z]{0,3}(/[0-9]{1,9}[a-z]{1,2})?") {
            if let Err(error) = parse(&text) {
                prop_assert!(error.contains(": "), "{}", error);
            }
        }
    }
}
