//! Time zones by their names: the machine's own, which may be newer, or else those that Flagstone carries.

use flagstone_assets::zones;
use jiff::tz::TimeZone;

/// The zone of an IANA name, in whatever case.
pub fn find(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok().or_else(|| carried(name))
}

/// What `TZ` says, else `/etc/localtime`, else UTC (as in a container without either).
pub fn of_system() -> TimeZone {
    // A name is not found where the machine has no zones.
    let named = || std::env::var("TZ").ok().and_then(|name| carried(name.strip_prefix(':').unwrap_or(&name)));
    TimeZone::try_system().ok().or_else(named).unwrap_or(TimeZone::UTC)
}

fn carried(name: &str) -> Option<TimeZone> {
    let zone = zones::find(name)?;
    TimeZone::tzif(&zone.name, &zone.tzif).ok()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_is_carried_tells_the_time_like_the_machine() {
        let noon: Timestamp = "2026-07-01T12:00:00Z".parse().unwrap();
        let there = |name| noon.to_zoned(carried(name).unwrap()).strftime("%H:%M %Z").to_string();
        assert_eq!(there("Europe/Berlin"), "14:00 CEST");
        assert_eq!(there("asia/kathmandu"), "17:45 +0545");
        assert_eq!(there("UTC"), "12:00 UTC");
        assert_eq!(find("America/New_York").unwrap().iana_name(), Some("America/New_York"));
    }

    #[test]
    fn what_is_no_zone_is_none() {
        for name in ["Europe/Atlantis", "", "../etc/passwd", "CEST-"] {
            assert!(find(name).is_none(), "{name:?}");
        }
    }
}
