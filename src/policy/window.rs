//! When planned maintenance is due: a cron pattern in a time zone, and how long each occurrence lasts.
//!
//! A pattern speaks of wall clocks. Where a clock goes forward, a time that it skips is the first moment after the
//! gap; where it goes back, a time that it shows twice is the first of the two. How long an occurrence lasts is
//! counted in real time, so across such a night it ends at another wall clock time.

use std::time::Duration;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::cron;

/// One window's plan.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    duration: Duration,
}

/// Once that a window is due: from `start` on, and no longer at `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Schedule {
    /// `None` for what is no cron pattern (five fields; `SUN#1` is the first Sunday).
    pub fn parse(pattern: &str, zone: TimeZone, duration: Duration) -> Option<Self> {
        Some(Self { cron: cron::parse(pattern).ok()?, zone, duration })
    }

    /// The occurrence that `now` is in; of several that overlap, the one that began last.
    pub fn current(&self, now: Timestamp) -> Option<Occurrence> {
        self.last(now).filter(|occurrence| now < occurrence.end)
    }

    /// The occurrence that began last, which may be over.
    pub fn last(&self, now: Timestamp) -> Option<Occurrence> {
        let now_there = now.to_zoned(self.zone.clone());
        let start = self.cron.find_previous_occurrence(&now_there, true).ok()?;
        self.from(start.timestamp()).filter(|occurrence| occurrence.start <= now)
    }

    /// The first occurrence that begins after `now`; `None` for a pattern such as 30 February.
    pub fn next(&self, now: Timestamp) -> Option<Occurrence> {
        let now_there = now.to_zoned(self.zone.clone());
        let start = self.cron.find_next_occurrence(&now_there, false).ok()?;
        self.from(start.timestamp())
    }

    fn from(&self, start: Timestamp) -> Option<Occurrence> {
        Some(Occurrence { start, end: start.checked_add(self.duration).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn schedule(pattern: &str, zone: &str) -> Schedule {
        lasting(HOUR, pattern, zone)
    }

    fn lasting(duration: Duration, pattern: &str, zone: &str) -> Schedule {
        Schedule::parse(pattern, crate::config::zone::find(zone).unwrap(), duration).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn occurrence(start: &str, end: &str) -> Option<Occurrence> {
        Some(Occurrence { start: at(start), end: at(end) })
    }

    #[test]
    fn an_occurrence_holds_from_its_start_until_just_before_its_end() {
        let weekly = schedule("0 3 * * SUN", "UTC");
        let sunday = occurrence("2030-01-06T03:00:00Z", "2030-01-06T04:00:00Z");
        assert_eq!(weekly.current(at("2030-01-06T02:59:59.999Z")), None);
        assert_eq!(weekly.current(at("2030-01-06T03:00:00Z")), sunday);
        assert_eq!(weekly.current(at("2030-01-06T03:59:59.999Z")), sunday);
        assert_eq!(weekly.current(at("2030-01-06T04:00:00Z")), None);
        assert_eq!(weekly.next(at("2030-01-06T02:59:59Z")), sunday);
        assert_eq!(weekly.next(at("2030-01-06T03:00:00Z")).unwrap().start, at("2030-01-13T03:00:00Z"));
    }

    #[test]
    fn a_pattern_has_five_fields() {
        let parse = |pattern| Schedule::parse(pattern, TimeZone::UTC, HOUR);
        assert!(parse(" 0  3 * * SUN ").is_some());
        for pattern in ["@daily", "0 3 * *", "0 0 3 * * SUN", "0 0 3 * * SUN 2030", ""] {
            assert!(parse(pattern).is_none(), "{pattern}");
        }
    }

    #[test]
    fn the_first_sunday_is_not_every_sunday() {
        let monthly = schedule("0 3 * * SUN#1", "UTC");
        assert_eq!(monthly.next(at("2030-01-06T03:00:00Z")).unwrap().start, at("2030-02-03T03:00:00Z"));
        assert_eq!(monthly.current(at("2030-01-13T03:30:00Z")), None);
    }

    #[test]
    fn wall_clock_times_follow_their_zone() {
        let berlin = schedule("0 3 * * *", "Europe/Berlin");
        assert_eq!(berlin.next(at("2030-01-10T00:00:00Z")).unwrap().start, at("2030-01-10T02:00:00Z"));
        assert_eq!(berlin.next(at("2030-07-10T00:00:00Z")).unwrap().start, at("2030-07-10T01:00:00Z"));
    }

    #[test]
    fn a_time_that_the_clock_skips_is_the_first_after_the_gap() {
        // 31 March 2030: 02:00 CET is 03:00 CEST, 01:00 UTC.
        let skipped = schedule("30 2 * * *", "Europe/Berlin");
        let expected = occurrence("2030-03-31T01:00:00Z", "2030-03-31T02:00:00Z");
        assert_eq!(skipped.next(at("2030-03-30T12:00:00Z")), expected);
        assert_eq!(skipped.current(at("2030-03-31T01:30:00Z")), expected);
        assert_eq!(skipped.current(at("2030-03-31T02:00:00Z")), None);
    }

    #[test]
    fn a_time_that_the_clock_shows_twice_is_the_first() {
        // 27 October 2030: 03:00 CEST is 02:00 CET, 01:00 UTC.
        let twice = schedule("30 2 * * *", "Europe/Berlin");
        let expected = occurrence("2030-10-27T00:30:00Z", "2030-10-27T01:30:00Z");
        assert_eq!(twice.next(at("2030-10-26T12:00:00Z")), expected);
        assert_eq!(twice.current(at("2030-10-27T01:00:00Z")), expected);
        assert_eq!(twice.current(at("2030-10-27T01:45:00Z")), None);
        assert_eq!(twice.next(at("2030-10-27T00:30:00Z")).unwrap().start, at("2030-10-28T01:30:00Z"));
    }

    #[test]
    fn an_occurrence_lasts_its_real_time_across_a_change_of_clocks() {
        let night = lasting(3 * HOUR, "0 1 * * *", "Europe/Berlin");
        assert_eq!(night.next(at("2030-03-30T12:00:00Z")), occurrence("2030-03-31T00:00:00Z", "2030-03-31T03:00:00Z"));
        let end = night.next(at("2030-10-26T12:00:00Z")).unwrap().end;
        assert_eq!(end, at("2030-10-27T02:00:00Z"));
    }

    #[test]
    fn overlapping_occurrences_follow_each_other_without_a_gap() {
        let always = schedule("*/30 * * * *", "UTC");
        assert_eq!(always.current(at("2030-01-01T10:29:59Z")).unwrap().start, at("2030-01-01T10:00:00Z"));
        assert_eq!(always.current(at("2030-01-01T10:30:00Z")).unwrap().start, at("2030-01-01T10:30:00Z"));
    }

    #[test]
    fn what_never_comes_is_never_due() {
        let never = schedule("0 3 30 2 *", "UTC");
        assert_eq!(never.next(at("2030-01-01T00:00:00Z")), None);
        assert_eq!(never.current(at("2030-01-01T00:00:00Z")), None);
    }

    /// The two searches, forwards and backwards, agree at every hour of a year with two changes of clocks.
    #[test]
    fn current_finds_what_next_announced() {
        for pattern in ["30 2 * * *", "0 3 * * SUN", "15 1 * * *"] {
            let schedule = schedule(pattern, "America/New_York");
            let mut now = at("2030-01-01T00:00:00Z");
            while now < at("2030-12-31T00:00:00Z") {
                let next = schedule.next(now).unwrap();
                assert_eq!(schedule.current(next.start), Some(next), "{pattern}");
                let last = Timestamp::from_second(next.end.as_second() - 1).unwrap();
                assert_eq!(schedule.current(last), Some(next), "{pattern}");
                now = next.start;
            }
        }
    }
}
