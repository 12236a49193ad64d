//! Wall-clock times as text, computed once per second and reused within it.
//!
//! Not a clock: it never reads one. Callers pass Unix milliseconds, which they read once per wake-up.

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::zone;

/// The zone of `$time_local`.
static LOCAL_ZONE: LazyLock<TimeZone> = LazyLock::new(zone::of_system);

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The last instant shown, in December 9999: far enough from the calendar's end for any zone's offset.
const LATEST_MS: u64 = 253_400_000_000_000;

/// The text of one second, renewed when another second is asked for.
#[derive(Clone, Debug)]
pub struct Stamp {
    zone: TimeZone,
    /// The Unix second the texts below show; `None` before the first use.
    second: Option<u64>,
    /// `22/Nov/2026:22:02:20 +0000`
    local: [u8; 26],
    /// `2026-11-22T22:02:20.123Z`; the milliseconds are written anew on every use.
    utc: [u8; 24],
}

impl Stamp {
    /// Shows `$time_local` in the system's time zone.
    pub fn system() -> Self {
        Self::in_zone(LOCAL_ZONE.clone())
    }

    /// Shows `$time_local` in `zone`.
    pub fn in_zone(zone: TimeZone) -> Self {
        Self { zone, second: None, local: *b"01/Jan/1970:00:00:00 +0000", utc: *b"1970-01-01T00:00:00.000Z" }
    }

    /// nginx's `$time_local`, such as `22/Nov/2026:22:02:20 +0000`.
    pub fn local(&mut self, unix_ms: u64) -> &[u8; 26] {
        self.renew(unix_ms);
        &self.local
    }

    /// RFC 3339 in UTC with milliseconds, such as `2026-11-22T22:02:20.123Z`.
    pub fn rfc3339(&mut self, unix_ms: u64) -> &[u8; 24] {
        self.renew(unix_ms);
        digits(&mut self.utc[20..23], unix_ms % 1000);
        &self.utc
    }

    fn renew(&mut self, unix_ms: u64) {
        let second = unix_ms.min(LATEST_MS) / 1000;
        if self.second == Some(second) {
            return;
        }
        self.second = Some(second);
        let timestamp = Timestamp::from_second(second as i64).expect("the latest second is within the calendar");
        self.write_utc(timestamp);
        self.write_local(timestamp);
    }

    fn write_utc(&mut self, timestamp: Timestamp) {
        let at = timestamp.to_zoned(TimeZone::UTC).datetime();
        digits(&mut self.utc[0..4], at.year() as u64);
        digits(&mut self.utc[5..7], at.month() as u64);
        digits(&mut self.utc[8..10], at.day() as u64);
        digits(&mut self.utc[11..13], at.hour() as u64);
        digits(&mut self.utc[14..16], at.minute() as u64);
        digits(&mut self.utc[17..19], at.second() as u64);
    }

    fn write_local(&mut self, timestamp: Timestamp) {
        let offset = self.zone.to_offset(timestamp);
        let at = offset.to_datetime(timestamp);
        digits(&mut self.local[0..2], at.day() as u64);
        self.local[3..6].copy_from_slice(MONTHS[(at.month() - 1) as usize]);
        digits(&mut self.local[7..11], at.year() as u64);
        digits(&mut self.local[12..14], at.hour() as u64);
        digits(&mut self.local[15..17], at.minute() as u64);
        digits(&mut self.local[18..20], at.second() as u64);
        self.local[21] = if offset.is_negative() { b'-' } else { b'+' };
        let minutes = u64::from(offset.seconds().unsigned_abs()) / 60;
        digits(&mut self.local[22..24], minutes / 60);
        digits(&mut self.local[24..26], minutes % 60);
    }
}

/// Writes `value` in decimal, zero-padded to the width of `out`.
fn digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22T22:02:20.123Z
    const AT: u64 = 1_795_384_940_123;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn utc_is_rfc_3339_with_milliseconds() {
        let mut stamp = Stamp::in_zone(TimeZone::UTC);
        assert_eq!(text(stamp.rfc3339(AT)), "2026-11-22T22:02:20.123Z");
        assert_eq!(text(stamp.rfc3339(AT + 4)), "2026-11-22T22:02:20.127Z");
        assert_eq!(text(stamp.rfc3339(AT + 1000)), "2026-11-22T22:02:21.123Z");
    }

    #[test]
    fn local_follows_the_zone_and_its_summer_time() {
        let mut stamp = Stamp::in_zone(zone::find("America/St_Johns").unwrap());
        assert_eq!(text(stamp.local(AT)), "22/Nov/2026:18:32:20 -0330");
        let mut stamp = Stamp::in_zone(zone::find("Asia/Kathmandu").unwrap());
        assert_eq!(text(stamp.local(AT)), "23/Nov/2026:03:47:20 +0545");
        let mut stamp = Stamp::in_zone(zone::find("Europe/Rome").unwrap());
        assert_eq!(text(stamp.local(AT)), "22/Nov/2026:23:02:20 +0100");
        assert_eq!(text(stamp.local(AT - 150 * 86_400_000)), "26/Jun/2026:00:02:20 +0200");
    }

    #[test]
    fn absurd_clocks_are_clamped_not_a_panic() {
        let mut stamp = Stamp::system();
        stamp.local(0);
        stamp.local(u64::MAX);
        assert!(text(stamp.rfc3339(u64::MAX)).starts_with("9999-12-"));
    }
}
