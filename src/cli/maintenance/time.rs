//! Times as an operator writes and reads them.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// RFC 3339, or `HH:MM` for the next time the clock shows that where `now` is.
pub(super) fn parse(text: &str, now: &Zoned) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let time = clock(text)?;
    let today = now.date().to_datetime(time).to_zoned(now.time_zone().clone()).ok()?;
    let next = if today > *now { today } else { tomorrow(now, time)? };
    Some(next.timestamp())
}

/// In the local zone, with the day when it is another one.
pub(super) fn show(time: Timestamp, now: &Zoned) -> String {
    let zone: TimeZone = now.time_zone().clone();
    let local = time.to_zoned(zone);
    let format = if local.date() == now.date() { "%H:%M %Z" } else { "%Y-%m-%d %H:%M %Z" };
    local.strftime(format).to_string()
}

fn tomorrow(now: &Zoned, time: Time) -> Option<Zoned> {
    let date = now.date().checked_add(1.day()).ok()?;
    date.to_datetime(time).to_zoned(now.time_zone().clone()).ok()
}

fn clock(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |part: &str, length: std::ops::RangeInclusive<usize>| {
        let plain = length.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse().ok()).flatten()
    };
    Time::new(digits(hour, 1..=2)?, digits(minute, 2..=2)?, 0, 0).ok()
}
